//! What a comparison calls a regression, and what it does not: case by case, and over simulated nights.

use std::path::Path;
use std::time::Instant;

use proptest::test_runner::{RngAlgorithm, TestRng};
use punchbench_results::compare::{Kind, Options, Steadiness};
use punchbench_results::exit_code::{EXPECTED, NOTHING_RAN, UNEXPECTED};
use punchbench_results::record::trial_on;
use punchbench_results::table::Cell;
use punchbench_results::{Comparison, Expectation, Record, Source, Style, Verdict, exporter};

use crate::golden::assert_golden;
use crate::samples::record;

fn source(name: &str, records: Vec<Record>) -> Source {
    Source {
        name: name.into(),
        cells: Cell::group(&records),
        records,
        problems: Vec::new(),
    }
}

fn compare(before: Vec<Record>, after: Vec<Record>) -> Comparison {
    let sources = [source("A", before), source("B", after)];
    Comparison::of(&sources, Options::default())
}

/// A record with so many violated rounds of 20,000, covered by a known issue.
fn known(violated: u64) -> Record {
    let verdict = if violated > 0 {
        Verdict::Stale
    } else {
        Verdict::Safe
    };
    let mut r = record("punch-while-read", "btrfs", verdict);
    r.expectation = Expectation::Expected;
    r.known_issue = Some("btrfs-last-page".into());
    r.evidence.overlapped = 20_000;
    r.evidence.violated_rounds = violated;
    r
}

fn safe() -> Record {
    record("punch-while-read", "ext4", Verdict::Safe)
}

fn stale() -> Record {
    record("punch-while-read", "ext4", Verdict::Stale)
}

/// The kind of the only change, and the exit code.
fn only(before: Vec<Record>, after: Vec<Record>) -> (Kind, u8) {
    let c = compare(before, after);
    assert_eq!(c.changes.len(), 1, "{}", c.text(Style::default()));
    (c.changes[0].kind, c.exit_code)
}

#[test]
fn a_confirmed_violation_that_nobody_knows_is_an_alarm_however_rare() {
    assert_eq!(
        only(vec![safe()], vec![stale()]),
        (Kind::NewFailure, UNEXPECTED)
    );
    let skipped = record("punch-while-read", "ext4", Verdict::Skipped);
    assert_eq!(
        only(vec![skipped], vec![stale()]),
        (Kind::NewFailure, UNEXPECTED)
    );
    // Another kind of violation is news, too.
    let foreign = record("punch-while-read", "ext4", Verdict::Foreign);
    assert_eq!(
        only(vec![stale()], vec![foreign]),
        (Kind::NewFailure, UNEXPECTED)
    );
}

#[test]
fn what_failed_before_is_no_news() {
    let c = compare(vec![stale()], vec![stale()]);
    assert_eq!(
        (c.changes.len(), c.unchanged, c.exit_code),
        (0, 1, EXPECTED)
    );
    // Also if it did not fail in every earlier run.
    let runs = [
        source("1", vec![stale()]),
        source("2", vec![safe()]),
        source("3", vec![stale()]),
    ];
    let c = Comparison::of(&runs, Options::default());
    assert_eq!((c.changes.len(), c.exit_code), (0, EXPECTED));
}

#[test]
fn evidence_that_is_gone_is_an_alarm() {
    for verdict in [Verdict::Skipped, Verdict::Unsupported, Verdict::Error] {
        let gone = record("punch-while-read", "ext4", verdict);
        assert_eq!(
            only(vec![safe()], vec![gone]),
            (Kind::LostEvidence, UNEXPECTED)
        );
    }
    let mut blind = record("punch-while-read", "ext4", Verdict::Inconclusive);
    blind.evidence.overlapped = 312;
    assert_eq!(
        only(vec![safe()], vec![blind.clone()]),
        (Kind::LostEvidence, UNEXPECTED)
    );
    let mut scarce = safe();
    scarce.evidence.overlapped = 1_100;
    assert_eq!(
        only(vec![scarce], vec![blind]),
        (Kind::ThinEvidence, EXPECTED)
    );
}

#[test]
fn a_cell_without_a_record_is_missing_unless_a_part_was_meant() {
    let other = record("punch-while-fault", "ext4", Verdict::Safe);
    let sources = [
        source("A", vec![safe(), other.clone()]),
        source("B", vec![other]),
    ];
    let c = Comparison::of(&sources, Options::default());
    assert_eq!(
        (c.changes[0].kind, c.exit_code),
        (Kind::Missing, UNEXPECTED)
    );
    let c = Comparison::of(&sources, Options { partial: true });
    assert_eq!((c.changes[0].kind, c.exit_code), (Kind::Gone, EXPECTED));
}

#[test]
fn a_control_that_no_longer_fails_is_an_alarm() {
    let control = |verdict| {
        let mut r = record("punch-while-read", "reference:none", verdict);
        r.expectation = Expectation::Expected;
        r
    };
    let (before, after) = (control(Verdict::Stale), control(Verdict::Safe));
    assert_eq!(
        only(vec![before], vec![after]),
        (Kind::ControlLost, UNEXPECTED)
    );
}

#[test]
fn rates_are_compared_with_room_for_chance_and_a_busy_machine() {
    // Twice as often is what a busy machine does; a hundred times is not.
    assert_eq!(compare(vec![known(100)], vec![known(200)]).changes, []);
    assert_eq!(
        only(vec![known(20)], vec![known(4_000)]),
        (Kind::RateUp, UNEXPECTED)
    );
    assert_eq!(
        only(vec![known(4_000)], vec![known(20)]),
        (Kind::RateDown, EXPECTED)
    );
    assert_eq!(
        only(vec![known(0)], vec![known(3)]),
        (Kind::KnownShows, EXPECTED)
    );
}

#[test]
fn fixed_is_said_only_of_what_would_have_shown() {
    assert_eq!(
        only(vec![known(200)], vec![known(0)]),
        (Kind::Fixed, EXPECTED)
    );
    assert_eq!(
        only(vec![known(2)], vec![known(0)]),
        (Kind::NotSeen, EXPECTED)
    );
}

#[test]
fn flaky_is_told_from_hard() {
    let steadiness = |records| {
        let c = compare(vec![safe()], records);
        c.changes[0].after.as_ref().unwrap().steadiness
    };
    let often = |mut r: Record| {
        r.evidence.violated_rounds = 500;
        r
    };
    assert_eq!(steadiness(vec![often(stale())]), Some(Steadiness::Hard));
    assert_eq!(
        steadiness(vec![often(stale()), safe()]),
        Some(Steadiness::Flaky)
    );
    // Once in 25,000 rounds: the next trial may well miss it.
    assert_eq!(steadiness(vec![stale()]), Some(Steadiness::Flaky));
}

#[test]
fn a_kernel_by_one_name_is_compared_across_its_releases() {
    let on = |release: &str, r: Record| Record {
        kernel: release.into(),
        trial: trial_on(&r.trial, Some("debian:bookworm")),
        ..r
    };
    let own = safe();
    let c = compare(
        vec![on("6.1.0-40-amd64", safe()), own.clone()],
        vec![on("6.1.0-42-amd64", stale()), own],
    );
    assert_eq!((c.changes.len(), c.unchanged), (1, 1));
    assert_eq!(c.changes[0].kind, Kind::NewFailure);
    let title = c.kernels[c.changes[0].kernel].title();
    assert_eq!(title, "debian:bookworm: 6.1.0-40-amd64 -> 6.1.0-42-amd64");
}

#[test]
fn empty_runs_are_said_to_be_empty() {
    let c = compare(vec![], vec![safe()]);
    assert_eq!(c.exit_code, NOTHING_RAN);
    assert!(
        c.text(Style::default())
            .contains("nothing could be compared")
    );
}

/// One change of every sort that a reader may meet.
fn full() -> Comparison {
    let named = |scenario: &str, r: Record| Record {
        scenario: scenario.into(),
        ..r
    };
    let before = vec![
        safe(),
        named("a-rate", known(20)),
        named("b-fixed", known(200)),
        named("c-lost", safe()),
        named("d-missing", safe()),
        named("e-same", safe()),
    ];
    let after = vec![
        stale(),
        named("a-rate", known(4_000)),
        named("b-fixed", known(0)),
        named("c-lost", record("c-lost", "ext4", Verdict::Skipped)),
        named("e-same", safe()),
        named("f-new", safe()),
    ];
    compare(before, after)
}

#[test]
fn comparison_for_the_terminal() {
    assert_golden("tests/golden/compare.txt", &full().text(Style::default()));
}

#[test]
fn comparison_in_markdown() {
    assert_golden("tests/golden/compare.md", &full().markdown());
}

#[test]
fn comparison_as_json() {
    let value: serde_json::Value = serde_json::from_str(&full().json()).unwrap();
    assert_eq!(value["comparison_schema"], 1);
    assert_eq!(value["changes"][0]["kind"], "new-failure");
    assert_eq!(value["changes"][0]["after"]["steadiness"], "flaky");
    assert_eq!(value["exit_code"], 1);
}

#[test]
fn a_table_is_read_back_as_it_was_written() {
    let mut twice = [stale(), safe()];
    twice[0].evidence.violated_rounds = 7;
    let records = [
        &twice[..],
        &[
            known(12),
            record("collapse-while-fault", "btrfs", Verdict::Unsupported),
        ],
        &[record("punch-while-read", "reference:none", Verdict::Safe)],
    ]
    .concat();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("night.md");
    let text = exporter("markdown", Style::default())
        .unwrap()
        .render(&records);
    std::fs::write(&path, text).unwrap();
    let table = Source::read(&path).unwrap();
    assert_eq!(table.problems, Vec::<String>::new());
    let c = Comparison::of(&[table, source("B", records)], Options::default());
    assert_eq!(
        (c.changes.len(), c.unchanged),
        (0, 4),
        "{}",
        c.text(Style::default())
    );
    assert_eq!(c.kernels.len(), 1);
    assert_eq!(c.rates_compared, 2);
}

#[test]
fn the_committed_table_is_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tables/host-6.18.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let told = |what: &str| -> usize {
        let mut lines = text.lines().filter_map(|l| l.split_once(what));
        lines.next().expect(what).0.parse().expect(what)
    };
    let table = Source::read(&path).unwrap();
    assert_eq!(table.cells.len(), told(" trials: ") + told(" controls: "));
    let raced = |scenario: &str| !scenario.starts_with("staged-");
    for c in table.cells.iter().filter(|c| raced(&c.scenario)) {
        assert!(
            !c.verdict().was_exercised() || c.overlapped >= 1_000,
            "{c:?}"
        );
    }
    assert_eq!(table.cells[0].kernel, "6.18.44");
}

#[test]
fn what_is_no_run_is_refused_and_what_is_good_of_one_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let line = serde_json::to_string(&safe()).unwrap();
    let newer = line.replace("\"schema\":1", "\"schema\":99");
    let torn = &line[..line.len() / 2];
    let mixed = write(
        "mixed.jsonl",
        &format!("{line}\nshopping list\n{newer}\n{torn}"),
    );
    let read = Source::read(&mixed).unwrap();
    assert_eq!(read.records, [safe()]);
    let told = read.problems.join("\n");
    for part in [
        "line 2: not a punchbench record",
        "line 3: schema version 99",
        "line 4: an unfinished record",
        "3 lines left out, 1 record used",
    ] {
        assert!(told.contains(part), "{told}");
    }
    for (name, text, part) in [
        ("foreign.jsonl", "shopping list\n", "nothing in"),
        ("newer.jsonl", newer.as_str(), "use a newer punchbench"),
        (
            "foreign.md",
            "# Shopping list\n\n| scenario |\n",
            "has no table that punchbench wrote",
        ),
        (
            "odd.md",
            "## Kernel 1\n\n| scenario | ext4 |\n| --- | --- |\n| a | green |\n",
            "`green` is no verdict",
        ),
    ] {
        let error = Source::read(&write(name, text)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = Source::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("holds no records.jsonl"), "{error}");
    let empty = Source::read(&write("empty.jsonl", "")).unwrap();
    assert!(
        empty.problems[0].contains("an empty run"),
        "{:?}",
        empty.problems
    );
}

/// Numbers for simulated nights.
struct Dice(TestRng);

impl Dice {
    fn new(seed: u8) -> Dice {
        Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
    }

    fn uniform(&mut self) -> f64 {
        use proptest::prelude::Rng;
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Knuth's product below 30, else by the normal approximation.
    fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (mut n, mut product) = (0, self.uniform());
        while product > (-mean).exp() {
            n += 1;
            product *= self.uniform();
        }
        n
    }
}

/// A thousand cells: most of them safe, a tenth covered by known issues with rates from hopeless to one in a
/// million, some with so little evidence that it varies about the floor, some not supported.
fn night(dice: &mut Dice, spread: f64) -> Vec<Cell> {
    let template = Cell::group(&[known(1), safe()]);
    (0..1_000)
        .map(|n| {
            let mut cell = template[usize::from(n >= 100)].clone();
            cell.scenario = format!("scenario-{:02}", n % 75);
            cell.target = format!("fs{:02}", n / 75);
            cell.overlapped = 15_000 + (10_000.0 * dice.uniform()) as u64;
            let mut violated = 0;
            let mut verdict = Verdict::Safe;
            if n < 100 {
                let rate = 10f64.powf(-6.0 + 5.5 * f64::from(n) / 100.0);
                let tonight = rate * (spread * dice.normal()).exp();
                violated = dice
                    .poisson(tonight * cell.overlapped as f64)
                    .min(cell.overlapped);
                if violated > 0 {
                    verdict = Verdict::Stale;
                }
            } else if n < 110 {
                cell.overlapped = 900 + (600.0 * dice.uniform()) as u64;
                if cell.overlapped < 1_000 {
                    verdict = Verdict::Inconclusive;
                }
            } else if n < 200 {
                verdict = Verdict::Unsupported;
                cell.overlapped = 0;
            }
            cell.tally[0].verdict = verdict;
            cell.filled = (cell.overlapped > 0).then_some(cell.overlapped);
            cell.rate.violated = violated;
            cell.rate.overlapped = cell.overlapped;
            cell
        })
        .collect()
}

/// The share of simulated pairs of nights that raise an alarm, `change` being done to the later one.
fn alarms(nights: u32, spread: f64, seed: u8, change: impl Fn(&mut Vec<Cell>)) -> u32 {
    let mut dice = Dice::new(seed);
    let as_source = |name: &str, cells| Source {
        name: name.into(),
        records: Vec::new(),
        cells,
        problems: Vec::new(),
    };
    let raised = (0..nights).filter(|_| {
        let before = night(&mut dice, spread);
        let mut after = night(&mut dice, spread);
        change(&mut after);
        let pair = [as_source("A", before), as_source("B", after)];
        Comparison::of(&pair, Options::default()).exit_code != EXPECTED
    });
    raised.count() as u32
}

/// Spread 0 is chance alone; 0.8 is what was measured on a busy machine; 1.5 is worse than any.
#[test]
fn a_thousand_unchanged_nights_raise_hardly_a_false_alarm() {
    for (spread, seed) in [(0.0, 1), (0.8, 2), (1.5, 3)] {
        let false_alarms = alarms(1_000, spread, seed, |_| {});
        assert!(
            false_alarms < 10,
            "{false_alarms} false alarms in 1,000 nights at spread {spread}"
        );
    }
}

/// A comparison that never raises an alarm would pass the test above.
#[test]
fn changed_nights_do_raise_it() {
    let worse = |cells: &mut Vec<Cell>| {
        // From 0.06 % to half of the rounds.
        cells[50].rate.violated = cells[50].overlapped / 2;
        cells[50].tally[0].verdict = Verdict::Stale;
    };
    assert!(alarms(100, 0.8, 4, worse) >= 60);
    let skipped = |cells: &mut Vec<Cell>| cells[500].tally[0].verdict = Verdict::Skipped;
    assert_eq!(alarms(100, 0.8, 5, skipped), 100);
}

/// Seconds allowed on this machine as it is: with more to run than CPUs, everybody waits.
pub fn limit(seconds: f64) -> f64 {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|l| l.parse().ok())
        .unwrap_or(0.0);
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    seconds * (load / cpus as f64).max(1.0)
}

#[test]
fn two_runs_of_ten_thousand_records_are_compared_in_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for run in 0..2 {
        let mut text = String::new();
        for n in 0..10_000 {
            let scenario = format!("scenario-{:03}", n % 100);
            let verdict = if n % 10 == run {
                Verdict::Stale
            } else {
                Verdict::Safe
            };
            let r = record(&scenario, &format!("fs:{}", n / 100), verdict);
            text.push_str(&serde_json::to_string(&r).unwrap());
            text.push('\n');
        }
        let path = dir.path().join(format!("{run}.jsonl"));
        std::fs::write(&path, text).unwrap();
        paths.push(path);
    }
    // The best of a few: other tests run beside this one.
    let mut best = f64::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let sources = Source::read_all(&paths).unwrap();
        let c = Comparison::of(&sources, Options::default());
        let text = c.text(Style::default());
        best = best.min(begun.elapsed().as_secs_f64());
        assert_eq!(c.alarms().count(), 1_000);
        assert!(text.len() > 10_000);
        if best < limit(1.0) {
            break;
        }
    }
    println!("two runs of 10,000 records: {best:.2} s");
    assert!(best < limit(1.0), "{best} s");
}
