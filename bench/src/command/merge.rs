//! `punchbench merge DIR… --out DIR`: the shards of a plan become one run again.

use punchbench_results::{Merged, exit_code};

use crate::cli::MergeArgs;
use crate::plan::PlanError;

/// Merges, and says what is missing. What there is, is written all the same.
pub fn run(args: &MergeArgs) -> anyhow::Result<u8> {
    let merged = Merged::of(&args.runs).map_err(|e| PlanError::Words(e.to_string()))?;
    for line in merged.notes.iter().chain(&merged.gaps) {
        eprintln!("{line}");
    }
    for line in &merged.conflicts {
        eprintln!("two results of one trial, the first is used: {line}");
    }
    if merged.twice > 0 {
        eprintln!("{} records were there twice and count once", merged.twice);
    }
    if merged.records.is_empty() {
        eprintln!("no records: nothing was written");
        return Ok(exit_code::NOTHING_RAN);
    }
    merged
        .write(&args.out)
        .map_err(|e| PlanError::Words(e.to_string()))?;
    println!("{}: {} records", args.out.display(), merged.records.len());
    if merged.gaps.is_empty() && merged.conflicts.is_empty() {
        Ok(exit_code::EXPECTED)
    } else {
        Ok(exit_code::UNEXPECTED)
    }
}
