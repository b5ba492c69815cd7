//! One file a filesystem.

pub mod bdev;
pub mod btrfs;
pub mod dir;
pub mod ext2;
pub mod ext3;
pub mod ext4;
pub mod f2fs;
pub mod fuse;
pub mod gfs2;
mod mke2fs;
mod mkntfs;
pub mod ntfs;
pub mod ntfs3;
pub mod ocfs2;
pub mod overlay;
pub mod tmpfs;
pub mod xfs;
pub mod zonefs;

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;
