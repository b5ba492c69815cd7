//! A plain text of 72 columns, to be sent under a patch: what was run, what came out, and each failure with the
//! command that shows it again.

use crate::export::Exporter;
use crate::rate::Rate;
use crate::table::{Block, Cell, Mark, Summary};
use crate::text::{clean, count, push_wrapped};
use crate::{Record, Verdict};

/// Columns of a mail.
const WIDTH: usize = 72;

/// Failures told in full.
const TOLD_MAX: usize = 10;

/// The mail format.
#[derive(Debug, Clone, Copy)]
pub struct Mail;

impl Exporter for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn file_name(&self) -> &'static str {
        "mail.txt"
    }

    fn render(&self, records: &[Record]) -> String {
        let summary = Summary::new(records);
        let mut out = String::new();
        let version = records.first().map_or("", |r| r.version.as_str());
        let about = format!(
            "punchbench {version} races hole punches and the like against whatever fills the page cache; \"safe\" \
             is said only of races that took place."
        );
        push_wrapped(&mut out, "", &about, WIDTH);
        for block in &summary.blocks {
            push_block(&mut out, block);
        }
        let failed: Vec<&Record> = records
            .iter()
            .filter(|r| r.verdict.is_violation() && super::Outcome::of(r) == super::Outcome::Fail)
            .collect();
        for record in failed.iter().take(TOLD_MAX) {
            push_failure(&mut out, record);
        }
        if failed.len() > TOLD_MAX {
            out.push_str(&format!(
                "\nand {}\n",
                count(failed.len() - TOLD_MAX, "more failure")
            ));
        }
        out
    }
}

/// In the manner of the summaries that filesystem developers know: a line a target, and what stands out below.
fn push_block(out: &mut String, block: &Block) {
    out.push('\n');
    let title = format!("{} {}", block.kernel, block.kernel_version);
    push_wrapped(out, "KERNEL: ", &title, WIDTH);
    for column in &block.columns {
        let cells: Vec<&Cell> = block
            .cells()
            .filter(|c| c.target == column.target)
            .collect();
        let of = |select: fn(&Cell) -> bool| cells.iter().filter(|c| select(c)).count();
        let control = if column.control { " (control)" } else { "" };
        let counts = [
            (of(|c| c.verdict() == Verdict::Safe), "safe"),
            (
                of(|c| c.mark == Some(Mark::Unexpected) && c.verdict().is_violation()),
                "UNEXPECTED",
            ),
            (of(|c| c.mark == Some(Mark::Known)), "known"),
            (of(|c| c.verdict() == Verdict::Inconclusive), "inconclusive"),
            (of(|c| c.verdict() == Verdict::Unsupported), "unsupported"),
            (of(|c| c.verdict() == Verdict::Skipped), "skipped"),
            (of(|c| c.verdict() == Verdict::Error), "bench errors"),
        ];
        let told: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        let line = format!("{}: {}", count(cells.len(), "scenario"), told.join(", "));
        push_wrapped(
            out,
            &format!("{}{control}: ", clean(&column.target)),
            &line,
            WIDTH,
        );
        for cell in cells.iter().filter(|c| c.verdict().is_violation()) {
            let mut text = format!("{}: {}", cell.scenario, cell.verdict());
            if let Some((worst, all)) = cell.fraction() {
                text.push_str(&format!(" in {worst} of {all} trials"));
            }
            if let Some(rate) = cell.rate.in_words(cell.verdict()) {
                text.push_str(&format!(", {rate} of overlapped rounds"));
            }
            if let Some(issue) = &cell.known_issue {
                text.push_str(&format!(" [known: {issue}]"));
            }
            push_wrapped(out, "  ", &text, WIDTH);
        }
    }
}

fn push_failure(out: &mut String, record: &Record) {
    out.push('\n');
    let title = format!(
        "{} on {}: {}",
        record.scenario, record.target, record.verdict
    );
    push_wrapped(out, "", &title, WIDTH);
    push_wrapped(out, "  ", &record.reason, WIDTH);
    if let Some(v) = record.violations.first() {
        let seen = format!(
            "{} at offset {:#x}, {} wrong bytes: got {}; legal was {}",
            v.file, v.offset, v.wrong_bytes, v.got, v.expected
        );
        push_wrapped(out, "  ", &seen, WIDTH);
    }
    let Rate {
        violated,
        overlapped,
    } = Rate::of(record);
    let counted = format!("{violated} of {overlapped} overlapped rounds");
    push_wrapped(out, "  ", &counted, WIDTH);
    // Not wrapped, so that it can be copied.
    out.push_str(&format!("  {}\n", clean(&record.replay)));
}
