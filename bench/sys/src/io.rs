//! Reads, read-ahead and direct I/O: the calls on open files that the safe crates lack. None of
//! them allocates, so actors may use them within a round; each is one system call, never repeated.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// preadv2(RWF_NOWAIT): data that is there, or EAGAIN.
pub fn read_nowait(file: BorrowedFd<'_>, at: u64, buf: &mut [u8]) -> io::Result<usize> {
    let iovec = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: the one iovec describes `buf`, which is ours to write for the length of the call.
    let got = unsafe { libc::preadv2(file.as_raw_fd(), &iovec, 1, offset(at)?, libc::RWF_NOWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// readahead(2).
pub fn readahead(file: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: takes numbers only.
    match unsafe { libc::readahead(file.as_raw_fd(), offset(at)?, len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// sync_file_range(2), all three steps: what is dirty in the range is written and waited for, and nothing else;
/// no metadata is committed.
pub fn write_back(file: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<()> {
    let len = offset(len)?;
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes numbers only.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset(at)?, len, all) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What statx(STATX_DIOALIGN) says about direct I/O on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectAlign {
    /// The kernel or the filesystem does not say.
    Unknown,
    /// There is no direct I/O on this file.
    None,
    /// Memory and offsets must be multiples of these.
    Align {
        /// Of the buffer's address.
        memory: u32,
        /// Of the offset and the length.
        offset: u32,
    },
}

/// Asks statx(STATX_DIOALIGN), Linux 6.1.
pub fn direct_align(file: BorrowedFd<'_>) -> io::Result<DirectAlign> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is an empty C string, with AT_EMPTY_PATH, and `stat` is ours to write.
    let rc = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &mut stat,
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(
        match (
            stat.stx_mask & libc::STATX_DIOALIGN,
            stat.stx_dio_offset_align,
        ) {
            (0, _) => DirectAlign::Unknown,
            (_, 0) => DirectAlign::None,
            (_, offset) => DirectAlign::Align {
                memory: stat.stx_dio_mem_align,
                offset,
            },
        },
    )
}

/// A buffer whose address is a multiple of what direct I/O may ask for.
#[derive(Debug)]
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes at a multiple of `align`, a power of two.
    pub fn new(len: usize, align: usize) -> AlignedBuf {
        let bytes = vec![0; len + align];
        let start = bytes.as_ptr().align_offset(align);
        AlignedBuf { bytes, start, len }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput.into())
}
