//! How long a trial may be silent, and whose fault it is when it is silent for longer: every task of the
//! trial is looked at twice, with its kernel stack. A task that the kernel keeps in an operation makes the
//! trial `hung`; else it is the bench that hangs, which is an `error`.

use std::fs;
use std::time::{Duration, Instant};

use nix::libc;
use punchbench_fs::hold::observe::{Task, tasks};
use punchbench_results::Verdict;

use crate::child::Child;
use crate::outside;
use crate::plan::Racing;
use crate::wire::Phase;

/// Between the two looks at a task.
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// Tasks looked at, at most.
const TASKS_MAX: usize = 64;

/// What the tools may take by themselves before the watchdog ends them.
const TOOLS: Duration = Duration::from_secs(130);

/// Waits in which an actor is between its operations: for another actor, or for the runner.
const WAITS_OF_THE_BENCH: [i64; 8] = [
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_read,
    libc::SYS_write,
];

/// Calls into a filesystem that may wait interruptibly, in phases where nobody races.
const FILESYSTEM_CALLS: [i64; 7] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_sync,
    libc::SYS_fadvise64,
];

/// When a trial is given up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without any sign of progress.
    pub silence: Duration,
    /// How long it was told to race.
    pub racing: Racing,
}

impl Patience {
    /// Until when `child` may go on as it is.
    pub fn deadline(&self, child: &Child) -> Option<Instant> {
        let silent = child.heard + self.silence;
        match child.phase {
            Phase::Turn => None,
            Phase::Mkfs | Phase::Fsck => Some(child.phase_began + self.silence.max(TOOLS)),
            Phase::Race => Some(match self.racing {
                // A trial that goes on for ever in good spirits is not what was asked for either.
                Racing::Seconds { most, .. } => {
                    let most = Duration::from_secs_f64(2.0 * most) + 10 * self.silence;
                    silent.min(child.phase_began + most)
                }
                Racing::Rounds(_) => silent,
            }),
            Phase::Start
            | Phase::Mount
            | Phase::Prepare
            | Phase::Evict
            | Phase::Remount
            | Phase::CleanUp => Some(silent),
        }
    }
}

/// What the watchdog found.
#[derive(Debug)]
pub struct Finding {
    /// `hung` or `error`.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub reason: String,
    /// Every task with its stack, and what it may wait for outside the trial.
    pub log: Vec<String>,
}

/// Looks at a silent trial.
pub fn investigate(child: &Child) -> Finding {
    let before = look(child.pid());
    // Nothing can be awaited here: whether something does *not* happen is the question.
    std::thread::sleep(BETWEEN_LOOKS);
    let after = look(child.pid());
    let racing = child.phase == Phase::Race;
    let stuck: Vec<&Looked> = after
        .iter()
        .filter(|t| {
            before
                .iter()
                .any(|b| b.task.tid == t.task.tid && b.is_stuck(racing))
                && t.is_stuck(racing)
        })
        .collect();
    let silent = child.heard.elapsed().as_secs_f64();
    let place = format!(
        "no progress for {silent:.0} s in phase {}",
        child.phase.word()
    );
    let (verdict, reason) = match stuck.first() {
        Some(task) => {
            let names: Vec<String> = stuck.iter().map(|t| t.name()).collect();
            let at = task
                .task
                .stack
                .first()
                .map_or_else(String::new, |top| format!(" at {top}"));
            (
                Verdict::Hung,
                format!(
                    "{place}: {} did not return from an operation{at}",
                    names.join(", ")
                ),
            )
        }
        None => (
            Verdict::Error,
            format!("{place}, and no task of the trial is in an operation: the bench hangs"),
        ),
    };
    let mut log: Vec<String> = after.iter().flat_map(Looked::lines).collect();
    let ours: Vec<i32> = after.iter().map(|t| t.task.pid).collect();
    log.extend(outside::lines(&ours));
    Finding {
        verdict,
        reason,
        log,
    }
}

/// One look at one task.
#[derive(Debug)]
struct Looked {
    task: Task,
    /// It is the trial's process 1.
    coordinator: bool,
}

impl Looked {
    fn is_stuck(&self, racing: bool) -> bool {
        let call = self.task.call;
        match self.task.state {
            'D' => true,
            'S' if racing && !self.coordinator => {
                call.is_some_and(|call| !WAITS_OF_THE_BENCH.contains(&call))
            }
            'S' => call.is_some_and(|call| FILESYSTEM_CALLS.contains(&call)),
            _ => false,
        }
    }

    fn name(&self) -> String {
        format!("{} (process {})", self.task.command, self.task.tid)
    }

    fn lines(&self) -> Vec<String> {
        let task = &self.task;
        let call = task
            .call
            .map_or_else(|| "none".to_owned(), |c| c.to_string());
        let head = format!(
            "{}: state {}, system call {call}, wchan {}",
            self.name(),
            task.state,
            task.wchan
        );
        [head]
            .into_iter()
            .chain(task.stack.iter().map(|frame| format!("  {frame}")))
            .collect()
    }
}

/// Every task in the PID namespace of the trial's process 1.
fn look(init: i32) -> Vec<Looked> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(ours) = namespace(init) else {
        return Vec::new();
    };
    let pids = outside::pids()
        .into_iter()
        .filter(|pid| namespace(*pid).as_ref() == Some(&ours));
    let looked = pids.flat_map(|pid| {
        tasks(pid).into_iter().map(move |task| Looked {
            task,
            coordinator: pid == init,
        })
    });
    looked.take(TASKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(state: char, call: Option<i64>, coordinator: bool) -> Looked {
        let task = Task {
            pid: 7,
            tid: 7,
            command: "x".into(),
            state,
            call,
            wchan: String::new(),
            stack: Vec::new(),
        };
        Looked { task, coordinator }
    }

    #[test]
    fn who_sleeps_uninterruptibly_is_stuck_in_every_phase() {
        assert!(task('D', None, true).is_stuck(false));
        assert!(task('D', Some(libc::SYS_pread64), false).is_stuck(true));
    }

    #[test]
    fn an_actor_is_stuck_in_any_call_but_the_waits_of_the_bench() {
        assert!(task('S', Some(libc::SYS_clock_nanosleep), false).is_stuck(true));
        assert!(task('S', Some(libc::SYS_fallocate), false).is_stuck(true));
        assert!(!task('S', Some(libc::SYS_futex), false).is_stuck(true));
        assert!(!task('R', None, false).is_stuck(true));
        assert!(!task('S', Some(libc::SYS_poll), true).is_stuck(true));
    }

    #[test]
    fn outside_the_race_only_calls_into_a_filesystem_count() {
        assert!(task('S', Some(libc::SYS_umount2), true).is_stuck(false));
        assert!(!task('S', Some(libc::SYS_clock_nanosleep), true).is_stuck(false));
    }
}
