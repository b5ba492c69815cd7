//! What the model proves, what it finds, and that both can be trusted.

mod bad_input;
mod counterexamples;
mod live;
mod published;
mod tables;
mod trust;

use punchbench_reference::hazards::hazard;
use punchbench_reference::{
    Anomaly, Exploration, Limits, Model, Policy, Setup, compile, explore, policies,
};

/// A built-in policy.
fn policy(name: &str) -> Policy {
    let found = policies().into_iter().find(|p| p.policy == name);
    found.unwrap_or_else(|| panic!("no policy {name}"))
}

fn model(setup: &Setup, policy: &Policy) -> Model {
    compile(setup, policy).unwrap()
}

/// Explores a hazard to the end.
fn explored(name: &str, policy: &Policy) -> Exploration {
    let result = explore(&model(&hazard(name).unwrap(), policy), &Limits::default());
    assert!(result.complete);
    result
}

fn found(name: &str, policy: &Policy) -> Vec<Anomaly> {
    explored(name, policy).found.into_iter().collect()
}
