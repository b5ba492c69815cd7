//! The holder that chooses an actor and not a sector: one process in a cgroup whose reads of the device are
//! throttled to almost nothing (`blkio.throttle.read_bps_device` of Documentation/admin-guide/cgroup-v1, or
//! `rbps` of `io.max` in cgroup-v2.rst), while everybody else's I/O flows. It needs neither FUSE nor
//! device-mapper, and cannot hold a journal's threads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use punchbench_sys::mount::{self, MountEntry};
use tempfile::TempDir;

use super::HoldError;
use super::holder::LONGEST;
use crate::tag::Tag;

/// Which interface throttles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    /// Version 1, controller blkio.
    Blkio,
    /// Version 2, controller io.
    Io,
}

/// A place where cgroups can be made that throttle.
#[derive(Debug)]
pub struct Throttle {
    interface: Interface,
    root: PathBuf,
    tag: Tag,
    /// The hierarchy is mounted by us, in our own mount namespace.
    own_mount: Option<OwnMount>,
}

/// A mount of ours; taken away on drop, before its directory.
#[derive(Debug)]
struct OwnMount(TempDir);

impl Drop for OwnMount {
    fn drop(&mut self) {
        // The hierarchy itself stays the kernel's.
        let _ = mount::detach(self.0.path());
    }
}

/// One process whose reads are held; released on drop.
#[derive(Debug)]
pub struct ActorHold {
    interface: Interface,
    group: PathBuf,
    /// Where the process was, and goes back to.
    home: PathBuf,
    pid: i32,
    device: (u32, u32),
    released: bool,
    /// Without it the group could no longer be reached.
    _mounted: Option<OwnMount>,
}

impl Throttle {
    /// Finds out how a process's reads can be throttled here; [`HoldError::Unsupported`] says why not. A cgroup
    /// hierarchy that is nowhere mounted is mounted in `work_dir`, in the caller's own mount namespace.
    pub fn probe(tag: &Tag, work_dir: &Path) -> Result<Throttle, HoldError> {
        let mut why = Vec::new();
        for entry in hierarchies().map_err(failed("read the mount table"))? {
            match found(&entry) {
                Ok(interface) => {
                    return Ok(Throttle {
                        interface,
                        root: entry.at,
                        tag: tag.clone(),
                        own_mount: None,
                    });
                }
                Err(reason) => why.push(reason),
            }
        }
        for (fstype, data, interface) in [
            ("cgroup2", "", Interface::Io),
            ("cgroup", "blkio", Interface::Blkio),
        ] {
            match mount_own(tag, work_dir, fstype, data, interface) {
                Ok(own) => {
                    return Ok(Throttle {
                        interface,
                        root: own.0.path().to_owned(),
                        tag: tag.clone(),
                        own_mount: Some(own),
                    });
                }
                Err(reason) => why.push(reason),
            }
        }
        Err(HoldError::Unsupported(format!(
            "no cgroup here throttles reads: {}",
            why.join("; ")
        )))
    }

    /// From now on holds the reads of process `pid` from the device with these numbers, major and minor. `io` is
    /// the size in bytes of the read that is to be held: the rate is such that the kernel lets it go after about
    /// `at_most` (capped at [`LONGEST`]) by itself, whoever has died; a smaller one sooner.
    pub fn hold_actor(
        self,
        pid: i32,
        device: (u32, u32),
        io: u64,
        at_most: Duration,
    ) -> Result<ActorHold, HoldError> {
        let group = self
            .root
            .join(format!("{}{pid}", self.tag.directory_prefix()));
        let home = self.group_of(pid)?;
        let made = match fs::create_dir(&group) {
            // Of an actor before, with the same number in a PID namespace of its own: it could not be removed
            // while that one was dying.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_dir(&group).and_then(|()| fs::create_dir(&group))
            }
            made => made,
        };
        made.map_err(failed(format!("make the cgroup {}", group.display())))?;
        // From here on dropping it undoes what was done.
        let hold = ActorHold {
            interface: self.interface,
            group,
            home,
            pid,
            device,
            released: false,
            _mounted: self.own_mount,
        };
        let seconds = at_most.min(LONGEST).as_secs_f64().max(0.1);
        // At least 1: the interfaces take 0 for no limit or for nonsense.
        let rate = (io as f64 / seconds).max(1.0) as u64;
        hold.limit(Some(rate))?;
        hold.put(&hold.group)?;
        Ok(hold)
    }

    /// The cgroup that a process is in, in this hierarchy: proc_pid_cgroup(5).
    fn group_of(&self, pid: i32) -> Result<PathBuf, HoldError> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).map_err(failed(format!("read {path}")))?;
        let inside = text
            .lines()
            .filter_map(|line| {
                let (_, rest) = line.split_once(':')?;
                rest.split_once(':')
            })
            .find(|(controllers, _)| match self.interface {
                Interface::Blkio => controllers.split(',').any(|name| name == "blkio"),
                Interface::Io => controllers.is_empty(),
            })
            .map_or("/", |(_, inside)| inside);
        let group = self.root.join(inside.trim_start_matches('/'));
        // A cgroup outside of our part of the hierarchy cannot be seen; its processes go back to the part's top.
        Ok(if group.join("cgroup.procs").exists() {
            group
        } else {
            self.root.clone()
        })
    }
}

impl ActorHold {
    /// Lets its reads go.
    pub fn release(mut self) -> Result<(), HoldError> {
        self.undo()
    }

    fn undo(&mut self) -> Result<(), HoldError> {
        if self.released {
            return Ok(());
        }
        self.released = true;
        let unlimited = self.limit(None);
        // A process that has died meanwhile is nowhere (ESRCH), and that is as good.
        let _ = self.put(&self.home);
        let removed = fs::remove_dir(&self.group).map_err(failed(format!(
            "remove the cgroup {}",
            self.group.display()
        )));
        unlimited.and(removed)
    }

    fn limit(&self, rate: Option<u64>) -> Result<(), HoldError> {
        let (major, minor) = self.device;
        let (file, text) = match (self.interface, rate) {
            (Interface::Blkio, rate) => (
                "blkio.throttle.read_bps_device",
                format!("{major}:{minor} {}", rate.unwrap_or(0)),
            ),
            (Interface::Io, Some(rate)) => ("io.max", format!("{major}:{minor} rbps={rate}")),
            (Interface::Io, None) => ("io.max", format!("{major}:{minor} rbps=max")),
        };
        let path = self.group.join(file);
        fs::write(&path, text).map_err(failed(format!("write {}", path.display())))
    }

    fn put(&self, group: &Path) -> Result<(), HoldError> {
        fs::write(group.join("cgroup.procs"), self.pid.to_string()).map_err(failed(format!(
            "move process {} to the cgroup {}",
            self.pid,
            group.display()
        )))
    }
}

impl Drop for ActorHold {
    fn drop(&mut self) {
        // What stays is an empty directory, for the next sweep.
        let _ = self.undo();
    }
}

/// Removes the cgroups that dead runs left behind; a line each.
pub(crate) fn sweep() -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in hierarchies()? {
        for group in fs::read_dir(&entry.at)?.flatten() {
            let name = group.file_name();
            let tag = name.to_str().and_then(Tag::from_directory);
            if tag.is_some_and(|tag| !tag.is_alive()) && fs::remove_dir(group.path()).is_ok() {
                lines.push(format!(
                    "cgroup {} of a dead run: removed",
                    group.path().display()
                ));
            }
        }
    }
    Ok(lines)
}

/// The hierarchies mounted where we are that may throttle.
fn hierarchies() -> io::Result<Vec<MountEntry>> {
    let mut table = mount::table_of("thread-self")?;
    table.retain(|entry| match entry.fstype.as_str() {
        "cgroup" => entry.super_options.split(',').any(|o| o == "blkio"),
        other => other == "cgroup2",
    });
    Ok(table)
}

/// Whether a mounted hierarchy throttles, and how.
fn found(entry: &MountEntry) -> Result<Interface, String> {
    let interface = match entry.fstype.as_str() {
        "cgroup" => Interface::Blkio,
        _ => Interface::Io,
    };
    if entry.options.split(',').any(|option| option == "ro") {
        return Err(format!("{} is mounted read-only", entry.at.display()));
    }
    enable(&entry.at, interface).map(|()| interface)
}

fn mount_own(
    tag: &Tag,
    work_dir: &Path,
    fstype: &str,
    data: &str,
    interface: Interface,
) -> Result<OwnMount, String> {
    let directory = tag
        .new_directory(work_dir)
        .map_err(|error| error.to_string())?;
    mount::mount(&tag.to_string(), directory.path(), fstype, data)
        .map_err(|error| format!("{fstype} {data} cannot be mounted ({error})"))?;
    let own = OwnMount(directory);
    enable(own.0.path(), interface).map(|()| own)
}

/// Sees that cgroups made at `root` will have the controller.
fn enable(root: &Path, interface: Interface) -> Result<(), String> {
    let place = root.display();
    match interface {
        Interface::Blkio => {
            let there = root.join("blkio.throttle.read_bps_device").exists();
            there
                .then_some(())
                .ok_or_else(|| format!("{place} has no throttling (CONFIG_BLK_DEV_THROTTLING)"))
        }
        Interface::Io => {
            let read = |name| fs::read_to_string(root.join(name)).unwrap_or_default();
            let has_io = |text: String| text.split_whitespace().any(|word| word == "io");
            if !has_io(read("cgroup.controllers")) {
                return Err(format!("the controller io is not in {place}"));
            }
            if has_io(read("cgroup.subtree_control")) {
                return Ok(());
            }
            fs::write(root.join("cgroup.subtree_control"), "+io")
                .map_err(|error| format!("the controller io cannot be had in {place} ({error})"))
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> HoldError {
    let what = what.into();
    move |error| HoldError::Io { what, error }
}
