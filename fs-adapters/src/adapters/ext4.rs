//! ext4: journalled, with extents; the filesystem whose races started it all.

use super::{MIB, mke2fs};
use crate::adapter::{Adapter, Addresses, MkfsPlan, OnDevice, Profile, Store};
use crate::fsck::FsckResult;
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{E2FSCK, MKE2FS, Tool, ToolOutput};

/// The adapter.
#[derive(Debug)]
pub struct Ext4;

impl Adapter for Ext4 {
    fn name(&self) -> &'static str {
        "ext4"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ext4"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _driver: &str) -> Reuse {
        // ext4_process_freed_data: freed clusters go back to the allocator when the transaction commits.
        Reuse::Plan(ReusePlan {
            commit: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Ext4 {
    fn mkfs_tool(&self) -> Tool {
        MKE2FS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::arguments("ext4", plan)
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::trailing(plan)
    }

    fn mount_data(&self, _profile: &Profile) -> String {
        "nodiscard".to_owned()
    }

    fn fsck_tool(&self) -> Tool {
        E2FSCK
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        mke2fs::FSCK_ARGUMENTS
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        mke2fs::judge(output)
    }

    fn minimum_size(&self) -> u64 {
        128 * MIB
    }

    fn addresses(&self) -> Addresses {
        Addresses::Device
    }
}
