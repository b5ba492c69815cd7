//! A machine that runs: its console and its records are read until it ends or time is up, and it is never
//! left behind.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use punchbench_sys::namespaces::IsolatedChild;

use crate::console::Console;
use crate::host;

/// How much of what an emulator itself says is kept.
const STDERR_KEPT: usize = 16 << 10;
/// How long a machine may go on after its kernel has panicked.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A running machine; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) console: UnixStream,
    pub(crate) records: UnixStream,
    /// What the emulator says of itself, where that does not go to the console.
    pub(crate) stderr: Option<ChildStderr>,
}

/// The process that is the machine.
#[derive(Debug)]
pub(crate) enum Process {
    /// A program that runs guests.
    Emulator(Child),
    /// A kernel as a program, with its own processes below it in a namespace that ends with it.
    Kernel {
        child: IsolatedChild,
        /// Its number may be another's then.
        reaped: bool,
    },
}

/// What a machine is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Console,
    Records,
    Stderr,
}

/// Why reading a machine ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The process ended, with this status and words of its own.
    Exited(String),
    /// The instant passed at which everything had to be done.
    Deadline,
    /// Nothing came from the guest for the time allowed.
    Silence,
    /// The caller asked for it.
    Stopped,
}

/// When to give a machine up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) until: Instant,
    pub(crate) silence: Duration,
}

impl Process {
    fn wait(&mut self) -> io::Result<String> {
        Ok(match self {
            Self::Emulator(child) => child.wait()?.to_string(),
            Self::Kernel { child, reaped } => {
                let status = waitpid(child.pid, None)?;
                *reaped = true;
                format!("{status:?}")
            }
        })
    }

    fn end(&mut self) {
        // Each fails only if it was waited for already.
        match self {
            Self::Emulator(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Kernel { child, reaped } if !*reaped => {
                let _ = kill(child.pid, Signal::SIGKILL);
                let _ = waitpid(child.pid, None);
                *reaped = true;
            }
            Self::Kernel { .. } => {}
        }
    }
}

impl Running {
    /// Reads until the machine ends, a limit passes or `stop` can be read. `on_records` gets the second
    /// port's bytes and may change the limits.
    pub(crate) fn watch(
        &mut self,
        console: &mut Console,
        mut limits: Limits,
        stop: Option<BorrowedFd>,
        on_records: &mut dyn FnMut(&[u8], &mut Limits) -> io::Result<()>,
    ) -> io::Result<Ended> {
        let mut buffer = vec![0; 64 << 10];
        let mut open = vec![Source::Console, Source::Records];
        open.extend(self.stderr.as_ref().map(|_| Source::Stderr));
        let mut said = Vec::new();
        let mut heard = Instant::now();
        while !open.is_empty() {
            let now = Instant::now();
            let left = limits.until.saturating_duration_since(now);
            let quiet = (heard + limits.silence).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(Ended::Deadline);
            }
            if quiet.is_zero() {
                return Ok(Ended::Silence);
            }
            let fds = open.iter().map(|&source| self.fd(source)).chain(stop);
            let mut events: Vec<PollFd> =
                fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut events, timeout(left.min(quiet))) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut ready: Vec<bool> = events.iter().map(|e| e.any().unwrap_or_default()).collect();
            if stop.is_some() && ready.pop() == Some(true) {
                return Ok(Ended::Stopped);
            }
            for (source, ready) in open.clone().into_iter().zip(ready) {
                if !ready {
                    continue;
                }
                let count = self.read(source, &mut buffer)?;
                let bytes = &buffer[..count];
                match source {
                    Source::Console => {
                        console.add(bytes)?;
                        if console.panicked() {
                            // The machine ends by itself now, or not at all.
                            limits.until = limits.until.min(Instant::now() + LAST_WORDS);
                        }
                    }
                    Source::Records => on_records(bytes, &mut limits)?,
                    Source::Stderr if said.len() < STDERR_KEPT => said.extend_from_slice(bytes),
                    Source::Stderr => {}
                }
                if count == 0 {
                    open.retain(|&other| other != source);
                } else if source == Source::Records {
                    // Not the console: a kernel that is stuck goes on saying so for ever.
                    heard = Instant::now();
                }
            }
        }
        let status = self.process.wait()?;
        let said = format!("{status} {}", host::tail(&said));
        Ok(Ended::Exited(said.trim().to_owned()))
    }

    fn fd(&self, source: Source) -> BorrowedFd<'_> {
        match source {
            Source::Console => self.console.as_fd(),
            Source::Records => self.records.as_fd(),
            Source::Stderr => match &self.stderr {
                Some(stderr) => stderr.as_fd(),
                None => self.console.as_fd(),
            },
        }
    }

    fn read(&mut self, source: Source, buffer: &mut [u8]) -> io::Result<usize> {
        match source {
            Source::Console => self.console.read(buffer),
            Source::Records => self.records.read(buffer),
            Source::Stderr => match &mut self.stderr {
                Some(stderr) => stderr.read(buffer),
                None => Ok(0),
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.end();
    }
}

fn timeout(left: Duration) -> PollTimeout {
    // Rounded up, or the last millisecond would be spent spinning.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}
