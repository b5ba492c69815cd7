//! ext2: no journal. Served by fs/ext2 or, in most distributions, by the ext4 driver: the mount tells.

use super::{MIB, mke2fs};
use crate::adapter::{Adapter, MkfsPlan, OnDevice, Store};
use crate::fsck::FsckResult;
use crate::profile::Profile;
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{E2FSCK, MKE2FS, Tool, ToolOutput};

/// The adapter.
#[derive(Debug)]
pub struct Ext2;

impl Adapter for Ext2 {
    fn name(&self) -> &'static str {
        "ext2"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ext2", "ext4"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // Free at once, but the goal allocation goes elsewhere while there is an elsewhere.
        Reuse::Plan(ReusePlan {
            fill: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Ext2 {
    fn mkfs_tool(&self) -> Tool {
        MKE2FS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::arguments("ext2", plan)
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::trailing(plan)
    }

    fn mount_data(&self) -> &'static str {
        // fs/ext2 knows no such option and discards nothing; the ext4 driver does not unless told to.
        ""
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
}
