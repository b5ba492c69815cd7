//! Operations that change what a file holds or where it holds it.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};
use punchbench_sys::io::AlignedBuf;
use punchbench_sys::map::Advice;
use punchbench_sys::remap::{clone_range, dedupe, exchange_range};

use super::{Answer, HOLE, Scratch, UNIT, byte_of, refused};

impl Scratch {
    fn fallocate(&self, flags: FallocateFlags) -> Answer {
        fallocate(&self.file, flags, UNIT as i64, UNIT as i64).map_err(refused)
    }

    /// The second unit becomes zeros.
    pub(super) fn zeroing(&self, flags: FallocateFlags) -> Answer {
        self.fallocate(flags)?;
        self.holds(&[0, HOLE, 2, 3])
    }

    /// The second unit goes, or a hole comes before it.
    pub(super) fn moving(&self, flags: FallocateFlags, units: &[u8]) -> Answer {
        self.fallocate(flags)?;
        self.holds(units)
    }

    pub(super) fn dedupe_into(&self, into: &Scratch) -> Answer {
        let done = dedupe(self.file.as_fd(), 0, UNIT as u64, into.file.as_fd())
            .map_err(|error| error.to_string())?;
        if !done.same || done.bytes == 0 {
            return Err(format!(
                "two equal ranges: same {}, bytes {}",
                done.same, done.bytes
            ));
        }
        into.holds(&[0, 1, 2, 3])
    }

    /// The second unit becomes that of another file, whose first three hold something else.
    pub(super) fn clone_from(&self, from: &Scratch) -> Answer {
        let unit = [byte_of(3); UNIT];
        from.file
            .write_all_at(&unit, UNIT as u64)
            .map_err(|error| error.to_string())?;
        let (at, len) = (UNIT as u64, UNIT as u64);
        clone_range(self.file.as_fd(), at, len, from.file.as_fd())
            .map_err(|error| error.to_string())?;
        self.holds(&[0, 3, 2, 3])?;
        from.holds(&[0, 3, 2, 3])
    }

    /// The second unit is exchanged with that of another file, which holds something else.
    pub(super) fn exchange_with(&self, with: &Scratch) -> Answer {
        let unit = [byte_of(3); UNIT];
        with.file
            .write_all_at(&unit, UNIT as u64)
            .map_err(|error| error.to_string())?;
        let (at, len) = (UNIT as u64, UNIT as u64);
        exchange_range(self.file.as_fd(), at, len, with.file.as_fd())
            .map_err(|error| error.to_string())?;
        self.holds(&[0, 3, 2, 3])?;
        with.holds(&[0, 1, 2, 3])
    }

    /// A direct write must open, write right, and drop even a page that is mapped. Where the kernel falls
    /// back to a buffered write it drops pages too, but none that is mapped (`direct_write_fallback`,
    /// `btrfs_direct_write`: invalidate_mapping_pages).
    pub(super) fn direct_write(&self) -> Answer {
        let direct = self.open_direct()?;
        let mut mapping = self.mapping()?;
        let mut byte = [0];
        if mapping.load(UNIT as u64, &mut byte).bytes != 1 || byte != [byte_of(1)] {
            return Err("its mapping shows wrong bytes".to_owned());
        }
        let mut unit = AlignedBuf::new(UNIT, 4096);
        unit.fill(byte_of(3));
        direct
            .write_all_at(&unit, UNIT as u64)
            .map_err(|error| error.to_string())?;
        let range = UNIT as u64..2 * UNIT as u64;
        let cached = mapping
            .any_resident(range.clone())
            .map_err(|error| error.to_string())?;
        mapping
            .advise(range, Advice::DontNeed)
            .map_err(|error| error.to_string())?;
        self.holds(&[0, 3, 2, 3])?;
        match cached {
            false => Ok(()),
            true => Err("O_DIRECT writes go through the page cache here".to_owned()),
        }
    }
}
