//! What other programs are given, against committed files and, where it is installed, their own checker.

use std::process::{Command, Stdio};

use punchbench_results::{Expectation, Record, Style, Verdict, exporter, exporters};

use crate::golden::assert_golden;
use crate::samples::record;

/// Every outcome that a format must tell apart, on two kernels, and a control.
fn night() -> Vec<Record> {
    let mut known = record("punch-while-read", "btrfs", Verdict::Stale);
    known.expectation = Expectation::Expected;
    known.known_issue = Some("btrfs-punch-last-page".into());
    let mut control = record("punch-while-read", "reference:none", Verdict::Stale);
    control.expectation = Expectation::Expected;
    let mut fixed = record("punch-while-fault", "ext4:1k", Verdict::Safe);
    fixed.expectation = Expectation::Fixed;
    fixed.known_issue = Some("ext4-faults".into());
    let mut hostile = record("punch-while-read", "xfs", Verdict::Error);
    hostile.reason = "umount: <busy> # not ok 1 & \u{1b}[31m ]]> \u{0}".into();
    let other = Record {
        kernel: "5.10.0-36-amd64".into(),
        ..record("punch-while-read", "ext4", Verdict::Hung)
    };
    vec![
        record("punch-while-read", "ext4", Verdict::Safe),
        record("punch-while-fault", "ext4", Verdict::Stale),
        record("zero-while-read", "ext4", Verdict::Inconclusive),
        record("collapse-while-fault", "ext4", Verdict::Unsupported),
        fixed,
        known,
        hostile,
        record("punch-while-read", "gfs2", Verdict::Skipped),
        control,
        other,
    ]
}

fn render(format: &str) -> String {
    exporter(format, Style::default()).unwrap().render(&night())
}

#[test]
fn junit_is_as_committed() {
    // The library draws no identifiers and notes no times unless told to.
    assert_golden("tests/golden/junit.xml", &render("junit"));
}

#[test]
fn ktap_is_as_committed() {
    assert_golden("tests/golden/results.ktap", &render("ktap"));
}

#[test]
fn kcidb_is_as_committed() {
    assert_golden("tests/golden/kcidb.json", &render("kcidb"));
}

#[test]
fn mail_is_as_committed() {
    let text = render("mail");
    assert_golden("tests/golden/mail.txt", &text);
    let wide = |l: &&str| l.chars().count() > 72 && !l.trim_start().starts_with("punchbench run");
    assert_eq!(text.lines().find(wide), None, "wider than 72 columns");
}

#[test]
fn json_lines_are_the_records() {
    let records: Vec<Record> = render("jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records, night());
}

#[test]
fn plans_and_results_of_ktap_agree() {
    let text = render("ktap");
    // Results at each depth since the plan there; the description of a hostile record begins no line.
    for (depth, plans) in [("", 1), ("  ", 2), ("    ", 7)] {
        let at_depth = |l: &&str| l.strip_prefix(depth).is_some_and(|l| !l.starts_with(' '));
        let lines: Vec<&str> = text.lines().filter(at_depth).map(str::trim).collect();
        let planned: usize = lines
            .iter()
            .filter_map(|l| l.strip_prefix("1..")?.parse::<usize>().ok())
            .sum();
        let results = lines
            .iter()
            .filter(|l| l.starts_with("ok ") || l.starts_with("not ok "));
        assert_eq!(planned, results.count(), "{text}");
        assert_eq!(
            lines.iter().filter(|l| **l == "KTAP version 1").count(),
            plans
        );
    }
}

#[test]
fn formats_have_names_and_files_of_their_own() {
    let all = exporters(Style::default());
    let names = all.iter().map(|e| e.name()).collect::<Vec<_>>();
    let files = all.iter().map(|e| e.file_name()).collect::<Vec<_>>();
    for mut words in [names, files] {
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all.len());
    }
}

/// With kcidb-io (`pip install kcidb-io`) for the Python named by PUNCHBENCH_KCIDB_PYTHON, or python3.
#[test]
fn kcidb_accepts_the_submission() {
    let python = std::env::var("PUNCHBENCH_KCIDB_PYTHON");
    let required = python.is_ok();
    let python = python.unwrap_or_else(|_| "python3".into());
    let has_it = Command::new(&python)
        .args(["-c", "import kcidb_io"])
        .stderr(Stdio::null())
        .status();
    if !has_it.is_ok_and(|s| s.success()) {
        assert!(!required, "{python} has no kcidb_io");
        eprintln!("skipped: {python} has no kcidb_io (pip install kcidb-io)");
        return;
    }
    let path = std::env::temp_dir().join(format!("punchbench-kcidb-{}.json", std::process::id()));
    std::fs::write(&path, render("kcidb")).unwrap();
    let check = "import json, sys, kcidb_io\n\
                 data = json.load(open(sys.argv[1]))\n\
                 kcidb_io.schema.V5_3.validate(data)\n\
                 assert len(data['tests']) == 9\n";
    let done = Command::new(&python)
        .args(["-c", check])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
