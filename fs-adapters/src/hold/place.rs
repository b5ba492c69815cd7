//! Where on the device something lies that is to be held: a range of a file, all but a file's data, or where the
//! filesystem commits. FIEMAP fills ext4's extent status, so all of this is asked before a stage is set.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use punchbench_sys::extents::extents;

use super::holder::{HoldError, Holder, IoKind, Place};
use crate::adapter::{Addresses, Store};
use crate::mounted::Mounted;

/// Why a place cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The filesystem has no such place, or nothing says where it is.
    #[error("{0}")]
    Unknown(String),
    /// A call failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// The step.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// The holder failed.
    #[error(transparent)]
    Hold(#[from] HoldError),
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> PlaceError {
    move |error| PlaceError::Io { what, error }
}

/// The device ranges of what is allocated in a range of a file; none for a hole. Dirty data is written back.
///
/// Where FIEMAP's addresses are not the device's (btrfs), the range is evicted and read, and the holder has seen
/// where that went: of what was read, the places that hold the file's own bytes.
pub fn of_file(
    mounted: &Mounted,
    file: &File,
    range: Range<u64>,
) -> Result<Vec<Range<u64>>, PlaceError> {
    if matches!(mounted.target().adapter.store(), Store::Fixed(_)) {
        // A file that is a device.
        file.sync_all().map_err(failed("fsync"))?;
        return Ok(vec![range]);
    }
    match mounted.geometry().addresses {
        Addresses::Device => {
            let found = extents(file.as_fd(), range).map_err(failed("ask FIEMAP"))?;
            let found = found.ok_or_else(|| PlaceError::Unknown("it has no FIEMAP".to_owned()))?;
            Ok(found.iter().map(|e| e.device..e.device + e.len).collect())
        }
        Addresses::Logical | Addresses::None => by_reading(mounted, file, range),
    }
}

/// Everything but a file's data, so that its metadata is in it wherever it may lie.
pub fn all_but_file(mounted: &Mounted, file: &File) -> Result<Place, PlaceError> {
    let size = file.metadata().map_err(failed("ask for the size"))?.len();
    Ok(Place::Outside(of_file(mounted, file, 0..size)?))
}

/// The device ranges of the metadata that reading a range of a file takes: what the holder sees it read beside
/// the file's own blocks, so nothing may have read it since the filesystem was mounted.
pub fn of_metadata(
    mounted: &Mounted,
    file: &File,
    range: Range<u64>,
) -> Result<Vec<Range<u64>>, PlaceError> {
    let holder = mounted.holder().ok_or_else(|| {
        PlaceError::Unknown("nothing sees what reading the file takes".to_owned())
    })?;
    let mark = holder.mark()?;
    let mut bytes = vec![0; STEP as usize];
    for at in range.clone().step_by(STEP as usize) {
        file.read_at(&mut bytes, at).map_err(failed("read"))?;
    }
    let seen = holder.seen(mark)?.requests;
    // FIEMAP reads metadata itself, so it comes last.
    let outside = all_but_file(mounted, file)?;
    let found = seen
        .into_iter()
        .filter(|io| io.kind == IoKind::Read && outside.takes(&io.range))
        .map(|io| io.range);
    let found = joined(found.collect());
    if found.is_empty() {
        let why =
            "to read the file there took no metadata: it has none of its own, or it was in memory";
        return Err(PlaceError::Unknown(why.to_owned()));
    }
    Ok(found)
}

/// Where the filesystem writes what commits a transaction: the journal of ext4, the log of XFS, the checkpoint
/// packs of F2FS, the superblocks of Btrfs.
pub fn of_commits(mounted: &Mounted) -> Result<Vec<Range<u64>>, PlaceError> {
    let target = mounted.target();
    let Store::Device(on_device) = target.adapter.store() else {
        return Err(PlaceError::Unknown(format!("{target} is on no device")));
    };
    let read = |at: u64, buffer: &mut [u8]| mounted.read_medium(at, buffer);
    on_device
        .commit_area(&read)
        .map_err(failed("read the superblock"))?
        .ok_or_else(|| PlaceError::Unknown(format!("{target} does not say where it commits")))
}

/// A read's size while looking where it goes: one request of the device, and no neighbour.
const STEP: u64 = 4096;

fn by_reading(
    mounted: &Mounted,
    file: &File,
    range: Range<u64>,
) -> Result<Vec<Range<u64>>, PlaceError> {
    let holder = mounted.holder().ok_or_else(|| {
        PlaceError::Unknown("its addresses are logical, and nothing sees its reads".to_owned())
    })?;
    let advise =
        |advice| posix_fadvise(file, 0, 0, advice).map_err(|error| failed("advise")(error.into()));
    file.sync_all().map_err(failed("fsync"))?;
    advise(PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let mut found = Vec::new();
    let mut at = range.start - range.start % STEP;
    while at < range.end {
        advise(PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let mark = holder.mark()?;
        let mut bytes = vec![0; STEP as usize];
        let got = file.read_at(&mut bytes, at).map_err(failed("read"))?;
        found.extend(matching(mounted, holder, mark, &bytes[..got])?);
        at += STEP;
    }
    // What was read to find out must be read again by whoever is to be held.
    advise(PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(joined(found))
}

/// Of what was read since a mark, where these bytes stand.
fn matching(
    mounted: &Mounted,
    holder: &dyn Holder,
    mark: super::Mark,
    bytes: &[u8],
) -> Result<Vec<Range<u64>>, PlaceError> {
    let mut found = Vec::new();
    for seen in holder.seen(mark)?.requests {
        if seen.kind != IoKind::Read {
            continue;
        }
        for at in (seen.range.start..seen.range.end).step_by(STEP as usize) {
            let mut there = vec![0; STEP as usize];
            mounted
                .read_medium(at, &mut there)
                .map_err(failed("read the image"))?;
            if !bytes.is_empty() && there.starts_with(bytes) {
                found.push(at..at + STEP);
            }
        }
    }
    Ok(found)
}

/// Ranges in order, with no two that touch.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(
            joined(vec![8..12, 0..4, 4..6, 20..21]),
            [0..6, 8..12, 20..21]
        );
        assert!(joined(Vec::new()).is_empty());
    }
}
