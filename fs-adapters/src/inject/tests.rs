//! Each lie is told when it should be, and looks like what it stands for.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use punchbench_race::stamp::{BACKGROUND, Stamps};
use punchbench_race::{Call, DirectIo, Look, Outcome, Stage, Subject, Subjects, Usage};
use punchbench_scenarios::{CopyArgs, Op, RangeExpr, ReadArgs, Role, Scenario, WriteArgs};
use tempfile::TempDir;

use super::liar::{NEVER, PATIENCE};
use super::{InjectError, InjectedSubjects, Injection};
use crate::subject::tests::{
    GEOMETRY, OTHER, PAGE, SIZE, VICTIM, actor, expected, on, pattern, scenario,
};
use crate::subject::{SubjectOptions, SyscallSubjects};

const NONCE: u64 = 7;
const MAPPER: usize = 0;
const PUNCHER: usize = 1;
const STORER: usize = 2;
const NOWAITER: usize = 3;
/// The page whose punch is lied about.
const FIRST: u64 = 50;

fn write(file: &str) -> Op {
    Op::Write(WriteArgs {
        file: file.into(),
        range: RangeExpr::chunk(),
        direct: false,
        fills_up: false,
    })
}

/// With something for every lie.
fn rich() -> Scenario {
    let mut rich = scenario();
    rich.files.0[1].1.witness = true;
    let nowait = Op::Read(ReadArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        nowait: true,
        direct: false,
        readahead: false,
    });
    let into = Op::ReadInto(CopyArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        from: "other".into(),
    });
    let storer = vec![Op::Store(on("victim")), write("victim")];
    rich.actors.0.extend([
        ("storer".into(), actor(Role::Dirtier, storer)),
        ("nowaiter".into(), actor(Role::Filler, vec![nowait])),
        ("mapper".into(), actor(Role::Dirtier, vec![into])),
    ]);
    rich
}

fn inject(dir: &TempDir, what: &str, scenario: &Scenario) -> Result<InjectedSubjects, InjectError> {
    let inner =
        SyscallSubjects::new(dir.path(), scenario, GEOMETRY, SubjectOptions::default()).unwrap();
    InjectedSubjects::new(
        Box::new(inner),
        Injection::parse(what).unwrap(),
        scenario,
        NONCE,
    )
}

struct Bench {
    _dir: TempDir,
    subjects: InjectedSubjects,
    stage: Box<dyn Stage>,
    coordinator: Box<dyn Subject>,
}

impl Bench {
    fn new(what: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let subjects = inject(&dir, what, &rich()).unwrap();
        let mut stage = subjects.stage().unwrap();
        for file in [VICTIM, OTHER] {
            stage.prepare(file, SIZE, &mut pattern).unwrap();
        }
        Bench {
            coordinator: subjects.coordinator().unwrap(),
            stage,
            subjects,
            _dir: dir,
        }
    }

    /// Punches page after page up to the first that is lied about, and returns its outcome.
    fn punch(&self) -> Outcome {
        let mut puncher = self.subjects.actor(PUNCHER).unwrap();
        let mut last = Outcome::default();
        for page in 0..=FIRST {
            assert_eq!(last, Outcome::default(), "an honest punch");
            let (file, at, len) = (VICTIM, page * PAGE, PAGE);
            last = puncher.perform(&Call::PunchHole { file, at, len }, &mut []);
        }
        last
    }

    fn page(&mut self, how: Look, page: u64) -> Vec<u8> {
        let mut buf = vec![0; PAGE as usize];
        self.coordinator.look(how, VICTIM, page * PAGE, &mut buf);
        buf
    }
}

fn old(page: u64) -> Vec<u8> {
    expected(page * PAGE, PAGE)
}

fn zeros() -> Vec<u8> {
    vec![0; PAGE as usize]
}

#[test]
fn every_kind_is_parsed_by_its_word_and_by_no_other() {
    for (i, kind) in Injection::ALL.iter().enumerate() {
        assert_eq!(Injection::parse(kind.word).unwrap().kind().word, kind.word);
        let same = Injection::ALL.iter().filter(|k| k.word == kind.word);
        assert_eq!(same.count(), 1, "{i}");
    }
    assert!(Injection::parse("never-overlap:reader").is_ok());
    let unknown = Injection::parse("stael").unwrap_err().to_string();
    assert!(unknown.contains("`stael`") && unknown.contains("stale-cache"));
    let actor = Injection::parse("errno:reader").unwrap_err();
    assert!(matches!(actor, InjectError::TakesNoActor { word: "errno" }));
}

#[test]
fn a_scenario_that_gives_nothing_to_lie_about_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for what in [
        "wait",
        "drop-store",
        "drop-write",
        "cut-short",
        "change-witness",
        "never-overlap:nobody",
    ] {
        let refused = inject(&dir, what, &scenario()).unwrap_err();
        assert!(
            matches!(refused, InjectError::NotApplicable { .. }),
            "{what}: {refused}"
        );
    }
    for kind in Injection::ALL {
        inject(&dir, kind.word, &rich()).unwrap();
    }
}

#[test]
fn skip_invalidation_leaves_the_old_bytes_for_good() {
    let mut bench = Bench::new("skip-invalidation");
    assert_eq!(bench.punch(), Outcome::default());
    assert_eq!(bench.page(Look::Read, FIRST - 1), zeros());
    assert_eq!(bench.page(Look::Read, FIRST), old(FIRST));
    if bench.coordinator.evict(VICTIM, 0..SIZE).unwrap() {
        assert_eq!(bench.page(Look::Read, FIRST), old(FIRST));
    }
}

#[test]
fn stale_cache_shows_the_old_bytes_until_eviction() {
    let mut bench = Bench::new("stale-cache");
    assert_eq!(bench.punch(), Outcome::default());
    for how in [Look::Read, Look::Mapping] {
        assert_eq!(bench.page(how, FIRST), old(FIRST), "{how:?}");
        assert_eq!(bench.page(how, FIRST - 1), zeros(), "{how:?}");
    }
    if bench.stage.direct() == DirectIo::Real {
        assert_eq!(bench.page(Look::Direct, FIRST), zeros());
    }
    let mut mapper = bench.subjects.actor(MAPPER).unwrap();
    let (mut buf, at) = (vec![0; PAGE as usize], FIRST * PAGE);
    let (file, len) = (VICTIM, PAGE);
    mapper.perform(&Call::Fault { file, at, len }, &mut buf);
    assert_eq!(buf, old(FIRST), "in a filler's own mapping");
    // Another page's eviction changes nothing.
    mapper.unmap(VICTIM, 0..SIZE).unwrap();
    if !bench.coordinator.evict(VICTIM, 0..PAGE).unwrap() {
        return;
    }
    assert_eq!(bench.page(Look::Read, FIRST), old(FIRST));
    assert!(bench.coordinator.evict(VICTIM, at..at + PAGE).unwrap());
    assert_eq!(bench.page(Look::Read, FIRST), zeros());
}

#[test]
fn foreign_and_background_leave_stamps_of_others() {
    for (what, whose, generation) in [("foreign", OTHER, NEVER), ("background", BACKGROUND, 0)] {
        let mut bench = Bench::new(what);
        assert_eq!(bench.punch(), Outcome::default());
        let page = bench.page(Look::Read, FIRST);
        let stamps = Stamps::new(NONCE);
        assert!(
            stamps.matches(whose, generation, FIRST * PAGE, &page),
            "{what}"
        );
        let (owner, at) = stamps.identify(FIRST * PAGE, &page).expect(what);
        assert_eq!((owner.file, at), (whose, FIRST * PAGE), "{what}");
        assert_eq!(bench.page(Look::Read, FIRST - 1), zeros());
        assert_eq!(bench.page(Look::Read, FIRST + 1), old(FIRST + 1));
    }
}

#[test]
fn errno_lies_about_a_punch_that_worked() {
    let mut bench = Bench::new("errno");
    assert_eq!(bench.punch().errno, nix::libc::EIO);
    assert_eq!(bench.page(Look::Read, FIRST), zeros());
}

#[test]
fn change_witness_flips_one_byte() {
    let mut bench = Bench::new("change-witness");
    assert_eq!(bench.punch(), Outcome::default());
    let mut buf = vec![0; SIZE as usize];
    bench.coordinator.look(Look::Read, OTHER, 0, &mut buf);
    let changed = buf
        .iter()
        .zip(expected(0, SIZE))
        .filter(|(is, was)| *is != was);
    assert_eq!(changed.count(), 1);
    assert_eq!(bench.page(Look::Read, FIRST), zeros());
}

#[test]
fn dropped_stores_and_writes_claim_success() {
    let fresh = vec![0xaa; PAGE as usize];
    for (what, dropped) in [("drop-store", true), ("drop-write", false)] {
        let mut bench = Bench::new(what);
        let mut storer = bench.subjects.actor(STORER).unwrap();
        for page in 0..=FIRST {
            let (file, at, len) = (VICTIM, page * PAGE, PAGE);
            let call = if dropped {
                Call::Store { file, at, len }
            } else {
                Call::Write {
                    file,
                    at,
                    len,
                    direct: false,
                }
            };
            assert_eq!(storer.perform(&call, &mut fresh.clone()).bytes, PAGE);
        }
        assert_eq!(bench.page(Look::Read, FIRST - 1), fresh, "{what}");
        assert_eq!(bench.page(Look::Read, FIRST), old(FIRST), "{what}");
    }
}

#[test]
fn a_long_write_loses_a_page() {
    let mut bench = Bench::new("drop-write");
    let mut storer = bench.subjects.actor(STORER).unwrap();
    let (file, at, len) = (VICTIM, 0, 8 * PAGE);
    let mut fresh = vec![0xaa; len as usize];
    let written = storer.perform(
        &Call::Write {
            file,
            at,
            len,
            direct: false,
        },
        &mut fresh,
    );
    assert_eq!(written.bytes, len);
    for page in 0..8 {
        let now = bench.page(Look::Read, page);
        assert_eq!(now == old(page), page == 4, "page {page}");
    }
}

#[test]
fn an_invalidators_writes_are_dropped_too_buffered_and_direct() {
    let mut launder = scenario();
    launder.actors.0[PUNCHER].1.ops.push(write("victim"));
    for direct in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let subjects = inject(&dir, "drop-write", &launder).unwrap();
        let mut stage = subjects.stage().unwrap();
        stage.prepare(VICTIM, SIZE, &mut pattern).unwrap();
        if direct && stage.direct() == DirectIo::None {
            return;
        }
        let mut puncher = subjects.actor(PUNCHER).unwrap();
        let fresh = vec![0xaa; PAGE as usize];
        for page in 0..=FIRST {
            let (file, at, len) = (VICTIM, page * PAGE, PAGE);
            let call = Call::Write {
                file,
                at,
                len,
                direct,
            };
            assert_eq!(puncher.perform(&call, &mut fresh.clone()).bytes, PAGE);
        }
        let mut page = |page: u64| {
            let mut buf = vec![0; PAGE as usize];
            let at = page * PAGE;
            puncher.look(Look::Read, VICTIM, at, &mut buf);
            buf
        };
        assert_eq!(page(FIRST - 1), fresh, "direct: {direct}");
        assert_eq!(page(FIRST), old(FIRST), "direct: {direct}");
    }
}

#[test]
fn a_reusers_writes_are_dropped_by_the_coordinator() {
    let mut reuse = scenario();
    let write = vec![write("other")];
    let reuser = ("reuser".into(), actor(Role::Reuser, write));
    reuse.actors.0.push(reuser);
    let dir = tempfile::tempdir().unwrap();
    let subjects = inject(&dir, "drop-write", &reuse).unwrap();
    let mut coordinator = subjects.coordinator().unwrap();
    let (file, at, len) = (OTHER, 0, 4 * PAGE);
    let mut buf = vec![0xaa; len as usize];
    let written = coordinator.perform(
        &Call::Write {
            file,
            at,
            len,
            direct: false,
        },
        &mut buf,
    );
    assert_eq!(written.bytes, len);
    coordinator.look(Look::Read, OTHER, 0, &mut buf);
    let lost = buf.iter().filter(|b| **b == 0).count();
    assert_eq!(lost as u64, PAGE);
}

#[test]
fn of_a_truncation_and_its_extension_only_the_first_is_skipped() {
    let mut bench = Bench::new("skip-invalidation");
    let mut puncher = bench.subjects.actor(PUNCHER).unwrap();
    let (file, half) = (VICTIM, SIZE / 2);
    let mut tail = |stage: &mut dyn Stage| {
        stage.prepare(VICTIM, SIZE, &mut pattern).unwrap();
        for size in [half, SIZE] {
            puncher.perform(&Call::Truncate { file, size }, &mut []);
        }
        let mut seen = vec![0xaa; half as usize];
        bench.coordinator.look(Look::Read, VICTIM, half, &mut seen);
        seen
    };
    let mut zeros = || tail(&mut *bench.stage) == vec![0; half as usize];
    assert_eq!((0..FIRST).filter(|_| zeros()).count() as u64, FIRST);
    assert!(tail(&mut *bench.stage) == expected(half, half));
    assert!(tail(&mut *bench.stage) == vec![0; half as usize]);
}

#[test]
fn wait_makes_a_nowait_read_slow_once_in_a_while() {
    let bench = Bench::new("wait");
    let mut reader = bench.subjects.actor(NOWAITER).unwrap();
    let call = Call::Read {
        file: VICTIM,
        at: 0,
        len: 8,
        nowait: true,
        direct: false,
        readahead: false,
    };
    let slow = |reader: &mut dyn Subject| {
        let start = Instant::now();
        reader.perform(&call, &mut [0; 8]);
        start.elapsed() >= Duration::from_millis(400)
    };
    let fast = (0..FIRST).filter(|_| !slow(&mut *reader)).count();
    assert_eq!((fast as u64, slow(&mut *reader)), (FIRST, true));
}

#[test]
fn never_fill_gives_the_bytes_and_leaves_the_pages_absent() {
    let mut bench = Bench::new("never-fill");
    if bench.stage.direct() != DirectIo::Real {
        return;
    }
    assert!(bench.coordinator.evict(VICTIM, 0..SIZE).unwrap());
    let mut mapper = bench.subjects.actor(MAPPER).unwrap();
    let (file, at, len) = (VICTIM, PAGE, PAGE);
    let mut buf = vec![0; PAGE as usize];
    mapper.perform(&Call::Fault { file, at, len }, &mut buf);
    assert_eq!(buf, old(1));
    mapper.perform(&Call::Fadvise { file, at, len }, &mut buf);
    let mut present = [true];
    bench
        .coordinator
        .resident(VICTIM, PAGE..2 * PAGE, &mut present)
        .unwrap();
    assert_eq!((present, mapper.usage()), ([false], Usage::default()));
}

#[test]
fn never_overlap_holds_a_filler_until_the_invalidator_has_returned() {
    for (what, waits) in [
        ("never-overlap", true),
        ("never-overlap:mapper", true),
        ("never-overlap:storer", false),
    ] {
        let bench = Bench::new(what);
        let (file, at, len) = (VICTIM, 0, PAGE);
        let begun = AtomicBool::new(false);
        let gate = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let filler = scope.spawn(|| {
                let mut mapper = bench.subjects.actor(MAPPER).unwrap();
                gate.wait();
                let start = Instant::now();
                mapper.approach(&Call::Fault { file, at, len });
                assert!(start.elapsed() < PATIENCE, "{what} never saw the return");
                begun.load(SeqCst)
            });
            let mut puncher = bench.subjects.actor(PUNCHER).unwrap();
            gate.wait();
            std::thread::sleep(Duration::from_millis(20));
            begun.store(true, SeqCst);
            puncher.perform(&Call::PunchHole { file, at, len }, &mut []);
            assert_eq!(filler.join().unwrap(), waits, "{what}");
        });
    }
}
