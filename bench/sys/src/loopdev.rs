//! Loop devices: one file becomes one block device, tagged so that a later run recognises what an earlier
//! one left, and autoclearing so that the kernel takes it back when the last user has gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use linux_raw_sys::loop_device::{
    LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, LO_NAME_SIZE, LOOP_CLR_FD, LOOP_CONFIGURE,
    LOOP_CTL_ADD, LOOP_CTL_GET_FREE, LOOP_CTL_REMOVE, LOOP_GET_STATUS64, LOOP_SET_DIRECT_IO,
    loop_config, loop_info64,
};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

/// Where the kernel hands out free devices.
const CONTROL: &str = "/dev/loop-control";

/// Major number of loop devices (Documentation/admin-guide/devices.txt).
const LOOP_MAJOR: u64 = 7;

/// Others may take a free device between the asking and the configuring; this often we ask again.
const ATTEMPTS: u32 = 64;

/// Why there is no loop device.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The driver is not there.
    #[error("there is no {CONTROL}: the loop driver is not loaded")]
    NoDriver,
    /// Not allowed.
    #[error("no permission to {what}")]
    NotPermitted {
        /// The step that was refused.
        what: &'static str,
    },
    /// Every free device was taken by somebody else.
    #[error("other processes took {ATTEMPTS} free loop devices in a row; try again")]
    Contended,
    /// The tag does not fit.
    #[error("the tag `{0}` is longer than the {max} bytes a loop device keeps", max = LO_NAME_SIZE - 1)]
    TagTooLong(String),
    /// Anything else.
    #[error("cannot {what}: {error}")]
    Io {
        /// The step that failed.
        what: String,
        /// The system's answer.
        error: io::Error,
    },
}

/// A loop device of ours; dropping it detaches the file (or, while something still uses the device, marks
/// it to be cleared by the kernel on last close).
#[derive(Debug)]
pub struct LoopDevice {
    device: File,
    number: u32,
    path: PathBuf,
    made_node: bool,
    /// Our file is in it, so clearing it is ours to do.
    attached: bool,
    /// After the device is closed, as nobody else may have it open then.
    _added: Option<Added>,
}

/// A device that we added; taken away on drop.
#[derive(Debug)]
struct Added(u32);

/// How often, and how far apart, a device is tried to be taken away: udev may still look at it.
const REMOVALS: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

impl Drop for Added {
    fn drop(&mut self) {
        let Ok(control) = open(Path::new(CONTROL)) else {
            return;
        };
        for _ in 0..REMOVALS {
            // It stays, idle, if somebody keeps it open; a sweep takes it away.
            match remove(&control, self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                _ => return,
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
    }
}

impl LoopDevice {
    /// Attaches `backing` to a free device. `node_dir` is a private directory for the device node, used
    /// where /dev does not have it.
    pub fn attach(
        backing: impl AsFd,
        tag: &str,
        direct_io: bool,
        node_dir: &Path,
    ) -> Result<Self, LoopError> {
        Self::attach_to(find_free, backing, tag, direct_io, node_dir)
    }

    /// As [`LoopDevice::attach`], to a device that was made for it. A limit of the queue outlives the file
    /// attached, and a discard limit of 0 cannot be raised again where the granularity then reads 0
    /// (`blk_validate_limits`; seen on 6.18): such a device can neither discard nor write zeroes for good
    /// (`lo_fallocate`).
    pub fn attach_to_new(
        backing: impl AsFd,
        tag: &str,
        direct_io: bool,
        node_dir: &Path,
    ) -> Result<Self, LoopError> {
        Self::attach_to(add, backing, tag, direct_io, node_dir)
    }

    fn attach_to(
        find: impl Fn(&File) -> Result<(u32, Option<Added>), LoopError>,
        backing: impl AsFd,
        tag: &str,
        direct_io: bool,
        node_dir: &Path,
    ) -> Result<Self, LoopError> {
        if tag.len() >= LO_NAME_SIZE as usize {
            return Err(LoopError::TagTooLong(tag.to_owned()));
        }
        let control = open(Path::new(CONTROL)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => LoopError::NoDriver,
            _ => refused("open /dev/loop-control", error),
        })?;
        for _ in 0..ATTEMPTS {
            let (number, added) = find(&control)?;
            let mut device = match Self::open_node(number, node_dir) {
                // Another run's sweep took it for one left behind.
                Err(_) if added.is_some() => continue,
                other => other?,
            };
            match configure(&device.device, backing.as_fd().as_raw_fd(), tag, direct_io) {
                Ok(()) => {
                    device.attached = true;
                    device._added = added;
                    return Ok(device);
                }
                Err(error) => {
                    // Dropping it here removes the node and clears nothing.
                    if !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENXIO)) {
                        return Err(refused("configure a loop device", error));
                    }
                }
            }
        }
        Err(LoopError::Contended)
    }

    fn open_node(number: u32, node_dir: &Path) -> Result<Self, LoopError> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        match open(&path) {
            Ok(device) => {
                return Ok(LoopDevice {
                    device,
                    number,
                    path,
                    made_node: false,
                    attached: false,
                    _added: None,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refused("open a loop device", error)),
        }
        let path = node_dir.join(format!("loop{number}"));
        match mknod(
            &path,
            SFlag::S_IFBLK,
            Mode::S_IRUSR | Mode::S_IWUSR,
            makedev(LOOP_MAJOR, u64::from(number)),
        ) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(refused("make a loop device node", error.into())),
        }
        match open(&path) {
            Ok(device) => Ok(LoopDevice {
                device,
                number,
                path,
                made_node: true,
                attached: false,
                _added: None,
            }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(refused("open a loop device node of our own", error))
            }
        }
    }

    /// Where its node is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number: 3 for loop3.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The kernel's name for it, such as `loop3`.
    pub fn name(&self) -> String {
        format!("loop{}", self.number)
    }

    /// The open device.
    pub fn file(&self) -> &File {
        &self.device
    }

    /// Whether it reads the backing file directly; asked for, the driver may still find that it cannot.
    pub fn has_direct_io(&self) -> io::Result<bool> {
        let flags = status(&self.device)?.lo_flags;
        Ok(flags & LO_FLAGS_DIRECT_IO as u32 != 0)
    }

    /// Switches between reading the backing file through its page cache and directly.
    pub fn set_direct_io(&self, on: bool) -> io::Result<()> {
        // SAFETY: LOOP_SET_DIRECT_IO takes its argument by value.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                LOOP_SET_DIRECT_IO as libc::Ioctl,
                libc::c_ulong::from(on),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // With other openers the kernel only marks it; autoclear then does the rest, so an error changes nothing.
        if self.attached {
            let _ = clear(&self.device);
        }
        if self.made_node {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A device that nobody uses.
fn find_free(control: &File) -> Result<(u32, Option<Added>), LoopError> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a device number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as libc::Ioctl) };
    if number < 0 {
        let error = io::Error::last_os_error();
        return Err(refused("ask for a free loop device", error));
    }
    Ok((number.unsigned_abs(), None))
}

/// Numbers from here on are ours: what is idle there was left behind by a run that was killed.
const OWN: u32 = 40_000;

/// Takes away the devices that killed runs had added; how many. One that is in use stays.
pub fn remove_idle() -> io::Result<u32> {
    let control = match open(Path::new(CONTROL)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut removed = 0;
    for number in numbers()?.filter(|n| *n >= OWN) {
        let idle = !Path::new(&format!("/sys/block/loop{number}/loop")).exists();
        removed += u32::from(idle && remove(&control, number).is_ok());
    }
    Ok(removed)
}

/// The numbers of all loop devices.
fn numbers() -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir("/sys/block")?.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_prefix("loop")?.parse::<u32>().ok()
    }))
}

fn remove(control: &File, number: u32) -> io::Result<()> {
    // SAFETY: LOOP_CTL_REMOVE takes a device number by value.
    let result = unsafe {
        libc::ioctl(
            control.as_raw_fd(),
            LOOP_CTL_REMOVE as libc::Ioctl,
            libc::c_ulong::from(number),
        )
    };
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A device that was not there before.
fn add(control: &File) -> Result<(u32, Option<Added>), LoopError> {
    const WHAT: &str = "add a loop device";
    let numbers = numbers().map_err(|error| refused(WHAT, error))?;
    // Above all there are; a number of its own choosing is something that not every kernel gives.
    let first = numbers.max().map_or(OWN, |highest| OWN.max(highest + 1));
    for number in first..first + ATTEMPTS {
        // SAFETY: LOOP_CTL_ADD takes a device number by value.
        let result = unsafe {
            libc::ioctl(
                control.as_raw_fd(),
                LOOP_CTL_ADD as libc::Ioctl,
                libc::c_ulong::from(number),
            )
        };
        if result >= 0 {
            return Ok((number, Some(Added(number))));
        }
        let error = io::Error::last_os_error();
        // Somebody else adds devices too.
        if error.raw_os_error() != Some(libc::EEXIST) {
            return Err(refused(WHAT, error));
        }
    }
    Err(LoopError::Contended)
}

/// A loop device in use, whoever's it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopStatus {
    /// Its number.
    pub number: u32,
    /// The tag (`lo_file_name`), which for devices of other programs is a path.
    pub tag: String,
    /// The device number of the filesystem that its file is on, as stat(2) gives it.
    pub backing: u64,
}

/// Every loop device in use that can be looked at.
pub fn in_use() -> io::Result<Vec<LoopStatus>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(number) = name
            .to_str()
            .and_then(|n| n.strip_prefix("loop"))
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        // The directory exists while a file is attached; looking there first avoids opening idle devices.
        if !entry.path().join("loop").exists() {
            continue;
        }
        let status = File::open(format!("/dev/loop{number}")).and_then(|device| status(&device));
        if let Ok(info) = status {
            found.push(LoopStatus {
                number,
                tag: tag_of(&info),
                backing: info.lo_device,
            });
        }
    }
    found.sort_by_key(|status| status.number);
    Ok(found)
}

/// Detaches whatever file is attached to a device, for a sweep.
pub fn clear_number(number: u32) -> io::Result<()> {
    clear(&File::open(format!("/dev/loop{number}"))?)
}

fn clear(device: &File) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as libc::Ioctl) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn status(device: &File) -> io::Result<loop_info64> {
    let mut info = empty_info();
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64 to the pointer, which is a live local of that type.
    let result = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_GET_STATUS64 as libc::Ioctl,
            &raw mut info,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(info)
    }
}

fn tag_of(info: &loop_info64) -> String {
    let name = info
        .lo_file_name
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn configure(device: &File, backing: i32, tag: &str, direct_io: bool) -> io::Result<()> {
    let mut info = empty_info();
    info.lo_flags = LO_FLAGS_AUTOCLEAR as u32
        | if direct_io {
            LO_FLAGS_DIRECT_IO as u32
        } else {
            0
        };
    info.lo_file_name[..tag.len()].copy_from_slice(tag.as_bytes());
    let config = loop_config {
        fd: backing.unsigned_abs(),
        block_size: 0,
        info,
        __reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one loop_config from the pointer, which is a live local of that type,
    // and takes its own reference to the backing file.
    let result = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            LOOP_CONFIGURE as libc::Ioctl,
            &raw const config,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn empty_info() -> loop_info64 {
    // SAFETY: loop_info64 is a plain C struct of integers, for which all zeros is a value.
    unsafe { mem::zeroed() }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn refused(what: &'static str, error: io::Error) -> LoopError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => LoopError::NotPermitted { what },
        Some(libc::ENXIO | libc::ENODEV) if what.starts_with("open /dev/loop-control") => {
            LoopError::NoDriver
        }
        _ => LoopError::Io {
            what: what.to_owned(),
            error,
        },
    }
}
