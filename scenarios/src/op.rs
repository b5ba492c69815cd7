//! Every operation a scenario may name, in one enum.
//!
//! Adding one is one variant here; the compiler then names the two other places: what it does to a
//! file's content (`effect`, below) and how it is carried out (the subjects). No `match` on [`Op`]
//! has a wildcard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Capability, RangeExpr};

/// A range of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnRange {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range, such as `chunk` or `chunk + 100B .. chunk.end - 100B`.
    pub range: RangeExpr,
}

/// A read(2)-like call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadArgs {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range to read.
    pub range: RangeExpr,
    /// preadv2(RWF_NOWAIT): must give data or EAGAIN, and never wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nowait: bool,
    /// O_DIRECT.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
}

/// madvise(2) over a range of an actor's own mapping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MadviseArgs {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range of the file, mapped by the actor.
    pub range: RangeExpr,
    /// Which advice.
    #[serde(default)]
    pub advice: MadviseAdvice,
}

/// The advice that fills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MadviseAdvice {
    /// MADV_WILLNEED.
    #[default]
    Willneed,
    /// MADV_POPULATE_READ (Linux 5.14).
    PopulateRead,
}

/// FIDEDUPERANGE of one range into the same offsets of another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupeArgs {
    /// The source file.
    pub file: String,
    /// The range, in both files.
    pub range: RangeExpr,
    /// The destination file.
    pub into: String,
}

/// The whole filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

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
    /// pread(2), preadv2(RWF_NOWAIT) or an O_DIRECT read.
    Read(ReadArgs),
    /// Loads through the actor's own shared mapping.
    Fault(OnRange),
    /// posix_fadvise(POSIX_FADV_WILLNEED).
    Fadvise(OnRange),
    /// readahead(2).
    Readahead(OnRange),
    /// madvise(2) with an advice that fills.
    Madvise(MadviseArgs),
    /// ioctl(FIDEDUPERANGE): the compare fills both files' page caches.
    Dedupe(DedupeArgs),
    /// Stores a fresh value through the actor's own shared mapping (page_mkwrite), over the whole range.
    Store(OnRange),
    /// pwrite(2) of a fresh generation of the file's stamps over the range.
    Write(OnRange),
    /// syncfs(2): commits, so that freed blocks may be allocated again.
    Syncfs(NoArgs),
}

/// What an operation does to the content of a file: shared by the oracle and the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Nothing.
    None,
    /// The range reads as zeros afterwards; nothing moves, the size stays.
    Zero(&'a OnRange),
    /// The range is gone and what was behind it has moved down.
    Collapse(&'a OnRange),
    /// The range is a hole and what was there has moved up.
    Insert(&'a OnRange),
    /// The range holds a fresh generation of the file's stamps, or a fresh store value.
    Overwrite(&'a OnRange),
}

impl Op {
    /// What it does to the file it names.
    pub fn effect(&self) -> Effect<'_> {
        match self {
            Op::PunchHole(r) | Op::ZeroRange(r) => Effect::Zero(r),
            Op::CollapseRange(r) => Effect::Collapse(r),
            Op::InsertRange(r) => Effect::Insert(r),
            Op::Store(r) | Op::Write(r) => Effect::Overwrite(r),
            // A dedupe shares blocks; no content changes.
            Op::Read(_)
            | Op::Fault(_)
            | Op::Fadvise(_)
            | Op::Readahead(_)
            | Op::Madvise(_)
            | Op::Dedupe(_)
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
            Op::Read(_) => "read",
            Op::Fault(_) => "fault",
            Op::Fadvise(_) => "fadvise",
            Op::Readahead(_) => "readahead",
            Op::Madvise(_) => "madvise",
            Op::Dedupe(_) => "dedupe",
            Op::Store(_) => "store",
            Op::Write(_) => "write",
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
            Op::Read(a) if a.nowait => Some(Capability::Nowait),
            Op::Read(a) if a.direct => Some(Capability::DirectRead),
            Op::Madvise(a) => Some(match a.advice {
                MadviseAdvice::Willneed => Capability::AdviceFills,
                MadviseAdvice::PopulateRead => Capability::PopulateRead,
            }),
            Op::Fadvise(_) | Op::Readahead(_) => Some(Capability::AdviceFills),
            Op::Read(_) | Op::Fault(_) | Op::Store(_) | Op::Write(_) | Op::Syncfs(_) => None,
        }
    }

    /// The file it works on, its range there, and a second file if it names one.
    pub fn operands(&self) -> (Option<(&str, &RangeExpr)>, Option<&str>) {
        match self {
            Op::PunchHole(r)
            | Op::ZeroRange(r)
            | Op::CollapseRange(r)
            | Op::InsertRange(r)
            | Op::Fault(r)
            | Op::Fadvise(r)
            | Op::Readahead(r)
            | Op::Store(r)
            | Op::Write(r) => (Some((&r.file, &r.range)), None),
            Op::Read(a) => (Some((&a.file, &a.range)), None),
            Op::Madvise(a) => (Some((&a.file, &a.range)), None),
            Op::Dedupe(a) => (Some((&a.file, &a.range)), Some(&a.into)),
            Op::Syncfs(_) => (None, None),
        }
    }

    /// Whether it returns the file's bytes to be judged.
    pub fn observes(&self) -> bool {
        matches!(self, Op::Read(_) | Op::Fault(_))
    }

    /// Whether the actor needs its own mapping of the file for it.
    pub fn maps(&self) -> bool {
        matches!(self, Op::Fault(_) | Op::Madvise(_) | Op::Store(_))
    }
}
