//! What a guest's end says of the trials that have no record: which of them it ended in, and whose fault that
//! was.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use punchbench_guest::{Accel, GuestEnd, GuestError, GuestOutcome, Kernel};
use punchbench_results::record::trial_on;
use punchbench_results::{Record, Verdict};

use crate::blank;
use crate::cli;
use crate::plan::{Trial, quoted};

/// Whether the guest came as far as racing, so that what ended it may have been a trial.
pub fn ran_something(outcome: &Result<GuestOutcome, GuestError>) -> bool {
    outcome.as_ref().is_ok_and(|outcome| {
        let ended_early = matches!(outcome.end, GuestEnd::Done { .. }) && outcome.records == 0;
        outcome.ready.is_some() && !ended_early
    })
}

/// Whether the guest stopped, or panicked, before it had said anything.
pub fn did_not_boot(outcome: &Result<GuestOutcome, GuestError>) -> bool {
    let stopped = |end: &GuestEnd| matches!(end, GuestEnd::Hung { .. } | GuestEnd::Panic);
    outcome
        .as_ref()
        .is_ok_and(|o| o.ready.is_none() && stopped(&o.end))
}

/// A trial's own command, on that kernel.
pub fn replay_on(replay: &str, kernel: &str, memory: u32) -> String {
    let memory = match memory {
        cli::MEMORY_MIB => String::new(),
        other => format!(" --memory {other}"),
    };
    format!("{replay} --kernel {}{memory}", quoted(kernel))
}

/// What helps a guest with too little memory, in MiB.
pub fn more_memory(memory: u32) -> String {
    format!("give it more, such as --memory {}", 2 * memory)
}

/// What is worth knowing of a guest beside its records.
pub fn outcome_lines(outcome: &GuestOutcome) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(ready) = outcome.ready {
        let by = match outcome.accel {
            Accel::Kvm => "under KVM",
            Accel::Tcg => "by emulation (TCG)",
            Accel::UserMode => "as a program (user-mode-linux, one CPU)",
        };
        lines.push(format!(
            "the guest ran {by}, booted in {:.1} s",
            ready.as_secs_f64()
        ));
    }
    if let Some(first) = &outcome.first_damage {
        lines.push(format!(
            "{} line(s) from the guest were damaged on the way, the first: {first}",
            outcome.damaged
        ));
    }
    lines
}

/// The record of a trial that a guest ended in, or never came to.
pub fn not_recorded(
    trial: &Trial,
    name: &str,
    kernel: &Kernel,
    memory: u32,
    outcome: &Result<GuestOutcome, GuestError>,
    log: &Path,
) -> Record {
    let mut record = blank::record(trial);
    record.trial = trial_on(&trial.id, Some(name));
    record.replay = replay_on(&trial.replay, name, memory);
    record.kernel = kernel.release.clone();
    record.kernel_version.clear();
    record.started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    match outcome {
        Ok(outcome) => {
            (record.verdict, record.reason) = judge_end(outcome);
            record.log = outcome.console_tail.clone();
            record.artefacts = vec![log.display().to_string()];
            if outcome.out_of_memory {
                record.reason.push_str(&format!(
                    "; its {memory} MiB of memory were not enough for it"
                ));
                record.hint = Some(more_memory(memory));
            }
            if let (Some(release), Some(version)) = (&outcome.release, &outcome.version) {
                // The same as in the records that came: else it would stand in a table of its own.
                record.kernel.clone_from(release);
                record.kernel_version.clone_from(version);
            }
        }
        Err(error) => (record.verdict, record.reason) = (Verdict::Error, error.to_string()),
    }
    blank::judge_expectation(&mut record);
    record
}

/// What the end of a guest says of the trial that it ended in. Before the first trial it says nothing of the
/// kernel's locking: then it is an `error`, whatever it was.
fn judge_end(outcome: &GuestOutcome) -> (Verdict, String) {
    if outcome.ready.is_none() {
        let how = match &outcome.end {
            GuestEnd::Panic => "its kernel panicked".to_owned(),
            GuestEnd::Oops => "its kernel oopsed".to_owned(),
            GuestEnd::Hung { .. } => "it was given up after waiting for its first word".to_owned(),
            GuestEnd::EarlyExit { said } => format!("the machine ended by itself: {said}"),
            GuestEnd::Done { exit } => format!("it ended with code {exit}"),
        };
        return (Verdict::Error, format!("the guest did not boot: {how}"));
    }
    match &outcome.end {
        GuestEnd::Panic => (
            Verdict::KernelReport,
            "the guest's kernel panicked".to_owned(),
        ),
        GuestEnd::Oops => (
            Verdict::KernelReport,
            "the guest's kernel oopsed, and the run did not end".to_owned(),
        ),
        GuestEnd::Hung { silent: true } => (
            Verdict::Hung,
            "the guest fell silent, its own watchdog included".to_owned(),
        ),
        GuestEnd::Hung { silent: false } => (
            Verdict::Error,
            "the guest did not get through the plan in time".to_owned(),
        ),
        GuestEnd::EarlyExit { said } => (
            Verdict::Error,
            format!("the machine ended by itself: {said}"),
        ),
        GuestEnd::Done { exit } => (
            Verdict::Error,
            format!("the run in the guest ended with code {exit} without this trial's record"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use punchbench_guest::Machinery;

    use crate::plan;

    fn outcome(end: GuestEnd, ready: bool, records: u64) -> GuestOutcome {
        GuestOutcome {
            end,
            console_tail: vec!["the last line".to_owned()],
            release: Some("6.1.0-x".to_owned()),
            version: Some("#1 SMP".to_owned()),
            boot: None,
            ready: ready.then_some(Duration::from_secs(3)),
            out_of_memory: false,
            accel: Accel::Tcg,
            records,
            failed_modules: Vec::new(),
            missing_modules: Vec::new(),
            missing_tools: Vec::new(),
            damaged: 0,
            first_damage: None,
        }
    }

    fn judged(outcome: Result<GuestOutcome, GuestError>) -> Record {
        let trial = plan::tests::one("--fs xfs --scenario punch-while-read --kernel k");
        let kernel = Kernel {
            name: "k".to_owned(),
            image: "k".into(),
            release: "6.1.0".to_owned(),
            machinery: Machinery::Pc,
            modules: None,
        };
        not_recorded(&trial, "k", &kernel, 512, &outcome, Path::new("/log"))
    }

    #[test]
    fn a_panic_accuses_the_kernel_only_once_trials_run() {
        let record = judged(Ok(outcome(GuestEnd::Panic, true, 0)));
        assert_eq!(record.verdict, Verdict::KernelReport);
        assert_eq!(record.log, ["the last line"]);
        assert_eq!(
            (&*record.kernel, &*record.kernel_version),
            ("6.1.0-x", "#1 SMP")
        );
        let record = judged(Ok(outcome(GuestEnd::Panic, false, 0)));
        assert_eq!(record.verdict, Verdict::Error);
        assert!(record.reason.contains("did not boot"), "{}", record.reason);
    }

    #[test]
    fn a_replay_names_the_kernel_as_a_shell_reads_it() {
        let command = |kernel, memory| replay_on("punchbench run", kernel, memory);
        assert_eq!(
            command("debian:sid", cli::MEMORY_MIB),
            "punchbench run --kernel debian:sid"
        );
        assert_eq!(
            command("/a b/vmlinuz", 512),
            "punchbench run --kernel '/a b/vmlinuz' --memory 512"
        );
    }

    #[test]
    fn lack_of_memory_is_named_with_what_helps() {
        let mut killed = outcome(GuestEnd::Done { exit: 137 }, true, 4);
        killed.out_of_memory = true;
        let record = judged(Ok(killed));
        assert_eq!(record.verdict, Verdict::Error);
        assert!(record.reason.contains("512 MiB"), "{}", record.reason);
        assert!(record.hint.is_some_and(|h| h.contains("--memory 1024")));
    }

    #[test]
    fn another_guest_is_started_only_where_it_can_get_further() {
        let ran = |end, ready, records| ran_something(&Ok(outcome(end, ready, records)));
        assert!(ran(GuestEnd::Panic, true, 0), "the trial may have done it");
        assert!(ran(GuestEnd::Done { exit: 1 }, true, 3));
        assert!(
            !ran(GuestEnd::Done { exit: 1 }, true, 0),
            "it would not start"
        );
        assert!(
            !ran(GuestEnd::Hung { silent: true }, false, 0),
            "it did not boot"
        );
        assert!(!ran_something(&Err(GuestError::GuestSetup(
            "no".to_owned()
        ))));
    }

    #[test]
    fn only_a_guest_that_said_nothing_is_booted_again() {
        let hung = GuestEnd::Hung { silent: false };
        assert!(did_not_boot(&Ok(outcome(hung.clone(), false, 0))));
        assert!(!did_not_boot(&Ok(outcome(hung, true, 0))));
        assert!(did_not_boot(&Ok(outcome(GuestEnd::Panic, false, 0))));
        assert!(!did_not_boot(&Ok(outcome(GuestEnd::Panic, true, 0))));
    }

    #[test]
    fn an_error_of_ours_is_the_record_s_reason() {
        let record = judged(Err(GuestError::GuestSetup("no /dev/ttyS1".to_owned())));
        assert_eq!(record.verdict, Verdict::Error);
        assert!(record.reason.contains("no /dev/ttyS1"), "{}", record.reason);
        assert!(record.trial.starts_with("k :: "), "{}", record.trial);
    }
}
