//! Scripts rely on these numbers.

use punchbench_results::exit_code::{self, BENCH_ERROR, EXPECTED, NOTHING_RAN, UNEXPECTED};
use punchbench_results::{Expectation, Record, Verdict};

use crate::samples::record;

fn safe() -> Record {
    record("punch-while-read", "ext4", Verdict::Safe)
}

fn with(expectation: Expectation, mut r: Record) -> Record {
    r.expectation = expectation;
    r
}

#[test]
fn numbers_are_fixed() {
    let numbers: Vec<u8> = exit_code::ALL.iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
    assert!(exit_code::sentence(3).is_some_and(|s| s.contains("bench itself")));
    assert_eq!(exit_code::sentence(77), None);
}

#[test]
fn known_issues_and_skips_are_as_expected() {
    let known = with(
        Expectation::Expected,
        record("punch-while-read", "f2fs", Verdict::Stale),
    );
    let skipped = record("punch-while-read", "xfs", Verdict::Skipped);
    assert_eq!(exit_code::of_records(&[safe(), known, skipped]), EXPECTED);
}

#[test]
fn a_surprise_outweighs_a_bench_error() {
    let stale = record("punch-while-read", "xfs", Verdict::Stale);
    let error = with(
        Expectation::Unexpected,
        record("punch-while-read", "f2fs", Verdict::Error),
    );
    assert_eq!(exit_code::of_records(&[safe(), error.clone()]), BENCH_ERROR);
    assert_eq!(exit_code::of_records(&[safe(), error, stale]), UNEXPECTED);
}

#[test]
fn fixed_counts_unless_another_repeat_failed_as_known() {
    let fixed = with(Expectation::Fixed, safe());
    let known = with(
        Expectation::Expected,
        record("punch-while-read", "ext4", Verdict::Stale),
    );
    assert_eq!(
        exit_code::of_records(std::slice::from_ref(&fixed)),
        UNEXPECTED
    );
    assert_eq!(exit_code::of_records(&[fixed, known]), EXPECTED);
}

#[test]
fn nothing_exercised_is_no_success() {
    let skipped = record("punch-while-read", "xfs", Verdict::Skipped);
    let inconclusive = record("punch-while-read", "ext4", Verdict::Inconclusive);
    assert_eq!(exit_code::of_records(&[]), NOTHING_RAN);
    assert_eq!(exit_code::of_records(&[skipped, inconclusive]), NOTHING_RAN);
}
