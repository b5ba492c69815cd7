//! F2FS: log-structured; a block freed is free again only with its whole segment, after a checkpoint.

use std::io;
use std::ops::Range;

use super::MIB;
use crate::adapter::{Adapter, MkfsPlan, OnDevice, ReadDevice, Store, head};
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

    fn commit_area(&self, read: ReadDevice<'_>) -> io::Result<Option<Vec<Range<u64>>>> {
        Ok(checkpoints(&head(read)?))
    }
}

/// Where the checkpoint packs lie, out of the superblock (struct f2fs_super_block, include/linux/f2fs_fs.h).
fn checkpoints(head: &[u8; 4096]) -> Option<Vec<Range<u64>>> {
    const SUPER: usize = 1024;
    const MAGIC: u64 = 0xF2F5_2010;
    let u32_at = |at: usize| {
        let bytes = head[SUPER + at..SUPER + at + 4].iter().rev();
        bytes.fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    // log_blocksize, cp_blkaddr, and sit_blkaddr, which is what comes next.
    let (bits, start, end) = (u32_at(16), u32_at(76), u32_at(80));
    (u32_at(0) == MAGIC && start < end).then(|| vec![start << bits..end << bits])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoints_are_found_in_the_superblock() {
        let mut head = [0; 4096];
        assert_eq!(checkpoints(&head), None);
        let mut put = |at: usize, value: u32| {
            head[1024 + at..][..4].copy_from_slice(&value.to_le_bytes());
        };
        put(0, 0xF2F5_2010);
        put(16, 12);
        put(76, 512);
        put(80, 1536);
        assert_eq!(checkpoints(&head).unwrap(), [512 * 4096..1536 * 4096]);
    }
}
