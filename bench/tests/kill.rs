//! Kills runners and trials with SIGKILL in every phase, and looks for what is left: loop devices, mounts in
//! any process's namespace, space under the image directory, tagged processes. Finished records stay, and an
//! interrupted run goes on where it was. A staged trial is killed while it holds I/O. One kill hits a frozen filesystem, whose actors cannot die: the next
//! run clears up after it.

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::statfs;
use nix::unistd::Pid;
use punchbench_fs::Privilege;
use punchbench_fs::tag::ENVIRONMENT;
use punchbench_results::Verdict;
use punchbench_sys::{blk, loopdev, mount};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const STRESS: &str = "punch-while-read";
/// Holds for some 110 ms, from some milliseconds after the race has begun.
const STAGED: &str = "staged-punch-while-read";

/// What is run, a phase of it, and how long that may last: within that the kill is drawn.
const PHASES: [(&str, &str, u64); 6] = [
    (STRESS, "mkfs", 120),
    (STRESS, "mount", 30),
    (STRESS, "race", 250),
    (STRESS, "evict", 40),
    (STRESS, "fsck", 60),
    (STAGED, "race", 120),
];

/// For each kind of victim; both together must be 50 or more.
const ROUNDS: usize = 5;

const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// How long the kernel may take to end what was killed.
const GONE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads.get_or_insert(1);
    if Privilege::current() != Privilege::Root {
        eprintln!("ignored: killing trials on loop devices needs root");
        return ExitCode::SUCCESS;
    }
    // Images go to a filesystem of this test's own, so that space can be counted.
    mount::enter_private_namespace().expect("a mount namespace of our own");
    let images = tempfile::tempdir().expect("a temporary directory");
    mount::mount("punchbench-kill-test", images.path(), "tmpfs", "size=900m").expect("a tmpfs");
    let dir = images.path().to_owned();
    let mut trials = Vec::new();
    for victim in [Victim::Runner, Victim::Trial] {
        for (number, (scenario, phase, lasts)) in PHASES.into_iter().enumerate() {
            let dir = dir.clone();
            let seed = number as u64 * 2 + victim as u64;
            trials.push(Trial::test(
                format!("{victim:?}::{scenario}::{phase}").to_lowercase(),
                move || {
                    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                    (0..ROUNDS).try_for_each(|round| {
                        let fs = FILESYSTEMS[(number + round) % FILESYSTEMS.len()];
                        let after = Duration::from_millis(random.random_range(0..lasts));
                        kill_one(victim, [fs, scenario, phase], after, &dir)
                            .map_err(|e| Failed::from(format!("{fs}, {after:?} into {phase}: {e}")))
                    })
                },
            ));
        }
    }
    let frozen = dir.clone();
    trials.push(Trial::ignorable_test("runner::frozen", move || {
        kill_frozen(&frozen)
            .map(|()| Completion::Completed)
            .map_err(Failed::from)
    }));
    let signal = dir.clone();
    trials.push(Trial::test("runner::sigint", move || {
        interrupt(&signal).map_err(Failed::from)
    }));
    let conclusion = libtest_mimic::run(&args, trials);
    let unmounted = mount::unmount(images.path());
    if let Err(error) = unmounted {
        eprintln!("the image directory is still in use: {error}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Runner,
    Trial,
}

/// A run of two trials, the first quickly through.
struct Run {
    out: tempfile::TempDir,
    images: PathBuf,
    words: Vec<String>,
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Run {
    fn start(fs: &str, scenario: &str, images: &Path) -> Run {
        let out = tempfile::tempdir().expect("a temporary directory");
        let images_word = images.to_string_lossy().into_owned();
        let fs = format!("tmpfs,{fs}");
        let words = [
            "--fs",
            &fs,
            "--scenario",
            scenario,
            "--seconds",
            "0.3",
            "--jobs",
            "1",
            "--seed",
            "1",
            "--image-dir",
        ];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.extend([images_word, "--phases".to_owned()]);
        let mut child = common::command(&words, out.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Run {
            out,
            images: images.to_owned(),
            words,
            child,
            stderr,
        }
    }

    /// Reads on until the second trial enters a phase.
    fn reach(&mut self, phase: &str) -> Result<(), String> {
        let wanted = format!("phase {phase}");
        let (mut second, mut said) = (false, String::new());
        let mut line = String::new();
        while self
            .stderr
            .read_line(&mut line)
            .map_err(|e| e.to_string())?
            > 0
        {
            second |= line.starts_with("[1/2]");
            if second && line.trim() == wanted {
                return Ok(());
            }
            said.push_str(&line);
            line.clear();
        }
        Err(format!("never came to `{phase}`:\n{said}"))
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// The trial's process 1.
    fn trial(&self) -> Option<i32> {
        let parent = format!("PPid:\t{}\n", self.pid());
        processes().into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/status"))
                .is_ok_and(|status| status.contains(&parent))
        })
    }

    /// Waits for the runner's end, draining what it says.
    fn end(&mut self) -> ExitStatus {
        let _ = std::io::copy(&mut self.stderr, &mut std::io::sink());
        self.child.wait().expect("a child of ours")
    }

    /// What is left of it, once the kernel has had its time.
    fn left(&self) -> Vec<String> {
        let deadline = Instant::now() + GONE;
        loop {
            let left = self.left_now();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            // No event tells that somebody else's process, device or mount has gone.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn left_now(&self) -> Vec<String> {
        let tag = format!("punchbench:{}:", self.pid());
        let mut left = Vec::new();
        for device in loopdev::in_use()
            .expect("loop devices")
            .into_iter()
            .filter(|d| d.tag.starts_with(&tag))
        {
            left.push(format!("loop{}", device.number));
        }
        let out = self.out.path().to_string_lossy().into_owned();
        let variable = format!("{ENVIRONMENT}={tag}");
        for pid in processes() {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
            for line in mounts
                .lines()
                .filter(|l| l.contains(&tag) || l.contains(&out))
            {
                left.push(format!("mount of process {pid}: {line}"));
            }
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environment
                .split(|b| *b == 0)
                .any(|v| v.starts_with(variable.as_bytes()))
            {
                left.push(format!("process {pid}"));
            }
        }
        // A killed run cannot take away the device that it added; the next start can.
        if loopdev::remove_idle().expect("loop devices") > 1 {
            left.push("more than one idle loop device".to_owned());
        }
        let stat = statfs(&self.images).expect("statfs");
        let used = stat.blocks() - stat.blocks_free();
        // The directory itself is all that is in it.
        if used > 1 {
            left.push(format!("{used} blocks under the image directory"));
        }
        left
    }

    /// The same command again, to its end.
    fn go_on(&self) -> std::process::Output {
        common::command(&self.words, self.out.path())
            .output()
            .expect("the program starts")
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn kill_one(
    victim: Victim,
    [fs, scenario, phase]: [&str; 3],
    after: Duration,
    images: &Path,
) -> Result<(), String> {
    let mut run = Run::start(fs, scenario, images);
    run.reach(phase)?;
    // Not a wait for anything: the moment of the kill is what is drawn.
    std::thread::sleep(after);
    let target = match victim {
        Victim::Runner => Some(run.pid()),
        Victim::Trial => run.trial(),
    };
    // A trial that was quicker than the kill has ended by itself.
    if let Some(pid) = target {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let status = run.end();
    let left = run.left();
    if !left.is_empty() {
        return Err(format!("left behind: {left:#?}"));
    }
    let records = common::records(run.out.path());
    if records.first().is_none_or(|r| r.target != "tmpfs") {
        return Err(format!(
            "the finished record is lost ({status}): {records:#?}"
        ));
    }
    if victim == Victim::Trial {
        return match &records[..] {
            [_, second] if second.verdict != Verdict::Error => Ok(()),
            [_, second]
                if second.reason.contains("SIGKILL") && matches!(status.code(), Some(1 | 3)) =>
            {
                Ok(())
            }
            other => Err(format!("{status}: {other:#?}")),
        };
    }
    let again = run.go_on();
    let records = common::records(run.out.path());
    let targets: Vec<&str> = records.iter().map(|r| r.target.as_str()).collect();
    if targets != ["tmpfs", fs] {
        return Err(format!(
            "resumed to {targets:?}: {}",
            String::from_utf8_lossy(&again.stderr)
        ));
    }
    let left = run.left();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind by the resumed run: {left:#?}"))
    }
}

/// Actors that wait for a frozen filesystem do not die of SIGKILL.
fn kill_frozen(images: &Path) -> Result<(), String> {
    let mut run = Run::start("ext4", STRESS, images);
    run.reach("race")?;
    let trial = run.trial().ok_or("no trial")?;
    let table = mount::table_of(&trial.to_string()).map_err(|e| e.to_string())?;
    let entry = table
        .iter()
        .find(|e| e.source.contains("loop"))
        .ok_or("no mount on a loop device")?;
    let inside = entry.at.strip_prefix("/").map_err(|e| e.to_string())?;
    let dir = File::open(Path::new(&format!("/proc/{trial}/root")).join(inside))
        .map_err(|e| e.to_string())?;
    blk::freeze(&dir).map_err(|e| format!("freeze: {e}"))?;
    drop(dir);
    // Until an actor has run into it.
    std::thread::sleep(Duration::from_millis(200));
    kill(Pid::from_raw(run.pid()), Signal::SIGKILL).map_err(|e| e.to_string())?;
    run.end();
    if run.left_now().is_empty() {
        return Err("nothing was left, so this proves nothing of the sweep".to_owned());
    }
    let again = run.go_on();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    if !said.contains("left by an earlier run") {
        return Err(format!(
            "the next run did not say that it cleared up:\n{said}"
        ));
    }
    let left = run.left();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind: {left:#?}\n{said}"))
    }
}

/// ^C ends a run in good order: the code says so, the table is there, finished records stay.
fn interrupt(images: &Path) -> Result<(), String> {
    let mut run = Run::start("ext4", STRESS, images);
    run.reach("race")?;
    kill(Pid::from_raw(run.pid()), Signal::SIGINT).map_err(|e| e.to_string())?;
    let status = run.end();
    if status.code() != Some(130) {
        return Err(format!("ended with {status} instead of code 130"));
    }
    if common::records(run.out.path()).len() != 1 || !run.out.path().join("table.md").exists() {
        return Err("the finished record or the table is missing".to_owned());
    }
    let left = run.left();
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind: {left:#?}"))
    }
}
