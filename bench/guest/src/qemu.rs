//! A virtual machine under QEMU. Its own exit code says nothing (it is 0 after a panic).

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use punchbench_sys::spawn::die_with_parent;

use crate::error::{GuestError, IoContext};
use crate::host;
use crate::machine::{Process, Running};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGES: &str = "qemu-system-x86 (Debian, Fedora, Arch) or qemu-x86 (openSUSE)";
/// `panic=-1` with `-no-reboot`: a panic ends the machine at once. The crypto layer's tests of itself
/// take a second and more under TCG. QEMU's time-stamp counters agree with each other, but the kernel
/// cannot know and would read a slow emulated timer instead: 1.5 µs a reading, not 0.15.
const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=on cryptomgr.notests tsc=reliable";

/// Where persistent memory starts, and how much other memory leaves room for it there.
const PMEM_AT_MIB: u32 = 1024;
const PMEM_NEEDS_MIB: u32 = 2048;

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the CPU.
    Kvm,
    /// By QEMU, in software.
    Tcg,
    /// By the CPU, each as a process of a user-mode-linux kernel.
    UserMode,
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) image: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) memory_mib: u32,
    pub(crate) pmem_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) accel: Accel,
}

impl Machine {
    /// Starts QEMU. The calling thread must outlive it: QEMU dies with the thread.
    pub(crate) fn start(&self) -> Result<Running, GuestError> {
        let program = find()?;
        let pair = || UnixStream::pair().context("create a socket for", &program);
        let ((console, console_end), (records, records_end)) = (pair()?, pair()?);
        let (memory, command_line) = self.memory();
        let mut command = Command::new(&program);
        match self.accel {
            Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            // Without these the guest copies and clears memory by eight bytes, not one, which QEMU emulates one by
            // one: an image is made five times as fast. The last is no machine of QEMU's.
            Accel::Tcg | Accel::UserMode => {
                command.args(["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"])
            }
        };
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
            ])
            .args(["-smp", &self.cpus.to_string(), "-m", &memory.to_string()])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initramfs)
            .args(["-append", &command_line])
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
        Ok(Running {
            stderr: child.stderr.take(),
            process: Process::Emulator(child),
            console,
            records,
        })
    }
}

impl Machine {
    /// Its memory in MiB, and the kernel's command line. Persistent memory is taken out of the middle of it:
    /// above the kernel, and below the first root, which QEMU puts right under 2 GiB or the end of memory.
    fn memory(&self) -> (u32, String) {
        if self.pmem_mib == 0 {
            return (self.memory_mib, COMMAND_LINE.to_owned());
        }
        let memory = self.memory_mib.max(PMEM_NEEDS_MIB) + self.pmem_mib;
        let command_line = format!("{COMMAND_LINE} memmap={}M!{PMEM_AT_MIB}M", self.pmem_mib);
        (memory, command_line)
    }
}

/// QEMU's path, or an error that names the package.
pub(crate) fn find() -> Result<PathBuf, GuestError> {
    find_as(PROGRAM)
}

fn find_as(program: &str) -> Result<PathBuf, GuestError> {
    host::require(program, "other kernels run in it", PACKAGES)
}

/// Whether the device for it can be opened, which does not yet mean that a guest runs.
pub(crate) fn kvm_opens() -> bool {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_qemu_the_package_is_named() {
        let error = find_as("no-such-qemu").expect_err("none").to_string();
        let wanted = ["no-such-qemu is not installed", "install qemu-system-x86 "];
        assert!(wanted.iter().all(|w| error.contains(w)), "{error}");
    }

    #[test]
    fn persistent_memory_is_added_and_not_taken_from_the_rest() {
        let machine = |memory_mib, pmem_mib| Machine {
            image: PathBuf::new(),
            initramfs: PathBuf::new(),
            memory_mib,
            pmem_mib,
            cpus: 2,
            accel: Accel::Tcg,
        };
        let (memory, line) = machine(512, 384).memory();
        assert_eq!(memory, 2048 + 384);
        assert!(line.ends_with(" memmap=384M!1024M"), "{line}");
        assert_eq!(machine(4096, 384).memory().0, 4096 + 384);
        assert_eq!(machine(512, 0).memory(), (512, COMMAND_LINE.to_owned()));
    }
}
