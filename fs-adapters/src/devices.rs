//! Files that are block devices: a loop device of our own each, by the file's name in a directory of our
//! own, so that whoever opens files there opens the devices. The page cache that is raced is the one of the
//! block device's inode (block/fops.c), with no filesystem in between.
//!
//! The images lie on a disk where there is room on one: over tmpfs, which has no FALLOC_FL_ZERO_RANGE, the
//! block layer gives punching up for a loop device once a range of it was to be zeroed
//! (blkdev_issue_zeroout and BLKDEV_ZERO_NOFALLBACK, block/blk-lib.c).

use std::fs::{self, File};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, mknod};
use punchbench_sys::loopdev::{LoopDevice, LoopError};

use crate::image::{self, ImageError, Prefer};
use crate::set_up::{SetUp, SetUpError};

/// One file's device; detached on drop. The node goes with the directory.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    device: LoopDevice,
    _image: File,
    /// Where the image is, in words for the record.
    pub place: String,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceFileError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Loop(#[from] LoopError),
    #[error("cannot {what} for a loop device: {error}")]
    Io {
        what: &'static str,
        error: io::Error,
    },
}

impl DeviceFile {
    /// Makes `name` in `dir` a block device of exactly `size` bytes.
    pub fn create(
        dir: &Path,
        name: &str,
        size: u64,
        env: &SetUp<'_>,
    ) -> Result<Self, DeviceFileError> {
        let io = |what| move |error| DeviceFileError::Io { what, error };
        let whole = size.next_multiple_of(image::STEP as u64);
        let image = image::create(env.image_dir, Prefer::Disk, whole, whole, env.background)?;
        image.file.set_len(size).map_err(io("cut an image"))?;
        let device = LoopDevice::attach_to_new(&image.file, &env.tag.to_string(), false, dir)?;
        let number = fs::metadata(device.path())
            .map_err(io("find the node"))?
            .st_rdev();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&dir.join(name), SFlag::S_IFBLK, mode, number)
            .map_err(|error| io("make a node")(error.into()))?;
        Ok(DeviceFile {
            device,
            _image: image.file,
            place: image.place,
        })
    }

    /// The kernel's name for it, such as `loop3`.
    pub fn name(&self) -> String {
        self.device.name()
    }
}

impl Drop for DeviceFile {
    fn drop(&mut self) {
        // What is still dirty when the image goes would be an I/O error in the kernel's log.
        let _ = File::open(self.device.path()).and_then(|device| device.sync_all());
    }
}

impl From<DeviceFileError> for SetUpError {
    fn from(error: DeviceFileError) -> Self {
        match error {
            DeviceFileError::Loop(error) => error.into(),
            DeviceFileError::Image(_) | DeviceFileError::Io { .. } => {
                SetUpError::Error(error.to_string())
            }
        }
    }
}
