//! What ext2, ext3 and ext4 share: they are made by mke2fs and checked by e2fsck.

use crate::adapter::MkfsPlan;
use crate::fsck::{FsckResult, exit};
use crate::tools::{ToolOutput, Version};

/// The arguments before the device. No blocks are reserved for root, so that a full filesystem is full.
pub(super) fn arguments(format: &str, plan: &MkfsPlan) -> Vec<String> {
    let mut words: Vec<String> = ["-t", format, "-F", "-q", "-b", "4096", "-m", "0", "-E"]
        .map(str::to_owned)
        .into();
    words.push("nodiscard,lazy_itable_init=0,lazy_journal_init=0".to_owned());
    // On by default from e2fsprogs 1.47, known to kernels from 5.15.
    if format == "ext4" && plan.tool >= Version(1, 47, 0) && plan.kernel < Version(5, 15, 0) {
        words.extend(["-O".to_owned(), "^orphan_file".to_owned()]);
    }
    words
}

/// The argument after the device: its size.
pub(super) fn trailing(plan: &MkfsPlan) -> Vec<String> {
    vec![format!("{}k", plan.size / 1024)]
}

/// Answers "no" to everything, and checks even a filesystem marked clean.
pub(super) const FSCK_ARGUMENTS: &[&str] = &["-f", "-n"];

/// Exit code bits of e2fsck(8): 16 usage, 32 cancelled, 128 library.
const NOT_RUN: i32 = 16 | 32 | 128;

/// The operational bit (8) beside an uncorrected error means that e2fsck gave up because of what it found;
/// alone, that it could not look.
pub(super) fn judge(output: &ToolOutput) -> FsckResult {
    match output.status.code() {
        Some(0) => FsckResult::Clean,
        Some(code) if code & NOT_RUN == 0 && code & exit::FOUND != 0 => {
            FsckResult::Damaged(output.text.clone())
        }
        _ => FsckResult::NotRun(output.failure()),
    }
}
