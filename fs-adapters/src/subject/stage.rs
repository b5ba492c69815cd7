//! Setting the files up between passes, and finding out whether a direct read is direct.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use punchbench_race::{DirectIo, FileId, Stage, SubjectError};
use punchbench_sys::extents::extents;
use punchbench_sys::io::{AlignedBuf, DirectAlign, direct_align, write_back};
use punchbench_sys::map::{Mapping, Protection, page_size};

use super::evict::evict;
use super::{SubjectOptions, failed, refuses_direct};
use crate::reuse::extend;

/// The coordinator's descriptors.
#[derive(Debug)]
pub(super) struct SyscallStage {
    dir: File,
    files: Vec<(String, File)>,
    direct: DirectIo,
    step: Vec<u8>,
    options: SubjectOptions,
    path: PathBuf,
    /// Takes what space is left while freed blocks are to be reused.
    plug: Option<File>,
}

impl SyscallStage {
    pub(super) fn new(
        path: &Path,
        dir: File,
        options: SubjectOptions,
    ) -> Result<SyscallStage, SubjectError> {
        let direct = match options.direct {
            Some(direct) => direct,
            // Each file answers for itself, as it is added.
            None if options.fixed_size => DirectIo::Real,
            None => probe_direct_in(path)
                .map_err(failed("the probe of O_DIRECT", &path.to_string_lossy()))?,
        };
        Ok(SyscallStage {
            dir,
            files: Vec::new(),
            direct,
            step: vec![0; options.step.max(1)],
            options,
            path: path.to_owned(),
            plug: None,
        })
    }

    /// Takes over the next file of the scenario, in its order.
    pub(super) fn add(&mut self, name: &str, file: File) -> Result<(), SubjectError> {
        if self.options.fixed_size && self.direct == DirectIo::Real {
            self.direct = probe_direct(&file, &self.path.join(name))
                .map_err(failed("the probe of O_DIRECT", name))?;
        }
        self.files.push((name.to_owned(), file));
        Ok(())
    }
}

/// The file with a number, and its name.
fn file(files: &[(String, File)], id: FileId) -> Result<(&str, &File), SubjectError> {
    match files.get(usize::from(id)) {
        Some((name, file)) => Ok((name, file)),
        None => Err(failed("find", &format!("file {id}"))(
            io::ErrorKind::NotFound,
        )),
    }
}

impl Stage for SyscallStage {
    fn page(&self) -> u64 {
        page_size() as u64
    }

    fn prepare(
        &mut self,
        id: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError> {
        let (name, file) = file(&self.files, id)?;
        if self.options.fixed_size {
            let has = (&*file)
                .seek(SeekFrom::End(0))
                .map_err(failed("lseek", name))?;
            if has != size {
                let why = format!("{has} bytes cannot hold a file of {size}");
                return Err(failed("prepare", name)(io::Error::other(why)));
            }
        } else {
            file.set_len(0).map_err(failed("ftruncate", name))?;
        }
        let mut at = 0;
        while at < size {
            let len = (size - at).min(self.step.len() as u64);
            let piece = &mut self.step[..len as usize];
            fill(at, piece);
            file.write_all_at(piece, at)
                .map_err(failed("write", name))?;
            if self.options.apart {
                write_back(file.as_fd(), at, len).map_err(failed("sync_file_range", name))?;
            }
            at += len;
        }
        file.sync_all().map_err(failed("fsync", name))
    }

    fn hole(&mut self, id: FileId, size: u64) -> Result<(), SubjectError> {
        if self.options.fixed_size {
            return self.prepare(id, size, &mut |_, buf| buf.fill(0));
        }
        let (name, file) = file(&self.files, id)?;
        for len in [0, size] {
            file.set_len(len).map_err(failed("ftruncate", name))?;
        }
        file.sync_all().map_err(failed("fsync", name))
    }

    fn blocks(
        &mut self,
        id: FileId,
        range: Range<u64>,
    ) -> Result<Option<Vec<(u64, u64, u64)>>, SubjectError> {
        let (name, file) = file(&self.files, id)?;
        let found = extents(file.as_fd(), range).map_err(failed("FIEMAP", name))?;
        Ok(found.map(|found| found.iter().map(|e| (e.at, e.device, e.len)).collect()))
    }

    fn fill_up(&mut self, full: bool) -> Result<(), SubjectError> {
        if !self.options.may_fill {
            return Ok(());
        }
        if self.plug.is_none() {
            let plug = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(self.path.join("plug"))
                .map_err(failed("create", "plug"))?;
            self.plug = Some(plug);
        }
        let Some(plug) = &self.plug else {
            return Ok(());
        };
        if full {
            let at = fill_up(plug).map_err(failed("fill the filesystem with", "plug"))?;
            // A punch in the middle of an extent splits it first, and may need a block to write that down:
            // ext4_ext_remove_space() then says ENOSPC, since set-up took its reserved clusters.
            let left = at.saturating_sub(METADATA_SLACK);
            plug.set_len(left).map_err(failed("ftruncate", "plug"))?;
            self.commit()
        } else {
            plug.set_len(0).map_err(failed("ftruncate", "plug"))?;
            self.commit()
        }
    }

    fn commit(&mut self) -> Result<(), SubjectError> {
        if self.options.fixed_size {
            // The directory only has the nodes.
            let mut files = self.files.iter();
            return files
                .try_for_each(|(name, file)| file.sync_all().map_err(failed("fsync", name)));
        }
        nix::unistd::syncfs(&self.dir).map_err(failed("syncfs", "the mount"))
    }

    fn direct(&self) -> DirectIo {
        self.direct
    }

    fn cache_is_store(&self) -> bool {
        self.options.cache_is_store
    }
}

/// What a full filesystem keeps for its own trees: more leaves of extents than the files of a scenario fill.
const METADATA_SLACK: u64 = 128 << 10;

/// Allocates at the end of a file until nothing is left, and says how much that was. What fallocate finds no room for a write may: xfs
/// reserves blocks of the extent tree for every allocation (XFS_DIOSTRAT_SPACE_RES), and fewer for a delayed one.
fn fill_up(plug: &File) -> io::Result<u64> {
    let at = until_full(0, |at, len| extend(plug, at, len))?;
    let zeros = vec![0; MOST_STEP as usize];
    until_full(at, |at, len| plug.write_all_at(&zeros[..len as usize], at))
}

/// Calls `allocate(at, length)` with ever smaller lengths, until not even a page is left, and says where.
fn until_full(
    mut at: u64,
    mut allocate: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<u64> {
    let mut step = MOST_STEP;
    while step >= LEAST_STEP {
        match allocate(at, step) {
            Ok(()) => at += step,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => step /= 2,
            Err(error) => return Err(error),
        }
    }
    Ok(at)
}

const MOST_STEP: u64 = 4 << 20;
const LEAST_STEP: u64 = 4 << 10;

/// As [`probe_direct`], on a new file.
fn probe_direct_in(dir: &Path) -> io::Result<DirectIo> {
    let named = tempfile::Builder::new()
        .prefix("direct-probe-")
        .tempfile_in(dir)?;
    probe_direct(named.as_file(), named.path())
}

/// Writes the beginning of a file, reads it evicted with O_DIRECT and looks whether its pages came into the page cache: data=journal,
/// compression and others open with O_DIRECT and then read through the cache. What cannot be evicted in
/// the first place counts as buffered, since it would confirm nothing.
fn probe_direct(file: &File, path: &Path) -> io::Result<DirectIo> {
    // Above any filesystem's inline data.
    const SIZE: u64 = 128 << 10;
    let mut buf = AlignedBuf::new(SIZE as usize, 4096);
    buf.fill(0x5a);
    file.write_all_at(&buf, 0)?;
    if direct_align(file.as_fd())? == DirectAlign::None {
        return Ok(DirectIo::None);
    }
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path);
    let direct = match direct {
        Ok(direct) => direct,
        Err(error) if refuses_direct(&error) => return Ok(DirectIo::None),
        Err(error) => return Err(error),
    };
    let probe = Mapping::new(file.as_fd(), SIZE, Protection::Read)?;
    if !evict(file, &probe, 0..SIZE)? {
        return Ok(DirectIo::Buffered);
    }
    match direct.read_at(&mut buf, 0) {
        Ok(_) if probe.any_resident(0..SIZE)? => Ok(DirectIo::Buffered),
        Ok(_) => Ok(DirectIo::Real),
        Err(error) if refuses_direct(&error) => Ok(DirectIo::None),
        Err(error) => Err(error),
    }
}
