//! Holders and observers on real mounts: a punch parked by its edge's read while fillers are seen blocked, holds
//! that end whoever dies, and everybody else's I/O flowing meanwhile. This program is also the server of the
//! images, as the program is in a run.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::fcntl::{FallocateFlags, OFlag, PosixFadviseAdvice, fallocate, posix_fadvise};
use punchbench_fs::hold::{At, HoldSpec, Holder, IoKind, SERVE_IMAGE, Stay, observe, serve};
use punchbench_fs::{FsckResult, Mounted, Privilege, SetUp, SetUpError, Tag, Target};
use punchbench_sys::extents::extents;
use punchbench_sys::io::AlignedBuf;
use punchbench_sys::map::{Mapping, Protection};
use punchbench_sys::mount;
use punchbench_sys::process::{Child, Exit, fork};

type Outcome = Result<Completion, Failed>;

/// Bytes of the files.
const SIZE: u64 = 4 << 20;

/// A page, and the block of every filesystem here.
const PAGE: u64 = 4096;

/// Longer than anything here takes, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(SERVE_IMAGE) {
        return match serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    // On the main thread alone: actors are forked.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for (fs, inside) in [
        ("ext4", "ext4_zero_partial_blocks"),
        ("xfs", "xfs_free_file_space"),
    ] {
        trials.push(Trial::ignorable_test(
            format!("{fs}::punch_is_parked_and_fillers_are_blocked"),
            move || park(fs, inside),
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Sets a target up before a server, and gives it to a test.
fn with_held(fs: &str, test: impl FnOnce(&mut Mounted) -> Result<(), Failed>) -> Outcome {
    if !Privilege::current().may_use_devices() {
        return Ok(Completion::ignored_with(
            "needs root (loop device and mount)",
        ));
    }
    mount::enter_private_namespace()?;
    let work = tempfile::tempdir()?;
    let tag = Tag::of_this_process();
    let background = |_: u64, bytes: &mut [u8]| bytes.fill(0xE5);
    let env = SetUp {
        hold: true,
        ..SetUp::new(&tag, work.path(), &background)
    };
    let mut mounted = match Target::parse(fs)?.set_up(&env) {
        Ok(mounted) => mounted,
        Err(SetUpError::Skipped { reason, .. }) => return Ok(Completion::ignored_with(reason)),
        Err(error) => return Err(error.into()),
    };
    test(&mut mounted)?;
    match mounted.finish() {
        FsckResult::Clean => Ok(Completion::Completed),
        other => Err(format!("fsck: {other:?}").into()),
    }
}

/// A file of pages that say which they are, on the device and out of the page cache.
fn prepare(mounted: &Mounted, name: &str) -> Result<File, Failed> {
    let path = mounted.dir().join(name);
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at / PAGE) as u8 | 1).collect();
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(file)
}

/// Where a page of a file lies on the device.
fn on_device(file: &File, page: u64) -> Result<std::ops::Range<u64>, Failed> {
    let range = page * PAGE..(page + 1) * PAGE;
    let found = extents(file.as_fd(), range)?.unwrap_or_default();
    let first = found.first().ok_or("the page has no address")?;
    Ok(first.device..first.device + first.len)
}

fn holder(mounted: &Mounted) -> Result<&dyn Holder, Failed> {
    mounted.holder().ok_or_else(|| "no holder".into())
}

/// An actor of its own process.
fn actor(body: impl FnOnce() -> bool) -> Result<Child, Failed> {
    Ok(fork(|| i32::from(!body()))?)
}

fn asleep(child: &Child, at: At<'_>, what: &str) -> Result<Stay, Failed> {
    observe::wait_asleep(child.pid(), at, PATIENCE)?.ok_or_else(|| {
        format!(
            "{what} was not seen asleep at {at:?}: {:#?}",
            observe::tasks(child.pid())
        )
        .into()
    })
}

fn ended_well(mut child: Child, what: &str) -> Result<(), Failed> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait()? {
            Some(Exit::Code(0)) => return Ok(()),
            Some(other) => return Err(format!("{what}: {other:?}").into()),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let tasks = observe::tasks(child.pid());
    Err(format!("{what} did not end after the release: {tasks:#?}").into())
}

fn park(fs: &str, inside: &str) -> Outcome {
    with_held(fs, |mounted| {
        let began = Instant::now();
        let file = prepare(mounted, "victim")?;
        let other = prepare(mounted, "other")?;
        let (edge, middle, far) = (16, 24, 100);
        let block = on_device(&file, edge)?;
        let holder = holder(mounted)?;
        let mark = holder.mark()?;
        let hold = holder.hold(&HoldSpec::reads(vec![block.clone()]), PATIENCE)?;
        let puncher = actor(|| {
            let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&file, mode, (edge * PAGE + 100) as i64, (16 * PAGE) as i64).is_ok()
        })?;
        let held = holder
            .wait_held(hold, PATIENCE)?
            .ok_or("the edge was not read")?;
        assert_eq!(held.kind, IoKind::Read);
        assert!(held.range.contains(&block.start), "{held:?}, {block:?}");
        let parked = asleep(&puncher, At::Inside(&[inside]), "the punch")?;

        let reader = actor(|| {
            let mut page = [1; PAGE as usize];
            file.read_exact_at(&mut page, middle * PAGE).is_ok() && page.iter().all(|b| *b == 0)
        })?;
        let mapping = Mapping::new(file.as_fd(), SIZE, Protection::Read)?;
        let faulter = actor(|| {
            let mut mapping = mapping;
            let mut page = [1; PAGE as usize];
            mapping.load((middle + 1) * PAGE, &mut page);
            page.iter().all(|b| *b == 0)
        })?;
        let outside = actor(|| {
            let mut page = [0; PAGE as usize];
            file.read_exact_at(&mut page, far * PAGE).is_ok()
                && page.iter().all(|b| *b == far as u8 | 1)
        })?;
        let mut stays = Vec::new();
        for (child, what) in [
            (&reader, "read"),
            (&faulter, "fault"),
            (&outside, "read outside"),
        ] {
            stays.push(asleep(child, At::Any, what)?);
        }
        for stay in &stays {
            eprintln!(
                "{fs}: {} {:?}\n{:#?}",
                stay.top, stay.seen_for, stay.task.stack
            );
        }
        eprintln!("{fs} parked {:#?}", parked.task.stack);

        // Everybody else goes on: another file's page straight from the device.
        let took = Instant::now();
        let mut page = [0; PAGE as usize];
        other.read_exact_at(&mut page, far * PAGE)?;
        eprintln!("{fs}: another file's read took {:?}", took.elapsed());

        assert!(parked.goes_on() && stays.iter().all(Stay::goes_on));
        let held_on = holder.held()?;
        assert_eq!(held_on.len(), 1, "{held_on:?}");
        assert_eq!(holder.release(hold)?, 1);
        ended_well(puncher, "the punch")?;
        ended_well(reader, "the read")?;
        ended_well(faulter, "the fault")?;
        ended_well(outside, "the read outside")?;
        let seen = holder.seen(mark)?;
        assert_eq!(seen.lost, 0);
        eprintln!(
            "{fs}: {} requests, attempt {:?}",
            seen.requests.len(),
            began.elapsed()
        );
        Ok(())
    })
}
