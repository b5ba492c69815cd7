//! Mounts: making and undoing them, reading any process's mount table, and entering the namespace where
//! a mount left behind lives.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

/// One line of a mountinfo file (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's number.
    pub id: u64,
    /// Device numbers of the filesystem; anonymous for btrfs, tmpfs and the like.
    pub device: (u32, u32),
    /// The directory within the filesystem that is the root of this mount.
    pub root: PathBuf,
    /// Where it is mounted, as that process sees it.
    pub at: PathBuf,
    /// Options of the mount, such as `rw,noatime`.
    pub options: String,
    /// The type that serves it, such as `ext4`.
    pub fstype: String,
    /// What was mounted: a device path, or any text.
    pub source: String,
    /// Options of the filesystem.
    pub super_options: String,
}

/// The mount table as a process sees it; `thread-self` for the calling thread, which may have a namespace of its own.
pub fn table_of(process: &str) -> io::Result<Vec<MountEntry>> {
    let text = fs::read(Path::new("/proc").join(process).join("mountinfo"))?;
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter_map(parse_entry)
        .collect())
}

/// The mount that a path of this process is on: the entry with the longest matching mount point, the last
/// one where several are stacked.
pub fn mount_of(path: &Path) -> io::Result<MountEntry> {
    let path = path.canonicalize()?;
    table_of("thread-self")?
        .into_iter()
        .filter(|entry| path.starts_with(&entry.at))
        .max_by_key(|entry| entry.at.as_os_str().len())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no mount holds {}", path.display()),
            )
        })
}

fn parse_entry(line: &str) -> Option<MountEntry> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ');
    let id = front.next()?.parse().ok()?;
    let (major, minor) = front.nth(1)?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let (root, at, options) = (
        unescape(front.next()?),
        unescape(front.next()?),
        front.next()?.to_owned(),
    );
    let mut back = back.splitn(3, ' ');
    Some(MountEntry {
        id,
        device,
        root: root.into(),
        at: at.into(),
        options,
        fstype: back.next()?.to_owned(),
        source: unescape(back.next()?),
        super_options: back.next().unwrap_or("").to_owned(),
    })
}

/// Undoes the kernel's `\040` escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// What nothing on a test filesystem needs, which is never run.
fn restrained() -> MsFlags {
    MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Mounts a filesystem noatime, nosuid, nodev and noexec: nothing on a test filesystem is ever run.
pub fn mount(source: &str, at: &Path, fstype: &str, data: &str) -> io::Result<()> {
    let flags = restrained();
    nix::mount::mount(Some(source), at, Some(fstype), flags, Some(data)).map_err(io::Error::from)
}

/// Makes a file show at another file's place as well.
pub fn bind(from: &Path, at: &Path) -> io::Result<()> {
    let none = None::<&str>;
    nix::mount::mount(Some(from), at, none, MsFlags::MS_BIND, none).map_err(io::Error::from)
}

/// Makes a mount of [`mount`] lazytime: a change of times alone starts no transaction.
pub fn be_lazy(at: &Path) -> io::Result<()> {
    let flags = restrained() | MsFlags::MS_REMOUNT | MsFlags::MS_LAZYTIME;
    let none = None::<&str>;
    nix::mount::mount(none, at, none, flags, none).map_err(io::Error::from)
}

/// Unmounts; EBUSY while anything on it is in use.
pub fn unmount(at: &Path) -> io::Result<()> {
    nix::mount::umount2(at, MntFlags::UMOUNT_NOFOLLOW).map_err(io::Error::from)
}

/// Takes a mount out of the namespace at once; the filesystem goes when its last user does.
pub fn detach(at: &Path) -> io::Result<()> {
    nix::mount::umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .map_err(io::Error::from)
}

/// Gives the calling thread a mount namespace of its own, from which nothing spreads to the others.
/// Works for one thread of many: it stops sharing its working directory and root first.
pub fn enter_private_namespace() -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(io::Error::from)
}

/// Moves the calling thread into the mount namespace of another process.
pub fn enter_namespace_of(process: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{process}/ns/mnt"))?;
    nix::sched::unshare(CloneFlags::CLONE_FS)?;
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_optional_fields_and_escapes_is_read() {
        let line = "36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue";
        let entry = parse_entry(line).expect("a valid line");
        assert_eq!(entry.id, 36);
        assert_eq!(entry.device, (98, 0));
        assert_eq!(entry.root, Path::new("/mnt1"));
        assert_eq!(entry.at, Path::new("/a b\\c"));
        assert_eq!(entry.options, "rw,noatime");
        assert_eq!(entry.fstype, "ext3");
        assert_eq!(entry.source, "/dev/root");
        assert_eq!(entry.super_options, "rw,errors=continue");
    }

    #[test]
    fn a_broken_line_is_no_entry() {
        assert_eq!(parse_entry("36 35 98:0 /mnt1"), None);
        assert_eq!(parse_entry("x 35 98:0 / / rw - ext4 /dev/x rw"), None);
    }

    #[test]
    fn proc_is_a_mount_of_its_own() {
        let entry = mount_of(Path::new("/proc/self/status")).expect("proc is mounted");
        assert_eq!(entry.fstype, "proc");
    }
}
