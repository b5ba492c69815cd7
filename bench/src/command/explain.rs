//! `punchbench explain SCENARIO`: what races what, and what is checked.

use anyhow::bail;
use punchbench_results::exit_code;
use punchbench_scenarios::{Scenario, catalog, explain, load_file};

use crate::plan::{PlanError, nearest};

/// Explains one, by name or file.
pub fn run(name: &str) -> anyhow::Result<u8> {
    print!("{}", explain(&find(name)?));
    Ok(exit_code::EXPECTED)
}

fn find(name: &str) -> anyhow::Result<Scenario> {
    if name.ends_with(".yaml") {
        return Ok(load_file(name.as_ref()).map_err(|e| PlanError::Scenario(e.to_string()))?);
    }
    let all = catalog();
    let near = nearest(name, all.iter().map(|s| s.scenario.as_str()));
    match all.into_iter().find(|s| s.scenario == name) {
        Some(scenario) => Ok(scenario),
        None => bail!(PlanError::NoScenario {
            glob: name.to_owned(),
            nearest: near
        }),
    }
}
