//! The guest's side: the program is the kernel's init. It mounts what programs expect, runs the ordered
//! command line as a child, passes its record lines to the host, and switches the machine off. What fails is told to the host as data; an init that panics is a kernel that panics.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::termios::{self, BaudRate, ControlFlags, SetArg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, mkfifo};

use crate::initramfs::{ORDERS_PATH, Orders, PROGRAM_PATH};
use crate::modprobe::{self, Failed};
use crate::wire::{Control, Encoder};

/// Where the program in the guest writes its record lines: a pipe that init reads.
pub const RECORDS_PATH: &str = "/run/punchbench-records";

const SERIAL: &str = "/dev/ttyS1";
const ENVIRONMENT: [(&str, &str); 4] = [
    (
        "PATH",
        "/modules:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    ("TERM", "dumb"),
];
/// Filesystem, mount point, options. The images live on /tmp, which may take nearly all memory.
const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp", "mode=1777,size=85%"),
];

/// Where the kernel has them, an image of huge pages is made and read in a fraction of the time.
const HUGE: &str = "huge=always";

/// Whether this process was started by a kernel as its init, with orders from [`crate::GuestRun`].
/// The program asks before anything else, and then calls [`run`].
///
/// Process 1 of a PID namespace is not init, though it sees the same files: taken for it, it would start
/// the program again, which would start another, down to the depth at which clone(2) fails with ENOSPC
/// (MAX_PID_NS_LEVEL in kernel/pid_namespace.c). The kernel starts its init with nothing mounted but the
/// root, so whoever has a /proc is not it.
pub fn is_guest_init() -> bool {
    getpid() == Pid::from_raw(1)
        && !Path::new("/proc/self").exists()
        && Path::new(ORDERS_PATH).exists()
}

/// Does what was ordered and switches the machine off.
pub fn run() -> ! {
    if let Err(error) = try_run() {
        // Only the console is left to tell it to.
        eprintln!("punchbench: init: {error}");
    }
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => panic!("cannot switch off: {error}"),
    }
}

fn try_run() -> io::Result<()> {
    for (kind, at, options) in MOUNTS {
        let huge = format!("{options},{HUGE}");
        let mounted = match kind {
            "tmpfs" => mount_one(kind, at, &huge).or_else(|_| mount_one(kind, at, options)),
            _ => mount_one(kind, at, options),
        };
        mounted.map_err(|e| io::Error::other(format!("cannot mount {kind} on {at}: {e}")))?;
    }
    let mut link = Link::open()?;
    let about = |what: &str| -> io::Result<String> {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{what}"))?;
        Ok(text.trim().to_owned())
    };
    let release = about("osrelease")?;
    link.tell(&Control::Hello {
        release: release.clone(),
        version: about("version")?,
    })?;
    match obey(&mut link, &release) {
        Ok(exit) => link.tell(&Control::Done { exit })?,
        Err(error) => link.tell(&Control::SetupFailed {
            error: error.to_string(),
        })?,
    }
    termios::tcdrain(&link.serial)?;
    Ok(())
}

fn mount_one(kind: &str, at: &str, options: &str) -> io::Result<()> {
    fs::create_dir_all(at)?;
    match mount(
        Some(kind),
        at,
        Some(kind),
        MsFlags::MS_NOSUID,
        Some(options),
    ) {
        // Some kernels mount devtmpfs themselves.
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn obey(link: &mut Link, release: &str) -> io::Result<i32> {
    let orders: Orders = serde_json::from_slice(&fs::read(ORDERS_PATH)?)?;
    // The program runs parts of itself as process 1 of namespaces of their own; they are not init.
    fs::remove_file(ORDERS_PATH)?;
    mkfifo(RECORDS_PATH, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Open for both, so that it never reads as ended before the program opens it.
    let records = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(RECORDS_PATH)?;
    modprobe::install(&orders.modules, release)?;
    link.tell(&Control::Ready)?;
    run_program(&orders.argv, &records, link)
}

/// Runs the program to its end, with every record line passed on as it comes; gives its exit code.
fn run_program(argv: &[String], records: &File, link: &mut Link) -> io::Result<i32> {
    let (name, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("no command line was ordered"))?;
    let child = Command::new(PROGRAM_PATH)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/root")
        .stdin(Stdio::null())
        .spawn()?;
    let child = Pid::from_raw(child.id().cast_signed());
    // Only now: the child would inherit the mask.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;

    let mut lines = Lines::default();
    loop {
        let exit = reap(child)?;
        lines.pass_on(records, link)?;
        if let Some(exit) = exit {
            lines.pass_on_rest(link)?;
            return Ok(exit);
        }
        let mut events = [
            PollFd::new(records.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut events, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while signals.read_signal()?.is_some() {}
    }
}

/// Takes all dead children, ours and adopted ones; the program's exit code if it is among them.
fn reap(program: Pid) -> io::Result<Option<i32>> {
    let mut exit = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => exit = Some(code),
            // As a shell reports it.
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                exit = Some(128 + signal as i32)
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(exit),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Cuts what the pipe gives into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Passes on what the pipe holds now.
    fn pass_on(&mut self, mut records: &File, link: &mut Link) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = match records.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for part in buffer[..count].split_inclusive(|&byte| byte == b'\n') {
                self.partial.extend_from_slice(part);
                if self.partial.ends_with(b"\n") {
                    self.partial.pop();
                    self.pass_on_rest(link)?;
                }
            }
        }
    }

    fn pass_on_rest(&mut self, link: &mut Link) -> io::Result<()> {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return Ok(());
        }
        match modprobe::heard(&line) {
            Some(Failed {
                name,
                required,
                error,
            }) => link.tell(&Control::ModuleFailed {
                name,
                required,
                error,
            }),
            None => link.record(&line),
        }
    }
}

/// The second serial port, which no kernel message and no shell ever touches.
struct Link {
    serial: File,
    encoder: Encoder,
}

impl Link {
    fn open() -> io::Result<Self> {
        let open = || -> io::Result<File> {
            let serial = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(OFlag::O_NOCTTY.bits())
                .open(SERIAL)?;
            let mut settings = termios::tcgetattr(&serial)?;
            termios::cfmakeraw(&mut settings);
            settings.control_flags.insert(ControlFlags::CLOCAL);
            settings.control_flags.remove(ControlFlags::CRTSCTS);
            termios::cfsetspeed(&mut settings, BaudRate::B115200)?;
            termios::tcsetattr(&serial, SetArg::TCSANOW, &settings)?;
            Ok(serial)
        };
        let serial = open().map_err(|e| io::Error::other(format!("cannot open {SERIAL}: {e}")))?;
        Ok(Self {
            serial,
            encoder: Encoder::default(),
        })
    }

    fn record(&mut self, line: &[u8]) -> io::Result<()> {
        self.serial.write_all(&self.encoder.record(line))
    }

    fn tell(&mut self, control: &Control) -> io::Result<()> {
        self.serial.write_all(&self.encoder.control(control))
    }
}
