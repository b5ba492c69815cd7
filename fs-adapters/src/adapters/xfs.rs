//! XFS: reads take the IOLOCK, faults the MMAPLOCK, so it was safe before the others were.

use super::MIB;
use crate::adapter::{Adapter, Addresses, MkfsPlan, OnDevice, Profile, Store};
use crate::fsck::FsckResult;
use crate::reuse::{Reuse, ReusePlan};
use crate::tools::{MKFS_XFS, Tool, ToolOutput, Version, XFS_REPAIR};

/// The adapter.
#[derive(Debug)]
pub struct Xfs;

impl Adapter for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["xfs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Device(self)
    }

    fn reuse(&self, _driver: &str) -> Reuse {
        // xfs_extent_busy_trim: an extent is busy until the log that freed it is on disk.
        Reuse::Plan(ReusePlan {
            commit: true,
            ..ReusePlan::default()
        })
    }
}

impl OnDevice for Xfs {
    fn mkfs_tool(&self) -> Tool {
        MKFS_XFS
    }

    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String> {
        let mut words: Vec<String> = ["-f", "-q", "-K", "-b", "size=4096"]
            .map(str::to_owned)
            .into();
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
        for (option, feature, tool, kernel) in features {
            if plan.tool >= tool && plan.kernel < kernel {
                words.extend([option.to_owned(), feature.to_owned()]);
            }
        }
        words
    }

    fn mount_data(&self, _profile: &Profile) -> String {
        "nodiscard".to_owned()
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

    fn addresses(&self) -> Addresses {
        Addresses::Device
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::BASE;

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
}
