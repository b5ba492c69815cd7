//! Zoned block devices in memory: null_blk, made and removed through configfs
//! (Documentation/block/null_blk.rst). Unlike a loop device, one outlives a killed run; its name carries the
//! tag for the sweep.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc::{dev_t, makedev};
use nix::sys::stat::{Mode, SFlag, mknod};
use punchbench_sys::mount;
use tempfile::TempDir;

use crate::kernel;
use crate::mount_point::{MountPoint, What};
use crate::set_up::{SetUp, SetUpError, own_directory};
use crate::tag::Tag;

/// What the driver's directory in configfs is called.
const DRIVER: &str = "nullb";

/// More devices than this at a time are a leak.
const MANY: u32 = 100;

const MIB: u64 = 1 << 20;

/// What stands in the way of such devices.
pub(crate) fn check() -> Result<(), SetUpError> {
    if kernel::load_null_blk() {
        Ok(())
    } else {
        Err(SetUpError::skipped(
            "there is no null_blk, which makes zoned devices in memory",
            "load the module null_blk, or boot a kernel with it",
        ))
    }
}

/// A device of zones of one size: conventional ones first, and a sequential one last, without which there is no
/// zoned device. Gone when dropped.
#[derive(Debug)]
pub(crate) struct ZonedDevice {
    item: PathBuf,
    name: String,
    node: PathBuf,
    zone: u64,
    _nodes: TempDir,
    _configfs: MountPoint,
}

impl ZonedDevice {
    /// With `conventional` zones of at least `zone` bytes: they have a power of two of MiB.
    pub fn create(conventional: u64, zone: u64, env: &SetUp<'_>) -> Result<Self, SetUpError> {
        let mib = zone.div_ceil(MIB).next_power_of_two();
        let what = What {
            source: env.tag.to_string(),
            fstype: "configfs".to_owned(),
            data: String::new(),
            served: None,
        };
        let nodes = own_directory(env.tag, env.work_dir)?;
        let configfs = MountPoint::mount(own_directory(env.tag, env.work_dir)?, what)?;
        let item = new_item(&configfs.at().join(DRIVER), env.tag)
            .map_err(SetUpError::io("make a zoned device"))?;
        // From here on it is removed by being dropped.
        let mut device = ZonedDevice {
            item,
            name: String::new(),
            node: nodes.path().join("zoned"),
            zone: mib * MIB,
            _nodes: nodes,
            _configfs: configfs,
        };
        device
            .switch_on(conventional, mib)
            .map_err(SetUpError::io("set a zoned device up"))?;
        Ok(device)
    }

    fn switch_on(&mut self, conventional: u64, zone_mib: u64) -> io::Result<()> {
        let settings = [
            ("size", (conventional + 1) * zone_mib),
            ("blocksize", 4096),
            ("memory_backed", 1),
            ("zoned", 1),
            ("zone_size", zone_mib),
            ("zone_nr_conv", conventional),
            ("power", 1),
        ];
        for (name, value) in settings {
            fs::write(self.item.join(name), value.to_string())
                .map_err(|e| io::Error::new(e.kind(), format!("{name} = {value}: {e}")))?;
        }
        self.name = disk_name(&self.item)?;
        let number = device_number(&Path::new("/sys/block").join(&self.name))?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&self.node, SFlag::S_IFBLK, mode, number).map_err(io::Error::from)
    }

    /// The kernel's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its node.
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// The bytes of a zone.
    pub fn zone(&self) -> u64 {
        self.zone
    }
}

impl Drop for ZonedDevice {
    fn drop(&mut self) {
        // Best effort: the next run sweeps.
        let _ = fs::remove_dir(&self.item);
    }
}

/// A directory of our own among the driver's: a device that is still off.
fn new_item(driver: &Path, tag: &Tag) -> io::Result<PathBuf> {
    for number in 0..MANY {
        let item = driver.join(format!("{}-{number}", tag.short()));
        match fs::create_dir(&item) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| item),
        }
    }
    Err(io::Error::other(format!(
        "{MANY} of this run exist already"
    )))
}

/// The disk is named like its directory since Linux 5.19, and by its number before.
fn disk_name(item: &Path) -> io::Result<String> {
    let own = item.file_name().unwrap_or_default().to_string_lossy();
    if Path::new("/sys/block").join(&*own).exists() {
        return Ok(own.into_owned());
    }
    let index = fs::read_to_string(item.join("index"))?;
    Ok(format!("{DRIVER}{}", index.trim()))
}

/// `MAJOR:MINOR`, as sysfs says it.
fn device_number(sys: &Path) -> io::Result<dev_t> {
    let text = fs::read_to_string(sys.join("dev"))?;
    let numbers = text.trim().split_once(':');
    let parsed =
        numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let (major, minor) = parsed.ok_or(io::ErrorKind::InvalidData)?;
    Ok(makedev(major, minor))
}

/// Whether there can be such devices at all.
pub(crate) fn may_exist() -> bool {
    Path::new("/sys/module/null_blk").exists()
}

/// Removes those of dead runs; a line each. Mounts configfs in the calling thread's namespace, which it makes
/// its own.
pub(crate) fn sweep() -> io::Result<Vec<String>> {
    mount::enter_private_namespace()?;
    let at = tempfile::tempdir()?;
    mount::mount("configfs", at.path(), "configfs", "")?;
    let lines = sweep_in(&at.path().join(DRIVER));
    mount::detach(at.path())?;
    lines
}

fn sweep_in(driver: &Path) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(driver)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if Tag::from_short(&name).is_none_or(|tag| tag.is_alive()) {
            continue;
        }
        lines.push(match fs::remove_dir(entry.path()) {
            Ok(()) => format!("zoned device {name} of a dead run: removed"),
            Err(error) => {
                format!("zoned device {name} of a dead run: could not be removed ({error})")
            }
        });
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk's name holds 31 letters (DISK_NAME_LEN), and a longer one would be cut.
    const DISK_NAME: usize = 31;

    #[test]
    fn names_are_short_and_tell_whose_they_are() {
        let driver = tempfile::tempdir().unwrap();
        let ours = Tag::of_this_process();
        let first = new_item(driver.path(), &ours).unwrap();
        let second = new_item(driver.path(), &ours).unwrap();
        assert_ne!(first, second);
        let name = first.file_name().unwrap().to_str().unwrap();
        assert!(name.len() <= DISK_NAME, "{name}");
        assert_eq!(Tag::from_short(name), Some(ours));
        for name in ["nullb0", "pb-1", "pb-x-1-1-0"] {
            assert_eq!(Tag::from_short(name), None, "{name}");
        }
    }

    #[test]
    fn only_devices_of_dead_runs_are_swept() {
        let driver = tempfile::tempdir().unwrap();
        let ours = new_item(driver.path(), &Tag::of_this_process()).unwrap();
        let others = driver.path().join("nullb0");
        fs::create_dir(&others).unwrap();
        // No process started before the machine, and pid 1 did not at that tick.
        let dead = Tag::of_this_process().short().replacen(
            &format!("-{:x}-", std::process::id()),
            "-3fffff-",
            1,
        );
        fs::create_dir(driver.path().join(format!("{dead}-0"))).unwrap();
        let lines = sweep_in(driver.path()).unwrap();
        assert_eq!(
            lines,
            [format!("zoned device {dead}-0 of a dead run: removed")]
        );
        assert!(ours.exists() && others.exists());
    }

    #[test]
    fn device_numbers_are_read() {
        let sys = tempfile::tempdir().unwrap();
        fs::write(sys.path().join("dev"), "252:3\n").unwrap();
        assert_eq!(device_number(sys.path()).unwrap(), makedev(252, 3));
        fs::write(sys.path().join("dev"), "no numbers").unwrap();
        assert!(device_number(sys.path()).is_err());
    }
}
