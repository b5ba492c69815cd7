//! ext4: journalled, with extents; the filesystem whose races started it all.

use std::io;
use std::ops::Range;

use punchbench_sys::inode;

use super::{MIB, mke2fs};
use crate::adapter::{Adapter, Addresses, MkfsPlan, OnDevice, ReadDevice, Store, head};
use crate::fsck::FsckResult;
use crate::profile::{BASE, ONE_K, Profile, ProfileError, Seen};
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{E2FSCK, MKE2FS, Tool, ToolOutput};

const PROFILES: &[Profile] = &[
    BASE,
    ONE_K,
    Profile {
        name: "journal",
        about: "data=journal: data goes through the journal, and O_DIRECT through the page cache",
        mount: &["data=journal"],
        ..BASE
    },
    Profile {
        name: "nodelalloc",
        about: "blocks are allocated by the write, not at writeback",
        mount: &["nodelalloc"],
        ..BASE
    },
    Profile {
        name: "noextents",
        about: "indirect blocks: punches take fs/ext4/indirect.c; no zero, collapse or insert range",
        // mke2fs: extents must be there for 64-bit block numbers.
        features: &["^extent", "^64bit"],
        ..BASE
    },
    Profile {
        name: "bigalloc",
        about: "16 blocks of 4 KiB to a cluster: freed only whole, collapsed and inserted only whole",
        unit: 64 << 10,
        features: &["bigalloc"],
        ..BASE
    },
    Profile {
        name: "groups",
        about: "groups of 256 blocks of 1 KiB: to free some MiB takes more than one transaction",
        block: 1024,
        unit: 1024,
        group: 256,
        features: &["^flex_bg", "^resize_inode"],
        ..BASE
    },
    Profile {
        name: "nojournal",
        about: "no journal: a freed block can be allocated again at once",
        features: &["^has_journal"],
        ..BASE
    },
    Profile {
        name: "lazytime",
        about: "nodelalloc, and timestamps stay in memory: a store into a page starts no transaction for them",
        mount: &["nodelalloc", "lazytime"],
        ..BASE
    },
    Profile {
        name: "dax",
        about: "on persistent memory, mapped without a page cache: what is raced are the mappings",
        mount: &["dax=always"],
        ..BASE
    },
];

/// The adapter.
#[derive(Debug)]
pub struct Ext4;

impl Adapter for Ext4 {
    fn name(&self) -> &'static str {
        "ext4"
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

    fn reuse(&self, profile: &Profile, _driver: &str) -> Reuse {
        // ext4_process_freed_data: freed clusters go back to the allocator when the transaction commits;
        // without a journal at once, but then the goal allocation goes elsewhere while there is an elsewhere.
        let journal = !profile.features.contains(&"^has_journal");
        Reuse::Plan(ReusePlan {
            commit: journal,
            fill: !journal,
            unit: if profile.unit > profile.block {
                profile.unit
            } else {
                0
            },
            ..ReusePlan::default()
        })
    }

    fn prove(&self, profile: &Profile, seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        mke2fs::prove(profile, &seen.head()?)?;
        seen.new_file_has(inode::EXTENTS, !profile.features.contains(&"^extent"))?;
        Ok(None)
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

    fn commit_area(&self, read: ReadDevice<'_>) -> io::Result<Option<Vec<Range<u64>>>> {
        Ok(mke2fs::journal(&head(read)?))
    }

    fn addresses(&self, profile: &Profile) -> Addresses {
        // What was written last may still be in the journal, not yet at its place.
        if profile.mount.contains(&"data=journal") {
            Addresses::Logical
        } else {
            Addresses::Device
        }
    }
}
