//! The committed tables are what the model says today; `PUNCHBENCH_UPDATE=1` writes them anew.

use std::path::Path;

use punchbench_reference::mutants::{Fate, markdown, mutants};
use punchbench_reference::{Limits, Setup, cell, policies, subjects};
use punchbench_scenarios::catalog;

fn assert_golden(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PUNCHBENCH_UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&file, actual).expect("cannot write the table");
        return;
    }
    let expected = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; run with PUNCHBENCH_UPDATE=1", file.display()));
    for (n, (want, got)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(
            want,
            got,
            "{path}, line {}; PUNCHBENCH_UPDATE=1 accepts it",
            n + 1
        );
    }
    assert_eq!(
        expected.len(),
        actual.len(),
        "{path}; PUNCHBENCH_UPDATE=1 accepts it"
    );
}

#[test]
fn every_policy_on_every_set_up_comes_out_as_committed() {
    let policies = policies();
    let mut out = String::from(
        "# Every policy on every set-up\n\n\
         `proved N`: none of the N states that any order of steps leads to is wrong. \
         `–`: not modelled; the reasons are below the table.\n\n|  |",
    );
    policies
        .iter()
        .for_each(|p| out.push_str(&format!(" {} |", p.policy)));
    out.push_str(&format!("\n|{}\n", " --- |".repeat(policies.len() + 1)));
    let mut reasons = String::new();
    for subject in subjects(&catalog()) {
        out.push_str(&format!("| {} |", subject.name));
        for policy in &policies {
            let cell = cell(&subject, policy, &Limits::default(), false);
            assert!(
                !matches!(cell.outcome, punchbench_reference::Outcome::Open { .. }),
                "{} under {} is neither proved nor broken",
                cell.setup,
                cell.policy
            );
            out.push_str(&format!(" {} |", cell.label()));
        }
        out.push('\n');
        if let Err(why) = &subject.setup {
            reasons.push_str(&format!("- {}: {why}.\n", subject.name));
        }
    }
    assert_golden(
        "tables/matrix.md",
        &format!("{out}\nNot modelled:\n{reasons}"),
    );
}

#[test]
fn every_mutant_is_killed_or_proved_redundant() {
    let setups: Vec<Setup> = subjects(&catalog())
        .into_iter()
        .filter_map(|s| s.setup.ok())
        .collect();
    let all: Vec<_> = policies()
        .iter()
        .flat_map(|p| mutants(p, &setups, &Limits::default()))
        .collect();
    assert!(all.iter().all(|m| m.fate != Fate::Open));
    let killed = all
        .iter()
        .filter(|m| matches!(m.fate, Fate::Killed { .. }))
        .count();
    assert!(killed > 0);
    let head = format!(
        "# Policies without one of their hooks\n\n{killed} of {} go wrong; of the others it is proved that nothing \
         modelled needs them.\n\n",
        all.len()
    );
    assert_golden("tables/mutants.md", &format!("{head}{}", markdown(&all)));
}
