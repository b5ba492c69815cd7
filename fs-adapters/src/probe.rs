//! What a filesystem can do, tried out on the mount: each operation is carried out on a scratch file and its
//! effect looked at. A call that succeeds without effect is not an ability.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, posix_fadvise};
use punchbench_scenarios::Capability;
use punchbench_sys::map::{Mapping, Protection};
use punchbench_sys::uring::Ring;

use crate::adapter::{Addresses, FixedFile, FixedFiles};
use crate::home::Home;
use crate::set_up::SetUp;

mod change;
mod fill;
mod inode;

/// The unit of a probe: a multiple of every allocation unit, and more than an inode holds.
const UNIT: usize = 64 << 10;

/// A scratch file has this many.
const UNITS: usize = 4;

/// Where data can be looked at below the filesystem.
#[derive(Debug)]
pub(crate) struct Medium<'a> {
    pub home: &'a Home,
    pub addresses: Addresses,
}

/// Where scratch files are made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In a directory.
    Directory(&'a Path),
    /// In a directory too, but each is there from the beginning.
    Fixed(&'a dyn FixedFiles, &'a Path, &'a SetUp<'a>),
}

/// What works and what does not, and why not.
#[derive(Debug)]
pub(crate) struct Abilities(BTreeMap<Capability, Result<(), String>>);

type Answer = Result<(), String>;

impl Abilities {
    /// Tries everything out; `Err` if not even scratch files work.
    pub fn probe(place: Place<'_>, medium: &Medium<'_>) -> io::Result<Self> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let mut found = BTreeMap::new();
        let mut note = |capability, answer: Answer| found.insert(capability, answer);
        let fresh = |name| Scratch::new(place, name);

        note(
            Capability::PunchHole,
            fresh("punch")?.zeroing(FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep),
        );
        note(
            Capability::ZeroRange,
            fresh("zero")?.zeroing(FallocateFlags::FALLOC_FL_ZERO_RANGE | keep),
        );
        note(
            Capability::CollapseRange,
            fresh("collapse")?.moving(FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, &[0, 2, 3]),
        );
        note(
            Capability::InsertRange,
            fresh("insert")?.moving(FallocateFlags::FALLOC_FL_INSERT_RANGE, &[0, HOLE, 1, 2, 3]),
        );
        note(
            Capability::Dedupe,
            fresh("source")?.dedupe_into(&fresh("destination")?),
        );
        note(
            Capability::Clone,
            fresh("clone")?.clone_from(&fresh("cloned")?),
        );
        note(
            Capability::ExchangeRange,
            fresh("exchange")?.exchange_with(&fresh("exchanged")?),
        );
        note(Capability::SwapBoot, fresh("boot")?.swap_boot(medium));
        note(
            Capability::UnalignedPunch,
            fresh("unaligned")?.punch_unaligned(),
        );
        note(Capability::Resize, fresh("resize")?.resize());
        note(Capability::JournalData, fresh("journal")?.journal_data());
        note(Capability::BlkZeroout, fresh("zeroout")?.blk_zeroout());
        note(Capability::BlkDiscard, fresh("discard")?.blk_discard());
        note(Capability::DirectWrite, fresh("written")?.direct_write());
        // Reads nothing: a thread that reads for this process would stay for seconds.
        let ring = Ring::new().map(drop);
        note(
            Capability::IoUring,
            ring.map_err(|error| format!("io_uring: {error}")),
        );
        note(Capability::Nowait, fresh("nowait")?.nowait());
        note(Capability::DirectRead, fresh("direct")?.direct());
        note(Capability::PopulateRead, fresh("populate")?.populate());
        note(
            Capability::MadviseCollapse,
            fresh("huge")?.madvise_collapse(),
        );
        note(
            Capability::AdviceFills,
            fresh("advice")?.advice_fills(medium),
        );
        note(Capability::Fiemap, fresh("fiemap")?.fiemap(medium));
        note(
            Capability::PrecacheExtents,
            fresh("precache")?.precache_extents(),
        );
        Ok(Abilities(found))
    }

    /// Whether one works, else why not.
    pub fn of(&self, capability: Capability) -> Result<(), &str> {
        match self.0.get(&capability) {
            Some(Ok(())) => Ok(()),
            Some(Err(why)) => Err(why),
            None => Err("it was not tried"),
        }
    }
}

/// In a list of units: zeros instead of a unit's own bytes.
const HOLE: u8 = u8::MAX;

/// A file of [`UNITS`] units, each of its own byte, on disk; removed on drop. Or one that is there from the
/// beginning, with them at its head.
struct Scratch {
    file: File,
    path: PathBuf,
    /// Bytes behind the units, of a file that cannot be shorter.
    rest: u64,
    is_fixed: bool,
    /// What holds it, where it is fixed and our own; it goes when the file is closed.
    _fixed: Option<Box<dyn FixedFile>>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_fixed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The byte that a unit is filled with.
fn byte_of(unit: u8) -> u8 {
    if unit == HOLE { 0 } else { unit + 1 }
}

impl Scratch {
    fn new(place: Place<'_>, name: &str) -> io::Result<Self> {
        let name = format!("probe-{name}");
        let size = (UNITS * UNIT) as u64;
        let (dir, fixed) = match place {
            Place::Directory(dir) => (dir, None),
            Place::Fixed(files, dir, env) => {
                let file = files.create(dir, &name, size, env);
                (dir, Some(file.map_err(io::Error::other)?))
            }
        };
        let path = dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(fixed.is_none())
            .open(&path)?;
        Scratch {
            file,
            path,
            rest: fixed.as_ref().map_or(0, |file| file.size() - size),
            is_fixed: fixed.is_some(),
            _fixed: fixed,
        }
        .filled()
    }

    /// Overwrites the head of a block device.
    #[cfg(test)]
    fn on_device(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Scratch {
            file,
            path: path.to_owned(),
            rest: 0,
            is_fixed: true,
            _fixed: None,
        }
        .filled()
    }

    fn filled(self) -> io::Result<Self> {
        for unit in 0..UNITS {
            self.file
                .write_all_at(&[byte_of(unit as u8); UNIT], (unit * UNIT) as u64)?;
        }
        self.file.sync_all()?;
        Ok(self)
    }

    /// Whether it holds exactly these units.
    fn holds(&self, units: &[u8]) -> Answer {
        // Not stat(2), which says 0 of a block device.
        let size = (&self.file)
            .seek(SeekFrom::End(0))
            .map_err(|error| error.to_string())?;
        if size != (units.len() * UNIT) as u64 + self.rest {
            return Err(format!("the call succeeded, but the size is {size}"));
        }
        self.shows(units)
    }

    /// Whether it begins with these units.
    fn shows(&self, units: &[u8]) -> Answer {
        let mut seen = vec![0; UNIT];
        for (index, unit) in units.iter().enumerate() {
            self.file
                .read_exact_at(&mut seen, (index * UNIT) as u64)
                .map_err(|error| error.to_string())?;
            if seen.iter().any(|byte| *byte != byte_of(*unit)) {
                return Err(
                    "the call succeeded, but the bytes are not what it should leave".to_owned(),
                );
            }
        }
        Ok(())
    }

    fn open_direct(&self) -> Result<File, String> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(&self.path)
            .map_err(|error| format!("open with O_DIRECT: {error}"))
    }

    fn mapping(&self) -> Result<Mapping, String> {
        Mapping::new(self.file.as_fd(), (UNITS * UNIT) as u64, Protection::Read)
            .map_err(|error| error.to_string())
    }

    /// Drops it from the page cache, and tells whether that worked.
    fn evict(&self, mapping: &Mapping) -> Result<bool, String> {
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
            .map_err(refused)?;
        let left = mapping
            .any_resident(0..(UNITS * UNIT) as u64)
            .map_err(|error| error.to_string())?;
        Ok(!left)
    }
}

fn refused(error: Errno) -> String {
    error.desc().to_owned()
}
