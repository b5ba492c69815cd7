//! A comparison as Markdown, for a pull request or a wiki.

use super::{Change, Comparison, Kind, terminal};
use crate::markdown::{escape, push_header, push_row};

/// Rows of one kind; the JSON has all.
const ROWS_MAX: usize = 200;

pub(super) fn render(c: &Comparison) -> String {
    let mut out = format!(
        "# {} against {}\n\n**{}**\n\n",
        escape(&c.after),
        escape(&c.before.join(", ")),
        escape(&terminal::verdict(c))
    );
    for problem in &c.problems {
        out.push_str(&format!("- note: {}\n", escape(problem)));
    }
    if !c.problems.is_empty() {
        out.push('\n');
    }
    for kind in Kind::ALL {
        let of_kind: Vec<&Change> = c.changes.iter().filter(|x| x.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let alarm = if kind.is_alarm() { ", alarm" } else { "" };
        out.push_str(&format!(
            "## {} ({}{alarm})\n\n",
            kind.words(),
            of_kind.len()
        ));
        let titles = ["scenario", "target", "kernel", "before", "after", "why"];
        push_header(&mut out, titles.map(str::to_owned).into_iter());
        for change in of_kind.iter().take(ROWS_MAX) {
            push_row(&mut out, row(c, change).into_iter());
        }
        out.push('\n');
        if of_kind.len() > ROWS_MAX {
            out.push_str(&format!("And {} more.\n\n", of_kind.len() - ROWS_MAX));
        }
    }
    counts(&mut out, c);
    out.push_str(&escape(&terminal::how(c)));
    out.push('\n');
    out
}

fn row(c: &Comparison, change: &Change) -> [String; 6] {
    let side = |seen: &Option<super::Seen>| {
        seen.as_ref()
            .map_or_else(|| "-".to_owned(), |s| escape(&s.words()))
    };
    let mut why = escape(&change.why);
    if let Some(replay) = change.replay.as_ref().filter(|_| change.alarm) {
        why.push_str(&format!(": `{}`", replay.replace(['`', '|', '\n'], " ")));
    }
    [
        escape(&change.scenario),
        escape(&change.target),
        escape(&c.kernels[change.kernel].title()),
        side(&change.before),
        side(&change.after),
        why,
    ]
}

/// One row for every kernel and target; one column for every kind that occurs.
fn counts(out: &mut String, c: &Comparison) {
    let occurs = |kind: &Kind| c.changes.iter().any(|x| x.kind == *kind);
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(occurs).collect();
    out.push_str("## By kernel and target\n\n");
    let titles = ["kernel", "target"]
        .into_iter()
        .chain(kinds.iter().map(|k| k.words()));
    push_header(out, titles.chain(["unchanged"]).map(str::to_owned));
    for row in &c.targets {
        let count = |kind: &Kind| {
            let found = row.counts.iter().find(|(k, _)| k == kind);
            found.map_or_else(|| "0".to_owned(), |(_, n)| n.to_string())
        };
        let names = [escape(&c.kernels[row.kernel].title()), escape(&row.target)];
        let cells = names.into_iter().chain(kinds.iter().map(count));
        push_row(out, cells.chain([row.unchanged.to_string()]));
    }
    out.push('\n');
}
