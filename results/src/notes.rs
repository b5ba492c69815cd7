//! What stands under a matrix: why cells were not decided, which known issues matched, what the signs mean.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::Verdict;
use crate::table::{Block, Cell, Column, Mark, Summary, Tally, Words};

/// One reason and all the cells that it holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The verdict it explains.
    pub verdict: Verdict,
    /// The cells, such as `gfs2: all scenarios` or `ext2, ext3: collapse-while-fault`.
    pub places: Vec<String>,
    /// The reason.
    pub reason: String,
    /// What would help.
    pub hint: Option<String>,
}

impl Note {
    /// The note as one line of text.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{} ({}): {}",
            self.verdict,
            self.places.join("; "),
            self.reason
        );
        if let Some(hint) = &self.hint {
            line.push_str(&format!(" ({hint})"));
        }
        line
    }
}

/// Merges equal reasons, in order of first appearance.
pub(crate) fn notes(columns: &[Column], scenarios: &[String], cells: &[Cell]) -> Vec<Note> {
    let mut groups: Vec<(Note, Vec<&Cell>)> = Vec::new();
    let mut add = |cell, reason: String, hint: &Option<String>| {
        let note = Note {
            verdict: Cell::verdict(cell),
            places: Vec::new(),
            reason,
            hint: hint.clone(),
        };
        match groups.iter_mut().find(|(n, _)| *n == note) {
            Some((_, members)) => members.push(cell),
            None => groups.push((note, vec![cell])),
        }
    };
    for cell in cells {
        if !cell.verdict().was_exercised() {
            add(cell, cell.reason.clone(), &cell.hint);
        }
        if let Some(issue) = &cell.known_issue {
            add(cell, format!("known issue {issue}"), &None);
        }
        if cell.tally.len() > 2 {
            add(
                cell,
                format!("repeats differ: {}", cell.tally_in_words()),
                &None,
            );
        }
    }
    groups
        .into_iter()
        .map(|(note, members)| Note {
            places: places(columns, scenarios, &members),
            ..note
        })
        .collect()
}

/// Names cells briefly: targets with the same scenarios together.
fn places(columns: &[Column], scenarios: &[String], members: &[&Cell]) -> Vec<String> {
    let mut merged: Vec<(Vec<&str>, BTreeSet<&str>)> = Vec::new();
    for column in columns {
        let own: BTreeSet<&str> = members
            .iter()
            .filter(|c| c.target == column.target)
            .map(|c| c.scenario.as_str())
            .collect();
        if own.is_empty() {
            continue;
        }
        match merged.iter_mut().find(|(_, s)| *s == own) {
            Some((targets, _)) => targets.push(&column.target),
            None => merged.push((vec![&column.target], own)),
        }
    }
    let name = |(targets, own): (Vec<&str>, BTreeSet<&str>)| {
        let which = if own.len() == scenarios.len() && own.len() > 1 {
            "all scenarios".to_owned()
        } else {
            scenarios
                .iter()
                .map(String::as_str)
                .filter(|s| own.contains(s))
                .collect::<Vec<_>>()
                .join(", ")
        };
        format!("{}: {which}", targets.join(", "))
    };
    merged.into_iter().map(name).collect()
}

/// The legend of a matrix: just what occurs in it, as sign and meaning.
pub(crate) fn legend(block: &Block, words: Words) -> Vec<(String, String)> {
    let verdicts: BTreeSet<Verdict> = block.cells().map(Cell::verdict).collect();
    let marks: BTreeSet<Mark> = block.cells().filter_map(|c| c.mark).collect();
    let mut legend: Vec<(String, String)> = Vec::new();
    for verdict in Verdict::ALL.into_iter().filter(|v| verdicts.contains(v)) {
        let (short, full) = (words.word(verdict), verdict.word());
        let meaning = if short == full {
            verdict.meaning().to_owned()
        } else {
            format!("{full}: {}", verdict.meaning())
        };
        legend.push((short.to_owned(), meaning));
    }
    legend.extend(
        marks
            .iter()
            .map(|m| (m.sign().to_string(), m.meaning().to_owned())),
    );
    if block.cells().any(|c| c.fraction().is_some()) {
        legend.push((
            "k/n".into(),
            "in k of n repeats, the others came out better; without it all repeats agree".into(),
        ));
    }
    let has_gaps = |columns: &Vec<usize>| {
        let mut rows = block.rows_of(columns);
        rows.any(|r| columns.iter().any(|c| r.cells[*c].is_none()))
    };
    if block.groups().iter().any(has_gaps) {
        legend.push((EMPTY.into(), "no record".into()));
    }
    if block.columns.iter().any(|c| c.control) {
        legend.push((
            "reference:".into(),
            "a control: the bench's own model, to show that it can tell".into(),
        ));
    }
    legend
}

/// What stands in a cell without a record.
pub(crate) const EMPTY: &str = "-";

/// `12 trials: 2 stale, 10 safe`, and the same for the controls, where there were any.
pub(crate) fn counts_lines(summary: &Summary) -> Vec<String> {
    let line = |noun, counts: &[Tally]| {
        let parts: Vec<String> = counts
            .iter()
            .map(|t| format!("{} {}", t.trials, t.verdict))
            .collect();
        let all = counts.iter().map(|t| t.trials).sum();
        (all > 0).then(|| format!("{}: {}", crate::text::count(all, noun), parts.join(", ")))
    };
    let lines = [
        line("trial", &summary.counts),
        line("control", &summary.control_counts),
    ];
    lines.into_iter().flatten().collect()
}
