//! F2FS: log-structured; a block freed is free again only with its whole segment, after a checkpoint.

use super::MIB;
use crate::adapter::{Adapter, MkfsPlan, OnDevice, Store};
use crate::fsck::{FsckResult, exit};
use crate::profile::{BASE, Profile};
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{FSCK_F2FS, MKFS_F2FS, Tool, ToolOutput};

/// A segment (f2fs: log_blocks_per_seg 9 of 4 KiB blocks).
const SEGMENT: u64 = 2 * MIB;

/// mkfs.f2fs counts in sectors of 512 bytes.
const SECTOR: u64 = 512;

const PROFILES: &[Profile] = &[
    BASE,
    Profile {
        name: "lfs",
        about: "log only (mode=lfs): O_DIRECT writes, too, get new blocks (out-of-place update)",
        mount: &["mode=lfs"],
        ..BASE
    },
];

/// The adapter.
#[derive(Debug)]
pub struct F2fs;

impl Adapter for F2fs {
    fn name(&self) -> &'static str {
        "f2fs"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["f2fs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // set_prefree_as_free_segments: after the checkpoint, whole segments.
        Reuse::Plan(ReusePlan {
            commit: true,
            piecewise: false,
            fill: true,
            unit: SEGMENT,
        })
    }
}

impl OnDevice for F2fs {
    fn mkfs_tool(&self) -> Tool {
        MKFS_F2FS
    }

    fn mkfs_arguments(&self, _plan: &MkfsPlan) -> Vec<String> {
        // -t 0: no discard.
        ["-f", "-q", "-t", "0"].map(str::to_owned).into()
    }

    fn mkfs_trailing(&self, plan: &MkfsPlan) -> Vec<String> {
        vec![(plan.size / SECTOR).to_string()]
    }

    fn fsck_tool(&self) -> Tool {
        FSCK_F2FS
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["--dry-run"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // Exit codes of fsck(8); 255 from every failure to open before f2fs-tools 1.14.
        exit::judge(output)
    }

    fn minimum_size(&self) -> u64 {
        192 * MIB
    }
}
