//! The kernel's list of FUSE connections (Documentation/filesystems/fuse.rst, "Control filesystem"), and its
//! `abort`, which fails every request of a connection whose server does not answer and cannot be killed.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use punchbench_sys::mount;

/// Where it is usually mounted.
const USUAL: &str = "/sys/fs/fuse/connections";

/// Aborts a connection; whether there was one. Where the control filesystem is not mounted, it is for a moment,
/// on a directory made in `work_dir` and in the caller's mount namespace.
pub fn abort(connection: u32, work_dir: &Path) -> io::Result<bool> {
    if is_mounted() {
        return abort_in(Path::new(USUAL), connection);
    }
    let at = tempfile::tempdir_in(work_dir)?;
    match mount::mount("fusectl", at.path(), "fusectl", "") {
        // Without FUSE there are no connections.
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(false),
        other => other?,
    }
    let aborted = abort_in(at.path(), connection);
    mount::detach(at.path())?;
    aborted
}

fn is_mounted() -> bool {
    mount::table_of("thread-self").is_ok_and(|table| {
        table
            .iter()
            .any(|entry| entry.fstype == "fusectl" && entry.at == Path::new(USUAL))
    })
}

fn abort_in(list: &Path, connection: u32) -> io::Result<bool> {
    match fs::write(list.join(connection.to_string()).join("abort"), "1") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
