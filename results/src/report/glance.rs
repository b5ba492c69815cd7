//! The little of a record that a trend needs. A hundred nights are a hundred thousand records: reading all of each
//! would take most of the report's time.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use serde::Deserialize;

use crate::journal::{self, JournalError, io_error, next_line};
use crate::{Expectation, SCHEMA_VERSION, Verdict};

/// One trial in a trend.
#[derive(Debug, Deserialize)]
pub(super) struct Glance {
    pub(super) schema: u32,
    pub(super) scenario: String,
    pub(super) target: String,
    pub(super) kernel: String,
    pub(super) trial: String,
    pub(super) verdict: Verdict,
    pub(super) expectation: Expectation,
    pub(super) started: f64,
    pub(super) evidence: Counts,
}

#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    pub(super) overlapped: u64,
    #[serde(default)]
    pub(super) violated_rounds: u64,
}

/// The readable trials of a run, and how many lines were not.
pub(super) fn read(run: &Path) -> Result<(Vec<Glance>, usize), JournalError> {
    let path = if run.is_dir() {
        run.join(journal::FILE_NAME)
    } else {
        run.to_owned()
    };
    let file = File::open(&path).map_err(|e| io_error("open", &path, e))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (mut glances, mut bad, mut line) = (Vec::new(), 0, Vec::new());
    while next_line(&path, &mut reader, &mut line)? {
        match serde_json::from_slice::<Glance>(&line) {
            Ok(glance) if glance.schema <= SCHEMA_VERSION => glances.push(glance),
            _ => bad += 1,
        }
    }
    Ok((glances, bad))
}
