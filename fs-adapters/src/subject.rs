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
use punchbench_race::{Stage, Subject, SubjectError, Subjects};
use punchbench_scenarios::{Geometry, Op, Role, Scenario};

mod actor;
mod evict;
mod stage;

use actor::{MapFor, SyscallSubject};
use stage::SyscallStage;

/// How the filesystem wants to be written to and looked at; the adapter knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubjectOptions {
    /// Bytes handed to the filesystem at a time when a file is prepared.
    pub step: usize,
    /// Commit each step (O_SYNC), so that it becomes an extent of its own: btrfs frees only whole ones.
    pub sync_steps: bool,
    /// The filesystem is ours to fill up, so that freed blocks are reused.
    pub may_fill: bool,
    /// The page cache is the only store (tmpfs): nothing can be evicted.
    pub cache_is_store: bool,
    /// The files are block devices: there from the beginning, and as large as they are.
    pub fixed_size: bool,
}

impl Default for SubjectOptions {
    fn default() -> Self {
        SubjectOptions {
            step: 1 << 20,
            sync_steps: false,
            may_fill: false,
            cache_is_store: false,
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
    /// For each actor, how it maps each file.
    maps: Vec<Vec<Option<MapFor>>>,
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
        let maps = scenario.actors.iter().map(|(_, actor)| {
            let mapped = |name: &str| {
                let on =
                    |op: &Op| op.maps() && op.operands().0.is_some_and(|(file, _)| file == name);
                match actor.role {
                    _ if actor.ops.iter().any(on) => Some(MapFor::Actor),
                    // It leads the rounds, so it is the one who asks what is in the page cache.
                    Role::Invalidator => Some(MapFor::Probe),
                    // A mapping that nobody uses would only make the invalidation slower.
                    Role::Filler | Role::Dirtier | Role::Reuser => None,
                }
            };
            let files = scenario.files.iter();
            files.map(|(name, _)| mapped(name)).collect()
        });
        let subjects = SyscallSubjects {
            dir: dir.to_owned(),
            files: files.collect(),
            maps: maps.collect(),
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

    fn subject(
        &self,
        map: impl Fn(usize) -> Option<MapFor>,
    ) -> Result<SyscallSubject, SubjectError> {
        let mut subject = SyscallSubject::new(self.open_dir()?, self.options);
        for (index, file) in self.files.iter().enumerate() {
            let buffered = self.open(file, &mut OpenOptions::new(), 0)?;
            let direct = match self.open(file, &mut OpenOptions::new(), libc::O_DIRECT) {
                Ok(direct) => Some(direct),
                Err(refused) if refuses_direct(&refused.error) => None,
                Err(error) => return Err(error),
            };
            subject.add(&file.name, buffered, direct, map(index), file.room)?;
        }
        Ok(subject)
    }

    fn open_dir(&self) -> Result<File, SubjectError> {
        File::open(&self.dir).map_err(failed("open", &self.dir.to_string_lossy()))
    }
}

impl Subjects for SyscallSubjects {
    fn actor(&self, index: usize) -> Result<Box<dyn Subject>, SubjectError> {
        let maps = self.maps.get(index).map_or(&[][..], Vec::as_slice);
        let subject = self.subject(|file| maps.get(file).copied().flatten())?;
        Ok(Box::new(subject))
    }

    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(self.subject(|_| Some(MapFor::Probe))?))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError> {
        let flags = if self.options.sync_steps {
            libc::O_SYNC
        } else {
            0
        };
        let mut stage = SyscallStage::new(&self.dir, self.open_dir()?, self.options)?;
        for file in &self.files {
            let opened = self.open(file, &mut OpenOptions::new(), flags)?;
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
