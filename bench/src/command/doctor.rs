//! `punchbench doctor`: what this machine can run, and what would help.

use punchbench_fs::{SetUp, Tag, doctor};
use punchbench_results::exit_code;

/// Prints the report.
pub fn run(as_json: bool) -> anyhow::Result<u8> {
    let (tag, work) = (Tag::of_this_process(), std::env::temp_dir());
    // Nothing is made, so there is no background to write.
    let background = |_: u64, _: &mut [u8]| {};
    let report = doctor(&SetUp::new(&tag, &work, &background));
    if as_json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(exit_code::EXPECTED)
}
