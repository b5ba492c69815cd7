//! The judge of whether the bench detects anything at all: kernels from before and after the conversion, in
//! exactly the cells that the seed's thread names. 5.10's ext4 and f2fs protect faults only, its xfs all
//! fillers; 6.1 is converted. gfs2 and ocfs2 were left out: gfs2 protects reads and faults, and readahead on
//! neither (results/findings), ocfs2 drops its pages last. zonefs has nothing but direct writes that takes pages.
//! ext2 by its own driver is in user-mode-linux, which has one CPU: there its races overlap too seldom for more
//! than `inconclusive`, and what must come out is that they ran, on that driver, and violated nothing.
//!
//! A kernel comes from this machine's Debian mirror, once. Without QEMU, a mirror or user-mode-linux the test is
//! ignored, with the reason; `PUNCHBENCH_REQUIRE_GUEST=1` makes that a failure, and `PUNCHBENCH_INSTALL=1` installs
//! QEMU and the filesystems' tools.

mod common;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_results::{Record, Verdict, explain_failure};

/// Rounds of a cell, not seconds: a busy machine makes it slow, not inconclusive. At the rates seen (1 % of the
/// rounds and more) a racy cell cannot stay clean.
const ROUNDS: &str = "2000";

/// On one CPU, each costs much and brings little.
const FEW_ROUNDS: &str = "300";

const SCENARIOS: &[&str] = &[
    "punch-while-read",
    "punch-while-fadvise",
    "punch-while-madvise",
    "punch-while-fault",
];

/// One that is not protected where only faults are, and one that is.
const BOTH_SORTS: &[&str] = &["punch-while-fadvise", "punch-while-fault"];

/// One attempt each, parked inside the window: f2fs zeroes the edge before it, and parks at the checkpoint.
const STAGED: &[&str] = &[
    "staged-punch-while-read",
    "staged-punch-while-fault",
    "staged-punch-behind-checkpoint",
];

/// What is run on one kernel, and what must come out.
struct Row {
    name: &'static str,
    kernel: &'static str,
    targets: &'static [&'static str],
    scenarios: &'static [&'static str],
    rounds: &'static str,
    /// Further options.
    more: &'static [&'static str],
    /// Of a target and a scenario.
    expected: fn(&str, &str) -> Verdict,
}

const ROWS: [Row; 8] = [
    Row {
        name: "bullseye::red_where_the_thread_says",
        kernel: "debian:bullseye",
        targets: &["ext4", "f2fs", "xfs"],
        scenarios: SCENARIOS,
        expected: before_the_conversion,
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "bookworm::green",
        kernel: "debian:bookworm",
        targets: &["ext4", "f2fs", "xfs"],
        scenarios: SCENARIOS,
        expected: |_, _| Verdict::Safe,
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "bullseye::profiles_and_those_left_out",
        kernel: "debian:bullseye",
        targets: &["ext4:1k", "ext4:noextents", "f2fs:lfs", "gfs2", "ocfs2"],
        scenarios: BOTH_SORTS,
        expected: before_the_conversion,
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "bookworm::those_left_out",
        kernel: "debian:bookworm",
        targets: &["gfs2", "ocfs2"],
        scenarios: BOTH_SORTS,
        expected: |target, scenario| match target {
            "gfs2" => before_the_conversion(target, scenario),
            _ => Verdict::Safe,
        },
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "bullseye::staged",
        kernel: "debian:bullseye",
        targets: &["ext4", "f2fs"],
        scenarios: STAGED,
        expected: |target, scenario| match (target, scenario) {
            ("ext4", "staged-punch-behind-checkpoint") => Verdict::Unsupported,
            ("ext4", "staged-punch-while-read") => Verdict::Stale,
            ("f2fs", "staged-punch-behind-checkpoint") => Verdict::Stale,
            _ => Verdict::Safe,
        },
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "bullseye::staged_by_device_mapper",
        kernel: "debian:bullseye",
        targets: &["ext4"],
        scenarios: &["staged-punch-while-read", "staged-punch-while-fault"],
        expected: |_, scenario| match scenario {
            "staged-punch-while-read" => Verdict::Stale,
            _ => Verdict::Safe,
        },
        rounds: ROUNDS,
        more: &["--holder", "dm-delay"],
    },
    Row {
        name: "bookworm::zones",
        kernel: "debian:bookworm",
        targets: &["zonefs"],
        scenarios: &["direct-write-while-read", "punch-while-read"],
        expected: |_, scenario| match scenario {
            "punch-while-read" => Verdict::Unsupported,
            _ => Verdict::Safe,
        },
        rounds: ROUNDS,
        more: &[],
    },
    Row {
        name: "user_mode::ext2_by_its_own_driver",
        kernel: "debian:bookworm/user-mode-linux",
        targets: &["ext2"],
        scenarios: &[
            "truncate-while-read",
            "truncate-while-fault",
            "punch-while-read",
        ],
        expected: |_, scenario| match scenario {
            "punch-while-read" => Verdict::Unsupported,
            _ => Verdict::Inconclusive,
        },
        rounds: FEW_ROUNDS,
        more: &[],
    },
];

/// ext4 and f2fs protect faults only, and gfs2 what it calls itself.
fn before_the_conversion(target: &str, scenario: &str) -> Verdict {
    match (filesystem(target), scenario) {
        (_, "punch-while-fault") | ("xfs" | "ocfs2", _) | ("gfs2", "punch-while-read") => {
            Verdict::Safe
        }
        _ => Verdict::Stale,
    }
}

fn filesystem(target: &str) -> &str {
    target.split(':').next().unwrap_or(target)
}

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(1);
    let trials = ROWS
        .into_iter()
        .map(|row| Trial::ignorable_test(row.name, move || judge(&row)))
        .collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn judge(row: &Row) -> Result<Completion, Failed> {
    let out = tempfile::tempdir()?;
    let (targets, scenarios) = (row.targets.join(","), row.scenarios.join(","));
    let mut words = vec!["--kernel", row.kernel, "--fs", &targets];
    words.extend(["--scenario", &scenarios, "--rounds", row.rounds]);
    words.extend(row.more);
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
        .filter_map(|record| complaint(record, row.expected))
        .collect();
    let cells = row.targets.len() * row.scenarios.len();
    if records.len() != cells {
        return Err(format!("{} records instead of {cells}", records.len()).into());
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
    // Debian's kernels serve ext2 with the ext4 driver, which would be another row.
    (record.driver != filesystem(&record.target)).then(|| {
        format!(
            "{} on {} of {} was served by the driver {}",
            record.scenario, record.target, record.kernel, record.driver
        )
    })
}
