//! GFS2 on one node (lock_nolock): a glock around every read and fault, and no conversion to
//! `mapping->invalidate_lock`: the series of 2021 left it out.

use super::MIB;
use crate::adapter::{Adapter, MkfsPlan, OnDevice, Store};
use crate::fsck::{FsckResult, exit};
use crate::profile::Profile;
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{FSCK_GFS2, MKFS_GFS2, Tool, ToolOutput, Version};

/// From when on kernels mount format 1802 (`GFS2_FS_FORMAT_MAX` in fs/gfs2/ops_fstype.c), and tools make it
/// unless told otherwise.
const FORMAT_1802: (Version, Version) = (Version(5, 11, 0), Version(3, 4, 0));

/// The adapter.
#[derive(Debug)]
pub struct Gfs2;

impl Adapter for Gfs2 {
    fn name(&self) -> &'static str {
        "gfs2"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["gfs2"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // The clone bitmaps in fs/gfs2/rgrp.c: a freed block is free once the log that freed it is on disk.
        Reuse::Plan(ReusePlan {
            commit: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Gfs2 {
    fn mkfs_tool(&self) -> Tool {
        MKFS_GFS2
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        // -K: no discard, -O: no questions, and the smallest journal, of which one node needs one.
        let mut words: Vec<String> = ["-K", "-O", "-q", "-p", "lock_nolock", "-j", "1", "-J", "8"]
            .map(str::to_owned)
            .into();
        words.extend(["-b".to_owned(), plan.profile.block.to_string()]);
        let (kernel, tool) = FORMAT_1802;
        if plan.kernel < kernel && plan.tool >= tool {
            words.extend(["-o".to_owned(), "format=1801".to_owned()]);
        }
        words
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        vec![(plan.size / plan.profile.block).to_string()]
    }

    fn fsck_tool(&self) -> Tool {
        FSCK_GFS2
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["-n"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // Those of fsck(8), as fsck.gfs2(8) says.
        exit::judge(output)
    }

    fn minimum_size(&self) -> u64 {
        128 * MIB
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::BASE;

    #[test]
    fn a_kernel_that_knows_one_format_is_given_that() {
        let words = |kernel, tool| {
            let plan = MkfsPlan {
                profile: &BASE,
                kernel,
                tool,
                size: 320 * MIB,
            };
            let arguments = Gfs2.mkfs_arguments(&plan).join(" ");
            (arguments, Gfs2.mkfs_trailing(&plan).join(" "))
        };
        let (old, blocks) = words(Version(5, 10, 251), Version(3, 5, 0));
        assert!(old.contains("-b 4096 -o format=1801"), "{old}");
        assert_eq!(blocks, "81920");
        assert!(
            !words(Version(6, 1, 0), Version(3, 5, 0))
                .0
                .contains("format")
        );
        // This tool makes nothing else, and knows no such option.
        assert!(
            !words(Version(5, 10, 251), Version(3, 2, 0))
                .0
                .contains("format")
        );
    }
}
