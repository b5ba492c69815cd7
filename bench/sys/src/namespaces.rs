//! Starts a program as process 1 of new PID and mount namespaces (and a user namespace for an ordinary
//! user), so that the kernel itself ends everything below it when it, or its parent, dies.
//!
//! `std::process::Command` cannot do this: a new PID namespace takes effect for the *next* child only, and
//! an intermediate process is one more thing that can be left behind. Between clone and exec only system
//! calls are made: nothing allocates, locks or unwinds.

use std::ffi::{CStr, CString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, getegid, geteuid, pipe2};

/// The descriptor at which the program finds what it was given as `events`.
const EVENTS_FD: RawFd = 3;

/// What to start, and its descriptors.
#[derive(Debug)]
pub struct Isolated<'a> {
    /// The program's path, such as `/proc/self/exe`.
    pub program: &'a CStr,
    /// Its arguments, the program's name first.
    pub args: &'a [CString],
    /// Its whole environment, as `NAME=value`.
    pub env: &'a [CString],
    /// Its standard input.
    pub stdin: BorrowedFd<'a>,
    /// Its standard output and standard error.
    pub log: BorrowedFd<'a>,
    /// See [`inherited_events`].
    pub events: BorrowedFd<'a>,
    /// Which namespaces it gets.
    pub namespaces: Namespaces,
}

/// Of what a program has a namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Processes and mounts.
    Own,
    /// Those, and users: it becomes root there, which is what an ordinary user needs for the others.
    OwnAsUser,
    /// Of nothing: it ends with its parent all the same, but what it starts does not end with it.
    Shared,
}

impl Namespaces {
    /// Of its own, as far as this process may give them.
    pub fn own() -> Namespaces {
        match geteuid().is_root() {
            true => Namespaces::Own,
            false => Namespaces::OwnAsUser,
        }
    }
}

/// A started program. Dropping it does not end it: kill and wait for `pid`.
#[derive(Debug)]
pub struct IsolatedChild {
    /// Its process id, as the parent sees it.
    pub pid: Pid,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    /// While this end of the pipe is open the parent is alive; see [`Isolated::spawn`].
    _alive: OwnedFd,
}

/// A step between clone and exec that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the trial's process: {step} failed: {error}")]
pub struct IsolateError {
    /// What was being done.
    pub step: &'static str,
    /// The system's answer.
    pub error: io::Error,
}

/// The steps in the child, in order; their index travels over the error pipe.
const STEPS: [&str; 9] = [
    "prctl(PR_SET_PDEATHSIG)",
    "finding the parent alive",
    "writing uid_map",
    "setsid",
    "making all mounts private",
    "mounting /proc",
    "passing descriptors",
    "sigprocmask",
    "execve",
];

/// Everything the child needs, made before the clone so that the child allocates nothing.
struct Prepared<'a> {
    program: &'a CStr,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// (source, target), the sources above all targets.
    descriptors: [(RawFd, RawFd); 4],
    alive: RawFd,
    mounts: bool,
    maps: Option<[(&'static CStr, Vec<u8>); 3]>,
}

impl Isolated<'_> {
    /// Starts it. The calling thread must outlive it: the child is killed when *that thread* ends.
    ///
    /// A parent that dies before the child has asked for that signal is noticed by the end of a pipe that
    /// only the parent writes to (`getppid` says 0 in a new PID namespace).
    pub fn spawn(&self) -> Result<IsolatedChild, IsolateError> {
        let at = |step| {
            move |error: nix::Error| IsolateError {
                step,
                error: error.into(),
            }
        };
        // Above every descriptor that the child is given, so that passing those on overwrites none.
        let high = |fd: BorrowedFd<'_>| -> Result<OwnedFd, IsolateError> {
            let fd = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(10)).map_err(at("fcntl(F_DUPFD)"))?;
            // SAFETY: fcntl has just made this descriptor for us alone.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let (stdin, log, events) = (high(self.stdin)?, high(self.log)?, high(self.events)?);
        // Each end exists once: a second copy of a writing end would hide the other's end.
        let pipe = || {
            let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(at("pipe2"))?;
            Ok((high(read.as_fd())?, high(write.as_fd())?))
        };
        let (alive_read, alive_write) = pipe()?;
        let (error_read, error_write) = pipe()?;
        let prepared = Prepared {
            program: self.program,
            argv: null_terminated(self.args),
            envp: null_terminated(self.env),
            descriptors: [
                (stdin.as_raw_fd(), libc::STDIN_FILENO),
                (log.as_raw_fd(), libc::STDOUT_FILENO),
                (log.as_raw_fd(), libc::STDERR_FILENO),
                (events.as_raw_fd(), EVENTS_FD),
            ],
            alive: alive_read.as_raw_fd(),
            mounts: self.namespaces != Namespaces::Shared,
            maps: (self.namespaces == Namespaces::OwnAsUser).then(|| {
                [
                    (c"/proc/self/setgroups", b"deny".to_vec()),
                    (
                        c"/proc/self/uid_map",
                        format!("0 {} 1", geteuid()).into_bytes(),
                    ),
                    (
                        c"/proc/self/gid_map",
                        format!("0 {} 1", getegid()).into_bytes(),
                    ),
                ]
            }),
        };
        let own = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        let flags = libc::CLONE_PIDFD
            | libc::SIGCHLD
            | match self.namespaces {
                Namespaces::Own => own,
                Namespaces::OwnAsUser => own | libc::CLONE_NEWUSER,
                Namespaces::Shared => 0,
            };
        let mut pidfd: RawFd = -1;
        // SAFETY: without CLONE_VM this is a fork: the child has a copy of the address space and of this
        // stack (stack argument 0), and runs only `in_child`, which makes system calls on memory prepared
        // above and never returns. The pidfd is written to a live variable of ours.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                libc::c_long::from(flags),
                0 as libc::c_long,
                &raw mut pidfd,
                0 as libc::c_long,
                0 as libc::c_long,
            )
        };
        if pid == 0 {
            in_child(&prepared, alive_write.as_raw_fd(), error_write.as_raw_fd());
        }
        if pid < 0 {
            let step = "clone into new namespaces";
            return Err(IsolateError {
                step,
                error: io::Error::last_os_error(),
            });
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let pid = Pid::from_raw(pid as libc::pid_t);
        drop(error_write);

        let mut report = [0u8; 8];
        let told = std::fs::File::from(error_read).read_exact(&mut report);
        if told.is_ok() {
            // The child has told why and is exiting: nothing to kill, only to reap.
            let _ = nix::sys::wait::waitpid(pid, None);
            let [step, errno] = [0, 4].map(|at| {
                i32::from_ne_bytes([report[at], report[at + 1], report[at + 2], report[at + 3]])
            });
            let step = STEPS
                .get(step as usize)
                .copied()
                .unwrap_or("an unknown step");
            return Err(IsolateError {
                step,
                error: io::Error::from_raw_os_error(errno),
            });
        }
        Ok(IsolatedChild {
            pid,
            pidfd,
            _alive: alive_write,
        })
    }
}

/// The event descriptor that this process was started with: of use once, in a process started by
/// [`Isolated::spawn`]. It is closed on exec, so that no tool keeps it open.
pub fn inherited_events() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: F_SETFD on a number touches no memory; a number that is no descriptor gives EBADF.
    let rc = unsafe { libc::fcntl(EVENTS_FD, libc::F_SETFD, libc::FD_CLOEXEC) };
    if rc < 0 || TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open (checked above), was passed on by exec and is taken only once.
    Ok(unsafe { OwnedFd::from_raw_fd(EVENTS_FD) })
}

fn null_terminated(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// What the child does until exec. Reports a failed step over the error pipe and exits.
fn in_child(p: &Prepared<'_>, alive_write: RawFd, error: RawFd) -> ! {
    let step = isolate(p, alive_write);
    // SAFETY: __errno_location gives this thread's errno; write and _exit take plain numbers and a live
    // buffer. Nothing of Rust's runtime runs.
    unsafe {
        let errno = *libc::__errno_location();
        let mut report = [0u8; 8];
        report[..4].copy_from_slice(&(step as i32).to_ne_bytes());
        report[4..].copy_from_slice(&errno.to_ne_bytes());
        libc::write(error, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

/// Returns the index of the step that failed; does not return when exec succeeds.
fn isolate(p: &Prepared<'_>, alive_write: RawFd) -> usize {
    // SAFETY: system calls on plain numbers, on C strings that live in `p`, and on local variables. All are
    // async-signal-safe, as they must be in a child cloned from a process that may have had threads.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return 0;
        }
        // Our copy of the writing end would keep the pipe alive for ever.
        libc::close(alive_write);
        let mut poll = libc::pollfd {
            fd: p.alive,
            events: libc::POLLIN,
            revents: 0,
        };
        if libc::poll(&raw mut poll, 1, 0) != 0 {
            return 1;
        }
        for (path, text) in p.maps.iter().flatten() {
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd < 0 || libc::write(fd, text.as_ptr().cast(), text.len()) < 0 {
                return 2;
            }
            libc::close(fd);
        }
        // A session of its own: ^C on the terminal goes to the runner, which decides.
        if libc::setsid() < 0 {
            return 3;
        }
        if p.mounts {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let (none, root) = (c"none".as_ptr(), c"/".as_ptr());
            if libc::mount(none, root, ptr::null(), private, ptr::null()) < 0 {
                return 4;
            }
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let proc = c"proc".as_ptr();
            let mounted = libc::mount(proc, c"/proc".as_ptr(), proc, flags, ptr::null()) == 0;
            // In a container the kernel may refuse a user namespace its own /proc; the outer one serves.
            if !mounted && p.maps.is_none() {
                return 5;
            }
        }
        for (from, to) in p.descriptors {
            if libc::dup2(from, to) < 0 {
                return 6;
            }
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) < 0 {
            return 7;
        }
        libc::execve(p.program.as_ptr(), p.argv.as_ptr(), p.envp.as_ptr());
        8
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    /// Runs `sh -c SCRIPT` isolated; gives what it wrote to descriptor 3.
    fn run(script: &str, namespaces: Namespaces) -> String {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = File::open("/dev/null").unwrap();
        let args = ["sh", "-c", script].map(|a| CString::new(a).unwrap());
        let child = Isolated {
            program: c"/bin/sh",
            args: &args,
            env: &[c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            stdin: null.as_fd(),
            log: null.as_fd(),
            events: write.as_fd(),
            namespaces,
        }
        .spawn()
        .unwrap();
        drop(write);
        let mut out = String::new();
        File::from(read).read_to_string(&mut out).unwrap();
        nix::sys::wait::waitpid(child.pid, None).unwrap();
        out
    }

    #[test]
    fn is_process_one_of_its_own_proc() {
        assert_eq!(
            run(
                "echo $$ >&3; readlink /proc/self/exe >/dev/null && echo proc >&3",
                Namespaces::own()
            ),
            "1\nproc\n"
        );
    }

    #[test]
    fn without_namespaces_it_is_a_process_among_others() {
        let out = run(
            "readlink /proc/self/ns/pid /proc/self/ns/mnt >&3",
            Namespaces::Shared,
        );
        let ours =
            ["pid", "mnt"].map(|ns| std::fs::read_link(format!("/proc/self/ns/{ns}")).unwrap());
        assert_eq!(
            out,
            format!("{}\n{}\n", ours[0].display(), ours[1].display())
        );
    }

    #[test]
    fn ending_it_ends_what_it_started() {
        // The sleeper holds descriptor 3: without the namespace's end this read would take an hour.
        assert_eq!(
            run("sleep 3600 & echo started >&3", Namespaces::own()),
            "started\n"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named_as_the_failed_step() {
        let null = File::open("/dev/null").unwrap();
        let error = Isolated {
            program: c"/nonexistent/program",
            args: &[c"program".to_owned()],
            env: &[],
            stdin: null.as_fd(),
            log: null.as_fd(),
            events: null.as_fd(),
            namespaces: Namespaces::own(),
        }
        .spawn()
        .unwrap_err();
        assert_eq!(error.step, "execve");
        assert_eq!(error.error.raw_os_error(), Some(libc::ENOENT));
    }
}
