//! ext3: a journal and indirect blocks, served by the ext4 driver since Linux 4.3.

use super::{MIB, mke2fs};
use crate::adapter::{Adapter, MkfsPlan, OnDevice, Store};
use crate::fsck::FsckResult;
use crate::profile::{BASE, ONE_K, Profile};
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{E2FSCK, MKE2FS, Tool, ToolOutput};

const PROFILES: &[Profile] = &[BASE, ONE_K];

/// The adapter.
#[derive(Debug)]
pub struct Ext3;

impl Adapter for Ext3 {
    fn name(&self) -> &'static str {
        "ext3"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ext4"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        Reuse::Plan(ReusePlan {
            commit: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Ext3 {
    fn mkfs_tool(&self) -> Tool {
        MKE2FS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::arguments("ext3", plan)
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        mke2fs::trailing(plan)
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
