//! The files of a scenario in a mounted directory, raced by system calls.
//!
//! The files are created once, before the actors are forked; every actor then opens descriptors and maps
//! mappings of its own, so that nothing but the page cache is shared. The directory belongs to the trial:
//! whoever made it removes it. Made again over the same directory (after a remount), the files keep what
//! they hold.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::libc;
use punchbench_race::{DirectIo, Stage, Subject, SubjectError, Subjects};
use punchbench_scenarios::{Geometry, Scenario};

mod actor;
mod calls;
mod direct;
mod evict;
mod kit;
mod outcome;
mod pipe;
mod stage;

use actor::{Opened, SyscallSubject};
use kit::Kit;
use stage::SyscallStage;

/// How the filesystem wants to be written to and looked at; the adapter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectOptions {
    /// Bytes handed to the filesystem at a time when a file is prepared.
    pub step: usize,
    /// Write each step back by itself, so that it becomes an extent of its own: btrfs frees only whole ones.
    pub apart: bool,
    /// The filesystem is ours to fill up, so that freed blocks are reused.
    pub may_fill: bool,
    /// The page cache is the only store (tmpfs): nothing can be evicted.
    pub cache_is_store: bool,
    /// Whether a direct read is direct, if that has been found out before: to find out allocates blocks.
    pub direct: Option<DirectIo>,
    /// The files are there from the beginning and as large as they are: block devices, zones.
    pub fixed_size: bool,
}

impl Default for SubjectOptions {
    fn default() -> Self {
        SubjectOptions {
            step: 1 << 20,
            apart: false,
            may_fill: false,
            cache_is_store: false,
            direct: None,
            fixed_size: false,
        }
    }
}

/// One file of the scenario.
#[derive(Debug)]
struct FileSetup {
    /// Its name in the directory, which is its name in the scenario.
    name: String,
    /// Bytes to map: more than it holds when a pass begins, since insert_range makes it grow.
    room: u64,
}

/// Gives every actor its descriptors and mappings of the files in one directory.
#[derive(Debug)]
pub struct SyscallSubjects {
    dir: PathBuf,
    files: Vec<FileSetup>,
    /// For each actor.
    kits: Vec<Kit>,
    options: SubjectOptions,
}

impl SyscallSubjects {
    /// Creates the scenario's files in `dir` where they do not exist yet.
    pub fn new(
        dir: &Path,
        scenario: &Scenario,
        geometry: Geometry,
        options: SubjectOptions,
    ) -> Result<SyscallSubjects, SubjectError> {
        let files = scenario.files.iter().map(|(name, spec)| FileSetup {
            name: name.to_owned(),
            room: spec
                .size
                .bytes(geometry)
                .saturating_mul(2)
                .saturating_add(4 << 20),
        });
        let kits = scenario.actors.iter().map(|(_, a)| Kit::of(a, scenario));
        let subjects = SyscallSubjects {
            dir: dir.to_owned(),
            files: files.collect(),
            kits: kits.collect(),
            options,
        };
        for file in &subjects.files {
            let create = !options.fixed_size;
            subjects.open(file, OpenOptions::new().create(create).mode(0o600), 0)?;
        }
        Ok(subjects)
    }

    fn open(
        &self,
        file: &FileSetup,
        options: &mut OpenOptions,
        flags: libc::c_int,
    ) -> Result<File, SubjectError> {
        let mut open = || {
            let mut parts = Path::new(&file.name).components();
            if !matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            ) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "not the name of a file",
                ));
            }
            // Never through a link that leads out of the mount.
            options
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW | flags)
                .open(self.dir.join(&file.name))
        };
        open().map_err(failed("open", &file.name))
    }

    fn subject(&self, kit: &Kit) -> Result<SyscallSubject, SubjectError> {
        let mut subject = SyscallSubject::new(self.open_dir()?, kit, self.options)?;
        for (index, file) in self.files.iter().enumerate() {
            let buffered = self.open(file, &mut OpenOptions::new(), 0)?;
            let direct = match self.open(file, &mut OpenOptions::new(), libc::O_DIRECT) {
                Ok(direct) => Some(direct),
                Err(refused) if refuses_direct(&refused.error) => None,
                Err(error) => return Err(error),
            };
            let ahead = match kit.ahead {
                true => Some(self.open(file, &mut OpenOptions::new(), 0)?),
                false => None,
            };
            let opened = Opened {
                file: buffered,
                direct,
                ahead,
            };
            let map = kit.maps.get(index).copied().flatten();
            subject.add(&file.name, opened, map, file.room)?;
        }
        Ok(subject)
    }

    fn open_dir(&self) -> Result<File, SubjectError> {
        File::open(&self.dir).map_err(failed("open", &self.dir.to_string_lossy()))
    }
}

impl Subjects for SyscallSubjects {
    fn actor(&self, index: usize) -> Result<Box<dyn Subject>, SubjectError> {
        let subject = match self.kits.get(index) {
            Some(kit) => self.subject(kit)?,
            None => self.subject(&Kit::default())?,
        };
        Ok(Box::new(subject))
    }

    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError> {
        let kit = Kit::coordinator(self.files.len());
        Ok(Box::new(self.subject(&kit)?))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError> {
        let mut stage = SyscallStage::new(&self.dir, self.open_dir()?, self.options)?;
        for file in &self.files {
            let opened = self.open(file, &mut OpenOptions::new(), 0)?;
            stage.add(&file.name, opened)?;
        }
        Ok(Box::new(stage))
    }
}

/// Whether an open was refused because of O_DIRECT.
fn refuses_direct(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Names the call and the file in an error.
fn failed<E: Into<io::Error>>(what: &'static str, on: &str) -> impl FnOnce(E) -> SubjectError {
    move |error| SubjectError {
        what,
        on: on.to_owned(),
        error: error.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
