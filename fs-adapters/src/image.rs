//! The file behind a loop device: without a name, so that it goes when its last user does; on the fastest
//! place with room; fully allocated, because running out of backing space later is an I/O error that
//! accuses the kernel; and stamped, so that a byte no file wrote is known for what it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::mounted::block_size;

/// How much an image holds unless the filesystem needs more.
pub const USUAL_SIZE: u64 = 320 << 20;

/// Memory left for the actors, the tools and the page cache above an image in memory.
const MEMORY_RESERVE: u64 = 192 << 20;

/// Left free on a disk that holds an image.
const DISK_RESERVE: u64 = 64 << 20;

/// What an image's size is a multiple of, and is stamped by.
pub(crate) const STEP: usize = 1 << 20;

/// How the error begins that tells of a lack of room.
pub const NO_ROOM: &str = "no room for an image";

/// Gives the background: the bytes of a stretch of the device that starts at an offset.
pub type Background<'a> = &'a dyn Fn(u64, &mut [u8]);

/// An image ready for mkfs.
#[derive(Debug)]
pub struct Image {
    /// The open file; it has no name.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is, in words for the record.
    pub place: String,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Nowhere enough room.
    #[error(
        "{} of {need_mib} MiB: {tried}; free some, or name a directory with --image-dir",
        NO_ROOM
    )]
    NoRoom {
        /// What is needed.
        need_mib: u64,
        /// What was found where.
        tried: String,
    },
    /// A call failed.
    #[error("cannot {what} an image in {place}: {error}")]
    Io {
        /// The step.
        what: &'static str,
        /// The directory.
        place: String,
        /// The system's answer.
        error: io::Error,
    },
}

/// A directory that may hold an image.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    in_memory: bool,
    room: u64,
}

/// Which places come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// Memory, which is faster.
    Memory,
    /// A disk, whose filesystem can do more than tmpfs.
    Disk,
}

/// Makes an image of `usual` bytes, or of whatever between `minimum` and that has room. A directory that
/// the user named is used or nothing.
pub fn create(
    named: Option<&Path>,
    prefer: Prefer,
    minimum: u64,
    usual: u64,
    background: Background<'_>,
) -> Result<Image, ImageError> {
    let place = choose(named, prefer, minimum)?;
    let size = place.room.min(usual.max(minimum)) / STEP as u64 * STEP as u64;
    let kind = if place.in_memory { "tmpfs" } else { "disk" };
    let text = format!("{} MiB in {} ({kind})", size >> 20, place.path.display());
    let file = tempfile::tempfile_in(&place.path).map_err(|error| ImageError::Io {
        what: "open",
        place: place.path.display().to_string(),
        error,
    })?;
    allocate(&file, size).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull => ImageError::NoRoom {
            need_mib: size >> 20,
            tried: format!("{text} ran out while allocating"),
        },
        _ => ImageError::Io {
            what: "allocate",
            place: text.clone(),
            error,
        },
    })?;
    stamp(&file, size, background).map_err(|error| ImageError::Io {
        what: "stamp",
        place: text.clone(),
        error,
    })?;
    Ok(Image {
        file,
        size,
        place: text,
    })
}

fn choose(named: Option<&Path>, prefer: Prefer, minimum: u64) -> Result<Place, ImageError> {
    let candidates: Vec<PathBuf> = match named {
        Some(directory) => vec![directory.to_owned()],
        None => {
            let temporary = std::env::temp_dir();
            ["/dev/shm", "/tmp"]
                .map(PathBuf::from)
                .into_iter()
                .chain([temporary, "/var/tmp".into()])
                .collect()
        }
    };
    let mut places: Vec<Place> = candidates
        .into_iter()
        .filter_map(|path| measure(path).ok())
        .collect();
    places.sort_by_key(|place| place.in_memory != (prefer == Prefer::Memory));
    let tried: Vec<String> = places
        .iter()
        .map(|place| {
            format!(
                "{} has {} MiB to give",
                place.path.display(),
                place.room >> 20
            )
        })
        .collect();
    places
        .into_iter()
        .find(|place| place.room >= minimum)
        .ok_or_else(|| ImageError::NoRoom {
            need_mib: minimum >> 20,
            tried: if tried.is_empty() {
                "no directory to put it".to_owned()
            } else {
                tried.join(", ")
            },
        })
}

fn measure(path: PathBuf) -> io::Result<Place> {
    let stat = statfs(&path)?;
    let free = stat.blocks_available() * block_size(&stat);
    let in_memory = stat.filesystem_type() == TMPFS_MAGIC;
    let room = if in_memory {
        free.min(memory_available()?.saturating_sub(MEMORY_RESERVE))
    } else {
        free.saturating_sub(DISK_RESERVE)
    };
    Ok(Place {
        path,
        in_memory,
        room,
    })
}

/// Bytes of memory that the kernel thinks can be had without swapping.
pub fn memory_available() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .map(|kib| kib * 1024)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "/proc/meminfo has no MemAvailable",
            )
        })
}

fn allocate(file: &File, size: u64) -> io::Result<()> {
    let len = i64::try_from(size).map_err(io::Error::other)?;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // The stamps allocate every block too; only the error would come later.
        Err(Errno::EOPNOTSUPP) => file.set_len(size),
        Err(error) => Err(error.into()),
    }
}

/// Writes the background over the first `size` bytes.
pub(crate) fn stamp(file: &File, size: u64, background: Background<'_>) -> io::Result<()> {
    let mut piece = vec![0; STEP];
    let mut at = 0;
    while at < size {
        let now = usize::try_from(size - at).map_or(STEP, |left| left.min(STEP));
        background(at, &mut piece[..now]);
        file.write_all_at(&piece[..now], at)?;
        at += now as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_image_is_nameless_dense_and_stamped() {
        let directory = tempfile::tempdir().unwrap();
        let image = create(
            Some(directory.path()),
            Prefer::Memory,
            3 << 20,
            3 << 20,
            &|at, bytes| {
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = ((at + i as u64) >> 12) as u8 ^ 0xA5;
                }
            },
        )
        .unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let meta = image.file.metadata().unwrap();
        assert_eq!(meta.len(), 3 << 20);
        assert!(meta.blocks() * 512 >= 3 << 20, "it is sparse");
        let mut byte = [0];
        image
            .file
            .read_exact_at(&mut byte, (2 << 20) + 4096)
            .unwrap();
        assert_eq!(byte[0], 0x01 ^ 0xA5);
    }

    #[test]
    fn too_large_an_image_is_refused_with_what_there_is() {
        let error = create(None, Prefer::Disk, 1 << 60, 1 << 60, &|_, _| {}).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("--image-dir") && text.contains("MiB to give"),
            "{text}"
        );
    }
}
