//! What ext2, ext3 and ext4 share: they are made by mke2fs and checked by e2fsck.

use std::ops::Range;

use crate::adapter::MkfsPlan;
use crate::fsck::{FsckResult, exit};
use crate::profile::{Profile, ProfileError};
use crate::tools::{ToolOutput, Version};

/// The arguments before the device. No blocks are reserved for root, so that a full filesystem is full.
pub(super) fn arguments(format: &str, plan: &MkfsPlan) -> Vec<String> {
    let profile = plan.profile;
    let block = profile.block.to_string();
    let mut words: Vec<String> = ["-t", format, "-F", "-q", "-b", &block, "-m", "0", "-E"]
        .map(str::to_owned)
        .into();
    words.push("nodiscard,lazy_itable_init=0,lazy_journal_init=0".to_owned());
    let mut features = profile.features.to_vec();
    // On by default from e2fsprogs 1.47, known to kernels from 5.15, and meant for a journal.
    let unfit = plan.kernel < Version(5, 15, 0) || features.contains(&"^has_journal");
    if format == "ext4" && plan.tool >= Version(1, 47, 0) && unfit {
        features.push("^orphan_file");
    }
    // A second -O would take the place of the first.
    if !features.is_empty() {
        words.extend(["-O".to_owned(), features.join(",")]);
    }
    if profile.unit > profile.block {
        words.extend(["-C".to_owned(), profile.unit.to_string()]);
    }
    if profile.group > 0 {
        words.extend(["-g".to_owned(), profile.group.to_string()]);
    }
    words
}

/// The argument after the device: its size.
pub(super) fn trailing(plan: &MkfsPlan) -> Vec<String> {
    vec![format!("{}k", plan.size / 1024)]
}

/// Where the superblock lies (Documentation/filesystems/ext4/super.rst), and the offsets in it.
const SUPERBLOCK: usize = 1024;
const LOG_CLUSTER_SIZE: usize = 0x1C;
const BLOCKS_PER_GROUP: usize = 0x20;
const MAGIC: usize = 0x38;
const COMPAT: usize = 0x5C;
const INCOMPAT: usize = 0x60;
const RO_COMPAT: usize = 0x64;

/// The features that profiles name: where their bit is.
const FEATURES: [(&str, usize, u32); 6] = [
    ("has_journal", COMPAT, 0x4),
    ("resize_inode", COMPAT, 0x10),
    ("extent", INCOMPAT, 0x40),
    ("64bit", INCOMPAT, 0x80),
    ("flex_bg", INCOMPAT, 0x200),
    ("bigalloc", RO_COMPAT, 0x200),
];

/// Finds a profile's features and its cluster size in the superblock.
pub(super) fn prove(profile: &Profile, head: &[u8; 4096]) -> Result<(), ProfileError> {
    let word = |at: usize| {
        let bytes = &head[SUPERBLOCK + at..][..4];
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    if word(MAGIC) & 0xFFFF != 0xEF53 {
        return Err(ProfileError::not_so("an ext superblock", "there is none"));
    }
    for feature in profile.features {
        let (name, on) = match feature.strip_prefix('^') {
            Some(name) => (name, false),
            None => (*feature, true),
        };
        let known = FEATURES.iter().find(|(known, ..)| *known == name);
        let has = known.map(|(_, at, bit)| word(*at) & bit != 0);
        if has != Some(on) {
            return Err(ProfileError::not_so(
                format!("the feature {feature}"),
                match has {
                    Some(has) => {
                        format!("the superblock has it {}", if has { "on" } else { "off" })
                    }
                    None => "it is not known where the superblock has it".to_owned(),
                },
            ));
        }
    }
    let group = u64::from(word(BLOCKS_PER_GROUP));
    if profile.group > 0 && group != profile.group {
        return Err(ProfileError::not_so(
            format!("groups of {} blocks", profile.group),
            format!("the superblock says {group}"),
        ));
    }
    let cluster = 1024 << word(LOG_CLUSTER_SIZE).min(32);
    if cluster == profile.unit {
        Ok(())
    } else {
        Err(ProfileError::not_so(
            format!("allocation in units of {} bytes", profile.unit),
            format!("the superblock says {cluster}"),
        ))
    }
}

/// Answers "no" to everything, and checks even a filesystem marked clean.
pub(super) const FSCK_ARGUMENTS: &[&str] = &["-f", "-n"];

/// Exit code bits of e2fsck(8): 16 usage, 32 cancelled, 128 library.
const NOT_RUN: i32 = 16 | 32 | 128;

/// The operational bit (8) beside an uncorrected error means that e2fsck gave up because of what it found;
/// alone, that it could not look.
pub(super) fn judge(output: &ToolOutput) -> FsckResult {
    match output.status.code() {
        Some(0) => FsckResult::Clean,
        Some(code) if code & NOT_RUN == 0 && code & exit::FOUND != 0 => {
            FsckResult::Damaged(output.text.clone())
        }
        _ => FsckResult::NotRun(output.failure()),
    }
}

/// Where the journal lies, out of the copy of its inode's extents in the superblock (`s_jnl_blocks`,
/// fs/ext4/ext4.h), which mke2fs leaves there for e2fsck; `None` without a journal, or with one that is mapped by
/// indirect blocks or by more extents than an inode holds.
pub(super) fn journal(head: &[u8; 4096]) -> Option<Vec<Range<u64>>> {
    const SUPER: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    const BACKUP_IS_BLOCKS: u8 = 1;
    const EXTENT_MAGIC: u16 = 0xF30A;
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
    let blocks = SUPER + 0x10C;
    let (magic, entries, depth) = (u16_at(blocks), u16_at(blocks + 2), u16_at(blocks + 6));
    if u32_at(SUPER + 0x5C) & HAS_JOURNAL == 0
        || head[SUPER + 0xFD] != BACKUP_IS_BLOCKS
        || (magic, depth) != (EXTENT_MAGIC, 0)
        || !(1..=4).contains(&entries)
    {
        return None;
    }
    let block = 1024_u64 << u32_at(SUPER + 0x18);
    let extents = (1..=usize::from(entries)).map(|number| {
        let at = blocks + 12 * number;
        let len = u64::from(u16_at(at + 4));
        let start = u64::from(u16_at(at + 6)) << 32 | u64::from(u32_at(at + 8));
        start * block..(start + len) * block
    });
    Some(extents.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_found_in_the_superblock() {
        let mut head = [0; 4096];
        assert_eq!(journal(&head), None);
        let mut put =
            |at: usize, bytes: &[u8]| head[1024 + at..][..bytes.len()].copy_from_slice(bytes);
        put(0x18, &[2, 0, 0, 0]);
        put(0x5C, &[4, 0, 0, 0]);
        put(0xFD, &[1]);
        // Two extents: 16 blocks from 0x1_0000_0010, then 8 from 0x40.
        put(0x10C, &[0x0A, 0xF3, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        put(0x118, &[0, 0, 0, 0, 16, 0, 1, 0, 0x10, 0, 0, 0]);
        put(0x124, &[16, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0, 0]);
        let first = 0x1_0000_0010 * 4096;
        let second = 0x40 * 4096;
        let found = [first..first + 16 * 4096, second..second + 8 * 4096];
        assert_eq!(journal(&head).unwrap(), found);
        head[1024 + 0x5C] = 0;
        assert_eq!(journal(&head), None);
    }
    use crate::adapter::Adapter;
    use crate::adapters::ext4::Ext4;

    fn words(name: &str, tool: Version, kernel: Version) -> String {
        let profile = Ext4.profiles().iter().find(|p| p.name == name).unwrap();
        let size = 320 << 20;
        arguments(
            "ext4",
            &MkfsPlan {
                profile,
                kernel,
                tool,
                size,
            },
        )
        .join(" ")
    }

    #[test]
    fn features_come_in_one_option() {
        let old = words("noextents", Version(1, 47, 0), Version(5, 10, 0));
        assert!(old.ends_with("-O ^extent,^64bit,^orphan_file"), "{old}");
        let new = words("noextents", Version(1, 47, 0), Version(6, 18, 0));
        assert!(new.ends_with("-O ^extent,^64bit"), "{new}");
        let alone = words("nojournal", Version(1, 47, 0), Version(6, 18, 0));
        assert!(alone.ends_with("-O ^has_journal,^orphan_file"), "{alone}");
        let unknown = words("nojournal", Version(1, 46, 0), Version(6, 18, 0));
        assert!(unknown.ends_with("-O ^has_journal"), "{unknown}");
    }

    #[test]
    fn blocks_and_clusters_are_what_the_profile_says() {
        let (tool, kernel) = (Version(1, 47, 0), Version(6, 18, 0));
        assert!(words("1k", tool, kernel).contains("-b 1024 "));
        let clusters = words("bigalloc", tool, kernel);
        assert!(clusters.ends_with("-O bigalloc -C 65536"), "{clusters}");
        assert!(!words("", tool, kernel).contains("-C"));
    }

    #[test]
    fn another_cluster_size_is_not_the_profile() {
        let mut head = [0; 4096];
        head[SUPERBLOCK + MAGIC..][..2].copy_from_slice(&0xEF53_u16.to_le_bytes());
        head[SUPERBLOCK + RO_COMPAT + 1] = 0x2;
        head[SUPERBLOCK + LOG_CLUSTER_SIZE] = 6;
        let bigalloc = Ext4.profiles().iter().find(|p| p.name == "bigalloc");
        assert!(prove(bigalloc.unwrap(), &head).is_ok());
        head[SUPERBLOCK + LOG_CLUSTER_SIZE] = 4;
        let error = prove(bigalloc.unwrap(), &head).unwrap_err().to_string();
        assert!(error.contains("the superblock says 16384"), "{error}");
    }
}
