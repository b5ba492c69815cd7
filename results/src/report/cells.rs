//! The matrix of each kernel, and what is told of each cell.

use std::collections::HashMap;

use serde::Serialize;

use super::trend::{TrendView, Trends, place};
use super::{Issue, told};
use crate::diagram::{Diagram, Row as Step};
use crate::table::{Block, Cell, Mark, Summary, Words};
use crate::text::clean;
use crate::{Phase, Record, Violation};

/// Violations told in full of a cell.
const TOLD_MAX: usize = 1;

/// Characters of a failure's text; the records have all.
const TEXT_MAX: usize = 12_000;

/// One kernel's matrix.
#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    id: usize,
    release: String,
    version: String,
    name: Option<String>,
    /// Targets, and whether they are controls.
    columns: Vec<(String, bool)>,
    rows: Vec<Row>,
    /// What was not exercised, and why.
    gaps: Vec<Gap>,
}

#[derive(Debug, Serialize)]
struct Row {
    scenario: String,
    cells: Vec<Option<Square>>,
}

/// A cell in the matrix.
#[derive(Debug, Serialize)]
struct Square {
    id: usize,
    label: String,
    verdict: &'static str,
    mark: Option<Mark>,
}

#[derive(Debug, Serialize)]
struct Gap {
    verdict: &'static str,
    places: Vec<String>,
    reason: String,
    hint: Option<String>,
}

/// What a reader finds behind a square.
#[derive(Debug, Serialize)]
pub(super) struct CellView {
    pub(super) id: usize,
    scenario: String,
    target: String,
    kernel: String,
    driver: String,
    verdict: &'static str,
    meaning: &'static str,
    label: String,
    mark: Option<&'static str>,
    place: &'static str,
    reason: String,
    hint: Option<String>,
    issue: Option<String>,
    issue_link: Option<String>,
    tally: String,
    rounds: u64,
    overlapped: u64,
    filled: Option<u64>,
    reused: Option<u64>,
    rate: Option<String>,
    violated: u64,
    first_violation: Option<String>,
    replay: String,
    fillers: Vec<FillerView>,
    setup: Vec<String>,
    seen: Option<Intruder>,
    /// The race as SVG.
    diagram: Option<String>,
    failure: Option<String>,
    trend: TrendView,
}

#[derive(Debug, Serialize)]
struct FillerView {
    actor: String,
    op: String,
    overlapped: u64,
    filled: Option<u64>,
    inside: u64,
    straddle: u64,
    early: u64,
    outside: u64,
    cpu: Option<u32>,
}

/// Whose data was seen where it must not be.
#[derive(Debug, Serialize)]
struct Intruder {
    got: String,
    expected: String,
    place: String,
}

impl CellView {
    pub(super) fn is(&self, kernel: &str, target: &str, scenario: &str) -> bool {
        self.kernel == kernel && self.target == target && self.scenario == scenario
    }
}

pub(super) fn views(
    records: &[Record],
    summary: &Summary,
    trends: &Trends,
    known: &[Issue],
) -> (Vec<Kernel>, Vec<CellView>) {
    let mut worst: HashMap<[&str; 4], &Record> = HashMap::new();
    for r in records {
        let key = [r.kernel.as_str(), &r.kernel_version, &r.target, &r.scenario];
        let kept = worst.entry(key).or_insert(r);
        if r.verdict.severity() > kept.verdict.severity() {
            *kept = r;
        }
    }
    let (mut kernels, mut cells) = (Vec::new(), Vec::new());
    for (id, block) in summary.blocks.iter().enumerate() {
        let mut rows = Vec::new();
        for row in &block.rows {
            let mut squares = Vec::new();
            for cell in &row.cells {
                let Some(cell) = cell else {
                    squares.push(None);
                    continue;
                };
                let key = [
                    cell.kernel.as_str(),
                    &cell.kernel_version,
                    &cell.target,
                    &cell.scenario,
                ];
                let Some(record) = worst.get(&key) else {
                    continue;
                };
                squares.push(Some(Square {
                    id: cells.len(),
                    label: cell.label(Words::Short),
                    verdict: cell.verdict().word(),
                    mark: cell.mark,
                }));
                cells.push(view(cells.len(), cell, record, trends, known));
            }
            rows.push(Row {
                scenario: row.scenario.clone(),
                cells: squares,
            });
        }
        kernels.push(kernel(id, block, rows));
    }
    (kernels, cells)
}

fn kernel(id: usize, block: &Block, rows: Vec<Row>) -> Kernel {
    let gaps = block.notes.iter().filter(|n| !n.verdict.was_exercised());
    Kernel {
        id,
        release: block.kernel.clone(),
        version: block.kernel_version.clone(),
        name: block.cells().find_map(|c| c.kernel_name.clone()),
        columns: block
            .columns
            .iter()
            .map(|c| (c.target.clone(), c.control))
            .collect(),
        rows,
        gaps: gaps
            .map(|n| Gap {
                verdict: n.verdict.word(),
                places: n.places.clone(),
                reason: n.reason.clone(),
                hint: n.hint.clone(),
            })
            .collect(),
    }
}

fn view(id: usize, cell: &Cell, record: &Record, trends: &Trends, known: &[Issue]) -> CellView {
    let key = (
        place(&record.trial, &record.kernel),
        cell.target.clone(),
        cell.scenario.clone(),
    );
    let failed = cell.verdict().is_violation() || cell.verdict() == crate::Verdict::Error;
    CellView {
        id,
        scenario: cell.scenario.clone(),
        target: cell.target.clone(),
        kernel: cell.kernel.clone(),
        driver: cell.driver.clone(),
        verdict: cell.verdict().word(),
        meaning: cell.verdict().meaning(),
        label: cell.label(Words::Full),
        mark: cell.mark.map(Mark::meaning),
        place: match cell.at {
            Some(crate::Where::Memory) => "in memory: gone after a remount",
            Some(crate::Where::Disk) => "on disk: still there after a remount",
            Some(crate::Where::Unknown) => {
                "in memory or on disk: the trial could not remount to tell"
            }
            None => "",
        },
        reason: cell.reason.clone(),
        hint: cell.hint.clone(),
        issue: cell.known_issue.clone(),
        issue_link: known
            .iter()
            .find(|k| Some(&k.name) == cell.known_issue.as_ref())
            .map(|k| k.link.clone()),
        tally: cell.tally_in_words(),
        rounds: cell.rounds,
        overlapped: cell.overlapped,
        filled: cell.filled,
        reused: cell.reused_blocks,
        rate: cell.rate.in_words(cell.verdict()),
        violated: cell.rate.violated,
        first_violation: cell.first_violation_s.map(|s| format!("{s:.2} s")),
        replay: clean(&cell.replay),
        fillers: record
            .evidence
            .fillers
            .iter()
            .map(|f| FillerView {
                actor: f.actor.clone(),
                op: f.op.clone(),
                overlapped: f.overlapped,
                filled: f.filled,
                inside: f.contact.inside,
                straddle: f.contact.straddle,
                early: f.contact.early,
                outside: f.contact.outside,
                cpu: f.cpu,
            })
            .collect(),
        setup: record.setup.clone(),
        seen: record.violations.iter().take(TOLD_MAX).map(intruder).next(),
        diagram: diagram(record).map(|d| d.render_svg()),
        failure: failed.then(|| told(record).chars().take(TEXT_MAX).collect()),
        trend: trends.of(&key),
    }
}

fn intruder(v: &Violation) -> Intruder {
    Intruder {
        got: v.got.clone(),
        expected: v.expected.clone(),
        place: format!(
            "file {}, offset {:#x}, {} wrong bytes, seen by {} in pass {} round {}",
            v.file, v.offset, v.wrong_bytes, v.actor, v.pass, v.round
        ),
    }
}

/// The course of a staged attempt, or the order in which a stress round's operation and observation came.
fn diagram(record: &Record) -> Option<Diagram> {
    if let Some(staged) = &record.evidence.staged {
        return Some(staged.diagram());
    }
    let v = record.violations.first()?;
    let [begin, end, op_begin, op_end] = v.clock;
    let (called, returned) = ("is called".to_owned(), "returns".to_owned());
    let (looks, saw) = ("begins to look".to_owned(), format!("has seen {}", v.got));
    let timed = op_begin != 0 || op_end != 0;
    if !timed && v.phase == Phase::Race {
        return None;
    }
    // What is looked at after the race has no clock, and needs none: everybody had returned.
    let ticks = if timed {
        [op_begin, op_end, begin, end]
    } else {
        [0, 1, 2, 3]
    };
    let mut moments = [
        (ticks[0], 0, called),
        (ticks[1], 0, returned),
        (ticks[2], 1, looks),
        (ticks[3], 1, saw),
    ];
    moments.sort_by_key(|(tick, ..)| *tick);
    let row = |(tick, actor, what): (u64, usize, String)| match timed {
        true => Step::new(actor, what).margin(format!("tick {tick}")),
        false => Step::new(actor, what),
    };
    Some(Diagram {
        columns: vec!["the operation".to_owned(), format!("{}, looking", v.actor)],
        rows: moments.map(row).into(),
        closing: vec![format!("Legal was {}.", v.expected)],
    })
}
