//! Operations that bring pages in, and what tells where they come from.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use punchbench_sys::extents::extents;
use punchbench_sys::inode::precache_extents;
use punchbench_sys::io::{AlignedBuf, read_nowait};
use punchbench_sys::map::{Advice, HUGE_PAGE, Mapping, Protection, page_size};

use super::{Answer, HOLE, Medium, Scratch, UNIT, UNITS, byte_of};
use crate::adapter::Addresses;
use crate::home::Home;

/// How long read-ahead of a few pages may take, and the pause between looks.
const ADVICE_TIME: Duration = Duration::from_secs(5);
const ADVICE_PAUSE: Duration = Duration::from_millis(1);

/// How often MADV_COLLAPSE may say EAGAIN.
const COLLAPSE_TRIES: usize = 100;

impl Scratch {
    pub(super) fn nowait(&self) -> Answer {
        // Warm, so that there is data to give at once.
        self.holds(&[0, 1, 2, 3])?;
        let mut seen = [0; 4096];
        match read_nowait(self.file.as_fd(), 0, &mut seen) {
            Ok(4096) if seen.iter().all(|byte| *byte == byte_of(0)) => Ok(()),
            Ok(got) => Err(format!("a cached page gave {got} bytes")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// O_DIRECT must open, read right, and leave nothing in the page cache.
    pub(super) fn direct(&self) -> Answer {
        let direct = self.open_direct()?;
        let mapping = self.mapping()?;
        if !self.evict(&mapping)? {
            return Err(
                "pages cannot be evicted, so a direct read cannot be told from a cached one"
                    .to_owned(),
            );
        }
        let mut buffer = AlignedBuf::new(UNIT, 4096);
        direct
            .read_exact_at(&mut buffer, 0)
            .map_err(|error| error.to_string())?;
        if buffer.iter().any(|byte| *byte != byte_of(0)) {
            return Err("a direct read gave wrong bytes".to_owned());
        }
        match mapping.any_resident(0..UNIT as u64) {
            Ok(false) => Ok(()),
            Ok(true) => Err("O_DIRECT reads go through the page cache here".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn populate(&self) -> Answer {
        let mapping = self.mapping()?;
        mapping
            .advise(0..UNIT as u64, Advice::PopulateRead)
            .map_err(|error| error.to_string())?;
        let mut pages = vec![false; UNIT.div_ceil(page_size())];
        mapping
            .resident(0..UNIT as u64, &mut pages)
            .map_err(|error| error.to_string())?;
        if pages.contains(&false) {
            return Err("MADV_POPULATE_READ succeeded and left pages absent".to_owned());
        }
        Ok(())
    }

    /// A huge page is made of the file's head, which is written, and of a hole behind it.
    pub(super) fn madvise_collapse(&self) -> Answer {
        let text = |error: std::io::Error| error.to_string();
        let size = HUGE_PAGE as u64;
        self.file.set_len(size).map_err(text)?;
        self.file.sync_all().map_err(text)?;
        let mapping = Mapping::new(self.file.as_fd(), size, Protection::Read).map_err(text)?;
        if !self.evict(&mapping)? {
            return Err("pages cannot be evicted, so none is seen brought in".to_owned());
        }
        // EAGAIN is no answer: the folios may still be on their way to the LRU list.
        let collapse = || mapping.advise(0..size, Advice::Collapse);
        let busy = |answer: &std::io::Result<()>| {
            let errno = answer.as_ref().err().and_then(std::io::Error::raw_os_error);
            errno == Some(Errno::EAGAIN as i32)
        };
        let mut tries = std::iter::repeat_with(collapse).take(COLLAPSE_TRIES);
        tries
            .find(|answer| !busy(answer))
            .ok_or("madvise(MADV_COLLAPSE): EAGAIN every time")?
            .map_err(text)?;
        let mut pages = vec![false; HUGE_PAGE.div_ceil(page_size())];
        mapping.resident(0..size, &mut pages).map_err(text)?;
        if pages.contains(&false) {
            return Err("MADV_COLLAPSE succeeded and left pages absent".to_owned());
        }
        Ok(())
    }

    /// In a hole, pages that are brought in are filled at once, so they are there when the call returns.
    pub(super) fn advice_fills(&self, medium: &Medium<'_>) -> Answer {
        // A server answers when it comes to it.
        if self.is_fixed || matches!(medium.home, Home::Layer(_)) {
            return self.advice_fills_in_time();
        }
        // Not right behind the data, where ntfs3 reads nothing ahead (`ntfs_readahead`: "Range cross 'valid'").
        let end = ((UNITS + 1) * UNIT) as u64;
        self.file
            .set_len(end + UNIT as u64)
            .map_err(|error| error.to_string())?;
        let mapping = Mapping::new(self.file.as_fd(), end + UNIT as u64, Protection::Read)
            .map_err(|error| error.to_string())?;
        let hole = end..end + UNIT as u64;
        let there = mapping.any_resident(hole.clone());
        if there.map_err(|error| error.to_string())? {
            return Err("a huge page is there already, which advice could not bring in".to_owned());
        }
        let willneed = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        posix_fadvise(&self.file, end as i64, UNIT as i64, willneed)
            .map_err(|error| error.to_string())?;
        match mapping.any_resident(hole) {
            Ok(true) => Ok(()),
            Ok(false) => Err("posix_fadvise(WILLNEED) brings no page in".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Pages come within some time, as nothing tells when they have.
    fn advice_fills_in_time(&self) -> Answer {
        let mapping = self.mapping()?;
        if !self.evict(&mapping)? {
            return Err("pages cannot be evicted, so none is seen brought in".to_owned());
        }
        let willneed = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        posix_fadvise(&self.file, 0, UNIT as i64, willneed).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ADVICE_TIME;
        loop {
            match mapping.any_resident(0..UNIT as u64) {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < deadline => std::thread::sleep(ADVICE_PAUSE),
                Ok(false) => return Err("posix_fadvise(WILLNEED) brings no page in".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Extents must have addresses, and where those are places on the device, the data must be there.
    pub(super) fn precache_extents(&self) -> Answer {
        precache_extents(self.file.as_fd()).map_err(|error| error.to_string())
    }

    pub(super) fn fiemap(&self, medium: &Medium<'_>) -> Answer {
        if medium.addresses == Addresses::None {
            return Err("it has no blocks".to_owned());
        }
        let len = (UNITS * UNIT) as u64;
        let found = extents(self.file.as_fd(), 0..len).map_err(|error| error.to_string())?;
        let found = found.ok_or("FS_IOC_FIEMAP is not supported")?;
        if found.iter().map(|extent| extent.len).sum::<u64>() != len {
            return Err("FIEMAP gives no address for some of a file's blocks".to_owned());
        }
        if medium.addresses != Addresses::Device {
            return Ok(());
        }
        for extent in found {
            let mut seen = [0; 4096];
            match medium.home.read_at(extent.device, &mut seen) {
                None => return Ok(()),
                Some(read) => read.map_err(|error| format!("reading the medium: {error}"))?,
            }
            let unit = u8::try_from(extent.at / UNIT as u64).unwrap_or(HOLE);
            if seen.iter().any(|byte| *byte != byte_of(unit)) {
                return Err(
                    "the medium does not hold a file's data at the address that FIEMAP gives"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}
