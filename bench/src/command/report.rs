//! `punchbench report DIR…`: one HTML file about runs.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use punchbench_results::exit_code;
use punchbench_results::report::{self, Issue, runs_below};
use punchbench_scenarios::known_issues;

use crate::cli::ReportArgs;
use crate::plan::PlanError;

/// Writes it.
pub fn run(args: &ReportArgs) -> anyhow::Result<u8> {
    if args.output.is_dir() {
        let text = format!(
            "{} is a directory; name a file with --output",
            args.output.display()
        );
        return Err(PlanError::Words(text).into());
    }
    let runs = runs_below(&args.runs).map_err(|e| PlanError::Words(e.to_string()))?;
    let page =
        report::render(&runs, &issues(), now()).map_err(|e| PlanError::Words(e.to_string()))?;
    write(&args.output, &page)?;
    println!("{}", args.output.display());
    Ok(exit_code::EXPECTED)
}

/// Writes the page.
pub fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    Ok(report::write(path, page)?)
}

/// What the known issues say.
pub fn issues() -> Vec<Issue> {
    let of = |i: &punchbench_scenarios::KnownIssue| Issue {
        name: i.issue.clone(),
        why: i.why.clone(),
        link: i.link.clone(),
    };
    known_issues().iter().map(of).collect()
}

/// Seconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
