//! What punchbench must know of a filesystem, behind one trait. Adding a filesystem is one file in
//! `adapters/` and one line in [`ADAPTERS`].

use std::fmt::{self, Debug};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::adapters::{
    bdev, btrfs, dir, ext2, ext3, ext4, f2fs, fuse, gfs2, ntfs, ntfs3, ocfs2, overlay, tmpfs, xfs,
    zonefs,
};
use crate::fsck::FsckResult;
use crate::hold::Holder;
use crate::pmem;
use crate::profile::{BASE, Profile, ProfileError, Seen};
use crate::reuse::Reuse;
use crate::set_up::{SetUp, SetUpError};
use crate::tools::{Tool, ToolOutput, Version};

/// Every filesystem, in the order of the tables.
pub static ADAPTERS: &[&dyn Adapter] = &[
    &ext4::Ext4,
    &ext3::Ext3,
    &ext2::Ext2,
    &xfs::Xfs,
    &btrfs::Btrfs,
    &f2fs::F2fs,
    &gfs2::Gfs2,
    &ocfs2::Ocfs2,
    &ntfs::Ntfs,
    &ntfs3::Ntfs3,
    &zonefs::Zonefs,
    &overlay::Overlay,
    &fuse::Fuse,
    &tmpfs::Tmpfs,
    &bdev::Bdev,
    &dir::Dir,
];

/// One filesystem.
pub trait Adapter: Debug + Sync {
    /// The name a user types, which is also the type given to mount(2).
    fn name(&self) -> &'static str;

    /// What can be mounted of it, the base profile first.
    fn profiles(&self) -> &'static [Profile] {
        &[BASE]
    }

    /// Drivers that may serve it, as the kernel names them; which one does is read from the mount.
    fn drivers(&self) -> &'static [&'static str];

    /// Where its files live.
    fn store(&self) -> Store<'_>;

    /// How a freed block of a profile gets a new owner, if `driver` serves it.
    fn reuse(&self, profile: &Profile, driver: &str) -> Reuse;

    /// What stands in the way of a profile, beside what every profile of the filesystem needs.
    fn check(&self, _profile: &Profile) -> Result<(), SetUpError> {
        Ok(())
    }

    /// Sees on the mount what is special about a profile, beyond the block size and mount options, which are
    /// looked at for every filesystem. Gives a line for the record.
    fn prove(&self, _profile: &Profile, _seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        Ok(None)
    }
}

/// Where the files of a filesystem live.
#[derive(Debug, Clone, Copy)]
pub enum Store<'a> {
    /// On a block device.
    Device(&'a dyn OnDevice),
    /// In the page cache alone: there is nothing to evict to.
    Memory,
    /// Each file is there from the beginning and as large as it is: a block device, a zone.
    Fixed(&'a dyn FixedFiles),
    /// In a directory of a filesystem that somebody else mounted.
    Directory,
    /// In another filesystem of ours.
    Stacked(&'a dyn Stacked),
}

/// How a filesystem lies over a directory of another.
pub trait Stacked: Debug + Sync {
    /// The filesystem below.
    fn below(&self, profile: &Profile) -> Target;

    /// Makes what it needs in the directory below, and says how it is mounted there.
    fn over(&self, below: &Path) -> io::Result<Over>;

    /// Whether FIEMAP on it gives the addresses of the filesystem below.
    fn shows_addresses(&self) -> bool;
}

/// How files come about that cannot be made by opening them.
pub trait FixedFiles: Debug + Sync {
    /// The modules it takes on a kernel that has all of it as modules.
    fn modules(&self) -> &'static [&'static str];

    /// What stands in the way here.
    fn check(&self) -> Result<(), SetUpError>;

    /// Makes `name` in `dir` a file of at least `size` bytes.
    fn create(
        &self,
        dir: &Path,
        name: &str,
        size: u64,
        env: &SetUp<'_>,
    ) -> Result<Box<dyn FixedFile>, SetUpError>;
}

/// One of them; gone when dropped, its name included.
pub trait FixedFile: Debug {
    /// The kernel's name for the device that holds it, such as `loop3`.
    fn device(&self) -> String;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// What it is, in words for the record.
    fn about(&self) -> String;

    /// What holds chosen I/O of the device, by the file's own offsets, if it was set up so.
    fn holder(&self) -> Option<&dyn Holder> {
        None
    }
}

/// A mount over a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// The options of mount(2).
    pub data: String,
    /// The directory that a server of ours passes on, if it takes one.
    pub served: Option<PathBuf>,
}

/// How a filesystem is put on a device, mounted and checked.
pub trait OnDevice: Debug + Sync {
    /// What makes it.
    fn mkfs_tool(&self) -> Tool;

    /// The arguments of mkfs before the device: no discard, nothing lazy, and no feature that
    /// `plan.kernel` does not know or `plan.tool` cannot name.
    fn mkfs_arguments(&self, plan: &MkfsPlan) -> Vec<String>;

    /// The arguments of mkfs after the device.
    fn mkfs_trailing(&self, _plan: &MkfsPlan) -> Vec<String> {
        Vec::new()
    }

    /// The filesystem's own mount options: no discard. (noatime is everyone's, the profile's are added.)
    fn mount_data(&self) -> &'static str {
        "nodiscard"
    }

    /// What checks it.
    fn fsck_tool(&self) -> Tool;

    /// The arguments of fsck before the device; it must not change anything.
    fn fsck_arguments(&self) -> &'static [&'static str];

    /// What the end of fsck means. An operational failure is `NotRun`, never damage.
    fn judge_fsck(&self, output: &ToolOutput) -> FsckResult;

    /// The least a device must hold, with room for the scenarios' files.
    fn minimum_size(&self) -> u64;

    /// The parts of the device to which it writes what commits a transaction, for holding that up; `None` if
    /// it has none or does not say where. `read` reads the device, in multiples of 4096 bytes.
    fn commit_area(&self, _read: ReadDevice<'_>) -> io::Result<Option<Vec<Range<u64>>>> {
        Ok(None)
    }

    /// What FIEMAP's addresses are on it.
    fn addresses(&self, _profile: &Profile) -> Addresses {
        Addresses::Device
    }
}

/// Reads a device at an offset; both it and the length are multiples of 4096.
pub type ReadDevice<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// The first block of a device, with every filesystem's superblock but that of Btrfs.
pub(crate) fn head(read: ReadDevice<'_>) -> io::Result<[u8; 4096]> {
    let mut head = [0; 4096];
    read(0, &mut head)?;
    Ok(head)
}

/// What mkfs is asked for.
#[derive(Debug, Clone, Copy)]
pub struct MkfsPlan {
    /// Which profile.
    pub profile: &'static Profile,
    /// The kernel that will mount it.
    pub kernel: Version,
    /// The version of the mkfs tool.
    pub tool: Version,
    /// How many bytes of the device to use.
    pub size: u64,
}

/// What the addresses that FIEMAP gives are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Bytes from the start of the device: the block can be read there.
    Device,
    /// Addresses within the filesystem: they tell blocks apart, and nothing more.
    Logical,
    /// There are none.
    None,
}

/// A filesystem profile that trials run on.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The filesystem.
    pub adapter: &'static dyn Adapter,
    /// How it is made.
    pub profile: &'static Profile,
}

/// A name that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No such filesystem.
    #[error("there is no filesystem `{name}`; did you mean `{nearest}`? There are: {all}")]
    UnknownFilesystem {
        /// What was typed.
        name: String,
        /// The nearest known word.
        nearest: String,
        /// All of them.
        all: String,
    },
    /// No such profile.
    #[error("{filesystem} has no profile `{name}`; the nearest target is `{nearest}`")]
    UnknownProfile {
        /// The filesystem, which is known.
        filesystem: String,
        /// What was typed after the colon.
        name: String,
        /// The nearest target.
        nearest: String,
    },
}

impl Target {
    /// Every target, in the order of the tables; only base profiles unless `all_profiles`.
    pub fn all(all_profiles: bool) -> Vec<Target> {
        ADAPTERS
            .iter()
            .flat_map(|adapter| {
                let count = if all_profiles { usize::MAX } else { 1 };
                adapter.profiles().iter().take(count).map(|profile| Target {
                    adapter: *adapter,
                    profile,
                })
            })
            .collect()
    }

    /// Reads `ext4` or `ext4:1k`.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        let (name, profile) = text.split_once(':').unwrap_or((text, ""));
        let Some(adapter) = ADAPTERS.iter().find(|adapter| adapter.name() == name) else {
            let names: Vec<&str> = ADAPTERS.iter().map(|adapter| adapter.name()).collect();
            return Err(TargetError::UnknownFilesystem {
                name: name.to_owned(),
                nearest: nearest(name, names.iter().map(|n| (*n).to_owned())),
                all: names.join(", "),
            });
        };
        // `ext4:` is a typing error, not the base profile.
        let known = adapter
            .profiles()
            .iter()
            .find(|p| p.name == profile && !text.ends_with(':'));
        match known {
            Some(profile) => Ok(Target {
                adapter: *adapter,
                profile,
            }),
            None => Err(TargetError::UnknownProfile {
                filesystem: name.to_owned(),
                name: profile.to_owned(),
                nearest: nearest(
                    text,
                    adapter.profiles().iter().map(|profile| {
                        Target {
                            adapter: *adapter,
                            profile,
                        }
                        .to_string()
                    }),
                ),
            }),
        }
    }

    /// The tools it needs.
    pub fn tools(&self) -> Vec<Tool> {
        match self.adapter.store() {
            Store::Stacked(layer) => layer.below(self.profile).tools(),
            Store::Device(device) => vec![device.mkfs_tool(), device.fsck_tool()],
            Store::Memory | Store::Fixed(_) | Store::Directory => Vec::new(),
        }
    }

    /// Whether an image or a device is made for it.
    pub fn is_on_device(&self) -> bool {
        match self.adapter.store() {
            Store::Device(_) | Store::Stacked(_) => true,
            Store::Memory | Store::Fixed(_) | Store::Directory => false,
        }
    }

    /// The modules that it takes on a kernel that has all of it as modules.
    pub fn modules(&self) -> Vec<&'static str> {
        let own = self.adapter.drivers().iter().copied();
        match self.adapter.store() {
            Store::Device(_) if self.profile.is_dax() => own.chain(pmem::MODULES).collect(),
            Store::Device(_) => own.chain(["loop"]).collect(),
            Store::Stacked(layer) => own.chain(layer.below(self.profile).modules()).collect(),
            Store::Fixed(files) => files.modules().to_vec(),
            Store::Memory | Store::Directory => Vec::new(),
        }
    }
}

fn nearest(word: &str, known: impl Iterator<Item = String>) -> String {
    known
        .min_by_key(|candidate| strsim::damerau_levenshtein(word, candidate))
        .unwrap_or_default()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.profile.name.is_empty() {
            f.pad(self.adapter.name())
        } else {
            f.pad(&format!("{}:{}", self.adapter.name(), self.profile.name))
        }
    }
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        Target::parse(text)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.adapter.name() == other.adapter.name() && self.profile == other.profile
    }
}

impl Eq for Target {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_read_back_from_its_name() {
        for target in Target::all(true) {
            assert_eq!(Target::parse(&target.to_string()), Ok(target));
        }
    }

    #[test]
    fn the_base_profile_comes_first_and_bears_no_name() {
        for adapter in ADAPTERS {
            assert_eq!(adapter.profiles()[0].name, "");
        }
        assert_eq!(Target::all(false).len(), ADAPTERS.len());
    }

    #[test]
    fn wrong_names_get_the_nearest() {
        let error = Target::parse("btfrs").unwrap_err();
        assert!(
            matches!(&error, TargetError::UnknownFilesystem { nearest, .. } if nearest == "btrfs"),
            "{error}"
        );
        let error = Target::parse("ext4:2k").unwrap_err();
        assert!(
            matches!(&error, TargetError::UnknownProfile { nearest, .. } if nearest == "ext4:1k"),
            "{error}"
        );
        assert!(Target::parse("ext4:").is_err());
        assert!(Target::parse("").is_err());
    }
}
