//! Ranges that two files come to share or exchange: dedupe, clone, exchange. Each is one ioctl with its request on the stack,
//! so actors may use them within a round.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use linux_raw_sys::general::{
    __IncompleteArrayField, file_clone_range, file_dedupe_range, file_dedupe_range_info,
};

/// The answer to a dedupe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deduped {
    /// The ranges were the same and now share blocks; `false`: they differed and nothing was done.
    pub same: bool,
    /// Bytes that now share blocks.
    pub bytes: u64,
}

/// ioctl(FIDEDUPERANGE) of one range of `file` into the same offsets of `into`.
pub fn dedupe(
    file: BorrowedFd<'_>,
    at: u64,
    len: u64,
    into: BorrowedFd<'_>,
) -> io::Result<Deduped> {
    /// A request with one destination.
    #[repr(C)]
    struct Request {
        head: file_dedupe_range,
        to: file_dedupe_range_info,
    }
    let mut request = Request {
        head: file_dedupe_range {
            src_offset: at,
            src_length: len,
            dest_count: 1,
            reserved1: 0,
            reserved2: 0,
            info: __IncompleteArrayField::new(),
        },
        to: file_dedupe_range_info {
            dest_fd: i64::from(into.as_raw_fd()),
            dest_offset: at,
            bytes_deduped: 0,
            status: 0,
            reserved: 0,
        },
    };
    // SAFETY: the request is laid out as the kernel expects it, with as many destinations as it says.
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            linux_raw_sys::ioctl::FIDEDUPERANGE as libc::Ioctl,
            &mut request,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    match request.to.status {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        status => Ok(Deduped {
            same: status == 0,
            bytes: request.to.bytes_deduped,
        }),
    }
}

/// ioctl(FICLONERANGE): a range of `file` shares the blocks of the same offsets of `from` afterwards.
pub fn clone_range(
    file: BorrowedFd<'_>,
    at: u64,
    len: u64,
    from: BorrowedFd<'_>,
) -> io::Result<()> {
    let request = file_clone_range {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: at,
        src_length: len,
        dest_offset: at,
    };
    // SAFETY: FICLONERANGE reads one such structure from the pointer, which is a live local.
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            linux_raw_sys::ioctl::FICLONERANGE as libc::Ioctl,
            &raw const request,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `_IOW('X', 129, struct xfs_exchange_range)` of fs/xfs/libxfs/xfs_fs.h (Linux 6.10): missing from the
/// binding crates.
const XFS_IOC_EXCHANGE_RANGE: u32 = 0x4028_5881;

/// `struct xfs_exchange_range`; the ioctl goes to file 2.
#[repr(C)]
struct ExchangeRange {
    file1_fd: i32,
    pad: u32,
    file1_offset: u64,
    file2_offset: u64,
    length: u64,
    flags: u64,
}

// What the ioctl's number says of it.
const _: () = assert!(size_of::<ExchangeRange>() == 40);

/// ioctl(XFS_IOC_EXCHANGE_RANGE): `file` and `with` exchange the blocks of a range. Both must be open for
/// reading and writing and reach beyond the range.
pub fn exchange_range(
    file: BorrowedFd<'_>,
    at: u64,
    len: u64,
    with: BorrowedFd<'_>,
) -> io::Result<()> {
    let request = ExchangeRange {
        file1_fd: with.as_raw_fd(),
        pad: 0,
        file1_offset: at,
        file2_offset: at,
        length: len,
        flags: 0,
    };
    // SAFETY: XFS_IOC_EXCHANGE_RANGE reads one such structure from the pointer, which is a live local.
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            XFS_IOC_EXCHANGE_RANGE as libc::Ioctl,
            &raw const request,
        )
    };
    match rc {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
