//! On whatever holds the temporary directory, and on tmpfs.

use std::path::Path;

use punchbench_race::{Call, DirectIo, FileId, Look, Outcome, Stage, Subject, Subjects};
use punchbench_scenarios::{
    Actor, Content, Expect, FileSpec, Geometry, Holds, MadviseAdvice, MadviseArgs, Named, OnRange,
    Op, RangeExpr, Repeat, Role, Round, Scenario, Size, Unit,
};
use tempfile::TempDir;

use super::{SubjectOptions, SyscallSubjects};

mod mounted;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const SIZE: u64 = 64 * PAGE;
pub(crate) const GEOMETRY: Geometry = Geometry {
    page: PAGE,
    block: PAGE,
};
/// The actor that has mappings, and one that has none.
const MAPPER: usize = 0;
const PUNCHER: usize = 1;

pub(crate) fn on(file: &str) -> OnRange {
    OnRange {
        file: file.into(),
        range: RangeExpr::chunk(),
    }
}

pub(crate) fn actor(role: Role, ops: Vec<Op>) -> Actor {
    Actor {
        role,
        cold: false,
        repeat: Repeat::Once,
        ops,
    }
}

pub(crate) fn scenario() -> Scenario {
    let bytes = |count| Size {
        count,
        unit: Unit::Byte,
    };
    let file = || FileSpec {
        size: bytes(SIZE),
        filled: None,
        content: Content::Stamped,
        witness: false,
    };
    let madvise = MadviseArgs {
        file: "other".into(),
        range: RangeExpr::chunk(),
        advice: MadviseAdvice::Willneed,
    };
    let mapper = vec![Op::Fault(on("victim")), Op::Madvise(madvise)];
    Scenario {
        scenario: "test".into(),
        claim: "a test".into(),
        source: "here".into(),
        headline: false,
        needs: vec![],
        files: Named(vec![("victim".into(), file()), ("other".into(), file())]),
        round: Round {
            on: "victim".into(),
            chunk: bytes(PAGE),
            fixed: false,
        },
        actors: Named(vec![
            ("mapper".into(), actor(Role::Filler, mapper)),
            (
                "puncher".into(),
                actor(Role::Invalidator, vec![Op::PunchHole(on("victim"))]),
            ),
        ]),
        expect: Expect {
            file: None,
            range: RangeExpr::chunk(),
            is: Holds::Zeros,
            during: Default::default(),
        },
        evidence: Default::default(),
        stage: Default::default(),
        only: None,
    }
}

/// A directory, and everything the engine would have opened in it.
struct Bench {
    _dir: TempDir,
    stage: Box<dyn Stage>,
    coordinator: Box<dyn Subject>,
    mapper: Box<dyn Subject>,
    puncher: Box<dyn Subject>,
}

impl Bench {
    fn new(dir: TempDir, options: SubjectOptions) -> Bench {
        let subjects = SyscallSubjects::new(dir.path(), &scenario(), GEOMETRY, options).unwrap();
        let mut stage = subjects.stage().unwrap();
        for file in [VICTIM, OTHER] {
            stage.prepare(file, SIZE, &mut pattern).unwrap();
        }
        Bench {
            stage,
            coordinator: subjects.coordinator().unwrap(),
            mapper: subjects.actor(MAPPER).unwrap(),
            puncher: subjects.actor(PUNCHER).unwrap(),
            _dir: dir,
        }
    }

    /// On a disk, if the temporary directory is on one.
    fn disk() -> Bench {
        Bench::new(tempfile::tempdir().unwrap(), SubjectOptions::default())
    }

    fn tmpfs() -> Bench {
        let options = SubjectOptions {
            cache_is_store: true,
            ..SubjectOptions::default()
        };
        Bench::new(TempDir::new_in("/dev/shm").unwrap(), options)
    }

    fn both() -> [Bench; 2] {
        [Bench::disk(), Bench::tmpfs()]
    }
}

pub(crate) const VICTIM: FileId = 0;
pub(crate) const OTHER: FileId = 1;

/// A byte that differs from its neighbours in every page.
fn byte(at: u64) -> u8 {
    (at / PAGE * 31 + at % 251) as u8 | 1
}

pub(crate) fn pattern(at: u64, buf: &mut [u8]) {
    for (i, b) in buf.iter_mut().enumerate() {
        *b = byte(at + i as u64);
    }
}

pub(crate) fn expected(at: u64, len: u64) -> Vec<u8> {
    (at..at + len).map(byte).collect()
}

fn bytes(bytes: u64) -> Outcome {
    Outcome {
        bytes,
        ..Outcome::default()
    }
}

#[test]
fn every_look_shows_what_was_prepared() {
    for mut bench in Bench::both() {
        let direct = bench.stage.direct() != DirectIo::None;
        // Unaligned at both ends, and over several pages.
        let (at, len) = (3 * PAGE + 100, 5 * PAGE + 7);
        for (how, works) in [
            (Look::Read, true),
            (Look::Mapping, true),
            (Look::Direct, direct),
        ] {
            let mut buf = vec![0; len as usize];
            let seen = bench.mapper.look(how, VICTIM, at, &mut buf);
            if works {
                assert_eq!((seen, &buf), (bytes(len), &expected(at, len)), "{how:?}");
            } else {
                assert_eq!(seen.errno, nix::libc::EINVAL);
            }
        }
    }
}

#[test]
fn a_direct_look_past_the_end_is_short() {
    let mut bench = Bench::disk();
    if bench.stage.direct() == DirectIo::None {
        return;
    }
    let mut buf = vec![0; 3 * PAGE as usize];
    let at = SIZE - PAGE - 10;
    let seen = bench.mapper.look(Look::Direct, VICTIM, at, &mut buf);
    assert_eq!(seen, bytes(PAGE + 10));
    assert_eq!(buf[..PAGE as usize + 10], expected(at, PAGE + 10));
}

#[test]
fn a_punched_page_reads_as_zeros_through_a_mapping_that_had_it() {
    for mut bench in Bench::both() {
        let fault = Call::Fault {
            file: VICTIM,
            at: PAGE,
            len: 3 * PAGE,
        };
        let mut buf = vec![0; 3 * PAGE as usize];
        assert_eq!(bench.mapper.perform(&fault, &mut buf), bytes(3 * PAGE));
        assert_eq!(buf, expected(PAGE, 3 * PAGE));
        let punch = Call::PunchHole {
            file: VICTIM,
            at: 2 * PAGE,
            len: PAGE,
        };
        assert_eq!(bench.puncher.perform(&punch, &mut []), bytes(0));
        bench.mapper.perform(&fault, &mut buf);
        let (page, mut now) = (PAGE as usize, expected(PAGE, 3 * PAGE));
        now[page..2 * page].fill(0);
        assert_eq!(buf, now);
    }
}

#[test]
fn sigbus_beyond_the_end_is_an_outcome_and_leaves_the_mapping_whole() {
    for mut bench in Bench::both() {
        let at = SIZE - 2 * PAGE + 10;
        let len = 4 * PAGE;
        let mut buf = vec![0; len as usize];
        let fault = Call::Fault {
            file: VICTIM,
            at,
            len,
        };
        for _ in 0..3 {
            let seen = bench.mapper.perform(&fault, &mut buf);
            let valid = SIZE - at;
            assert!(seen.sigbus);
            assert_eq!((seen.bytes, seen.errno), (valid, 0));
            assert_eq!(buf[..valid as usize], expected(at, valid));
        }
        let store = Call::Store {
            file: VICTIM,
            at: SIZE,
            len: 8,
        };
        assert!(bench.mapper.perform(&store, &mut buf).sigbus);

        // The file grows: the mapping must show the file again, not the page that stood in for it.
        bench
            .stage
            .prepare(VICTIM, SIZE + 4 * PAGE, &mut pattern)
            .unwrap();
        assert_eq!(bench.mapper.perform(&fault, &mut buf), bytes(len));
        assert_eq!(buf, expected(at, len));
    }
}

#[test]
fn what_is_stored_is_read_by_others() {
    for mut bench in Bench::both() {
        let (at, len) = (5 * PAGE + 3, PAGE + 90);
        let mut buf: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let stored = buf.clone();
        let store = Call::Store {
            file: VICTIM,
            at,
            len,
        };
        assert_eq!(bench.mapper.perform(&store, &mut buf), bytes(len));
        let mut around = vec![0; len as usize + 2];
        bench
            .coordinator
            .look(Look::Read, VICTIM, at - 1, &mut around);
        let mut now = expected(at - 1, len + 2);
        now[1..=len as usize].copy_from_slice(&stored);
        assert_eq!(around, now);
    }
}

#[test]
fn fillers_fill_and_eviction_is_proved() {
    let mut bench = Bench::disk();
    let (file, at, len) = (OTHER, 8 * PAGE, 4 * PAGE);
    let advice = MadviseAdvice::PopulateRead;
    let calls = [
        Call::Read {
            file,
            at,
            len,
            nowait: false,
            direct: false,
            readahead: false,
        },
        Call::Fadvise { file, at, len },
        Call::Readahead { file, at, len },
        Call::Madvise {
            file,
            at,
            len,
            advice: MadviseAdvice::Willneed,
        },
        Call::Madvise {
            file,
            at,
            len,
            advice,
        },
        Call::Fault {
            file: VICTIM,
            at,
            len,
        },
    ];
    let mut buf = vec![0; len as usize];
    for call in calls {
        let file = match call {
            Call::Fault { file, .. } => file,
            _ => file,
        };
        bench.mapper.unmap(file, 0..SIZE).unwrap();
        if !bench.coordinator.evict(file, at..at + len).unwrap() {
            assert_eq!(bench.stage.direct(), DirectIo::Buffered, "it can evict");
            return;
        }
        let mut pages = [true; 4];
        bench
            .coordinator
            .resident(file, at..at + len, &mut pages)
            .unwrap();
        assert_eq!(pages, [false; 4], "before {call:?}");
        let done = bench.mapper.perform(&call, &mut buf);
        if call == calls[4] && done.errno == nix::libc::EINVAL {
            continue; // Before Linux 5.14.
        }
        assert_eq!(done.errno, 0, "{call:?}");
        // Read-ahead returns before its reads are done; reading the pages waits for them.
        bench.puncher.look(Look::Read, file, at, &mut buf);
        bench
            .coordinator
            .resident(file, at..at + len, &mut pages)
            .unwrap();
        assert_eq!(pages, [true; 4], "after {call:?}");
    }
}

#[test]
fn a_mapped_page_is_not_called_evicted() {
    let mut bench = Bench::disk();
    if !bench.coordinator.evict(VICTIM, 0..SIZE).unwrap() {
        return;
    }
    let mut buf = [0; 8];
    bench.mapper.look(Look::Mapping, VICTIM, 0, &mut buf);
    assert!(!bench.coordinator.evict(VICTIM, 0..PAGE).unwrap());
    bench.mapper.unmap(VICTIM, 0..PAGE).unwrap();
    assert!(bench.puncher.evict(VICTIM, 0..PAGE).unwrap());
    // The coordinator's own look keeps nothing mapped.
    bench.coordinator.look(Look::Mapping, VICTIM, 0, &mut buf);
    assert!(bench.coordinator.evict(VICTIM, 0..PAGE).unwrap());
}

#[test]
fn tmpfs_evicts_nothing_and_has_no_blocks() {
    let mut bench = Bench::tmpfs();
    assert!(bench.stage.cache_is_store());
    assert!(!bench.coordinator.evict(VICTIM, 0..SIZE).unwrap());
    assert_eq!(bench.stage.blocks(VICTIM, 0..SIZE).unwrap(), None);
    assert_ne!(bench.stage.direct(), DirectIo::Real);
}

#[test]
fn what_a_filesystem_lacks_is_an_errno() {
    let mut bench = Bench::tmpfs();
    let dedupe = Call::Dedupe {
        file: VICTIM,
        at: 0,
        len: PAGE,
        into: OTHER,
    };
    let done = bench.puncher.perform(&dedupe, &mut []);
    assert!(
        [nix::libc::EOPNOTSUPP, nix::libc::ENOTTY, nix::libc::EINVAL].contains(&done.errno),
        "{done:?}"
    );
    let collapse = Call::CollapseRange {
        file: VICTIM,
        at: 0,
        len: PAGE,
    };
    let done = bench.puncher.perform(&collapse, &mut []);
    assert_eq!(done.errno, nix::libc::EOPNOTSUPP);
}

#[test]
fn only_who_needs_a_mapping_has_one() {
    let mut three = scenario();
    let reader = actor(Role::Filler, vec![Op::Fadvise(on("victim"))]);
    three.actors.0.push(("reader".into(), reader));
    let dir = tempfile::tempdir().unwrap();
    let options = SubjectOptions::default();
    let subjects = SyscallSubjects::new(dir.path(), &three, GEOMETRY, options).unwrap();
    subjects
        .stage()
        .unwrap()
        .prepare(VICTIM, SIZE, &mut pattern)
        .unwrap();
    let fault = Call::Fault {
        file: VICTIM,
        at: 0,
        len: 8,
    };
    // The invalidator is asked what is in the page cache.
    for (index, errno, tells) in [
        (MAPPER, 0, Some(())),
        (PUNCHER, 0, Some(())),
        (2, nix::libc::ENOTSUP, None),
    ] {
        let mut actor = subjects.actor(index).unwrap();
        assert_eq!(actor.perform(&fault, &mut [0; 8]).errno, errno);
        assert_eq!(actor.resident(VICTIM, 0..PAGE, &mut [false]), tells);
    }
}

#[test]
fn blocks_cover_a_written_file_and_leave_out_a_hole() {
    let mut bench = Bench::disk();
    let Some(blocks) = bench.stage.blocks(VICTIM, PAGE..9 * PAGE).unwrap() else {
        return;
    };
    assert_eq!(blocks.iter().map(|b| b.2).sum::<u64>(), 8 * PAGE);
    assert_eq!(blocks[0].0, PAGE);
    let punch = Call::PunchHole {
        file: VICTIM,
        at: 4 * PAGE,
        len: PAGE,
    };
    assert_eq!(bench.puncher.perform(&punch, &mut []).errno, 0);
    let blocks = bench.stage.blocks(VICTIM, PAGE..9 * PAGE).unwrap().unwrap();
    assert_eq!(blocks.iter().map(|b| b.2).sum::<u64>(), 7 * PAGE);
}

#[test]
fn a_file_made_again_keeps_its_bytes_and_a_link_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let new =
        |dir: &Path| SyscallSubjects::new(dir, &scenario(), GEOMETRY, SubjectOptions::default());
    std::fs::write(dir.path().join("victim"), b"kept").unwrap();
    let again = new(dir.path()).unwrap();
    let mut buf = [0; 4];
    again
        .coordinator()
        .unwrap()
        .look(Look::Read, VICTIM, 0, &mut buf);
    assert_eq!(&buf, b"kept");
    std::fs::remove_file(dir.path().join("victim")).unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.path().join("victim")).unwrap();
    assert_eq!(new(dir.path()).unwrap_err().what, "open");
}

#[test]
fn reading_costs_and_is_counted() {
    let mut bench = Bench::disk();
    if bench.stage.direct() != DirectIo::Real || !bench.coordinator.evict(VICTIM, 0..SIZE).unwrap()
    {
        return;
    }
    let before = bench.mapper.usage();
    bench
        .mapper
        .look(Look::Mapping, VICTIM, 0, &mut [0; PAGE as usize]);
    let after = bench.mapper.usage();
    assert!(after.majflt > before.majflt, "{before:?} {after:?}");
}
