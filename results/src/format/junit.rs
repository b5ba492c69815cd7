//! JUnit XML, for Jenkins, GitLab and the like: a suite for every target on every kernel, a case for every trial.
//!
//! JUnit has no expected failure: a violation that a known issue covers is a skipped case whose message says so.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Outcome, by_kernel_and_target, case_name, in_short};
use crate::export::Exporter;
use crate::{Record, explain_failure};

/// The JUnit format.
#[derive(Debug, Clone, Copy)]
pub struct Junit;

impl Exporter for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn file_name(&self) -> &'static str {
        "junit.xml"
    }

    fn render(&self, records: &[Record]) -> String {
        let mut report = Report::new("punchbench");
        for (kernel, targets) in by_kernel_and_target(records) {
            for (target, of_target) in targets {
                let mut suite = TestSuite::new(format!("{kernel}.{target}"));
                for record in &of_target {
                    suite.add_test_case(case(record, &of_target, &kernel));
                }
                report.add_test_suite(suite);
            }
        }
        // It writes to memory, and what XML cannot hold is filtered out by the library.
        let mut text = report.to_string().expect("a report goes into memory");
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    }
}

fn case(record: &Record, of_target: &[&Record], kernel: &str) -> TestCase {
    let message = in_short(record);
    let status = match Outcome::of(record) {
        Outcome::Pass => TestCaseStatus::success(),
        Outcome::Skip | Outcome::ExpectedFail => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message);
            status
        }
        other => {
            let kind = if other == Outcome::Error {
                NonSuccessKind::Error
            } else {
                NonSuccessKind::Failure
            };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(message);
            status.set_type(record.verdict.word());
            status.set_description(explain_failure(record));
            status
        }
    };
    let mut case = TestCase::new(case_name(record, of_target), status);
    case.set_classname(format!("{kernel}.{}", record.target));
    case.set_time(std::time::Duration::from_secs_f64(
        record.seconds.clamp(0.0, 1e9),
    ));
    let evidence = &record.evidence;
    case.set_system_out(format!(
        "{}\nrounds {}, overlapped {}, filled {}, seed {}\n",
        record.replay,
        evidence.rounds,
        evidence.overlapped,
        evidence
            .filled
            .map_or_else(|| "n/a".to_owned(), |n| n.to_string()),
        record.seed,
    ));
    case
}
