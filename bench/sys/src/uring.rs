//! One read at a time through io_uring.
//!
//! The kernel reads inline where the file knows how not to wait (FMODE_NOWAIT), and else, as always on
//! tmpfs, hands the read to an `iou-wrk` thread of the process: the filler is not always the task that
//! called, and a process that has read so is no longer one of a single thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::{IoUring, Probe, opcode, types};

/// A ring of one entry.
pub struct Ring {
    ring: IoUring,
    /// The kernel refused to take an entry, which still lies in the queue: nothing may be submitted again.
    refused: bool,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// io_uring_setup(2): ENOSYS where the kernel has none, EPERM where kernel.io_uring_disabled or a
    /// seccomp filter forbids it, ENOMEM where RLIMIT_MEMLOCK counts it (before 5.12), EOPNOTSUPP where it
    /// does not know IORING_OP_READ. Reads nothing, so that no `iou-wrk` thread is started.
    pub fn new() -> io::Result<Ring> {
        let ring = IoUring::new(1)?;
        let mut known = Probe::new();
        ring.submitter().register_probe(&mut known)?;
        if !known.is_supported(opcode::Read::CODE) {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        Ok(Ring {
            ring,
            refused: false,
        })
    }

    /// One IORING_OP_READ, submitted and awaited in one io_uring_enter(2). With `nowait` it carries RWF_NOWAIT:
    /// EAGAIN where it would have to wait, and never a thread that waits for it.
    pub fn read(
        &mut self,
        file: BorrowedFd<'_>,
        at: u64,
        buf: &mut [u8],
        nowait: bool,
    ) -> io::Result<usize> {
        let broken = || io::Error::from_raw_os_error(libc::EBADFD);
        if self.refused {
            return Err(broken());
        }
        let len = u32::try_from(buf.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let read = opcode::Read::new(types::Fd(file.as_raw_fd()), buf.as_mut_ptr(), len)
            .offset(at)
            .rw_flags(if nowait { libc::RWF_NOWAIT } else { 0 })
            .build();
        // SAFETY: `buf` and the descriptor outlive the request: below, this returns only once the request
        // is complete, or was never taken and, with `refused`, never will be.
        unsafe { self.ring.submission().push(&read) }.map_err(|_| broken())?;
        loop {
            let entered = self.ring.submit_and_wait(1);
            if let Some(done) = self.ring.completion().next() {
                return usize::try_from(done.result())
                    .map_err(|_| io::Error::from_raw_os_error(-done.result()));
            }
            match entered {
                Err(error)
                    if error.kind() != io::ErrorKind::Interrupted
                        && !self.ring.submission().is_empty() =>
                {
                    self.refused = true;
                    return Err(error);
                }
                // Taken, or interrupted: until it is complete the buffer is the kernel's.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn reads_what_is_there_and_no_more() {
        let Ok(mut ring) = Ring::new() else {
            return; // Forbidden or not built in here.
        };
        let fd = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::empty());
        let mut file = std::fs::File::from(fd.unwrap());
        file.write_all(b"0123456789").unwrap();
        let mut buf = [0; 8];
        for _ in 0..3 {
            assert_eq!(ring.read(file.as_fd(), 1, &mut buf, false).unwrap(), 8);
            assert_eq!(&buf, b"12345678");
        }
        assert_eq!(ring.read(file.as_fd(), 6, &mut buf, false).unwrap(), 4);
        assert_eq!(&buf, b"67895678");
        let dir = std::fs::File::open("/").unwrap();
        let error = ring.read(dir.as_fd(), 0, &mut buf, false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
    }
}
