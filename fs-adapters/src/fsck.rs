//! What a check of an unmounted filesystem can say.

/// The end of an fsck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsckResult {
    /// Nothing wrong.
    Clean,
    /// Damage, in the tool's words.
    Damaged(String),
    /// It could not be checked, and why: no statement about the filesystem.
    NotRun(String),
}

/// Exit code bits of fsck(8), kept by e2fsck, fsck.f2fs, fsck.gfs2 and fsck.ocfs2.
pub(crate) mod exit {
    use super::FsckResult;
    use crate::tools::ToolOutput;

    /// Errors were corrected, or would have been (1), a reboot is due (2), errors are left (4).
    pub const FOUND: i32 = 1 | 2 | 4;

    /// What it means if the tool keeps to them.
    pub fn judge(output: &ToolOutput) -> FsckResult {
        match output.status.code() {
            Some(0) => FsckResult::Clean,
            Some(code) if code & !FOUND == 0 => FsckResult::Damaged(output.text.clone()),
            _ => FsckResult::NotRun(output.failure()),
        }
    }
}
