//! Where actors live: each in a forked process of its own (real mounts: a fault blocked under mmap_lock
//! would stall sibling threads), or each in a thread (the live reference). Either way they talk through
//! the board and a pipe.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering::SeqCst;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use punchbench_sys::futex;
use punchbench_sys::process::{Child, Exit, fork};

use crate::actor::QUIT;
use crate::board::Board;
use crate::message::{Receiver, Sender};

/// Where actors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Forked processes; the caller must be single-threaded.
    Fork,
    /// Threads of this process.
    Thread,
}

/// The actors at work, as the coordinator sees them.
#[derive(Debug, Default)]
pub struct Crew {
    /// One pipe an actor, in their order.
    pub receivers: Vec<Receiver>,
    children: Vec<Child>,
}

impl Crew {
    /// Process ids, where actors are processes.
    pub fn pids(&self) -> Vec<i32> {
        self.children.iter().map(Child::pid).collect()
    }

    /// The first actor that has died, and how.
    pub fn dead(&mut self) -> io::Result<Option<(usize, Exit)>> {
        for (i, child) in self.children.iter_mut().enumerate() {
            if let Some(exit) = child.try_wait()? {
                return Ok(Some((i, exit)));
            }
        }
        Ok(None)
    }
}

impl Host {
    /// Starts `actors` actors running `body`, calls `lead` with the crew, and ends them: they are told to
    /// quit (or find the board aborted), and processes that do not are killed.
    pub fn crew<R>(
        self,
        board: &Board,
        actors: usize,
        body: &(dyn Fn(usize, Sender) + Sync),
        lead: impl FnOnce(&mut Crew) -> R,
    ) -> io::Result<R> {
        match self {
            Host::Fork => {
                let mut crew = Crew::default();
                for actor in 0..actors {
                    let (receiver, sender) = pipe()?;
                    let mut sender = Some(sender);
                    crew.children.push(fork(|| {
                        if let Some(sender) = sender.take() {
                            body(actor, sender);
                        }
                        0
                    })?);
                    crew.receivers.push(receiver);
                }
                let result = lead(&mut crew);
                dismiss(board);
                if board.aborted() {
                    crew.children.iter().for_each(Child::kill);
                }
                for child in &mut crew.children {
                    child.wait()?;
                }
                Ok(result)
            }
            Host::Thread => std::thread::scope(|scope| {
                let _dismiss = Dismiss(board);
                let mut crew = Crew::default();
                for actor in 0..actors {
                    let (receiver, sender) = pipe()?;
                    scope.spawn(move || {
                        let _guard = AbortOnPanic(board);
                        body(actor, sender);
                    });
                    crew.receivers.push(receiver);
                }
                Ok(lead(&mut crew))
            }),
        }
    }
}

/// Threads that are waited for leave, however the coordinator ends.
struct Dismiss<'a>(&'a Board);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
        dismiss(self.0);
    }
}

/// The others do not wait for an actor that panicked.
struct AbortOnPanic<'a>(&'a Board);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}

fn dismiss(board: &Board) {
    board.command().store(QUIT, SeqCst);
    futex::wake_all(board.command());
}

fn pipe() -> io::Result<(Receiver, Sender)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((
        Receiver::new(File::from(reader)),
        Sender(File::from(writer)),
    ))
}
