//! zonefs: each zone of a zoned device is a file, there from the beginning and as large as it is. On a zoned
//! device of our own for each file of a scenario, whose name a conventional zone is bound to: such a zone is
//! written in any order, buffered, directly and through mappings, and no operation but a write changes what it
//! holds (fs/zonefs/file.c: no fallocate, and EPERM for a truncation).
//!
//! The sequential zones are not raced. They are truncated, which is what the series on hole punching converted
//! (`zonefs_file_truncate`), but only to nothing (a reset of the zone) or to the full zone (its finish), they
//! are written only directly and from the start, and mapped only through descriptors that cannot write.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use punchbench_sys::{blk, mount};

use crate::adapter::{Adapter, FixedFile, FixedFiles, Store};
use crate::mount_point::{MountPoint, What};
use crate::profile::{BASE, Profile};
use crate::reuse::Reuse;
use crate::set_up::{SetUp, SetUpError, check_filesystem, own_directory};
use crate::zoned::{self, ZonedDevice};

/// The adapter.
#[derive(Debug)]
pub struct Zonefs;

const NAME: &str = "zonefs";

const PROFILES: &[Profile] = &[Profile {
    about: "conventional zones of a zoned null_blk device: each file is a zone",
    ..BASE
}];

/// The first zone holds the superblock, the second is the first file.
const CONVENTIONAL: u64 = 2;
const FIRST_FILE: &str = "cnv/0";

impl Adapter for Zonefs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &[NAME]
    }

    fn store(&self) -> Store<'_> {
        Store::Fixed(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        Reuse::Never("a zone is one file's for good")
    }
}

impl FixedFiles for Zonefs {
    fn modules(&self) -> &'static [&'static str] {
        &[NAME, "null_blk"]
    }

    fn check(&self) -> Result<(), SetUpError> {
        check_filesystem(NAME)?;
        zoned::check()
    }

    fn create(
        &self,
        dir: &Path,
        name: &str,
        size: u64,
        env: &SetUp<'_>,
    ) -> Result<Box<dyn FixedFile>, SetUpError> {
        Ok(Box::new(ZoneFile::create(dir, name, size, env)?))
    }
}

/// A zone under the name of a file. Fields are released in the order in which they stand.
#[derive(Debug)]
struct ZoneFile {
    _bound: Bound,
    _point: MountPoint,
    device: ZonedDevice,
    mounted: String,
}

impl ZoneFile {
    fn create(dir: &Path, name: &str, size: u64, env: &SetUp<'_>) -> Result<Self, SetUpError> {
        let device = ZonedDevice::create(CONVENTIONAL, size, env)?;
        make_filesystem(device.node()).map_err(SetUpError::io("write zonefs' superblock"))?;
        let what = What {
            source: device.node().to_string_lossy().into_owned(),
            fstype: NAME.to_owned(),
            data: String::new(),
            served: None,
        };
        let point = MountPoint::mount(own_directory(env.tag, env.work_dir)?, what)?;
        let zone = point.at().join(FIRST_FILE);
        let bound = Bound::make(&zone, dir.join(name))
            .map_err(SetUpError::io(format!("bind {FIRST_FILE} to {name}")))?;
        let entry = mount::mount_of(&bound.0).map_err(SetUpError::io("find the mount"))?;
        if entry.fstype != NAME {
            return Err(SetUpError::Error(format!(
                "{name} is served by {}, not {NAME}",
                entry.fstype
            )));
        }
        Ok(ZoneFile {
            _bound: bound,
            _point: point,
            device,
            mounted: format!("{} ({})", entry.root.display(), entry.super_options),
        })
    }
}

impl FixedFile for ZoneFile {
    fn device(&self) -> String {
        self.device.name().to_owned()
    }

    fn size(&self) -> u64 {
        self.device.zone()
    }

    fn about(&self) -> String {
        format!(
            "mount: {NAME} {} on {}, zones of {} MiB",
            self.mounted,
            self.device.name(),
            self.device.zone() >> 20,
        )
    }
}

/// A name that shows another file; gone when dropped.
#[derive(Debug)]
struct Bound(PathBuf);

impl Bound {
    fn make(file: &Path, at: PathBuf) -> std::io::Result<Self> {
        File::create_new(&at)?;
        let bound = Bound(at);
        mount::bind(file, &bound.0)?;
        Ok(bound)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Where it was not bound after all, there is nothing to take off.
        let _ = mount::detach(&self.0);
        let _ = fs::remove_file(&self.0);
    }
}

/// What mkzonefs writes (fs/zonefs/zonefs.h, `struct zonefs_super`), so that no tool is needed for it.
fn make_filesystem(node: &Path) -> std::io::Result<()> {
    let device = OpenOptions::new().read(true).write(true).open(node)?;
    device.write_all_at(&superblock(), 0)?;
    device.sync_all()?;
    blk::flush_buffers(&device)
}

/// The magic number and the checksum of all with zeros in its place; no label, no features.
fn superblock() -> [u8; 4096] {
    let mut block = [0; 4096];
    block[..4].copy_from_slice(&0x5a4f_4653_u32.to_le_bytes());
    // The kernel's crc32() leaves out the last inversion.
    let crc = !crc32fast::hash(&block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `crc32(~0U, super, sizeof(*super))` of the kernel gives it, bit by bit.
    fn kernel_crc(bytes: &[u8]) -> u32 {
        bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
            })
        })
    }

    #[test]
    fn the_superblock_is_what_the_kernel_checks() {
        let mut block = superblock();
        assert_eq!(&block[..4], b"SFOZ");
        let crc = u32::from_le_bytes(block[4..8].try_into().unwrap());
        block[4..8].fill(0);
        assert_eq!(crc, kernel_crc(&block));
        assert!(block[8..].iter().all(|byte| *byte == 0));
    }
}
