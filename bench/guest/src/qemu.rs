//! One virtual machine under QEMU: started, its two serial ports read until it ends or time is up, and
//! never left behind. QEMU's own exit code says nothing (it is 0 after a panic).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

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
const STDERR_KEPT: u64 = 16 << 10;

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

/// Why reading a machine ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// QEMU ended, with this status and words of its own.
    Exited(ExitStatus, String),
    /// The instant passed at which everything had to be done.
    Deadline,
    /// Nothing came from the guest for the time allowed.
    Silence,
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
    /// Reads until the machine ends or a limit passes. `on_records` gets the second port's bytes and
    /// may shorten the limits.
    pub(crate) fn watch(
        &mut self,
        console: &mut Console,
        mut limits: Limits,
        on_records: &mut dyn FnMut(&[u8], &mut Limits) -> io::Result<()>,
    ) -> io::Result<Ended> {
        let mut buffer = vec![0; 64 << 10];
        let (mut console_open, mut records_open, mut stderr_open) = (true, true, true);
        let mut said = Vec::new();
        let mut heard = Instant::now();
        while console_open || records_open || stderr_open {
            let now = Instant::now();
            let left = limits.until.saturating_duration_since(now);
            let quiet = (heard + limits.silence).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(Ended::Deadline);
            }
            if quiet.is_zero() {
                return Ok(Ended::Silence);
            }
            let ready = |open: bool| {
                if open {
                    PollFlags::POLLIN
                } else {
                    PollFlags::empty()
                }
            };
            let mut events = [
                PollFd::new(self.console.as_fd(), ready(console_open)),
                PollFd::new(self.records.as_fd(), ready(records_open)),
                PollFd::new(self.stderr.as_fd(), ready(stderr_open)),
            ];
            poll(&mut events, timeout(left.min(quiet)))?;
            let [console_ready, records_ready, stderr_ready] =
                events.map(|e| e.any().unwrap_or_default());
            if console_open && console_ready {
                let count = self.console.read(&mut buffer)?;
                console_open = count > 0;
                console.add(&buffer[..count])?;
                heard = Instant::now();
            }
            if records_open && records_ready {
                let count = self.records.read(&mut buffer)?;
                records_open = count > 0;
                on_records(&buffer[..count], &mut limits)?;
                heard = Instant::now();
            }
            if stderr_open && stderr_ready {
                let count = self.stderr.read(&mut buffer)?;
                stderr_open = count > 0;
                if (said.len() as u64) < STDERR_KEPT {
                    said.extend_from_slice(&buffer[..count]);
                }
            }
        }
        let status = self.child.wait()?;
        Ok(Ended::Exited(status, host::tail(&said)))
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
