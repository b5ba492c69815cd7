//! A run is in a history whole or not at all, whoever dies when.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use punchbench_results::history::{HistoryError, Retention, time_name};
use punchbench_results::{History, Record, RunInfo, Verdict};

use crate::samples::record;

/// Tells the test below that it is the writer to be killed.
const WRITER: &str = "PUNCHBENCH_TEST_HISTORY";

/// Records of each run that the writers put there.
const RECORDS: usize = 40;

fn run(started: f64) -> Vec<Record> {
    (0..RECORDS)
        .map(|n| Record {
            started: started + n as f64,
            trial: format!("trial {n}"),
            ..record("punch-while-read", "ext4", Verdict::Safe)
        })
        .collect()
}

#[test]
fn a_run_is_named_after_its_begin_and_a_second_one_gets_a_number() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::at(&dir.path().join("deep/history"));
    assert_eq!(history.entries().unwrap(), []);
    for _ in 0..12 {
        history.add_records(&run(1_795_389_300.0), None).unwrap();
    }
    history
        .add_records(&run(1_795_389_301.0), Some(&RunInfo::default()))
        .unwrap();
    let names: Vec<String> = history
        .entries()
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    let expected = [
        "", "-2", "-3", "-4", "-5", "-6", "-7", "-8", "-9", "-10", "-11", "-12",
    ];
    let mut expected: Vec<String> = expected
        .iter()
        .map(|n| format!("2026-11-22T231500Z{n}"))
        .collect();
    expected.push("2026-11-22T231501Z".into());
    assert_eq!(names, expected);
    let error = history.add_records(&[], None).unwrap_err();
    assert!(matches!(error, HistoryError::Empty { .. }), "{error}");
}

#[test]
fn a_run_that_was_changed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::at(dir.path());
    let entry = history.add_records(&run(0.0), None).unwrap();
    assert_eq!(history.read(&entry).unwrap().problems, Vec::<String>::new());
    let path = entry.path.join("records.jsonl");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"seed\":42", "\"seed\":43");
    fs::write(&path, text).unwrap();
    let told = history.read(&entry).unwrap().problems.join("\n");
    assert!(told.contains("not what was put there"), "{told}");
}

#[test]
fn retention_keeps_the_newest_and_the_first_of_each_month() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::at(dir.path());
    // From 1 September 2026, every fourth day.
    for n in 0..20 {
        history
            .add_records(&run(1_788_220_800.0 + f64::from(n) * 4.0 * 86_400.0), None)
            .unwrap();
    }
    let keep = Retention {
        last: 3,
        monthly: 2,
    };
    let removed = history.prune(keep).unwrap();
    let names: Vec<String> = history
        .entries()
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    let days: Vec<&str> = names.iter().map(|n| &n[..10]).collect();
    assert_eq!(
        days,
        [
            "2026-10-03",
            "2026-11-04",
            "2026-11-08",
            "2026-11-12",
            "2026-11-16"
        ]
    );
    assert_eq!(removed.len(), 15);
    assert_eq!(history.prune(keep).unwrap(), Vec::<String>::new());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        5,
        "nothing hidden is left"
    );
}

/// The part of a killed writer.
#[test]
fn writer_that_is_killed() {
    let Some(dir) = std::env::var_os(WRITER) else {
        return;
    };
    let history = History::at(Path::new(&dir));
    for n in 0.. {
        history.add_records(&run(f64::from(n)), None).unwrap();
    }
}

fn writer(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "history::writer_that_is_killed"])
        .env(WRITER, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// 200 crashes, two writers at a time.
#[test]
fn writers_killed_at_any_point_leave_no_half_run() {
    let (mut runs, mut torn) = (0, 0);
    for crash in 0..100u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut writers = [writer(dir.path()), writer(dir.path())];
        // Until there is something to be killed in the middle of, and then a bit, never the same.
        while fs::read_dir(dir.path()).unwrap().next().is_none() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_micros(crash * 37 % 5_000));
        for child in &mut writers {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let history = History::at(dir.path());
        let entries = history.entries().unwrap();
        for entry in &entries {
            let source = history.read(entry).unwrap();
            assert_eq!(
                (source.records.len(), source.problems.len()),
                (RECORDS, 0),
                "{source:?}"
            );
        }
        let there: Vec<PathBuf> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        let hidden = |p: &&PathBuf| p.file_name().unwrap().to_string_lossy().starts_with('.');
        torn += there.iter().filter(hidden).count();
        assert_eq!(there.iter().filter(|p| !hidden(p)).count(), entries.len());
        runs += entries.len();
        // Whoever comes next can go on.
        history.add_records(&run(1e9), None).unwrap();
    }
    println!("200 crashes: {runs} whole runs, {torn} torn ones, never seen as runs");
    assert!(
        runs > 0 && torn > 0,
        "the crashes hit nothing: {runs} runs, {torn} torn"
    );
}

#[test]
fn times_are_told_in_utc() {
    assert_eq!(time_name(0.0), "1970-01-01T000000Z");
    assert_eq!(time_name(1_795_389_300.9), "2026-11-22T231500Z");
}
