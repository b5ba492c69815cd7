//! One mount of ours on a directory of our own: made, undone, made again, and never left behind.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use punchbench_sys::mount;
use tempfile::TempDir;

use crate::adapters::fuse::Server;
use crate::set_up::SetUpError;
use crate::user::ROOT_WOULD_ADD;

/// How long an unmount waits for the last user to go.
const BUSY_TIME: Duration = Duration::from_secs(3);

/// Pause between tries: nothing tells when a mount stops being busy.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Where the kernel is told that a server for a FUSE mount is there (fuse(4)).
const DEV_FUSE: &str = "/dev/fuse";

/// What mount(2) is told.
#[derive(Debug)]
pub(crate) struct What {
    /// The device, or free text that carries our tag.
    pub source: String,
    /// The type.
    pub fstype: String,
    /// The options.
    pub data: String,
    /// The directory that a server of ours passes on, where the type is fuse.
    pub served: Option<PathBuf>,
}

/// A mount of ours; unmounted on drop.
#[derive(Debug)]
pub(crate) struct MountPoint {
    what: What,
    mounted: bool,
    server: Option<Server>,
    /// After the mount has gone.
    directory: TempDir,
}

impl MountPoint {
    pub fn mount(directory: TempDir, what: What) -> Result<Self, SetUpError> {
        let mut point = MountPoint {
            what,
            mounted: false,
            server: None,
            directory,
        };
        point.mount_again()?;
        Ok(point)
    }

    /// Where it is.
    pub fn at(&self) -> &Path {
        self.directory.path()
    }

    pub fn mount_again(&mut self) -> Result<(), SetUpError> {
        match self.what.served.clone() {
            Some(below) => self.mount_served(&below)?,
            None => self.call_mount(&self.what.data)?,
        }
        self.mounted = true;
        if let Some(device) = Path::new(&self.what.source).file_name() {
            // ext4 keeps clusters back for delayed allocation; without them an allocator in need commits by
            // itself, and a full filesystem is full. The others have no such file.
            let path = Path::new("/sys/fs/ext4")
                .join(device)
                .join("reserved_clusters");
            let _ = std::fs::write(path, "0");
        }
        Ok(())
    }

    fn mount_served(&mut self, below: &Path) -> Result<(), SetUpError> {
        let line = File::options()
            .read(true)
            .write(true)
            .open(DEV_FUSE)
            .map_err(SetUpError::io(format!("open {DEV_FUSE}")))?;
        let data = format!("fd={},{}", line.as_raw_fd(), self.what.data);
        self.call_mount(&data)?;
        self.mounted = true;
        // Ours of the descriptor goes here: when the server's has gone too, all who wait get an error.
        let server = Server::start(line, below, self.at());
        self.server = Some(server.map_err(SetUpError::io("start a FUSE server"))?);
        Ok(())
    }

    fn call_mount(&self, data: &str) -> Result<(), SetUpError> {
        let What { source, fstype, .. } = &self.what;
        mount::mount(source, self.at(), fstype, data).map_err(|error| {
            let what = format!("mount {source} as {fstype} with `{data}`");
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENODEV) => SetUpError::skipped(
                    format!("the kernel has no {fstype}"),
                    format!("load the module {fstype}"),
                ),
                Some(Errno::EPERM | Errno::EACCES) => {
                    SetUpError::skipped(format!("not allowed to {what}"), ROOT_WOULD_ADD)
                }
                _ => SetUpError::Error(format!("cannot {what}: {error} (the kernel log has more)")),
            }
        })
    }

    pub fn unmount(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + BUSY_TIME;
        while self.mounted {
            match mount::unmount(self.at()) {
                Ok(()) => self.mounted = false,
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(BUSY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        // It holds files below until it has ended.
        self.server = None;
        Ok(())
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if self.mounted && mount::unmount(self.at()).is_err() {
            // Somebody still holds a file: the mount leaves the namespace now, the filesystem with its last user.
            let _ = mount::detach(self.at());
        }
    }
}
