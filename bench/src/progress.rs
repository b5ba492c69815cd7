//! What a user sees while trials run: a bar with an ETA on a terminal, one plain line a trial elsewhere.
//! All of it goes to standard error; results go to standard output.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use punchbench_results::{Expectation, Record};

use crate::child::Child;
use crate::wire::Phase;

/// Shows progress.
#[derive(Debug)]
pub struct Reporter {
    /// Only on a terminal: a hidden bar swallows lines, too.
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
}

impl Reporter {
    /// For so many trials.
    pub fn new(total: usize) -> Reporter {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            let template = "{bar:24} {pos}/{len}  {elapsed} gone, {eta} to go  {wide_msg}";
            // The template is a constant; if it did not parse, the default style would do.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Reporter {
            bar,
            total,
            done: 0,
        }
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Trials that need not be run again.
    pub fn skip(&mut self, trials: usize) {
        self.done += trials;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
            // What took no time must not count for the ETA.
            bar.reset_eta();
        }
    }

    /// Shows what runs now.
    pub fn running(&self, children: &[Child]) {
        let Some(bar) = &self.bar else { return };
        let what: Vec<String> = children.iter().map(describe).collect();
        bar.set_message(what.join(" | "));
        bar.tick();
    }

    /// A trial has ended.
    pub fn finished(&mut self, record: &Record) {
        self.done += 1;
        let (done, total) = (self.done, self.total);
        let on = record
            .kernel_name()
            .map_or_else(String::new, |kernel| format!("{kernel} "));
        let mark = match record.expectation {
            Expectation::Expected => "",
            Expectation::Unexpected => " UNEXPECTED",
            Expectation::Fixed => " (a known issue is gone)",
        };
        let why = if record.verdict.was_exercised() {
            String::new()
        } else {
            format!(": {}", record.reason)
        };
        self.line(&format!(
            "[{done}/{total}] {on}{} {}: {}{mark}{why} ({} rounds, {:.1} s)",
            record.target, record.scenario, record.verdict, record.evidence.rounds, record.seconds
        ));
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn describe(child: &Child) -> String {
    let rounds = match child.phase {
        Phase::Race => format!(", {} rounds", child.rounds),
        _ => String::new(),
    };
    format!(
        "{} {}: {}{rounds}",
        child.blank.target,
        child.blank.scenario,
        child.phase.word()
    )
}
