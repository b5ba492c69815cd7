//! Ways of making one filesystem that lead through other code of it, as data: what mkfs and mount are told,
//! and what the mount must show afterwards. A profile that is not what it says would be a row of the table
//! that repeats another.

use std::io;
use std::path::Path;

use punchbench_sys::inode;

use crate::adapter::Adapter;
use crate::home::Home;

/// One way of making a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The word after the colon; empty for the base profile.
    pub name: &'static str,
    /// What is special about it, in one line.
    pub about: &'static str,
    /// The block size that mkfs is told and statfs(2) must show, where the filesystem has a device.
    pub block: u64,
    /// What is allocated and freed at a time: a block, or a cluster of them (ext4's bigalloc).
    pub unit: u64,
    /// Blocks of an allocation group, where mkfs is told so; 0 where it decides.
    pub group: u64,
    /// Features, in the words of the filesystem's mkfs.
    pub features: &'static [&'static str],
    /// Mount options beside the filesystem's own; mountinfo must show each.
    pub mount: &'static [&'static str],
}

/// The profile that a bare name means.
pub const BASE: Profile = Profile {
    name: "",
    about: "as mkfs makes it, with 4 KiB blocks",
    block: 4096,
    unit: 4096,
    group: 0,
    features: &[],
    mount: &[],
};

/// Blocks smaller than a page.
pub const ONE_K: Profile = Profile {
    name: "1k",
    about: "1 KiB blocks: several to a page, so a page can be partly freed",
    block: 1024,
    unit: 1024,
    ..BASE
};

impl Profile {
    /// Whether it is mounted so that files are mapped straight from persistent memory.
    pub fn is_dax(&self) -> bool {
        self.mount.contains(&"dax=always")
    }

    /// The data of mount(2): the filesystem's own options, then those of the profile.
    pub(crate) fn mount_data(&self, own: &str) -> String {
        let own = Some(own).filter(|own| !own.is_empty());
        let words: Vec<&str> = own.into_iter().chain(self.mount.iter().copied()).collect();
        words.join(",")
    }
}

/// Why a mount is not taken for its profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It shows something else.
    #[error("the profile means {wanted}, but {seen}")]
    NotSo {
        /// What the profile says.
        wanted: String,
        /// What was seen instead, and where.
        seen: String,
    },
    /// The kernel does not give it here and now.
    #[error("{reason}")]
    Refused {
        /// What was not given.
        reason: String,
        /// What would help.
        hint: String,
    },
    /// It could not be looked at.
    #[error("cannot {what} to see whether the profile is what it says: {error}")]
    Io {
        /// The step.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

impl ProfileError {
    pub(crate) fn not_so(wanted: impl Into<String>, seen: impl Into<String>) -> Self {
        ProfileError::NotSo {
            wanted: wanted.into(),
            seen: seen.into(),
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> ProfileError {
        move |error| ProfileError::Io { what, error }
    }
}

/// A mount, as far as it tells its profile.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Where it is mounted.
    pub dir: &'a Path,
    /// The block size, of statfs(2).
    pub block: u64,
    /// The filesystem's options, of mountinfo.
    pub options: &'a str,
    pub(crate) home: &'a Home,
}

impl Seen<'_> {
    /// Looks for all that a profile says; gives a line for the record if there is more than that to tell.
    pub(crate) fn prove(
        &self,
        adapter: &dyn Adapter,
        profile: &Profile,
    ) -> Result<Option<String>, ProfileError> {
        if self.home.device().is_some() && self.block != profile.block {
            return Err(ProfileError::not_so(
                format!("blocks of {} bytes", profile.block),
                format!("statfs says {}", self.block),
            ));
        }
        let shown = |option: &&str| self.options.split(',').any(|word| word == *option);
        if let Some(option) = profile.mount.iter().find(|option| !shown(option)) {
            return Err(ProfileError::not_so(
                format!("the mount option {option}"),
                format!("mountinfo says {}", self.options),
            ));
        }
        let line = adapter.prove(profile, self)?;
        if !profile.is_dax() {
            return Ok(line);
        }
        let dax = tempfile::tempfile_in(self.dir)
            .and_then(inode::is_dax)
            .map_err(ProfileError::io("ask a new file whether it is DAX"))?;
        if dax {
            Ok(Some("DAX: statx says so of a new file".to_owned()))
        } else {
            Err(ProfileError::not_so(
                "files without a page cache (STATX_ATTR_DAX)",
                "statx does not say so of a new file",
            ))
        }
    }

    /// The beginning of the medium, where ext4 and xfs keep a superblock; their feature bits change only by
    /// tools, so what mkfs wrote is what the mount goes by.
    pub fn head(&self) -> Result<[u8; 4096], ProfileError> {
        let mut head = [0; 4096];
        let read = self.home.read_at(0, &mut head);
        read.unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))
            .map_err(ProfileError::io("read the superblock"))?;
        Ok(head)
    }

    /// Holds that a new file has a flag (`true`) or lacks it.
    pub fn new_file_has(&self, flag: u32, has: bool) -> Result<(), ProfileError> {
        let flags = tempfile::tempfile_in(self.dir)
            .and_then(inode::flags)
            .map_err(ProfileError::io("ask a new file for its flags"))?;
        if (flags & flag != 0) == has {
            return Ok(());
        }
        Err(ProfileError::not_so(
            format!(
                "new files {} the flag {flag:#x}",
                if has { "with" } else { "without" }
            ),
            format!("FS_IOC_GETFLAGS says {flags:#x}"),
        ))
    }
}
