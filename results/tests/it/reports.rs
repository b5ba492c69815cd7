//! What people see: whole reports against committed files, and the rules behind them.

use punchbench_results::table::{Mark, Words};
use punchbench_results::{
    Answer, Expectation, Phase, Record, Style, Summary, Verdict, explain_failure, exporter,
    exporters,
};

use crate::golden::assert_golden;
use crate::samples::record;

const FILESYSTEMS: [&str; 8] = [
    "ext4", "ext3", "ext2", "xfs", "btrfs", "f2fs", "gfs2", "tmpfs",
];

const SCENARIOS: [&str; 11] = [
    "punch-while-read",
    "punch-while-fadvise",
    "punch-while-madvise",
    "punch-while-fault",
    "punch-while-two-read",
    "punch-while-two-fadvise",
    "punch-while-two-madvise",
    "punch-while-two-fault",
    "punch-and-reuse",
    "collapse-while-fault",
    "dedupe-while-store",
];

/// Eight filesystems and two controls, eleven scenarios, on two kernels.
fn night() -> Vec<Record> {
    let mut records = Vec::new();
    for scenario in SCENARIOS {
        // Controls first: they must end up last.
        let mut control = record(scenario, "reference:none", Verdict::Stale);
        control.expectation = Expectation::Expected;
        records.push(control);
        records.push(record(scenario, "reference:invalidate-lock", Verdict::Safe));
        for fs in FILESYSTEMS {
            let verdict = match (scenario, fs) {
                (_, "gfs2") => Verdict::Skipped,
                ("dedupe-while-store", "xfs" | "btrfs") => Verdict::Safe,
                ("dedupe-while-store", _)
                | ("collapse-while-fault", "ext2" | "ext3" | "btrfs" | "tmpfs") => {
                    Verdict::Unsupported
                }
                ("punch-while-two-fault", "tmpfs") => Verdict::Inconclusive,
                ("punch-and-reuse", "f2fs") => Verdict::Error,
                ("punch-and-reuse", "btrfs") => Verdict::StaleMapping,
                ("punch-while-read", "f2fs") => Verdict::Stale,
                _ => Verdict::Safe,
            };
            records.push(record(scenario, fs, verdict));
        }
    }
    let mut known = record("punch-while-read", "ext4", Verdict::Stale);
    known.expectation = Expectation::Expected;
    known.known_issue = Some("ext4-reads-unlocked".into());
    let mut missed = record("punch-while-read", "ext4", Verdict::Safe);
    missed.expectation = Expectation::Fixed;
    let mut fixed = record("punch-while-fault", "ext4", Verdict::Safe);
    fixed.expectation = Expectation::Fixed;
    fixed.known_issue = Some("ext4-faults-unlocked".into());
    let repeats = [
        known.clone(),
        known.clone(),
        missed.clone(),
        missed,
        known,
        fixed,
    ];
    records.extend(repeats.map(|r| Record {
        kernel: "5.10.0-36-amd64".into(),
        kernel_version: "#1 SMP Debian 5.10.262-1".into(),
        ..r
    }));
    records
}

#[test]
fn terminal_report() {
    let text = exporter("terminal", Style::default())
        .unwrap()
        .render(&night());
    assert_golden("tests/golden/terminal.txt", &text);
}

#[test]
fn markdown_report() {
    let text = exporter("markdown", Style::default())
        .unwrap()
        .render(&night());
    assert_golden("tests/golden/report.md", &text);
}

#[test]
fn a_narrow_terminal_is_never_overrun() {
    for width in 60..200 {
        let style = Style {
            width,
            color: false,
        };
        let text = exporter("terminal", style).unwrap().render(&night());
        let longest = text.lines().map(|l| l.chars().count()).max();
        assert!(longest <= Some(width), "{longest:?} > {width}:\n{text}");
        for name in SCENARIOS.iter().chain(&FILESYSTEMS) {
            assert!(text.contains(name), "{name} is missing at width {width}");
        }
    }
}

#[test]
fn eight_filesystems_fit_one_table_of_100_columns() {
    let records: Vec<Record> = night()
        .into_iter()
        .filter(|r| !r.target.contains(':'))
        .collect();
    let text = exporter("terminal", Style::default())
        .unwrap()
        .render(&records);
    let header = text.lines().find(|l| l.contains("tmpfs")).unwrap();
    assert!(FILESYSTEMS.iter().all(|fs| header.contains(fs)), "{header}");
}

#[test]
fn colours_only_when_asked_for() {
    let records = night();
    for exporter in exporters(Style {
        width: 100,
        color: false,
    }) {
        assert!(
            !exporter.render(&records).contains('\x1b'),
            "{}",
            exporter.name()
        );
    }
    let colored = exporter(
        "terminal",
        Style {
            width: 100,
            color: true,
        },
    )
    .unwrap()
    .render(&records);
    assert!(colored.contains("\x1b["));
    let plain = exporter(
        "terminal",
        Style {
            width: 100,
            color: false,
        },
    )
    .unwrap()
    .render(&records);
    let stripped: Vec<String> = colored
        .lines()
        .map(|l| without_escapes(l).trim_end().to_owned())
        .collect();
    assert_eq!(
        stripped,
        plain.lines().collect::<Vec<_>>(),
        "colours changed the layout"
    );
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| {
        done + part.split_once('m').map_or("", |(_, rest)| rest)
    })
}

#[test]
fn the_summary_is_json() {
    let text = exporter("json", Style::default()).unwrap().render(&night());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["summary_schema"], 1);
    assert_eq!(value["exit_code"], 1);
    assert_eq!(value["blocks"][0]["columns"][8]["target"], "reference:none");
    let cell = &value["blocks"][1]["rows"][0]["cells"][0];
    assert_eq!(
        (&cell["mark"], &cell["tally"][0]["trials"]),
        (&"known".into(), &3.into())
    );
}

#[test]
fn no_trials_are_said_to_be_none() {
    for exporter in exporters(Style::default()) {
        // No records are no lines.
        let nothing = exporter.name() == "jsonl";
        let text = exporter.render(&[]);
        assert_eq!(text.is_empty(), nothing, "{}", exporter.name());
    }
}

#[test]
fn repeats_show_the_worst() {
    let verdicts = [
        Verdict::Safe,
        Verdict::Stale,
        Verdict::Foreign,
        Verdict::Stale,
        Verdict::Safe,
    ];
    let records = verdicts.map(|v| record("punch-while-read", "ext4", v));
    let summary = Summary::new(&records);
    let cells: Vec<_> = summary.cells().collect();
    assert_eq!(cells.len(), 1);
    assert_eq!(cells[0].label(Words::Full), "foreign! 1/5");
    assert_eq!(
        cells[0].tally_in_words(),
        "foreign 1/5, stale 2/5, safe 2/5"
    );
    assert_eq!(cells[0].mark, Some(Mark::Unexpected));
    assert!(summary.blocks[0].notes[0].line().contains("stale 2/5"));
    let agreed = [Verdict::Safe, Verdict::Safe].map(|v| record("punch-while-read", "ext4", v));
    assert_eq!(
        Summary::new(&agreed)
            .cells()
            .next()
            .unwrap()
            .label(Words::Full),
        "safe"
    );
}

#[test]
fn short_words_are_short_and_distinct() {
    let short: std::collections::BTreeSet<&str> =
        Verdict::ALL.iter().map(|v| v.short_word()).collect();
    assert_eq!(short.len(), Verdict::ALL.len());
    assert!(short.iter().all(|w| w.len() <= 6), "{short:?}");
    let severities: std::collections::BTreeSet<u8> =
        Verdict::ALL.iter().map(|v| v.severity()).collect();
    assert_eq!(severities.len(), Verdict::ALL.len());
}

#[test]
fn markdown_survives_hostile_text() {
    let mut hostile = record("a|b", "ext4", Verdict::Error);
    hostile.reason = "x | <script>\n\n# y".into();
    let text = exporter("markdown", Style::default())
        .unwrap()
        .render(&[hostile]);
    assert!(
        text.contains("| a\\|b |") && text.contains("x \\| \\<script\\>  \\# y"),
        "{text}"
    );
}

#[test]
fn failure_of_stale() {
    let mut failed = record("punch-while-read", "ext4", Verdict::Stale);
    let mut second = failed.violations[0].clone();
    second.confirmation = None;
    (second.phase, second.clock) = (Phase::Race, [110, 120, 100, 131]);
    failed
        .violations
        .extend([second.clone(), second.clone(), second]);
    failed.evidence.further_violations = 9;
    failed.evidence.violated_rounds = 10;
    failed.artefacts = vec!["/tmp/out/punch-while-read-ext4-42/page-0x2000.bin".into()];
    assert_golden("tests/golden/failure-stale.txt", &explain_failure(&failed));
}

#[test]
fn failure_of_hung() {
    let mut hung = record("punch-while-fault", "xfs", Verdict::Hung);
    hung.violations.clear();
    hung.reason = "no end after 60 s; 2 tasks did not die".into();
    hung.log = vec![
        "task puncher (pid 7):".into(),
        "  [<0>] xfs_ilock+0x4e/0x110\x1b[2J".into(),
    ];
    assert_golden("tests/golden/failure-hung.txt", &explain_failure(&hung));
}

#[test]
fn the_order_of_observation_and_operation_is_told() {
    let mut failed = record("punch-while-read", "ext4", Verdict::Stale);
    for (clock, told) in [
        (
            [132, 140, 100, 131],
            "began after the operation had returned",
        ),
        ([130, 140, 100, 131], "overlapped the operation"),
        ([90, 101, 100, 131], "overlapped the operation"),
        ([90, 99, 100, 131], "ended before the operation began"),
        ([0, 0, 0, 0], "no clock was recorded"),
    ] {
        failed.violations[0].clock = clock;
        // One line, however it was wrapped.
        let text = explain_failure(&failed)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(text.contains(told), "{clock:?}: {text}");
    }
}

#[test]
fn a_violation_that_was_not_borne_out_accuses_the_bench() {
    let mut error = record("punch-while-read", "ext4", Verdict::Stale);
    error.verdict = Verdict::Error;
    let confirmation = error.violations[0].confirmation.as_mut().unwrap();
    (confirmation.again, confirmation.borne_out) = (Answer::Legal, false);
    let text = explain_failure(&error);
    assert!(text.contains("do NOT bear the violation out"), "{text}");
}

#[test]
fn a_staged_trial_is_told_as_a_diagram() {
    let mut record = record("staged-punch-while-read", "ext4", Verdict::Stale);
    let moment = |ms, actor: &str, what: &str| punchbench_results::Moment {
        ms,
        actor: actor.into(),
        what: what.into(),
    };
    record.evidence.staged = Some(punchbench_results::Staged {
        moments: vec![
            moment(0.0, "puncher", "punch_hole"),
            moment(9.0, "puncher", "parked in ext4_zero_partial_blocks"),
            moment(10.0, "reader", "read"),
            moment(11.0, "reader", "returns"),
            moment(20.0, "", "`edge` is released"),
        ],
        ..punchbench_results::Staged::default()
    });
    let line = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    let text = explain_failure(&record);
    for told in ["parked in ext4_zero_partial_blocks", "`edge` is released"] {
        assert!(text.contains(told), "{text}");
    }
    assert!(
        !text.contains("overlapped (at least"),
        "nothing is counted: {text}"
    );
}
