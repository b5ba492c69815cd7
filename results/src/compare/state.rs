//! What runs have seen of a cell, several of them together.

use serde::Serialize;

use super::chance::chance_of_missing;
use crate::rate::Rate;
use crate::table::{Cell, Mark, Tally};
use crate::{Floor, Verdict};

/// Whether a failure shows each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Steadiness {
    /// In every trial, and so often that a trial of that length would hardly miss it.
    Hard,
    /// In some trials, or so rarely that the next one may miss it.
    Flaky,
}

/// A hard failure is missed by fewer than so many trials.
const MISSED_AT_MOST: f64 = 0.01;

/// A cell as one run saw it, or several together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// The worst verdict.
    pub verdict: Verdict,
    /// Trials by verdict, worst first.
    pub tally: Vec<Tally>,
    /// Runs that have the cell.
    pub runs: usize,
    /// Violated rounds among overlapped ones; both are 0 where no count is known.
    pub rate: Rate,
    /// Against the known issues, in the latest of the runs.
    pub mark: Option<Mark>,
    /// The known issue that covers it, in the latest of the runs.
    pub known_issue: Option<String>,
    /// Whether a failure is hard or flaky; absent where there is none.
    pub steadiness: Option<Steadiness>,
    /// Why the worst verdict of the latest run.
    pub reason: String,
    /// Rounds really filled in the latest run.
    #[serde(skip)]
    pub(crate) filled: Option<u64>,
    /// Rounds overlapped in the latest run.
    #[serde(skip)]
    pub(crate) overlapped: u64,
    #[serde(skip)]
    pub(crate) floor: Floor,
}

impl Seen {
    /// One run's cell.
    pub(crate) fn of(cell: &Cell) -> Seen {
        let mut seen = Seen {
            verdict: cell.verdict(),
            tally: cell.tally.clone(),
            runs: 1,
            rate: cell.rate,
            mark: cell.mark,
            known_issue: cell.known_issue.clone(),
            steadiness: None,
            reason: cell.reason.clone(),
            filled: cell.filled,
            overlapped: cell.overlapped,
            floor: cell.floor,
        };
        seen.steadiness = seen.judge_steadiness();
        seen
    }

    /// This and a later run together.
    pub(crate) fn and(mut self, later: &Cell) -> Seen {
        for &Tally { verdict, trials } in &later.tally {
            match self.tally.iter_mut().find(|t| t.verdict == verdict) {
                Some(t) => t.trials += trials,
                None => self.tally.push(Tally { verdict, trials }),
            }
        }
        self.tally
            .sort_by_key(|t| std::cmp::Reverse(t.verdict.severity()));
        self.verdict = self.tally.first().map_or(self.verdict, |t| t.verdict);
        self.runs += 1;
        self.rate = self.rate.plus(later.rate);
        self.mark = later.mark;
        self.known_issue.clone_from(&later.known_issue);
        self.reason.clone_from(&later.reason);
        (self.filled, self.overlapped) = (later.filled, later.overlapped);
        self.floor = later.floor;
        self.steadiness = self.judge_steadiness();
        self
    }

    /// All its trials.
    pub fn trials(&self) -> usize {
        self.tally.iter().map(|t| t.trials).sum()
    }

    /// Trials that ended in a violation.
    pub fn violated_trials(&self) -> usize {
        let violated = self.tally.iter().filter(|t| t.verdict.is_violation());
        violated.map(|t| t.trials).sum()
    }

    /// Whether any trial ended in a violation.
    pub(crate) fn failed(&self) -> bool {
        self.violated_trials() > 0
    }

    /// Whether any trial can claim something.
    pub(crate) fn exercised(&self) -> bool {
        self.tally.iter().any(|t| t.verdict.was_exercised())
    }

    /// Whether some trial ended in that verdict.
    pub(crate) fn had(&self, verdict: Verdict) -> bool {
        self.tally.iter().any(|t| t.verdict == verdict)
    }

    /// Whether a known issue covers what was seen.
    pub(crate) fn covered(&self) -> bool {
        self.mark != Some(Mark::Unexpected)
    }

    /// Whether it was exercised with less than twice the floor.
    pub(crate) fn hardly(&self) -> bool {
        let near = |count: u64, floor: u64| count < 2 * floor;
        near(self.overlapped, self.floor.overlapped)
            || self.filled.is_some_and(|n| near(n, self.floor.filled))
    }

    fn judge_steadiness(&self) -> Option<Steadiness> {
        if !self.failed() {
            return None;
        }
        // An inconclusive trial missed nothing: it did not look.
        let missed = self.had(Verdict::Safe);
        let trials = self.trials().max(1) as u64;
        let rare = self.rate.violated > 0
            && chance_of_missing(self.rate, self.rate.overlapped / trials) > MISSED_AT_MOST;
        Some(if missed || rare {
            Steadiness::Flaky
        } else {
            Steadiness::Hard
        })
    }

    /// `stale, flaky 2/5, 12 of 24990 rounds: 0.048 % (95 %: 0.028 % to 0.084 %)`.
    pub fn words(&self) -> String {
        let mut words = self.verdict.word().to_owned();
        match self.steadiness {
            Some(Steadiness::Hard) => words.push_str(", hard"),
            Some(Steadiness::Flaky) => words.push_str(", flaky"),
            None => {}
        }
        let (failed, all) = (self.violated_trials(), self.trials());
        if all > 1 && failed > 0 {
            words.push_str(&format!(" in {failed} of {all} trials"));
        } else if all > 1 {
            words.push_str(&format!(" in {all} trials"));
        }
        if let Some(rate) = self.rate.in_words(self.verdict) {
            let Rate {
                violated,
                overlapped,
            } = self.rate;
            words.push_str(&format!(", {violated} of {overlapped} rounds: {rate}"));
        }
        words
    }
}
