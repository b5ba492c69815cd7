//! The race diagram of a commit message: time runs downward, one column an actor, what changed at the right
//! margin. One layout, from which the terminal's text, Markdown and SVG are made; whoever has an order of
//! steps to show (the explorer's counterexamples, the staged scenarios' schedules) shows it with this.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::clean;

/// Between two columns.
const GAP: usize = 2;
/// No column is squeezed below this, even if the diagram then is wider than asked for.
const NARROWEST: usize = 12;
/// One character of SVG text, in pixels: what monospaced fonts of 13 px measure.
const CHAR: (usize, usize) = (8, 18);
/// Around the SVG, in pixels.
const EDGE: usize = 12;
/// SVG has no terminal to fit into; wider than this is read badly.
const SVG_WIDTH: usize = 140;

/// Steps of several actors in the order in which they happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagram {
    /// The actors, one column each: `fallocate(PUNCH_HOLE) on A`.
    pub columns: Vec<String>,
    /// What they did, first to last.
    pub rows: Vec<Row>,
    /// What it came to, in sentences under the diagram.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closing: Vec<String>,
}

/// One step of one actor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Whose, by its place in `columns`. A row of no column is left empty but for its margin.
    pub actor: usize,
    /// What it did, a line each.
    pub lines: Vec<String>,
    /// What that changed, and who holds what; empty if there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub margin: String,
}

impl Row {
    /// A step with one line and nothing at the margin.
    pub fn new(actor: usize, line: impl Into<String>) -> Row {
        Row {
            actor,
            lines: vec![line.into()],
            margin: String::new(),
        }
    }

    /// The same with a note at the margin.
    pub fn margin(mut self, note: impl Into<String>) -> Row {
        self.margin = note.into();
        self
    }
}

impl Diagram {
    /// Plain text of at most so many characters a line, if that leaves every column a dozen.
    pub fn render_text(&self, width: usize) -> String {
        let layout = Layout::of(self, width);
        let mut out = String::new();
        for line in &layout.lines {
            let mut text = String::new();
            for (at, part) in &line.parts {
                let fill = at.saturating_sub(text.chars().count());
                text.extend(std::iter::repeat_n(' ', fill));
                text.push_str(part);
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }

    /// The same text in a Markdown fence, longer than any run of backticks in it.
    pub fn render_markdown(&self, width: usize) -> String {
        let text = self.render_text(width);
        let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(3.max(longest + 1));
        format!("{fence}text\n{text}{fence}\n")
    }

    /// A self-contained SVG image of the same layout: a line down each column, a dot for each step.
    pub fn render_svg(&self) -> String {
        let layout = Layout::of(self, SVG_WIDTH);
        let x = |at: usize| EDGE + CHAR.0 * (at + 2);
        let y = |line: usize| EDGE + CHAR.1 * (line + 1);
        let size = (x(layout.width) + EDGE, y(layout.lines.len()) + EDGE);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" \
             font-family=\"ui-monospace, monospace\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            size.0, size.1
        );
        let (top, bottom) = (y(layout.header), y(layout.header + layout.steps));
        for at in &layout.columns {
            let x = x(*at) - CHAR.0;
            out.push_str(&format!(
                "<line x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#ccc\"/>\n"
            ));
        }
        for (n, line) in layout.lines.iter().enumerate() {
            if let Some(at) = line.dot {
                let (x, y) = (x(at) - CHAR.0, y(n) - 4);
                out.push_str(&format!(
                    "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"#456\"/>\n"
                ));
            }
            for (at, part) in &line.parts {
                let (x, y) = (x(*at), y(n));
                let look = match line.look {
                    Look::Header | Look::Closing => " font-weight=\"bold\"",
                    Look::Step if Some(*at) == layout.margin => " fill=\"#666\"",
                    Look::Step => "",
                };
                let part = part.replace('&', "&amp;").replace('<', "&lt;");
                out.push_str(&format!(
                    "<text x=\"{x}\" y=\"{y}\" xml:space=\"preserve\"{look}>{part}</text>\n"
                ));
            }
        }
        out.push_str("</svg>\n");
        out
    }
}

/// Where everything stands, in characters and lines.
struct Layout {
    /// Where each actor's column begins.
    columns: Vec<usize>,
    /// Where the margin begins, if any row has a note.
    margin: Option<usize>,
    width: usize,
    lines: Vec<Line>,
    /// So many of the lines are the header, and so many after it are steps.
    header: usize,
    steps: usize,
}

/// One line: its texts, left to right, each with its place.
struct Line {
    parts: Vec<(usize, String)>,
    look: Look,
    /// In SVG a dot marks the first line of a step, beside this place.
    dot: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Header,
    Step,
    Closing,
}

impl Layout {
    fn of(diagram: &Diagram, width: usize) -> Layout {
        let actors = diagram.columns.len();
        let mut natural: Vec<usize> = diagram.columns.iter().map(|c| length(c)).collect();
        natural.push(0);
        for row in &diagram.rows {
            let widest = row.lines.iter().map(|l| length(l)).max().unwrap_or(0);
            if let Some(column) = natural[..actors].get_mut(row.actor) {
                *column = widest.max(*column);
            }
            natural[actors] = natural[actors].max(length(&row.margin));
        }
        let noted = natural[actors] > 0;
        if !noted {
            natural.pop();
        }
        let widths = squeeze(&natural, width);
        let mut starts = Vec::new();
        let mut at = 0;
        for wide in &widths {
            starts.push(at);
            at += wide + GAP;
        }
        let mut layout = Layout {
            columns: starts[..actors].to_vec(),
            margin: noted.then(|| starts[actors]),
            width: at.saturating_sub(GAP),
            lines: Vec::new(),
            header: 0,
            steps: 0,
        };
        let header = (0..actors).map(|n| (starts[n], wrap(&diagram.columns[n], widths[n])));
        layout.push(header.collect(), Look::Header, None);
        layout.header = layout.lines.len();
        for row in &diagram.rows {
            let mut cells = Vec::new();
            let own = (row.actor < actors).then(|| starts[row.actor]);
            if let Some(start) = own {
                let lines = row.lines.iter();
                cells.push((
                    start,
                    lines.flat_map(|l| wrap(l, widths[row.actor])).collect(),
                ));
            }
            if let (Some(start), false) = (layout.margin, row.margin.is_empty()) {
                cells.push((start, wrap(&row.margin, widths[actors])));
            }
            layout.push(cells, Look::Step, own);
        }
        layout.steps = layout.lines.len() - layout.header;
        for sentence in &diagram.closing {
            let room = width.max(layout.width).max(NARROWEST);
            layout.push(vec![(0, wrap(sentence, room))], Look::Closing, None);
        }
        let widest = layout
            .lines
            .iter()
            .flat_map(|l| &l.parts)
            .map(|(at, text)| at + length(text))
            .max();
        layout.width = widest.unwrap_or(0);
        layout
    }

    /// Cells side by side, as many lines as the tallest has.
    fn push(&mut self, cells: Vec<(usize, Vec<String>)>, look: Look, dot: Option<usize>) {
        let tallest = cells.iter().map(|(_, lines)| lines.len()).max();
        for n in 0..tallest.unwrap_or(0) {
            let parts = cells
                .iter()
                .filter_map(|(at, lines)| Some((*at, lines.get(n)?.clone())))
                .collect();
            self.lines.push(Line {
                parts,
                look,
                dot: dot.filter(|_| n == 0),
            });
        }
    }
}

/// The natural widths if they fit; else the wide ones are cut down to a common width, none below the least.
fn squeeze(natural: &[usize], width: usize) -> Vec<usize> {
    let cut = |cap: usize| natural.iter().map(move |w| (*w).min(cap));
    let gaps = GAP * natural.len().saturating_sub(1);
    let widest = natural.iter().copied().max().unwrap_or(0);
    let cap = (NARROWEST..=widest.max(NARROWEST))
        .rev()
        .find(|cap| cut(*cap).sum::<usize>() + gaps <= width)
        .unwrap_or(NARROWEST);
    cut(cap).collect()
}

/// Its lines of at most so many characters; what continues is indented. A word that is too long is broken.
fn wrap(text: &str, width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    let mut lines = Vec::new();
    let text = clean(text);
    // Leading blanks are the caller's indentation.
    let blanks = text.chars().take_while(|c| *c == ' ').count();
    let mut line = " ".repeat(blanks.min(width / 2));
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && length(&line) + 1 + length(word) > width {
            lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        for c in word.chars() {
            if length(&line) >= width {
                lines.push(std::mem::replace(&mut line, INDENT.to_owned()));
            }
            line.push(c);
        }
        empty = false;
    }
    lines.push(line);
    lines
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn punch_and_read() -> Diagram {
        Diagram {
            columns: vec!["fallocate(PUNCH_HOLE)".into(), "read(2)".into()],
            rows: vec![
                Row::new(0, "truncate_inode_pages_range()").margin("page 0 gone"),
                Row::new(1, "filemap_create_folio(): get_block()").margin("maps block 0"),
                Row::new(0, "free block").margin("block 0 free"),
                Row {
                    actor: 1,
                    lines: vec!["submit_bio()".into(), "folio_mark_uptodate()".into()],
                    margin: String::new(),
                },
            ],
            closing: vec!["stale: page 0 shows A.0".into()],
        }
    }

    #[test]
    fn time_runs_downward_with_a_column_an_actor() {
        let expected = "\
fallocate(PUNCH_HOLE)         read(2)
truncate_inode_pages_range()                                       page 0 gone
                              filemap_create_folio(): get_block()  maps block 0
free block                                                         block 0 free
                              submit_bio()
                              folio_mark_uptodate()
stale: page 0 shows A.0
";
        assert_eq!(punch_and_read().render_text(100), expected);
    }

    #[test]
    fn a_narrow_terminal_wraps_inside_the_columns() {
        for width in [44, 60, 70] {
            let text = punch_and_read().render_text(width);
            let widest = text.lines().map(length).max().unwrap();
            assert!(widest <= width, "{widest} > {width}:\n{text}");
        }
        let text = punch_and_read().render_text(44);
        let joined: String = text.split_whitespace().collect();
        assert!(joined.contains("filemap_creat"), "{text}");
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds() {
        let diagram = Diagram {
            columns: vec!["a ``` b".into()],
            ..Diagram::default()
        };
        assert_eq!(diagram.render_markdown(80), "````text\na ``` b\n````\n");
    }

    #[test]
    fn svg_escapes_and_draws_a_dot_for_each_step() {
        let mut diagram = punch_and_read();
        diagram.columns[0] = "a < b & c".into();
        let svg = diagram.render_svg();
        assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches("<line").count(), 2);
    }

    #[test]
    fn a_row_of_no_column_shows_its_margin_alone() {
        let diagram = Diagram {
            columns: vec!["a".into()],
            rows: vec![Row::new(7, "lost").margin("round 2")],
            closing: vec![],
        };
        assert_eq!(diagram.render_text(80), "a\n   round 2\n");
    }
}
