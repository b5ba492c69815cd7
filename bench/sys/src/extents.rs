//! Where a file's data lies on its device: FS_IOC_FIEMAP.
//!
//! It fills ext4's extent status and takes no lock there through 6.12, so ask only before a round or
//! after its judgement. On btrfs the addresses are logical, which is as good for comparing.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A piece of a file on its device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub at: u64,
    /// Offset on the device.
    pub device: u64,
    /// Length.
    pub len: u64,
}

// linux/fiemap.h
const FLAG_SYNC: u32 = 0x1;
const EXTENT_LAST: u32 = 0x1;
const EXTENT_UNKNOWN: u32 = 0x2;
const EXTENT_DELALLOC: u32 = 0x4;
const EXTENT_DATA_INLINE: u32 = 0x200;

const BATCH: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
    extents: [RawExtent; BATCH],
}

// What FS_IOC_FIEMAP's number says of the head's size, and linux/fiemap.h of the extent's.
const _: () = assert!(size_of::<Request>() == 32 + BATCH * 56);

impl Request {
    fn new(range: Range<u64>, flags: u32) -> Request {
        Request {
            start: range.start,
            length: range.end - range.start,
            flags,
            mapped_extents: 0,
            extent_count: BATCH as u32,
            reserved: 0,
            extents: [RawExtent::default(); BATCH],
        }
    }

    fn ask(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the request is laid out as linux/fiemap.h says and has room for as many extents as it
        // says.
        let rc = unsafe {
            libc::ioctl(
                file.as_raw_fd(),
                linux_raw_sys::ioctl::FS_IOC_FIEMAP as libc::Ioctl,
                self,
            )
        };
        match rc {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// One FS_IOC_FIEMAP of `range` without a flag, for what it does to the filesystem's cached mapping: how
/// many extents it told, of the most that one call has room for. Allocates nothing.
pub fn look_up(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<u64> {
    let mut request = Request::new(range, 0);
    request.ask(file)?;
    Ok(request.mapped_extents.into())
}

/// The extents of `range` that have an address on the device, clipped to it; `None` where the filesystem
/// has no FIEMAP. Dirty data is written back first, so that it has an address.
pub fn extents(file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Option<Vec<Extent>>> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let mut request = Request::new(at..range.end, FLAG_SYNC);
        let asked = request.ask(file);
        if let Err(error) = asked {
            return match error.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::ENOTTY) => Ok(None),
                _ => Err(error),
            };
        }
        let batch = &request.extents[..BATCH.min(request.mapped_extents as usize)];
        found.extend(batch.iter().filter_map(|extent| clip(extent, &range)));
        match batch.last() {
            Some(last) if last.flags & EXTENT_LAST == 0 && last.logical + last.length > at => {
                at = last.logical + last.length;
            }
            _ => break,
        }
    }
    Ok(Some(found))
}

fn clip(extent: &RawExtent, range: &Range<u64>) -> Option<Extent> {
    let start = extent.logical.max(range.start);
    let end = extent.logical.saturating_add(extent.length).min(range.end);
    if start >= end || extent.flags & (EXTENT_UNKNOWN | EXTENT_DELALLOC | EXTENT_DATA_INLINE) != 0 {
        return None;
    }
    Some(Extent {
        at: start,
        device: extent.physical + (start - extent.logical),
        len: end - start,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_to_the_range_and_skips_what_has_no_address() {
        let raw = |logical, physical, length, flags| RawExtent {
            logical,
            physical,
            length,
            flags,
            ..RawExtent::default()
        };
        assert_eq!(
            clip(&raw(0, 1 << 20, 65536, 0), &(4096..8192)),
            Some(Extent {
                at: 4096,
                device: (1 << 20) + 4096,
                len: 4096
            })
        );
        assert_eq!(clip(&raw(0, 1 << 20, 4096, 0), &(4096..8192)), None);
        for flag in [EXTENT_UNKNOWN, EXTENT_DELALLOC, EXTENT_DATA_INLINE] {
            assert_eq!(clip(&raw(4096, 1 << 20, 4096, flag), &(4096..8192)), None);
        }
    }
}
