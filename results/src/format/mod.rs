//! Formats for other programs and other people, one file each; `export.rs` lists them.

pub mod jsonl;
pub mod junit;
pub mod kcidb;
pub mod ktap;
pub mod mail;

use crate::{Expectation, Record, Verdict};

/// What a harness that knows just pass, fail and skip should make of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Exercised, and nothing violated; or a known issue that is gone, which the text says.
    Pass,
    /// A violation that nothing explains.
    Fail,
    /// A violation that a known issue covers, or that a control must have.
    ExpectedFail,
    /// Not run, or not exercised enough to claim anything: never a pass.
    Skip,
    /// The bench failed.
    Error,
}

impl Outcome {
    fn of(record: &Record) -> Outcome {
        let expected = record.expectation == Expectation::Expected;
        match record.verdict {
            Verdict::Error => Outcome::Error,
            Verdict::Unsupported | Verdict::Skipped | Verdict::Inconclusive => Outcome::Skip,
            Verdict::Safe => Outcome::Pass,
            v if v.is_violation() && expected => Outcome::ExpectedFail,
            _ => Outcome::Fail,
        }
    }
}

/// The verdict, why, and the known issue, in one line.
fn in_short(record: &Record) -> String {
    let mut text = format!("{}: {}", record.verdict, record.reason);
    if let Some(hint) = &record.hint {
        text.push_str(&format!(" ({hint})"));
    }
    match (&record.known_issue, record.expectation) {
        (Some(issue), Expectation::Fixed) => {
            text.push_str(&format!("; known issue {issue} did not show"));
        }
        (Some(issue), _) => text.push_str(&format!("; known issue {issue}")),
        (None, _) => {}
    }
    crate::text::clean(&text)
}

/// The records by kernel, and by target within each, in order of first appearance.
type ByTarget<'a> = Vec<(&'a str, Vec<&'a Record>)>;
fn by_kernel_and_target(records: &[Record]) -> Vec<(String, ByTarget<'_>)> {
    let mut kernels: Vec<(String, ByTarget)> = Vec::new();
    for record in records {
        let kernel = match record.kernel_name() {
            Some(name) => format!("{} ({name})", record.kernel),
            None => record.kernel.clone(),
        };
        let at = kernels
            .iter()
            .position(|(k, _)| *k == kernel)
            .unwrap_or_else(|| {
                kernels.push((kernel, Vec::new()));
                kernels.len() - 1
            });
        let targets = &mut kernels[at].1;
        match targets
            .iter_mut()
            .find(|(target, _)| *target == record.target)
        {
            Some((_, of_target)) => of_target.push(record),
            None => targets.push((&record.target, vec![record])),
        }
    }
    kernels
}

/// The record's name within its target: the seed tells repeats apart.
fn case_name(record: &Record, of_target: &[&Record]) -> String {
    let repeats = of_target
        .iter()
        .filter(|r| r.scenario == record.scenario)
        .count();
    match repeats {
        1 => record.scenario.clone(),
        _ => format!("{} seed {}", record.scenario, record.seed),
    }
}
