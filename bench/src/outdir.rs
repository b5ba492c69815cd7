//! The directory of a run: the journal, the tables, the logs, and what is needed to go on where a run was
//! interrupted.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use punchbench_results::record::{split_trial, trial_on};
use punchbench_results::{Journal, Record};
use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::plan::{self, PlanError, Trial};
use crate::supervisor::Dirs;

/// Where results go unless told otherwise.
const PARENT: &str = "punchbench-results";

/// What a resumed run must know of the one before.
const SEED_FILE: &str = "run.json";

#[derive(Debug, Serialize, Deserialize)]
struct Run {
    seed: u64,
}

/// An open directory.
#[derive(Debug)]
pub struct OutDir {
    /// Its path.
    pub path: PathBuf,
    /// Where records go.
    pub journal: Journal,
    /// Records of the plan, from an earlier run as well.
    pub records: Vec<Record>,
    /// The trials.
    pub plan: Vec<Trial>,
    /// The run's seed.
    pub seed: u64,
}

impl OutDir {
    /// Makes the plan and opens the directory for it; makes nothing if there is no plan.
    pub fn open(args: &RunArgs) -> anyhow::Result<OutDir> {
        let path = match &args.out {
            Some(dir) => dir.clone(),
            None => Path::new(PARENT).join(now()),
        };
        let earlier = earlier_seed(&path)?;
        // Short enough to be typed, and exact in every JSON reader.
        let seed = args
            .seed
            .or(earlier)
            .unwrap_or_else(|| u64::from(rand::random::<u32>()));
        let plan = plan::make(args, seed)?;
        let (journal, records) = Journal::create_or_resume(&path)?;
        let known: HashSet<&str> = plan.iter().map(|t| t.id.as_str()).collect();
        let of_plan = |r: &Record| known.contains(split_trial(&r.trial).1);
        if !records.is_empty() && !records.iter().all(of_plan) {
            bail!(
                "{} holds the records of another plan (other scenarios, targets, seed or duration); choose \
                 another directory with --out, or repeat the options of that run to go on with it",
                path.display()
            );
        }
        let file = path.join(SEED_FILE);
        fs::write(&file, serde_json::to_vec(&Run { seed })?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(OutDir {
            path,
            journal,
            records,
            plan,
            seed,
        })
    }

    /// Whether a trial was finished, here or on the named other kernel.
    pub fn has(&self, trial: &Trial, kernel: Option<&str>) -> bool {
        let id = trial_on(&trial.id, kernel);
        self.records.iter().any(|r| r.trial == id)
    }

    /// Keeps a record.
    pub fn keep(&mut self, record: Record) -> anyhow::Result<()> {
        self.journal.append(&record)?;
        self.records.push(record);
        Ok(())
    }

    /// The directories that trials use, made if need be.
    pub fn dirs(&self) -> anyhow::Result<Dirs> {
        let make = |name: &str| -> anyhow::Result<PathBuf> {
            let dir = self.path.join(name);
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            std::path::absolute(&dir).with_context(|| format!("cannot resolve {}", dir.display()))
        };
        Ok(Dirs {
            logs: make("logs")?,
            work: make("work")?,
        })
    }

    /// Takes away directories that nothing was left in.
    pub fn tidy(&self) {
        for name in ["logs", "work"] {
            // Not empty is what it may well be.
            let _ = fs::remove_dir(self.path.join(name));
        }
    }
}

fn earlier_seed(path: &Path) -> anyhow::Result<Option<u64>> {
    let file = path.join(SEED_FILE);
    match fs::read(&file) {
        Ok(text) => {
            let run: Run = serde_json::from_slice(&text).with_context(|| {
                format!(
                    "{} is not a punchbench run's; choose another --out",
                    file.display()
                )
            })?;
            Ok(Some(run.seed))
        }
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .replace(':', "")
}

/// True for an error that the user's words caused.
pub fn is_usage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<PlanError>().is_some()
}
