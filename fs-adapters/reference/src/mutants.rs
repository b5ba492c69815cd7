//! Each policy with one of its hooks left out: either something goes wrong that did not before, or the hook
//! is not needed by anything that is modelled, which then is proved and counted.

use std::collections::BTreeSet;

use crate::anomaly::Anomaly;
use crate::compile::compile;
use crate::explore::{Limits, explore};
use crate::hook::Hook;
use crate::policy::Policy;
use crate::setup::Setup;

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// The policy.
    pub policy: String,
    /// The hook that was left out.
    pub hook: Hook,
    /// What came of it.
    pub fate: Fate,
}

/// What comes of leaving a hook out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// This goes wrong in this set-up, and did not with the hook.
    Killed {
        /// The set-up.
        setup: String,
        /// What goes wrong.
        anomaly: Anomaly,
    },
    /// Nothing does in any set-up, all of them visited completely.
    Redundant {
        /// States, together.
        states: usize,
        /// Set-ups whose programs the hook changes.
        setups: usize,
    },
    /// Nothing was found, but not everything was visited.
    Open,
}

/// All mutants of a policy, on these set-ups.
pub fn mutants(policy: &Policy, setups: &[Setup], limits: &Limits) -> Vec<Mutant> {
    let whole: Vec<(&Setup, _)> = setups
        .iter()
        .filter_map(|s| Some((s, compile(s, policy).ok()?)))
        .collect();
    let anomalies: Vec<BTreeSet<Anomaly>> = whole
        .iter()
        .map(|(_, model)| explore(model, limits).found)
        .collect();
    let fate = |hook: Hook| {
        let mutant = policy.without(hook);
        let (mut states, mut changed, mut complete) = (0, 0, true);
        for ((setup, model), known) in whole.iter().zip(&anomalies) {
            let Ok(mutated) = compile(setup, &mutant) else {
                continue;
            };
            if mutated.programs == model.programs {
                continue;
            }
            let result = explore(&mutated, limits);
            if let Some(anomaly) = result.found.iter().find(|a| !known.contains(a)) {
                return Fate::Killed {
                    setup: setup.name.clone(),
                    anomaly: *anomaly,
                };
            }
            complete &= result.complete;
            states += result.states;
            changed += 1;
        }
        match complete {
            true => Fate::Redundant {
                states,
                setups: changed,
            },
            false => Fate::Open,
        }
    };
    let each = policy.hooked().into_iter().map(|hook| Mutant {
        policy: policy.policy.clone(),
        hook,
        fate: fate(hook),
    });
    each.collect()
}

/// As a table of Markdown.
pub fn markdown(mutants: &[Mutant]) -> String {
    let mut out = String::from("| policy | without | what comes of it |\n| --- | --- | --- |\n");
    for m in mutants {
        let fate = match &m.fate {
            Fate::Killed { setup, anomaly } => format!("{anomaly} in {setup}"),
            Fate::Redundant { setups: 0, .. } => "nothing: no set-up gets there".into(),
            Fate::Redundant { states, setups } => {
                format!("nothing: redundant, proved in {setups} set-ups, {states} states")
            }
            Fate::Open => "open: not everything was visited".into(),
        };
        out.push_str(&format!("| {} | {} | {fate} |\n", m.policy, m.hook.word()));
    }
    out
}
