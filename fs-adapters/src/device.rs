//! `--device DEV`: a real block device, taken only if nobody uses it and nothing is on it, or if the user
//! insists on the latter.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};
use punchbench_sys::{blk, mount};

use crate::tools::{BLKID, ToolError};

/// How long a probe for signatures may take.
const PROBE_TIME: Duration = Duration::from_secs(30);

/// blkid(8) -p: nothing was found.
const BLKID_NOTHING: i32 = 2;

/// How much must be zero for a device to count as empty where there is no blkid.
const HEAD: usize = 2 << 20;

/// The user's choice of a device.
#[derive(Debug, Clone)]
pub struct DeviceChoice {
    /// Its node.
    pub path: PathBuf,
    /// Take it even if something is on it. Never if it is in use.
    pub insist: bool,
}

/// Why a device is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a block device at all.
    #[error("{0} is not a block device")]
    NotBlock(String),
    /// Somebody uses it.
    #[error("{device} is in use ({how}); it is never taken")]
    InUse {
        /// The device.
        device: String,
        /// How.
        how: String,
    },
    /// Something is on it.
    #[error("{device} is not empty ({what}); everything on it would be lost: wipe it, or insist")]
    NotEmpty {
        /// The device.
        device: String,
        /// What was found.
        what: String,
    },
    /// It cannot serve.
    #[error("{device} cannot serve: {why}")]
    Unfit {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// A call failed.
    #[error("cannot {what} {device}: {error}")]
    Io {
        /// The step.
        what: &'static str,
        /// The device.
        device: String,
        /// The system's answer.
        error: io::Error,
    },
}

/// A device that was found free and fit.
#[derive(Debug)]
pub struct FreeDevice {
    /// Its node.
    pub path: PathBuf,
    /// Open for reading and writing.
    pub file: File,
    /// The kernel's name for it, such as `sdb`.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Looks a device over and opens it. Nothing is written to it here.
pub fn claim(choice: &DeviceChoice, minimum: u64) -> Result<FreeDevice, DeviceError> {
    let path = &choice.path;
    let device = path.display().to_string();
    let io_error = |what| {
        let device = device.clone();
        move |error| DeviceError::Io {
            what,
            device,
            error,
        }
    };
    let path = path.canonicalize().map_err(io_error("find"))?;
    let meta = fs::metadata(&path).map_err(io_error("look at"))?;
    if !meta.file_type().is_block_device() {
        return Err(DeviceError::NotBlock(device));
    }
    let numbers = (number(major(meta.rdev())), number(minor(meta.rdev())));
    if let Some(how) = use_of(&path, numbers).map_err(io_error("look for users of"))? {
        return Err(DeviceError::InUse { device, how });
    }
    // The kernel's own word, for all namespaces: exclusive opening fails while a mount, swap, md or dm holds
    // the device, one of its partitions, or the disk it is a partition of.
    let exclusive = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(&path);
    if let Err(error) = exclusive {
        return Err(match error.raw_os_error() {
            Some(code) if code == nix::errno::Errno::EBUSY as i32 => DeviceError::InUse {
                device,
                how: "the kernel says it is busy".to_owned(),
            },
            _ => io_error("open")(error),
        });
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(io_error("open"))?;
    let size = fit(&file, minimum, &device)?;
    if !choice.insist
        && let Some(what) = content(&path, &file).map_err(io_error("probe"))?
    {
        return Err(DeviceError::NotEmpty { device, what });
    }
    let sysfs = fs::canonicalize(format!("/sys/dev/block/{}:{}", numbers.0, numbers.1))
        .map_err(io_error("name"))?;
    let name = sysfs
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(FreeDevice {
        path,
        file,
        name,
        size,
    })
}

fn fit(file: &File, minimum: u64, device: &str) -> Result<u64, DeviceError> {
    let unfit = |why: String| DeviceError::Unfit {
        device: device.to_owned(),
        why,
    };
    let asked = |what: &'static str| {
        move |error: io::Error| format!("asking for its {what} failed: {error}")
    };
    let size = blk::size(file).map_err(asked("size")).map_err(unfit)?;
    if size < minimum {
        return Err(unfit(format!(
            "it has {} MiB, {} are needed",
            size >> 20,
            minimum >> 20
        )));
    }
    if blk::read_only(file).map_err(asked("mode")).map_err(unfit)? {
        return Err(unfit("it is read-only".to_owned()));
    }
    let block = blk::logical_block_size(file)
        .map_err(asked("block size"))
        .map_err(unfit)?;
    if block > 4096 {
        return Err(unfit(format!(
            "its blocks of {block} bytes are larger than the filesystems' 4096"
        )));
    }
    Ok(size)
}

/// Who uses it: a mount in any process's namespace, or swap.
fn use_of(path: &Path, numbers: (u32, u32)) -> io::Result<Option<String>> {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let is_it = |other: &str| {
        fs::metadata(other).is_ok_and(|meta| {
            meta.file_type().is_block_device()
                && (number(major(meta.rdev())), number(minor(meta.rdev()))) == numbers
        })
    };
    if swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .any(is_it)
    {
        return Ok(Some("swap".to_owned()));
    }
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name
            .to_str()
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        // A process may end while we look.
        let Ok(table) = mount::table_of(process) else {
            continue;
        };
        let found = table.iter().find(|entry| {
            // btrfs shows an anonymous device, so its source counts too.
            entry.device == numbers || Path::new(&entry.source) == path
        });
        if let Some(entry) = found {
            return Ok(Some(format!(
                "mounted at {} for process {process}",
                entry.at.display()
            )));
        }
    }
    Ok(None)
}

/// What is on it; `None` if nothing that is known.
fn content(path: &Path, file: &File) -> io::Result<Option<String>> {
    match BLKID.run([std::ffi::OsStr::new("-p"), path.as_os_str()], PROBE_TIME) {
        Ok(output) if output.status.code() == Some(BLKID_NOTHING) => Ok(None),
        Ok(output) => Ok(Some(format!("blkid says: {}", output.gist()))),
        Err(ToolError::Missing(_)) => {
            let mut head = vec![0; HEAD];
            file.read_exact_at(&mut head, 0)?;
            let dirty = head.iter().any(|byte| *byte != 0);
            Ok(dirty
                .then(|| "there is no blkid to ask, and its beginning is not all zeros".to_owned()))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Device numbers fit into 32 bits (MKDEV: 12 and 20).
fn number(part: u64) -> u32 {
    u32::try_from(part).unwrap_or(u32::MAX)
}
