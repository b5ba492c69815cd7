//! Every external program that punchbench calls, named in one place: where it is looked for, which package
//! brings it, and how it is run: bounded in time, with its words captured and nothing on its standard input.

use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::install::Family;

/// A program we may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its file name.
    pub name: &'static str,
    /// What prints its version.
    pub version_argument: &'static str,
    /// The package that has it.
    pub package: Package,
}

/// A package's name in each family of distributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    suse: &'static str,
}

impl Package {
    const fn same(name: &'static str) -> Self {
        Package {
            debian: name,
            fedora: name,
            arch: name,
            suse: name,
        }
    }

    /// Its name in one family; where the family is not known, the name most of them use.
    pub fn name(&self, family: Option<Family>) -> &'static str {
        match family {
            Some(Family::Debian) | None => self.debian,
            Some(Family::Fedora) => self.fedora,
            Some(Family::Arch) => self.arch,
            Some(Family::Suse) => self.suse,
        }
    }
}

const E2FSPROGS: Package = Package::same("e2fsprogs");
const GFS2_UTILS: Package = Package::same("gfs2-utils");
const NTFS_3G: Package = Package {
    fedora: "ntfsprogs",
    suse: "ntfsprogs",
    ..Package::same("ntfs-3g")
};
const BTRFS_PROGS: Package = Package {
    debian: "btrfs-progs",
    fedora: "btrfs-progs",
    arch: "btrfs-progs",
    suse: "btrfsprogs",
};

/// Makes ext2, ext3 and ext4.
pub const MKE2FS: Tool = Tool {
    name: "mke2fs",
    version_argument: "-V",
    package: E2FSPROGS,
};
/// Checks ext2, ext3 and ext4.
pub const E2FSCK: Tool = Tool {
    name: "e2fsck",
    version_argument: "-V",
    package: E2FSPROGS,
};
/// Makes XFS.
pub const MKFS_XFS: Tool = Tool {
    name: "mkfs.xfs",
    version_argument: "-V",
    package: Package::same("xfsprogs"),
};
/// Checks XFS.
pub const XFS_REPAIR: Tool = Tool {
    name: "xfs_repair",
    version_argument: "-V",
    package: Package::same("xfsprogs"),
};
/// Makes Btrfs.
pub const MKFS_BTRFS: Tool = Tool {
    name: "mkfs.btrfs",
    version_argument: "--version",
    package: BTRFS_PROGS,
};
/// Checks Btrfs.
pub const BTRFS: Tool = Tool {
    name: "btrfs",
    version_argument: "--version",
    package: BTRFS_PROGS,
};
/// Makes F2FS.
pub const MKFS_F2FS: Tool = Tool {
    name: "mkfs.f2fs",
    version_argument: "-V",
    package: Package::same("f2fs-tools"),
};
/// Checks F2FS.
pub const FSCK_F2FS: Tool = Tool {
    name: "fsck.f2fs",
    version_argument: "-V",
    package: Package::same("f2fs-tools"),
};
/// Makes GFS2.
pub const MKFS_GFS2: Tool = Tool {
    name: "mkfs.gfs2",
    version_argument: "-V",
    package: GFS2_UTILS,
};
/// Checks GFS2.
pub const FSCK_GFS2: Tool = Tool {
    name: "fsck.gfs2",
    version_argument: "-V",
    package: GFS2_UTILS,
};
/// Makes OCFS2.
pub const MKFS_OCFS2: Tool = Tool {
    name: "mkfs.ocfs2",
    version_argument: "-V",
    package: Package::same("ocfs2-tools"),
};
/// Checks OCFS2.
pub const FSCK_OCFS2: Tool = Tool {
    name: "fsck.ocfs2",
    version_argument: "-V",
    package: Package::same("ocfs2-tools"),
};
/// Makes NTFS.
pub const MKNTFS: Tool = Tool {
    name: "mkntfs",
    version_argument: "-V",
    package: NTFS_3G,
};
/// Checks NTFS, a little.
pub const NTFSFIX: Tool = Tool {
    name: "ntfsfix",
    version_argument: "-V",
    package: NTFS_3G,
};
/// Loads drivers.
pub const MODPROBE: Tool = Tool {
    name: "modprobe",
    version_argument: "-V",
    package: Package::same("kmod"),
};
/// What it takes to boot another kernel: the machine, and what packs the kernel's modules.
pub const FOR_GUESTS: [Tool; 4] = [
    Tool {
        name: "qemu-system-x86_64",
        version_argument: "--version",
        package: Package {
            debian: "qemu-system-x86",
            fedora: "qemu-system-x86-core",
            arch: "qemu-system-x86",
            suse: "qemu-x86",
        },
    },
    Tool {
        name: "depmod",
        version_argument: "-V",
        package: Package::same("kmod"),
    },
    Tool {
        name: "xz",
        version_argument: "--version",
        package: Package {
            debian: "xz-utils",
            ..Package::same("xz")
        },
    },
    Tool {
        name: "zstd",
        version_argument: "--version",
        package: Package::same("zstd"),
    },
];
/// Sets device-mapper devices up, to hold I/O.
pub const DMSETUP: Tool = Tool {
    name: "dmsetup",
    version_argument: "--version",
    package: Package {
        debian: "dmsetup",
        ..Package::same("device-mapper")
    },
};
/// Tells whether a device carries a signature.
pub const BLKID: Tool = Tool {
    name: "blkid",
    version_argument: "-V",
    package: Package::same("util-linux"),
};

/// How long asking a tool for its version may take.
const VERSION_TIME: Duration = Duration::from_secs(10);

/// The most output kept of one run; the rest is read and dropped.
const KEEP: usize = 64 * 1024;

/// A tool could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Not on this machine.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// It did not start.
    #[error("cannot start {tool}: {error}")]
    Start {
        /// The program.
        tool: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// It was still running when its time was up, and was killed.
    #[error("{tool} was still running after {seconds} s and was killed")]
    TimedOut {
        /// The program.
        tool: &'static str,
        /// The time it was given.
        seconds: u64,
    },
}

/// What a tool said and how it ended.
#[derive(Debug, Clone)]
pub struct ToolOutput {
    /// The command line, for the record.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output and standard error together, in the order written.
    pub text: String,
}

impl ToolOutput {
    /// How it ended, in words.
    pub fn ending(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "an unknown end".to_owned(),
        }
    }

    /// What it was, how it ended and what it said last, for a message.
    pub fn failure(&self) -> String {
        format!(
            "`{}` ended with {}: {}",
            self.command,
            self.ending(),
            self.gist()
        )
    }

    /// The last lines of what it said, in one line, for a message.
    pub fn gist(&self) -> String {
        let lines: Vec<&str> = self
            .text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    }
}

impl Tool {
    /// Where it is: in PATH, or in the system directories that an ordinary user's PATH leaves out.
    pub fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"].map(PathBuf::from))
            .map(|directory| directory.join(self.name))
            .find(|candidate| {
                nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok()
            })
    }

    /// What would bring it, in words.
    pub fn hint(&self) -> String {
        format!("install {}", self.package.name(Family::here()))
    }

    /// The first line it prints about its version that has a number in it.
    pub fn version_line(&self) -> Option<String> {
        let output = self.run([self.version_argument], VERSION_TIME).ok()?;
        let line = output
            .text
            .lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
        Some(line.trim().to_owned())
    }

    /// Its version as numbers: (1, 47, 0).
    pub fn version(&self) -> Option<Version> {
        Version::find(&self.version_line()?)
    }

    /// Runs it with these arguments for at most `limit`.
    pub fn run<I>(&self, arguments: I, limit: Duration) -> Result<ToolOutput, ToolError>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let program = self.find().ok_or(ToolError::Missing(self.name))?;
        let arguments: Vec<OsString> = arguments
            .into_iter()
            .map(|a| a.as_ref().to_owned())
            .collect();
        run_program(self.name, &program, &arguments, limit)
    }
}

/// A version of a tool or a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first thing in a text that looks like `5.10` or `6.1.192`.
    pub fn find(text: &str) -> Option<Version> {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.'))
            .find_map(|word| {
                let mut numbers = word.split('.').map_while(|n| n.parse().ok());
                let (major, minor) = (numbers.next()?, numbers.next()?);
                Some(Version(major, minor, numbers.next().unwrap_or(0)))
            })
    }

    /// The release of the running kernel.
    pub fn of_kernel() -> Version {
        Version::find(&kernel_release()).unwrap_or(Version(0, 0, 0))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// The running kernel's release, `uname -r`.
pub fn kernel_release() -> String {
    nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Runs a program in a process group of its own, standard input empty, output into one pipe. No thread is
/// needed: the pipe is polled until every writer has closed it or the time is up.
pub(crate) fn run_program(
    tool: &'static str,
    program: &Path,
    arguments: &[OsString],
    limit: Duration,
) -> Result<ToolOutput, ToolError> {
    let start = |error| ToolError::Start { tool, error };
    let (reader, writer) = io::pipe().map_err(start)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer)
        .process_group(0);
    let mut child = command.spawn().map_err(start)?;
    // The command keeps our own copies of the pipe's writing end; without this the pipe never ends.
    drop(command);

    let deadline = Instant::now() + limit;
    let timed_out = || ToolError::TimedOut {
        tool,
        seconds: limit.as_secs(),
    };
    let Some(text) = read_until(reader, deadline).map_err(start)? else {
        kill(&mut child);
        return Err(timed_out());
    };
    // Every writer is gone, so it has exited or is about to.
    let status = child.wait().map_err(start)?;
    let command = std::iter::once(OsString::from(tool))
        .chain(arguments.iter().cloned())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    Ok(ToolOutput {
        command,
        status,
        text,
    })
}

/// Reads to the end; `None` if the deadline came first.
fn read_until(mut reader: PipeReader, deadline: Instant) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout =
            PollTimeout::try_from(left.min(Duration::from_secs(3600))).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let got = reader.read(&mut chunk)?;
        if got == 0 {
            return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
        }
        text.extend_from_slice(&chunk[..got.min(KEEP.saturating_sub(text.len()))]);
    }
}

/// Kills the group. A process in an uninterruptible sleep stays until it wakes, so it is not waited for.
fn kill(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.try_wait();
}

/// Gives a descriptor to a child as its output; for logs.
pub(crate) fn output_to(file: &std::fs::File) -> io::Result<Stdio> {
    let fd: OwnedFd = file.as_fd().try_clone_to_owned()?;
    Ok(Stdio::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SH: Tool = Tool {
        name: "sh",
        version_argument: "--version",
        package: Package::same("dash"),
    };

    #[test]
    fn both_outputs_and_the_exit_code_come_back() {
        let output = SH
            .run(
                ["-c", "echo out; echo err >&2; exit 3"],
                Duration::from_secs(10),
            )
            .unwrap();
        assert_eq!(output.text, "out\nerr\n");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.ending(), "exit code 3");
    }

    #[test]
    fn standard_input_is_empty() {
        let output = SH
            .run(["-c", "cat; echo end"], Duration::from_secs(10))
            .unwrap();
        assert_eq!(output.text, "end\n");
    }

    #[test]
    fn a_hanging_tool_is_killed_with_its_children() {
        let began = Instant::now();
        let error = SH
            .run(["-c", "sleep 60 & sleep 60"], Duration::from_millis(200))
            .unwrap_err();
        assert!(
            matches!(error, ToolError::TimedOut { tool: "sh", .. }),
            "{error}"
        );
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_tool_says_so() {
        let tool = Tool {
            name: "mkfs.nothing",
            ..SH
        };
        assert!(matches!(
            tool.run(["-V"], Duration::from_secs(1)),
            Err(ToolError::Missing("mkfs.nothing"))
        ));
    }

    #[test]
    fn versions_are_found_in_what_tools_print() {
        assert_eq!(
            Version::find("mke2fs 1.47.0 (5-Feb-2023)"),
            Some(Version(1, 47, 0))
        );
        assert_eq!(
            Version::find("mkfs.btrfs, part of btrfs-progs v6.2"),
            Some(Version(6, 2, 0))
        );
        assert_eq!(Version::find("6.18.44-fc-v669"), Some(Version(6, 18, 44)));
        assert_eq!(
            Version::find("mkfs.f2fs 1.15.0 (2022-05-13)"),
            Some(Version(1, 15, 0))
        );
        assert_eq!(Version::find("no number"), None);
        assert!(Version(5, 10, 223) < Version(5, 15, 0));
    }
}
