//! What a staged scenario asks of a mounted target: ranges of files become places on its device, which its
//! image's server holds; one process is throttled; and where somebody sleeps is held against the functions in
//! which the lock is taken.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use punchbench_race::{Asleep, FileId, Grip, GripError, Hold, HoldId};
use punchbench_scenarios::{Op, Scenario};
use punchbench_sys::blk;

use crate::hold::place::{self, PlaceError};
use crate::hold::{self, ActorHold, HoldError, HoldSpec, Holder, Throttle, Way, accepted, observe};
use crate::mounted::Mounted;
use crate::tag::Tag;
use crate::tools::{Version, kernel_release};

/// A throttled read is taken for so many bytes: the rate follows from it.
const THROTTLED_READ: u64 = 4096;

/// A hold of either kind.
#[derive(Debug)]
enum Kept {
    Served(hold::HoldId),
    Throttled(ActorHold),
}

/// Holds a mounted target's I/O and looks at who waits.
#[derive(Debug)]
pub struct MountedGrip<'a> {
    mounted: &'a Mounted,
    tag: Tag,
    /// Where cgroups are mounted that are not yet.
    work_dir: PathBuf,
    files: Vec<PathBuf>,
    release: String,
    version: Version,
    kept: Vec<(HoldId, Kept)>,
    next: HoldId,
}

impl From<HoldError> for GripError {
    fn from(error: HoldError) -> GripError {
        match error {
            HoldError::Unsupported(why) => GripError::Unsupported(why),
            HoldError::Gone(_) | HoldError::Over(_) | HoldError::Io { .. } => {
                GripError::Failed(error.to_string())
            }
        }
    }
}

impl From<PlaceError> for GripError {
    fn from(error: PlaceError) -> GripError {
        match error {
            PlaceError::Unknown(why) => GripError::Unsupported(why),
            PlaceError::Hold(error) => error.into(),
            PlaceError::Io { .. } => GripError::Failed(error.to_string()),
        }
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> GripError {
    let what = what.to_owned();
    move |error| GripError::Failed(format!("cannot {what}: {error}"))
}

impl<'a> MountedGrip<'a> {
    /// For the files of a scenario on a target that was set up to hold.
    pub fn new(
        mounted: &'a Mounted,
        scenario: &Scenario,
        tag: &Tag,
        work_dir: &Path,
    ) -> MountedGrip<'a> {
        let release = kernel_release();
        MountedGrip {
            mounted,
            tag: tag.clone(),
            work_dir: work_dir.to_owned(),
            files: scenario
                .files
                .iter()
                .map(|(name, _)| mounted.dir().join(name))
                .collect(),
            version: Version::find(&release).unwrap_or(Version(0, 0, 0)),
            release,
            kept: Vec::new(),
            next: 1,
        }
    }

    fn holder(&self) -> Result<&dyn Holder, GripError> {
        self.mounted.holder().ok_or_else(|| {
            GripError::Unsupported("the device has nothing that could hold its I/O".to_owned())
        })
    }

    fn open(&self, file: FileId) -> Result<File, GripError> {
        let path = &self.files[usize::from(file)];
        File::open(path).map_err(failed(&format!("open {}", path.display())))
    }

    fn device(&self) -> Result<&Path, GripError> {
        self.mounted
            .device_path()
            .ok_or_else(|| GripError::Unsupported("it is on no block device".to_owned()))
    }

    /// The device's bytes under a range of a file.
    fn on_device(&self, file: FileId, range: Range<u64>) -> Result<Vec<Range<u64>>, GripError> {
        let found = place::of_file(self.mounted, &self.open(file)?, range)?;
        if found.is_empty() {
            let why = "the file has no blocks of the device there, as far as FIEMAP tells";
            return Err(GripError::Unsupported(why.to_owned()));
        }
        Ok(found)
    }

    fn spec(&self, what: &Hold) -> Result<HoldSpec, GripError> {
        match what {
            Hold::ReadsOf { file, range } => {
                Ok(HoldSpec::reads(self.on_device(*file, range.clone())?))
            }
            Hold::WritesOf { file, range } => {
                Ok(HoldSpec::writes(self.on_device(*file, range.clone())?))
            }
            Hold::MetadataOf { file, range } => {
                let file = self.open(*file)?;
                Ok(HoldSpec::reads(place::of_metadata(
                    self.mounted,
                    &file,
                    range.clone(),
                )?))
            }
            Hold::ReadsExcept { file, range } => Ok(HoldSpec::reads_outside(
                self.on_device(*file, range.clone())?,
            )),
            Hold::Commits => Ok(HoldSpec::writes(place::of_commits(self.mounted)?)),
            Hold::IoOf { .. } => Err(GripError::Unsupported(
                "a process is throttled, and has no place".to_owned(),
            )),
        }
    }

    fn throttle(&self, pid: i32, at_most: Duration) -> Result<ActorHold, GripError> {
        let device = std::fs::metadata(self.device()?)
            .map_err(failed("look at the device"))?
            .st_rdev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let throttle = Throttle::probe(&self.tag, &self.work_dir)?;
        Ok(throttle.hold_actor(pid, (number(major), number(minor)), THROTTLED_READ, at_most)?)
    }
}

/// How an operation comes to the page cache, as far as its stack tells the difference.
fn ways(op: &Op) -> &'static [Way] {
    match op {
        Op::Read(_) | Op::UringRead(_) | Op::Splice(_) => &[Way::Read],
        // Its buffer is what is raced.
        Op::ReadInto(_) => &[Way::Fault, Way::PageMkwrite],
        Op::Fadvise(_) | Op::Readahead(_) | Op::Madvise(_) => &[Way::Advice, Way::Fault],
        Op::Fault(_) => &[Way::Fault],
        Op::Store(_) => &[Way::PageMkwrite, Way::Fault],
        Op::Fiemap(_) => &[Way::Fiemap],
        Op::PrecacheExtents(_) => &[Way::Precache],
        Op::PunchHole(_)
        | Op::ZeroRange(_)
        | Op::CollapseRange(_)
        | Op::InsertRange(_)
        | Op::Truncate(_)
        | Op::Extend(_)
        | Op::Dedupe(_)
        | Op::CloneRange(_)
        | Op::ExchangeRange(_)
        | Op::SwapBoot(_)
        | Op::JournalData(_)
        | Op::BlkZeroout(_)
        | Op::BlkDiscard(_)
        | Op::Write(_)
        | Op::Fsync(_)
        | Op::Syncfs(_) => &[],
    }
}

impl Grip for MountedGrip<'_> {
    fn hold(&mut self, what: &Hold, at_most: Duration) -> Result<HoldId, GripError> {
        let kept = match what {
            Hold::IoOf { pid } => Kept::Throttled(self.throttle(*pid, at_most)?),
            Hold::ReadsOf { .. }
            | Hold::WritesOf { .. }
            | Hold::MetadataOf { .. }
            | Hold::ReadsExcept { .. }
            | Hold::Commits => Kept::Served(self.holder()?.hold(&self.spec(what)?, at_most)?),
        };
        let id = self.next;
        self.next += 1;
        self.kept.push((id, kept));
        Ok(id)
    }

    fn await_held(&mut self, hold: HoldId, at_most: Duration) -> Result<Option<String>, GripError> {
        match self.kept.iter().find(|(id, _)| *id == hold) {
            Some((_, Kept::Served(hold))) => {
                let held = self.holder()?.wait_held(*hold, at_most)?;
                Ok(held.map(|io| {
                    let (kind, len) = (io.kind, io.range.end - io.range.start);
                    format!("a {kind:?} of {len} bytes at {:#x}", io.range.start).to_lowercase()
                }))
            }
            // A throttle does not tell.
            Some((_, Kept::Throttled(_))) | None => Ok(None),
        }
    }

    fn release(&mut self, hold: HoldId) -> Result<(), GripError> {
        let Some(at) = self.kept.iter().position(|(id, _)| *id == hold) else {
            return Ok(());
        };
        match self.kept.remove(at).1 {
            Kept::Served(hold) => self.holder()?.release(hold).map(drop)?,
            Kept::Throttled(actor) => actor.release()?,
        }
        Ok(())
    }

    fn cool_metadata(&mut self) -> Result<(), GripError> {
        let path = self.device()?;
        let device = File::open(path).map_err(failed(&format!("open {}", path.display())))?;
        blk::flush_buffers(&device).map_err(failed("drop the device's buffers"))
    }

    fn asleep(&mut self, pid: i32, op: &Op) -> Result<Option<Asleep>, GripError> {
        let by_lock = |top: &str| {
            self.mounted.lockers().any(|driver| {
                let mut ways = ways(op).iter();
                ways.any(|way| accepted(*way, self.version, driver).contains(&top))
            })
        };
        // A worker of io_uring may be the one who waits.
        let tasks = observe::tasks(pid);
        let Some(task) = tasks.iter().find(|task| task.is_asleep()) else {
            return Ok(None);
        };
        Ok(task.top().map(|top| Asleep {
            top: top.to_owned(),
            stack: task.functions().map(str::to_owned).collect(),
            by_lock: by_lock(top),
        }))
    }

    fn driver(&self) -> &str {
        self.mounted.driver()
    }

    fn kernel(&self) -> &str {
        &self.release
    }
}
