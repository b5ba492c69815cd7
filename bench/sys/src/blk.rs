//! Block devices and the filesystems on them: sizes, buffers, the discard limit, freezing and shutting
//! down. What is written here is written to a device or a mount of punchbench's own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use linux_raw_sys::ioctl::{
    BLKDISCARD, BLKFLSBUF, BLKGETSIZE64, BLKROGET, BLKSSZGET, BLKZEROOUT, FIFREEZE, FITHAW,
};

/// FS_IOC_SHUTDOWN of include/uapi/linux/fs.h, `_IOR('X', 125, __u32)`: missing from the binding crates.
const FS_IOC_SHUTDOWN: u32 = 0x8004_587d;

/// FS_SHUTDOWN_FLAGS_NOLOGFLUSH: stop at once, flush nothing.
const SHUTDOWN_NOLOGFLUSH: u32 = 2;

/// Drops the buffer cache of a block device (BLKFLSBUF).
pub fn flush_buffers(device: impl AsFd) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument; the descriptor is open for the whole call.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKFLSBUF as libc::Ioctl, 0) })
}

/// The logical block size of a block device in bytes (BLKSSZGET).
pub fn logical_block_size(device: impl AsFd) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the pointer, which is a live local.
    check(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            BLKSSZGET as libc::Ioctl,
            &raw mut size,
        )
    })?;
    Ok(size.unsigned_abs())
}

/// The size of a block device in bytes (BLKGETSIZE64).
pub fn size(device: impl AsFd) -> io::Result<u64> {
    let mut size: u64 = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to the pointer, which is a live local.
    check(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            BLKGETSIZE64 as libc::Ioctl,
            &raw mut size,
        )
    })?;
    Ok(size)
}

/// Whether a block device is read-only (BLKROGET).
pub fn read_only(device: impl AsFd) -> io::Result<bool> {
    let mut flag: libc::c_int = 0;
    // SAFETY: BLKROGET writes one int to the pointer, which is a live local.
    check(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            BLKROGET as libc::Ioctl,
            &raw mut flag,
        )
    })?;
    Ok(flag != 0)
}

/// Zeroes a range of a block device (BLKZEROOUT), in multiples of 512 bytes; ENOTTY on a file.
pub fn zero_out(device: impl AsFd, at: u64, len: u64) -> io::Result<()> {
    on_range(device, BLKZEROOUT, at, len)
}

/// Discards a range of a block device (BLKDISCARD), in multiples of its logical block; ENOTTY on a file,
/// EOPNOTSUPP where it discards nothing.
pub fn discard(device: impl AsFd, at: u64, len: u64) -> io::Result<()> {
    on_range(device, BLKDISCARD, at, len)
}

/// BLKZEROOUT or BLKDISCARD.
fn on_range(device: impl AsFd, request: u32, at: u64, len: u64) -> io::Result<()> {
    let range = [at, len];
    // SAFETY: both read two u64, start and length, from the pointer, which is a live local.
    check(unsafe {
        libc::ioctl(
            device.as_fd().as_raw_fd(),
            request as libc::Ioctl,
            &raw const range,
        )
    })
}

/// Freezes the filesystem that the descriptor is on (FIFREEZE).
pub fn freeze(on: impl AsFd) -> io::Result<()> {
    // SAFETY: FIFREEZE ignores its argument.
    check(unsafe { libc::ioctl(on.as_fd().as_raw_fd(), FIFREEZE as libc::Ioctl, 0) })
}

/// Thaws the filesystem that the descriptor is on (FITHAW); EINVAL if it is not frozen.
pub fn thaw(on: impl AsFd) -> io::Result<()> {
    // SAFETY: FITHAW ignores its argument.
    check(unsafe { libc::ioctl(on.as_fd().as_raw_fd(), FITHAW as libc::Ioctl, 0) })
}

/// Makes the filesystem that the descriptor is on fail all further I/O (FS_IOC_SHUTDOWN), so that whoever
/// hangs in it comes back with an error. ext4, xfs and f2fs know it.
pub fn shutdown(on: impl AsFd) -> io::Result<()> {
    let flags = SHUTDOWN_NOLOGFLUSH;
    // SAFETY: FS_IOC_SHUTDOWN reads one u32 from the pointer, which is a live local.
    check(unsafe {
        libc::ioctl(
            on.as_fd().as_raw_fd(),
            FS_IOC_SHUTDOWN as libc::Ioctl,
            &raw const flags,
        )
    })
}

/// The most bytes that one discard of this device may cover, from its queue in sysfs; 0 means that the
/// device discards nothing. `name` is the kernel's, such as `loop3`.
pub fn discard_limit(name: &str) -> io::Result<u64> {
    read_limit(name, "discard_max_bytes")
}

/// The most that [`set_discard_limit`] can set it to.
pub fn discard_hardware_limit(name: &str) -> io::Result<u64> {
    read_limit(name, "discard_max_hw_bytes")
}

/// Sets the limit of [`discard_limit`]; the kernel caps it at [`discard_hardware_limit`].
pub fn set_discard_limit(name: &str, bytes: u64) -> io::Result<()> {
    // A limit that is no multiple of the granularity is refused, though it may well be the one that was read.
    let granularity = read_limit(name, "discard_granularity")?.max(1);
    let bytes = bytes.next_multiple_of(granularity);
    fs::write(queue(name).join("discard_max_bytes"), bytes.to_string())
}

fn read_limit(name: &str, file: &str) -> io::Result<u64> {
    let text = fs::read_to_string(queue(name).join(file))?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{file} of {name} reads {text:?}"),
        )
    })
}

fn queue(name: &str) -> PathBuf {
    PathBuf::from("/sys/block").join(name).join("queue")
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
