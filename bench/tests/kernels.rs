//! The judge of whether the bench detects anything at all: kernels from before and after the conversion, in
//! exactly the cells that the seed's thread names. 5.10's ext4 and f2fs protect faults only, its xfs all
//! fillers; 6.1 is converted.
//!
//! A kernel comes from this machine's Debian mirror, once. Without QEMU or a mirror the test is ignored, with
//! the reason; `PUNCHBENCH_REQUIRE_GUEST=1` makes that a failure, and `PUNCHBENCH_INSTALL=1` installs QEMU.

mod common;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_results::{Record, Verdict, explain_failure};

/// Rounds of a cell, not seconds: a busy machine makes it slow, not inconclusive. At the rates seen (5 % and more
/// of the rounds) a racy cell cannot stay clean.
const ROUNDS: &str = "4000";

const SCENARIOS: [&str; 4] = [
    "punch-while-read",
    "punch-while-fadvise",
    "punch-while-madvise",
    "punch-while-fault",
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(1);
    let trials = vec![
        Trial::ignorable_test("bullseye::red_where_the_thread_says", || {
            judge("debian:bullseye", |target, scenario| {
                let fault_only = matches!(target, "ext4" | "f2fs");
                if fault_only && scenario != "punch-while-fault" {
                    Verdict::Stale
                } else {
                    Verdict::Safe
                }
            })
        }),
        Trial::ignorable_test("bookworm::green", || {
            judge("debian:bookworm", |_, _| Verdict::Safe)
        }),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

fn judge(kernel: &str, expected: fn(&str, &str) -> Verdict) -> Result<Completion, Failed> {
    let out = tempfile::tempdir()?;
    let mut words = vec![
        "--kernel",
        kernel,
        "--fs",
        "ext4,f2fs,xfs",
        "--rounds",
        ROUNDS,
    ];
    for scenario in SCENARIOS {
        words.extend(["--scenario", scenario]);
    }
    if std::env::var_os("PUNCHBENCH_INSTALL").is_some_and(|v| v == "1") {
        words.push("--install");
    }
    let output = common::command(&words, out.path()).output()?;
    let records = common::records(out.path());
    if records.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let must = std::env::var_os("PUNCHBENCH_REQUIRE_GUEST").is_some_and(|v| v == "1");
        return if must {
            Err(said.into())
        } else {
            Ok(Completion::ignored_with(said))
        };
    }
    let wrong: Vec<String> = records
        .iter()
        .filter_map(|record| complaint(record, expected))
        .collect();
    if records.len() != 3 * SCENARIOS.len() {
        return Err(format!(
            "{} records instead of {}",
            records.len(),
            3 * SCENARIOS.len()
        )
        .into());
    }
    if wrong.is_empty() {
        Ok(Completion::Completed)
    } else {
        Err(wrong.join("\n\n").into())
    }
}

fn complaint(record: &Record, expected: fn(&str, &str) -> Verdict) -> Option<String> {
    let cell = expected(&record.target, &record.scenario);
    if record.verdict != cell {
        return Some(format!(
            "{} on {} of {} should be {cell}:\n{}",
            record.scenario,
            record.target,
            record.kernel,
            explain_failure(record)
        ));
    }
    None
}
