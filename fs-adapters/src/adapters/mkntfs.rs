//! What the two NTFS drivers have in common: the tools that make and check it.

use super::MIB;
use crate::adapter::{MkfsPlan, OnDevice};
use crate::fsck::FsckResult;
use crate::tools::{MKNTFS, NTFSFIX, Tool, ToolOutput};

/// mkntfs counts in sectors of this many bytes.
const SECTOR: u64 = 512;

/// NTFS on a device, as one driver mounts it.
#[derive(Debug)]
pub(super) struct OnNtfs {
    /// The driver's mount options.
    pub mount_data: &'static str,
}

impl OnDevice for OnNtfs {
    fn mkfs_tool(&self) -> Tool {
        MKNTFS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        // -Q: it writes no zeros over the device. It never discards.
        let mut words: Vec<String> = ["-F", "-Q", "-q", "-s"].map(str::to_owned).into();
        words.push(SECTOR.to_string());
        words.extend(["-c".to_owned(), plan.profile.unit.to_string()]);
        words
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        vec![(plan.size / SECTOR).to_string()]
    }

    fn mount_data(&self) -> &'static str {
        self.mount_data
    }

    fn fsck_tool(&self) -> Tool {
        NTFSFIX
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["--no-action"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // It looks at the boot sectors, the MFT's mirror and the log only, and ends with 0 or 1 (ntfsfix(8)).
        match output.status.code() {
            Some(0) => FsckResult::Clean,
            Some(1) => FsckResult::Damaged(output.text.clone()),
            _ => FsckResult::NotRun(output.failure()),
        }
    }

    fn minimum_size(&self) -> u64 {
        128 * MIB
    }
}
