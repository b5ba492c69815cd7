//! Eviction that is proved. FADV_DONTNEED is only a wish: it leaves dirty pages, pages that are mapped
//! anywhere, and large folios that reach out of the range (one touched page left 15 to 64 resident).

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::off_t;
use punchbench_sys::map::{Mapping, page_size};

/// Fillers that are done may still hold a page for a moment (read-ahead that has just completed).
const ATTEMPTS: u32 = 5;
/// The largest folio that a range may share with what lies around it.
const FOLIO: u64 = 2 << 20;

/// Writes back and evicts `range` of `file`, from the second attempt on with what lies around it, and asks
/// `probe`, a mapping of the file, whether it is gone.
pub(super) fn evict(file: &File, probe: &Mapping, range: Range<u64>) -> io::Result<bool> {
    for attempt in 0..ATTEMPTS {
        file.sync_all()?;
        let (at, len) = match attempt {
            0 => around(&range, page_size() as u64),
            1 | 2 => around(&range, FOLIO),
            // To the end of the file.
            _ => (0, 0),
        };
        posix_fadvise(file, at, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        if !probe.any_resident(range.clone())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `range` widened to multiples of `unit`, as offset and length.
fn around(range: &Range<u64>, unit: u64) -> (off_t, off_t) {
    let start = range.start - range.start % unit;
    let len = range.end.next_multiple_of(unit) - start;
    (start as off_t, len as off_t)
}
