//! Which trials a night should spend its time on: what was never exercised first, then what changed lately, then what
//! fails, then whatever was looked at longest ago. Free of any running, so that it can be tested.

use std::collections::HashMap;
use std::time::Duration;

use punchbench_results::table::Mark;
use punchbench_results::{Source, is_control};

/// Nights that count as lately.
const LATELY: usize = 3;

/// What a trial takes beside racing, where no record says so.
const SET_UP: f64 = 5.0;

/// Kernel as the command line names it (`None`: this machine's), and `scenario@target`.
pub type Place = (Option<String>, String);

/// What earlier nights know of a cell.
#[derive(Debug, Clone, Default)]
struct Past {
    /// The verdict of each night that has it, oldest first, with the night's number.
    verdicts: Vec<(usize, punchbench_results::Verdict)>,
    exercised: bool,
    unexpected: bool,
    /// Seconds that its last trial took.
    seconds: f64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Knowledge {
    cells: HashMap<Place, Past>,
    nights: usize,
}

/// Why a trial was chosen; the order is the order of choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It shows that the bench can tell: a part of every night.
    Control,
    /// No night has a record of it.
    NeverRun,
    /// It was run, and never exercised.
    NeverExercised,
    /// Its verdict changed within the last nights.
    Changed,
    /// It fails, and no known issue says so.
    Failing,
    /// It is its turn.
    Turn,
}

impl Why {
    /// The words for it.
    pub fn words(self) -> &'static str {
        match self {
            Why::Control => "a control",
            Why::NeverRun => "never run",
            Why::NeverExercised => "never exercised",
            Why::Changed => "changed lately",
            Why::Failing => "failing unexpectedly",
            Why::Turn => "longest ago",
        }
    }
}

/// A trial that may be run tonight.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// `scenario@target`.
    pub pair: String,
    /// Why it comes when it comes.
    pub why: Why,
    /// Nights since the last record of it.
    age: usize,
    /// Seconds that it will take, as far as can be told.
    pub seconds: f64,
}

impl Knowledge {
    /// From nights, oldest first.
    pub fn of(nights: &[Source]) -> Knowledge {
        let mut knowledge = Knowledge {
            nights: nights.len(),
            ..Knowledge::default()
        };
        for (night, source) in nights.iter().enumerate() {
            for cell in &source.cells {
                let past = knowledge.cells.entry(place(
                    cell.kernel_name.as_deref(),
                    &cell.scenario,
                    &cell.target,
                ));
                let past = past.or_default();
                past.verdicts.push((night, cell.verdict()));
                past.exercised |= cell.verdict().was_exercised();
                past.unexpected =
                    cell.mark == Some(Mark::Unexpected) && cell.verdict().is_violation();
            }
            for record in &source.records {
                let place = place(record.kernel_name(), &record.scenario, &record.target);
                if let Some(past) = knowledge.cells.get_mut(&place) {
                    past.seconds = record.seconds;
                }
            }
        }
        knowledge
    }

    /// The pairs in the order in which they teach most. `racing` is how long a trial races.
    pub fn order(&self, kernel: Option<&str>, pairs: Vec<String>, racing: f64) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> = pairs
            .into_iter()
            .map(|pair| self.candidate(kernel, pair, racing))
            .collect();
        // Stable: equals stay in the order of the plan.
        candidates.sort_by_key(|c| (c.why, std::cmp::Reverse(c.age)));
        candidates
    }

    fn candidate(&self, kernel: Option<&str>, pair: String, racing: f64) -> Candidate {
        let is_control = pair.split_once('@').is_some_and(|(_, t)| is_control(t));
        if is_control {
            return Candidate {
                pair,
                why: Why::Control,
                age: 0,
                seconds: racing + SET_UP,
            };
        }
        let place = (kernel.map(str::to_owned), pair.clone());
        let Some(past) = self.cells.get(&place) else {
            return Candidate {
                pair,
                why: Why::NeverRun,
                age: usize::MAX,
                seconds: racing + SET_UP,
            };
        };
        let last = past.verdicts.last().map_or(0, |(night, _)| *night);
        let changed = past.verdicts.windows(2).any(|two| {
            let [(_, before), (night, after)] = [two[0], two[1]];
            before != after && night + LATELY >= self.nights
        });
        // What the filesystem lacks is settled for this kernel: it is looked at again in its turn.
        let settled = past
            .verdicts
            .last()
            .is_some_and(|(_, v)| *v == punchbench_results::Verdict::Unsupported);
        Candidate {
            pair,
            why: if !past.exercised && !settled {
                Why::NeverExercised
            } else if changed {
                Why::Changed
            } else if past.unexpected {
                Why::Failing
            } else {
                Why::Turn
            },
            age: self.nights - last,
            seconds: past.seconds.max(0.1),
        }
    }
}

fn place(kernel: Option<&str>, scenario: &str, target: &str) -> Place {
    (kernel.map(str::to_owned), format!("{scenario}@{target}"))
}

/// The first candidates that fit into `time`, after `overhead` (booting, say); none if that alone does not fit.
pub fn fitting(candidates: &[Candidate], time: Duration, overhead: Duration) -> usize {
    let mut left = time.as_secs_f64() - overhead.as_secs_f64();
    let fits = |c: &&Candidate| {
        left -= c.seconds;
        left >= 0.0
    };
    candidates.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use punchbench_results::table::Cell;
    use punchbench_results::{Record, Verdict};

    use super::*;

    fn record(scenario: &str, verdict: Verdict) -> Record {
        let mut record = crate::blank::record(&crate::plan::tests::one(
            "--fs tmpfs --scenario punch-while-read",
        ));
        record.scenario = scenario.to_owned();
        record.verdict = verdict;
        record.expectation = punchbench_results::Expectation::Expected;
        record.seconds = 2.0;
        record
    }

    fn night(cells: &[(&str, Verdict)]) -> Source {
        let records: Vec<Record> = cells.iter().map(|(s, v)| record(s, *v)).collect();
        Source {
            name: String::new(),
            cells: Cell::group(&records),
            records,
            problems: Vec::new(),
        }
    }

    fn order(nights: &[Source], scenarios: &[&str]) -> Vec<(String, Why)> {
        let pairs = scenarios.iter().map(|s| format!("{s}@tmpfs")).collect();
        let ordered = Knowledge::of(nights).order(None, pairs, 2.0);
        let name = |c: Candidate| (c.pair.trim_end_matches("@tmpfs").to_owned(), c.why);
        ordered.into_iter().map(name).collect()
    }

    #[test]
    fn the_unknown_comes_first_and_the_long_unseen_before_the_fresh() {
        let nights = [
            night(&[
                ("old", Verdict::Safe),
                ("flip", Verdict::Safe),
                ("thin", Verdict::Inconclusive),
            ]),
            night(&[
                ("flip", Verdict::Stale),
                ("fresh", Verdict::Safe),
                ("lacks", Verdict::Unsupported),
            ]),
        ];
        let control = Knowledge::of(&nights).order(None, vec!["a@reference:none".to_owned()], 2.0);
        assert!(control[0].why < Why::NeverRun);
        let ordered = order(&nights, &["fresh", "lacks", "old", "flip", "thin", "never"]);
        let expected = [
            ("never", Why::NeverRun),
            ("thin", Why::NeverExercised),
            ("flip", Why::Changed),
            ("old", Why::Turn),
            ("fresh", Why::Turn),
            ("lacks", Why::Turn),
        ];
        assert_eq!(ordered, expected.map(|(s, w)| (s.to_owned(), w)));
    }

    #[test]
    fn a_change_of_long_ago_is_no_reason() {
        let mut nights = vec![
            night(&[("flip", Verdict::Safe)]),
            night(&[("flip", Verdict::Stale)]),
        ];
        nights.extend((0..3).map(|_| night(&[("flip", Verdict::Stale)])));
        assert_eq!(order(&nights, &["flip"]), [("flip".to_owned(), Why::Turn)]);
    }

    #[test]
    fn no_more_is_chosen_than_fits() {
        let nights = [night(&[
            ("a", Verdict::Safe),
            ("b", Verdict::Safe),
            ("c", Verdict::Safe),
        ])];
        let pairs = ["a", "b", "c"].map(|s| format!("{s}@tmpfs")).to_vec();
        let candidates = Knowledge::of(&nights).order(None, pairs, 2.0);
        let fit = |seconds, overhead| {
            fitting(
                &candidates,
                Duration::from_secs(seconds),
                Duration::from_secs(overhead),
            )
        };
        assert_eq!(
            (fit(6, 0), fit(5, 0), fit(6, 3), fit(1, 0), fit(6, 60)),
            (3, 2, 1, 0, 0)
        );
    }
}
