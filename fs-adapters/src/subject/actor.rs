//! One actor's descriptors and mappings, and its calls. Within a round nothing here allocates: buffers
//! are made when the files are opened, requests live on the stack.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc::{self, off_t};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::uio::{pread, pwrite};
use punchbench_race::{Call, FileId, Look, Outcome, Subject, SubjectError, Usage};
use punchbench_scenarios::MadviseAdvice;
use punchbench_sys::io::{AlignedBuf, DirectAlign, dedupe, direct_align, read_nowait, readahead};
use punchbench_sys::map::{Access, Advice, Mapping, Protection};

use super::evict::evict;
use super::{SubjectOptions, failed};

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapFor {
    /// The actor loads from it and stores to it.
    Actor,
    /// Only to ask what is in the page cache: keeps no page mapped.
    Probe,
}

/// One file as this actor sees it.
#[derive(Debug)]
struct View {
    name: String,
    file: File,
    direct: Option<File>,
    /// What direct reads must be aligned to.
    align: u64,
    map: Option<(MapFor, Mapping)>,
    /// Bytes that a mapping covers.
    room: u64,
}

/// One actor's own view of the files.
#[derive(Debug)]
pub(super) struct SyscallSubject {
    dir: File,
    files: Vec<View>,
    bounce: AlignedBuf,
    options: SubjectOptions,
}

/// The most that one direct read moves.
const BOUNCE: usize = 1 << 20;
/// What direct reads are aligned to at least: larger than any usual logical block.
const ALIGN: u64 = 4096;

const PUNCH: FallocateFlags =
    FallocateFlags::FALLOC_FL_PUNCH_HOLE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);
const ZERO: FallocateFlags =
    FallocateFlags::FALLOC_FL_ZERO_RANGE.union(FallocateFlags::FALLOC_FL_KEEP_SIZE);

impl SyscallSubject {
    pub(super) fn new(dir: File, options: SubjectOptions) -> SyscallSubject {
        SyscallSubject {
            dir,
            files: Vec::new(),
            bounce: AlignedBuf::new(BOUNCE, ALIGN as usize),
            options,
        }
    }

    /// Takes over the next file of the scenario, in its order.
    pub(super) fn add(
        &mut self,
        name: &str,
        file: File,
        direct: Option<File>,
        map: Option<MapFor>,
        room: u64,
    ) -> Result<(), SubjectError> {
        // Read-ahead would pull in the next round's chunk.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)
            .map_err(failed("fadvise(RANDOM)", name))?;
        let (direct, align) = match direct_align(file.as_fd()).map_err(failed("statx", name))? {
            DirectAlign::Unknown => (direct, ALIGN),
            DirectAlign::None => (None, ALIGN),
            DirectAlign::Align { offset, .. } => (direct, ALIGN.max(offset.into())),
        };
        let map = match map {
            Some(purpose) => {
                let protection = match purpose {
                    MapFor::Actor => Protection::ReadWrite,
                    MapFor::Probe => Protection::Read,
                };
                let map =
                    Mapping::new(file.as_fd(), room, protection).map_err(failed("mmap", name))?;
                Some((purpose, map))
            }
            None => None,
        };
        self.files.push(View {
            name: name.to_owned(),
            file,
            direct,
            align,
            map,
            room,
        });
        Ok(())
    }

    fn view(&mut self, file: FileId) -> Result<&mut View, SubjectError> {
        self.files
            .get_mut(usize::from(file))
            .ok_or_else(|| failed("find", &format!("file {file}"))(io::ErrorKind::NotFound))
    }

    /// Carries out a call on a file of the scenario; `buf` is exactly as long as its range.
    fn on_file(&mut self, call: &Call, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
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
            Call::Read {
                nowait,
                direct: true,
                ..
            } => self.read_direct(file, nowait, at, buf),
            Call::Read { nowait: true, .. } => moved(read_nowait(view.file.as_fd(), at, buf)),
            Call::Read { .. } => moved(pread(&view.file, buf, at as off_t)),
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
                };
                done(map.advise(at..at + len, advice))
            }
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
            Call::Write { .. } => moved(pwrite(&view.file, buf, at as off_t)),
            Call::Syncfs => refused(libc::EINVAL),
        }
    }

    fn load(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        match self.files.get_mut(usize::from(file)) {
            Some(View {
                map: Some((_, map)),
                ..
            }) => accessed(map.load(at, buf)),
            _ => refused(libc::ENOTSUP),
        }
    }

    /// Reads past the page cache, in as few calls as the bounce buffer allows, widened to whole blocks.
    fn read_direct(&mut self, file: FileId, nowait: bool, at: u64, buf: &mut [u8]) -> Outcome {
        let Some(View {
            direct: Some(direct),
            align,
            ..
        }) = self.files.get(usize::from(file))
        else {
            return refused(libc::EINVAL);
        };
        let mut filled = 0;
        while filled < buf.len() {
            let from = at + filled as u64;
            let skew = (from % align) as usize;
            let want = (skew + buf.len() - filled).next_multiple_of(*align as usize);
            let bounce = &mut self.bounce[..want.min(BOUNCE)];
            let start = from - skew as u64;
            let got = if nowait {
                read_nowait(direct.as_fd(), start, bounce)
            } else {
                direct.read_at(bounce, start)
            };
            let got = match got {
                Ok(got) => got,
                Err(error) => {
                    return Outcome {
                        bytes: filled as u64,
                        ..refused(errno(error))
                    };
                }
            };
            let useful = got.saturating_sub(skew).min(buf.len() - filled);
            buf[filled..filled + useful].copy_from_slice(&bounce[skew..skew + useful]);
            filled += useful;
            if got < bounce.len() {
                break;
            }
        }
        Outcome {
            bytes: filled as u64,
            ..Outcome::default()
        }
    }
}

impl View {
    fn fallocate(&self, mode: FallocateFlags, at: u64, len: u64) -> Outcome {
        done(fallocate(&self.file, mode, at as off_t, len as off_t))
    }
}

impl Subject for SyscallSubject {
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        let (file, at, len) = match *call {
            Call::PunchHole { file, at, .. }
            | Call::ZeroRange { file, at, .. }
            | Call::CollapseRange { file, at, .. }
            | Call::InsertRange { file, at, .. }
            | Call::Fadvise { file, at, .. }
            | Call::Readahead { file, at, .. }
            | Call::Madvise { file, at, .. }
            | Call::Dedupe { file, at, .. } => (file, at, 0),
            Call::Read { file, at, len, .. }
            | Call::Fault { file, at, len }
            | Call::Store { file, at, len }
            | Call::Write { file, at, len } => (file, at, len),
            Call::Syncfs => return done(nix::unistd::syncfs(&self.dir)),
        };
        match usize::try_from(len).ok().and_then(|len| buf.get_mut(..len)) {
            Some(buf) => self.on_file(call, file, at, buf),
            None => refused(libc::EINVAL),
        }
    }

    fn usage(&mut self) -> Usage {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else {
            return Usage::default();
        };
        Usage {
            majflt: usage.major_page_faults() as u64,
            inblock: usage.block_reads() as u64,
        }
    }

    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        match how {
            Look::Read => match self.files.get(usize::from(file)) {
                Some(view) => moved(pread(&view.file, buf, at as off_t)),
                None => refused(libc::EBADF),
            },
            Look::Mapping => {
                let seen = self.load(file, at, buf);
                if let Some(View {
                    map: Some((MapFor::Probe, map)),
                    ..
                }) = self.files.get(usize::from(file))
                    && !buf.is_empty()
                {
                    // A page that stays mapped cannot be evicted. Nothing is lost if this fails: then
                    // the proof of eviction does.
                    let _ = map.advise(at..at + buf.len() as u64, Advice::DontNeed);
                }
                seen
            }
            Look::Direct => self.read_direct(file, false, at, buf),
        }
    }

    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()> {
        let (_, map) = self.files.get(usize::from(file))?.map.as_ref()?;
        map.resident(range, pages).ok()
    }

    fn unmap(&mut self, file: FileId, range: Range<u64>) -> Result<(), SubjectError> {
        let view = self.view(file)?;
        match &view.map {
            Some((_, map)) => map
                .advise(range, Advice::DontNeed)
                .map_err(failed("madvise(DONTNEED)", &view.name)),
            None => Ok(()),
        }
    }

    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError> {
        if self.options.cache_is_store {
            return Ok(false);
        }
        let view = self.view(file)?;
        let gone = match &view.map {
            Some((_, map)) => evict(&view.file, map, range),
            None => Mapping::new(view.file.as_fd(), view.room, Protection::Read)
                .and_then(|probe| evict(&view.file, &probe, range)),
        };
        gone.map_err(failed("evict", &view.name))
    }
}

fn refused(errno: i32) -> Outcome {
    Outcome {
        errno,
        ..Outcome::default()
    }
}

fn done<E: Into<io::Error>>(result: Result<(), E>) -> Outcome {
    refused(result.err().map_or(0, errno))
}

fn moved<E: Into<io::Error>>(result: Result<usize, E>) -> Outcome {
    match result {
        Ok(bytes) => Outcome {
            bytes: bytes as u64,
            ..Outcome::default()
        },
        Err(error) => refused(errno(error)),
    }
}

fn accessed(access: Access) -> Outcome {
    Outcome {
        bytes: access.bytes as u64,
        errno: access.errno,
        sigbus: access.sigbus,
        same: None,
    }
}

/// The number of an error; those that never reached the kernel were refused for their arguments.
fn errno(error: impl Into<io::Error>) -> i32 {
    error.into().raw_os_error().unwrap_or(libc::EINVAL)
}
