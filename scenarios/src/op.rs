//! Every operation a scenario may name, in one enum.
//!
//! Adding one is one variant here; the compiler then names the two other places: what it does to a
//! file's content (`effect`, below) and how it is carried out (the subjects). No `match` on [`Op`]
//! has a wildcard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Capability, RangeExpr};

mod args;

pub use args::{
    CopyArgs, DedupeArgs, ExchangeArgs, MadviseAdvice, MadviseArgs, NoArgs, OnFile, OnRange,
    ReadArgs, SpliceArgs, UringReadArgs, WriteArgs,
};

/// One operation, written in YAML as a map of one key: `- punch_hole: {file: victim, range: chunk}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE).
    PunchHole(OnRange),
    /// fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE).
    ZeroRange(OnRange),
    /// fallocate(FALLOC_FL_COLLAPSE_RANGE).
    CollapseRange(OnRange),
    /// fallocate(FALLOC_FL_INSERT_RANGE).
    InsertRange(OnRange),
    /// ftruncate(2) to the start of the range: everything from there on is gone.
    Truncate(OnRange),
    /// ftruncate(2) back to the size that the file had when the pass began.
    Extend(OnFile),
    /// pread(2), preadv2(RWF_NOWAIT) or an O_DIRECT read.
    Read(ReadArgs),
    /// One IORING_OP_READ, with RWF_NOWAIT where asked, submitted and awaited in one io_uring_enter(2).
    UringRead(UringReadArgs),
    /// splice(2) into a pipe of the actor's own, which is then drained.
    Splice(SpliceArgs),
    /// Loads through the actor's own shared mapping.
    Fault(OnRange),
    /// posix_fadvise(POSIX_FADV_WILLNEED).
    Fadvise(OnRange),
    /// readahead(2).
    Readahead(OnRange),
    /// madvise(2) with an advice that fills.
    Madvise(MadviseArgs),
    /// ioctl(FS_IOC_FIEMAP) without a flag: fills no page, but ext4's extent status (`ext4_fiemap`).
    Fiemap(OnRange),
    /// ioctl(EXT4_IOC_PRECACHE_EXTENTS): fills ext4's extent status with all of a file's extents
    /// (`ext4_ext_precache`).
    PrecacheExtents(OnFile),
    /// ioctl(FIDEDUPERANGE): the compare fills both files' page caches.
    Dedupe(DedupeArgs),
    /// ioctl(FICLONERANGE): the range shares the blocks of the same offsets of another file.
    CloneRange(CopyArgs),
    /// ioctl(XFS_IOC_EXCHANGE_RANGE), Linux 6.10: two files exchange the blocks of the same offsets.
    ExchangeRange(ExchangeArgs),
    /// ioctl(EXT4_IOC_SWAP_BOOT): the file and the boot loader's inode exchange all that they hold.
    SwapBoot(OnFile),
    /// Toggles FS_JOURNAL_DATA_FL, by which ext4 changes how it writes the file (`ext4_set_aops`).
    JournalData(OnFile),
    /// ioctl(BLKZEROOUT) on a block device.
    BlkZeroout(OnRange),
    /// ioctl(BLKDISCARD) on a block device whose discarded blocks read as zeros.
    BlkDiscard(OnRange),
    /// Stores a fresh value through the actor's own shared mapping (page_mkwrite), over the whole range.
    Store(OnRange),
    /// pwrite(2) of a fresh generation of the file's stamps over the range.
    Write(WriteArgs),
    /// pread(2) of the same offsets of another file, with the actor's own mapping of the range as the
    /// buffer: while it copies, the kernel faults in pages of this file.
    ReadInto(CopyArgs),
    /// fsync(2): commits the transaction that the file was changed in.
    Fsync(OnFile),
    /// syncfs(2): commits, so that freed blocks may be allocated again.
    Syncfs(NoArgs),
}

/// A range of a file, as an operation names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct On<'a> {
    /// The file, by its name under `files`.
    pub file: &'a str,
    /// The range of it.
    pub range: &'a RangeExpr,
}

/// What an operation does to the content of a file: shared by the oracle and the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    None,
    /// The range reads as zeros afterwards; nothing moves, the size stays.
    Zero(On<'a>),
    /// The range is gone and what was behind it has moved down.
    Collapse(On<'a>),
    /// The range is a hole and what was there has moved up.
    Insert(On<'a>),
    /// The file ends where the range starts.
    Truncate(On<'a>),
    /// The file is as long again as when the pass began, with zeros where it was cut off.
    Extend(&'a str),
    /// The range holds a fresh generation of the file's stamps, or a fresh store value.
    Overwrite(On<'a>),
    /// The range holds what the same offsets of another file hold.
    CopyOf {
        /// The range that changes.
        on: On<'a>,
        /// The file that the content comes from.
        from: &'a str,
    },
    /// Two files exchange what they hold there.
    Exchange {
        /// The range, in the one file.
        on: On<'a>,
        /// The other file, at the same offsets.
        with: &'a str,
    },
    /// The file holds what the boot loader's inode held, and that what the file held.
    SwapBoot(&'a str),
}

impl Op {
    /// What it does to the file it names.
    pub fn effect(&self) -> Effect<'_> {
        match self {
            Op::PunchHole(r) | Op::ZeroRange(r) | Op::BlkZeroout(r) | Op::BlkDiscard(r) => {
                Effect::Zero(r.on())
            }
            Op::CollapseRange(r) => Effect::Collapse(r.on()),
            Op::InsertRange(r) => Effect::Insert(r.on()),
            Op::Truncate(r) => Effect::Truncate(r.on()),
            Op::Extend(f) => Effect::Extend(&f.file),
            Op::Store(r) => Effect::Overwrite(r.on()),
            Op::Write(a) => Effect::Overwrite(On {
                file: &a.file,
                range: &a.range,
            }),
            Op::CloneRange(a) | Op::ReadInto(a) => a.effect(),
            Op::ExchangeRange(a) => Effect::Exchange {
                on: On {
                    file: &a.file,
                    range: &a.range,
                },
                with: &a.with,
            },
            Op::SwapBoot(f) => Effect::SwapBoot(&f.file),
            // A dedupe shares blocks; no content changes.
            Op::Read(_)
            | Op::UringRead(_)
            | Op::Splice(_)
            | Op::Fault(_)
            | Op::Fadvise(_)
            | Op::Readahead(_)
            | Op::Madvise(_)
            | Op::Fiemap(_)
            | Op::PrecacheExtents(_)
            | Op::Dedupe(_)
            | Op::JournalData(_)
            | Op::Fsync(_)
            | Op::Syncfs(_) => Effect::None,
        }
    }

    /// The word in YAML, records and tables.
    pub fn word(&self) -> &'static str {
        match self {
            Op::PunchHole(_) => "punch_hole",
            Op::ZeroRange(_) => "zero_range",
            Op::CollapseRange(_) => "collapse_range",
            Op::InsertRange(_) => "insert_range",
            Op::Truncate(_) => "truncate",
            Op::Extend(_) => "extend",
            Op::Read(_) => "read",
            Op::UringRead(_) => "uring_read",
            Op::Splice(_) => "splice",
            Op::Fault(_) => "fault",
            Op::Fadvise(_) => "fadvise",
            Op::Readahead(_) => "readahead",
            Op::Madvise(_) => "madvise",
            Op::Fiemap(_) => "fiemap",
            Op::PrecacheExtents(_) => "precache_extents",
            Op::Dedupe(_) => "dedupe",
            Op::CloneRange(_) => "clone_range",
            Op::ExchangeRange(_) => "exchange_range",
            Op::SwapBoot(_) => "swap_boot",
            Op::JournalData(_) => "journal_data",
            Op::BlkZeroout(_) => "blk_zeroout",
            Op::BlkDiscard(_) => "blk_discard",
            Op::Store(_) => "store",
            Op::Write(_) => "write",
            Op::ReadInto(_) => "read_into",
            Op::Fsync(_) => "fsync",
            Op::Syncfs(_) => "syncfs",
        }
    }

    /// What the target must be able to do for it, beyond what every filesystem can.
    pub fn capability(&self) -> Option<Capability> {
        match self {
            Op::PunchHole(_) => Some(Capability::PunchHole),
            Op::ZeroRange(_) => Some(Capability::ZeroRange),
            Op::CollapseRange(_) => Some(Capability::CollapseRange),
            Op::InsertRange(_) => Some(Capability::InsertRange),
            Op::Dedupe(_) => Some(Capability::Dedupe),
            Op::CloneRange(_) => Some(Capability::Clone),
            Op::ExchangeRange(_) => Some(Capability::ExchangeRange),
            Op::SwapBoot(_) => Some(Capability::SwapBoot),
            Op::JournalData(_) => Some(Capability::JournalData),
            Op::Truncate(_) | Op::Extend(_) => Some(Capability::Resize),
            Op::Write(a) if a.fills_up => Some(Capability::Resize),
            Op::BlkZeroout(_) => Some(Capability::BlkZeroout),
            Op::BlkDiscard(_) => Some(Capability::BlkDiscard),
            Op::Read(a) if a.nowait => Some(Capability::Nowait),
            Op::Read(a) if a.direct => Some(Capability::DirectRead),
            Op::UringRead(_) => Some(Capability::IoUring),
            Op::Madvise(a) => Some(match a.advice {
                MadviseAdvice::Willneed => Capability::AdviceFills,
                MadviseAdvice::PopulateRead => Capability::PopulateRead,
                MadviseAdvice::Collapse => Capability::MadviseCollapse,
            }),
            Op::Fadvise(_) | Op::Readahead(_) => Some(Capability::AdviceFills),
            Op::Fiemap(_) => Some(Capability::Fiemap),
            Op::PrecacheExtents(_) => Some(Capability::PrecacheExtents),
            Op::Write(a) if a.direct => Some(Capability::DirectWrite),
            Op::Read(_)
            | Op::Splice(_)
            | Op::Fault(_)
            | Op::Store(_)
            | Op::Write(_)
            | Op::ReadInto(_)
            | Op::Fsync(_)
            | Op::Syncfs(_) => None,
        }
    }

    /// The file it works on and its range there, if it has one, and a second file if it names one.
    pub fn operands(&self) -> (Option<(&str, &RangeExpr)>, Option<&str>) {
        match self {
            Op::PunchHole(r)
            | Op::ZeroRange(r)
            | Op::CollapseRange(r)
            | Op::InsertRange(r)
            | Op::Truncate(r)
            | Op::Fault(r)
            | Op::Fadvise(r)
            | Op::Readahead(r)
            | Op::Fiemap(r)
            | Op::BlkZeroout(r)
            | Op::BlkDiscard(r)
            | Op::Store(r) => (Some((&r.file, &r.range)), None),
            Op::Read(a) => (Some((&a.file, &a.range)), None),
            Op::UringRead(a) => (Some((&a.file, &a.range)), None),
            Op::Splice(a) => (Some((&a.file, &a.range)), None),
            Op::Write(a) => (Some((&a.file, &a.range)), None),
            Op::Madvise(a) => (Some((&a.file, &a.range)), None),
            Op::Dedupe(a) => (Some((&a.file, &a.range)), Some(&a.into)),
            Op::CloneRange(a) | Op::ReadInto(a) => (Some((&a.file, &a.range)), Some(&a.from)),
            Op::ExchangeRange(a) => (Some((&a.file, &a.range)), Some(&a.with)),
            Op::Extend(_)
            | Op::PrecacheExtents(_)
            | Op::SwapBoot(_)
            | Op::JournalData(_)
            | Op::Fsync(_)
            | Op::Syncfs(_) => (None, None),
        }
    }

    /// The file it works on, be it on a range or as a whole.
    pub fn file(&self) -> Option<&str> {
        if let Op::Extend(f)
        | Op::PrecacheExtents(f)
        | Op::SwapBoot(f)
        | Op::JournalData(f)
        | Op::Fsync(f) = self
        {
            return Some(&f.file);
        }
        self.operands().0.map(|(file, _)| file)
    }

    /// The key of the second file, where it names one, which also says in words what that file is to it.
    pub fn second_key(&self) -> &'static str {
        if let Effect::CopyOf { .. } = self.effect() {
            "from"
        } else if let Effect::Exchange { .. } = self.effect() {
            "with"
        } else {
            "into"
        }
    }

    /// Whether it changes the second file that it names.
    pub fn changes_second(&self) -> bool {
        matches!(self, Op::Dedupe(_) | Op::ExchangeRange(_))
    }

    /// Whether it returns the file's bytes to be judged.
    pub fn observes(&self) -> bool {
        matches!(
            self,
            Op::Read(_) | Op::UringRead(_) | Op::Splice(_) | Op::Fault(_)
        )
    }

    /// Whether it asks not to be kept waiting (RWF_NOWAIT).
    pub fn may_not_wait(&self) -> bool {
        match self {
            Op::Read(a) => a.nowait,
            Op::UringRead(a) => a.nowait,
            _ => false,
        }
    }

    /// Whether the actor needs its own mapping of the file for it.
    pub fn maps(&self) -> bool {
        matches!(
            self,
            Op::Fault(_) | Op::Madvise(_) | Op::Store(_) | Op::ReadInto(_)
        )
    }
}

impl OnRange {
    fn on(&self) -> On<'_> {
        On {
            file: &self.file,
            range: &self.range,
        }
    }
}

impl CopyArgs {
    fn effect(&self) -> Effect<'_> {
        Effect::CopyOf {
            on: On {
                file: &self.file,
                range: &self.range,
            },
            from: &self.from,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it stands in YAML, with what it is known for.
    type Case = (&'static str, Option<Capability>, &'static str);

    const CASES: &[Case] = &[
        (
            "read: {file: a, range: chunk, readahead: true}",
            None,
            "observes fills",
        ),
        (
            "uring_read: {file: a, range: chunk, nowait: true}",
            Some(Capability::IoUring),
            "observes fills",
        ),
        (
            "splice: {file: a, range: chunk, late: true}",
            None,
            "observes fills",
        ),
        (
            "fiemap: {file: a, range: chunk}",
            Some(Capability::Fiemap),
            "fills",
        ),
        (
            "truncate: {file: a, range: chunk}",
            Some(Capability::Resize),
            "invalidates",
        ),
        (
            "precache_extents: {file: a}",
            Some(Capability::PrecacheExtents),
            "fills",
        ),
        ("extend: {file: a}", Some(Capability::Resize), ""),
        (
            "clone_range: {file: a, range: chunk, from: b}",
            Some(Capability::Clone),
            "invalidates from b",
        ),
        (
            "write: {file: a, range: chunk, fills_up: true}",
            Some(Capability::Resize),
            "dirties",
        ),
        (
            "write: {file: a, range: chunk, direct: true}",
            Some(Capability::DirectWrite),
            "invalidates dirties",
        ),
        (
            "exchange_range: {file: a, range: chunk, with: b}",
            Some(Capability::ExchangeRange),
            "invalidates with b",
        ),
        (
            "swap_boot: {file: a}",
            Some(Capability::SwapBoot),
            "invalidates",
        ),
        (
            "journal_data: {file: a}",
            Some(Capability::JournalData),
            "invalidates",
        ),
        (
            "blk_zeroout: {file: a, range: chunk}",
            Some(Capability::BlkZeroout),
            "invalidates",
        ),
        (
            "blk_discard: {file: a, range: chunk}",
            Some(Capability::BlkDiscard),
            "invalidates",
        ),
        (
            "read_into: {file: a, range: chunk, from: b}",
            None,
            "dirties maps from b",
        ),
    ];

    #[test]
    fn words_are_read_and_known_for_what_they_do() {
        for (yaml, capability, traits) in CASES {
            let value = serde_yaml::from_str(yaml).unwrap();
            let op: Op = serde_yaml::with::singleton_map_recursive::deserialize(
                &value as &serde_yaml::Value,
            )
            .unwrap_or_else(|error| panic!("{yaml}: {error}"));
            assert_eq!(op.word(), yaml.split(':').next().unwrap());
            assert_eq!(op.file(), Some("a"), "{yaml}");
            assert_eq!(op.capability(), *capability, "{yaml}");
            let has = [
                (op.observes(), "observes".to_owned()),
                (op.invalidates(), "invalidates".to_owned()),
                (op.fills(), "fills".to_owned()),
                (op.dirties(), "dirties".to_owned()),
                (op.maps(), "maps".to_owned()),
                (
                    op.operands().1.is_some(),
                    format!(
                        "{} {}",
                        op.second_key(),
                        op.operands().1.unwrap_or_default()
                    ),
                ),
            ];
            let has: Vec<String> = has.into_iter().filter(|t| t.0).map(|t| t.1).collect();
            assert_eq!(has.join(" "), *traits, "{yaml}");
        }
    }
}
