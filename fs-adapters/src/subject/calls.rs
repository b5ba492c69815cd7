//! The system call behind each call.

use std::os::fd::AsFd;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc::{self, off_t};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;
use punchbench_race::{Call, FileId, Outcome};
use punchbench_scenarios::MadviseAdvice;
use punchbench_sys::blk;
use punchbench_sys::extents::look_up;
use punchbench_sys::inode::{precache_extents, swap_boot, toggle_journal_data};
use punchbench_sys::io::{read_nowait, readahead};
use punchbench_sys::map::Advice;
use punchbench_sys::remap::{clone_range, dedupe, exchange_range};

use super::actor::{SyscallSubject, View};
use super::outcome::{accessed, done, errno, moved, refused};

const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
const ZERO: FallocateFlags =
    FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

impl SyscallSubject {
    /// Carries out a call on a file of the scenario; `buf` is exactly as long as its range.
    pub(super) fn on_file(
        &mut self,
        call: &Call,
        file: FileId,
        at: u64,
        buf: &mut [u8],
    ) -> Outcome {
        let Some(view) = self.files.get(usize::from(file)) else {
            return refused(libc::EBADF);
        };
        match *call {
            Call::PunchHole { len, .. } => view.fallocate(PUNCH, at, len),
            Call::ZeroRange { len, .. } => view.fallocate(ZERO, at, len),
            Call::CollapseRange { len, .. } => {
                view.fallocate(FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, at, len)
            }
            Call::InsertRange { len, .. } => {
                view.fallocate(FallocateFlags::FALLOC_FL_INSERT_RANGE, at, len)
            }
            Call::Truncate { size, .. } => done(ftruncate(&view.file, size as off_t)),
            Call::Read {
                nowait,
                direct: true,
                ..
            } => self.read_direct(file, nowait, at, buf),
            Call::Read { nowait: true, .. } => moved(read_nowait(view.file.as_fd(), at, buf)),
            Call::Read {
                readahead: true, ..
            } => match &view.ahead {
                Some(ahead) => moved(pread(ahead, buf, at as off_t)),
                None => refused(libc::ENOTSUP),
            },
            Call::Read { .. } => moved(pread(&view.file, buf, at as off_t)),
            Call::UringRead { nowait, .. } => match &mut self.ring {
                Some(ring) => moved(ring.read(view.file.as_fd(), at, buf, nowait)),
                None => refused(libc::ENOTSUP),
            },
            Call::Splice { len, .. } => match &mut self.pipe {
                Some(pipe) => pipe.fill(&view.file, at, len),
                None => refused(libc::ENOTSUP),
            },
            Call::Drain { .. } => match &mut self.pipe {
                Some(pipe) => pipe.drain(buf),
                None => refused(libc::ENOTSUP),
            },
            Call::Fault { .. } => self.load(file, at, buf),
            Call::Fadvise { len, .. } => done(posix_fadvise(
                &view.file,
                at as off_t,
                len as off_t,
                PosixFadviseAdvice::POSIX_FADV_WILLNEED,
            )),
            Call::Readahead { len, .. } => done(readahead(view.file.as_fd(), at, len)),
            Call::Madvise { len, advice, .. } => {
                let Some((_, map)) = &view.map else {
                    return refused(libc::ENOTSUP);
                };
                let advice = match advice {
                    MadviseAdvice::Willneed => Advice::WillNeed,
                    MadviseAdvice::PopulateRead => Advice::PopulateRead,
                    MadviseAdvice::Collapse => Advice::Collapse,
                };
                done(map.advise(at..at + len, advice))
            }
            Call::Fiemap { len, .. } => match look_up(view.file.as_fd(), at..at + len) {
                Ok(extents) => Outcome {
                    bytes: extents,
                    ..Outcome::default()
                },
                Err(error) => refused(errno(error)),
            },
            Call::CloneRange { len, from, .. } => match self.files.get(usize::from(from)) {
                Some(from) => done(clone_range(view.file.as_fd(), at, len, from.file.as_fd())),
                None => refused(libc::EBADF),
            },
            Call::ExchangeRange { len, with, .. } => match self.files.get(usize::from(with)) {
                Some(with) => done(exchange_range(
                    view.file.as_fd(),
                    at,
                    len,
                    with.file.as_fd(),
                )),
                None => refused(libc::EBADF),
            },
            Call::PrecacheExtents { .. } => match precache_extents(view.file.as_fd()) {
                Ok(()) => Outcome {
                    bytes: 1,
                    ..Outcome::default()
                },
                Err(error) => refused(errno(error)),
            },
            Call::SwapBoot { .. } => done(swap_boot(view.file.as_fd())),
            Call::JournalData { .. } => done(toggle_journal_data(view.file.as_fd()).map(drop)),
            Call::BlkZeroout { len, .. } => done(blk::zero_out(&view.file, at, len)),
            Call::BlkDiscard { len, .. } => done(blk::discard(&view.file, at, len)),
            Call::ReadInto { len, from, .. } => self.read_into(file, at, len, from),
            Call::Dedupe { len, into, .. } => {
                let Some(into) = self.files.get(usize::from(into)) else {
                    return refused(libc::EBADF);
                };
                match dedupe(view.file.as_fd(), at, len, into.file.as_fd()) {
                    Ok(answer) => Outcome {
                        bytes: answer.bytes,
                        same: Some(answer.same),
                        ..Outcome::default()
                    },
                    Err(error) => refused(errno(error)),
                }
            }
            Call::Store { .. } => match self.files.get_mut(usize::from(file)) {
                Some(View {
                    map: Some((_, map)),
                    ..
                }) => accessed(map.store(at, buf)),
                _ => refused(libc::ENOTSUP),
            },
            Call::Write { direct: true, .. } => self.write_direct(file, at, buf),
            Call::Write { .. } => moved(pwrite(&view.file, buf, at as off_t)),
            Call::Fsync { .. } => done(nix::unistd::fsync(&view.file)),
            Call::Syncfs => refused(libc::EINVAL),
        }
    }
}

impl SyscallSubject {
    fn read_into(&mut self, file: FileId, at: u64, len: u64, from: FileId) -> Outcome {
        let pair = [usize::from(file), usize::from(from)];
        match self.files.get_disjoint_mut(pair) {
            Ok(
                [
                    View {
                        map: Some((_, map)),
                        ..
                    },
                    from,
                ],
            ) => moved(map.read_from(from.file.as_fd(), at, len)),
            Ok(_) => refused(libc::ENOTSUP),
            Err(_) => refused(libc::EBADF),
        }
    }
}

impl View {
    fn fallocate(&self, mode: FallocateFlags, at: u64, len: u64) -> Outcome {
        done(fallocate(&self.file, mode, at as off_t, len as off_t))
    }
}
