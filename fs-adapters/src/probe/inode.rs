//! Operations on an inode as a whole, and on a block device as a file.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use punchbench_sys::blk;
use punchbench_sys::inode::{swap_boot, toggle_journal_data};
use punchbench_sys::io::AlignedBuf;

use super::{Answer, HOLE, Medium, Scratch, UNIT, UNITS, byte_of};
use crate::home::Home;

impl Scratch {
    /// The flag can be set and cleared, and reads back; neither changes what the file holds.
    pub(super) fn journal_data(&self) -> Answer {
        for set in [true, false] {
            match toggle_journal_data(self.file.as_fd()) {
                Ok(now) if now == set => {}
                Ok(now) => return Err(format!("the flag reads back as {now}")),
                Err(error) => {
                    return Err(match error.kind() {
                        ErrorKind::PermissionDenied => "needs CAP_SYS_RESOURCE".to_owned(),
                        ErrorKind::Unsupported => {
                            "FS_JOURNAL_DATA_FL is refused or without effect".to_owned()
                        }
                        _ => error.to_string(),
                    });
                }
            }
            self.holds(&[0, 1, 2, 3])?;
        }
        Ok(())
    }

    /// The boot loader's inode is given what this file held; then both swap, equally long, there and back;
    /// then it gives its content up for nothing, as it was.
    pub(super) fn swap_boot(&self, medium: &Medium<'_>) -> Answer {
        if matches!(medium.home, Home::Directory) {
            return Err("the boot loader's inode of this filesystem is not ours".to_owned());
        }
        let io = |error: io::Error| error.to_string();
        let swap = || swap_boot(self.file.as_fd()).map_err(io);
        swap()?;
        let size = self.file.metadata().map_err(io)?.len();
        if size != 0 {
            // Somebody's boot loader: back with it.
            swap()?;
            return Err(format!(
                "the boot loader's inode holds {size} bytes already"
            ));
        }
        for unit in 0..UNITS {
            let bytes = [byte_of((UNITS - 1 - unit) as u8); UNIT];
            self.file
                .write_all_at(&bytes, (unit * UNIT) as u64)
                .map_err(io)?;
        }
        swap()?;
        self.holds(&[0, 1, 2, 3])?;
        swap()?;
        self.holds(&[3, 2, 1, 0])?;
        self.file.set_len(0).map_err(io)?;
        swap()?;
        self.holds(&[0, 1, 2, 3])
    }

    /// The second unit of a device becomes zeros.
    pub(super) fn blk_zeroout(&self) -> Answer {
        self.device_zeroing(|| blk::zero_out(&self.file, UNIT as u64, UNIT as u64))
    }

    /// The same, and not by promise (a discard makes none) but as seen.
    pub(super) fn blk_discard(&self) -> Answer {
        self.device_zeroing(|| blk::discard(&self.file, UNIT as u64, UNIT as u64))
    }

    /// Zeros must be seen both through the page cache and below it.
    fn device_zeroing(&self, zero: impl FnOnce() -> io::Result<()>) -> Answer {
        self.shows(&[0, 1, 2, 3])?;
        zero().map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ENOTTY) => "it is not a block device".to_owned(),
            _ => error.to_string(),
        })?;
        let zeroed = [0, HOLE, 2, 3];
        self.shows(&zeroed)?;
        let direct = self.open_direct()?;
        let mut seen = AlignedBuf::new(UNIT, 4096);
        for (index, unit) in zeroed.iter().enumerate() {
            direct
                .read_exact_at(&mut seen, (index * UNIT) as u64)
                .map_err(|error| error.to_string())?;
            if seen.iter().any(|byte| *byte != byte_of(*unit)) {
                return Err("the call succeeded, but the device holds something else".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use punchbench_sys::loopdev::LoopDevice;

    use super::*;
    use crate::tag::Tag;
    use crate::user::Privilege;

    #[test]
    fn a_loop_device_is_zeroed_and_a_file_is_no_device() {
        let work = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(crate::probe::Place::Directory(work.path()), "file").unwrap();
        for answer in [scratch.blk_zeroout(), scratch.blk_discard()] {
            assert_eq!(answer.unwrap_err(), "it is not a block device");
        }
        if !Privilege::current().may_use_devices() {
            return;
        }
        // On a disk: a loop device over tmpfs zeroes only by writing, and the kernel logs that.
        let backing = tempfile::tempfile().unwrap();
        backing.set_len((2 * UNITS * UNIT) as u64).unwrap();
        let tag = Tag::of_this_process().to_string();
        let device = LoopDevice::attach(&backing, &tag, false, work.path()).unwrap();
        let zeroout = Scratch::on_device(device.path()).unwrap().blk_zeroout();
        assert_eq!(zeroout, Ok(()));
        let able = blk::discard_limit(&device.name()).unwrap() > 0;
        let discard = Scratch::on_device(device.path()).unwrap().blk_discard();
        assert_eq!(discard.is_ok(), able, "{discard:?}");
        blk::set_discard_limit(&device.name(), 0).unwrap();
        let discard = Scratch::on_device(device.path()).unwrap().blk_discard();
        assert!(discard.is_err());
        assert!(device.path().exists());
    }
}
