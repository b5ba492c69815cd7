//! The pipe that an actor splices file pages into.
//!
//! It holds the pages themselves, not copies: as long as they are in it they can be neither split nor
//! evicted. So it never keeps any longer than until the next drain or splice.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::libc::off_t;
use nix::unistd::{pipe2, read};
use punchbench_race::Outcome;

use super::outcome::refused;

/// What an unprivileged user may make a pipe hold, unless the administrator changed it
/// (/proc/sys/fs/pipe-max-size).
const ROOM: i32 = 1 << 20;

#[derive(Debug)]
pub(super) struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    /// Something may be in it.
    holds: bool,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        // A full pipe ends a splice and an empty one a drain: nobody else could make it go on.
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        match fcntl(&into, FcntlArg::F_SETPIPE_SZ(ROOM)) {
            // Then it stays at its usual size, and a longer splice ends short.
            Ok(_) | Err(Errno::EPERM) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Pipe {
            out,
            into,
            holds: false,
        })
    }

    /// splice(2) of a range into the pipe, in as many calls as it takes, until the end of the file or the
    /// pipe is full.
    pub fn fill(&mut self, file: &File, at: u64, len: u64) -> Outcome {
        if self.holds {
            let left = self.drain(&mut []);
            if left.errno != 0 {
                return left;
            }
        }
        self.holds = true;
        let mut bytes = 0;
        while bytes < len {
            let mut from = (at + bytes) as off_t;
            let rest = (len - bytes) as usize;
            match splice(
                file,
                Some(&mut from),
                &self.into,
                None,
                rest,
                SpliceFFlags::empty(),
            ) {
                Ok(0) => break,
                Ok(moved) => bytes += moved as u64,
                Err(Errno::EAGAIN) if bytes > 0 => break,
                Err(error) => {
                    return Outcome {
                        bytes,
                        ..refused(error as i32)
                    };
                }
            }
        }
        Outcome {
            bytes,
            ..Outcome::default()
        }
    }

    /// Reads everything out of the pipe, what `buf` has no room for into nowhere.
    pub fn drain(&mut self, buf: &mut [u8]) -> Outcome {
        let mut nowhere = [0; 4096];
        let mut bytes = 0;
        loop {
            let fits = bytes < buf.len();
            let got = match fits {
                true => read(&self.out, &mut buf[bytes..]),
                false => read(&self.out, &mut nowhere),
            };
            match got {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(got) if fits => bytes += got,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    // A page that cannot be read (`page_cache_pipe_buf_confirm`) stays at the head of the
                    // pipe. If there is no other pipe to be had, the next splice meets the same error.
                    if let Ok(fresh) = Pipe::new() {
                        *self = fresh;
                    }
                    return Outcome {
                        bytes: bytes as u64,
                        ..refused(error as i32)
                    };
                }
            }
        }
        self.holds = false;
        Outcome {
            bytes: bytes as u64,
            ..Outcome::default()
        }
    }
}
