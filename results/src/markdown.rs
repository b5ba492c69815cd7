//! The tables as Markdown that GitHub renders: the matrix, what it means, and the evidence of each cell.

use crate::across::Across;
use crate::export::Exporter;
use crate::notes::{EMPTY, counts_lines, legend};
use crate::table::{Block, Cell, Mark, Summary, Words};
use crate::text::clean;
use crate::{Record, Where};

/// The Markdown format.
#[derive(Debug, Clone, Copy)]
pub struct Markdown;

impl Exporter for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn file_name(&self) -> &'static str {
        "table.md"
    }

    fn render(&self, records: &[Record]) -> String {
        let summary = &Summary::new(records);
        let mut out = String::new();
        for block in &summary.blocks {
            push_block(&mut out, block);
        }
        if let Some(across) = Across::of(summary) {
            push_across(&mut out, &across);
        }
        if summary.blocks.is_empty() {
            out.push_str("No trials.\n");
        }
        for line in counts_lines(summary) {
            out.push_str(&format!("{}.\n\n", escape(&line)));
        }
        out
    }
}

fn push_across(out: &mut String, across: &Across) {
    out.push_str("## Where the kernels differ\n\n");
    if !across.rows.is_empty() {
        let titles = ["scenario", "target"].map(str::to_owned).into_iter();
        push_header(out, titles.chain(across.kernels.iter().cloned()));
        for row in &across.rows {
            let cells = row
                .cells
                .iter()
                .map(|cell| cell.map_or_else(|| EMPTY.to_owned(), matrix_cell));
            let names = [escape(row.scenario), escape(row.target)].into_iter();
            push_row(out, names.chain(cells));
        }
        out.push('\n');
    }
    out.push_str(&format!("{}.\n\n", escape(&across.remainder())));
}

fn push_block(out: &mut String, block: &Block) {
    out.push_str(&format!("## Kernel {}\n\n", escape(&block.kernel)));
    if !block.kernel_version.is_empty() {
        out.push_str(&format!("{}\n\n", escape(&block.kernel_version)));
    }
    for columns in block.groups() {
        let targets = columns.iter().map(|c| block.columns[*c].target.clone());
        push_header(out, std::iter::once("scenario".to_owned()).chain(targets));
        for row in block.rows_of(&columns) {
            let cells = columns.iter().map(|c| row.cells[*c].as_ref());
            let cells = cells.map(|cell| cell.map_or_else(|| EMPTY.to_owned(), matrix_cell));
            push_row(out, std::iter::once(escape(&row.scenario)).chain(cells));
        }
        out.push('\n');
    }
    for (sign, meaning) in legend(block, Words::Full) {
        out.push_str(&format!("- `{sign}` {}\n", escape(&meaning)));
    }
    out.push('\n');
    if !block.notes.is_empty() {
        out.push_str("Notes:\n\n");
        for note in &block.notes {
            out.push_str(&format!("- {}\n", escape(&note.line())));
        }
        out.push('\n');
    }
    push_evidence(out, block);
}

fn matrix_cell(cell: &Cell) -> String {
    let label = escape(&cell.label(Words::Full));
    if cell.mark == Some(Mark::Unexpected) {
        format!("**{label}**")
    } else {
        label
    }
}

/// One line for every cell that raced; the others are in the notes.
fn push_evidence(out: &mut String, block: &Block) {
    let mut raced = block.cells().filter(|c| c.rounds > 0).peekable();
    if raced.peek().is_none() {
        return;
    }
    out.push_str("Evidence, summed over repeats:\n\n");
    let titles = [
        "scenario",
        "target",
        "driver",
        "verdict",
        "rounds",
        "overlapped",
        "filled",
        "blocks reused",
        "violated rounds",
        "violated per overlapped round",
        "first violation, s",
        "seed",
    ];
    push_header(out, titles.map(str::to_owned).into_iter());
    for cell in raced {
        push_row(out, evidence(cell).into_iter());
    }
    out.push('\n');
}

fn evidence(cell: &Cell) -> [String; 12] {
    let number = |n: Option<u64>| n.map_or_else(|| "n/a".to_owned(), |n| n.to_string());
    [
        escape(&cell.scenario),
        escape(&cell.target),
        escape(&cell.driver),
        verdict(cell),
        cell.rounds.to_string(),
        share(cell.overlapped, cell.rounds),
        number(cell.filled),
        number(cell.reused_blocks),
        cell.rate.violated.to_string(),
        cell.rate
            .in_words(cell.verdict())
            .map_or_else(|| "n/a".to_owned(), |words| escape(&words)),
        cell.first_violation_s
            .map_or_else(String::new, |s| format!("{s:.2}")),
        format!("`{}`", cell.seed),
    ]
}

fn verdict(cell: &Cell) -> String {
    let words = if cell.trials() > 1 {
        cell.tally_in_words()
    } else {
        cell.verdict().word().to_owned()
    };
    match cell.at {
        Some(Where::Memory) => format!("{words} (in memory)"),
        Some(Where::Disk) => format!("{words} (on disk)"),
        Some(Where::Unknown) | None => words,
    }
}

pub(crate) fn push_header(out: &mut String, titles: impl Iterator<Item = String>) {
    let titles: Vec<String> = titles.map(|t| escape(&t)).collect();
    let rules = titles.iter().map(|_| "---".to_owned()).collect::<Vec<_>>();
    push_row(out, titles.into_iter());
    push_row(out, rules.into_iter());
}

pub(crate) fn push_row(out: &mut String, cells: impl Iterator<Item = String>) {
    out.push('|');
    for cell in cells {
        out.push_str(&format!(" {cell} |"));
    }
    out.push('\n');
}

/// Text of a record means itself: no pipe may end a cell, no sign may become markup.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in clean(text).chars() {
        if matches!(
            c,
            '|' | '\\' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '#' | '~'
        ) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Rounded down: 100 % is said only of all.
fn share(part: u64, all: u64) -> String {
    let permille = (1000.0 * part as f64 / all as f64).floor();
    format!("{part} ({:.1} %)", permille / 10.0)
}
