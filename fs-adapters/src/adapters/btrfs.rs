//! Btrfs: copy on write, checksums, extents that are free only as a whole.

use punchbench_sys::inode;

use super::MIB;
use crate::adapter::{Adapter, Addresses, MkfsPlan, OnDevice, Store};
use crate::fsck::FsckResult;
use crate::profile::{BASE, Profile, ProfileError, Seen};
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{BTRFS, MKFS_BTRFS, Tool, ToolOutput, Version};

const PROFILES: &[Profile] = &[
    BASE,
    Profile {
        name: "nodatacow",
        about: "data is overwritten in place, without checksums: O_DIRECT is really direct",
        mount: &["nodatacow"],
        ..BASE
    },
];

/// The adapter.
#[derive(Debug)]
pub struct Btrfs;

impl Adapter for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["btrfs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // unpin_extent_range: pinned until the transaction commits, and the whole extent at once.
        Reuse::Plan(ReusePlan {
            commit: true,
            piecewise: true,
            fill: true,
            unit: 0,
        })
    }

    fn prove(&self, profile: &Profile, seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        let in_place = profile.mount.contains(&"nodatacow");
        seen.new_file_has(inode::NO_COPY_ON_WRITE, in_place)?;
        Ok(None)
    }
}

impl OnDevice for Btrfs {
    fn mkfs_tool(&self) -> Tool {
        MKFS_BTRFS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        // Metadata twice, as by default: the single chunk of 8 MiB that a small filesystem gets otherwise is
        // nearly all global reserve, and a filesystem full of data then refuses even an empty file.
        let mut words: Vec<String> = ["-f", "-q", "-K", "-d", "single", "-m", "dup", "-s"]
            .map(str::to_owned)
            .into();
        words.push(plan.profile.block.to_string());
        words.extend(["-b".to_owned(), plan.size.to_string()]);
        // Known to kernels from 6.1; to `-O` of the tool from 6.3, of which it is a default from 6.19.
        if plan.kernel < Version(6, 1, 0) && plan.tool >= Version(6, 3, 0) {
            words.extend(["-O".to_owned(), "^block-group-tree".to_owned()]);
        }
        words
    }

    fn mount_data(&self) -> &'static str {
        // Since 6.2 it switches discard=async on by itself.
        "nodiscard"
    }

    fn fsck_tool(&self) -> Tool {
        BTRFS
    }

    fn fsck_arguments(&self) -> &'static [&'static str] {
        &["check", "--readonly"]
    }

    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult {
        // btrfs check exits 1 whether it found damage or could not look.
        const NOT_LOOKED: [&str; 5] = [
            "could not check mount status",
            "is currently mounted",
            "unsupported option features",
            "cannot open device",
            "Cannot allocate memory",
        ];
        match output.status.code() {
            Some(0) => FsckResult::Clean,
            _ if NOT_LOOKED.iter().any(|text| output.text.contains(text)) => {
                FsckResult::NotRun(output.failure())
            }
            Some(1) => FsckResult::Damaged(output.text.clone()),
            _ => FsckResult::NotRun(output.failure()),
        }
    }

    fn minimum_size(&self) -> u64 {
        256 * MIB
    }

    fn addresses(&self, _profile: &Profile) -> Addresses {
        Addresses::Logical
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_newer_than_the_kernel_is_off_where_the_tool_knows_it() {
        let arguments = |kernel, tool| {
            let plan = MkfsPlan {
                profile: &BASE,
                kernel,
                tool,
                size: 320 * MIB,
            };
            Btrfs.mkfs_arguments(&plan).join(" ")
        };
        let (old, new) = (Version(5, 10, 262), Version(7, 2, 0));
        let off = "-O ^block-group-tree";
        assert!(arguments(old, Version(6, 19, 0)).ends_with(off));
        // Debian bookworm's refuses the word.
        assert!(!arguments(old, Version(6, 2, 0)).contains(off));
        assert!(!arguments(new, Version(6, 19, 0)).contains(off));
    }
}
