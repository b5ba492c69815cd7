//! `punchbench compare A B…`: what changed between runs, and whether somebody must be woken.

use std::io::{IsTerminal, stdout};

use anyhow::{Context, bail};
use punchbench_results::compare::Options;
use punchbench_results::{Comparison, Source, Style};

use crate::cli::{CompareArgs, CompareFormat};
use crate::plan::PlanError;
use crate::screen;

/// Compares, and prints it.
pub fn run(args: &CompareArgs) -> anyhow::Result<u8> {
    if args.runs.len() < 2 {
        bail!(PlanError::Words(
            "compare needs two runs at least: the last is held against those before it".to_owned()
        ));
    }
    let sources = Source::read_all(&args.runs).map_err(|e| PlanError::Words(e.to_string()))?;
    let options = Options {
        partial: args.partial,
    };
    let comparison = Comparison::of(&sources, options);
    let format = if args.json {
        CompareFormat::Json
    } else {
        args.format
    };
    let text = match format {
        CompareFormat::Text => comparison.text(Style {
            width: screen::width(),
            color: stdout().is_terminal(),
        }),
        CompareFormat::Markdown => comparison.markdown(),
        CompareFormat::Json => comparison.json(),
    };
    screen::print(&text).context("cannot print the comparison")?;
    if format != CompareFormat::Text {
        comparison.problems.iter().for_each(|p| eprintln!("{p}"));
    }
    Ok(comparison.exit_code)
}
