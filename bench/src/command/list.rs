//! `punchbench list`: the scenarios and the targets that there are.

use punchbench_fs::Target;
use punchbench_fs::elsewhere::ELSEWHERE;
use punchbench_reference::policies;
use punchbench_results::exit_code;
use punchbench_scenarios::{catalog, one_line};
use serde_json::json;

use crate::target::REFERENCE;

/// Prints them.
pub fn run(as_json: bool) -> anyhow::Result<u8> {
    let (scenarios, targets) = (catalog(), Target::all(true));
    if as_json {
        let scenarios: Vec<_> = scenarios
            .iter()
            .map(|s| json!({"scenario": s.scenario, "claim": s.claim, "source": s.source, "needs": s.needs}))
            .collect();
        let mounted = targets.iter().map(
            |t| json!({"target": t.to_string(), "base": t.profile.name.is_empty(), "about": t.profile.about}),
        );
        let reference = policies().into_iter().map(
            |p| json!({"target": format!("{REFERENCE}{}", p.policy), "base": false, "about": p.about}),
        );
        let targets: Vec<_> = mounted.chain(reference).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(
                &json!({"scenarios": scenarios, "targets": targets, "elsewhere": ELSEWHERE})
            )?
        );
        return Ok(exit_code::EXPECTED);
    }
    println!("Scenarios (`punchbench explain NAME` says more):");
    scenarios.iter().for_each(|s| println!("  {}", one_line(s)));
    println!("\nTargets:");
    for target in &targets {
        println!("  {:<16} {}", target.to_string(), target.profile.about);
    }
    println!("\nThe reference implementation, under a locking policy (also {REFERENCE}FILE.yaml):");
    for policy in policies() {
        println!("  {REFERENCE}{:<24} {}", policy.policy, policy.about);
    }
    println!("\nFilesystems that are not made here:");
    for other in ELSEWHERE {
        println!(
            "  {:<16} {}\n{:19}{}",
            other.name, other.needs, "", other.command
        );
    }
    Ok(exit_code::EXPECTED)
}
