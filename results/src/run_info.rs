//! `run.json`: what a run's directory says of the run as a whole. With it an interrupted run goes on, and shards
//! are joined again with nothing missing and nothing twice.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::journal::{JournalError, io_error};

/// Its name in a run's directory.
pub const RUN_FILE: &str = "run.json";

/// The plan of a run, or of its part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The run's seed.
    pub seed: u64,
    /// Its part of a larger plan; absent for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Checksum of the whole plan, equal in all its shards.
    #[serde(default)]
    pub plan: u32,
    /// Trials of the whole plan.
    #[serde(default)]
    pub planned: usize,
    /// The trials that this run is to make, as in [`crate::Record::trial`].
    #[serde(default)]
    pub trials: Vec<String>,
}

/// One of several parts of a plan, counted from 1: `2/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    /// Which part.
    pub index: u32,
    /// Of how many.
    pub of: u32,
}

/// More machines than anybody has.
const SHARDS_MAX: u32 = 10_000;

impl Shard {
    /// Whether the trial is in this part. It depends on the trial's identity alone, so that a new scenario moves
    /// no other trial to another machine, and every trial is in exactly one part.
    pub fn has(self, trial: &str) -> bool {
        crc32fast::hash(trial.as_bytes()) % self.of == self.index - 1
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/');
        let parsed = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((index, of)) if 1 <= index && index <= of && of <= SHARDS_MAX => {
                Ok(Shard { index, of })
            }
            _ => Err(format!(
                "`{text}` is no shard: write I/N, such as 2/4 for the second of four (at most {SHARDS_MAX})"
            )),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Shard, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> String {
        shard.to_string()
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

/// The checksum of a plan's trials, whatever their order.
pub fn plan_checksum<'a>(trials: impl Iterator<Item = &'a str>) -> u32 {
    let mut trials: Vec<&str> = trials.collect();
    trials.sort_unstable();
    let mut hasher = crc32fast::Hasher::new();
    for trial in trials {
        hasher.update(trial.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize()
}

impl RunInfo {
    /// Reads it from a run's directory; `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<RunInfo>, JournalError> {
        let path = dir.join(RUN_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(io_error("read", &path, e)),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| JournalError::Foreign {
                path,
                line: e.line(),
                detail: e.to_string(),
            })
    }

    /// Writes it there, whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<(), JournalError> {
        // Numbers and strings: nothing in it can fail to serialise.
        let text = serde_json::to_vec(self).expect("a run's description is plain data");
        crate::history::write_whole(dir, RUN_FILE, &text)
    }
}
