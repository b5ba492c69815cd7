//! The record of a trial before anything is known of its outcome. Runner and trial fill in the rest; what a
//! runner has to say of a trial that said nothing itself starts here too.

use std::time::{SystemTime, UNIX_EPOCH};

use punchbench_results::{Evidence, Expectation, Record, SCHEMA_VERSION, Verdict, is_control};
use punchbench_scenarios::{expectation, match_issue, match_log};

use crate::plan::Trial;

/// A record that claims nothing.
pub fn record(trial: &Trial) -> Record {
    let kernel = nix::sys::utsname::uname();
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Record {
        schema: SCHEMA_VERSION,
        scenario: trial.scenario.scenario.clone(),
        target: trial.target.to_string(),
        driver: String::new(),
        kernel: kernel
            .as_ref()
            .map(|k| text(k.release()))
            .unwrap_or_default(),
        kernel_version: kernel
            .as_ref()
            .map(|k| text(k.version()))
            .unwrap_or_default(),
        verdict: Verdict::Error,
        at: None,
        expectation: Expectation::Unexpected,
        known_issue: None,
        reason: "the trial ended without a word".to_owned(),
        hint: None,
        seed: trial.seed,
        replay: trial.replay.clone(),
        seconds: 0.0,
        first_violation_s: None,
        evidence: Evidence {
            direct: "none".to_owned(),
            ..Evidence::default()
        },
        floor: trial.scenario.floor(),
        violations: Vec::new(),
        placement: Vec::new(),
        setup: Vec::new(),
        log: Vec::new(),
        artefacts: Vec::new(),
        started: started.as_secs_f64(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        trial: trial.id.clone(),
    }
}

/// Holds a finished record against the known issues; what the reference showed is held against the explorer, by
/// the trial's own process.
pub fn judge_expectation(record: &mut Record) {
    if is_control(&record.target) {
        if matches!(record.verdict, Verdict::Unsupported | Verdict::Skipped) {
            record.expectation = Expectation::Expected;
        }
        return;
    }
    let (scenario, target) = (&record.scenario, &record.target);
    let (driver, kernel) = (&record.driver, &record.kernel);
    let issue = match_log(scenario, target, driver, kernel, &record.log)
        .or_else(|| match_issue(scenario, target, driver, kernel));
    record.expectation = expectation(&record.verdict, issue);
    record.known_issue = issue.map(|i| i.issue.clone());
}
