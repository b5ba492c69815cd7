//! Shared mappings of files: loads and stores whose SIGBUS is an outcome, advice, and which pages are in
//! the page cache.
//!
//! The memory of such a mapping is changed by other processes and by the kernel at any time, so it is
//! never lent out as a slice: every access is a volatile one, made exactly once and in ascending order,
//! in words of eight bytes where the address allows it.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering::SeqCst, fence};

use crate::sigbus::{self, Guard};

/// The machine's page size in bytes.
pub fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: sysconf takes a number and touches no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).unwrap_or(4096)
    })
}

/// What a mapping may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Loads only.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// What to tell the kernel about a range of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// MADV_WILLNEED: start reading.
    WillNeed,
    /// MADV_POPULATE_READ: fault everything in (Linux 5.14).
    PopulateRead,
    /// MADV_COLLAPSE: make the range's pages huge ones, and read in those that are absent (Linux 6.1).
    Collapse,
    /// MADV_DONTNEED: drop the page table entries; the file keeps its data.
    DontNeed,
}

/// How an access through a mapping ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Access {
    /// Bytes moved before the end or the SIGBUS.
    pub bytes: usize,
    /// 0, or why the access was not tried.
    pub errno: i32,
    /// SIGBUS was raised at the byte after these.
    pub sigbus: bool,
}

/// The size of a huge page (PMD_SIZE with 4 KiB pages): what MADV_COLLAPSE works on, at addresses of which
/// a mapping of so many bytes is placed.
pub const HUGE_PAGE: usize = 2 << 20;

/// A MAP_SHARED mapping of the head of a file, advised MADV_RANDOM; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    protection: Protection,
    // Offset of a page that still has to be mapped back to the file after a SIGBUS.
    replaced: Option<usize>,
}

// SAFETY: the mapping is plain memory of the process, owned by this value alone, and no method hands out
// a pointer into it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes (rounded up to pages), which may lie beyond the file's end. Installs the
    /// SIGBUS handler.
    pub fn new(file: BorrowedFd<'_>, len: u64, protection: Protection) -> io::Result<Mapping> {
        sigbus::install()?;
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len > 0)
            .and_then(|len| len.checked_next_multiple_of(page_size()))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let file = file.try_clone_to_owned()?;
        let base = if len < HUGE_PAGE {
            // SAFETY: a new mapping at an address of the kernel's choosing replaces nothing.
            unsafe { map_file(std::ptr::null_mut(), len, &file, 0, protection, 0) }?
        } else {
            let room = Room::new(len)?;
            // SAFETY: the aligned part lies within what was just reserved, and nobody else knows of it.
            let base =
                unsafe { map_file(room.aligned(), len, &file, 0, protection, libc::MAP_FIXED) }?;
            room.keep_aligned();
            base
        };
        let mapping = Mapping {
            base,
            len,
            file,
            protection,
            replaced: None,
        };
        mapping.madvise(0..len, libc::MADV_RANDOM)?;
        Ok(mapping)
    }

    /// Copies the bytes from `at` on into `into`.
    pub fn load(&mut self, at: u64, into: &mut [u8]) -> Access {
        let len = into.len();
        self.access(at, len, |from, range| {
            // SAFETY: `access` gives a pointer to as many bytes of the mapping as the range has.
            unsafe { load(from, &mut into[range]) }
        })
    }

    /// Copies `from` to the bytes from `at` on, then a full fence: the stores are globally visible when
    /// this returns.
    pub fn store(&mut self, at: u64, from: &[u8]) -> Access {
        if self.protection == Protection::Read {
            return Access {
                errno: libc::EACCES,
                ..Access::default()
            };
        }
        let done = self.access(at, from.len(), |to, range| {
            // SAFETY: `access` gives a pointer to as many bytes of the mapping as the range has, and the
            // mapping is writable.
            unsafe { store(to, &from[range]) }
        });
        fence(SeqCst);
        done
    }

    /// pread(2) of `len` bytes at `at` of `from` into the same offsets of the mapping, which must be
    /// writable. Where the kernel cannot fault a page of it in, the read ends short or with EFAULT: no
    /// SIGBUS.
    pub fn read_from(&mut self, from: BorrowedFd<'_>, at: u64, len: u64) -> io::Result<usize> {
        if self.protection == Protection::Read {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        let end = at
            .checked_add(len)
            .and_then(|end| usize::try_from(end).ok());
        let (Some(_), Ok(start), Ok(len), Ok(offset)) = (
            end.filter(|end| *end <= self.len),
            usize::try_from(at),
            usize::try_from(len),
            libc::off_t::try_from(at),
        ) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.restore()?;
        // SAFETY: the bytes lie within the mapping, are writable, and nothing holds a reference into them.
        let got = unsafe {
            let buf = self.base.as_ptr().add(start);
            libc::pread(from.as_raw_fd(), buf.cast(), len, offset)
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Which pages of `range` (widened to pages) are in the page cache, one entry a page. Touches none.
    /// The kernel answers truly only to the file's owner or to one who may write it.
    pub fn resident(&self, range: Range<u64>, pages: &mut [bool]) -> io::Result<()> {
        let range = self.widen(range)?;
        let page = page_size();
        if pages.len() < range.len() / page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut vec = [0u8; 256];
        let mut at = range.start;
        for pages in pages[..range.len() / page].chunks_mut(vec.len()) {
            // SAFETY: the pages lie within the mapping (`widen`), and `vec` has a byte for each.
            let rc = unsafe {
                libc::mincore(
                    self.base.as_ptr().add(at).cast(),
                    pages.len() * page,
                    vec.as_mut_ptr(),
                )
            };
            if rc != 0 {
                return Err(io::Error::last_os_error());
            }
            for (present, byte) in pages.iter_mut().zip(vec) {
                *present = byte & 1 != 0;
            }
            at += pages.len() * page;
        }
        Ok(())
    }

    /// Whether any page of `range` is in the page cache.
    pub fn any_resident(&self, range: Range<u64>) -> io::Result<bool> {
        let mut pages = [false; 256];
        let step = (pages.len() * page_size()) as u64;
        let mut at = range.start - range.start % page_size() as u64;
        while at < range.end {
            let end = range.end.min(at + step);
            let count = (end - at).div_ceil(page_size() as u64) as usize;
            self.resident(at..end, &mut pages[..count])?;
            if pages[..count].contains(&true) {
                return Ok(true);
            }
            at = end;
        }
        Ok(false)
    }

    /// madvise(2) on `range`, widened to pages.
    pub fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        let advice = match advice {
            Advice::WillNeed => libc::MADV_WILLNEED,
            Advice::PopulateRead => libc::MADV_POPULATE_READ,
            // The crate libc has it for glibc only.
            Advice::Collapse => linux_raw_sys::general::MADV_COLLAPSE as libc::c_int,
            Advice::DontNeed => libc::MADV_DONTNEED,
        };
        self.madvise(self.widen(range)?, advice)
    }

    fn madvise(&self, range: Range<usize>, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range lies within the mapping; none of the advices used changes what the file's
        // pages hold, and nothing holds a reference into them.
        let rc = unsafe {
            libc::madvise(
                self.base.as_ptr().add(range.start).cast(),
                range.len(),
                advice,
            )
        };
        if rc == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// `range` widened to whole pages, if it lies within the mapping.
    fn widen(&self, range: Range<u64>) -> io::Result<Range<usize>> {
        let page = page_size();
        let start = usize::try_from(range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = usize::try_from(range.end)
            .ok()
            .and_then(|end| end.checked_next_multiple_of(page))
            .filter(|end| *end <= self.len && start < *end)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(start - start % page..end)
    }

    /// Runs `piece` over `len` bytes from `at`, page by page, until the end or a SIGBUS.
    fn access(
        &mut self,
        at: u64,
        len: usize,
        mut piece: impl FnMut(*mut u8, Range<usize>),
    ) -> Access {
        let Some(at) = usize::try_from(at)
            .ok()
            .filter(|at| at.checked_add(len).is_some_and(|end| end <= self.len))
        else {
            return Access {
                errno: libc::EFAULT,
                ..Access::default()
            };
        };
        if let Err(error) = self.restore() {
            return Access {
                errno: error.raw_os_error().unwrap_or(libc::ENOMEM),
                ..Access::default()
            };
        }
        let page = page_size();
        let base = self.base.as_ptr() as usize;
        let guard = Guard::arm(&(base..base + self.len), page);
        let mut done = 0;
        while done < len {
            let here = at + done;
            let end = len.min(done + page - here % page);
            // SAFETY: `here` is below `self.len`, so the pointer stays within the mapping.
            piece(unsafe { self.base.as_ptr().add(here) }, done..end);
            if let Some(address) = guard.hit() {
                let hit = address - base;
                self.replaced = Some(hit - hit % page);
                drop(guard);
                // Some machines report the page only, hence not below what was already done.
                let bytes = hit.saturating_sub(at).clamp(done, end);
                // If this fails, the next access tries again before it touches anything.
                let _ = self.restore();
                return Access {
                    bytes,
                    errno: 0,
                    sigbus: true,
                };
            }
            done = end;
        }
        Access {
            bytes: len,
            ..Access::default()
        }
    }

    /// Maps the file back where the SIGBUS handler put an anonymous page.
    fn restore(&mut self) -> io::Result<()> {
        let Some(at) = self.replaced else {
            return Ok(());
        };
        let page = page_size();
        // SAFETY: MAP_FIXED replaces one page of this mapping, to which nothing holds a reference.
        unsafe {
            map_file(
                self.base.as_ptr().add(at),
                page,
                &self.file,
                at,
                self.protection,
                libc::MAP_FIXED,
            )
        }?;
        self.madvise(at..at + page, libc::MADV_RANDOM)?;
        self.replaced = None;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own and no pointer into it is left.
        let rc = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(rc, 0, "unmapping what was mapped cannot fail");
    }
}

impl AsFd for Mapping {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Addresses that hold nothing, a huge page more of them than are asked for; given back when dropped.
struct Room {
    base: NonNull<u8>,
    len: usize,
}

impl Room {
    /// Reserves room for `len` bytes, whole pages, that begin where a huge page may.
    fn new(len: usize) -> io::Result<Room> {
        let whole = len
            .checked_add(HUGE_PAGE)
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choosing replaces nothing.
        let got = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(got.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Room { base, len })
    }

    /// The first address in it at which a huge page may begin.
    fn aligned(&self) -> *mut u8 {
        let base = self.base.as_ptr();
        base.wrapping_add(base.align_offset(HUGE_PAGE))
    }

    /// Gives back what is before and behind the `len` bytes from [`Room::aligned`] on.
    fn keep_aligned(self) {
        let before = self.aligned() as usize - self.base.as_ptr() as usize;
        let behind = self.aligned().wrapping_add(self.len);
        unmap(self.base.as_ptr(), before);
        unmap(behind, HUGE_PAGE - before);
        std::mem::forget(self);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        unmap(self.base.as_ptr(), self.len + HUGE_PAGE);
    }
}

/// Gives back reserved addresses that nothing is at.
fn unmap(at: *mut u8, len: usize) {
    if len > 0 {
        // SAFETY: only `Room` calls this, with parts of its own reservation that hold nothing.
        let rc = unsafe { libc::munmap(at.cast(), len) };
        debug_assert_eq!(rc, 0, "unmapping what was reserved cannot fail");
    }
}

/// # Safety
/// With MAP_FIXED in `flags`, `len` bytes at `address` must be a mapping of the caller's own that nothing
/// holds a reference into.
unsafe fn map_file(
    address: *mut u8,
    len: usize,
    file: &OwnedFd,
    offset: usize,
    protection: Protection,
    flags: libc::c_int,
) -> io::Result<NonNull<u8>> {
    let protection = match protection {
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    };
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: as promised by the caller.
    let got = unsafe {
        libc::mmap(
            address.cast(),
            len,
            protection,
            libc::MAP_SHARED | flags,
            file.as_raw_fd(),
            offset,
        )
    };
    if got == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(got.cast()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

const WORD: usize = size_of::<u64>();

/// # Safety
/// `from` must point to at least `into.len()` mapped, readable bytes.
unsafe fn load(mut from: *const u8, into: &mut [u8]) {
    let head = from.align_offset(WORD).min(into.len());
    let (head, rest) = into.split_at_mut(head);
    let mut words = rest.chunks_exact_mut(WORD);
    // SAFETY: the pointer advances over exactly `into.len()` bytes and is aligned where words are read.
    unsafe {
        for byte in head {
            *byte = from.read_volatile();
            from = from.add(1);
        }
        for word in &mut words {
            word.copy_from_slice(&from.cast::<u64>().read_volatile().to_ne_bytes());
            from = from.add(WORD);
        }
        for byte in words.into_remainder() {
            *byte = from.read_volatile();
            from = from.add(1);
        }
    }
}

/// # Safety
/// `to` must point to at least `from.len()` mapped, writable bytes.
unsafe fn store(mut to: *mut u8, from: &[u8]) {
    let head = to.align_offset(WORD).min(from.len());
    let (head, rest) = from.split_at(head);
    let words = rest.chunks_exact(WORD);
    let tail = words.remainder();
    // SAFETY: the pointer advances over exactly `from.len()` bytes and is aligned where words are written.
    unsafe {
        for byte in head {
            to.write_volatile(*byte);
            to = to.add(1);
        }
        for word in words {
            let mut bytes = [0; WORD];
            bytes.copy_from_slice(word);
            to.cast::<u64>().write_volatile(u64::from_ne_bytes(bytes));
            to = to.add(WORD);
        }
        for byte in tail {
            to.write_volatile(*byte);
            to = to.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Exit, fork};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    fn empty() -> Mapping {
        let file = memfd_create(c"test", MFdFlags::empty()).unwrap();
        Mapping::new(file.as_fd(), 3, Protection::ReadWrite).unwrap()
    }

    #[test]
    fn what_may_hold_a_huge_page_begins_where_one_may() {
        let file = memfd_create(c"test", MFdFlags::empty()).unwrap();
        let len = HUGE_PAGE as u64 + 1;
        // More than one, since by luck one may be aligned anyway.
        let maps: Vec<Mapping> =
            std::iter::repeat_with(|| Mapping::new(file.as_fd(), len, Protection::Read).unwrap())
                .take(4)
                .collect();
        for map in &maps {
            assert_eq!(map.base.as_ptr() as usize % HUGE_PAGE, 0);
            assert_eq!(map.len, HUGE_PAGE + page_size());
        }
    }

    #[test]
    fn words_and_odd_bytes_are_loaded_and_stored_alike() {
        let mut mapping = empty();
        nix::unistd::ftruncate(&mapping, page_size() as i64).unwrap();
        let bytes: Vec<u8> = (1..=40).collect();
        for at in 0..9 {
            for len in 0..bytes.len() {
                let mut got = vec![0; len];
                let done = mapping.store(at, &bytes[..len]);
                assert_eq!((done.bytes, done.errno, done.sigbus), (len, 0, false));
                assert_eq!(mapping.load(at, &mut got).bytes, len);
                assert_eq!(got, bytes[..len], "at {at}");
            }
        }
    }

    #[test]
    fn an_access_outside_the_mapping_is_refused() {
        let mut mapping = empty();
        let end = page_size() as u64;
        assert_eq!(mapping.load(end - 1, &mut [0; 2]).errno, libc::EFAULT);
        assert_eq!(mapping.load(u64::MAX, &mut [0; 2]).errno, libc::EFAULT);
        assert!(mapping.advise(0..end + 1, Advice::WillNeed).is_err());
        assert!(mapping.resident(0..end + 1, &mut [false; 2]).is_err());
        assert!(mapping.resident(0..end, &mut []).is_err());
    }

    #[test]
    fn sigbus_outside_a_guarded_access_still_kills() {
        let mut mapping = empty();
        assert!(mapping.load(0, &mut [0]).sigbus);
        let mut child = fork(|| {
            // The core of this death is of no interest.
            let _ = nix::sys::prctl::set_dumpable(false);
            // SAFETY: the address is mapped; that the file has no page there is the point.
            unsafe { mapping.base.as_ptr().read_volatile() }.into()
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Exit::Signal(libc::SIGBUS));
    }
}
