//! The trial's side of its image's server: starts it, mounts its one file for as long as it takes to open it,
//! and passes orders on. What is left of all this is a file: the loop device over it keeps the connection, and
//! with the device goes the connection, and with the connection the server.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::stat::minor;
use punchbench_sys::fdpass;
use punchbench_sys::mount;
use punchbench_sys::process::Pidfd;
use punchbench_sys::spawn::die_with_parent;

use super::fusectl;
use super::holder::{HeldIo, HoldError, HoldId, HoldSpec, Holder, Mark, Seen};
use super::server::{FILE, REQUEST};
use super::wire::{self, Answer, Order};
use crate::kernel::{self, Support};
use crate::tag::{ENVIRONMENT, Tag};

/// The hidden command with which the program serves an image.
pub const COMMAND: &str = "serve-image";

/// Where FUSE servers talk to the kernel.
const FUSE: &str = "/dev/fuse";

/// How long an answer may take beyond what was asked for, on a machine that has other things to do.
const ANSWER: Duration = Duration::from_secs(20);

/// How long the server may take to end once its file has no user.
const ENDING: Duration = Duration::from_secs(3);

/// An image with a server before it.
#[derive(Debug)]
pub struct ImageServer {
    process: Child,
    socket: Option<UnixStream>,
    connection: u32,
    work_dir: PathBuf,
}

/// Whether images can be served here; [`HoldError::Unsupported`] says why not.
pub fn probe() -> Result<(), HoldError> {
    match kernel::load("fuse") {
        Support::Registered => {}
        Support::Module(why) | Support::Missing(why) => return Err(HoldError::Unsupported(why)),
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(FUSE)
        .map(drop)
        .map_err(|error| HoldError::Unsupported(format!("cannot open {FUSE}: {error}")))
}

impl ImageServer {
    /// Starts a server before `image`. Its file, the second of the pair, is what a loop device in direct-I/O
    /// mode is to lie over. `work_dir` is where directories of ours are made. To be called from a thread that
    /// outlives the server, and before anything on the device is mounted.
    pub fn start(
        image: &File,
        tag: &Tag,
        work_dir: &Path,
    ) -> Result<(ImageServer, File), HoldError> {
        probe()?;
        let (here, there) = UnixStream::pair().map_err(failed("make a socket"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(COMMAND)
            .env(ENVIRONMENT, tag.to_string())
            .stdin(OwnedFd::from(there))
            .stdout(Stdio::null());
        let process = die_with_parent(&mut command)
            .spawn()
            .map_err(failed("start the image's server"))?;
        // It keeps our copy of the other end; without this a dead server is not noticed.
        drop(command);
        let mut server = ImageServer {
            process,
            socket: Some(here),
            connection: 0,
            work_dir: work_dir.to_owned(),
        };
        server.expect(&Answer::Ready)?;
        let directory = tag
            .new_directory(work_dir)
            .map_err(failed("make a directory"))?;
        let file = server.open(image, tag, directory.path())?;
        Ok((server, file))
    }

    /// Mounts the server's filesystem, opens its file, and takes the mount away again.
    fn open(&mut self, image: &File, tag: &Tag, directory: &Path) -> Result<File, HoldError> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(FUSE)
            .map_err(failed(format!("open {FUSE}")))?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={REQUEST}",
            std::os::fd::AsRawFd::as_raw_fd(&device)
        );
        nix::mount::mount(
            Some(tag.to_string().as_str()),
            directory,
            Some("fuse"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some(options.as_str()),
        )
        .map_err(|error| failed("mount the image's server")(error.into()))?;
        // Whatever comes now, the mount does not stay.
        let opened = self.open_mounted(image, &device, directory);
        let detached = mount::detach(directory).map_err(failed("detach the image's server"));
        opened.and_then(|file| detached.map(|()| file))
    }

    fn open_mounted(
        &mut self,
        image: &File,
        device: &File,
        directory: &Path,
    ) -> Result<File, HoldError> {
        let socket = self.socket.as_ref().ok_or_else(gone)?;
        fdpass::send(socket, &[image.as_fd(), device.as_fd()])
            .map_err(failed("pass the image on"))?;
        self.expect(&Answer::Serving)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(directory.join(FILE))
            .map_err(failed("open the served image"))?;
        let device = file
            .metadata()
            .map_err(failed("look at the served image"))?
            .st_dev();
        // Its name in fusectl (`fuse_ctl_add_conn`).
        self.connection = u32::try_from(minor(device)).unwrap_or(u32::MAX);
        Ok(file)
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The number of its connection in fusectl.
    pub fn connection(&self) -> u32 {
        self.connection
    }

    fn expect(&mut self, expected: &Answer) -> Result<(), HoldError> {
        match self.listen(ANSWER)? {
            answer if answer == *expected => Ok(()),
            Answer::Failed(why) => Err(HoldError::Unsupported(why)),
            other => Err(unexpected(&other)),
        }
    }

    /// One order and its answer, for which the server may take `longer` than usual.
    fn ask(&self, order: &Order, longer: Duration) -> Result<Answer, HoldError> {
        let socket = self.socket.as_ref().ok_or_else(gone)?;
        wire::send(socket, order).map_err(|error| HoldError::Gone(error.to_string()))?;
        match self.listen(ANSWER + longer)? {
            Answer::Over(hold) => Err(HoldError::Over(hold)),
            Answer::Failed(why) => Err(HoldError::Gone(why)),
            answer => Ok(answer),
        }
    }

    fn listen(&self, limit: Duration) -> Result<Answer, HoldError> {
        let gone = |error: io::Error| HoldError::Gone(error.to_string());
        let socket = self.socket.as_ref().ok_or_else(self::gone)?;
        socket.set_read_timeout(Some(limit)).map_err(gone)?;
        // One answer an order: nothing of another can be in the reader's buffer, so that it need not be kept.
        let mut line = String::new();
        match BufReader::new(socket).read_line(&mut line) {
            Ok(0) => Err(HoldError::Gone("its process has ended".to_owned())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| gone(error.into())),
            Err(error) => Err(gone(error)),
        }
    }
}

impl Holder for ImageServer {
    fn hold(&self, what: &HoldSpec, at_most: Duration) -> Result<HoldId, HoldError> {
        let what = what.clone();
        match self.ask(&Order::Hold { what, at_most }, Duration::ZERO)? {
            Answer::Hold(id) => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    fn held(&self) -> Result<Vec<HeldIo>, HoldError> {
        match self.ask(&Order::Held, Duration::ZERO)? {
            Answer::Held(held) => Ok(held),
            other => Err(unexpected(&other)),
        }
    }

    fn wait_held(&self, hold: HoldId, timeout: Duration) -> Result<Option<HeldIo>, HoldError> {
        match self.ask(&Order::WaitHeld { hold, timeout }, timeout)? {
            Answer::First(first) => Ok(first),
            other => Err(unexpected(&other)),
        }
    }

    fn mark(&self) -> Result<Mark, HoldError> {
        match self.ask(&Order::Mark, Duration::ZERO)? {
            Answer::Mark(mark) => Ok(mark),
            other => Err(unexpected(&other)),
        }
    }

    fn seen(&self, since: Mark) -> Result<Seen, HoldError> {
        match self.ask(&Order::Seen(since), Duration::ZERO)? {
            Answer::Seen(seen) => Ok(seen),
            other => Err(unexpected(&other)),
        }
    }

    fn release(&self, hold: HoldId) -> Result<usize, HoldError> {
        match self.ask(&Order::Release(hold), Duration::ZERO)? {
            Answer::Released(many) => Ok(many),
            other => Err(unexpected(&other)),
        }
    }

    fn release_all(&self) -> Result<usize, HoldError> {
        match self.ask(&Order::ReleaseAll, Duration::ZERO)? {
            Answer::Released(many) => Ok(many),
            other => Err(unexpected(&other)),
        }
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        // The end of orders: it releases everything, and ends when the file's last user has gone.
        self.socket = None;
        if self.ends_within(ENDING) {
            return;
        }
        // Something keeps the device. Without its server every request of it fails, and nobody hangs.
        let _ = self.process.kill();
        if !self.ends_within(ENDING) {
            // A process that does not die of SIGKILL hangs in the kernel, with the connection open.
            let _ = fusectl::abort(self.connection, &self.work_dir);
        }
    }
}

impl ImageServer {
    fn ends_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let Ok(pidfd) = Pidfd::open(self.process.id()) else {
            return matches!(self.process.try_wait(), Ok(Some(_)));
        };
        pidfd.wait(deadline) && matches!(self.process.try_wait(), Ok(Some(_)))
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> HoldError {
    let what = what.into();
    move |error| HoldError::Io { what, error }
}

fn gone() -> HoldError {
    HoldError::Gone("it was told to end".to_owned())
}

fn unexpected(answer: &Answer) -> HoldError {
    HoldError::Gone(format!("it answered {answer:?} to something else"))
}
