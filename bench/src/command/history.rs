//! `punchbench history`: the runs that were kept, and how each cell came out over time.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use punchbench_results::history::{Entry, Retention};
use punchbench_results::table::{Cell, Words};
use punchbench_results::{History, Source, exit_code};
use punchbench_scenarios::matches_glob;
use serde_json::json;

use crate::cli::{HistoryArgs, HistoryCommand};
use crate::screen;

/// Shows, adds or prunes.
pub fn run(args: &HistoryArgs) -> anyhow::Result<u8> {
    let history = History::at(&args.dir);
    match &args.command {
        Some(HistoryCommand::Add { runs }) => {
            for run in runs {
                let entry = history.add(run)?;
                println!("{}", entry.path.display());
            }
            Ok(exit_code::EXPECTED)
        }
        Some(HistoryCommand::Prune { keep, monthly }) => {
            let keep = Retention {
                last: *keep,
                monthly: *monthly,
            };
            for name in history.prune(keep)? {
                println!("removed {name}");
            }
            Ok(exit_code::EXPECTED)
        }
        None => show(args, &history),
    }
}

/// One cell: kernel as named or released, target, scenario.
type Key = (String, String, String);

/// One run of a cell.
struct Point {
    run: String,
    cell: Cell,
}

fn show(args: &HistoryArgs, history: &History) -> anyhow::Result<u8> {
    let mut entries = history.entries()?;
    if let Some(last) = args.last {
        entries.drain(..entries.len().saturating_sub(last));
    }
    if let Some(since) = args.since {
        let from = SystemTime::now().checked_sub(since).unwrap_or(UNIX_EPOCH);
        let from = from.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let name = punchbench_results::history::time_name(from.as_secs_f64());
        entries.retain(|e| e.name >= name);
    }
    if entries.is_empty() {
        eprintln!(
            "{} holds no runs: `punchbench history add RUN` or `punchbench nightly` puts some there",
            args.dir.display()
        );
        return Ok(exit_code::NOTHING_RAN);
    }
    let mut trends: BTreeMap<Key, Vec<Point>> = BTreeMap::new();
    for entry in &entries {
        for (key, point) in points(args, history, entry) {
            trends.entry(key).or_default().push(point);
        }
    }
    let text = if args.json {
        format!("{:#}\n", as_value(&entries, &trends))
    } else {
        as_text(&entries, &trends)
    };
    screen::print(&text)?;
    Ok(exit_code::EXPECTED)
}

/// The cells of a run that were asked for. A run that cannot be read is told and left out.
fn points(args: &HistoryArgs, history: &History, entry: &Entry) -> Vec<(Key, Point)> {
    let source = match history.read(entry) {
        Ok(source) => source,
        Err(error) => {
            eprintln!("{error}; left out");
            return Vec::new();
        }
    };
    let Source {
        cells, problems, ..
    } = source;
    problems.iter().for_each(|p| eprintln!("{p}"));
    let matches = |globs: &[String], word: &str| {
        globs.is_empty() || globs.iter().any(|g| matches_glob(g, word))
    };
    cells
        .into_iter()
        .filter(|c| {
            let named = c.kernel_name.as_deref().unwrap_or_default();
            matches(&args.scenario, &c.scenario)
                && matches(&args.fs, &c.target)
                && (matches(&args.kernel, &c.kernel) || matches(&args.kernel, named))
        })
        .map(|cell| {
            let kernel = cell
                .kernel_name
                .clone()
                .unwrap_or_else(|| cell.kernel.clone());
            let key = (kernel, cell.target.clone(), cell.scenario.clone());
            let run = entry.name.clone();
            (key, Point { run, cell })
        })
        .collect()
}

fn as_text(entries: &[Entry], trends: &BTreeMap<Key, Vec<Point>>) -> String {
    let mut out = format!(
        "{} runs, {} to {}\n",
        entries.len(),
        entries.first().map_or("", |e| e.name.as_str()),
        entries.last().map_or("", |e| e.name.as_str())
    );
    let mut kernel = None;
    for ((of, target, scenario), points) in trends {
        if kernel != Some(of) {
            out.push_str(&format!("\nkernel {of}\n"));
            kernel = Some(of);
        }
        let spans: Vec<String> = points
            .chunk_by(|a, b| a.cell.verdict() == b.cell.verdict())
            .map(span)
            .collect();
        out.push_str(&format!(
            "  {target:<12} {scenario}: {}\n",
            spans.join("; ")
        ));
    }
    out
}

/// Runs in a row with one verdict: `stale* 12 times since 2026-11-01, 0.31 % (95 %: 0.30 % to 0.33 %)`.
fn span(points: &[Point]) -> String {
    let (first, cell) = (&points[0], &points[points.len() - 1].cell);
    let mut words = cell.label(Words::Full);
    if points.len() > 1 {
        words.push_str(&format!(" {} times", points.len()));
    }
    words.push_str(&format!(
        " since {}",
        first.run.get(..10).unwrap_or(&first.run)
    ));
    let rates = points.iter().map(|p| p.cell.rate);
    let rate = rates.reduce(|a, b| a.plus(b)).unwrap_or_default();
    if let Some(rate) = rate.in_words(cell.verdict()) {
        words.push_str(&format!(", {rate}"));
    }
    words
}

fn as_value(entries: &[Entry], trends: &BTreeMap<Key, Vec<Point>>) -> serde_json::Value {
    let cells: Vec<_> = trends
        .iter()
        .map(|((kernel, target, scenario), points)| {
            let points: Vec<_> = points
                .iter()
                .map(|p| {
                    let rate = p.cell.rate;
                    json!({"run": p.run, "release": p.cell.kernel, "verdict": p.cell.verdict(), "mark": p.cell.mark,
                           "violated": rate.violated, "overlapped": rate.overlapped, "trials": p.cell.trials()})
                })
                .collect();
            json!({"kernel": kernel, "target": target, "scenario": scenario, "runs": points})
        })
        .collect();
    let runs: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    json!({"history_schema": 1, "runs": runs, "cells": cells})
}
