//! What changed between runs: new failures, fixed ones, changed rates, evidence lost.
//!
//! The last run is held against all those before it, which count together: the more nights they are, the better
//! is known how often a cell fails and how much that varies. An *alarm* is what a night's owner must be woken
//! for. There are two sorts, and chance has a different part in each:
//!
//! - Facts: a confirmed violation that no known issue covers and no earlier run has seen; a race that is no longer
//!   exercised; a control that no longer fails. They are true whatever the odds.
//! - Rates: a known failure that has become more frequent. Rates differ from night to night by more than chance
//!   alone, and a thousand cells give chance a thousand tries; see [`chance`].

pub mod chance;
mod judge;
mod kernels;
mod markdown;
mod state;
mod terminal;

use serde::Serialize;

use crate::Source;
use crate::export::Style;
use crate::table::Cell;

pub use state::{Seen, Steadiness};

/// Raised when a field of the JSON changes meaning or goes away.
const COMPARISON_SCHEMA: u32 = 1;

/// What happened to a cell, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A violation, or a kind of violation, that no earlier run has and no known issue covers.
    NewFailure,
    /// A control that had to fail, and failed before, does not fail any more: the bench may be blind.
    ControlLost,
    /// It was exercised, and is no longer.
    LostEvidence,
    /// It was exercised, and has no record any more.
    Missing,
    /// A known failure is more frequent than before, by more than chance and the usual variation.
    RateUp,
    /// It was exercised with little to spare, and this time was not, by a little.
    ThinEvidence,
    /// A known failure showed itself, where it did not before.
    KnownShows,
    /// It failed before, and did not fail though the earlier rate would have shown.
    Fixed,
    /// It failed before and did not fail this time, which an unchanged rate would do, too.
    NotSeen,
    /// A failure is less frequent than before.
    RateDown,
    /// It was not exercised before, and is now, and nothing was violated.
    Regained,
    /// No earlier run has it.
    New,
    /// It was not exercised before, and has no record any more.
    Gone,
}

impl Kind {
    /// Every kind, in the order in which they are told.
    pub const ALL: [Kind; 13] = [
        Kind::NewFailure,
        Kind::ControlLost,
        Kind::LostEvidence,
        Kind::Missing,
        Kind::RateUp,
        Kind::ThinEvidence,
        Kind::KnownShows,
        Kind::Fixed,
        Kind::NotSeen,
        Kind::RateDown,
        Kind::Regained,
        Kind::New,
        Kind::Gone,
    ];

    /// Whether it makes the comparison fail.
    pub fn is_alarm(self) -> bool {
        match self {
            Kind::NewFailure
            | Kind::ControlLost
            | Kind::LostEvidence
            | Kind::Missing
            | Kind::RateUp => true,
            Kind::ThinEvidence
            | Kind::KnownShows
            | Kind::Fixed
            | Kind::NotSeen
            | Kind::RateDown
            | Kind::Regained
            | Kind::New
            | Kind::Gone => false,
        }
    }

    /// The words for it.
    pub fn words(self) -> &'static str {
        match self {
            Kind::NewFailure => "new failure",
            Kind::ControlLost => "control lost",
            Kind::LostEvidence => "lost evidence",
            Kind::Missing => "missing",
            Kind::RateUp => "more frequent",
            Kind::ThinEvidence => "thin evidence",
            Kind::KnownShows => "known issue shows",
            Kind::Fixed => "fixed",
            Kind::NotSeen => "not seen",
            Kind::RateDown => "less frequent",
            Kind::Regained => "exercised again",
            Kind::New => "new",
            Kind::Gone => "gone",
        }
    }
}

/// One cell that changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// Whether it makes the comparison fail.
    pub alarm: bool,
    /// The scenario's name.
    pub scenario: String,
    /// The target as a user types it.
    pub target: String,
    /// Whether the target is a control.
    pub control: bool,
    /// Index in [`Comparison::kernels`].
    pub kernel: usize,
    /// The earlier runs together; absent where none has the cell.
    pub before: Option<Seen>,
    /// The last run; absent where it does not have the cell.
    pub after: Option<Seen>,
    /// Why it counts as that, in a sentence.
    pub why: String,
    /// The chance of a change as large if nothing had changed, before correction for the number of cells.
    pub p: Option<f64>,
    /// The command that shows it again.
    pub replay: Option<String>,
}

/// A kernel before and the one that takes its place after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KernelPair {
    /// As the command line named it; absent for the machine's own, and in tables.
    pub name: Option<String>,
    /// Its release before; absent if no earlier run has such a kernel.
    pub before: Option<String>,
    /// Its release after; absent if the last run has none.
    pub after: Option<String>,
}

/// Changes of one target on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tallied {
    /// Index in [`Comparison::kernels`].
    pub kernel: usize,
    /// The target.
    pub target: String,
    /// Cells by kind, the kinds that occur, worst first.
    pub counts: Vec<(Kind, usize)>,
    /// Cells that did not change.
    pub unchanged: usize,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of this JSON.
    comparison_schema: u32,
    /// Names of the earlier runs.
    pub before: Vec<String>,
    /// Name of the last run.
    pub after: String,
    /// Kernels, paired.
    pub kernels: Vec<KernelPair>,
    /// Cells that changed, alarms first.
    pub changes: Vec<Change>,
    /// Counts by kernel and target.
    pub targets: Vec<Tallied>,
    /// Cells that did not change.
    pub unchanged: usize,
    /// Rates that were compared: so many tries chance had.
    pub rates_compared: usize,
    /// How much rates vary from run to run beyond chance, as the standard deviation of their logarithm.
    pub spread: f64,
    /// What a reader must know first: bad files, empty runs, kernels without a counterpart.
    pub problems: Vec<String>,
    /// See [`crate::exit_code`].
    pub exit_code: u8,
}

/// How to compare.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The last run covers a part on purpose: cells without a record are no loss.
    pub partial: bool,
}

impl Comparison {
    /// Holds the last of `sources` against all the others, in the order of time.
    ///
    /// # Panics
    /// If there are fewer than two.
    pub fn of(sources: &[Source], options: Options) -> Comparison {
        let (after, before) = sources.split_last().expect("two runs to compare");
        assert!(!before.is_empty(), "two runs to compare");
        let runs: Vec<(&str, &[Cell])> = before
            .iter()
            .map(|s| (s.name.as_str(), s.cells.as_slice()))
            .collect();
        let problems = sources.iter().flat_map(|s| s.problems.clone()).collect();
        judge::compare(&runs, (&after.name, &after.cells), problems, options)
    }

    /// The changes that make it fail.
    pub fn alarms(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|c| c.alarm)
    }

    /// For people at a terminal.
    pub fn text(&self, style: Style) -> String {
        terminal::render(self, style)
    }

    /// For a page that renders Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// For programs.
    pub fn json(&self) -> String {
        // Strings, numbers and lists only: nothing in it can fail to serialise.
        let mut text = serde_json::to_string_pretty(self).expect("a comparison is plain data");
        text.push('\n');
        text
    }
}

impl KernelPair {
    /// `debian:bookworm: 6.1.158 -> 6.1.159`, or as much of it as there is.
    pub fn title(&self) -> String {
        let name = self
            .name
            .as_ref()
            .map_or_else(String::new, |n| format!("{n}: "));
        let releases = match (&self.before, &self.after) {
            (Some(b), Some(a)) if a == b => a.clone(),
            (Some(b), Some(a)) => format!("{b} -> {a}"),
            (Some(b), None) => format!("{b}, before only"),
            (None, Some(a)) => format!("{a}, after only"),
            (None, None) => String::new(),
        };
        format!("{name}{releases}")
    }
}
