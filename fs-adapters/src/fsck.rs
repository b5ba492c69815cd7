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

/// Exit code bits of fsck(8), kept by e2fsck and fsck.f2fs.
pub(crate) mod exit {
    /// Errors were corrected, or would have been (1), a reboot is due (2), errors are left (4).
    pub const FOUND: i32 = 1 | 2 | 4;
}
