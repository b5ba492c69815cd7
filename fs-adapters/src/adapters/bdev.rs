//! The block device itself: each file of a scenario is a loop device of our own, which nobody mounts, and
//! what is raced is the device's page cache (fallocate(2), BLKZEROOUT and BLKDISCARD on a block device,
//! blkdev_fallocate() in block/fops.c). Not `--device`, which names a device to put filesystems on.

use std::path::Path;

use crate::adapter::{Adapter, FixedFile, FixedFiles, Store};
use crate::devices::DeviceFile;
use crate::profile::{BASE, Profile};
use crate::reuse::Reuse;
use crate::set_up::{SetUp, SetUpError, check_loop};

/// The adapter.
#[derive(Debug)]
pub struct Bdev;

const PROFILES: &[Profile] = &[Profile {
    about: "the block device itself: each file is a loop device, no filesystem on it",
    ..BASE
}];

impl Adapter for Bdev {
    /// As block/bdev.c calls the filesystem of the block devices' inodes.
    fn name(&self) -> &'static str {
        "bdev"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["bdev"]
    }

    fn store(&self) -> Store<'_> {
        Store::Fixed(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        Reuse::Never("a block device allocates nothing")
    }
}

impl FixedFiles for Bdev {
    fn modules(&self) -> &'static [&'static str] {
        &["loop"]
    }

    fn check(&self) -> Result<(), SetUpError> {
        check_loop()
    }

    fn create(
        &self,
        dir: &Path,
        name: &str,
        size: u64,
        env: &SetUp<'_>,
    ) -> Result<Box<dyn FixedFile>, SetUpError> {
        Ok(Box::new(DeviceFile::create(dir, name, size, env)?))
    }
}
