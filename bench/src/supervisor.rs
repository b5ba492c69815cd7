//! Runs the plan: starts trials, listens to them, lets one at a time race, ends those that hang, and turns
//! whatever happens to one into a record. One thread and one poll(2): a trial dies with the thread that
//! started it, so no other thread may start one.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use punchbench_fs::Privilege;
use punchbench_results::{Record, Verdict};

use crate::blank;
use crate::cannot::Cannot;
use crate::child::Child;
use crate::cli::RunArgs;
use crate::plan::{self, Racing, Trial};
use crate::progress::Reporter;
use crate::watchdog::{self, Patience};
use crate::wire::{Phase, Spec};

/// How long a killed trial may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// How often progress is shown, and deadlines are looked at, if nothing else happens.
const TICK: Duration = Duration::from_millis(200);

/// The signals that end a run in good order.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// From now on they are seen by [`run`] alone. To be called before any thread is started.
    pub fn block() -> anyhow::Result<Signals> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&set, flags)?))
    }

    /// The signal that came, if one did.
    pub fn came(&self) -> Option<Signal> {
        let info = self.0.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the plan.
    Finished,
    /// By a signal, before that.
    Interrupted(Signal),
}

/// Runs `todo`, trials with their positions in the plan; gives each record to `keep` as it comes.
pub fn run(
    todo: Vec<(usize, &Trial)>,
    args: &RunArgs,
    dirs: &Dirs,
    signals: &Signals,
    reporter: &mut Reporter,
    keep: &mut dyn FnMut(Record) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let patience = Patience {
        silence: Duration::from_secs_f64(args.patience),
        racing: plan::racing(args),
    };
    let mut todo = todo.into_iter().peekable();
    let mut running: Vec<Child> = Vec::new();
    let mut cannot = Cannot::default();
    // Whether what runs is staged.
    let mut staged = false;
    loop {
        while let Some((index, trial)) = todo.next_if(|(_, next)| {
            let next = next.scenario.is_staged();
            running.is_empty() || running.len() < most(args, staged && next)
        }) {
            if let Some(record) = cannot.record(trial) {
                reporter.finished(&record);
                keep(record)?;
                continue;
            }
            staged = trial.scenario.is_staged() && (staged || running.is_empty());
            let log = dirs.logs.join(format!("{index:04}.log"));
            match Child::start(index, &spec(trial, args, dirs), &log) {
                Ok(child) => running.push(child),
                Err(error) => {
                    let record = not_started(trial, &error);
                    reporter.finished(&record);
                    keep(record)?;
                }
            }
        }
        if running.is_empty() {
            return Ok(End::Finished);
        }
        if running.len() > 1 {
            running.iter_mut().for_each(|child| child.alone = false);
        }
        if !running.iter().any(Child::has_the_cpus)
            && let Some(next) = running.iter_mut().find(|child| child.phase == Phase::Turn)
        {
            next.go();
        }
        reporter.running(&running);
        wait(&running, signals, &patience)?;
        if let Some(signal) = signals.came() {
            running.iter().for_each(Child::kill);
            let stuck = running
                .iter_mut()
                .filter_map(|child| (!child.wait(DYING)).then_some(child.index));
            for index in stuck {
                reporter.line(&format!(
                    "trial {index} did not die: the next run clears up after it"
                ));
            }
            return Ok(End::Interrupted(signal));
        }
        let mut at = 0;
        while at < running.len() {
            running[at].listen();
            for phase in running[at].entered.drain(..).filter(|_| args.phases) {
                reporter.line(&format!("phase {}", phase.word()));
            }
            let record = if running[at].reap() {
                running[at].record()
            } else if patience
                .deadline(&running[at])
                .is_some_and(|d| Instant::now() >= d)
            {
                give_up(&mut running[at])
            } else {
                at += 1;
                continue;
            };
            let child = running.swap_remove(at);
            let what = child.cannot;
            let record = complete(child, record);
            if let Some(what) = what {
                cannot.learn(what, &record);
            }
            reporter.finished(&record);
            let hung = record.verdict == Verdict::Hung;
            keep(record)?;
            if hung && args.records_to.is_some() {
                // In a guest, which goes with all that stays behind; the rest of the plan gets another.
                return Ok(End::Finished);
            }
        }
    }
}

/// Directories of a run.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// One file a trial, with what it and its tools printed.
    pub logs: PathBuf,
    /// Where trials mount, each in a mount namespace of its own.
    pub work: PathBuf,
}

/// Staged attempts at a time, if the user does not say: who is parked uses no CPU.
const SIDE_BY_SIDE: usize = 4;

/// The most trials at a time, while all of them are staged or not.
fn most(args: &RunArgs, staged: bool) -> usize {
    match args.jobs {
        Some(jobs) => jobs.into(),
        None if staged && args.device.is_none() => SIDE_BY_SIDE,
        None => 1,
    }
}

fn spec(trial: &Trial, args: &RunArgs, dirs: &Dirs) -> Spec {
    let (seconds, rounds) = match plan::racing(args) {
        Racing::Seconds { least, most } => (Some((least, most)), None),
        Racing::Rounds(n) => (None, Some(n)),
    };
    Spec {
        scenario: trial.scenario.clone(),
        target: trial.target.to_string(),
        data_seed: trial.data_seed,
        nonce: trial.nonce,
        seconds,
        rounds,
        work_dir: dirs.work.clone(),
        image_dir: args.image_dir.clone(),
        device: args.device.clone(),
        insist: args.insist,
        in_dir: args.in_dir.clone(),
        holder: args.holder.kind(),
        inject: args.inject.clone(),
        takes_turns: args.jobs.is_some_and(|jobs| jobs > 1) && !trial.scenario.is_staged(),
        record: blank::record(trial),
    }
}

/// Sleeps until something happens, or until it is time to look again.
fn wait(running: &[Child], signals: &Signals, patience: &Patience) -> anyhow::Result<()> {
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds = vec![readable(signals.0.as_fd())];
    fds.extend(running.iter().filter_map(Child::events_fd).map(readable));
    fds.extend(running.iter().map(|child| readable(child.pidfd())));
    let now = Instant::now();
    let left = running
        .iter()
        .filter_map(|child| patience.deadline(child))
        .map(|deadline| deadline.saturating_duration_since(now))
        .fold(TICK, Duration::min);
    match poll(
        &mut fds,
        u16::try_from(left.as_millis()).unwrap_or(u16::MAX),
    ) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn not_started(trial: &Trial, error: &anyhow::Error) -> Record {
    let mut record = blank::record(trial);
    record.reason = format!("{error:#}");
    if Privilege::current() == Privilege::User {
        // Where user namespaces are forbidden, an ordinary user can run nothing.
        record.verdict = Verdict::Skipped;
        record.hint = Some(
            "run as root, or allow user namespaces (sysctl user.max_user_namespaces)".to_owned(),
        );
    }
    blank::judge_expectation(&mut record);
    record
}

/// Ends a trial that shows no progress.
fn give_up(child: &mut Child) -> Record {
    let finding = watchdog::investigate(child);
    child.kill();
    let mut record = child.blank.clone();
    record.verdict = finding.verdict;
    record.reason = finding.reason;
    record.log = finding.log;
    record.evidence.rounds = child.rounds;
    if !child.wait(DYING) {
        record.evidence.notes.push(format!(
            "a process of the trial (process {} here is its first) did not die of SIGKILL, so its mount stays; the \
             next run clears up after it",
            child.pid()
        ));
    }
    record
}

/// What only the runner knows of a trial that has ended.
fn complete(mut child: Child, mut record: Record) -> Record {
    record.seconds = child.began.elapsed().as_secs_f64();
    let (devices, alone) = (std::mem::take(&mut child.devices), child.alone);
    child.kernel_log.close(&devices, alone, &mut record);
    let silent = fs::metadata(&child.log_path).is_ok_and(|m| m.len() == 0);
    let uneventful = matches!(
        record.verdict,
        Verdict::Safe | Verdict::Unsupported | Verdict::Skipped
    );
    if silent || uneventful {
        let _ = fs::remove_file(&child.log_path);
    } else {
        record.artefacts.push(child.log_path.display().to_string());
    }
    blank::judge_expectation(&mut record);
    record
}
