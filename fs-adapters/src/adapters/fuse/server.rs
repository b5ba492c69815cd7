//! The FUSE server: passes the files of one directory on, request by request, as plainly as can be: no cache
//! of its own, no options but the kernel's usual ones. So it is the kernel's page cache that is raced.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyStatfs, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, unlinkat};
use punchbench_sys::mount;

/// How long the kernel may go by names and attributes that it was told.
const VALID: Duration = Duration::from_secs(1);

/// Threads: a fill and a punch must be able to meet here too.
const THREADS: usize = 2;

/// Serves the directory `below` to the kernel at the other end of standard input until it is unmounted at
/// `mounted`. For the hidden command that a mount starts this program with.
pub fn serve(below: &Path, mounted: &Path) -> io::Result<()> {
    // In a namespace of its own where neither is mounted any more: else this process, killed as the last of its
    // namespace, would unmount what it serves itself, and wait for its own answer.
    mount::enter_private_namespace()?;
    let line = io::stdin().as_fd().try_clone_to_owned()?;
    let root = File::open(below)?;
    let filesystem_below = mount::mount_of(below)?.at;
    mount::detach(mounted)?;
    mount::detach(&filesystem_below)?;
    let files = Mutex::new(HashMap::new());
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.acl = SessionACL::All;
    let session = Session::from_fd(PassOn { root, files }, line, SessionACL::All, config)?;
    session.run()
}

/// The files that the kernel knows of, by inode; the numbers are those of the filesystem below, which does not
/// give one anew as long as we have the file open.
#[derive(Debug)]
struct PassOn {
    root: File,
    files: Mutex<HashMap<u64, Known>>,
}

#[derive(Debug)]
struct Known {
    file: Arc<File>,
    /// How often the kernel was told of it; it says when it forgets.
    lookups: u64,
}

impl PassOn {
    fn files(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, ino: INodeNo) -> io::Result<Arc<File>> {
        let files = self.files();
        let known = files.get(&u64::from(ino));
        known
            .map(|known| Arc::clone(&known.file))
            .ok_or_else(|| nix::errno::Errno::ESTALE.into())
    }

    /// Opens a file in the directory, and counts that the kernel is told of it.
    fn tell(&self, name: &OsStr, flags: OFlag, mode: Mode) -> io::Result<FileAttr> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(openat(&self.root, name, flags, mode)?);
        let attr = attributes(&file)?;
        let mut files = self.files();
        let known = files.entry(u64::from(attr.ino)).or_insert_with(|| Known {
            file: Arc::new(file),
            lookups: 0,
        });
        known.lookups += 1;
        Ok(attr)
    }

    fn attributes_of(&self, ino: INodeNo) -> io::Result<FileAttr> {
        if ino == INodeNo::ROOT {
            let root = attributes(&self.root)?;
            return Ok(FileAttr { ino, ..root });
        }
        attributes(&*self.file(ino)?)
    }

    fn write_at(&self, ino: INodeNo, offset: u64, data: &[u8]) -> io::Result<u32> {
        let written = self.file(ino)?.write_at(data, offset)?;
        u32::try_from(written).map_err(io::Error::other)
    }

    fn allocate(&self, ino: INodeNo, offset: u64, length: u64, mode: i32) -> io::Result<()> {
        let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
        let flags = FallocateFlags::from_bits_retain(mode);
        fallocate(&*self.file(ino)?, flags, signed(offset)?, signed(length)?)?;
        Ok(())
    }
}

fn attributes(file: &File) -> io::Result<FileAttr> {
    let meta = file.metadata()?;
    let time = |at: io::Result<SystemTime>| at.unwrap_or(SystemTime::UNIX_EPOCH);
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(FileAttr {
        ino: INodeNo(meta.ino()),
        size: meta.len(),
        blocks: meta.blocks(),
        atime: time(meta.accessed()),
        mtime: time(meta.modified()),
        ctime: time(meta.modified()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(meta.file_type()).unwrap_or(FileType::RegularFile),
        perm: (meta.mode() & 0o7777) as u16,
        nlink: small(meta.nlink()),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: small(meta.blksize()),
        flags: 0,
    })
}

/// Answers with what was done, or with the error.
fn empty(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(Errno::from(error)),
    }
}

impl Filesystem for PassOn {
    fn lookup(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tell(name, OFlag::empty(), Mode::empty()) {
            Ok(attr) => reply.entry(&VALID, &attr, Generation(0)),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let mut files = self.files();
        if let Some(known) = files.get_mut(&u64::from(ino)) {
            known.lookups = known.lookups.saturating_sub(nlookup);
            if known.lookups == 0 {
                files.remove(&u64::from(ino));
            }
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes_of(ino) {
            Ok(attr) => reply.attr(&VALID, &attr),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    /// The size is all that the scenarios set.
    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = match size {
            Some(size) => self.file(ino).and_then(|file| file.set_len(size)),
            None => Ok(()),
        };
        match done.and_then(|()| self.attributes_of(ino)) {
            Ok(attr) => reply.attr(&VALID, &attr),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn create(
        &self,
        _req: &Request,
        _parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let asked = OFlag::from_bits_truncate(flags) & (OFlag::O_EXCL | OFlag::O_TRUNC);
        let mode = Mode::from_bits_truncate(mode & !umask);
        match self.tell(name, asked | OFlag::O_CREAT, mode) {
            Ok(attr) => {
                let flags = FopenFlags::empty();
                reply.created(&VALID, &attr, Generation(0), FileHandle(0), flags);
            }
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn unlink(&self, _req: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = unlinkat(&self.root, name, UnlinkatFlags::NoRemoveDir);
        empty(reply, done.map_err(io::Error::from));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; size as usize];
        let got = self
            .file(ino)
            .and_then(|file| file.read_at(&mut data, offset));
        match got {
            Ok(len) => reply.data(&data[..len]),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write_at(ino, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(Errno::from(error)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.file(ino).and_then(|file| file.sync_all()));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.allocate(ino, offset, length, mode));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let block = |size: u64| u32::try_from(size).unwrap_or(4096);
        match fstatvfs(&self.root) {
            Ok(stat) => reply.statfs(
                stat.blocks(),
                stat.blocks_free(),
                stat.blocks_available(),
                stat.files(),
                stat.files_free(),
                block(stat.block_size()),
                255,
                block(stat.fragment_size()),
            ),
            Err(error) => reply.error(Errno::from(io::Error::from(error))),
        }
    }
}
