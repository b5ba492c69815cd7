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

    /// The middle of the second unit becomes zeros, its first and its last byte stay.
    pub(super) fn punch_unaligned(&self) -> Answer {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&self.file, flags, UNIT as i64 + 1, UNIT as i64 - 2).map_err(refused)?;
        let mut seen = vec![0; UNIT];
        self.file
            .read_exact_at(&mut seen, UNIT as u64)
            .map_err(|error| error.to_string())?;
        let (first, last) = (seen[0], seen[UNIT - 1]);
        if (first, last) != (byte_of(1), byte_of(1)) || seen[1..UNIT - 1].iter().any(|b| *b != 0) {
            return Err(
                "the call succeeded, but the bytes are not what it should leave".to_owned(),
            );
        }
        Ok(())
    }

    /// It loses its end and gets zeros for it.
    pub(super) fn resize(&self) -> Answer {
        for units in [2, 3] {
            self.file
                .set_len((units * UNIT) as u64)
                .map_err(|error| error.to_string())?;
        }
        self.holds(&[0, 1, HOLE])
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
