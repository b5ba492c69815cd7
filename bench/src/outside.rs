//! What a trial that hangs may wait for outside itself: requests that a block device has not completed, and tasks of the
//! kernel that sleep uninterruptibly. Without them a record tells that a folio stayed locked, and not whether its read
//! was still on its way.

use std::fs;
use std::path::Path;

use punchbench_fs::hold::observe::Task;

/// Tasks listed, at most.
const TASKS_MAX: usize = 16;

/// Sentences and stacks, for the log of a trial; those of the tasks of `trial` are left out.
pub fn lines(trial: &[i32]) -> Vec<String> {
    let mut lines = in_flight(Path::new("/sys/block"));
    let asleep = pids().into_iter().filter(|pid| !trial.contains(pid));
    let asleep = asleep
        .filter_map(|pid| Task::look(pid, pid))
        .filter(|task| task.state == 'D');
    for task in asleep.take(TASKS_MAX) {
        let (name, pid, wchan) = (&task.command, task.pid, &task.wchan);
        lines.push(format!(
            "outside the trial: {name} (process {pid}): state D, wchan {wchan}"
        ));
        lines.extend(task.stack.iter().map(|frame| format!("  {frame}")));
    }
    lines
}

/// The block devices that have requests in flight (Documentation/ABI/stable/sysfs-block, `inflight`), sorted by name.
fn in_flight(block: &Path) -> Vec<String> {
    let devices = fs::read_dir(block).into_iter().flatten().flatten();
    let mut lines: Vec<String> = devices
        .filter_map(|device| {
            let counts = fs::read_to_string(device.path().join("inflight")).ok()?;
            let mut counts = counts.split_whitespace();
            let (reads, writes) = (counts.next()?, counts.next()?);
            let name = device.file_name();
            let name = name.to_string_lossy();
            (reads != "0" || writes != "0")
                .then(|| format!("{name}: in flight: {reads} reads, {writes} writes"))
        })
        .collect();
    lines.sort_unstable();
    lines
}

/// All processes and tasks of the kernel.
pub fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<i32> = entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_requests_in_flight_are_named_and_no_others() {
        let block = tempfile::tempdir().unwrap();
        for (name, counts) in [
            ("loop1", "       0        0\n"),
            ("loop3", "       1        0\n"),
            ("loop2", "       0        2\n"),
        ] {
            fs::create_dir(block.path().join(name)).unwrap();
            fs::write(block.path().join(name).join("inflight"), counts).unwrap();
        }
        assert_eq!(
            in_flight(block.path()),
            [
                "loop2: in flight: 0 reads, 2 writes",
                "loop3: in flight: 1 reads, 0 writes"
            ]
        );
    }
}
