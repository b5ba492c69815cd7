//! Files that are block devices: a loop device of our own each, by the file's name in a directory of our
//! own, so that whoever opens files there opens the devices. The page cache that is raced is the one of the
//! block device's inode (block/fops.c), with no filesystem in between.
//!
//! The images lie on a disk where there is room on one: over tmpfs, which has no FALLOC_FL_ZERO_RANGE, the
//! block layer gives punching up for a loop device once a range of it was to be zeroed
//! (blkdev_issue_zeroout and BLKDEV_ZERO_NOFALLBACK, block/blk-lib.c). Where I/O is to be held, a server of
//! ours lies between the two; it takes no FALLOCATE, so there zeros are written, and writes can be held.

use std::fs::{self, File};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use punchbench_sys::loopdev::LoopDevice;

use crate::adapter::FixedFile;
use crate::hold::{Holder, ImageServer};
use crate::image::{self, ImageError, Prefer};
use crate::set_up::{SetUp, SetUpError, attach};

/// One file's device; detached on drop.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    device: LoopDevice,
    /// Between the device and the image, to hold I/O; ends when the device has gone.
    server: Option<ImageServer>,
    _image: File,
    /// Where the image is, in words for the record.
    place: String,
    size: u64,
    /// The name by which it is opened.
    path: PathBuf,
}

/// Why there is no such file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceFileError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("cannot {what} for a loop device: {error}")]
    Io {
        what: &'static str,
        error: io::Error,
    },
}

impl DeviceFile {
    /// Makes `name` in `dir` a block device of exactly `size` bytes.
    pub fn create(dir: &Path, name: &str, size: u64, env: &SetUp<'_>) -> Result<Self, SetUpError> {
        let io = |what| move |error| DeviceFileError::Io { what, error };
        let whole = size.next_multiple_of(image::STEP as u64);
        let image = image::create(env.image_dir, Prefer::Disk, whole, whole, env.background)
            .map_err(DeviceFileError::from)?;
        image.file.set_len(size).map_err(io("cut an image"))?;
        let (device, server) = attach(&image.file, env, dir)?;
        let number = fs::metadata(device.path())
            .map_err(io("find the node"))?
            .st_rdev();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let path = dir.join(name);
        mknod(&path, SFlag::S_IFBLK, mode, number)
            .map_err(|error| io("make a node")(error.into()))?;
        Ok(DeviceFile {
            device,
            server,
            _image: image.file,
            place: image.place,
            size,
            path,
        })
    }
}

impl FixedFile for DeviceFile {
    fn device(&self) -> String {
        self.device.name()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn holder(&self) -> Option<&dyn Holder> {
        self.server.as_ref().map(|server| server as &dyn Holder)
    }

    fn about(&self) -> String {
        format!("{}, image: {}", self.device(), self.place)
    }
}

impl Drop for DeviceFile {
    fn drop(&mut self) {
        // What is still dirty when the image goes would be an I/O error in the kernel's log.
        let _ = File::open(self.device.path()).and_then(|device| device.sync_all());
        // Or the directory's own removal takes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl From<DeviceFileError> for SetUpError {
    fn from(error: DeviceFileError) -> Self {
        SetUpError::Error(error.to_string())
    }
}
