//! The table as people see it at the end of a run. Fits the given width: first by shorter verdict
//! words, then by standing the columns in several tables.

use comfy_table::{Attribute, Cell as TextCell, Color, Table, presets};

use crate::across::Across;
use crate::export::{Exporter, Style};
use crate::notes::{EMPTY, counts_lines, legend};
use crate::table::{Block, Cell, Mark, Summary, Words};
use crate::text::{clean, push_wrapped};
use crate::{Record, Verdict};

/// The terminal format.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// Width and colours.
    pub style: Style,
}

impl Exporter for Terminal {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn file_name(&self) -> &'static str {
        "table.txt"
    }

    fn render(&self, records: &[Record]) -> String {
        let summary = &Summary::new(records);
        let mut out = String::new();
        for block in &summary.blocks {
            self.block(&mut out, block);
        }
        if let Some(across) = Across::of(summary) {
            self.across(&mut out, &across);
        }
        if summary.blocks.is_empty() {
            out.push_str("no trials\n");
        }
        for line in counts_lines(summary) {
            push_wrapped(&mut out, "", &line, self.style.width);
        }
        out
    }
}

impl Terminal {
    fn block(&self, out: &mut String, block: &Block) {
        let title = format!("kernel {} {}", block.kernel, block.kernel_version);
        push_wrapped(out, "", &title, self.style.width);
        let (words, tables) = self.arrange(block);
        for columns in tables {
            out.push_str(&render(&self.table(block, &columns, words)));
            out.push('\n');
        }
        let legend = legend(block, words);
        let deep = legend
            .iter()
            .map(|(sign, _)| sign.chars().count())
            .max()
            .unwrap_or(0);
        for (sign, meaning) in legend {
            push_wrapped(
                out,
                &format!("  {sign:deep$}  "),
                &meaning,
                self.style.width,
            );
        }
        if !block.notes.is_empty() {
            out.push('\n');
        }
        for note in &block.notes {
            push_wrapped(out, "- ", &note.line(), self.style.width);
        }
        out.push('\n');
    }

    /// As a table where it fits, else a sentence a row.
    fn across(&self, out: &mut String, across: &Across) {
        out.push_str("where the kernels differ\n");
        let mut table = self.empty_table();
        let mut header = vec![TextCell::new("")];
        header.extend(across.kernels.iter().map(|kernel| heading(kernel)));
        table.set_header(header);
        for row in &across.rows {
            let mut line = vec![TextCell::new(clean(&row.title()))];
            line.extend(row.cells.iter().map(|&c| cell(c, Words::Full)));
            table.add_row(line);
        }
        pad(&mut table);
        if across_width(across) > self.style.width {
            for row in &across.rows {
                let sentence = row.sentence(&across.kernels, EMPTY);
                push_wrapped(out, "- ", &sentence, self.style.width);
            }
        } else if !across.rows.is_empty() {
            out.push_str(&render(&table));
        }
        push_wrapped(out, "  ", &across.remainder(), self.style.width);
        out.push('\n');
    }

    /// The most readable arrangement that fits: full words before short ones, few tables before many.
    fn arrange(&self, block: &Block) -> (Words, Vec<Vec<usize>>) {
        let groups = block.groups();
        let apart: Vec<Vec<usize>> = groups
            .iter()
            .flat_map(|g| g.chunk_by(|a, b| block.columns[*a].control == block.columns[*b].control))
            .map(<[usize]>::to_vec)
            .collect();
        for (words, tables) in [
            (Words::Full, groups.clone()),
            (Words::Full, apart.clone()),
            (Words::Short, groups),
            (Words::Short, apart.clone()),
        ] {
            if tables
                .iter()
                .all(|columns| self.fits(block, columns, words))
            {
                return (words, tables);
            }
        }
        let split = apart
            .iter()
            .flat_map(|columns| self.split(block, columns))
            .collect();
        (Words::Short, split)
    }

    /// As many columns in each table as fit, at least one.
    fn split(&self, block: &Block, mut columns: &[usize]) -> Vec<Vec<usize>> {
        let mut tables = Vec::new();
        while !columns.is_empty() {
            let fits = |n: &usize| self.fits(block, &columns[..*n], Words::Short);
            let fitting = (1..=columns.len()).rev().find(fits).unwrap_or(1);
            let (now, later) = columns.split_at(fitting);
            tables.push(now.to_vec());
            columns = later;
        }
        tables
    }

    /// Measured without colours: their escape sequences take no room.
    fn fits(&self, block: &Block, columns: &[usize], words: Words) -> bool {
        let plain = Terminal {
            style: Style {
                color: false,
                ..self.style
            },
        };
        let text = render(&plain.table(block, columns, words));
        text.lines()
            .all(|line| line.chars().count() <= self.style.width)
    }

    fn table(&self, block: &Block, columns: &[usize], words: Words) -> Table {
        let mut table = self.empty_table();
        let mut header = vec![TextCell::new("")];
        header.extend(columns.iter().map(|&c| heading(&block.columns[c].target)));
        table.set_header(header);
        for row in block.rows_of(columns) {
            let mut line = vec![TextCell::new(clean(&row.scenario))];
            line.extend(columns.iter().map(|&c| cell(row.cells[c].as_ref(), words)));
            table.add_row(line);
        }
        pad(&mut table);
        table
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.style.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table
    }
}

/// Measured from the texts: the colours' escape sequences take no room.
fn across_width(across: &Across) -> usize {
    let width = |text: &str| text.chars().count();
    let title = across.rows.iter().map(|row| width(&row.title())).max();
    let columns = across.kernels.iter().enumerate().map(|(at, kernel)| {
        let cells = across.rows.iter().filter_map(|row| row.cells[at]);
        let widest = cells.map(|cell| width(&cell.label(Words::Full))).max();
        2 + widest.unwrap_or(0).max(width(kernel))
    });
    title.unwrap_or(0) + columns.sum::<usize>()
}

fn pad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

fn heading(target: &str) -> TextCell {
    TextCell::new(clean(target)).add_attribute(Attribute::Bold)
}

fn cell(cell: Option<&Cell>, words: Words) -> TextCell {
    let Some(cell) = cell else {
        return TextCell::new(EMPTY);
    };
    let text = TextCell::new(cell.label(words));
    match (cell.mark, cell.verdict()) {
        (Some(Mark::Unexpected), _) => text.fg(Color::Red).add_attribute(Attribute::Bold),
        (Some(Mark::Fixed), _) => text.fg(Color::Cyan),
        (Some(Mark::Known), _) => text.fg(Color::Yellow),
        (None, Verdict::Safe) => text.fg(Color::Green),
        (None, Verdict::Error | Verdict::Inconclusive) => text.fg(Color::Magenta),
        (None, _) => text.fg(Color::DarkGrey),
    }
}

fn render(table: &Table) -> String {
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}
