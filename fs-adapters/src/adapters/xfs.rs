//! XFS: reads take the IOLOCK, faults the MMAPLOCK, so it was safe before the others were.

use std::io;
use std::ops::Range;

use super::MIB;
use crate::adapter::{Adapter, MkfsPlan, OnDevice, ReadDevice, Store, head};
use crate::fsck::FsckResult;
use crate::profile::{BASE, ONE_K, Profile, ProfileError, Seen};
use crate::reuse::{Reuse, ReusePlan};
use crate::set_up::SetUpError;
use crate::tools::{MKFS_XFS, Tool, ToolOutput, Version, XFS_REPAIR};

const PROFILES: &[Profile] = &[
    BASE,
    ONE_K,
    Profile {
        name: "noreflink",
        about: "no shared extents: writes never copy first, and there is no clone or dedupe",
        features: &["reflink=0"],
        ..BASE
    },
    Profile {
        name: "exchange",
        about: "exchange-range switched on (XFS_IOC_EXCHANGE_RANGE, Linux 6.10)",
        features: &["exchange=1"],
        ..BASE
    },
    Profile {
        name: "dax",
        about: "on persistent memory, mapped without a page cache: what is raced are the mappings",
        // Older kernels refuse both together (xfs_fs_fill_super).
        features: &["reflink=0"],
        mount: &["dax=always"],
        ..BASE
    },
];

/// The features that profiles name: mkfs.xfs's option for them, and where the superblock has their bit
/// (struct xfs_dsb in fs/xfs/libxfs/xfs_format.h).
const FEATURES: [(&str, &str, usize, u32); 2] = [
    ("reflink", "-m", RO_COMPAT, 1 << 2),
    ("exchange", "-i", INCOMPAT, 1 << 6),
];
const RO_COMPAT: usize = 212;
const INCOMPAT: usize = 216;

/// From when on exchange-range can be made (xfsprogs) and used (kernel).
const EXCHANGE: (Version, Version) = (Version(6, 10, 0), Version(6, 10, 0));

/// The adapter.
#[derive(Debug)]
pub struct Xfs;

impl Adapter for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["xfs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // xfs_extent_busy_trim: an extent is busy until the log that freed it is on disk.
        Reuse::Plan(ReusePlan {
            commit: true,
            ..ReusePlan::default()
        })
    }

    fn check(&self, profile: &Profile) -> Result<(), SetUpError> {
        if !profile.features.contains(&"exchange=1") {
            return Ok(());
        }
        let tool = MKFS_XFS.version().unwrap_or(Version(0, 0, 0));
        exchange_is_possible(tool, Version::of_kernel())
    }

    fn prove(&self, profile: &Profile, seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        prove(profile, &seen.head()?)?;
        Ok(None)
    }
}

fn exchange_is_possible(tool: Version, kernel: Version) -> Result<(), SetUpError> {
    if kernel < EXCHANGE.1 {
        return Err(SetUpError::skipped(
            format!("Linux {kernel} has no exchange-range, {} has", EXCHANGE.1),
            format!("boot Linux {} or newer", EXCHANGE.1),
        ));
    }
    if tool < EXCHANGE.0 {
        return Err(SetUpError::skipped(
            format!(
                "mkfs.xfs {tool} cannot make the feature exchange, {} can",
                EXCHANGE.0
            ),
            format!("{}, version {} or newer", MKFS_XFS.hint(), EXCHANGE.0),
        ));
    }
    Ok(())
}

/// `reflink` of `reflink=0`.
fn name_of(feature: &str) -> &str {
    feature.split_once('=').map_or(feature, |(name, _)| name)
}

/// Finds a profile's features in the superblock.
fn prove(profile: &Profile, head: &[u8; 4096]) -> Result<(), ProfileError> {
    if &head[..4] != b"XFSB" {
        return Err(ProfileError::not_so("an XFS superblock", "there is none"));
    }
    for feature in profile.features {
        let known = FEATURES
            .iter()
            .find(|(known, ..)| *known == name_of(feature));
        let seen = known.map(|(_, _, at, bit)| {
            let bytes = &head[*at..at + 4];
            let word = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            if word & bit == 0 { "0" } else { "1" }
        });
        if seen != feature.split_once('=').map(|(_, value)| value) {
            return Err(ProfileError::not_so(
                format!("the feature {feature}"),
                format!(
                    "the superblock says {}",
                    seen.unwrap_or("nothing we know of")
                ),
            ));
        }
    }
    Ok(())
}

impl OnDevice for Xfs {
    fn mkfs_tool(&self) -> Tool {
        MKFS_XFS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        let mut words: Vec<String> = ["-f", "-q", "-K", "-b"].map(str::to_owned).into();
        words.push(format!("size={}", plan.profile.block));
        words.extend(["-d".to_owned(), format!("size={}", plan.size)]);
        // A feature newer than the kernel is named and switched off, but only to a tool that knows its name:
        // (option, feature, in xfsprogs since, in the kernel, or no longer experimental there, since).
        let features = [
            ("-m", "bigtime=0", Version(5, 10, 0), Version(5, 15, 0)),
            ("-m", "inobtcount=0", Version(5, 10, 0), Version(5, 15, 0)),
            ("-i", "nrext64=0", Version(5, 19, 0), Version(6, 5, 0)),
            ("-i", "exchange=0", Version(6, 10, 0), Version(6, 12, 0)),
            ("-n", "parent=0", Version(6, 10, 0), Version(6, 12, 0)),
        ];
        let asked = plan.profile.features;
        for (option, feature, tool, kernel) in features {
            // mkfs.xfs refuses a feature that is given twice.
            let given = asked.iter().any(|asked| name_of(asked) == name_of(feature));
            if plan.tool >= tool && plan.kernel < kernel && !given {
                words.extend([option.to_owned(), feature.to_owned()]);
            }
        }
        for feature in asked {
            let known = FEATURES
                .iter()
                .find(|(known, ..)| *known == name_of(feature));
            let option = known.map_or("-m", |(_, option, ..)| option);
            words.extend([option.to_owned(), (*feature).to_owned()]);
        }
        words
    }

    fn commit_area(&self, read: ReadDevice<'_>) -> io::Result<Option<Vec<Range<u64>>>> {
        Ok(log(&head(read)?))
    }

    fn fsck_tool(&self) -> Tool {
        XFS_REPAIR
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["-n"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // xfs_repair(8) -n: 1 if corruption was detected, and also if it could not look.
        const NOT_LOOKED: [&str; 5] = [
            "couldn't initialize XFS library",
            "valuable metadata changes in a log",
            "Using a more recent xfs_repair is recommended",
            "Cannot allocate memory",
            "contains a mounted",
        ];
        match output.status.code() {
            _ if NOT_LOOKED.iter().any(|text| output.text.contains(text)) => {
                FsckResult::NotRun(output.failure())
            }
            Some(0) => FsckResult::Clean,
            Some(1) => FsckResult::Damaged(output.text.clone()),
            _ => FsckResult::NotRun(output.failure()),
        }
    }

    fn minimum_size(&self) -> u64 {
        // mkfs.xfs refuses less than 300 MiB since xfsprogs 5.19.
        304 * MIB
    }
}

/// Where the log lies, out of the superblock (struct xfs_dsb, fs/xfs/libxfs/xfs_format.h); `None` for a log on
/// a device of its own.
fn log(head: &[u8; 4096]) -> Option<Vec<Range<u64>>> {
    const MAGIC: u64 = 0x5846_5342;
    let number = |at: usize, len: usize| {
        let bytes = head[at..at + len].iter();
        bytes.fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    };
    let (block, start, blocks) = (number(4, 4), number(48, 8), number(96, 4));
    if number(0, 4) != MAGIC || start == 0 {
        return None;
    }
    let (group_blocks, group_bits) = (number(84, 4), number(124, 1));
    let (group, inside) = (start >> group_bits, start & ((1 << group_bits) - 1));
    let at = (group * group_blocks + inside) * block;
    Some(vec![at..at + blocks * block])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_found_in_the_superblock() {
        let mut head = [0; 4096];
        assert_eq!(log(&head), None);
        let mut put = |at: usize, bytes: &[u8]| head[at..][..bytes.len()].copy_from_slice(bytes);
        put(0, b"XFSB");
        put(4, &[0, 0, 0x10, 0]);
        // Block 6 of group 2, of groups of 20,000 blocks, which takes 15 bits.
        put(48, &[0, 0, 0, 0, 0, 1, 0, 6]);
        put(84, &[0, 0, 0x4E, 0x20]);
        put(96, &[0, 0, 4, 0]);
        put(124, &[15]);
        let at = (2 * 20_000 + 6) * 4096;
        assert_eq!(log(&head).unwrap(), [at..at + 1024 * 4096]);
        head[48..56].fill(0);
        assert_eq!(log(&head), None, "a log of its own");
    }

    #[test]
    fn features_newer_than_the_kernel_are_off_where_the_tool_knows_them() {
        let plan = |kernel, tool| MkfsPlan {
            profile: &BASE,
            kernel,
            tool,
            size: 320 * MIB,
        };
        let on_510 = Xfs
            .mkfs_arguments(&plan(Version(5, 10, 223), Version(6, 1, 0)))
            .join(" ");
        assert!(
            on_510.contains("-m bigtime=0 -m inobtcount=0 -i nrext64=0"),
            "{on_510}"
        );
        assert!(!on_510.contains("exchange"), "{on_510}");
        let old_tool = Xfs
            .mkfs_arguments(&plan(Version(5, 10, 223), Version(5, 9, 0)))
            .join(" ");
        assert!(!old_tool.contains("bigtime"), "{old_tool}");
        let new = Xfs
            .mkfs_arguments(&plan(Version(7, 2, 0), Version(6, 18, 0)))
            .join(" ");
        assert!(!new.contains("=0"), "{new}");
    }

    #[test]
    fn a_profiles_feature_is_given_once_and_overrules() {
        let profile = |name| PROFILES.iter().find(|p| p.name == name).unwrap();
        let words = |name, kernel| {
            Xfs.mkfs_arguments(&MkfsPlan {
                profile: profile(name),
                kernel,
                tool: Version(6, 12, 0),
                size: 320 * MIB,
            })
            .join(" ")
        };
        let exchange = words("exchange", Version(6, 11, 0));
        assert!(exchange.contains("-i exchange=1"), "{exchange}");
        assert!(!exchange.contains("exchange=0"), "{exchange}");
        assert!(words("noreflink", Version(6, 12, 0)).contains("-m reflink=0"));
        assert!(words("1k", Version(6, 12, 0)).contains("-b size=1024"));
    }

    #[test]
    fn exchange_needs_its_kernel_and_its_mkfs() {
        let skip = |tool, kernel| match exchange_is_possible(tool, kernel) {
            Err(SetUpError::Skipped { reason, hint }) => format!("{reason}: {}", hint.unwrap()),
            other => panic!("{other:?}"),
        };
        let old_tool = skip(Version(6, 1, 0), Version(6, 18, 0));
        assert!(
            old_tool.contains("mkfs.xfs 6.1.0") && old_tool.contains("xfsprogs"),
            "{old_tool}"
        );
        let old_kernel = skip(Version(6, 13, 0), Version(6, 1, 0));
        assert!(old_kernel.contains("Linux 6.1.0"), "{old_kernel}");
        assert!(exchange_is_possible(Version(6, 10, 0), Version(6, 10, 0)).is_ok());
    }

    #[test]
    fn a_superblock_without_the_feature_is_not_the_profile() {
        let mut head = [0; 4096];
        head[..4].copy_from_slice(b"XFSB");
        let profile = |name| PROFILES.iter().find(|p| p.name == name).unwrap();
        assert!(prove(profile("noreflink"), &head).is_ok());
        assert!(prove(profile("exchange"), &head).is_err());
        head[RO_COMPAT + 3] = 1 << 2;
        head[INCOMPAT + 3] = 1 << 6;
        assert!(prove(profile("exchange"), &head).is_ok());
        let error = prove(profile("noreflink"), &head).unwrap_err().to_string();
        assert!(
            error.contains("reflink=0") && error.contains("says 1"),
            "{error}"
        );
        head[0] = 0;
        assert!(prove(&BASE, &head).is_err());
    }
}
