//! OCFS2 as a local filesystem, without a cluster: a punch frees the blocks first and drops the page cache
//! last, and the series of 2021 did not convert it to `mapping->invalidate_lock`.

use super::MIB;
use crate::adapter::{Adapter, MkfsPlan, OnDevice, Store};
use crate::fsck::{FsckResult, exit};
use crate::profile::Profile;
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{FSCK_OCFS2, MKFS_OCFS2, Tool, ToolOutput};

/// The adapter.
#[derive(Debug)]
pub struct Ocfs2;

impl Adapter for Ocfs2 {
    fn name(&self) -> &'static str {
        "ocfs2"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ocfs2"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // A freed cluster stays in the truncate log (fs/ocfs2/alloc.c), which syncfs flushes.
        Reuse::Plan(ReusePlan {
            commit: true,
            fill: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Ocfs2 {
    fn mkfs_tool(&self) -> Tool {
        MKFS_OCFS2
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        let mut words: Vec<String> = [
            "-F",
            "-q",
            "-M",
            "local",
            "-N",
            "1",
            "-J",
            "size=8M",
            "--nodiscard",
            "-b",
        ]
        .map(str::to_owned)
        .into();
        words.push(plan.profile.block.to_string());
        words.extend(["-C".to_owned(), plan.profile.unit.to_string()]);
        words
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        vec![(plan.size / plan.profile.block).to_string()]
    }

    fn mount_data(&self) -> &'static str {
        // What mount.ocfs2(8) says for a local one; "" is refused (ocfs2_parse_options). It discards only when
        // asked by FITRIM, and knows no option for it.
        "heartbeat=none"
    }

    fn fsck_tool(&self) -> Tool {
        FSCK_OCFS2
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["-f", "-n"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // Those of fsck(8), as fsck.ocfs2(8) says.
        exit::judge(output)
    }

    fn minimum_size(&self) -> u64 {
        192 * MIB
    }
}
