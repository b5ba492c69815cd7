//! The holder that needs no FUSE: a device-mapper device over the loop device, whose table maps the places to be
//! held to `delay` targets and everything else straight through (Documentation/admin-guide/device-mapper/delay.rst).
//! Another kernel path than the served image's, for whoever doubts that one. It knows how many requests each target
//! delays, and not which; and a table cannot be changed without letting go what it holds (`delay_presuspend`).

use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::NamedTempFile;

use super::holder::{
    HeldIo, HoldError, HoldId, HoldSpec, Holder, IoKind, LONGEST, Mark, Place, Seen, now,
};
use crate::tag::Tag;
use crate::tools::{DMSETUP, MODPROBE, ToolOutput};

/// Modules of the kernel that it needs.
pub const MODULES: [&str; 2] = ["dm_mod", "dm_delay"];

/// How long a call of dmsetup may take, emulation included.
const TOOL_TIME: Duration = Duration::from_secs(20);
/// Between two looks at what is delayed, of which no event tells.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const SECTOR: u64 = 512;

/// A device whose table can hold.
#[derive(Debug)]
pub struct DmDelay {
    name: String,
    path: PathBuf,
    below: PathBuf,
    size: u64,
    /// Where its tables are written.
    work_dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holds: Vec<Active>,
    next: u64,
    /// When the first request that is held was seen.
    since: Option<Duration>,
}

#[derive(Debug)]
struct Active {
    id: HoldId,
    spec: HoldSpec,
    until: Instant,
}

impl DmDelay {
    /// Puts a device over `below`, of so many bytes; [`HoldError::Unsupported`] where the kernel or the tools have
    /// no device-mapper. `work_dir` is where its tables are written.
    pub fn over(below: &Path, size: u64, tag: &Tag, work_dir: &Path) -> Result<DmDelay, HoldError> {
        probe()?;
        let below_name = below.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{tag}:{below_name}");
        let table = lines(below, size, &[], Instant::now());
        let table = written(&table, work_dir)?;
        let at = table.path().to_string_lossy();
        dmsetup(&["create", "--noudevsync", "--noudevrules", &name, &at])?;
        // From here on dropping it takes it away.
        let mut device = DmDelay {
            name,
            path: PathBuf::new(),
            below: below.to_owned(),
            size,
            work_dir: work_dir.to_owned(),
            state: Mutex::default(),
        };
        let words = [
            "info",
            "-c",
            "--noheadings",
            "--separator",
            ":",
            "-o",
            "major,minor",
        ];
        let numbers = dmsetup(&[&words[..], &[&device.name]].concat())?;
        device.path = node(numbers.text.trim(), work_dir)?;
        Ok(device)
    }

    /// Its node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which stretches delay requests of a hold, and how many.
    fn waiting_for(&self, spec: &HoldSpec) -> Result<Vec<(Range<u64>, u64)>, HoldError> {
        // Without the flag it would wait for what is under way.
        let status = dmsetup(&["status", "--noflush", &self.name])?;
        Ok(status
            .text
            .lines()
            .filter_map(|line| delayed(line, spec))
            .collect())
    }

    /// Gives it the table that the holds make. What is held goes on.
    fn apply(&self, holds: &[Active]) -> Result<(), HoldError> {
        let table = lines(&self.below, self.size, holds, Instant::now());
        let table = written(&table, &self.work_dir)?;
        let at = table.path().to_string_lossy();
        dmsetup(&["load", &self.name, &at])?;
        // Neither what is dirty nor what is held is waited for.
        dmsetup(&["suspend", "--nolockfs", "--noflush", &self.name])?;
        dmsetup(&["resume", "--noudevsync", "--noudevrules", &self.name]).map(drop)
    }
}

/// Whether the kernel and the tools have what it takes; [`HoldError::Unsupported`] says what is missing.
pub fn probe() -> Result<(), HoldError> {
    let has_delay =
        || dmsetup(&["targets"]).map(|output| output.text.lines().any(|l| l.starts_with("delay")));
    if has_delay()? {
        return Ok(());
    }
    for module in MODULES {
        let _ = MODPROBE.run(["-q", "--", module], TOOL_TIME);
    }
    match has_delay()? {
        true => Ok(()),
        false => Err(HoldError::Unsupported(
            "the kernel has no device-mapper target `delay` (CONFIG_DM_DELAY)".to_owned(),
        )),
    }
}

impl Holder for DmDelay {
    fn hold(&self, what: &HoldSpec, at_most: Duration) -> Result<HoldId, HoldError> {
        if what.kinds.contains(&IoKind::Flush) {
            let why = "device-mapper holds reads and writes here, not flushes";
            return Err(HoldError::Unsupported(why.to_owned()));
        }
        let mut state = self.state();
        for hold in &state.holds {
            if !self.waiting_for(&hold.spec)?.is_empty() {
                let why =
                    "device-mapper holds a request already, and would let it go for a second hold";
                return Err(HoldError::Unsupported(why.to_owned()));
            }
        }
        let id = HoldId(state.next);
        state.next += 1;
        state.holds.push(Active {
            id,
            spec: what.clone(),
            until: Instant::now() + at_most.min(LONGEST),
        });
        let applied = self.apply(&state.holds);
        if applied.is_err() {
            state.holds.pop();
        }
        applied.map(|()| id)
    }

    fn held(&self) -> Result<Vec<HeldIo>, HoldError> {
        let ids: Vec<HoldId> = self.state().holds.iter().map(|hold| hold.id).collect();
        let mut held = Vec::new();
        for id in ids {
            held.extend(self.wait_held(id, Duration::ZERO)?);
        }
        Ok(held)
    }

    fn wait_held(&self, hold: HoldId, timeout: Duration) -> Result<Option<HeldIo>, HoldError> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut state = self.state();
            let state = &mut *state;
            let active = state.holds.iter().find(|h| h.id == hold);
            let active = active.filter(|h| Instant::now() < h.until);
            let spec = active.map(|h| &h.spec).ok_or(HoldError::Over(hold))?;
            if let Some((range, _)) = self.waiting_for(spec)?.into_iter().next() {
                let since = *state.since.get_or_insert_with(now);
                return Ok(Some(HeldIo {
                    hold,
                    kind: spec.kinds[0],
                    range,
                    since,
                }));
            }
            state.since = None;
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn mark(&self) -> Result<Mark, HoldError> {
        Err(unseen())
    }

    fn seen(&self, _: Mark) -> Result<Seen, HoldError> {
        Err(unseen())
    }

    fn release(&self, hold: HoldId) -> Result<usize, HoldError> {
        let mut state = self.state();
        let at = state.holds.iter().position(|h| h.id == hold);
        let active = state.holds.remove(at.ok_or(HoldError::Over(hold))?);
        let many = requests(&self.waiting_for(&active.spec)?);
        self.apply(&state.holds)?;
        Ok(many)
    }

    fn release_all(&self) -> Result<usize, HoldError> {
        let mut state = self.state();
        let mut many = 0;
        for hold in &state.holds {
            many += requests(&self.waiting_for(&hold.spec)?);
        }
        state.holds.clear();
        self.apply(&[])?;
        Ok(many)
    }
}

impl Drop for DmDelay {
    fn drop(&mut self) {
        // Only a delay that still runs keeps it busy, and that ends by itself; the sweep has the rest.
        let holds = std::mem::take(&mut self.state().holds);
        if !holds.is_empty() {
            let _ = self.apply(&[]);
        }
        let _ = dmsetup(&[
            "remove",
            "--noudevsync",
            "--noudevrules",
            "--retry",
            &self.name,
        ]);
    }
}

/// The devices that dead runs left behind, by name; none where sysfs is not mounted.
pub(crate) fn of_dead_runs() -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        // Others have none.
        let name = fs::read_to_string(entry.path().join("dm/name")).unwrap_or_default();
        if Tag::parse(name.trim()).is_some_and(|tag| !tag.is_alive()) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

/// Lets go what such a device holds, and has it fail whatever comes: who waits for it can die then.
pub(crate) fn let_go(name: &str) {
    // What this leaves is the removal's to tell.
    let _ = dmsetup(&["wipe_table", "--noflush", "--nolockfs", name]);
}

/// Removes such a device; a line.
pub(crate) fn remove(name: &str) -> String {
    let removed = dmsetup(&["remove", "--noudevsync", "--noudevrules", "--retry", name]);
    let what = match removed {
        Ok(_) => "removed".to_owned(),
        Err(error) => error.to_string(),
    };
    format!("device-mapper device {name} of a dead run: {what}")
}

/// Its table, in sectors: one line for each stretch between the ends of what is held.
fn lines(below: &Path, size: u64, holds: &[Active], at: Instant) -> String {
    let mut ends = vec![0, size];
    for hold in holds {
        let (Place::Within(ranges) | Place::Outside(ranges)) = &hold.spec.place;
        ends.extend(ranges.iter().flat_map(|r| [r.start, r.end]));
    }
    ends.retain(|end| *end <= size);
    ends.sort_unstable();
    ends.dedup();
    let below = below.display();
    let mut table = String::new();
    for stretch in ends.windows(2).map(|w| w[0]..w[1]) {
        let (start, len) = (
            stretch.start / SECTOR,
            (stretch.end - stretch.start) / SECTOR,
        );
        let delay = |kind| {
            let ms = holds
                .iter()
                .filter(|hold| hold.spec.takes(kind, &stretch))
                .map(|hold| hold.until.saturating_duration_since(at).as_millis());
            ms.max().unwrap_or(0)
        };
        table += &match (delay(IoKind::Read), delay(IoKind::Write)) {
            (0, 0) => format!("{start} {len} linear {below} {start}\n"),
            (read, write) => {
                format!("{start} {len} delay {below} {start} {read} {below} {start} {write}\n")
            }
        };
    }
    table
}

/// The node of a device with these numbers, `253:0`; made where /dev is not the kernel's own, as in a container.
fn node(numbers: &str, work_dir: &Path) -> Result<PathBuf, HoldError> {
    let parsed = numbers
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?)));
    let (major, minor) = parsed.ok_or_else(|| {
        HoldError::Unsupported(format!("dmsetup says `{numbers}` for a device's numbers"))
    })?;
    let usual = PathBuf::from(format!("/dev/dm-{minor}"));
    if usual.exists() {
        return Ok(usual);
    }
    let own = work_dir.join(format!("dm-{minor}"));
    let only_ours = Mode::S_IRUSR | Mode::S_IWUSR;
    mknod(&own, SFlag::S_IFBLK, only_ours, makedev(major, minor))
        .map_err(|error| failed("make a device node")(error.into()))?;
    Ok(own)
}

/// A line of `dmsetup status`, `16 8 delay 1 0 0`: the stretch and how many requests of the hold it delays, reads
/// and writes (`delay_status`); `None` if none.
fn delayed(line: &str, spec: &HoldSpec) -> Option<(Range<u64>, u64)> {
    let mut words = line.split_whitespace();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (start, len) = (number()? * SECTOR, number()? * SECTOR);
    (words.next() == Some("delay")).then_some(())?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (reads, writes) = (number()?, number()?);
    let stretch = start..start + len;
    let many = [(IoKind::Read, reads), (IoKind::Write, writes)]
        .iter()
        .filter(|(kind, _)| spec.takes(*kind, &stretch))
        .map(|(_, many)| many)
        .sum();
    (many > 0).then_some((stretch, many))
}

fn requests(waiting: &[(Range<u64>, u64)]) -> usize {
    let many: u64 = waiting.iter().map(|(_, many)| many).sum();
    usize::try_from(many).unwrap_or(usize::MAX)
}

/// A table that dmsetup can read.
fn written(table: &str, work_dir: &Path) -> Result<NamedTempFile, HoldError> {
    let file = NamedTempFile::new_in(work_dir).and_then(|mut file| {
        file.write_all(table.as_bytes())?;
        Ok(file)
    });
    file.map_err(failed("write a device-mapper table"))
}

fn dmsetup(words: &[&str]) -> Result<ToolOutput, HoldError> {
    let output = DMSETUP
        .run(words, TOOL_TIME)
        .map_err(|error| HoldError::Unsupported(error.to_string()))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(HoldError::Unsupported(output.failure())),
    }
}

fn unseen() -> HoldError {
    let why = "device-mapper does not tell which requests reached the device";
    HoldError::Unsupported(why.to_owned())
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> HoldError {
    let what = what.into();
    move |error| HoldError::Io { what, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn active(spec: HoldSpec, at: Instant, seconds: u64) -> Active {
        Active {
            id: HoldId(0),
            spec,
            until: at + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn the_status_tells_what_is_delayed_of_a_hold() {
        let reads = HoldSpec::reads(vec![8192..12288]);
        assert_eq!(delayed("16 8 delay 2 1 0", &reads), Some((8192..12288, 2)));
        assert_eq!(delayed("16 8 delay 0 1 0", &reads), None);
        assert_eq!(delayed("24 8 delay 2 0 0", &reads), None);
        assert_eq!(delayed("0 16 linear", &reads), None);
        let writes = HoldSpec::writes(vec![8192..12288]);
        assert_eq!(delayed("16 8 delay 2 1 0", &writes), Some((8192..12288, 1)));
    }

    #[test]
    fn a_table_holds_what_is_meant_and_maps_all_of_the_device() {
        let at = Instant::now();
        let below = Path::new("/dev/loop7");
        assert_eq!(lines(below, MIB, &[], at), "0 2048 linear /dev/loop7 0\n");
        let reads = active(HoldSpec::reads(vec![8192..12288]), at, 40);
        assert_eq!(
            lines(below, MIB, &[reads], at),
            "0 16 linear /dev/loop7 0\n\
             16 8 delay /dev/loop7 16 40000 /dev/loop7 16 0\n\
             24 2024 linear /dev/loop7 24\n"
        );
        let outside = active(HoldSpec::reads_outside(vec![0..4096]), at, 2);
        let writes = active(HoldSpec::writes(vec![4096..8192]), at, 1);
        assert_eq!(
            lines(below, MIB, &[outside, writes], at),
            "0 8 linear /dev/loop7 0\n\
             8 8 delay /dev/loop7 8 2000 /dev/loop7 8 1000\n\
             16 2032 delay /dev/loop7 16 2000 /dev/loop7 16 0\n"
        );
    }
}
