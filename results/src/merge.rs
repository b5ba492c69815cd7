//! Joins the shards of a plan: every planned trial once, or it is said which are missing or there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::history::{self, HistoryError};
use crate::run_info::{RunInfo, Shard, plan_checksum};
use crate::{Record, Source, SourceError};

/// Problems of one sort told one by one.
const TOLD_MAX: usize = 10;

/// Several runs as one.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The records, in the order of the runs.
    pub records: Vec<Record>,
    /// The whole plan, as far as it is known.
    pub info: Option<RunInfo>,
    /// What was read, but cannot be used as it is: bad lines, empty runs.
    pub notes: Vec<String>,
    /// Trials recorded twice, and differently. The first record is used.
    pub conflicts: Vec<String>,
    /// Trials and shards of the plan without a record.
    pub gaps: Vec<String>,
    /// Trials recorded twice, and equally.
    pub twice: usize,
}

/// Why nothing was merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A run cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its `run.json` cannot be read.
    #[error(transparent)]
    Info(#[from] crate::JournalError),
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] HistoryError),
    /// The runs are not of one plan.
    #[error(
        "{path} is a part of another plan than {first} (other scenarios, targets, seed or duration, or another \
         punchbench): merge only the shards of one plan"
    )]
    OtherPlan {
        /// The odd one.
        path: PathBuf,
        /// The first.
        first: PathBuf,
    },
}

impl Merged {
    /// Reads and joins the runs.
    pub fn of(runs: &[PathBuf]) -> Result<Merged, MergeError> {
        let sources = Source::read_all(runs)?;
        let mut infos: Vec<(&PathBuf, RunInfo)> = Vec::new();
        for path in runs.iter().filter(|path| path.is_dir()) {
            if let Some(info) = RunInfo::read(path)? {
                infos.push((path, info));
            }
        }
        if let Some(((first_path, first), others)) = infos.split_first() {
            let other_plan = |info: &RunInfo| (info.plan, info.seed) != (first.plan, first.seed);
            let of_shards = |info: &RunInfo| info.shard.is_some() && first.shard.is_some();
            let odd = others
                .iter()
                .find(|(_, info)| of_shards(info) && other_plan(info));
            if let Some((path, _)) = odd {
                return Err(MergeError::OtherPlan {
                    path: (*path).clone(),
                    first: (*first_path).clone(),
                });
            }
        }
        let mut merged = Merged {
            records: Vec::new(),
            info: None,
            notes: sources.iter().flat_map(|s| s.problems.clone()).collect(),
            conflicts: Vec::new(),
            gaps: Vec::new(),
            twice: 0,
        };
        merged.join(sources);
        merged.look_for_gaps(&infos.into_iter().map(|(_, info)| info).collect::<Vec<_>>());
        Ok(merged)
    }

    fn join(&mut self, sources: Vec<Source>) {
        let mut seen: BTreeMap<String, (usize, String)> = BTreeMap::new();
        for source in sources {
            for record in source.records {
                match seen.get(&record.trial) {
                    Some((at, _)) if self.records[*at] == record => self.twice += 1,
                    Some((_, first)) => self.conflicts.push(format!(
                        "{}: in {first}, and another result in {}",
                        record.trial, source.name
                    )),
                    None => {
                        let place = (self.records.len(), source.name.clone());
                        seen.insert(record.trial.clone(), place);
                        self.records.push(record);
                    }
                }
            }
        }
        bound(&mut self.conflicts, "trial");
    }

    fn look_for_gaps(&mut self, infos: &[RunInfo]) {
        let Some(first) = infos.first() else { return };
        let shards: BTreeSet<Shard> = infos.iter().filter_map(|i| i.shard).collect();
        // Of shards made with several N only the checksum below can tell whether they are all there.
        let one_n = shards
            .first()
            .map(|s| s.of)
            .filter(|of| shards.iter().all(|s| s.of == *of));
        if let Some(of) = one_n {
            let missing: Vec<String> = (1..=of)
                .map(|index| Shard { index, of })
                .filter(|shard| !shards.contains(shard))
                .map(|shard| shard.to_string())
                .collect();
            if !missing.is_empty() {
                self.gaps
                    .push(format!("shards without a run: {}", missing.join(", ")));
            }
        }
        let planned: BTreeSet<&str> = infos
            .iter()
            .flat_map(|i| i.trials.iter().map(String::as_str))
            .collect();
        let recorded: BTreeSet<&str> = self.records.iter().map(|r| r.trial.as_str()).collect();
        let mut missing: Vec<String> = planned
            .difference(&recorded)
            .map(|trial| format!("planned, but not run: {trial}"))
            .collect();
        bound(&mut missing, "trial");
        self.gaps.append(&mut missing);
        let whole = plan_checksum(planned.iter().copied()) == first.plan;
        if self.gaps.is_empty() && !shards.is_empty() && !whole {
            self.gaps
                .push("the shards together are not the plan that they were made of".to_owned());
        }
        self.info = Some(RunInfo {
            seed: first.seed,
            shard: None,
            plan: plan_checksum(planned.iter().copied()),
            planned: planned.len(),
            trials: planned.into_iter().map(str::to_owned).collect(),
        });
    }

    /// Puts the joined run in place under `out`, which must not exist yet, by one rename.
    pub fn write(&self, out: &Path) -> Result<(), MergeError> {
        history::put_new(out, |dir| {
            history::fill(dir, &self.records, self.info.as_ref())
        })?;
        Ok(())
    }
}

/// Tells the first few, and counts the others.
fn bound(lines: &mut Vec<String>, noun: &str) {
    if lines.len() > TOLD_MAX {
        let more = lines.len() - TOLD_MAX;
        lines.truncate(TOLD_MAX);
        lines.push(format!("and {} more", crate::text::count(more, noun)));
    }
}
