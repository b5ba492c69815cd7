//! The directory of a run: the journal, the tables, the logs, and what is needed to go on where a run was
//! interrupted.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use punchbench_results::record::{split_trial, trial_on};
use punchbench_results::run_info::plan_checksum;
use punchbench_results::{Journal, Record, RunInfo};

use crate::cli::RunArgs;
use crate::plan::{self, PlanError, Trial};
use crate::supervisor::Dirs;

/// Where results go unless told otherwise.
const PARENT: &str = "punchbench-results";

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
        let earlier = RunInfo::read(&path)?.map(|info| info.seed);
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
        info(args, seed, &plan)?.write(&path)?;
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

/// What is written down of the plan, for whoever goes on with it or joins its shards.
fn info(args: &RunArgs, seed: u64, plan: &[Trial]) -> Result<RunInfo, PlanError> {
    let whole = plan::make(
        &RunArgs {
            shard: None,
            ..args.clone()
        },
        seed,
    )?;
    let on_kernels = |plan: &[Trial]| -> Vec<String> {
        let on = |kernel: Option<&String>| {
            let ids = plan
                .iter()
                .map(move |t| trial_on(&t.id, kernel.map(String::as_str)));
            ids.collect::<Vec<_>>()
        };
        match args.kernel.as_slice() {
            [] => on(None),
            kernels => kernels.iter().flat_map(|k| on(Some(k))).collect(),
        }
    };
    let all = on_kernels(&whole);
    Ok(RunInfo {
        seed,
        shard: args.shard,
        plan: plan_checksum(all.iter().map(String::as_str)),
        planned: all.len(),
        trials: on_kernels(plan),
    })
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
