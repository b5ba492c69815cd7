//! One virtual machine under QEMU: started, its two serial ports read until it ends or time is up, and
//! never left behind. QEMU's own exit code says nothing (it is 0 after a panic).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use punchbench_sys::spawn::die_with_parent;

use crate::console::Console;
use crate::error::{GuestError, IoContext};
use crate::host;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGES: &str = "qemu-system-x86 (Debian, Fedora, Arch) or qemu-x86 (openSUSE)";
/// `panic=-1` with `-no-reboot`: a panic ends the machine at once. The crypto layer's tests of itself
/// take a second and more under TCG. QEMU's time-stamp counters agree with each other, but the kernel
/// cannot know and would read a slow emulated timer instead: 1.5 µs a reading, not 0.15.
const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=on cryptomgr.notests tsc=reliable";
/// How much of what QEMU itself says is kept.
const STDERR_KEPT: usize = 16 << 10;

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the CPU.
    Kvm,
    /// By QEMU, in software.
    Tcg,
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) image: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) accel: Accel,
}

/// A running machine; dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    console: UnixStream,
    records: UnixStream,
    stderr: ChildStderr,
}

/// What a machine is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Console,
    Records,
    Stderr,
}

/// Why reading a machine ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// QEMU ended, with this status and words of its own.
    Exited(ExitStatus, String),
    /// The instant passed at which everything had to be done.
    Deadline,
    /// Nothing came from the guest for the time allowed.
    Silence,
    /// The caller asked for it.
    Stopped,
}

/// When to give a machine up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) until: Instant,
    pub(crate) silence: Duration,
}

impl Machine {
    /// Starts QEMU. The calling thread must outlive it: QEMU dies with the thread.
    pub(crate) fn start(&self) -> Result<Qemu, GuestError> {
        let program = find()?;
        let pair = || UnixStream::pair().context("create a socket for", &program);
        let ((console, console_end), (records, records_end)) = (pair()?, pair()?);
        let mut command = Command::new(&program);
        match self.accel {
            Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]),
        };
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args([
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory_mib.to_string(),
            ])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", COMMAND_LINE])
            // QEMU's standard input and output are sockets of ours, one for each serial port.
            .args([
                "-chardev",
                "socket,id=console,fd=0",
                "-serial",
                "chardev:console",
            ])
            .args([
                "-chardev",
                "socket,id=records,fd=1",
                "-serial",
                "chardev:records",
            ])
            .stdin(OwnedFd::from(console_end))
            .stdout(OwnedFd::from(records_end))
            .stderr(Stdio::piped())
            // An interrupt from the terminal is for us to handle, not for QEMU.
            .process_group(0);
        let mut child = die_with_parent(&mut command)
            .spawn()
            .context("start", &program)?;
        let stderr = child.stderr.take().expect("stderr is a pipe");
        Ok(Qemu {
            child,
            console,
            records,
            stderr,
        })
    }
}

impl Qemu {
    /// Reads until the machine ends, a limit passes or `stop` can be read. `on_records` gets the second
    /// port's bytes and may change the limits.
    pub(crate) fn watch(
        &mut self,
        console: &mut Console,
        mut limits: Limits,
        stop: Option<BorrowedFd>,
        on_records: &mut dyn FnMut(&[u8], &mut Limits) -> io::Result<()>,
    ) -> io::Result<Ended> {
        let mut buffer = vec![0; 64 << 10];
        let mut open = vec![Source::Console, Source::Records, Source::Stderr];
        let mut said = Vec::new();
        let mut heard = Instant::now();
        while !open.is_empty() {
            let now = Instant::now();
            let left = limits.until.saturating_duration_since(now);
            let quiet = (heard + limits.silence).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(Ended::Deadline);
            }
            if quiet.is_zero() {
                return Ok(Ended::Silence);
            }
            let fds = open.iter().map(|&source| self.fd(source)).chain(stop);
            let mut events: Vec<PollFd> =
                fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut events, timeout(left.min(quiet))) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut ready: Vec<bool> = events.iter().map(|e| e.any().unwrap_or_default()).collect();
            if stop.is_some() && ready.pop() == Some(true) {
                return Ok(Ended::Stopped);
            }
            for (source, ready) in open.clone().into_iter().zip(ready) {
                if !ready {
                    continue;
                }
                let count = self.read(source, &mut buffer)?;
                let bytes = &buffer[..count];
                match source {
                    Source::Console => console.add(bytes)?,
                    Source::Records => on_records(bytes, &mut limits)?,
                    Source::Stderr if said.len() < STDERR_KEPT => said.extend_from_slice(bytes),
                    Source::Stderr => {}
                }
                if count == 0 {
                    open.retain(|&other| other != source);
                } else {
                    heard = Instant::now();
                }
            }
        }
        let status = self.child.wait()?;
        Ok(Ended::Exited(status, host::tail(&said)))
    }

    fn fd(&self, source: Source) -> BorrowedFd<'_> {
        match source {
            Source::Console => self.console.as_fd(),
            Source::Records => self.records.as_fd(),
            Source::Stderr => self.stderr.as_fd(),
        }
    }

    fn read(&mut self, source: Source, buffer: &mut [u8]) -> io::Result<usize> {
        match source {
            Source::Console => self.console.read(buffer),
            Source::Records => self.records.read(buffer),
            Source::Stderr => self.stderr.read(buffer),
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only if it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn timeout(left: Duration) -> PollTimeout {
    // Rounded up, or the last millisecond would be spent spinning.
    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
}

/// QEMU's path, or an error that names the package.
pub(crate) fn find() -> Result<PathBuf, GuestError> {
    host::require(PROGRAM, "other kernels run in it", PACKAGES)
}

/// Whether the device for it can be opened, which does not yet mean that a guest runs.
pub(crate) fn kvm_opens() -> bool {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}
