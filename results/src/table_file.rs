//! Reads a table back that the Markdown format wrote, so that a committed table can be compared with a new run.
//!
//! Counts stand in the evidence table below the matrix. The oldest tables do not have the number of
//! violated rounds there: of such a cell the verdict is known and the rate is not.

use std::path::{Path, PathBuf};

use crate::rate::Rate;
use crate::table::{Cell, Mark, Tally};
use crate::{Floor, Verdict};

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No matrix was found.
    #[error(
        "{path} has no table that punchbench wrote: a heading `## Kernel RELEASE`, and below it a table that \
         begins with `| scenario |`"
    )]
    NoTable {
        /// The file.
        path: PathBuf,
    },
    /// A cell says something unknown.
    #[error(
        "{path}, line {line}: `{word}` is no verdict; was the table edited, or written by a newer punchbench?"
    )]
    Word {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// A file of that size is no table.
    #[error("{path} is too long for a table")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

/// What the lines so far belong to.
enum Place {
    /// Between tables.
    Outside,
    /// In a matrix with these targets.
    Matrix(Vec<String>),
    /// In an evidence table with these columns.
    Evidence(Vec<String>),
    /// In some other table.
    Other,
}

/// The cells of every kernel's matrix in `text`.
pub(crate) fn parse_table(path: &Path, text: &str) -> Result<Vec<Cell>, TableError> {
    let mut cells: Vec<Cell> = Vec::new();
    let (mut kernel, mut version) = (None::<String>, String::new());
    let mut place = Place::Outside;
    for (number, line) in text.lines().enumerate() {
        if let Some(release) = line.strip_prefix("## Kernel ") {
            (kernel, version) = (Some(unescape(release)), String::new());
        } else if line.starts_with("## ") {
            // The table across kernels repeats what the others say.
            kernel = None;
        }
        let Some(release) = &kernel else { continue };
        let Some(row) = row(line) else {
            place = Place::Outside;
            let before_matrix = !cells.iter().any(|c| c.kernel == *release);
            if before_matrix && line.starts_with('#') && !line.starts_with("##") {
                // `uname -v` begins with `#`.
                version = unescape(line);
            } else if before_matrix && line.starts_with("\\#") {
                version = unescape(line);
            }
            continue;
        };
        match &place {
            Place::Outside if row.first().is_none_or(|first| first != "scenario") => {
                place = Place::Other;
            }
            Place::Outside if row.iter().any(|title| title == "overlapped") => {
                place = Place::Evidence(row);
            }
            Place::Outside => place = Place::Matrix(row),
            Place::Other => {}
            Place::Matrix(_) | Place::Evidence(_) if row[0].starts_with("---") => {}
            Place::Matrix(targets) => {
                for (target, label) in targets.iter().zip(&row).skip(1) {
                    let bad = |word: &str| TableError::Word {
                        path: path.into(),
                        line: number + 1,
                        word: word.to_owned(),
                    };
                    let known = parse_label(label).map_err(|word| bad(&word))?;
                    if let Some((tally, mark)) = known {
                        let names = [release, &version, &row[0], target];
                        cells.push(blank(names, tally, mark));
                    }
                }
            }
            Place::Evidence(titles) => add_evidence(&mut cells, release, titles, &row),
        }
    }
    if cells.is_empty() {
        return Err(TableError::NoTable { path: path.into() });
    }
    Ok(cells)
}

fn blank(
    [kernel, version, scenario, target]: [&String; 4],
    tally: Vec<Tally>,
    mark: Option<Mark>,
) -> Cell {
    Cell {
        kernel: kernel.clone(),
        kernel_version: version.clone(),
        kernel_name: None,
        scenario: scenario.clone(),
        target: target.clone(),
        driver: String::new(),
        tally,
        mark,
        at: None,
        known_issue: None,
        reason: String::new(),
        hint: None,
        seed: 0,
        replay: String::new(),
        rounds: 0,
        overlapped: 0,
        filled: None,
        reused_blocks: None,
        rate: Rate::default(),
        floor: Floor::default(),
        first_violation_s: None,
    }
}

fn add_evidence(cells: &mut [Cell], kernel: &str, titles: &[String], row: &[String]) {
    let text = |title: &str| {
        let at = titles.iter().position(|t| t == title)?;
        row.get(at).map(String::as_str)
    };
    // `1448 (96.5 %)` counts 1448.
    let number = |title: &str| -> Option<u64> { text(title)?.split(' ').next()?.parse().ok() };
    let (Some(scenario), Some(target)) = (text("scenario"), text("target")) else {
        return;
    };
    let place = |c: &&mut Cell| c.kernel == kernel && c.scenario == scenario && c.target == target;
    let Some(cell) = cells.iter_mut().find(place) else {
        return;
    };
    cell.rounds = number("rounds").unwrap_or(0);
    cell.overlapped = number("overlapped").unwrap_or(0);
    cell.filled = number("filled");
    cell.reused_blocks = number("blocks reused");
    cell.seed = text("seed")
        .and_then(|s| s.trim_matches('`').parse().ok())
        .unwrap_or(0);
    cell.driver = text("driver").unwrap_or_default().to_owned();
    if let Some(tally) = text("verdict").and_then(parse_tally) {
        cell.tally = tally;
    }
    let violated = match number("violated rounds") {
        None if cell.verdict() == Verdict::Safe => Some(0),
        told => told,
    };
    if let Some(violated) = violated {
        cell.rate = Rate {
            violated,
            overlapped: cell.overlapped.max(violated),
        };
    }
}

/// The cells of a line of a table, unescaped; `None` for another line.
fn row(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = vec![String::new()];
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '|' => cells.push(String::new()),
            '\\' => cells.last_mut()?.extend(chars.next()),
            c => cells.last_mut()?.push(c),
        }
    }
    Some(cells.iter().map(|c| c.trim().to_owned()).collect())
}

fn unescape(text: &str) -> String {
    text.replace('\\', "").trim().to_owned()
}

type Label = (Vec<Tally>, Option<Mark>);

/// `stale! 3/5`, emphasised or not; `None` for a cell without a record.
fn parse_label(label: &str) -> Result<Option<Label>, String> {
    // An emphasised label ends in `!`, so no `*` of it is lost.
    let label = label
        .strip_prefix("**")
        .map_or(label, |l| l.trim_end_matches("**"));
    if label == crate::notes::EMPTY || label.is_empty() {
        return Ok(None);
    }
    let (word, fraction) = label.split_once(' ').unwrap_or((label, ""));
    let mark = [Mark::Unexpected, Mark::Fixed, Mark::Known]
        .into_iter()
        .find(|mark| word.ends_with(mark.sign()));
    let word = mark.map_or(word, |mark| word.trim_end_matches(mark.sign()));
    let verdict = verdict(word).ok_or_else(|| label.to_owned())?;
    let (worst, all) = match fraction.split_once('/') {
        Some((worst, all)) => (worst.parse().unwrap_or(1), all.parse().unwrap_or(1)),
        None => (1, 1),
    };
    let mut tally = vec![Tally {
        verdict,
        trials: worst,
    }];
    if all > worst {
        tally.push(Tally {
            verdict: Verdict::Safe,
            trials: all - worst,
        });
    }
    Ok(Some((tally, mark)))
}

/// `foreign 1/5, stale 3/5, safe 1/5`; `None` for a single verdict, which the matrix has.
fn parse_tally(words: &str) -> Option<Vec<Tally>> {
    words
        .split(", ")
        .map(|part| {
            let mut words = part.split(' ');
            let verdict = verdict(words.next()?)?;
            let trials = words.next()?.split('/').next()?.parse().ok()?;
            Some(Tally { verdict, trials })
        })
        .collect()
}

fn verdict(word: &str) -> Option<Verdict> {
    Verdict::ALL.into_iter().find(|v| v.word() == word)
}
