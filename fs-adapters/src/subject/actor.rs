//! One actor's descriptors and mappings, and its calls. Within a round nothing here allocates: buffers
//! are made when the files are opened, requests live on the stack.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::{self, off_t};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::uio::pread;
use punchbench_race::{Call, FileId, Look, Outcome, Subject, SubjectError, Usage};
use punchbench_sys::io::{AlignedBuf, DirectAlign, direct_align};
use punchbench_sys::map::{Advice, Mapping, Protection};
use punchbench_sys::uring::Ring;

use super::evict::evict;
use super::kit::{Kit, MapFor};
use super::outcome::{accessed, done, moved, refused};
use super::pipe::Pipe;
use super::{SubjectOptions, failed};

/// One file as this actor sees it.
#[derive(Debug)]
pub(super) struct View {
    name: String,
    pub file: File,
    pub direct: Option<File>,
    /// What direct reads must be aligned to.
    pub align: u64,
    /// Keeps the default read-ahead.
    pub ahead: Option<File>,
    pub map: Option<(MapFor, Mapping)>,
    /// Bytes that a mapping covers.
    room: u64,
}

/// A file's descriptors, just opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub file: File,
    /// With O_DIRECT, where that is not refused.
    pub direct: Option<File>,
    /// A second one, for who reads with read-ahead.
    pub ahead: Option<File>,
}

/// One actor's own view of the files.
#[derive(Debug)]
pub(super) struct SyscallSubject {
    dir: File,
    pub files: Vec<View>,
    pub bounce: AlignedBuf,
    pub ring: Option<Ring>,
    pub pipe: Option<Pipe>,
    options: SubjectOptions,
}

/// The most that one direct read or write moves.
pub(super) const BOUNCE: usize = 1 << 20;
/// What direct reads are aligned to at least: larger than any usual logical block.
const ALIGN: u64 = 4096;

impl SyscallSubject {
    pub(super) fn new(
        dir: File,
        kit: &Kit,
        options: SubjectOptions,
    ) -> Result<SyscallSubject, SubjectError> {
        Ok(SyscallSubject {
            dir,
            files: Vec::new(),
            bounce: AlignedBuf::new(BOUNCE, ALIGN as usize),
            ring: match kit.ring {
                true => Some(Ring::new().map_err(failed("io_uring_setup", "a ring"))?),
                false => None,
            },
            pipe: match kit.pipe {
                true => Some(Pipe::new().map_err(failed("pipe", "a splice"))?),
                false => None,
            },
            options,
        })
    }

    /// Takes over the next file of the scenario, in its order.
    pub(super) fn add(
        &mut self,
        name: &str,
        opened: Opened,
        map: Option<MapFor>,
        room: u64,
    ) -> Result<(), SubjectError> {
        let Opened {
            file,
            direct,
            ahead,
        } = opened;
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
            ahead,
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

    pub(super) fn load(&mut self, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        match self.files.get_mut(usize::from(file)) {
            Some(View {
                map: Some((_, map)),
                ..
            }) => accessed(map.load(at, buf)),
            _ => refused(libc::ENOTSUP),
        }
    }
}

impl Subject for SyscallSubject {
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        let (file, at, len) = match *call {
            Call::PunchHole { file, at, .. }
            | Call::ZeroRange { file, at, .. }
            | Call::CollapseRange { file, at, .. }
            | Call::InsertRange { file, at, .. }
            | Call::Splice { file, at, .. }
            | Call::Fadvise { file, at, .. }
            | Call::Readahead { file, at, .. }
            | Call::Madvise { file, at, .. }
            | Call::Fiemap { file, at, .. }
            | Call::Dedupe { file, at, .. }
            | Call::CloneRange { file, at, .. }
            | Call::ExchangeRange { file, at, .. }
            | Call::BlkZeroout { file, at, .. }
            | Call::BlkDiscard { file, at, .. }
            | Call::ReadInto { file, at, .. } => (file, at, 0),
            Call::PrecacheExtents { file }
            | Call::SwapBoot { file }
            | Call::JournalData { file }
            | Call::Fsync { file } => (file, 0, 0),
            Call::Truncate { file, size } => (file, size, 0),
            Call::Read { file, at, len, .. }
            | Call::UringRead { file, at, len, .. }
            | Call::Drain { file, at, len }
            | Call::Fault { file, at, len }
            | Call::Store { file, at, len }
            | Call::Write { file, at, len, .. } => (file, at, len),
            Call::Syncfs => return done(nix::unistd::syncfs(&self.dir)),
        };
        match usize::try_from(len).ok().and_then(|len| buf.get_mut(..len)) {
            Some(buf) => self.on_file(call, file, at, buf),
            None => refused(libc::EINVAL),
        }
    }

    fn usage(&mut self) -> Usage {
        // A kernel thread of the process may have read for the ring's owner.
        let who = match self.ring {
            Some(_) => UsageWho::RUSAGE_SELF,
            None => UsageWho::RUSAGE_THREAD,
        };
        let Ok(usage) = getrusage(who) else {
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
