//! What punchbench's exit status says, each with its sentence, so that scripts need not guess.

use crate::table::{Cell, Mark};
use crate::{Expectation, Record, Verdict};

/// Every trial came out as expected.
pub const EXPECTED: u8 = 0;
/// Some trial did not come out as expected.
pub const UNEXPECTED: u8 = 1;
/// The command line was wrong; clap's own number.
pub const USAGE: u8 = 2;
/// The bench itself failed.
pub const BENCH_ERROR: u8 = 3;
/// No trial exercised anything.
pub const NOTHING_RAN: u8 = 4;

/// Every exit code with the sentence that documents it.
pub const ALL: [(u8, &str); 5] = [
    (
        EXPECTED,
        "everything came out as expected, known issues included",
    ),
    (
        UNEXPECTED,
        "an unexpected result: a violation that no known issue covers, a known issue that is gone, or a \
         trial that was not exercised enough",
    ),
    (
        USAGE,
        "the command line or a file named on it is wrong; nothing was run",
    ),
    (
        BENCH_ERROR,
        "the bench itself failed in some trial, and nothing else was unexpected",
    ),
    (
        NOTHING_RAN,
        "nothing ran: the plan was empty, or every trial was skipped, unsupported or inconclusive",
    ),
];

/// The sentence for `code`, if it is one of ours.
pub fn sentence(code: u8) -> Option<&'static str> {
    ALL.iter().find(|(c, _)| *c == code).map(|(_, s)| *s)
}

/// The exit code that a run with these records deserves.
///
/// Repeats of a trial count together: a racy known issue that shows in one repeat is not *fixed* by another.
pub fn of_records(records: &[Record]) -> u8 {
    let surprise =
        |r: &Record| r.expectation == Expectation::Unexpected && r.verdict != Verdict::Error;
    let fixed = || {
        Cell::group(records)
            .iter()
            .any(|cell| cell.mark == Some(Mark::Fixed))
    };
    if records.iter().any(surprise) || fixed() {
        UNEXPECTED
    } else if records.iter().any(|r| r.verdict == Verdict::Error) {
        BENCH_ERROR
    } else if !records.iter().any(|r| r.verdict.was_exercised()) {
        NOTHING_RAN
    } else {
        EXPECTED
    }
}
