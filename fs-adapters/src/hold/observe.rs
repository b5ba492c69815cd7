//! Who sleeps where: state, system call and kernel stack of every thread of a process, out of /proc. No event
//! tells that a task has fallen asleep, so this looks again and again, at a bounded rate.
//!
//! Two questions are told apart. An operation is *parked* in a function if that is anywhere on its stack: it
//! sleeps below it, in whatever waits for the held I/O. A filler is *blocked by a lock* only if the *innermost*
//! function is the one that took the lock: a filler that waits for I/O of its own has the same functions below.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// Lines of one task's stack that are kept.
const STACK_LINES: usize = 24;

/// Threads looked at of one process: a worker or two of io_uring beside its own.
const THREADS: usize = 64;

/// Functions that only put to sleep. The kernel leaves what it keeps in its scheduler's section out of the
/// stack (`in_sched_functions`), which is all of these on the kernels seen; these are for one built otherwise.
const SLEEPERS: [&str; 9] = [
    "schedule",
    "schedule_timeout",
    "schedule_preempt_disabled",
    "io_schedule",
    "down_read",
    "down_read_killable",
    "down_write",
    "rwsem_down_read_slowpath",
    "rwsem_down_write_slowpath",
];

/// Between two looks that prove a stay.
pub const BETWEEN: Duration = Duration::from_millis(100);

/// Between two looks for somebody who has not fallen asleep yet: a look at one thread reads four small files of
/// /proc.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// One look at one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// Its name.
    pub command: String,
    /// R, S, D, …: proc_pid_stat(5).
    pub state: char,
    /// The number of the system call that it sleeps in.
    pub call: Option<i64>,
    /// What the kernel says that it waits in.
    pub wchan: String,
    /// Its kernel stack, the innermost function first, as the kernel prints it: `xfs_ilock+0x9a/0x110 [xfs]`.
    /// Empty for a task that runs, and where the kernel does not give stacks away.
    pub stack: Vec<String>,
}

impl Task {
    /// Looks at one thread; `None` if it is gone.
    pub fn look(pid: i32, tid: i32) -> Option<Task> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}"));
        let stat = read("stat").ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let text = |name: &str| read(name).unwrap_or_default().trim().to_owned();
        Some(Task {
            pid,
            tid,
            command: head.split_once('(')?.1.to_owned(),
            state: rest.trim_start().chars().next()?,
            call: text("syscall")
                .split_whitespace()
                .next()
                .and_then(|number| number.parse().ok()),
            wchan: text("wchan"),
            stack: text("stack")
                .lines()
                .take(STACK_LINES)
                .map(|line| line.split_once("] ").map_or(line, |(_, frame)| frame))
                .map(str::to_owned)
                .collect(),
        })
    }

    /// The functions on its stack, the innermost first, without what only puts to sleep.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.stack
            .iter()
            .map(|frame| function(frame))
            .skip_while(|name| SLEEPERS.contains(name))
    }

    /// The innermost function: who waits.
    pub fn top(&self) -> Option<&str> {
        self.functions().next()
    }

    /// Asleep such that only what it waits for wakes it, or a signal that kills.
    pub fn is_asleep(&self) -> bool {
        self.state == 'D'
    }
}

/// The name in `ext4_read_bh_lock.constprop.0+0x12/0x40 [ext4]`, without what the compiler made of it.
fn function(frame: &str) -> &str {
    let end = frame.find(['+', '.', ' ']).unwrap_or(frame.len());
    &frame[..end]
}

/// Every thread of a process, as of now. A process that is gone has none.
pub fn tasks(pid: i32) -> Vec<Task> {
    let listed = fs::read_dir(format!("/proc/{pid}/task"));
    listed
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .take(THREADS)
        .filter_map(|tid| Task::look(pid, tid))
        .collect()
}

/// Where a task is to be found asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'a> {
    /// The innermost function is one of these: blocked by the lock that it takes.
    Top(&'a [&'a str]),
    /// One of these is on the stack: parked below it.
    Inside(&'a [&'a str]),
    /// Anywhere.
    Any,
}

impl At<'_> {
    /// Which of the functions it is, if the task sleeps there.
    fn found<'t>(&self, task: &'t Task) -> Option<&'t str> {
        if !task.is_asleep() {
            return None;
        }
        match self {
            At::Top(names) => task.top().filter(|top| names.contains(top)),
            At::Inside(names) => task.functions().find(|name| names.contains(name)),
            At::Any => task.top(),
        }
    }
}

/// A thread seen asleep at the same place in two looks, at least [`BETWEEN`] apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// As it was seen last.
    pub task: Task,
    /// The function that was looked for.
    pub function: String,
    /// The innermost function, the same in all looks.
    pub top: String,
    /// From the first look to the last.
    pub seen_for: Duration,
}

impl Stay {
    /// Whether it goes on: the same thread sleeps, with the same functions innermost. To be asked once more just
    /// before the release; it then lasted until there.
    pub fn goes_on(&self) -> bool {
        Task::look(self.task.pid, self.task.tid)
            .is_some_and(|task| task.is_asleep() && task.top() == Some(&self.top))
    }
}

/// Waits until a thread of `pid` sleeps at a place in two looks [`BETWEEN`] apart, with the same function
/// innermost; `None` if none came to that in time. An error if /proc does not give kernel stacks away, as then
/// nothing can ever be found.
pub fn wait_asleep(pid: i32, at: At<'_>, timeout: Duration) -> io::Result<Option<Stay>> {
    let deadline = Instant::now() + timeout;
    // A stack of our own is readable where anybody's is.
    fs::read_to_string("/proc/self/stack")?;
    loop {
        let began = Instant::now();
        for first in tasks(pid) {
            let Some(function) = at.found(&first) else {
                continue;
            };
            thread::sleep(BETWEEN);
            let again = Task::look(first.pid, first.tid);
            if let Some(task) = again
                && at.found(&task) == Some(function)
                && task.top() == first.top()
            {
                return Ok(Some(Stay {
                    function: function.to_owned(),
                    top: first.top().unwrap_or_default().to_owned(),
                    seen_for: began.elapsed(),
                    task,
                }));
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc;

    fn task(state: char, stack: &[&str]) -> Task {
        Task {
            pid: 1,
            tid: 1,
            command: "x".to_owned(),
            state,
            call: None,
            wchan: String::new(),
            stack: stack.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    #[test]
    fn a_filler_that_waits_for_its_own_read_is_not_blocked_by_the_lock() {
        let waits_for_io = task(
            'D',
            &[
                "folio_wait_bit_common+0x1a3/0x380",
                "filemap_update_page+0x2c0/0x360",
                "page_cache_ra_unbounded+0x1b3/0x200",
            ],
        );
        let lock = ["page_cache_ra_unbounded", "xfs_ilock"];
        assert_eq!(At::Top(&lock).found(&waits_for_io), None);
        assert_eq!(
            At::Inside(&lock).found(&waits_for_io),
            Some("page_cache_ra_unbounded")
        );
        let blocked = task(
            'D',
            &["xfs_ilock+0x9a/0x110 [xfs]", "xfs_file_read_iter+0x1/0x2"],
        );
        assert_eq!(At::Top(&lock).found(&blocked), Some("xfs_ilock"));
        assert_eq!(At::Any.found(&blocked), Some("xfs_ilock"));
        let runs = task('R', &["xfs_ilock+0x9a/0x110 [xfs]"]);
        assert_eq!(At::Top(&lock).found(&runs), None);
    }

    #[test]
    fn what_only_puts_to_sleep_and_what_compilers_add_is_skipped() {
        let blocked = task(
            'D',
            &[
                "rwsem_down_read_slowpath+0x1/0x2",
                "down_read+0x1/0x2",
                "ext4_filemap_fault.isra.0+0x2b/0x50 [ext4]",
                "down_read+0x1/0x2",
            ],
        );
        assert_eq!(blocked.top(), Some("ext4_filemap_fault"));
        // A part of a name is another name.
        assert_eq!(At::Top(&["ext4_filemap"]).found(&blocked), None);
    }

    #[test]
    fn a_process_is_seen_with_its_state_and_one_that_is_gone_is_not() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let asleep = || {
            tasks(pid)
                .into_iter()
                .find(|t| t.state == 'S' && t.command == "sleep")
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let seen = loop {
            if let Some(task) = asleep() {
                break task;
            }
            assert!(Instant::now() < deadline);
            thread::yield_now();
        };
        assert!(!seen.is_asleep(), "an ordinary sleep is no lock");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            seen.call.is_none_or(|c| c == libc::SYS_clock_nanosleep),
            "{seen:?}"
        );
        assert!(tasks(pid).is_empty());
    }

    #[test]
    fn waiting_for_a_sleeper_ends_in_time() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let began = Instant::now();
        match wait_asleep(pid, At::Top(&["no_such_function"]), BETWEEN) {
            Ok(found) => assert_eq!(found, None),
            // /proc/PID/stack is root's.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
