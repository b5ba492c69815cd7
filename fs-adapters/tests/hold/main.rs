//! Holders and observers on real mounts: a punch parked by its edge's read while fillers are seen blocked, holds
//! that end whoever dies, and everybody else's I/O flowing meanwhile. This program is also the server of the
//! images, as the program is in a run, and the trial that is killed.

mod kill;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use punchbench_fs::hold::observe::{self, wait_asleep};
use punchbench_fs::hold::{
    At, HoldError, HoldSpec, Holder, HolderKind, ImageServer, IoKind, SERVE_IMAGE, Stay, Throttle,
    Way, accepted, place, serve,
};
use punchbench_fs::tag::ENVIRONMENT;
use punchbench_fs::tools::Version;
use punchbench_fs::{FsckResult, Mounted, Privilege, SetUp, SetUpError, Tag, Target, sweep};
use punchbench_sys::loopdev::{self, LoopDevice};
use punchbench_sys::map::{Mapping, Protection};
use punchbench_sys::mount;
use punchbench_sys::namespaces::{Isolated, Namespaces, inherited_events};
use punchbench_sys::process::{Child, Exit, Pidfd, fork};

use kill::{STAGES, kill_one, kill_server, runner, sweep_up, trial};

type Outcome = Result<Completion, Failed>;

/// Bytes of the files.
const SIZE: u64 = 4 << 20;

/// A page, and the block of every filesystem here.
const PAGE: u64 = 4096;

/// Pages of the file: the one whose read parks the punch, two in the middle of the hole, one far from it.
const EDGE: u64 = 16;
const MIDDLE: [u64; 2] = [24, 25];
const FAR: u64 = 100;

/// Longer than anything here takes, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// The commands of this program beside its tests: see [`trial`] and [`runner`].
const TRIAL: &str = "trial";
const RUNNER: &str = "runner";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let outcome = match words.get(1).map(String::as_str) {
        Some(SERVE_IMAGE) => serve().map_err(Failed::from),
        Some(TRIAL) => trial(&words[2], &words[3]),
        Some(RUNNER) => runner(&words[2], &words[3]),
        _ => return run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // On the main thread alone, as actors are forked; and loop devices are counted.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    let mut add = |name: String, test: Box<dyn FnOnce() -> Outcome + Send>| {
        trials.push(Trial::ignorable_test(name, move || {
            if !Privilege::current().may_use_devices() {
                return Ok(Completion::ignored_with(
                    "needs root (loop device and mount)",
                ));
            }
            mount::enter_private_namespace()?;
            test()
        }));
    };
    for (fs, inside) in [
        ("ext4", "ext4_zero_partial_blocks"),
        ("xfs", "xfs_free_file_space"),
    ] {
        add(
            format!("{fs}::fillers_are_blocked_while_the_punch_is_parked"),
            Box::new(move || park(fs, inside)),
        );
    }
    for (fs, inside) in [
        ("ext4", "ext4_zero_partial_blocks"),
        ("xfs", "xfs_free_file_space"),
        ("btrfs", "btrfs_truncate_block"),
    ] {
        add(
            format!("{fs}::a_throttled_process_is_parked_and_nobody_else"),
            Box::new(move || throttle(fs, inside)),
        );
    }
    for fs in ["ext4", "xfs", "btrfs", "f2fs"] {
        add(
            format!("{fs}::commits_go_where_it_says"),
            Box::new(move || commits(fs)),
        );
        add(
            format!("{fs}::all_but_a_files_data_is_held"),
            Box::new(move || all_but_data(fs)),
        );
    }
    add("a_hold_ends_by_itself".to_owned(), Box::new(expire));
    add(
        "a_dead_server_fails_what_it_held".to_owned(),
        Box::new(kill_server),
    );
    for victim in [RUNNER, TRIAL, SERVE_IMAGE] {
        for stage in STAGES {
            add(
                format!("nothing_is_left_of_a_dead_{victim}::{stage}"),
                Box::new(move || kill_one(victim, stage)),
            );
        }
    }
    add(
        "what_a_dead_run_left_is_swept".to_owned(),
        Box::new(sweep_up),
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Sets a target up, before a server or not, and gives it to a test.
fn with(fs: &str, hold: bool, test: impl FnOnce(&Mounted) -> Result<(), Failed>) -> Outcome {
    let work = tempfile::tempdir()?;
    let tag = Tag::of_this_process();
    let mounted = match set_up(fs, hold, &tag, work.path()) {
        Ok(mounted) => mounted,
        Err(SetUpError::Skipped { reason, .. }) => return Ok(Completion::ignored_with(reason)),
        Err(error) => return Err(error.into()),
    };
    test(&mounted)?;
    match mounted.finish() {
        FsckResult::Clean => Ok(Completion::Completed),
        other => Err(format!("fsck: {other:?}").into()),
    }
}

fn set_up(fs: &str, hold: bool, tag: &Tag, work: &Path) -> Result<Mounted, SetUpError> {
    let background = |_: u64, bytes: &mut [u8]| bytes.fill(0xE5);
    let env = SetUp {
        hold: hold.then_some(HolderKind::ImageServer),
        ..SetUp::new(tag, work, &background)
    };
    let target = Target::parse(fs).map_err(|error| SetUpError::Error(error.to_string()))?;
    target.set_up(&env)
}

/// A file of pages that say which they are, on the device and out of the page cache.
fn prepare(mounted: &Mounted, name: &str) -> Result<File, Failed> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(mounted.dir().join(name))?;
    let bytes: Vec<u8> = (0..SIZE).map(|at| byte_of(at / PAGE)).collect();
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(file)
}

/// What a page of a file is full of.
fn byte_of(page: u64) -> u8 {
    page as u8 | 1
}

fn page_of(file: &File, page: u64) -> std::io::Result<[u8; PAGE as usize]> {
    let mut bytes = [0xFF; PAGE as usize];
    file.read_exact_at(&mut bytes, page * PAGE)?;
    Ok(bytes)
}

fn is_all(bytes: &[u8], what: u8) -> bool {
    bytes.iter().all(|byte| *byte == what)
}

/// Where a page of a file lies on the device.
fn block_of(mounted: &Mounted, file: &File, page: u64) -> Result<Range<u64>, Failed> {
    let found = place::of_file(mounted, file, page * PAGE..(page + 1) * PAGE)?;
    found
        .into_iter()
        .next()
        .ok_or_else(|| "the page has no address".into())
}

fn holder(mounted: &Mounted) -> Result<&dyn Holder, Failed> {
    mounted.holder().ok_or_else(|| "no holder".into())
}

/// An actor in a process of its own; it has done well if `body` says so.
fn actor(body: impl FnOnce() -> bool) -> Result<Child, Failed> {
    Ok(fork(|| i32::from(!body()))?)
}

/// Punches from within the edge page over all of the middle.
fn punch(file: &File) -> bool {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, (EDGE * PAGE + 100) as i64, (16 * PAGE) as i64).is_ok()
}

fn asleep(child: &Child, at: At<'_>, what: &str) -> Result<Stay, Failed> {
    wait_asleep(child.pid(), at, PATIENCE)?.ok_or_else(|| {
        let tasks = observe::tasks(child.pid());
        format!("{what} was not seen asleep at {at:?}: {tasks:#?}").into()
    })
}

fn ended_well(mut child: Child, what: &str) -> Result<(), Failed> {
    let pidfd = Pidfd::open(child.pid().unsigned_abs())?;
    if !pidfd.wait(Instant::now() + PATIENCE) {
        let tasks = observe::tasks(child.pid());
        return Err(format!("{what} did not end: {tasks:#?}").into());
    }
    match child.wait()? {
        Exit::Code(0) => Ok(()),
        other => Err(format!("{what}: {other:?}").into()),
    }
}

/// The punch waits for its edge; who fills a page of the file waits for the punch, and is seen to; who does not,
/// goes on.
fn park(fs: &str, inside: &str) -> Outcome {
    let began = Instant::now();
    with(fs, true, |mounted| {
        let set_up = began.elapsed();
        let file = prepare(mounted, "victim")?;
        let other = prepare(mounted, "other")?;
        let block = block_of(mounted, &file, EDGE)?;
        let mut mapping = Mapping::new(file.as_fd(), SIZE, Protection::Read)?;
        page_of(&file, MIDDLE[0])?;
        let holder = holder(mounted)?;
        let mark = holder.mark()?;
        let hold = holder.hold(&HoldSpec::reads(vec![block.clone()]), PATIENCE)?;
        assert_eq!(holder.wait_held(hold, Duration::from_millis(20))?, None);

        let puncher = actor(|| punch(&file))?;
        let held = holder
            .wait_held(hold, PATIENCE)?
            .ok_or("the edge was not read")?;
        assert_eq!(held.kind, IoKind::Read);
        assert!(held.range.contains(&block.start), "{held:?}, {block:?}");
        let parked = asleep(&puncher, At::Inside(&[inside]), "the punch")?;
        let middle = MIDDLE[0] * PAGE..(MIDDLE[1] + 1) * PAGE;
        assert!(
            !mapping.any_resident(middle)?,
            "the middle's pages are still there, so it is not parked inside"
        );

        let reader = actor(|| page_of(&file, MIDDLE[0]).is_ok_and(|page| is_all(&page, 0)))?;
        let faulter = actor(|| {
            let mut page = [1; PAGE as usize];
            mapping.load(MIDDLE[1] * PAGE, &mut page);
            is_all(&page, 0)
        })?;
        let kernel = Version::of_kernel();
        let frames = |way| accepted(way, kernel, mounted.driver());
        let (read, fault) = (frames(Way::Read), frames(Way::Fault));
        let stays = [
            asleep(&reader, At::Top(&read), "the read")?,
            asleep(&faulter, At::Top(&fault), "the fault")?,
        ];

        // Everybody else goes on: a page of another file, straight from the device.
        let latency = Instant::now();
        assert!(is_all(&page_of(&other, FAR)?, byte_of(FAR)));
        let latency = latency.elapsed();
        assert!(latency < PATIENCE / 10, "it waited too: {latency:?}");

        assert!(parked.goes_on() && stays.iter().all(Stay::goes_on));
        assert_eq!(holder.held()?, [held]);
        assert_eq!(holder.release(hold)?, 1);
        ended_well(puncher, "the punch")?;
        ended_well(reader, "the read")?;
        ended_well(faulter, "the fault")?;
        assert!(matches!(holder.release(hold), Err(HoldError::Over(_))));
        let seen = holder.seen(mark)?;
        assert_eq!(seen.lost, 0);
        let by_hold: Vec<_> = seen
            .requests
            .iter()
            .filter(|io| io.held == Some(hold))
            .collect();
        assert_eq!(by_hold.len(), 1, "{seen:?}");
        println!(
            "{fs}: {} in {}, {} and {} seen for {:?} and {:?}; another file's read took {latency:?}; set-up {set_up:?}, \
             all {:?}",
            parked.top,
            parked.function,
            stays[0].top,
            stays[1].top,
            stays[0].seen_for,
            stays[1].seen_for,
            began.elapsed()
        );
        Ok(())
    })
}

/// The same without a server: only the punch's process is throttled.
fn throttle(fs: &str, inside: &str) -> Outcome {
    let work = tempfile::tempdir()?;
    let throttle = match Throttle::probe(&Tag::of_this_process(), work.path()) {
        Ok(throttle) => throttle,
        Err(HoldError::Unsupported(why)) => return Ok(Completion::ignored_with(why)),
        Err(error) => return Err(error.into()),
    };
    with(fs, false, |mounted| {
        let file = prepare(mounted, "victim")?;
        let other = prepare(mounted, "other")?;
        let path = mounted.device_path().ok_or("no device")?;
        let number = fs::metadata(path)?.rdev();
        let device = (major(number) as u32, minor(number) as u32);
        let mut gate = std::io::pipe()?;
        let puncher = actor(|| {
            let mut byte = [0];
            gate.0.read_exact(&mut byte).is_ok() && punch(&file)
        })?;
        let hold = throttle.hold_actor(puncher.pid(), device, PAGE, PATIENCE)?;
        gate.1.write_all(b"x")?;
        let parked = asleep(&puncher, At::Inside(&[inside]), "the punch")?;
        let latency = Instant::now();
        assert!(is_all(&page_of(&other, FAR)?, byte_of(FAR)));
        let latency = latency.elapsed();
        assert!(latency < PATIENCE / 10, "it waited too: {latency:?}");
        assert!(parked.goes_on());
        let released = Instant::now();
        hold.release()?;
        ended_well(puncher, "the punch")?;
        let took = released.elapsed();
        assert!(took < PATIENCE / 3, "the release did not release: {took:?}");
        println!(
            "{fs}: {} in {}; another file's read took {latency:?}; ended {took:?} after the release",
            parked.top, parked.function
        );
        Ok(())
    })
}

/// A commit writes into the area that commits are said to go to, and waits while writes there are held.
fn commits(fs: &str) -> Outcome {
    with(fs, true, |mounted| {
        let area = place::of_commits(mounted)?;
        let file = prepare(mounted, "victim")?;
        let holder = holder(mounted)?;
        let hold = holder.hold(&HoldSpec::writes(area.clone()), PATIENCE)?;
        let syncer = actor(|| punch(&file) && nix::unistd::syncfs(&file).is_ok())?;
        let held = holder
            .wait_held(hold, PATIENCE)?
            .ok_or_else(|| format!("nothing was written to {area:?}"))?;
        let stay = asleep(&syncer, At::Any, "the sync")?;
        assert!(stay.goes_on());
        assert!(holder.release(hold)? >= 1);
        ended_well(syncer, "the sync")?;
        println!(
            "{fs}: commits to {area:?}: held {held:?}, {} asleep",
            stay.top
        );
        Ok(())
    })
}

/// With every read outside of a file's data held, its data is read as ever and nothing else.
fn all_but_data(fs: &str) -> Outcome {
    with(fs, true, |mounted| {
        let file = prepare(mounted, "victim")?;
        let other = prepare(mounted, "other")?;
        // Its mapping and its checksums are then in memory.
        for page in 0..SIZE / PAGE {
            page_of(&file, page)?;
        }
        let place = place::all_but_file(mounted, &file)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        posix_fadvise(&other, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let holder = holder(mounted)?;
        let mark = holder.mark()?;
        let what = HoldSpec {
            kinds: vec![IoKind::Read],
            place,
        };
        let hold = holder.hold(&what, PATIENCE)?;
        assert!(is_all(&page_of(&file, FAR)?, byte_of(FAR)));
        let seen = holder.seen(mark)?.requests;
        assert!(seen.iter().any(|io| io.kind == IoKind::Read), "{seen:?}");
        let reader = actor(|| page_of(&other, FAR).is_ok_and(|page| is_all(&page, byte_of(FAR))))?;
        holder.wait_held(hold, PATIENCE)?.ok_or("it was not held")?;
        assert_eq!(holder.release_all()?, 1);
        ended_well(reader, "the other file's read")
    })
}

/// Nobody releases: the server does, in time.
fn expire() -> Outcome {
    const HELD: Duration = Duration::from_millis(700);
    with("ext4", true, |mounted| {
        let file = prepare(mounted, "victim")?;
        let block = block_of(mounted, &file, FAR)?;
        let holder = holder(mounted)?;
        let began = Instant::now();
        let hold = holder.hold(&HoldSpec::reads(vec![block]), HELD)?;
        assert!(is_all(&page_of(&file, FAR)?, byte_of(FAR)));
        let took = began.elapsed();
        assert!(took >= HELD, "it was not held: {took:?}");
        assert!(took < PATIENCE / 3, "it was held for longer: {took:?}");
        let over = holder.wait_held(hold, PATIENCE);
        assert!(matches!(over, Err(HoldError::Over(_))), "{over:?}");
        println!("a hold of {HELD:?} lasted {took:?}");
        Ok(())
    })
}
