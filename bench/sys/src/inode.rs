//! What a whole inode says of itself and can be told: its flags, to journal its data, and to swap with the boot loader's. Nothing here
//! allocates, so actors may use it within a round.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use linux_raw_sys::general::FS_JOURNAL_DATA_FL;
use linux_raw_sys::ioctl::{
    EXT4_IOC_PRECACHE_EXTENTS, EXT4_IOC_SWAP_BOOT, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS,
};

/// Toggles FS_JOURNAL_DATA_FL and tells whether it is set now. Without a journal ext4 takes the flag without
/// effect: EOPNOTSUPP then, by reading it back. EPERM without CAP_SYS_RESOURCE.
pub fn toggle_journal_data(file: BorrowedFd<'_>) -> io::Result<bool> {
    let before = flags(file)?;
    set_flags(file, before ^ FS_JOURNAL_DATA_FL)?;
    let after = flags(file)?;
    match (before ^ after) & FS_JOURNAL_DATA_FL {
        0 => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        _ => Ok(after & FS_JOURNAL_DATA_FL != 0),
    }
}

/// Whether a file's pages are those of persistent memory itself, with no page cache between: STATX_ATTR_DAX
/// (statx(2), Linux 5.8).
pub fn is_dax(file: impl AsFd) -> io::Result<bool> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, with AT_EMPTY_PATH, and `stat` is ours to write.
    let rc = unsafe {
        libc::statx(
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_BASIC_STATS,
            &mut stat,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // A bit that the mask lacks is one that the filesystem does not tell of; this one the kernel tells for all.
    Ok(stat.stx_attributes & libc::STATX_ATTR_DAX as u64 != 0)
}

/// FS_EXTENT_FL of include/uapi/linux/fs.h: the inode maps its blocks by extents.
pub const EXTENTS: u32 = 0x0008_0000;

/// FS_NOCOW_FL of include/uapi/linux/fs.h: data is overwritten in place.
pub const NO_COPY_ON_WRITE: u32 = 0x0080_0000;

/// The flags of an open file or directory: FS_IOC_GETFLAGS, as lsattr(1) shows it (ioctl_iflags(2)).
pub fn flags(file: impl AsFd) -> io::Result<u32> {
    // Its number says a long, but every filesystem writes an int (ioctl_iflags(2), "Type of the argument").
    let mut flags: u32 = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int to the pointer, which is a live local.
    let rc = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            FS_IOC_GETFLAGS as libc::Ioctl,
            &raw mut flags,
        )
    };
    match rc {
        0 => Ok(flags),
        _ => Err(io::Error::last_os_error()),
    }
}

/// FS_IOC_SETFLAGS.
fn set_flags(file: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let flags = flags.cast_signed();
    // SAFETY: FS_IOC_SETFLAGS reads one int from the pointer, which is a live local.
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_SETFLAGS as libc::Ioctl,
            &raw const flags,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// EXT4_IOC_PRECACHE_EXTENTS: reads all of the file's extents into ext4's extent status (`ext4_ext_precache`).
pub fn precache_extents(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: EXT4_IOC_PRECACHE_EXTENTS takes no argument.
    match unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            EXT4_IOC_PRECACHE_EXTENTS as libc::Ioctl,
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// EXT4_IOC_SWAP_BOOT: the file and the boot loader's inode (number 5) exchange their blocks and sizes
/// (`swap_inode_boot_loader`). The first one on a filesystem leaves the file empty. Needs CAP_SYS_ADMIN.
pub fn swap_boot(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: EXT4_IOC_SWAP_BOOT takes no argument.
    match unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SWAP_BOOT as libc::Ioctl, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
