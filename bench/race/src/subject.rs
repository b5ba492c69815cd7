//! What the engine races: a subject carries out calls on files, whether by system calls on a real mount
//! or by micro-operations on the reference. The engine knows files by number and calls by value only.

use std::ops::Range;

use punchbench_scenarios::MadviseAdvice;

/// A file of the scenario, by its position under `files`.
pub type FileId = u16;

/// One operation with its numbers filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "`at` and `len` are the range in bytes of `file` everywhere"
)]
pub enum Call {
    /// fallocate(PUNCH_HOLE | KEEP_SIZE).
    PunchHole { file: FileId, at: u64, len: u64 },
    /// fallocate(ZERO_RANGE | KEEP_SIZE).
    ZeroRange { file: FileId, at: u64, len: u64 },
    /// fallocate(COLLAPSE_RANGE).
    CollapseRange { file: FileId, at: u64, len: u64 },
    /// fallocate(INSERT_RANGE).
    InsertRange { file: FileId, at: u64, len: u64 },
    /// ftruncate(2): cuts the file off at `size`, or extends it to that.
    Truncate { file: FileId, size: u64 },
    /// pread(2) into the buffer; preadv2(RWF_NOWAIT), through an O_DIRECT descriptor or through one with
    /// the default read-ahead where asked.
    Read {
        file: FileId,
        at: u64,
        len: u64,
        nowait: bool,
        direct: bool,
        readahead: bool,
    },
    /// One IORING_OP_READ into the buffer, submitted and awaited in one io_uring_enter(2).
    UringRead {
        file: FileId,
        at: u64,
        len: u64,
        nowait: bool,
    },
    /// splice(2) into the actor's own pipe, as much as it takes. What was left in it is dropped first.
    Splice {
        file: FileId,
        at: u64,
        len: u64,
        late: bool,
    },
    /// Read what a `Splice` of the same range left in the pipe into the buffer. The pipe is empty
    /// afterwards, whatever happens.
    Drain { file: FileId, at: u64, len: u64 },
    /// Copy the range out of the actor's own shared mapping into the buffer.
    Fault { file: FileId, at: u64, len: u64 },
    /// posix_fadvise(WILLNEED).
    Fadvise { file: FileId, at: u64, len: u64 },
    /// readahead(2).
    Readahead { file: FileId, at: u64, len: u64 },
    /// madvise(2) on the actor's own mapping.
    Madvise {
        file: FileId,
        at: u64,
        len: u64,
        advice: MadviseAdvice,
    },
    /// FS_IOC_FIEMAP of the range without a flag; `bytes` counts the extents that it told.
    Fiemap { file: FileId, at: u64, len: u64 },
    /// ioctl(EXT4_IOC_PRECACHE_EXTENTS).
    PrecacheExtents { file: FileId },
    /// FIDEDUPERANGE into the same offsets of another file.
    Dedupe {
        file: FileId,
        at: u64,
        len: u64,
        into: FileId,
    },
    /// FICLONERANGE into `file` from the same offsets of another file.
    CloneRange {
        file: FileId,
        at: u64,
        len: u64,
        from: FileId,
    },
    /// XFS_IOC_EXCHANGE_RANGE with the same offsets of another file.
    ExchangeRange {
        file: FileId,
        at: u64,
        len: u64,
        with: FileId,
    },
    /// EXT4_IOC_SWAP_BOOT. The first one on a filesystem leaves the file empty.
    SwapBoot { file: FileId },
    /// Toggle FS_JOURNAL_DATA_FL and read it back; EOPNOTSUPP if that was without effect.
    JournalData { file: FileId },
    /// BLKZEROOUT.
    BlkZeroout { file: FileId, at: u64, len: u64 },
    /// BLKDISCARD.
    BlkDiscard { file: FileId, at: u64, len: u64 },
    /// pread(2) of the same offsets of another file, with the actor's own mapping of `file` as the buffer.
    /// May end short, or with EFAULT.
    ReadInto {
        file: FileId,
        at: u64,
        len: u64,
        from: FileId,
    },
    /// Store the first `len` bytes of the buffer through the actor's own mapping, then a full fence.
    Store { file: FileId, at: u64, len: u64 },
    /// pwrite(2) of the first `len` bytes of the buffer, through an O_DIRECT descriptor where asked.
    Write {
        file: FileId,
        at: u64,
        len: u64,
        direct: bool,
    },
    /// fsync(2).
    Fsync { file: FileId },
    /// syncfs(2).
    Syncfs,
}

impl Call {
    /// Whether it asked not to be kept waiting.
    pub fn may_not_wait(&self) -> bool {
        matches!(
            self,
            Call::Read { nowait: true, .. } | Call::UringRead { nowait: true, .. }
        )
    }

    /// The range whose bytes it leaves in the buffer to be judged, a splice once it is drained: file, offset,
    /// length.
    pub fn shows(&self) -> Option<(FileId, u64, u64)> {
        match *self {
            Call::Read { file, at, len, .. }
            | Call::UringRead { file, at, len, .. }
            | Call::Splice { file, at, len, .. }
            | Call::Drain { file, at, len }
            | Call::Fault { file, at, len } => Some((file, at, len)),
            Call::PunchHole { .. }
            | Call::ZeroRange { .. }
            | Call::CollapseRange { .. }
            | Call::InsertRange { .. }
            | Call::Truncate { .. }
            | Call::Fadvise { .. }
            | Call::Readahead { .. }
            | Call::Madvise { .. }
            | Call::Fiemap { .. }
            | Call::PrecacheExtents { .. }
            | Call::Dedupe { .. }
            | Call::CloneRange { .. }
            | Call::ExchangeRange { .. }
            | Call::SwapBoot { .. }
            | Call::JournalData { .. }
            | Call::BlkZeroout { .. }
            | Call::BlkDiscard { .. }
            | Call::ReadInto { .. }
            | Call::Store { .. }
            | Call::Write { .. }
            | Call::Fsync { .. }
            | Call::Syncfs => None,
        }
    }
}

/// What a call gave back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes moved, or 0 for calls that move none.
    pub bytes: u64,
    /// 0, or the errno.
    pub errno: i32,
    /// SIGBUS was raised; `bytes` before it are valid.
    pub sigbus: bool,
    /// The answer of a dedupe.
    pub same: Option<bool>,
}

/// What an actor has cost so far: rises tell that it really read or faulted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Major faults.
    pub majflt: u64,
    /// Blocks of input (512 bytes).
    pub inblock: u64,
}

/// How to look at a file outside a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// pread(2) through the page cache, on a descriptor with FADV_RANDOM.
    Read,
    /// Loads through this actor's own mapping.
    Mapping,
    /// An O_DIRECT read (aligned by the subject).
    Direct,
}

/// Whether an O_DIRECT read is really direct on this subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectIo {
    /// It bypasses the page cache.
    Real,
    /// It is served from the page cache, so it confirms nothing.
    Buffered,
    /// O_DIRECT is refused.
    None,
}

/// A subject failed where it must not: the bench's own trouble, not an outcome of the race.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed on {on}: {error}")]
pub struct SubjectError {
    /// The call, such as `fsync`.
    pub what: &'static str,
    /// What it was applied to.
    pub on: String,
    /// The system's answer.
    pub error: std::io::Error,
}

/// One actor's view of the files: its own descriptors and mappings, opened before the race.
pub trait Subject {
    /// Carries out one call within a round. Must not allocate, log, panic or do anything else that can
    /// wait for another actor. `buf` is at least as long as the call's range; reads and faults fill its
    /// head, stores and writes take it from there.
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome;

    /// Called before the gate of each round, with the chunk that it races. Only the reference does anything here:
    /// it has a state of the model for each.
    fn round(&mut self, _chunk: &Range<u64>) {}

    /// Called after the gate, just before the ticket that a call begins with. Only the fault injection
    /// does anything here: it keeps an actor out of the race by waiting where no interval is open yet.
    fn approach(&mut self, _call: &Call) {}

    /// What this actor has cost so far. Called once a round.
    fn usage(&mut self) -> Usage {
        Usage::default()
    }

    /// Looks at a range between rounds. A short read is an outcome, not an error.
    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome;

    /// Which pages of a range are in the page cache, one entry a page, without touching any.
    /// `None` where it cannot be told.
    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()>;

    /// Drops this actor's own PTEs of a range, so that nothing of its own keeps pages from being evicted.
    fn unmap(&mut self, file: FileId, range: Range<u64>) -> Result<(), SubjectError>;

    /// Writes back and evicts a range, and proves that it is gone; `Ok(false)` where pages stayed or the
    /// subject cannot evict (tmpfs).
    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError>;
}

/// Device bytes under a piece of a file: file offset, device offset, length.
pub type Extent = (u64, u64, u64);

/// Sets the files up and looks at their blocks; belongs to the coordinator, outside all rounds.
pub trait Stage {
    /// Page size in bytes.
    fn page(&self) -> u64;

    /// Makes `file` exactly `size` bytes long with the content that `fill(offset, buf)` gives, freshly
    /// allocated (truncated to nothing before), and written back. `step` bytes are handed to the
    /// filesystem at a time. Its pages may stay cached.
    fn prepare(
        &mut self,
        file: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError>;

    /// Makes `file` exactly `size` bytes long and one hole, truncated to nothing before; where the subject
    /// knows no holes, of written zeros.
    fn hole(&mut self, file: FileId, size: u64) -> Result<(), SubjectError> {
        self.prepare(file, size, &mut |_, buf| buf.fill(0))
    }

    /// Device bytes under a range; `None` where the filesystem has no such thing.
    fn blocks(
        &mut self,
        file: FileId,
        range: Range<u64>,
    ) -> Result<Option<Vec<Extent>>, SubjectError>;

    /// Takes all the space that is left (`true`), so that only what the race frees can be allocated, or
    /// gives it back (`false`). Does nothing where the filesystem is not ours to fill.
    fn fill_up(&mut self, full: bool) -> Result<(), SubjectError>;

    /// Commits the filesystem's transaction (syncfs).
    fn commit(&mut self) -> Result<(), SubjectError>;

    /// Whether direct reads are direct.
    fn direct(&self) -> DirectIo;

    /// Whether the page cache is the only store of the data (tmpfs): nothing to evict, nothing to re-read.
    fn cache_is_store(&self) -> bool;
}

/// Gives every actor its subject. Called in the actor itself, after it was forked or spawned.
pub trait Subjects: Sync {
    /// The subject of the `index`th actor (in the scenario's order). `maps` lists files it must map.
    fn actor(&self, index: usize) -> Result<Box<dyn Subject>, SubjectError>;

    /// The coordinator's own subject.
    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError>;

    /// The coordinator's stage.
    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError>;
}
