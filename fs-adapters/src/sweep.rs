//! Finds what killed runs left behind and removes it. The kernel ends a trial with its runner and takes
//! everything back; a task stuck in an uninterruptible sleep, or a frozen filesystem, can keep a loop device
//! and a mount for ever, in a namespace that no longer has a name. Only what carries the tag of a runner
//! that is dead is touched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;
use punchbench_sys::{blk, loopdev, mount};

use crate::adapter::{ADAPTERS, Store};
use crate::folios;
use crate::hold::{dm_delay, fusectl, throttle};
use crate::tag::{ENVIRONMENT, Tag};
use crate::zoned;

/// How long processes get to die and devices to be released.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between looks: no event tells that another process's device has gone.
const PAUSE: Duration = Duration::from_millis(20);

/// Major number of loop devices.
const LOOP_MAJOR: u32 = 7;

/// Sweeps, and gives a line for everything found: what it was and what became of it. `directories` are
/// looked through for directories of dead runs.
pub fn sweep(directories: &[&Path]) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut dead = loopdev::in_use()?;
    dead.retain(|status| is_dead(Tag::parse(&status.tag)));
    let dead_devices: Vec<u32> = dead.iter().map(|status| status.number).collect();
    // A server of an image that holds I/O lets nobody else end: what it holds fails first.
    for status in &dead {
        lines.extend(abort_server(status));
    }
    let delays = dm_delay::of_dead_runs();
    delays.iter().for_each(|name| dm_delay::let_go(name));
    // What is frozen is thawed first: whoever waits for it cannot even be killed before.
    release_mounts(&dead_devices, &mut lines)?;
    end_processes(&mut lines)?;
    lines.extend(delays.iter().map(|name| dm_delay::remove(name)));
    for number in dead_devices {
        lines.push(clear_device(number));
    }
    lines.extend(throttle::sweep()?);
    match loopdev::remove_idle()? {
        0 => {}
        many => lines.push(format!("{many} idle loop device(s) of a dead run: removed")),
    }
    lines.extend(folios::sweep());
    if zoned::may_exist() {
        match apart(zoned::sweep) {
            Ok(removed) => lines.extend(removed),
            Err(error) => lines.push(format!(
                "zoned devices of dead runs could not be looked for ({error})"
            )),
        }
    }
    for directory in directories {
        remove_directories(directory, &mut lines);
    }
    Ok(lines)
}

fn is_dead(tag: Option<Tag>) -> bool {
    tag.is_some_and(|tag| !tag.is_alive())
}

/// The processes there are.
fn processes() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        if let Some(process) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Kills what carries the tag of a dead runner, and waits for it to go.
fn end_processes(lines: &mut Vec<String>) -> io::Result<()> {
    let mut ours = Vec::new();
    for process in processes()? {
        // Gone meanwhile, or not ours to look at.
        let Ok(environment) = fs::read(format!("/proc/{process}/environ")) else {
            continue;
        };
        let tag = environment.split(|byte| *byte == 0).find_map(|variable| {
            let (name, value) = std::str::from_utf8(variable).ok()?.split_once('=')?;
            (name == ENVIRONMENT).then(|| Tag::parse(value))?
        });
        if is_dead(tag) && process != std::process::id() {
            ours.push(process);
        }
    }
    for process in &ours {
        if let Ok(pid) = i32::try_from(*process) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    for process in ours {
        let gone = wait_until(deadline, || !is_running(process));
        let what = if gone {
            "killed"
        } else {
            "did not die of SIGKILL: it is stuck in the kernel"
        };
        lines.push(format!("process {process} of a dead run: {what}"));
    }
    Ok(())
}

fn is_running(process: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}

/// A mount of a dead run, in the namespace of some process.
#[derive(Debug)]
struct Leftover {
    process: u32,
    at: PathBuf,
    what: String,
}

fn release_mounts(devices: &[u32], lines: &mut Vec<String>) -> io::Result<()> {
    let mut seen_namespaces = BTreeSet::new();
    for process in processes()? {
        let Ok(namespace) = fs::read_link(format!("/proc/{process}/ns/mnt")) else {
            continue;
        };
        if !seen_namespaces.insert(namespace) {
            continue;
        }
        let Ok(table) = mount::table_of(&process.to_string()) else {
            continue;
        };
        // The last mounted first, as mounts may be stacked.
        for entry in table
            .iter()
            .rev()
            .filter(|entry| is_left_over(entry, devices))
        {
            let what = format!(
                "{} mount of {} at {}",
                entry.fstype,
                entry.source,
                entry.at.display()
            );
            lines.push(release(Leftover {
                process,
                at: entry.at.clone(),
                what,
            }));
        }
    }
    Ok(())
}

fn is_left_over(entry: &mount::MountEntry, devices: &[u32]) -> bool {
    // btrfs shows an anonymous device number, tmpfs has no device: their sources tell.
    let by_number = entry.device.0 == LOOP_MAJOR && devices.contains(&entry.device.1);
    let by_name = Path::new(&entry.source)
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("loop")?.parse().ok())
        .is_some_and(|number| devices.contains(&number));
    by_number || by_name || is_dead(Tag::parse(&entry.source))
}

/// Unmounts in the namespace of a process that is left.
fn release(leftover: Leftover) -> String {
    let what = leftover.what.clone();
    let result = apart(move || {
        mount::enter_namespace_of(leftover.process)?;
        let thawed = thaw(&leftover.at);
        mount::detach(&leftover.at)?;
        Ok(thawed)
    });
    match result {
        Ok(thawed) => format!(
            "{what} of a dead run: {}unmounted",
            if thawed { "thawed and " } else { "" }
        ),
        Err(error) => format!("{what} of a dead run: could not be unmounted ({error})"),
    }
}

/// Thaws a filesystem if it is frozen, says whether it was, and makes it fail all further I/O: nothing on
/// it is of worth any more, and whoever waits for it comes back with an error.
fn thaw(at: &Path) -> bool {
    let Ok(root) = File::open(at) else {
        return false;
    };
    let thawed = blk::thaw(&root).is_ok();
    // Where the filesystem does not know this, unmounting must do.
    let _ = blk::shutdown(&root);
    thawed
}

/// Aborts the FUSE connection that a device's file comes from, if it is one; the file's device number names it.
fn abort_server(status: &loopdev::LoopStatus) -> Option<String> {
    let connection = u32::try_from(minor(status.backing)).ok()?;
    if major(status.backing) != 0 {
        return None;
    }
    let outcome = apart(move || {
        mount::enter_private_namespace()?;
        fusectl::abort(connection, &std::env::temp_dir())
    });
    match outcome {
        // The file of an ordinary image is on another filesystem without a device, such as tmpfs.
        Ok(false) => None,
        Ok(true) => Some(format!(
            "FUSE connection {connection} behind /dev/loop{} of a dead run: aborted",
            status.number
        )),
        Err(error) => Some(format!(
            "FUSE connection {connection} behind /dev/loop{} of a dead run: cannot be aborted ({error})",
            status.number
        )),
    }
}

/// Detaches a device. A frozen filesystem outlives its last mount and holds the device with nothing left
/// that could thaw it: then mounting the device again finds that very filesystem.
fn clear_device(number: u32) -> String {
    let name = format!("/dev/loop{number} of a dead run");
    if is_cleared(number, PATIENCE / 5) {
        return format!("{name}: detached");
    }
    let thawed = apart(move || mount_and_thaw(number));
    match (is_cleared(number, PATIENCE), thawed) {
        (true, Ok(true)) => format!("{name}: mounted again, thawed and detached"),
        (true, _) => format!("{name}: detached"),
        (false, _) => {
            format!("{name}: still held by something; `lsof /dev/loop{number}` may tell what")
        }
    }
}

/// Clears it until it is gone or somebody else's; autoclear may be faster.
fn is_cleared(number: u32, patience: Duration) -> bool {
    wait_until(Instant::now() + patience, || {
        let still = loopdev::in_use().is_ok_and(|all| {
            all.iter()
                .any(|s| s.number == number && is_dead(Tag::parse(&s.tag)))
        });
        if still {
            let _ = loopdev::clear_number(number);
        }
        !still
    })
}

fn mount_and_thaw(number: u32) -> io::Result<bool> {
    mount::enter_private_namespace()?;
    let at = tempfile::tempdir()?;
    let source = format!("/dev/loop{number}");
    let types = ADAPTERS
        .iter()
        .filter(|adapter| matches!(adapter.store(), Store::Device(_)));
    for adapter in types {
        if mount::mount(&source, at.path(), adapter.name(), "").is_ok() {
            let thawed = thaw(at.path());
            mount::detach(at.path())?;
            return Ok(thawed);
        }
    }
    Ok(false)
}

/// Works in a thread of its own, which may enter other namespaces. One that hangs in the kernel is left
/// behind: the sweep goes on.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .name("sweep".to_owned())
        .spawn(move || {
            // Nobody listens any more if it took too long.
            let _ = sender.send(work());
        })?;
    receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn remove_directories(parent: &Path, lines: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|name| is_dead(Tag::from_directory(name)));
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let what = match fs::remove_dir_all(entry.path()) {
            Ok(()) => "removed".to_owned(),
            Err(error) => format!("could not be removed ({error})"),
        };
        lines.push(format!("{} of a dead run: {what}", entry.path().display()));
    }
}

fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(PAUSE);
    }
    true
}
