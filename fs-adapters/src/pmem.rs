//! Persistent memory made of RAM: where a kernel was booted with `memmap=SIZE!START`, that range is a pmem
//! device (drivers/nvdimm/e820.c) that serves DAX. Nobody's data can live there, and real persistent memory is
//! never taken: it is told by the provider of its bus.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::set_up::SetUpError;
use crate::tools::MODPROBE;

/// What a kernel has of it as modules.
pub const MODULES: [&str; 2] = ["nd_e820", "nd_pmem"];

/// How the bus of such memory says who made it (`nd_desc.provider_name` of drivers/nvdimm/e820.c).
const PROVIDER: &str = "e820";

/// How long loading a driver may take.
const MODPROBE_TIME: Duration = Duration::from_secs(60);

/// How long the device may take to appear: its bus looks for devices in the background.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between looks, as no event tells this process of it.
const PAUSE: Duration = Duration::from_millis(20);

/// The node of such a device.
pub fn find() -> Result<PathBuf, SetUpError> {
    let sys = Path::new("/sys/block");
    if let Some(found) = find_in(sys) {
        return Ok(found);
    }
    let loads = |name: &&&str| {
        let output = MODPROBE.run(["-q", "--", **name], MODPROBE_TIME);
        output.is_ok_and(|output| output.status.success())
    };
    let loaded = MODULES.iter().filter(loads).count();
    let deadline = Instant::now() + PATIENCE;
    while loaded == MODULES.len() && Instant::now() < deadline {
        if let Some(found) = find_in(sys) {
            return Ok(found);
        }
        thread::sleep(PAUSE);
    }
    Err(SetUpError::skipped(
        "there is no persistent memory made of RAM here",
        "boot with `memmap=384M!1G`, or run with --kernel, which does",
    ))
}

/// Looks through the block devices.
fn find_in(sys: &Path) -> Option<PathBuf> {
    let devices = fs::read_dir(sys).ok()?.flatten();
    let mut names = devices.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let place = fs::canonicalize(entry.path()).ok()?;
        let provider = place
            .ancestors()
            .find_map(|dir| fs::read_to_string(dir.join("provider")).ok())?;
        (name.starts_with("pmem") && provider.trim() == PROVIDER).then_some(name)
    });
    Some(Path::new("/dev").join(names.next()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_memory_that_was_made_of_ram_is_taken() {
        let tree = tempfile::tempdir().unwrap();
        let sys = tree.path().join("block");
        fs::create_dir(&sys).unwrap();
        let device = |name: &str, bus: &str, provider: &str| {
            let bus = tree.path().join(bus);
            let place = bus.join("region0/namespace0.0/block").join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(bus.join("provider"), provider).unwrap();
            symlink(&place, sys.join(name)).unwrap();
        };
        device("pmem0", "ndbus0", "ACPI.NFIT\n");
        device("sda", "ndbus2", "e820\n");
        assert_eq!(find_in(&sys), None);
        device("pmem1", "ndbus1", "e820\n");
        assert_eq!(find_in(&sys), Some(PathBuf::from("/dev/pmem1")));
        assert_eq!(find_in(Path::new("/nonexistent")), None);
    }
}
