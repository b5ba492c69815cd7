//! What a staged scenario needs of the machine beside its files: block I/O that can be held, and a look at
//! what a process is doing in the kernel. The engine knows neither devices nor kernels.

use std::ops::Range;
use std::time::Duration;

use punchbench_scenarios::Op;

use crate::FileId;

/// What is to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Reads of the blocks under a range of a file.
    ReadsOf {
        /// Which.
        file: FileId,
        /// Which bytes of it.
        range: Range<u64>,
    },
    /// Writes to the blocks under a range of a file.
    WritesOf {
        /// Which.
        file: FileId,
        /// Which bytes of it.
        range: Range<u64>,
    },
    /// Reads of the metadata that reading a range of a file takes.
    MetadataOf {
        /// Which.
        file: FileId,
        /// Which bytes of it.
        range: Range<u64>,
    },
    /// All reads but those of the blocks under a file's data.
    ReadsExcept {
        /// Which.
        file: FileId,
        /// Its bytes.
        range: Range<u64>,
    },
    /// All I/O of a process.
    IoOf {
        /// Its process id.
        pid: i32,
    },
    /// Writes to where the filesystem commits: its journal, its log, its checkpoint packs.
    Commits,
}

/// The holder or the observer failed, which is no outcome of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum GripError {
    /// This target or kernel cannot.
    #[error("{0}")]
    Unsupported(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

/// A hold, until it is released.
pub type HoldId = u64;

/// A process that sleeps in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asleep {
    /// The topmost function of its stack that is not a primitive of sleeping.
    pub top: String,
    /// The whole stack, topmost first.
    pub stack: Vec<String>,
    /// The top is where `op` takes the lock that keeps it out (ORACLE section 3).
    pub by_lock: bool,
}

/// Holds block I/O and looks at processes.
pub trait Grip {
    /// Holds I/O from now on, at most so long: it goes on by itself then.
    fn hold(&mut self, what: &Hold, at_most: Duration) -> Result<HoldId, GripError>;

    /// Waits until I/O of a hold is waiting, and says which in words; `None` if none came in time, or where
    /// it cannot be told.
    fn await_held(&mut self, hold: HoldId, at_most: Duration) -> Result<Option<String>, GripError>;

    /// Lets it go on.
    fn release(&mut self, hold: HoldId) -> Result<(), GripError>;

    /// Evicts the filesystem's metadata that is clean and not in use from its device's page cache.
    fn cool_metadata(&mut self) -> Result<(), GripError>;

    /// What a process that carries out `op` sleeps in, uninterruptibly; `None` while it runs, or sleeps in
    /// user space's name.
    fn asleep(&mut self, pid: i32, op: &Op) -> Result<Option<Asleep>, GripError>;

    /// The driver that serves the filesystem, such as `ext4`.
    fn driver(&self) -> &str;

    /// The kernel's release.
    fn kernel(&self) -> &str;
}
