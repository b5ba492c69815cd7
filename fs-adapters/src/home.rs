//! Where a filesystem of ours lives, and what has to be undone when it is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use punchbench_sys::blk;
use punchbench_sys::io::AlignedBuf;
use punchbench_sys::loopdev::LoopDevice;
use tempfile::TempDir;

use crate::adapter::FixedFile;
use crate::hold::{DmDelay, Holder, ImageServer};
use crate::mounted::Mounted;
use crate::set_up::{SetUpError, open_uncached};

/// How much of a real device's beginning is cleared when we are done, so that no signature is left.
const HEAD: usize = 2 << 20;

/// Where a filesystem lives. Fields are released in the order in which they stand.
#[derive(Debug)]
pub(crate) enum Home {
    /// A loop device over an unnamed file.
    Loop {
        discard: DiscardOff,
        /// Over the device, to hold I/O.
        delay: Option<Box<DmDelay>>,
        device: LoopDevice,
        /// Between the device and the image, to hold I/O; ends when the device has gone.
        server: Option<ImageServer>,
        image: File,
        size: u64,
        _nodes: TempDir,
    },
    /// A real device.
    Device {
        discard: DiscardOff,
        device: RealDevice,
    },
    /// Something of its own for each file.
    Fixed(Vec<Box<dyn FixedFile>>),
    /// A directory of another filesystem of ours, over which this one lies.
    Layer(Box<Mounted>),
    /// The page cache.
    Memory,
    /// Somebody else's filesystem.
    Directory,
}

impl Home {
    /// The device's node and how much of it is used.
    pub fn device(&self) -> Option<(&Path, u64)> {
        match self {
            Home::Loop {
                delay: Some(delay),
                size,
                ..
            } => Some((delay.path(), *size)),
            Home::Loop { device, size, .. } => Some((device.path(), *size)),
            Home::Device { device, .. } => Some((&device.path, device.size)),
            Home::Layer(below) => below.home().device(),
            Home::Fixed(_) | Home::Memory | Home::Directory => None,
        }
    }

    /// What holds chosen I/O of the device, if it was set up so.
    pub fn holder(&self) -> Option<&dyn Holder> {
        match self {
            Home::Loop { server, delay, .. } => match (server, delay) {
                (Some(server), _) => Some(server),
                (None, Some(delay)) => Some(&**delay),
                (None, None) => None,
            },
            Home::Layer(below) => below.home().holder(),
            // Of several devices, a place would have to say on which it is.
            Home::Fixed(files) => match &files[..] {
                [one] => one.holder(),
                _ => None,
            },
            Home::Device { .. } | Home::Memory | Home::Directory => None,
        }
    }

    /// Whether the device itself was seen to have discard off.
    pub fn discard_off(&self) -> bool {
        match self {
            Home::Loop { discard, .. } | Home::Device { discard, .. } => discard.off,
            Home::Layer(below) => below.home().discard_off(),
            Home::Fixed(_) | Home::Memory | Home::Directory => false,
        }
    }

    /// Reads what is on the medium, not through the device's page cache. `None` where there is no medium.
    /// Offset and length in multiples of 4096.
    pub fn read_at(&self, at: u64, buf: &mut [u8]) -> Option<io::Result<()>> {
        match self {
            // The loop driver, or the server, writes through this very file, so its page cache is the medium.
            Home::Loop { image, .. } => Some(image.read_exact_at(buf, at)),
            Home::Device { device, .. } => Some(read_direct(&device.path, at, buf)),
            Home::Layer(below) => below.home().read_at(at, buf),
            Home::Fixed(_) | Home::Memory | Home::Directory => None,
        }
    }
}

fn read_direct(path: &PathBuf, at: u64, buf: &mut [u8]) -> io::Result<()> {
    let file = open_uncached(path)?;
    let mut aligned = AlignedBuf::new(buf.len(), 4096);
    file.read_exact_at(&mut aligned, at)?;
    buf.copy_from_slice(&aligned);
    Ok(())
}

/// A real device that was claimed; its beginning is cleared on drop.
#[derive(Debug)]
pub(crate) struct RealDevice {
    pub path: PathBuf,
    pub file: File,
    pub size: u64,
}

impl Drop for RealDevice {
    fn drop(&mut self) {
        // Only if nothing is mounted on it any more; and best effort: what stays is a signature of ours.
        let exclusive = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_EXCL.bits())
            .open(&self.path);
        if let Ok(file) = exclusive {
            let _ = file
                .write_all_at(&vec![0; HEAD], 0)
                .and_then(|()| file.sync_all());
        }
    }
}

/// A device's queue with discard switched off; switched back when dropped, where the kernel lets us: while
/// discard is off, newer ones say that its granularity is 0 (`blk_validate_limits`), and then refuse any limit
/// as no multiple of it (seen on 6.18).
#[derive(Debug)]
pub(crate) struct DiscardOff {
    name: String,
    /// The limit to go back to; 0 for none.
    after: u64,
    off: bool,
}

impl DiscardOff {
    /// Of a loop device. The limit outlives the file attached, so a killed run has left 0 to the next user,
    /// which may be us: it goes back to what the device can do, not to what was found.
    pub fn of_loop(name: &str, facts: &mut Vec<String>) -> Result<Self, SetUpError> {
        Self::switch_off(name, blk::discard_hardware_limit(name), facts)
    }

    /// Of a real device. It goes back to what was found.
    pub fn of_device(name: &str, facts: &mut Vec<String>) -> Result<Self, SetUpError> {
        Self::switch_off(name, blk::discard_limit(name), facts)
    }

    /// Switches it off and reads back that it is; where sysfs cannot be written that is a note, as mkfs and
    /// mount are told too and a freed block is looked at afterwards.
    fn switch_off(
        name: &str,
        after: io::Result<u64>,
        facts: &mut Vec<String>,
    ) -> Result<Self, SetUpError> {
        let set = after.and_then(|after| {
            // A device that cannot discard has nothing to be set.
            if after > 0 {
                blk::set_discard_limit(name, 0)?;
            }
            Ok((after, blk::discard_limit(name)?))
        });
        let name = name.to_owned();
        match set {
            Ok((after, 0)) => {
                facts.push(format!("discard: off in the queue of {name}"));
                Ok(DiscardOff {
                    name,
                    after,
                    off: true,
                })
            }
            Ok((_, limit)) => Err(SetUpError::Error(format!(
                "{name} still discards up to {limit} bytes after its limit was set to 0"
            ))),
            Err(error) => {
                facts.push(format!(
                    "discard: the queue of {name} could not be switched off ({error})"
                ));
                Ok(DiscardOff {
                    name,
                    after: 0,
                    off: false,
                })
            }
        }
    }
}

impl Drop for DiscardOff {
    fn drop(&mut self) {
        if self.after > 0 {
            let _ = blk::set_discard_limit(&self.name, self.after);
        }
    }
}
