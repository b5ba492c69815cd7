//! What a filesystem says of one inode: FS_IOC_GETFLAGS, as lsattr(1) shows it (ioctl_iflags(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// FS_EXTENT_FL of include/uapi/linux/fs.h: the inode maps its blocks by extents.
pub const EXTENTS: u32 = 0x0008_0000;

/// FS_NOCOW_FL of include/uapi/linux/fs.h: data is overwritten in place.
pub const NO_COPY_ON_WRITE: u32 = 0x0080_0000;

/// The flags of an open file or directory.
pub fn flags(file: impl AsFd) -> io::Result<u32> {
    // Its number says a long, but every filesystem writes an int (ioctl_iflags(2), "Type of the argument").
    let mut flags: u32 = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int to the pointer, which is a live local.
    let rc = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            linux_raw_sys::ioctl::FS_IOC_GETFLAGS as libc::Ioctl,
            &raw mut flags,
        )
    };
    if rc == 0 {
        Ok(flags)
    } else {
        Err(io::Error::last_os_error())
    }
}
