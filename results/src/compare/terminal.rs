//! A comparison as text: alarms with both sides and the command that shows them, the rest in a line each, and a
//! count for every filesystem on every kernel.

use super::{Change, Comparison, Kind};
use crate::export::Style;
use crate::text::{clean, count, push_wrapped};

/// Changes of one kind told one by one; the JSON has all.
const TOLD_MAX: usize = 50;

pub(super) fn render(c: &Comparison, style: Style) -> String {
    let width = style.width;
    let mut out = String::new();
    let title = format!("{} against {}", c.after, c.before.join(", "));
    push_wrapped(&mut out, "", &title, width);
    for problem in &c.problems {
        push_wrapped(&mut out, "note: ", problem, width);
    }
    out.push('\n');
    push_wrapped(&mut out, "", &verdict(c), width);
    for kind in Kind::ALL {
        let of_kind: Vec<&Change> = c.changes.iter().filter(|x| x.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        let alarm = if kind.is_alarm() { " (alarm)" } else { "" };
        out.push_str(&format!("\n{}{alarm}: {}\n", kind.words(), of_kind.len()));
        for change in of_kind.iter().take(TOLD_MAX) {
            tell(&mut out, c, change, width);
        }
        if of_kind.len() > TOLD_MAX {
            out.push_str(&format!("  and {} more\n", of_kind.len() - TOLD_MAX));
        }
    }
    out.push_str("\nby kernel and target\n");
    for (at, kernel) in c.kernels.iter().enumerate() {
        push_wrapped(&mut out, "  kernel ", &kernel.title(), width);
        for row in c.targets.iter().filter(|row| row.kernel == at) {
            let mut parts: Vec<String> = row
                .counts
                .iter()
                .map(|(kind, n)| format!("{n} {}", kind.words()))
                .collect();
            parts.push(format!("{} unchanged", row.unchanged));
            let head = format!("    {:<12} ", clean(&row.target));
            push_wrapped(&mut out, &head, &parts.join(", "), width);
        }
    }
    out.push('\n');
    push_wrapped(&mut out, "", &how(c), width);
    out
}

/// What a hurried reader wants to know.
pub(super) fn verdict(c: &Comparison) -> String {
    let alarms = c.alarms().count();
    let other = c.changes.len() - alarms;
    let rest = format!(
        "{}, {} unchanged",
        count(other, "other change"),
        c.unchanged
    );
    match alarms {
        0 if c.exit_code != 0 => format!("nothing could be compared; {rest}"),
        0 => format!("no alarm; {rest}"),
        n => format!("{}; {rest}", count(n, "alarm")),
    }
}

/// What the numbers rest on.
pub(super) fn how(c: &Comparison) -> String {
    format!(
        "Rates are violated per overlapped round, with 95 % Wilson intervals. {} compared: a rise is an alarm where \
         the chance of any false one among all of them is below {} %, runs being allowed to differ by a factor of \
         {:.1} (one standard deviation) beside chance. A new failure needs no such test: it was confirmed on the spot.",
        count(c.rates_compared, "rate"),
        super::chance::FAMILY * 100.0,
        c.spread.exp(),
    )
}

fn tell(out: &mut String, c: &Comparison, change: &Change, width: usize) {
    let kernel = match c.kernels.len() {
        1 => String::new(),
        _ => format!(" ({})", c.kernels[change.kernel].title()),
    };
    let control = if change.control { " [control]" } else { "" };
    let title = format!(
        "{} on {}{kernel}{control}: {}",
        change.scenario, change.target, change.why
    );
    push_wrapped(out, "  ", &title, width);
    for (side, seen) in [("before", &change.before), ("after", &change.after)] {
        if let Some(seen) = seen {
            push_wrapped(out, &format!("      {side:<7} "), &seen.words(), width);
        }
    }
    if let Some(replay) = change.replay.as_ref().filter(|_| change.alarm) {
        // Not wrapped, so that it can be copied.
        out.push_str(&format!("      {}\n", clean(replay)));
    }
}
