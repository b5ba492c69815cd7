//! What a filesystem can do, tried out on the mount: each operation is carried out on a scratch file and its
//! effect looked at. A call that succeeds without effect is not an ability.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};
use punchbench_scenarios::Capability;
use punchbench_sys::extents::extents;
use punchbench_sys::io::{AlignedBuf, dedupe, read_nowait};
use punchbench_sys::map::{Advice, Mapping, Protection};

use crate::adapter::Addresses;
use crate::devices::DeviceFile;
use crate::home::Home;
use crate::set_up::SetUp;

/// The unit of a probe: a multiple of every allocation unit, and more than an inode holds.
const UNIT: usize = 64 << 10;

/// A scratch file has this many.
const UNITS: usize = 4;

/// How long read-ahead of a few pages may take, and the pause between looks.
const ADVICE_TIME: Duration = Duration::from_secs(5);
const ADVICE_PAUSE: Duration = Duration::from_millis(1);

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
    /// In a directory too, but each is a block device.
    Devices(&'a Path, &'a SetUp<'a>),
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
        note(Capability::Nowait, fresh("nowait")?.nowait());
        note(Capability::DirectRead, fresh("direct")?.direct());
        note(Capability::PopulateRead, fresh("populate")?.populate());
        note(Capability::AdviceFills, fresh("advice")?.advice_fills());
        note(Capability::Fiemap, fresh("fiemap")?.fiemap(medium));
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

/// A file of [`UNITS`] units, each of its own byte, on disk; removed on drop.
struct Scratch {
    file: File,
    path: PathBuf,
    device: Option<DeviceFile>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The byte that a unit is filled with.
fn byte_of(unit: u8) -> u8 {
    if unit == HOLE { 0 } else { unit + 1 }
}

impl Scratch {
    fn new(place: Place<'_>, name: &str) -> io::Result<Self> {
        let name = format!("probe-{name}");
        let (dir, device) = match place {
            Place::Directory(dir) => (dir, None),
            Place::Devices(dir, env) => {
                let size = (UNITS * UNIT) as u64;
                let device = DeviceFile::create(dir, &name, size, env);
                (dir, Some(device.map_err(io::Error::other)?))
            }
        };
        let path = dir.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(device.is_none())
            .open(&path)?;
        let scratch = Scratch { file, path, device };
        for unit in 0..UNITS {
            scratch
                .file
                .write_all_at(&[byte_of(unit as u8); UNIT], (unit * UNIT) as u64)?;
        }
        scratch.file.sync_all()?;
        Ok(scratch)
    }

    /// Whether it holds exactly these units.
    fn holds(&self, units: &[u8]) -> Answer {
        // Not stat(2), which says 0 of a block device.
        let size = (&self.file)
            .seek(SeekFrom::End(0))
            .map_err(|error| error.to_string())?;
        if size != (units.len() * UNIT) as u64 {
            return Err(format!("the call succeeded, but the size is {size}"));
        }
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

    fn fallocate(&self, flags: FallocateFlags) -> Answer {
        fallocate(&self.file, flags, UNIT as i64, UNIT as i64).map_err(refused)
    }

    /// The second unit becomes zeros.
    fn zeroing(&self, flags: FallocateFlags) -> Answer {
        self.fallocate(flags)?;
        self.holds(&[0, HOLE, 2, 3])
    }

    /// The second unit goes, or a hole comes before it.
    fn moving(&self, flags: FallocateFlags, units: &[u8]) -> Answer {
        self.fallocate(flags)?;
        self.holds(units)
    }

    fn dedupe_into(&self, into: &Scratch) -> Answer {
        let done = dedupe(self.file.as_fd(), 0, UNIT as u64, into.file.as_fd())
            .map_err(|error| error.to_string())?;
        if !done.same || done.bytes == 0 {
            return Err(format!(
                "two equal ranges: same {}, bytes {}",
                done.same, done.bytes
            ));
        }
        into.holds(&[0, 1, 2, 3])
    }

    fn nowait(&self) -> Answer {
        // Warm, so that there is data to give at once.
        self.holds(&[0, 1, 2, 3])?;
        let mut seen = [0; 4096];
        match read_nowait(self.file.as_fd(), 0, &mut seen) {
            Ok(4096) if seen.iter().all(|byte| *byte == byte_of(0)) => Ok(()),
            Ok(got) => Err(format!("a cached page gave {got} bytes")),
            Err(error) => Err(error.to_string()),
        }
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

    /// O_DIRECT must open, read right, and leave nothing in the page cache.
    fn direct(&self) -> Answer {
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(&self.path)
            .map_err(|error| format!("open with O_DIRECT: {error}"))?;
        let mapping = self.mapping()?;
        if !self.evict(&mapping)? {
            return Err(
                "pages cannot be evicted, so a direct read cannot be told from a cached one"
                    .to_owned(),
            );
        }
        let mut buffer = AlignedBuf::new(UNIT, 4096);
        direct
            .read_exact_at(&mut buffer, 0)
            .map_err(|error| error.to_string())?;
        if buffer.iter().any(|byte| *byte != byte_of(0)) {
            return Err("a direct read gave wrong bytes".to_owned());
        }
        match mapping.any_resident(0..UNIT as u64) {
            Ok(false) => Ok(()),
            Ok(true) => Err("O_DIRECT reads go through the page cache here".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn populate(&self) -> Answer {
        let mapping = self.mapping()?;
        mapping
            .advise(0..UNIT as u64, Advice::PopulateRead)
            .map_err(|error| error.to_string())?;
        let mut pages = vec![false; UNIT.div_ceil(punchbench_sys::map::page_size())];
        mapping
            .resident(0..UNIT as u64, &mut pages)
            .map_err(|error| error.to_string())?;
        if pages.contains(&false) {
            return Err("MADV_POPULATE_READ succeeded and left pages absent".to_owned());
        }
        Ok(())
    }

    /// In a hole, pages that are brought in are filled at once, so they are there when the call returns. A
    /// block device has no holes: there they are waited for.
    fn advice_fills(&self) -> Answer {
        if self.device.is_some() {
            return self.advice_fills_in_time();
        }
        let end = (UNITS * UNIT) as u64;
        self.file
            .set_len(end + UNIT as u64)
            .map_err(|error| error.to_string())?;
        let mapping = Mapping::new(self.file.as_fd(), end + UNIT as u64, Protection::Read)
            .map_err(|error| error.to_string())?;
        let willneed = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        posix_fadvise(&self.file, end as i64, UNIT as i64, willneed)
            .map_err(|error| error.to_string())?;
        let hole = end..end + UNIT as u64;
        match mapping.any_resident(hole) {
            Ok(true) => Ok(()),
            Ok(false) => Err("posix_fadvise(WILLNEED) brings no page in".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Pages come within some time, as nothing tells when they have.
    fn advice_fills_in_time(&self) -> Answer {
        let mapping = self.mapping()?;
        if !self.evict(&mapping)? {
            return Err("pages cannot be evicted, so none is seen brought in".to_owned());
        }
        let willneed = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        posix_fadvise(&self.file, 0, UNIT as i64, willneed).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ADVICE_TIME;
        loop {
            match mapping.any_resident(0..UNIT as u64) {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < deadline => std::thread::sleep(ADVICE_PAUSE),
                Ok(false) => return Err("posix_fadvise(WILLNEED) brings no page in".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Extents must have addresses, and where those are places on the device, the data must be there.
    fn fiemap(&self, medium: &Medium<'_>) -> Answer {
        if medium.addresses == Addresses::None {
            return Err("it has no blocks".to_owned());
        }
        let len = (UNITS * UNIT) as u64;
        let found = extents(self.file.as_fd(), 0..len).map_err(|error| error.to_string())?;
        let found = found.ok_or("FS_IOC_FIEMAP is not supported")?;
        if found.iter().map(|extent| extent.len).sum::<u64>() != len {
            return Err("FIEMAP gives no address for some of a file's blocks".to_owned());
        }
        if medium.addresses != Addresses::Device {
            return Ok(());
        }
        for extent in found {
            let mut seen = [0; 4096];
            match medium.home.read_at(extent.device, &mut seen) {
                None => return Ok(()),
                Some(read) => read.map_err(|error| format!("reading the medium: {error}"))?,
            }
            let unit = u8::try_from(extent.at / UNIT as u64).unwrap_or(HOLE);
            if seen.iter().any(|byte| *byte != byte_of(unit)) {
                return Err(
                    "the medium does not hold a file's data at the address that FIEMAP gives"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

fn refused(error: Errno) -> String {
    error.desc().to_owned()
}
