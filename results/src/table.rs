//! The matrix of scenarios and targets that every report shows, free of any format.
//!
//! Rows are scenarios and columns are targets, because a screen has room for eight short filesystem
//! names side by side but not for eleven scenario names. Each kernel has a block of its own; controls
//! (`reference:…`) stand last, for they judge the bench and not a filesystem.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::notes::{Note, notes};
use crate::rate::Rate;
use crate::{Evidence, Expectation, Floor, Record, Verdict, Where};

/// Everything a report shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// One block a kernel, in order of first appearance.
    pub blocks: Vec<Block>,
    /// Trials by verdict, worst first, controls left out.
    pub counts: Vec<Tally>,
    /// The same for the controls.
    pub control_counts: Vec<Tally>,
    /// [`crate::exit_code::of_records`].
    pub exit_code: u8,
}

/// The matrix of one kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Block {
    /// `uname -r`.
    pub kernel: String,
    /// `uname -v`.
    pub kernel_version: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Why cells were not decided, and which known issues matched.
    pub notes: Vec<Note>,
}

/// A column of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The target as a user types it.
    pub target: String,
    /// Whether it is a control: a reference implementation whose outcome is known.
    pub control: bool,
}

/// A row of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The scenario's name.
    pub scenario: String,
    /// One entry for every column; `None` where nothing was recorded.
    pub cells: Vec<Option<Cell>>,
}

/// How many trials ended in a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The verdict.
    pub verdict: Verdict,
    /// Trials that ended so.
    pub trials: usize,
}

/// How a cell stands against the known issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Some repeat was not as expected.
    Unexpected,
    /// A known issue was expected and no repeat showed it.
    Fixed,
    /// A violation, as a known issue says.
    Known,
}

/// All repeats of one scenario on one target and kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The kernel's release.
    pub kernel: String,
    /// The kernel's version line.
    pub kernel_version: String,
    /// The kernel as the command line named it; `None` for this machine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_name: Option<String>,
    /// The scenario's name.
    pub scenario: String,
    /// The target as a user types it.
    pub target: String,
    /// The driver that really served it.
    pub driver: String,
    /// The repeats by verdict, worst first; never empty.
    pub tally: Vec<Tally>,
    /// Against the known issues; `None` for a plain expected result.
    pub mark: Option<Mark>,
    /// Where a `stale-mapping` lives.
    #[serde(rename = "where")]
    pub at: Option<Where>,
    /// The known issue that matched.
    pub known_issue: Option<String>,
    /// Why the worst verdict, in the words of the first repeat that had it.
    pub reason: String,
    /// What would help there.
    pub hint: Option<String>,
    /// The seed of that repeat.
    pub seed: u64,
    /// The command that runs that repeat again.
    pub replay: String,
    /// Rounds raced, over all repeats as are the following.
    pub rounds: u64,
    /// Rounds overlapped.
    pub overlapped: u64,
    /// Rounds really filled, where the scenario has a filler.
    pub filled: Option<u64>,
    /// Blocks proved reused, where the operation frees any.
    pub reused_blocks: Option<u64>,
    /// Violated rounds.
    pub rate: Rate,
    /// The floor that the evidence was held against.
    pub floor: Floor,
    /// Seconds of racing until the first violation, in the repeat that was fastest.
    pub first_violation_s: Option<f64>,
}

impl Summary {
    /// Puts records into tables.
    pub fn new(records: &[Record]) -> Summary {
        let mut kernels: Vec<((String, String), Vec<Cell>)> = Vec::new();
        for cell in Cell::group(records) {
            let kernel = (cell.kernel.clone(), cell.kernel_version.clone());
            match kernels.iter_mut().find(|(k, _)| *k == kernel) {
                Some((_, cells)) => cells.push(cell),
                None => kernels.push((kernel, vec![cell])),
            }
        }
        let (controls, others): (Vec<&Record>, Vec<&Record>) =
            records.iter().partition(|r| is_control(&r.target));
        Summary {
            blocks: kernels
                .into_iter()
                .map(|((release, version), cells)| Block::new(release, version, cells))
                .collect(),
            counts: tally(others.iter().map(|r| r.verdict)),
            control_counts: tally(controls.iter().map(|r| r.verdict)),
            exit_code: crate::exit_code::of_records(records),
        }
    }

    /// All cells of all blocks, row by row.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.blocks.iter().flat_map(Block::cells)
    }
}

impl Block {
    fn new(kernel: String, kernel_version: String, cells: Vec<Cell>) -> Block {
        let mut columns: Vec<Column> = Vec::new();
        let mut scenarios: Vec<String> = Vec::new();
        for cell in &cells {
            if !columns.iter().any(|c| c.target == cell.target) {
                columns.push(Column {
                    target: cell.target.clone(),
                    control: is_control(&cell.target),
                });
            }
            if !scenarios.contains(&cell.scenario) {
                scenarios.push(cell.scenario.clone());
            }
        }
        columns.sort_by_key(|c| c.control);
        let notes = notes(&columns, &scenarios, &cells);
        let mut by_place: BTreeMap<(String, String), Cell> = cells
            .into_iter()
            .map(|c| ((c.scenario.clone(), c.target.clone()), c))
            .collect();
        let rows = scenarios
            .into_iter()
            .map(|scenario| {
                let mut take = |c: &Column| by_place.remove(&(scenario.clone(), c.target.clone()));
                let cells = columns.iter().map(&mut take).collect();
                Row { scenario, cells }
            })
            .collect();
        Block {
            kernel,
            kernel_version,
            columns,
            rows,
            notes,
        }
    }

    /// The columns that stand in one table: controls have their own where they ran a part of the rows only.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        let (controls, targets): (Vec<usize>, Vec<usize>) =
            all.iter().partition(|c| self.columns[**c].control);
        if self.rows_of(&controls).count() == self.rows.len() {
            return vec![all];
        }
        let apart = [targets, controls].into_iter();
        apart.filter(|columns| !columns.is_empty()).collect()
    }

    /// The rows in which any of these columns has a record.
    pub fn rows_of<'a>(&'a self, columns: &'a [usize]) -> impl Iterator<Item = &'a Row> {
        let has = |row: &&Row| columns.iter().any(|c| row.cells[*c].is_some());
        self.rows.iter().filter(has)
    }

    /// The cells in which something was recorded, row by row.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|row| row.cells.iter().flatten())
    }
}

impl Cell {
    /// Combines the repeats of each trial, in order of first appearance.
    pub fn group(records: &[Record]) -> Vec<Cell> {
        let mut places: BTreeMap<[&str; 4], usize> = BTreeMap::new();
        let mut groups: Vec<Vec<&Record>> = Vec::new();
        for r in records {
            let place = [r.kernel.as_str(), &r.kernel_version, &r.target, &r.scenario];
            let index = *places.entry(place).or_insert(groups.len());
            if index == groups.len() {
                groups.push(Vec::new());
            }
            groups[index].push(r);
        }
        groups
            .iter()
            .filter_map(|repeats| Cell::combine(repeats))
            .collect()
    }

    /// `None` for no repeats.
    fn combine(repeats: &[&Record]) -> Option<Cell> {
        let tally = tally(repeats.iter().map(|r| r.verdict));
        let worst = tally.first()?.verdict;
        let first = repeats.iter().find(|r| r.verdict == worst)?;
        let sum = |of: fn(&Evidence) -> Option<u64>| {
            repeats
                .iter()
                .filter_map(|r| of(&r.evidence))
                .reduce(|a, b| a + b)
        };
        Some(Cell {
            kernel: first.kernel.clone(),
            kernel_version: first.kernel_version.clone(),
            kernel_name: first.kernel_name().map(str::to_owned),
            scenario: first.scenario.clone(),
            target: first.target.clone(),
            driver: first.driver.clone(),
            tally,
            mark: mark(repeats),
            at: first.at,
            known_issue: repeats.iter().find_map(|r| r.known_issue.clone()),
            reason: first.reason.clone(),
            hint: first.hint.clone(),
            seed: first.seed,
            replay: first.replay.clone(),
            rounds: sum(|e| Some(e.rounds)).unwrap_or(0),
            overlapped: sum(|e| Some(e.overlapped)).unwrap_or(0),
            filled: sum(|e| e.filled),
            reused_blocks: sum(|e| e.reused_blocks),
            rate: repeats
                .iter()
                .map(|r| Rate::of(r))
                .fold(Rate::default(), Rate::plus),
            floor: first.floor,
            first_violation_s: repeats
                .iter()
                .filter_map(|r| r.first_violation_s)
                .reduce(f64::min),
        })
    }

    /// The worst verdict of the repeats.
    pub fn verdict(&self) -> Verdict {
        self.tally[0].verdict
    }

    /// Repeats combined here.
    pub fn trials(&self) -> usize {
        self.tally.iter().map(|t| t.trials).sum()
    }

    /// Repeats with the worst verdict and all repeats, if they differ.
    pub fn fraction(&self) -> Option<(usize, usize)> {
        (self.tally.len() > 1).then(|| (self.tally[0].trials, self.trials()))
    }

    /// What stands in the matrix: `stale! 3/5`.
    pub fn label(&self, words: Words) -> String {
        let mut label = words.word(self.verdict()).to_owned();
        if let Some(mark) = self.mark {
            label.push(mark.sign());
        }
        if let Some((worst, all)) = self.fraction() {
            label.push_str(&format!(" {worst}/{all}"));
        }
        label
    }

    /// The repeats by verdict, in words: `foreign 1/5, stale 3/5, safe 1/5`.
    pub fn tally_in_words(&self) -> String {
        let all = self.trials();
        let parts: Vec<String> = self
            .tally
            .iter()
            .map(|t| format!("{} {}/{all}", t.verdict, t.trials))
            .collect();
        parts.join(", ")
    }
}

/// How verdicts are spelt in a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// As everywhere else.
    Full,
    /// At most six letters.
    Short,
}

impl Words {
    /// The word for `verdict`.
    pub fn word(self, verdict: Verdict) -> &'static str {
        match self {
            Words::Full => verdict.word(),
            Words::Short => verdict.short_word(),
        }
    }
}

impl Mark {
    /// The sign that follows the verdict.
    pub fn sign(self) -> char {
        match self {
            Mark::Unexpected => '!',
            Mark::Fixed => '+',
            Mark::Known => '*',
        }
    }

    /// What the sign means.
    pub fn meaning(self) -> &'static str {
        match self {
            Mark::Unexpected => "unexpected: no known issue covers it",
            Mark::Fixed => "fixed: a known issue said that it would fail, and it did not",
            Mark::Known => {
                "a violation that was expected: a known issue, or a control that must fail"
            }
        }
    }
}

/// A racy known issue that shows in one repeat is not fixed because another repeat missed it.
fn mark(repeats: &[&Record]) -> Option<Mark> {
    let any = |e: Expectation| repeats.iter().any(|r| r.expectation == e);
    let known = |r: &&Record| r.expectation == Expectation::Expected && r.verdict.is_violation();
    if any(Expectation::Unexpected) {
        Some(Mark::Unexpected)
    } else if repeats.iter().any(known) {
        Some(Mark::Known)
    } else if any(Expectation::Fixed) {
        Some(Mark::Fixed)
    } else {
        None
    }
}

/// Whether a target is a control: the bench's own model, whose outcome is known.
pub fn is_control(target: &str) -> bool {
    target.starts_with("reference:")
}

/// Counts verdicts, worst first.
fn tally(verdicts: impl Iterator<Item = Verdict>) -> Vec<Tally> {
    let mut counts: Vec<Tally> = Vec::new();
    for verdict in verdicts {
        match counts.iter_mut().find(|t| t.verdict == verdict) {
            Some(t) => t.trials += 1,
            None => counts.push(Tally { verdict, trials: 1 }),
        }
    }
    counts.sort_by_key(|t| std::cmp::Reverse(t.verdict.severity()));
    counts
}
