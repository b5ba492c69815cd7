//! Calls that take more than a temporary directory, on filesystems mounted for the test. What this machine
//! cannot mount is left out, with the reason printed.

use nix::libc;
use punchbench_scenarios::{
    Capability, CopyArgs, ExchangeArgs, OnFile, ReadArgs, SpliceArgs, WriteArgs,
};

use super::*;
use crate::adapter::Target;
use crate::mounted::Mounted;
use crate::set_up::{SetUp, SetUpError};
use crate::tag::Tag;
use crate::user::Privilege;

/// The files of a scenario in which one actor does what is tested.
struct Raced {
    actor: Box<dyn Subject>,
    coordinator: Box<dyn Subject>,
    stage: Box<dyn Stage>,
}

impl Raced {
    fn perform(&mut self, call: Call, buf: &mut [u8]) -> Outcome {
        self.actor.perform(&call, buf)
    }

    /// What a file holds, through the page cache.
    fn read(&mut self, file: FileId, at: u64, len: u64) -> Vec<u8> {
        let mut buf = vec![0xaa; len as usize];
        let seen = self.coordinator.look(Look::Read, file, at, &mut buf);
        buf.truncate(seen.bytes as usize);
        buf
    }

    /// How many of a range's pages are in the page cache.
    fn resident(&mut self, file: FileId, at: u64, len: u64) -> usize {
        let mut pages = vec![false; (len / PAGE) as usize];
        self.coordinator
            .resident(file, at..at + len, &mut pages)
            .unwrap();
        pages.iter().filter(|page| **page).count()
    }

    fn evict(&mut self, file: FileId) {
        assert!(self.coordinator.evict(file, 0..SIZE).unwrap());
    }
}

/// Mounts a target where only this thread sees it, and hands over its files; `OTHER` is filled with
/// the complement of what `VICTIM` holds.
fn on_mount(target: &str, ops: &[Op], test: impl FnOnce(&Mounted, &mut Raced)) {
    let target = Target::parse(target).unwrap();
    if !Privilege::current().may_use_devices() {
        println!("{target} is left out: not root");
        return;
    }
    punchbench_sys::mount::enter_private_namespace().unwrap();
    let work = tempfile::tempdir().unwrap();
    let tag = Tag::of_this_process();
    let mounted = match target.set_up(&SetUp::new(&tag, work.path(), &|_, _| {})) {
        Ok(mounted) => mounted,
        Err(SetUpError::Skipped { reason, .. }) => {
            println!("{target} is left out: {reason}");
            return;
        }
        Err(error) => panic!("{target}: {error}"),
    };
    let dir = TempDir::new_in(mounted.dir()).unwrap();
    test(&mounted, &mut raced(dir.path(), ops));
}

fn raced(dir: &Path, ops: &[Op]) -> Raced {
    let mut scenario = scenario();
    scenario.actors.0[MAPPER].1.ops.extend_from_slice(ops);
    let options = SubjectOptions::default();
    let subjects = SyscallSubjects::new(dir, &scenario, GEOMETRY, options).unwrap();
    let mut stage = subjects.stage().unwrap();
    stage.prepare(VICTIM, SIZE, &mut pattern).unwrap();
    stage.prepare(OTHER, SIZE, &mut complement).unwrap();
    Raced {
        actor: subjects.actor(MAPPER).unwrap(),
        coordinator: subjects.coordinator().unwrap(),
        stage,
    }
}

fn complement(at: u64, buf: &mut [u8]) {
    pattern(at, buf);
    buf.iter_mut().for_each(|byte| *byte = !*byte);
}

fn complemented(at: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0; len as usize];
    complement(at, &mut buf);
    buf
}

const DISKS: [&str; 3] = ["ext4", "xfs", "btrfs"];

fn read(at: u64, len: u64, readahead: bool) -> Call {
    Call::Read {
        file: VICTIM,
        at,
        len,
        nowait: false,
        direct: false,
        readahead,
    }
}

#[test]
fn a_read_with_readahead_brings_in_what_follows_and_one_without_does_not() {
    let op = Op::Read(ReadArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        nowait: false,
        direct: false,
        readahead: true,
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |_, files| {
            let mut buf = vec![0; PAGE as usize];
            for (readahead, follows) in [(false, false), (true, true)] {
                files.evict(VICTIM);
                assert_eq!(
                    files.perform(read(0, PAGE, readahead), &mut buf),
                    bytes(PAGE)
                );
                assert_eq!(buf, expected(0, PAGE));
                let pages = files.resident(VICTIM, 0, SIZE);
                assert_eq!(pages > 1, follows, "{target}: {pages} pages");
            }
        });
    }
}

#[test]
fn an_io_uring_read_shows_what_is_there_and_fills() {
    let op = Op::UringRead(on("victim"));
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            if let Err(why) = mounted.capability(Capability::IoUring) {
                println!("left out: {why}");
                return;
            }
            let (file, at, len) = (VICTIM, 3 * PAGE + 10, 2 * PAGE);
            files.evict(VICTIM);
            let mut buf = vec![0; len as usize];
            let call = Call::UringRead { file, at, len };
            for _ in 0..3 {
                assert_eq!(files.perform(call, &mut buf), bytes(len));
                assert_eq!(buf, expected(at, len));
            }
            assert_eq!(files.resident(VICTIM, 3 * PAGE, 3 * PAGE), 3, "{target}");
            let call = Call::UringRead {
                file,
                at: SIZE - 5,
                len,
            };
            assert_eq!(files.perform(call, &mut buf), bytes(5));
        });
    }
}

fn splice(at: u64, len: u64) -> (Call, Call) {
    let file = VICTIM;
    let late = true;
    let splice = Call::Splice {
        file,
        at,
        len,
        late,
    };
    (splice, Call::Drain { file, at, len })
}

fn splices() -> Op {
    Op::Splice(SpliceArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        late: true,
    })
}

#[test]
fn what_was_spliced_before_a_punch_is_drained_after_it() {
    for target in DISKS {
        on_mount(target, &[splices()], |_, files| {
            let (at, len) = (4 * PAGE, 3 * PAGE);
            let (splice, drain) = splice(at, len);
            let mut buf = vec![0; len as usize];
            files.evict(VICTIM);
            assert_eq!(files.perform(splice, &mut []), bytes(len));
            assert_eq!(files.resident(VICTIM, at, len), 3, "{target}");
            let file = VICTIM;
            assert_eq!(
                files.perform(Call::PunchHole { file, at, len }, &mut []),
                bytes(0)
            );
            assert_eq!(files.perform(drain, &mut buf), bytes(len));
            assert!(
                buf == expected(at, len),
                "{target}: the pipe holds the old pages"
            );
            assert_eq!(files.read(VICTIM, at, len), vec![0; len as usize]);
            // It is empty now.
            assert_eq!(files.perform(drain, &mut buf), bytes(0));
        });
    }
}

#[test]
fn a_pipe_never_shows_an_earlier_splice_and_a_full_one_ends_it_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = raced(dir.path(), &[splices()]);
    let (first, _) = splice(0, 2 * PAGE);
    let (second, drain) = splice(7 * PAGE, PAGE);
    let mut buf = vec![0; 2 * PAGE as usize];
    assert_eq!(files.perform(first, &mut []), bytes(2 * PAGE));
    assert_eq!(files.perform(second, &mut []), bytes(PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(PAGE));
    assert_eq!(buf[..PAGE as usize], expected(7 * PAGE, PAGE));
    // A drain into less than there is leaves nothing behind.
    assert_eq!(files.perform(first, &mut []), bytes(2 * PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(PAGE));
    assert_eq!(files.perform(drain, &mut buf), bytes(0));
    // Nobody drains while it splices, so more than the pipe takes must not wait.
    let long = 4 << 20;
    files.stage.prepare(VICTIM, long, &mut pattern).unwrap();
    let (splice, drain) = splice(0, long);
    let spliced = files.perform(splice, &mut []);
    assert!((PAGE..long).contains(&spliced.bytes), "{spliced:?}");
    let mut buf = vec![0; long as usize];
    assert_eq!(files.perform(drain, &mut buf), spliced);
    let seen = spliced.bytes as usize;
    assert!(buf[..seen] == expected(0, spliced.bytes));
}

#[test]
fn fiemap_counts_extents_and_fills_no_page() {
    for target in DISKS {
        on_mount(target, &[], |_, files| {
            let (file, at, len) = (VICTIM, 0, SIZE);
            let fiemap = Call::Fiemap { file, at, len };
            files.evict(VICTIM);
            let whole = files.perform(fiemap, &mut []);
            assert!(whole.bytes > 0 && whole.errno == 0, "{target}: {whole:?}");
            assert_eq!(files.resident(VICTIM, 0, SIZE), 0);
            let (at, len) = (16 * PAGE, 16 * PAGE);
            files.perform(Call::PunchHole { file, at, len }, &mut []);
            assert_eq!(
                files.perform(fiemap, &mut []).bytes,
                whole.bytes + 1,
                "{target}"
            );
        });
    }
}

#[test]
fn a_truncated_file_ends_there_and_an_extended_one_has_zeros() {
    for target in DISKS {
        on_mount(target, &[], |_, files| {
            let file = VICTIM;
            let end = 20 * PAGE + 100;
            let cut = files.perform(Call::Truncate { file, size: end }, &mut []);
            assert_eq!(cut, bytes(0));
            assert_eq!(
                files.read(VICTIM, end - 9, PAGE),
                expected(end - 9, 9),
                "{target}"
            );
            let extended = files.perform(Call::Truncate { file, size: SIZE }, &mut []);
            assert_eq!(extended, bytes(0));
            let seen = files.read(VICTIM, end - 9, SIZE);
            assert_eq!(seen.len() as u64, SIZE - end + 9, "{target}");
            assert_eq!(seen[..9], expected(end - 9, 9));
            assert!(seen[9..].iter().all(|byte| *byte == 0), "{target}");
        });
    }
}

#[test]
fn a_cloned_range_holds_what_its_source_does_and_only_it() {
    let op = Op::CloneRange(CopyArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        from: "other".into(),
    });
    for (target, works) in [("ext4", false), ("xfs", true), ("btrfs", true)] {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            assert_eq!(
                mounted.capability(Capability::Clone).is_ok(),
                works,
                "{target}"
            );
            let (file, at, len) = (VICTIM, 8 * PAGE, 4 * PAGE);
            let from = OTHER;
            let done = files.perform(
                Call::CloneRange {
                    file,
                    at,
                    len,
                    from,
                },
                &mut [],
            );
            if !works {
                assert_eq!(done.errno, libc::EOPNOTSUPP);
                return;
            }
            assert_eq!(done, bytes(0));
            assert_eq!(
                files.read(VICTIM, at, len),
                complemented(at, len),
                "{target}"
            );
            assert_eq!(
                files.read(VICTIM, at - PAGE, PAGE),
                expected(at - PAGE, PAGE)
            );
            assert_eq!(files.read(VICTIM, at + len, PAGE), expected(at + len, PAGE));
            assert_eq!(files.read(OTHER, 0, SIZE), complemented(0, SIZE));
            let a = files.stage.blocks(VICTIM, at..at + len).unwrap().unwrap();
            let b = files.stage.blocks(OTHER, at..at + len).unwrap().unwrap();
            assert_eq!(a, b, "{target}: they share the blocks");
        });
    }
}

#[test]
fn a_direct_write_drops_the_pages_that_it_writes_past() {
    let op = Op::Write(WriteArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        direct: true,
        fills_up: false,
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            let able = mounted.capability(Capability::DirectWrite);
            println!("{target}: {able:?}");
            let (file, at, len) = (VICTIM, 8 * PAGE, 4 * PAGE);
            let write = |at, len| Call::Write {
                file,
                at,
                len,
                direct: true,
            };
            let mut buf = complemented(at, len);
            // Mapped, as a racing fault would leave it.
            let fault = Call::Fault { file, at, len };
            assert_eq!(files.perform(fault, &mut vec![0; len as usize]), bytes(len));
            assert_eq!(files.perform(write(at, len), &mut buf), bytes(len));
            let left = files.resident(VICTIM, at, len);
            assert_eq!(left == 0, able.is_ok(), "{target}: {left} pages");
            assert_eq!(files.read(VICTIM, at, len), complemented(at, len));
            assert_eq!(files.read(VICTIM, at + len, PAGE), expected(at + len, PAGE));
            if able.is_ok() && mounted.driver() != "btrfs" {
                assert_eq!(
                    files.perform(write(at + 7, 100), &mut buf).errno,
                    libc::EINVAL
                );
            }
        });
    }
}

#[test]
fn a_read_into_a_mapping_leaves_there_what_the_other_file_holds() {
    let op = Op::ReadInto(CopyArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        from: "other".into(),
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |_, files| {
            let (file, at, len) = (VICTIM, 8 * PAGE + 50, 2 * PAGE);
            let from = OTHER;
            let read = |at, len| Call::ReadInto {
                file,
                at,
                len,
                from,
            };
            files.evict(VICTIM);
            files.evict(OTHER);
            assert_eq!(files.perform(read(at, len), &mut []), bytes(len));
            assert_eq!(files.read(VICTIM, at - 9, len + 18), {
                let mut around = expected(at - 9, len + 18);
                around[9..9 + len as usize].copy_from_slice(&complemented(at, len));
                around
            });
            assert_eq!(files.read(OTHER, 0, SIZE), complemented(0, SIZE));
            // The end of the one file, and that of the other.
            let truncate = |size| Call::Truncate { file, size };
            assert_eq!(files.perform(read(SIZE - 10, PAGE), &mut []), bytes(10));
            assert_eq!(files.perform(truncate(4 * PAGE), &mut []), bytes(0));
            assert_eq!(
                files.perform(read(4 * PAGE, PAGE), &mut []).errno,
                libc::EFAULT
            );
            let short = files.perform(read(3 * PAGE, 2 * PAGE), &mut []);
            assert_eq!(short, bytes(PAGE), "{target}");
        });
    }
}

#[test]
fn swapping_with_the_boot_inode_exchanges_everything_and_leaves_the_filesystem_whole() {
    let op = Op::SwapBoot(OnFile {
        file: "victim".into(),
    });
    on_mount("ext4", std::slice::from_ref(&op), |mounted, files| {
        assert_eq!(mounted.capability(Capability::SwapBoot), Ok(()));
        let swap = Call::SwapBoot { file: VICTIM };
        assert_eq!(files.perform(swap, &mut []), bytes(0));
        assert!(
            files.read(VICTIM, 0, SIZE).is_empty(),
            "the first one empties it"
        );
        files.stage.prepare(VICTIM, SIZE, &mut complement).unwrap();
        for now in [expected(0, SIZE), complemented(0, SIZE)] {
            assert_eq!(files.perform(swap, &mut []), bytes(0));
            assert!(files.read(VICTIM, 0, SIZE) == now);
        }
    });
    on_mount("xfs", std::slice::from_ref(&op), |mounted, files| {
        assert!(mounted.capability(Capability::SwapBoot).is_err());
        let swap = Call::SwapBoot { file: VICTIM };
        assert_eq!(files.perform(swap, &mut []).errno, libc::ENOTTY);
    });
}

#[test]
fn the_journal_flag_is_toggled_or_refused_and_changes_no_content() {
    let op = Op::JournalData(OnFile {
        file: "victim".into(),
    });
    for target in ["ext4", "ext2", "xfs"] {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            let able = mounted.capability(Capability::JournalData);
            println!("{target}: {able:?}");
            let toggle = Call::JournalData { file: VICTIM };
            for _ in 0..2 {
                let done = files.perform(toggle, &mut []);
                assert_eq!(done.errno == 0, able.is_ok(), "{done:?}");
                assert_eq!(files.read(VICTIM, 0, SIZE), expected(0, SIZE));
            }
            assert!(able.is_err() || target == "ext4");
        });
    }
}

#[test]
fn a_range_is_exchanged_where_xfs_has_the_feature() {
    let op = Op::ExchangeRange(ExchangeArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        with: "other".into(),
    });
    for target in ["xfs", "ext4"] {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            let able = mounted.capability(Capability::ExchangeRange);
            println!("{target}: {able:?}");
            let (file, at, len) = (VICTIM, 8 * PAGE, 4 * PAGE);
            let with = OTHER;
            let done = files.perform(
                Call::ExchangeRange {
                    file,
                    at,
                    len,
                    with,
                },
                &mut [],
            );
            assert_eq!(done.errno == 0, able.is_ok(), "{done:?}");
            if able.is_ok() {
                assert_eq!(files.read(VICTIM, at, len), complemented(at, len));
                assert_eq!(files.read(OTHER, at, len), expected(at, len));
                assert_eq!(files.read(VICTIM, at + len, PAGE), expected(at + len, PAGE));
            }
        });
    }
}
