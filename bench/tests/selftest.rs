//! Makes operations lie, on a real ext4, and sees that each lie gets its verdict. The list is the program's
//! own: a kind of injection without a test here does not compile away, it fails.

mod common;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_fs::inject::Injection;
use punchbench_results::Verdict;

/// What a kind of injection needs to be told by: the usual scenario has none of it.
const NEEDS: [(&str, &str); 6] = [
    ("change-witness", "punch-and-reuse"),
    // An adviser's fill is told by the page alone; who reads bytes of an absent page has filled it, or lies
    // about more than that.
    ("never-fill", "punch-while-fadvise"),
    ("drop-write", "punch-and-reuse"),
    // Beside what is punched every store must stay; within, hardly one begins after the punch has returned.
    ("drop-store", "punch-while-store-unaligned"),
    ("cut-short", "punch-while-read-into-mapping"),
    ("wait", "tests/selftest/punch-while-nowait-read.yaml"),
];

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(1);
    let mut trials: Vec<Trial> = Injection::ALL
        .iter()
        .map(|kind| {
            Trial::ignorable_test(kind.word, || {
                lie(kind.word, scenario(kind.word), kind.verdict)
            })
        })
        .collect();
    // A filler of two that never overlaps must not hide behind the other.
    for actor in ["adviser", "reader"] {
        let kind = format!("never-overlap:{actor}");
        let verdict = Verdict::Inconclusive;
        trials.push(Trial::ignorable_test(kind.clone(), move || {
            lie(&kind, "punch-while-fadvise-and-read", verdict)
        }));
    }
    trials.push(Trial::ignorable_test("none", || {
        lie("", "punch-while-read", Verdict::Safe)
    }));
    libtest_mimic::run(&args, trials).exit_code()
}

fn scenario(kind: &str) -> &'static str {
    NEEDS
        .iter()
        .find(|(needy, _)| *needy == kind)
        .map_or("punch-while-read", |(_, scenario)| scenario)
}

fn lie(kind: &str, scenario: &str, expected: Verdict) -> Result<Completion, Failed> {
    // Rounds, not seconds: a busy machine makes it slow, not inconclusive.
    // Each of its waits takes long, and one is enough.
    let rounds = if expected == Verdict::Blocked {
        "64"
    } else {
        "3000"
    };
    let mut words = vec!["--fs", "ext4", "--scenario", scenario, "--rounds", rounds];
    if !kind.is_empty() {
        words.extend(["--inject", kind]);
    }
    if expected == Verdict::Hung {
        words.extend(["--patience", "5"]);
    }
    let out = tempfile::tempdir()?;
    let output = common::command(&words, out.path()).output()?;
    let records = common::records(out.path());
    let said = || {
        format!(
            "{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let [record] = &records[..] else {
        return Err(format!("one record expected: {}", said()).into());
    };
    match record.verdict {
        Verdict::Skipped => Ok(Completion::ignored_with(record.reason.clone())),
        verdict if verdict == expected => Ok(Completion::Completed),
        _ => Err(format!("`{kind}` must end in {expected}: {}", said()).into()),
    }
}
