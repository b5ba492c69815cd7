//! The page that a maintainer opens in the morning: what is on it, how big it is, how fast it is made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use punchbench_results::report::{self, Issue, runs_below};
use punchbench_results::{Expectation, History, Journal, Record, Verdict};

use crate::compare::limit;
use crate::samples::record;

/// Two kernels, a control, a known issue, something skipped, something hostile.
pub fn night(started: f64, btrfs: Verdict) -> Vec<Record> {
    let mut known = record("punch-while-read", "btrfs", btrfs);
    known.expectation = Expectation::Expected;
    known.known_issue = Some("btrfs-punch-last-page".into());
    let mut control = record("punch-while-read", "reference:none", Verdict::Stale);
    control.expectation = Expectation::Expected;
    let mut hostile = record("a<script>alert(1)</script>", "xfs", Verdict::Error);
    hostile.reason = "</script><img src=x onerror=alert(1)>".into();
    let old = Record {
        kernel: "5.10.0-36-amd64".into(),
        ..record("punch-while-read", "ext4", Verdict::Stale)
    };
    let records = vec![
        record("punch-while-read", "ext4", Verdict::Safe),
        record("punch-while-fault", "ext4", Verdict::Safe),
        known,
        record("punch-while-read", "gfs2", Verdict::Skipped),
        hostile,
        control,
        old,
    ];
    let with_time = |(n, r): (usize, Record)| Record {
        started: started + n as f64,
        trial: format!("{} {n}", r.trial),
        ..r
    };
    records.into_iter().enumerate().map(with_time).collect()
}

fn issues() -> Vec<Issue> {
    vec![Issue {
        name: "btrfs-punch-last-page".into(),
        why: "A punch of one page does not look for pages filled meanwhile.".into(),
        link: "https://git.kernel.org/linus/1e5773e0bab7".into(),
    }]
}

/// A page about three nights in `dir`.
pub fn page(dir: &Path) -> String {
    let history = History::at(dir);
    let day = 86_400.0;
    for (n, verdict) in [Verdict::Safe, Verdict::Safe, Verdict::Stale]
        .into_iter()
        .enumerate()
    {
        let night = night(1_795_000_000.0 + n as f64 * day, verdict);
        history.add_records(&night, None).unwrap();
    }
    let runs = runs_below(&[dir.to_owned()]).unwrap();
    report::render(&runs, &issues(), 1_795_300_000.0).unwrap()
}

#[test]
fn the_page_tells_what_there_is_to_tell() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(dir.path());
    for part in [
        "with 2 earlier runs",
        "Kernel 6.1.0-41-amd64",
        "Kernel 5.10.0-36-amd64",
        "reference:none<br><small>control</small>",
        "known issue shows",
        "A punch of one page does not look for pages filled meanwhile.",
        "punchbench run --fs ext4 --scenario punch-while-read --seconds 5 --seed 42",
        "Got <strong>victim generation 3 offset 0x2000 (old)</strong>; legal was <strong>zeros</strong>",
        "mkfs.gfs2 was not found",
        "2026-11-18 to 2026-11-19, 2 runs: safe",
        "has seen victim generation 3",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    assert_eq!(page.matches("<article").count(), 7);
}

#[test]
fn the_page_loads_nothing_and_text_stays_text() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(dir.path());
    for foreign in [
        "<img",
        "<link rel=\"stylesheet\"",
        "src=\"http",
        "@import",
        "<script>alert",
    ] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.contains("a&lt;script&gt;alert(1)"));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[test]
fn a_bad_run_is_told_and_the_others_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (good, foreign) = (dir.path().join("good"), dir.path().join("foreign.jsonl"));
    let (mut journal, _) = Journal::create_or_resume(&good).unwrap();
    night(0.0, Verdict::Safe)
        .iter()
        .for_each(|r| journal.append(r).unwrap());
    fs::write(&foreign, "shopping list\n").unwrap();
    let runs = runs_below(&[good, foreign.clone()]).unwrap();
    let page = report::render(&runs, &[], 0.0).unwrap();
    assert!(page.contains("Read this first") && page.contains("not a punchbench record"));
    let error = report::render(&runs_below(&[foreign]).unwrap(), &[], 0.0).unwrap_err();
    assert!(
        error.to_string().contains("not a punchbench record"),
        "{error}"
    );
    let empty = runs_below(&[PathBuf::from("/nonexistent")]).unwrap();
    assert!(report::render(&empty, &[], 0.0).is_err());
}

/// 100 nights of 1,000 cells; writes them once and times the page.
pub fn large(dir: &Path) -> (String, f64) {
    for night in 0..100 {
        let mut text = String::new();
        for n in 0..1_000 {
            let verdict = match (n % 10, (n + night) % 7) {
                (0, 0) => Verdict::Stale,
                (1, _) => Verdict::Unsupported,
                _ => Verdict::Safe,
            };
            let (scenario, target) = (
                format!("scenario-{:02}", n % 50),
                format!("fs{:02}", n / 50),
            );
            let mut r = record(&scenario, &target, verdict);
            r.started = 1_780_000_000.0 + f64::from(night) * 86_400.0 + f64::from(n);
            text.push_str(&serde_json::to_string(&r).unwrap());
            text.push('\n');
        }
        let run = dir.join(format!("{night:03}"));
        fs::create_dir(&run).unwrap();
        fs::write(run.join("records.jsonl"), text).unwrap();
    }
    let paths: Vec<PathBuf> = (0..100).map(|n| dir.join(format!("{n:03}"))).collect();
    let mut best = f64::MAX;
    let mut page = String::new();
    for _ in 0..3 {
        let begun = Instant::now();
        page = report::render(&runs_below(&paths).unwrap(), &issues(), 0.0).unwrap();
        best = best.min(begun.elapsed().as_secs_f64());
        if best < 5.0 {
            break;
        }
    }
    (page, best)
}

#[test]
fn a_hundred_nights_of_a_thousand_cells_are_a_page_in_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let (page, seconds) = large(dir.path());
    println!(
        "100 nights of 1,000 cells: {seconds:.2} s, {:.1} MB",
        page.len() as f64 / 1e6
    );
    assert!(page.len() < 20_000_000, "{} bytes", page.len());
    assert!(seconds < limit(5.0), "{seconds} s");
}
