//! Forked actors: made from a single-threaded process, bound to a CPU, killed and reaped on drop.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code; 101 after a panic.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// Has this process end, as programs usually do, when it writes to a pipe that nobody reads any more. The
/// standard library makes such writes fail instead, and `println!` panic. Not for who writes to pipes of other
/// kinds.
pub fn end_on_broken_pipe() -> io::Result<()> {
    // SAFETY: the default action is no handler, so no code of ours runs in a signal's context.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }?;
    Ok(())
}

/// A forked child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    exit: Option<Exit>,
}

/// Forks a child that runs `body` and exits with the code it returns. It gets SIGKILL when the thread
/// that forked it ends. Fork from single-threaded processes only: the child may then allocate and do
/// everything else its parent could.
pub fn fork(body: impl FnOnce() -> i32) -> io::Result<Child> {
    let parent = nix::unistd::getpid();
    // SAFETY: callers are single-threaded (documented above), so no lock can be held by a thread that the
    // child lacks; the child leaves through `_exit` and never returns into the caller's frames.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Child {
            pid: child,
            exit: None,
        }),
        ForkResult::Child => {
            let tied = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
            let code = if tied && nix::unistd::getppid() == parent {
                catch_unwind(AssertUnwindSafe(body)).unwrap_or(101)
            } else {
                1
            };
            // SAFETY: always safe to call; skips the parent's destructors and buffers on purpose.
            unsafe { libc::_exit(code) }
        }
    }
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        self.reap(Some(WaitPidFlag::WNOHANG))
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<Exit> {
        loop {
            if let Some(exit) = self.reap(None)? {
                return Ok(exit);
            }
        }
    }

    /// Sends SIGKILL, unless it was reaped already.
    pub fn kill(&self) {
        if self.exit.is_none() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    fn reap(&mut self, flags: Option<WaitPidFlag>) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = match waitpid(self.pid, flags) {
                Ok(WaitStatus::Exited(_, code)) => Some(Exit::Code(code)),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(Exit::Signal(signal as i32)),
                Ok(_) | Err(nix::Error::EINTR) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(self.exit)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.kill();
            let _ = self.wait();
        }
    }
}

/// A process that can be waited for, whosever child it is (pidfd_open(2)).
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Of a process; ESRCH if there is none.
    pub fn open(pid: u32) -> io::Result<Pidfd> {
        // SAFETY: pidfd_open takes two numbers; what it returns is a new descriptor, or negative.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
        match RawFd::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok(fd) if fd >= 0 => Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits for its end until then at most; whether it came. A child must still be reaped.
    pub fn wait(&self, deadline: Instant) -> bool {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(1..) => return true,
                _ if left.is_zero() => return false,
                _ => {}
            }
        }
    }
}

/// The CPUs that this thread may run on.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}

/// Binds this thread to one CPU.
pub fn bind(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Gives the CPU to whoever else waits for it.
pub fn yield_now() {
    let _ = nix::sched::sched_yield();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_panics_and_kills_are_told_apart() {
        assert_eq!(fork(|| 3).unwrap().wait().unwrap(), Exit::Code(3));
        assert_eq!(
            fork(|| panic!("seen by the parent as 101"))
                .unwrap()
                .wait()
                .unwrap(),
            Exit::Code(101)
        );
        let mut sleeper = fork(|| {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        })
        .unwrap();
        assert_eq!(sleeper.try_wait().unwrap(), None);
        sleeper.kill();
        assert_eq!(sleeper.wait().unwrap(), Exit::Signal(9));
    }

    #[test]
    fn the_end_of_a_process_is_awaited_and_no_longer_than_that() {
        use std::time::Duration;
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pidfd = Pidfd::open(sleeper.id()).unwrap();
        assert!(!pidfd.wait(Instant::now() + Duration::from_millis(20)));
        sleeper.kill().unwrap();
        assert!(pidfd.wait(Instant::now() + Duration::from_secs(10)));
        sleeper.wait().unwrap();
        assert!(Pidfd::open(sleeper.id()).is_err());
    }

    #[test]
    fn binding_leaves_one_cpu() {
        let last = *cpus().unwrap().last().unwrap();
        std::thread::spawn(move || {
            bind(last).unwrap();
            assert_eq!(cpus().unwrap(), vec![last]);
        })
        .join()
        .unwrap();
    }
}
