//! Ties a child process to the thread that started it, so that a program killed with SIGKILL, which can
//! clean up nothing, still leaves nothing running.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Has the kernel kill the child with SIGKILL as soon as the *thread* that spawns it ends: spawn from a
/// thread that outlives the child. The tie is lost if the child executes a set-user-ID program.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    let parent = getpid();
    let tie = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the call above; then no signal will ever come.
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec; it makes two system calls, neither allocates nor
    // takes a lock, and it touches no memory but its own copy of `parent`.
    unsafe { command.pre_exec(tie) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Child;

    #[test]
    fn child_dies_with_the_thread_that_spawned_it() {
        let spawner = std::thread::spawn(|| -> io::Result<Child> {
            die_with_parent(Command::new("sleep").arg("60")).spawn()
        });
        let mut child = spawner.join().expect("spawner").expect("sleep starts");
        let status = child.wait().expect("wait");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }
}
