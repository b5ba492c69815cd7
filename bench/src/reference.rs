//! A trial on the reference implementation: threads that take the model's steps, raced and judged like any
//! filesystem. The explorer has visited every order of these steps before, so it is known what may come out.

use punchbench_race::trial::RaceReport;
use punchbench_race::verdict::verdict;
use punchbench_reference::Policy;
use punchbench_reference::live::{Live, NotLive};
use punchbench_results::{Expectation, Record, Verdict};

use crate::wire::Spec;

/// What the record names as its driver.
pub const DRIVER: &str = "model";

/// Sets the reference up; nothing is mounted and no privilege is needed.
pub fn set_up(spec: &Spec, policy: &Policy) -> Result<Live, NotLive> {
    Live::new(&spec.scenario, policy, spec.data_seed)
}

/// Fills the record in, and holds what the threads showed against what the explorer proved.
pub fn conclude(live: &Live, spec: &Spec, report: RaceReport, record: &mut Record) {
    record.driver = DRIVER.to_owned();
    record.setup.push(live.explored());
    record.evidence = report.evidence;
    record.violations = report.violations;
    record.first_violation_s = report.first_violation_s;
    record.placement = report.placement;
    let rules = &spec.scenario.evidence;
    let store = live.cache_is_store();
    (record.verdict, record.reason) = verdict(&record.evidence, &record.violations, rules, store);
    let (expectation, but) = expectation(record.verdict, live);
    record.expectation = expectation;
    if let Some(but) = but {
        record.reason.push_str(&format!("; but {but}"));
    }
}

/// What the model allows is expected, and what it must show and did not is not.
fn expectation(shown: Verdict, live: &Live) -> (Expectation, Option<&'static str>) {
    match (shown.is_violation(), live.may_show()) {
        (true, true) => (Expectation::Expected, None),
        (true, false) => (
            Expectation::Unexpected,
            Some("the explorer proved that no order of steps leads there: the bench is wrong"),
        ),
        (false, true) if shown == Verdict::Safe => (
            Expectation::Unexpected,
            Some("the explorer knows an order of steps that goes wrong: the bench did not see it"),
        ),
        (false, _) if shown == Verdict::Safe => (Expectation::Expected, None),
        (false, _) => (Expectation::Unexpected, None),
    }
}
