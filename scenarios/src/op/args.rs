//! What operations take: the maps behind their words in YAML.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::RangeExpr;

/// A range of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnRange {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range, such as `chunk` or `chunk + 100B .. chunk.end - 100B`.
    pub range: RangeExpr,
}

/// A file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnFile {
    /// The file, by its name under `files`.
    pub file: String,
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
    /// On a descriptor that keeps the default read-ahead, so that the pages around it come in too, in
    /// large folios where the filesystem has them. Other reads have POSIX_FADV_RANDOM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub readahead: bool,
}

/// One read through io_uring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UringReadArgs {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range to read.
    pub range: RangeExpr,
    /// RWF_NOWAIT: must give data or EAGAIN, and never wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nowait: bool,
}

/// A pwrite(2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WriteArgs {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range to write.
    pub range: RangeExpr,
    /// O_DIRECT: past the page cache, whose pages of the range it drops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// The filesystem is full: it may end short or with ENOSPC, and what it reported is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fills_up: bool,
}

/// splice(2) into a pipe of the actor's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpliceArgs {
    /// The file, by its name under `files`.
    pub file: String,
    /// The range to splice.
    pub range: RangeExpr,
    /// The pipe, which holds the pages themselves, is drained only once the invalidator has returned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
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
    /// MADV_COLLAPSE of whole huge pages: `collapse_file` reads the absent ones in (of regular files that may be
    /// written: Linux 7.2).
    Collapse,
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

/// What gives a range the content of the same offsets of another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyArgs {
    /// The file that is changed.
    pub file: String,
    /// The range, in both files.
    pub range: RangeExpr,
    /// The file that the content comes from.
    pub from: String,
}

/// An exchange of the same offsets of two files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeArgs {
    /// The one file.
    pub file: String,
    /// The range, in both files.
    pub range: RangeExpr,
    /// The other file.
    pub with: String,
}

/// The whole filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}
