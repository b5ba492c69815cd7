//! Every adapter on a real mount: set up, looked over, remounted, checked, found damaged when it is, and
//! gone without a trace. What this machine cannot mount is skipped with the reason.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_fs::adapter::Store;
use punchbench_fs::adapters::fuse;
use punchbench_fs::subject::SyscallSubjects;
use punchbench_fs::{
    Ballast, FsckResult, Mounted, Privilege, Reuse, SetUp, SetUpError, Tag, Target, sweep,
};
use punchbench_race::{Call, DirectIo, Look, Subjects};
use punchbench_scenarios::{Capability, catalog};
use punchbench_sys::{loopdev, mount};

type Outcome = Result<Completion, Failed>;

fn main() -> ExitCode {
    if let [_, word, below, mounted] = &std::env::args_os().collect::<Vec<_>>()[..]
        && word == fuse::SERVER
    {
        return ExitCode::from(u8::from(
            fuse::serve(below.as_ref(), mounted.as_ref()).is_err(),
        ));
    }
    if let Ok(how) = std::env::var(LEAVE) {
        leave_behind(&how);
    }
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for target in Target::all(true) {
        trials.push(Trial::ignorable_test(
            format!("{target}::comes_up_and_goes"),
            move || come_up_and_go(target),
        ));
        if target.adapter.name() != "dir" {
            trials.push(Trial::ignorable_test(
                format!("{target}::leaves_nothing"),
                move || leave_nothing(target),
            ));
        }
    }
    let on_device = |target: &Target| matches!(target.adapter.store(), Store::Device(_));
    for target in Target::all(true).into_iter().filter(on_device) {
        trials.push(Trial::ignorable_test(
            format!("{target}::damage_is_found"),
            move || damage_is_found(target),
        ));
        trials.push(Trial::ignorable_test(
            format!("{target}::is_filled_up"),
            move || fill_up(target),
        ));
    }
    for target in Target::all(false) {
        if target.adapter.profiles().len() > 1 {
            trials.push(Trial::ignorable_test(
                format!("{target}::is_no_other_profile"),
                move || is_no_other_profile(target),
            ));
        }
    }
    trials.push(Trial::ignorable_test(
        "bdev::files_are_devices",
        files_are_devices,
    ));
    for how in ["survivor", "frozen", "frozen,survivor"] {
        trials.push(Trial::ignorable_test(
            format!("sweep::{}", how.replace(',', "_with_")),
            move || sweep_finds(how),
        ));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The bytes of a device before mkfs.
fn background(at: u64, bytes: &mut [u8]) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = 0xE0 | ((at + index as u64) >> 12) as u8 & 0x0F;
    }
}

/// Runs a test with a target mounted in a mount namespace that only this thread sees.
fn with<T>(target: Target, body: impl FnOnce(Mounted, &Path) -> T) -> Result<T, Completion> {
    let work = tempfile::tempdir().expect("a temporary directory");
    if Privilege::current().may_mount_tmpfs() {
        mount::enter_private_namespace().expect("a mount namespace");
    }
    let tag = Tag::of_this_process();
    let mut env = SetUp::new(&tag, work.path(), &background);
    env.in_dir = Some(work.path());
    match target.set_up(&env) {
        Ok(mounted) => Ok(body(mounted, work.path())),
        Err(SetUpError::Skipped { reason, hint }) => {
            assert!(
                !reason.is_empty() && hint.is_some(),
                "a skip without a reason or a hint"
            );
            Err(Completion::ignored_with(reason))
        }
        Err(error) => panic!("{target}: {error}"),
    }
}

fn outcome(result: Result<(), Completion>) -> Outcome {
    Ok(result.err().unwrap_or(Completion::Completed))
}

/// What is known of the ones that we mount ourselves; probing must find it.
fn known(target: &str) -> (&'static [Capability], &'static [Capability]) {
    use Capability::*;
    match target {
        "ext4" | "ext4:1k" | "ext4:nodelalloc" | "ext4:bigalloc" | "ext4:nojournal" => (
            &[
                PunchHole,
                ZeroRange,
                CollapseRange,
                InsertRange,
                Nowait,
                DirectRead,
                DirectWrite,
                Fiemap,
                SwapBoot,
            ],
            &[Dedupe, Clone, ExchangeRange, BlkZeroout, BlkDiscard],
        ),
        // Nowhere to look directly: neither at the file nor at the device.
        "ext4:journal" => (
            &[PunchHole, ZeroRange, CollapseRange, InsertRange, Fiemap],
            &[Dedupe, DirectRead],
        ),
        "ext3" | "ext2" | "ext4:noextents" => (
            &[PunchHole, DirectRead, DirectWrite, Fiemap],
            &[ZeroRange, CollapseRange, InsertRange, Dedupe, Clone],
        ),
        "xfs:noreflink" => (
            &[PunchHole, ZeroRange, CollapseRange, InsertRange, Fiemap],
            &[Dedupe],
        ),
        "xfs" | "xfs:1k" | "xfs:exchange" => (
            &[
                PunchHole,
                ZeroRange,
                CollapseRange,
                InsertRange,
                Dedupe,
                Clone,
                DirectRead,
                DirectWrite,
                Fiemap,
            ],
            &[],
        ),
        "btrfs:nodatacow" => (
            &[PunchHole, ZeroRange, Dedupe, DirectRead, Fiemap],
            &[CollapseRange, InsertRange],
        ),
        "btrfs" => (
            &[PunchHole, ZeroRange, Dedupe, Clone, Fiemap],
            &[CollapseRange, InsertRange],
        ),
        "f2fs" | "f2fs:lfs" => (
            &[PunchHole, ZeroRange, CollapseRange, InsertRange, Fiemap],
            &[Dedupe],
        ),
        "tmpfs" | "tmpfs:huge" => (&[PunchHole], &[CollapseRange, Dedupe, DirectRead, Fiemap]),
        "bdev" => (
            &[PunchHole, ZeroRange, Nowait, DirectRead, AdviceFills],
            &[CollapseRange, InsertRange, Dedupe, Fiemap],
        ),
        _ => (&[], &[]),
    }
}

fn come_up_and_go(target: Target) -> Outcome {
    let result = with(target, |mut mounted, _| {
        for fact in mounted.facts() {
            eprintln!("{target}: {fact}");
        }
        let name = target.to_string();
        let drivers = target.adapter.drivers();
        assert!(
            drivers.is_empty() || drivers.contains(&mounted.driver()),
            "served by {}",
            mounted.driver()
        );
        let (can, cannot) = known(&name);
        for capability in can {
            assert_eq!(mounted.capability(*capability), Ok(()), "{capability:?}");
        }
        for capability in cannot {
            assert!(
                mounted.capability(*capability).is_err(),
                "{capability:?} on {name}"
            );
        }
        // The FUSE server lists no directory.
        if mounted.driver() != "fuse" {
            assert_eq!(
                fs::read_dir(mounted.dir())
                    .unwrap()
                    .filter(|e| e.as_ref().unwrap().file_name() != "lost+found")
                    .count(),
                0,
                "scratch files are left"
            );
        }
        assert_eq!(mounted.cache_is_store(), mounted.driver() == "tmpfs");
        if mounted.device_name().is_some() {
            let stamped = stamped(&mounted);
            assert!(
                stamped > 60,
                "only {stamped} % of the device kept its background"
            );
            assert_eq!(mounted.geometry().block, target.profile.unit);
            assert!(
                mounted.geometry().free > 64 << 20,
                "only {} bytes are free",
                mounted.geometry().free
            );
        }
        if !mounted.can_remount() {
            assert!(mounted.remount().is_err());
            assert!(matches!(mounted.finish(), FsckResult::NotRun(_)));
            return;
        }
        fs::write(mounted.dir().join("kept"), "kept").unwrap();
        mounted.remount().unwrap();
        let device = mounted.device_name().unwrap();
        if let Ok(reserve) = fs::read_to_string(format!("/sys/fs/ext4/{device}/reserved_clusters"))
        {
            assert_eq!(reserve.trim(), "0");
        }
        assert_eq!(
            fs::read_to_string(mounted.dir().join("kept")).unwrap(),
            "kept"
        );
        assert_eq!(mounted.fsck().unwrap(), FsckResult::Clean);
        assert_eq!(mounted.finish(), FsckResult::Clean);
    });
    outcome(result)
}

/// How many of a hundred places on the medium still hold the background after mkfs and mount.
fn stamped(mounted: &Mounted) -> usize {
    let holds = |place: &u64| {
        let (mut seen, mut expected) = ([0; 4096], [0; 4096]);
        // Not where small groups begin, with their bitmaps and inodes.
        let at = place * (3 << 20) + (1 << 20) + (160 << 10);
        mounted.read_medium(at, &mut seen).unwrap();
        background(at, &mut expected);
        seen == expected
    };
    (0..100).filter(holds).count()
}

fn leave_nothing(target: Target) -> Outcome {
    let result = with(target, |mounted, work| {
        let dir = mounted.dir().to_owned();
        // An unnamed file's path in sysfs has its inode number in it: no other test's is the same.
        let backing = mounted
            .device_name()
            .map(|name| backing_of(&name).expect("it is attached"));
        // Even with a file open, so that it cannot be unmounted in order.
        let file = File::create(dir.join("open")).unwrap();
        drop(mounted);
        drop(file);
        let table = mount::table_of("thread-self").unwrap();
        assert!(
            !table.iter().any(|entry| entry.at == dir),
            "it is still mounted"
        );
        eventually(|| {
            let used = loopdev::in_use().unwrap();
            let mut files = used
                .iter()
                .map(|status| backing_of(&format!("loop{}", status.number)));
            backing.is_none() || !files.any(|file| file == backing)
        });
        assert_eq!(
            fs::read_dir(work).unwrap().count(),
            0,
            "directories are left"
        );
    });
    outcome(result)
}

fn backing_of(device: &str) -> Option<String> {
    fs::read_to_string(format!("/sys/block/{device}/loop/backing_file")).ok()
}

/// Overwrites metadata behind the filesystem's back: fsck must see it, or nobody should trust its "clean".
fn damage_is_found(target: Target) -> Outcome {
    let name = target.adapter.name();
    let result = with(target, |mut mounted, _| {
        for index in 0..200 {
            fs::write(
                mounted.dir().join(format!("file{index}")),
                vec![index; 100_000],
            )
            .unwrap();
        }
        assert_eq!(mounted.fsck().unwrap(), FsckResult::Clean);
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(mounted.device_path().unwrap())
            .unwrap();
        spoil(name, &device);
        device.sync_all().unwrap();
        drop(device);
        match mounted.finish() {
            FsckResult::Damaged(text) => eprintln!(
                "{name}: {}",
                text.lines().take(3).collect::<Vec<_>>().join(" / ")
            ),
            other => panic!("spoilt, and fsck says {other:?}"),
        }
    });
    outcome(result)
}

/// Puts noise over metadata but not over the superblock.
fn spoil(name: &str, device: &File) {
    let stretches: &[(u64, usize)] = match name {
        // Group descriptors' reserve, bitmaps and inode tables of the first group.
        "ext4" | "ext3" | "ext2" => &[(128 << 10, 256 << 10)],
        // From the inodes of the root directory's chunk on.
        "xfs" => &[(root_of_xfs(device), 128 << 10)],
        // Both copies of the metadata chunk.
        "btrfs" => &[(37 << 20, 64 << 20)],
        // Behind both checkpoints: SIT and NAT.
        _ => &[(6 << 20, 8 << 20)],
    };
    for (at, len) in stretches {
        device.write_all_at(&vec![0x5A; *len], *at).unwrap();
    }
}

/// Where the root directory's inode lies: sb_rootino, sb_inopblog and sb_blocksize of struct xfs_dsb.
fn root_of_xfs(device: &File) -> u64 {
    let mut head = [0; 512];
    device.read_exact_at(&mut head, 0).unwrap();
    let rootino = u64::from_be_bytes(head[56..64].try_into().unwrap());
    let block = u32::from_be_bytes(head[4..8].try_into().unwrap());
    (rootino >> head[123]) * u64::from(block)
}

/// Ballast must leave about as much as was asked, and give it all back.
fn fill_up(target: Target) -> Outcome {
    let result = with(target, |mounted, _| {
        assert!(matches!(mounted.reuse(), Reuse::Plan(_)));
        let before = mounted.geometry().free;
        let leave = 24 << 20;
        let ballast = Ballast::fill(&mounted, leave).unwrap();
        assert!(
            ballast.bytes > before / 2,
            "{} bytes of ballast in {before}",
            ballast.bytes
        );
        let path = mounted.dir().join("file");
        let file = File::create(&path).unwrap();
        let half = vec![1; leave as usize / 2];
        file.write_all_at(&half, 0).unwrap();
        file.sync_all().unwrap();
        let more = (1..6).find_map(|times| {
            let written = file.write_all_at(&half, times * half.len() as u64);
            written.and_then(|()| file.sync_all()).err()
        });
        assert!(
            more.is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull),
            "there is room for three times of what was to be left"
        );
        drop(file);
        fs::remove_file(&path).unwrap();
        drop(ballast);
        eventually(|| {
            nix::unistd::syncfs(File::open(mounted.dir()).unwrap()).unwrap();
            let stat = nix::sys::statfs::statfs(mounted.dir()).unwrap();
            stat.blocks_available() * stat.block_size().unsigned_abs() > before / 10 * 9
        });
        assert_eq!(mounted.finish(), FsckResult::Clean);
    });
    outcome(result)
}

/// What is special about each profile is missing from the base one, and is missed.
fn is_no_other_profile(base: Target) -> Outcome {
    let result = with(base, |mounted, _| {
        let (own, others) = base.adapter.profiles().split_first().unwrap();
        mounted.prove(own).unwrap();
        for other in others {
            let error = mounted.prove(other).expect_err(other.name).to_string();
            eprintln!("{base} as {}: {error}", other.name);
            assert!(error.contains("the profile means"), "{error}");
        }
    });
    outcome(result)
}

/// A scenario's file is a device of its size, with a page cache of its own, and gone afterwards.
fn files_are_devices() -> Outcome {
    let bdev = Target::parse("bdev").unwrap();
    let scenario = |name: &str| {
        let mut all = catalog().into_iter();
        all.find(|scenario| scenario.scenario == name).unwrap()
    };
    let result = with(bdev, |mut mounted, work| {
        let tag = Tag::of_this_process();
        let env = SetUp::new(&tag, work, &background);
        let refused = mounted.provide(&scenario("punch-and-reuse"), &env);
        assert!(
            matches!(&refused, Err(SetUpError::Unsupported { reason }) if reason.contains("reuse")),
            "a device that is empty: {refused:?}"
        );
    });
    if result.is_err() {
        return outcome(result);
    }
    let result = with(bdev, |mut mounted, work| {
        let tag = Tag::of_this_process();
        let env = SetUp::new(&tag, work, &background);
        let racing = scenario("punch-while-read");
        mounted.provide(&racing, &env).unwrap();
        let units = mounted.units();
        let options = mounted.subject_options(units.page, false);
        let subjects = SyscallSubjects::new(mounted.dir(), &racing, units, options).unwrap();
        let mut stage = subjects.stage().unwrap();
        assert_eq!(stage.direct(), DirectIo::Real);
        let size = 32 << 20;
        let error = stage.prepare(0, size / 2, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("cannot hold"), "{error}");
        stage
            .prepare(0, size, &mut |_, bytes| bytes.fill(0x77))
            .unwrap();
        assert_eq!(stage.blocks(0, 0..size).unwrap(), None);

        let mut actor = subjects.actor(0).unwrap();
        let mut page = vec![0; units.page as usize];
        let mut resident = [false];
        let chunk = units.page..2 * units.page;
        actor.look(Look::Read, 0, chunk.start, &mut page);
        actor.resident(0, chunk.clone(), &mut resident).unwrap();
        assert!(resident[0] && page.iter().all(|byte| *byte == 0x77));
        assert!(actor.evict(0, chunk.clone()).unwrap());
        actor.resident(0, chunk.clone(), &mut resident).unwrap();
        assert!(!resident[0]);
        let (at, len) = (chunk.start, units.page);
        let punch = Call::PunchHole { file: 0, at, len };
        assert_eq!(actor.perform(&punch, &mut page).errno, 0);
        for how in [Look::Read, Look::Direct] {
            page.fill(1);
            assert_eq!(actor.look(how, 0, at, &mut page).bytes, len);
            assert!(page.iter().all(|byte| *byte == 0), "{how:?}");
        }
        actor.look(Look::Direct, 0, at + len, &mut page);
        assert!(page.iter().all(|byte| *byte == 0x77));

        let devices = mounted.device_names();
        let there = |name: &String| Path::new("/sys/block").join(name).exists();
        assert!(
            devices.len() == 1 && devices.iter().all(there),
            "{devices:?}"
        );
        drop((actor, stage, subjects, mounted));
        eventually(|| !devices.iter().any(there));
    });
    outcome(result)
}

/// Waits for what a filesystem does in the background.
fn eventually(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "it has not happened in 20 s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// In the environment of a copy of this program that plays a runner to be killed: how it is to be left.
const LEAVE: &str = "PUNCHBENCH_TEST_LEAVE";

/// Plays a runner: sets ext4 up in a namespace of its own, says so, and waits to be killed.
fn leave_behind(how: &str) -> ! {
    mount::enter_private_namespace().expect("a mount namespace");
    let work = PathBuf::from(std::env::var_os("PUNCHBENCH_TEST_WORK").expect("a directory"));
    let tag = Tag::of_this_process();
    let mounted = Target::parse("ext4")
        .unwrap()
        .set_up(&SetUp::new(&tag, &work, &background))
        .expect("ext4");
    let survivor = how.contains("survivor").then(|| {
        Command::new("sleep")
            .arg("1000")
            .current_dir(mounted.dir())
            .env(punchbench_fs::tag::ENVIRONMENT, tag.to_string())
            .spawn()
            .expect("sleep")
    });
    if how.contains("frozen") {
        punchbench_sys::blk::freeze(File::open(mounted.dir()).unwrap()).expect("freeze");
    }
    let survivor = survivor.map_or(0, |child| child.id());
    println!("{} {survivor}", mounted.device_name().unwrap());
    loop {
        std::thread::park();
    }
}

/// A runner is killed: nothing that was its is left after a sweep.
fn sweep_finds(how: &str) -> Outcome {
    if !Privilege::current().may_use_devices() {
        return Ok(Completion::ignored_with(
            "needs root (loop device and mount)",
        ));
    }
    let work = tempfile::tempdir().unwrap();
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .env(LEAVE, how)
        .env("PUNCHBENCH_TEST_WORK", work.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(runner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (device, survivor) = line.trim().split_once(' ').expect("the runner got ready");
    let tag_of_device = || {
        let all = loopdev::in_use().unwrap();
        all.into_iter()
            .find(|s| format!("loop{}", s.number) == device)
            .map(|s| s.tag)
    };
    let tag = tag_of_device().expect("the device is in use");

    let lines = sweep(&[work.path()]).unwrap();
    assert!(
        !lines.iter().any(|line| line.contains(device)),
        "a live runner was swept: {lines:?}"
    );
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert_eq!(
        tag_of_device().as_ref(),
        Some(&tag),
        "nothing was left, so this tests nothing"
    );

    let lines = sweep(&[work.path()]).unwrap();
    for line in &lines {
        eprintln!("{line}");
    }
    assert_ne!(
        tag_of_device(),
        Some(tag),
        "the device is still attached: {lines:?}"
    );
    assert!(lines.iter().any(|line| line.contains(device)), "{lines:?}");
    assert_eq!(
        lines.iter().any(|line| line.contains("thawed")),
        how.contains("frozen"),
        "{lines:?}"
    );
    assert_eq!(
        fs::read_dir(work.path()).unwrap().count(),
        0,
        "directories are left"
    );
    let stat = fs::read_to_string(format!("/proc/{survivor}/stat"));
    assert!(
        !stat.is_ok_and(|text| text.contains("(sleep) S")),
        "the survivor still runs"
    );
    Ok(Completion::Completed)
}
