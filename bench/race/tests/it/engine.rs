//! The whole engine over a toy page cache, with threads as actors: without a lock between filler and punch it
//! must find the stale page, with one it must find nothing.

use punchbench_race::{Host, RaceError, RaceReport, race};
use punchbench_results::{Phase, Verdict, Via};

use crate::toy::{Toy, ToyFs, judged, spec};

fn run(toy: Toy, rounds: u64) -> (RaceReport, Verdict, String) {
    let scenario = punchbench_scenarios::find("punch-while-read").remove(0);
    let fs = ToyFs::new(toy);
    judged(race(&spec(scenario, rounds), &fs, Host::Thread, &mut |_| {}).unwrap())
}

#[test]
fn a_locked_cache_is_safe() {
    let (report, word, why) = run(Toy::Locked, 9000);
    assert_eq!(word, Verdict::Safe, "{why}\n{:?}", report.evidence);
    assert_eq!(report.evidence.rounds, 9000);
    assert_eq!(report.evidence.passes, 2);
}

#[test]
fn a_bare_cache_is_stale_and_confirmed() {
    let (report, word, why) = run(Toy::Bare, 9000);
    assert_eq!(word, Verdict::Stale, "{why}\n{:?}", report.evidence);
    let found = report
        .violations
        .iter()
        .find(|v| v.phase == Phase::After)
        .expect("a page left behind");
    let confirmation = found.confirmation.as_ref().expect("a confirmation");
    assert!(confirmation.borne_out && confirmation.eviction_proved);
    assert_eq!(confirmation.evicted, punchbench_results::Answer::Legal);
    assert_eq!(confirmation.direct, punchbench_results::Answer::Legal);
    assert!(
        found.got.starts_with("victim generation 1 offset 0x"),
        "{}",
        found.got
    );
    assert!(report.evidence.violated_rounds > 0);
}

#[test]
fn blocks_that_were_never_freed_are_a_wrong_mapping() {
    let (_, word, why) = run(Toy::Forgetful, 512);
    assert_eq!(word, Verdict::StaleMapping, "{why}");
}

#[test]
fn short_reads_within_the_file_are_wrong_results() {
    let (report, word, why) = run(Toy::Empty, 128);
    assert_eq!(word, Verdict::WrongResult, "{why}");
    assert!(report.violations.iter().any(|v| v.via == Via::Read));
}

#[test]
fn what_the_kernel_could_not_drop_behind_a_direct_write_accuses_nobody() {
    let scenario = || punchbench_scenarios::find("direct-write-while-read").remove(0);
    let run = |toy| {
        race(
            &spec(scenario(), 256),
            &ToyFs::new(toy),
            Host::Thread,
            &mut |_| {},
        )
    };
    let error = run(Toy::Undropped).unwrap_err();
    assert!(matches!(error, RaceError::Undropped), "{error}");
    let report = run(Toy::Locked).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[test]
fn few_rounds_are_never_safe() {
    let (_, word, why) = run(Toy::Locked, 500);
    assert_eq!(word, Verdict::Inconclusive, "{why}");
}

#[test]
fn a_failing_operation_is_the_benchs_trouble_or_a_wrong_result() {
    let scenario = punchbench_scenarios::find("collapse-while-read").remove(0);
    let fs = ToyFs::new(Toy::Locked);
    let error = race(&spec(scenario, 64), &fs, Host::Thread, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("collapse_range"), "{error}");
}
