//! Decides what happened to each cell.

use std::collections::HashMap;

use super::chance::{Pair, chance_of_missing, holm, spread};
use super::kernels::{Kernel, Slots, described, kernels, pair};
use super::{COMPARISON_SCHEMA, Change, Comparison, Kind, Options, Seen, Tallied};
use crate::Verdict;
use crate::exit_code;
use crate::table::{Cell, is_control};

/// Fixed is said of what the earlier rate would have shown but for so small a chance.
const FIXED_AT: f64 = 0.01;

/// Scenario and target of a cell, and its pair of kernels.
type Place<'a> = (usize, &'a str, &'a str);

/// Both sides of a cell.
#[derive(Default)]
struct Sides<'a> {
    before: Option<Seen>,
    after: Option<(Seen, &'a Cell)>,
}

pub(super) fn compare(
    before: &[(&str, &[Cell])],
    after: (&str, &[Cell]),
    mut problems: Vec<String>,
    options: Options,
) -> Comparison {
    let earlier = || before.iter().flat_map(|(_, cells)| cells.iter());
    let runs = before.iter().map(|(_, cells)| *cells).chain([after.1]);
    let slots = Slots::of(runs);
    let pairs = pair(
        &slots.latest(&kernels(earlier())),
        &kernels(after.1.iter()),
        slots,
    );
    let index = |kernel: Kernel, after: bool| {
        pairs.iter().position(|&(b, a)| match (after, a, b) {
            (true, a, _) => a == Some(kernel),
            // Earlier releases in one place count with the latest.
            (false, _, Some(b)) => b == kernel || slots.one_place(b, kernel),
            (false, _, None) => false,
        })
    };
    let mut order: Vec<Place> = Vec::new();
    let mut sides: HashMap<Place, Sides> = HashMap::new();
    for cell in after.1 {
        let Some(kernel) = index(Kernel::of(cell), true) else {
            continue;
        };
        let place = (kernel, cell.target.as_str(), cell.scenario.as_str());
        order.push(place);
        sides.entry(place).or_default().after = Some((Seen::of(cell), cell));
    }
    for cell in earlier() {
        let Some(kernel) = index(Kernel::of(cell), false) else {
            continue;
        };
        let place = (kernel, cell.target.as_str(), cell.scenario.as_str());
        let both = sides.entry(place).or_insert_with(|| {
            order.push(place);
            Sides::default()
        });
        both.before = Some(match both.before.take() {
            Some(seen) => seen.and(cell),
            None => Seen::of(cell),
        });
    }
    // Two builds with one release have two cells in one place: the later stands.
    order.sort_by_key(|place| place.0);
    order.dedup();

    let cells: Vec<(Place, Sides)> = order
        .into_iter()
        .filter_map(|place| Some((place, sides.remove(&place)?)))
        .collect();
    let rates = Rates::of(&cells);
    let mut changes = Vec::new();
    let mut targets: Vec<Tallied> = Vec::new();
    let mut unchanged = 0;
    for (at, (place, both)) in cells.iter().enumerate() {
        let verdict = judge(both, rates.of_cell(at), is_control(place.1), options);
        tally(
            &mut targets,
            *place,
            verdict.as_ref().map(|(kind, _)| *kind),
        );
        match verdict {
            Some((kind, why)) => changes.push(change(*place, both, kind, why, rates.of_cell(at))),
            None => unchanged += 1,
        }
    }
    changes.sort_by_key(|c| c.kind);
    let kernels: Vec<_> = pairs.into_iter().map(described).collect();
    for kernel in &kernels {
        if kernel.before.is_none() || kernel.after.is_none() {
            problems.push(format!(
                "kernel {}: there is nothing to compare it with",
                kernel.title()
            ));
        }
    }
    let exit_code = if changes.iter().any(|c| c.alarm) {
        exit_code::UNEXPECTED
    } else if !cells
        .iter()
        .any(|(_, both)| both.before.is_some() && both.after.is_some())
    {
        exit_code::NOTHING_RAN
    } else {
        exit_code::EXPECTED
    };
    Comparison {
        comparison_schema: COMPARISON_SCHEMA,
        before: before.iter().map(|(name, _)| (*name).to_owned()).collect(),
        after: after.0.to_owned(),
        kernels,
        changes,
        targets,
        unchanged,
        rates_compared: rates.chances.len(),
        spread: rates.spread,
        problems,
        exit_code,
    }
}

/// The test of every cell whose rates can be compared.
struct Rates {
    spread: f64,
    /// Index of the cell, chance of such a rise, of such a fall.
    chances: HashMap<usize, RateTest>,
}

#[derive(Clone, Copy)]
struct RateTest {
    up: f64,
    down: f64,
    is_up: bool,
    is_down: bool,
}

impl Rates {
    fn of(cells: &[(Place, Sides)]) -> Rates {
        let mut places = Vec::new();
        let mut pairs = Vec::new();
        for (at, (_, both)) in cells.iter().enumerate() {
            let (Some(before), Some((after, _))) = (&both.before, &both.after) else {
                continue;
            };
            let known = before.rate.overlapped > 0 && after.rate.overlapped > 0;
            if known && before.rate.violated + after.rate.violated > 0 {
                places.push(at);
                pairs.push(Pair {
                    before: before.rate,
                    runs_before: before.runs,
                    after: after.rate,
                });
            }
        }
        let spread = spread(&pairs);
        let up: Vec<f64> = pairs.iter().map(|p| p.p_up(spread)).collect();
        let down: Vec<f64> = up.iter().map(|p| 1.0 - p).collect();
        let (is_up, is_down) = (holm(&up), holm(&down));
        let chances = places.iter().enumerate().map(|(i, &at)| {
            let test = RateTest {
                up: up[i],
                down: down[i],
                is_up: is_up[i],
                is_down: is_down[i],
            };
            (at, test)
        });
        Rates {
            spread,
            chances: chances.collect(),
        }
    }

    fn of_cell(&self, at: usize) -> Option<RateTest> {
        self.chances.get(&at).copied()
    }
}

/// What happened, and why it is taken for that; `None` for nothing worth telling.
fn judge(
    both: &Sides,
    test: Option<RateTest>,
    control: bool,
    options: Options,
) -> Option<(Kind, String)> {
    let told = |kind, why: &str| Some((kind, why.to_owned()));
    match (&both.before, &both.after) {
        (None, Some((after, _))) if after.failed() && !after.covered() => told(
            Kind::NewFailure,
            "no earlier run has the cell, and no known issue covers what was seen",
        ),
        (None, Some(_)) => told(Kind::New, "no earlier run has the cell"),
        (Some(before), None) if before.exercised() && !options.partial => told(
            Kind::Missing,
            "it was exercised, and the last run has no record of it",
        ),
        (Some(_), None) => told(Kind::Gone, "the last run has no record of it"),
        (Some(before), Some((after, _))) => both_sides(before, after, test, control),
        (None, None) => None,
    }
}

fn both_sides(
    before: &Seen,
    after: &Seen,
    test: Option<RateTest>,
    control: bool,
) -> Option<(Kind, String)> {
    let told = |kind, why: String| Some((kind, why));
    if before.exercised() && !after.exercised() {
        let thin = after.verdict == Verdict::Inconclusive
            && (before.hardly() || before.had(Verdict::Inconclusive));
        let why = format!("{}: {}", after.verdict, after.reason);
        return if thin {
            told(Kind::ThinEvidence, why)
        } else {
            told(Kind::LostEvidence, why)
        };
    }
    if after.failed() && !after.covered() {
        let newly = |v: Verdict| v.is_violation() && !before.had(v);
        let new: Vec<&str> = after
            .tally
            .iter()
            .filter(|t| newly(t.verdict))
            .map(|t| t.verdict.word())
            .collect();
        if !new.is_empty() {
            let runs = crate::text::count(before.runs, "earlier run");
            let why = format!(
                "{} was not seen in {runs}, and no known issue covers it",
                new.join(", ")
            );
            return told(Kind::NewFailure, why);
        }
    }
    if before.failed() && after.exercised() && !after.failed() {
        if control {
            let why = "a control that must fail did not: what else came out safe proves nothing";
            return told(Kind::ControlLost, why.to_owned());
        }
        let missed = chance_of_missing(before.rate, after.overlapped);
        let counted = before.rate.violated > 0 && after.rate.overlapped > 0;
        return if counted && missed < FIXED_AT {
            let why = "at the earlier rate it would have shown";
            told(Kind::Fixed, why.to_owned())
        } else if counted {
            let why = format!(
                "at the earlier rate, {:.0} % of such runs show nothing",
                (missed * 100.0).max(1.0)
            );
            told(Kind::NotSeen, why)
        } else {
            let why = "without a rate it cannot be said whether it would have shown";
            told(Kind::NotSeen, why.to_owned())
        };
    }
    match test {
        Some(t) if t.is_up => told(
            Kind::RateUp,
            "more often than chance and the usual differences between runs explain".to_owned(),
        ),
        Some(t) if t.is_down => told(
            Kind::RateDown,
            "more rarely than chance and the usual differences between runs explain".to_owned(),
        ),
        _ if before.exercised() && !before.failed() && after.failed() => {
            let issue = after.known_issue.as_deref().unwrap_or("expected");
            told(Kind::KnownShows, format!("known: {issue}"))
        }
        _ if !before.exercised() && after.exercised() => {
            told(Kind::Regained, format!("it was {}", before.verdict))
        }
        _ => None,
    }
}

fn change(
    (kernel, target, scenario): Place,
    both: &Sides,
    kind: Kind,
    why: String,
    test: Option<RateTest>,
) -> Change {
    let cell = both.after.as_ref().map(|(_, cell)| *cell);
    Change {
        kind,
        alarm: kind.is_alarm(),
        scenario: scenario.to_owned(),
        target: target.to_owned(),
        control: is_control(target),
        kernel,
        before: both.before.clone(),
        after: both.after.as_ref().map(|(seen, _)| seen.clone()),
        why,
        p: match kind {
            Kind::RateUp => test.map(|t| t.up),
            Kind::RateDown => test.map(|t| t.down),
            _ => None,
        },
        replay: cell.map(|c| c.replay.clone()).filter(|r| !r.is_empty()),
    }
}

fn tally(targets: &mut Vec<Tallied>, (kernel, target, _): Place, kind: Option<Kind>) {
    let at = targets
        .iter()
        .position(|t| t.kernel == kernel && t.target == target);
    let at = at.unwrap_or_else(|| {
        targets.push(Tallied {
            kernel,
            target: target.to_owned(),
            counts: Vec::new(),
            unchanged: 0,
        });
        targets.len() - 1
    });
    let row = &mut targets[at];
    match kind {
        None => row.unchanged += 1,
        Some(kind) => match row.counts.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, n)) => *n += 1,
            None => {
                row.counts.push((kind, 1));
                row.counts.sort();
            }
        },
    }
}
