//! How each cell came out, run by run, as a strip of colour and as words.

use std::collections::HashMap;

use serde::Serialize;

use super::glance;
use crate::history::Entry;
use crate::record::split_trial;
use crate::source::in_parallel;
use crate::text::rfc3339;
use crate::{Expectation, Verdict};

/// Changes of a cell told in words; the strip shows all.
const SPANS_MAX: usize = 12;

/// Kernel's place, target, scenario: a kernel that was named keeps its place over releases.
pub(super) type Key = (String, String, String);

/// One run in the page's list.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Night {
    name: String,
    began: String,
    kernels: String,
    violations: usize,
    unexpected: usize,
    safe: usize,
    not_exercised: usize,
    trials: usize,
}

/// One run in a cell's trend.
#[derive(Debug, Clone, Copy)]
struct Point {
    run: usize,
    verdict: Verdict,
    violated: u64,
    overlapped: u64,
}

/// All runs of all cells.
#[derive(Debug)]
pub(super) struct Trends {
    nights: Vec<Night>,
    points: HashMap<Key, Vec<Point>>,
}

/// A cell's trend, ready to be shown.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TrendView {
    /// Width of the strip, in runs.
    runs: usize,
    /// A path of the strip for each verdict that occurs.
    paths: Vec<(&'static str, String)>,
    /// `2026-11-01 to 2026-11-20, 20 runs: safe`.
    spans: Vec<String>,
    /// Spans left out before those.
    earlier: usize,
}

/// Where a kernel stands in trends.
pub(super) fn place(trial: &str, kernel: &str) -> String {
    split_trial(trial)
        .0
        .map_or_else(|| series(kernel), str::to_owned)
}

/// A machine's own kernel keeps its place within a series, `6.18`.
fn series(release: &str) -> String {
    let mut dots = release.match_indices('.').map(|(at, _)| at);
    release[..dots.nth(1).unwrap_or(release.len())].to_owned()
}

impl Trends {
    pub(super) fn read(runs: &[Entry], problems: &mut Vec<String>) -> Trends {
        let read = in_parallel(runs, |run| glance::read(&run.path));
        let mut trends = Trends {
            nights: Vec::new(),
            points: HashMap::new(),
        };
        for (run, glances) in runs.iter().zip(read) {
            match glances {
                Ok((_, bad)) if bad > 0 => {
                    problems.push(format!("{}: {bad} lines of it could not be read", run.name));
                }
                Ok(_) => {}
                Err(ref e) => problems.push(e.to_string()),
            }
            if let Ok((glances, _)) = glances {
                trends.add(&run.name, glances);
            }
        }
        trends
    }

    fn add(&mut self, name: &str, glances: Vec<glance::Glance>) {
        let run = self.nights.len();
        let count =
            |select: fn(&glance::Glance) -> bool| glances.iter().filter(|g| select(g)).count();
        let mut kernels: Vec<&str> = glances.iter().map(|g| g.kernel.as_str()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        let began = glances.iter().map(|g| g.started).reduce(f64::min);
        self.nights.push(Night {
            name: name.to_owned(),
            began: began.map_or_else(String::new, rfc3339),
            kernels: kernels.join(", "),
            violations: count(|g| g.verdict.is_violation()),
            unexpected: count(|g| {
                g.verdict.is_violation() && g.expectation == Expectation::Unexpected
            }),
            safe: count(|g| g.verdict == Verdict::Safe),
            not_exercised: count(|g| !g.verdict.was_exercised()),
            trials: glances.len(),
        });
        for g in glances {
            let key = (place(&g.trial, &g.kernel), g.target, g.scenario);
            let points = self.points.entry(key).or_default();
            let (violated, overlapped) = (g.evidence.violated_rounds, g.evidence.overlapped);
            match points.last_mut() {
                // A repeat: the worst verdict stands.
                Some(last) if last.run == run => {
                    if g.verdict.severity() > last.verdict.severity() {
                        last.verdict = g.verdict;
                    }
                    last.violated += violated;
                    last.overlapped += overlapped;
                }
                _ => points.push(Point {
                    run,
                    verdict: g.verdict,
                    violated,
                    overlapped,
                }),
            }
        }
    }

    pub(super) fn nights(&self) -> Vec<Night> {
        self.nights.iter().rev().cloned().collect()
    }

    pub(super) fn of(&self, key: &Key) -> TrendView {
        let Some(points) = self.points.get(key) else {
            return TrendView::default();
        };
        let spans = self.spans(points);
        let earlier = spans.len().saturating_sub(SPANS_MAX);
        TrendView {
            runs: self.nights.len(),
            paths: strip(points),
            spans: spans[earlier..].to_vec(),
            earlier,
        }
    }

    /// Runs in a row with one verdict.
    fn spans(&self, points: &[Point]) -> Vec<String> {
        let mut spans: Vec<String> = Vec::new();
        for span in points.chunk_by(|a, b| a.verdict == b.verdict) {
            let [first, .., last] = span else {
                spans.push(format!("{}: {}", self.day(span[0].run), words(span)));
                continue;
            };
            let days = format!("{} to {}", self.day(first.run), self.day(last.run));
            spans.push(format!("{days}, {} runs: {}", span.len(), words(span)));
        }
        spans
    }

    fn day(&self, run: usize) -> &str {
        let night = &self.nights[run];
        night.began.get(..10).unwrap_or(&night.name)
    }
}

fn words(span: &[Point]) -> String {
    let verdict = span[0].verdict;
    let sum = |of: fn(&Point) -> u64| span.iter().map(of).sum::<u64>();
    let rate = crate::rate::Rate {
        violated: sum(|p| p.violated),
        overlapped: sum(|p| p.overlapped.max(p.violated)),
    };
    match rate.in_words(verdict) {
        Some(rate) if verdict.is_violation() => format!("{verdict}, {rate}"),
        _ => verdict.word().to_owned(),
    }
}

/// A bar for every run, one path for all bars of a verdict: a hundred rectangles in each of a thousand cells would
/// be too much for a browser. Failures stand as high as their rate, on a logarithmic scale from 10^-5 to 1.
fn strip(points: &[Point]) -> Vec<(&'static str, String)> {
    let mut paths: Vec<(&'static str, String)> = Vec::new();
    for p in points {
        let height = match p.verdict {
            v if v.is_violation() => {
                let rate = p.violated.max(1) as f64 / p.overlapped.max(1) as f64;
                (10.0 + 2.0 * rate.log10()).clamp(2.0, 10.0).round() as u32
            }
            Verdict::Safe => 10,
            _ => 3,
        };
        let bar = format!("M{} {}v{height}", p.run, 10 - height);
        match paths.iter_mut().find(|(word, _)| *word == p.verdict.word()) {
            Some((_, path)) => path.push_str(&bar),
            None => paths.push((p.verdict.word(), bar)),
        }
    }
    paths
}
