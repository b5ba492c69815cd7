//! How a block that one file gave up comes to belong to another (ORACLE section 3), and the ballast that
//! leaves the allocator no other choice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::mounted::Mounted;

/// How a freed block gets a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It can be had, so.
    Plan(ReusePlan),
    /// It cannot be had or not be seen, and why.
    Never(&'static str),
}

/// What must be done for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReusePlan {
    /// A block freed is free to others only after the transaction commits: syncfs between operation and reuser.
    pub commit: bool,
    /// The victim must be written in pieces of their own, no larger than a round's chunk, because an extent is
    /// free only once no part of it is referenced.
    pub piecewise: bool,
    /// The allocator never takes freed blocks while there are others: without filling up, there is no reuse.
    pub fill: bool,
    /// The least that must be freed in one piece before anything is, in bytes; 0 for a block.
    pub unit: u64,
}

/// The most one call allocates: small enough that little is lost when it fails.
const STEP: u64 = 64 << 20;

/// A bound on the number of allocations; a filesystem of the usual size takes about ten.
const STEPS: u32 = 4096;

/// A file that takes up space until dropped. Some filesystems give the space back a little later.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
    /// How much it takes.
    pub bytes: u64,
}

impl Ballast {
    /// Fills a filesystem of ours up but for `leave` bytes. Refused for a directory of somebody else's.
    pub fn fill(mounted: &Mounted, leave: u64) -> io::Result<Ballast> {
        if mounted.is_foreign() {
            let why = "a directory on a filesystem in use is never filled up";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        // What is to be left is held by a file of its own meanwhile: a piece of a larger extent would not
        // come free (btrfs), and what statfs calls free is not what can be had.
        let (spare, held) = Ballast::new(mounted, "spare")?;
        extend(&held, 0, leave)?;
        let (mut ballast, file) = Ballast::new(mounted, "ballast")?;
        let mut step = STEP;
        for _ in 0..STEPS {
            match extend(&file, ballast.bytes, step) {
                Ok(()) => ballast.bytes += step,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    step /= 2;
                    if step < mounted.geometry().block {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        // Truncated first, as what an unlink frees may come free in the background (xfs).
        held.set_len(0)?;
        drop(held);
        drop(spare);
        nix::unistd::syncfs(&file)?;
        Ok(ballast)
    }

    fn new(mounted: &Mounted, name: &str) -> io::Result<(Ballast, File)> {
        let path = mounted.dir().join(name);
        let file = File::create_new(&path)?;
        Ok((Ballast { path, bytes: 0 }, file))
    }
}

/// Allocates a range at the end, by writing where fallocate is not known (ext2 and ext3 formats).
pub(crate) fn extend(mut file: &File, at: u64, len: u64) -> io::Result<()> {
    let offset = |value: u64| i64::try_from(value).map_err(io::Error::other);
    match fallocate(file, FallocateFlags::empty(), offset(at)?, offset(len)?) {
        Ok(()) => return Ok(()),
        Err(Errno::EOPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let piece = vec![0xBB; 1 << 20];
    let mut left = len;
    io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
    while left > 0 {
        let now = left.min(piece.len() as u64);
        file.write_all(&piece[..usize::try_from(now).map_err(io::Error::other)?])?;
        left -= now;
    }
    // Delayed allocation says only now whether there is room.
    file.sync_data()
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
