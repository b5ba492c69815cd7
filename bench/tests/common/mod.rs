//! Runs the program for tests: a command line, a directory of its own, the records written there.

use std::path::Path;
use std::process::Command;

use punchbench_results::{Record, journal, read_records};

/// `punchbench run --out DIR WORDS…`, not started yet.
pub fn command<S: AsRef<str>>(words: &[S], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_punchbench"));
    command
        .arg("run")
        .arg("--out")
        .arg(out)
        .args(words.iter().map(AsRef::as_ref));
    command
}

/// The records in a run's directory; none if it got to none.
pub fn records(out: &Path) -> Vec<Record> {
    let path = out.join(journal::FILE_NAME);
    if path.exists() {
        read_records(&path).expect("the journal is whole")
    } else {
        Vec::new()
    }
}
