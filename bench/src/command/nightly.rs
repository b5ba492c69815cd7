//! `punchbench nightly`: one command for a timer. Chooses what teaches most within a budget of time, runs it on each
//! kernel, puts the night into the history, holds it against the nights before, and writes report and formats.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use punchbench_results::compare::Options;
use punchbench_results::history::{HistoryError, Retention};
use punchbench_results::{Comparison, History, Merged, Record, Source, Style, exit_code, report};

use crate::cli::{Cli, Command, NightlyArgs, RunArgs};
use crate::command::export;
use crate::command::report::{issues, now, write};
use crate::command::run::{BY_SIGNAL, execute};
use crate::night::{Candidate, Knowledge, fitting};
use crate::plan::{self, PlanError, Racing};
use crate::screen;
use crate::supervisor::{End, Signals};

/// Nights that are looked at to choose, and that a night is compared with.
const LOOKED_AT: usize = 14;

/// The name of this machine's own kernel on the command line.
const HERE: &str = "here";

/// Where batches are run, out of readers' sight.
const WORK: &str = ".work";

/// Set aside for reading, comparing and writing.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// What booting another kernel takes before the first trial, on an emulated CPU.
const BOOT: Duration = Duration::from_secs(90);

/// A night of one command.
struct Night<'a> {
    args: &'a NightlyArgs,
    history: History,
    earlier: Vec<Source>,
    work: PathBuf,
    deadline: Instant,
    /// What went wrong beside the trials; a night goes on with the next kernel.
    broken: Vec<String>,
}

/// Runs the night.
pub fn run(args: &NightlyArgs) -> anyhow::Result<u8> {
    let begun = Instant::now();
    export::check(&args.format)?;
    let kernels = kernels(args);
    // A wrong word must not cost a night.
    let plans = kernels
        .iter()
        .map(|kernel| pairs(args, kernel.as_deref()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let history = History::at(&args.history);
    let entries = history.entries()?;
    let mut earlier = Vec::new();
    for entry in entries.iter().rev().take(LOOKED_AT).rev() {
        match history.read(entry) {
            Ok(source) => earlier.push(source),
            Err(e) => eprintln!("{e}; left out"),
        }
    }
    let knowledge = Knowledge::of(&earlier);
    let mut night = Night {
        args,
        history,
        earlier,
        work: args.history.join(WORK),
        deadline: begun + args.budget.saturating_sub(AFTERWARDS),
        broken: Vec::new(),
    };
    if args.dry_run {
        return Ok(night.tell_plan(&kernels, plans, &knowledge));
    }
    let _lock = lock(&args.history)?;
    let signals = Signals::block()?;
    night.salvage()?;
    let mut signal = None;
    for (at, (kernel, pairs)) in kernels.iter().zip(plans).enumerate() {
        let left = kernels.len() - at;
        let candidates = knowledge.order(kernel.as_deref(), pairs, night.racing(kernel.as_deref()));
        match night.on_kernel(at, kernel.as_deref(), &candidates, left, &signals) {
            Ok(End::Finished) => {}
            Ok(End::Interrupted(came)) => {
                signal = Some(came);
                break;
            }
            Err(error) => {
                let name = kernel.as_deref().unwrap_or(HERE);
                night.broken.push(format!("kernel {name}: {error:#}"));
            }
        }
    }
    let code = night.end()?;
    Ok(signal.map_or(code, |signal| BY_SIGNAL + signal as i32 as u8))
}

/// `None` for this machine's.
fn kernels(args: &NightlyArgs) -> Vec<Option<String>> {
    let mut kernels: Vec<Option<String>> = Vec::new();
    for name in &args.kernel {
        let kernel = (name != HERE).then(|| name.clone());
        if !kernels.contains(&kernel) {
            kernels.push(kernel);
        }
    }
    if kernels.is_empty() {
        kernels.push(None);
    }
    kernels
}

/// The options of a run of ours, as a user would type them.
fn run_args(args: &NightlyArgs, kernel: Option<&str>) -> anyhow::Result<RunArgs> {
    let mut words: Vec<String> = vec!["punchbench".into(), "run".into()];
    let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
    if !args.fs.is_empty() {
        option("--fs", &args.fs.join(","));
    }
    let all = ["*".to_owned()];
    let scenarios = if args.scenario.is_empty() {
        &all
    } else {
        args.scenario.as_slice()
    };
    option("--scenario", &scenarios.join(","));
    if let Some(seconds) = args.seconds {
        option("--seconds", &seconds.to_string());
    }
    if let Some(kernel) = kernel {
        option("--kernel", kernel);
    }
    if args.all_profiles {
        words.push("--all-profiles".into());
    }
    if args.install {
        words.push("--install".into());
    }
    match Cli::try_parse_from(words)
        .map_err(|e| PlanError::Words(e.to_string()))?
        .command
    {
        Command::Run(run) => Ok(*run),
        other => bail!("not a run: {other:?}"),
    }
}

fn pairs(args: &NightlyArgs, kernel: Option<&str>) -> anyhow::Result<Vec<String>> {
    let plan = plan::make(&run_args(args, kernel)?, 0)?;
    Ok(plan.iter().map(plan::Trial::pair).collect())
}

/// Two nights at a time would race each other.
fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another night is running in {}: wait for it, or choose another --history",
                dir.display()
            )
        }
        Err(TryLockError::Error(e)) => {
            Err(e).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

impl Night<'_> {
    /// How long a trial races at least.
    fn racing(&self, kernel: Option<&str>) -> f64 {
        match run_args(self.args, kernel).map(|run| plan::racing(&run)) {
            Ok(Racing::Seconds { least, .. }) => least,
            _ => 0.0,
        }
    }

    /// Batches of what fits, until nothing fits any more: trials often take less time than was expected.
    fn on_kernel(
        &self,
        at: usize,
        kernel: Option<&str>,
        candidates: &[Candidate],
        kernels_left: usize,
        signals: &Signals,
    ) -> anyhow::Result<End> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + left / u32::try_from(kernels_left)?;
        let overhead = if kernel.is_some() {
            BOOT
        } else {
            Duration::ZERO
        };
        let mut rest = candidates;
        for batch in 0.. {
            let left = until.saturating_duration_since(Instant::now());
            let now = fitting(rest, left, overhead);
            if now == 0 {
                break;
            }
            let (chosen, later) = rest.split_at(now);
            rest = later;
            let mut run = run_args(self.args, kernel)?;
            run.pick = chosen.iter().map(|c| c.pair.clone()).collect();
            run.out = Some(self.work.join(format!("{at}-{batch}")));
            let (_, end) = execute(&run, signals)?;
            if let End::Interrupted(_) = end {
                return Ok(end);
            }
        }
        if !rest.is_empty() {
            let name = kernel.unwrap_or(HERE);
            eprintln!(
                "kernel {name}: the budget leaves {} of {} for later nights",
                rest.len(),
                candidates.len()
            );
        }
        Ok(End::Finished)
    }

    /// A night that died left its batches: they are a night of their own.
    fn salvage(&self) -> anyhow::Result<()> {
        let records = self.batches()?;
        if !records.is_empty() {
            let entry = self.history.add_records(&records, None)?;
            eprintln!(
                "{} trials of a night that was broken off are kept as {}",
                records.len(),
                entry.name
            );
        }
        self.clear()
    }

    /// The records of all batches.
    fn batches(&self) -> anyhow::Result<Vec<Record>> {
        let Ok(listing) = fs::read_dir(&self.work) else {
            return Ok(Vec::new());
        };
        let mut runs: Vec<PathBuf> = listing.flatten().map(|e| e.path()).collect();
        runs.retain(|run| run.join(punchbench_results::journal::FILE_NAME).exists());
        runs.sort();
        Ok(Merged::of(&runs)?.records)
    }

    fn clear(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.work) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("cannot remove {}", self.work.display()))
            }
            _ => Ok(()),
        }
    }

    /// Keeps the night, compares, and writes what people and programs read.
    fn end(&mut self) -> anyhow::Result<u8> {
        let records = self.batches()?;
        let entry = match self.history.add_records(&records, None) {
            Err(HistoryError::Empty { .. }) => {
                self.broken.iter().for_each(|line| eprintln!("{line}"));
                eprintln!("nothing was run: is the budget too small for a single trial?");
                return Ok(exit_code::NOTHING_RAN);
            }
            other => other?,
        };
        self.clear()?;
        let dir = &self.args.history;
        let tonight = self.history.read(&entry)?;
        let mut code = exit_code::of_records(&tonight.records);
        self.earlier.push(tonight);
        if self.earlier.len() > 1 {
            // A night is a part on purpose: the budget chose it.
            let mut comparison = Comparison::of(&self.earlier, Options { partial: true });
            comparison.problems.append(&mut self.broken.clone());
            let style = Style {
                width: screen::width(),
                color: false,
            };
            screen::print(&comparison.text(style))?;
            write(&dir.join("comparison.md"), &comparison.markdown())?;
            write(&dir.join("comparison.json"), &comparison.json())?;
            if comparison.alarms().next().is_some() {
                code = exit_code::UNEXPECTED;
            }
        } else {
            println!(
                "the first night: {} trials; the next one will be compared with it",
                records.len()
            );
        }
        for file in export::write_all(&self.args.format, &records, dir)? {
            println!("{file}");
        }
        let runs = report::runs_below(std::slice::from_ref(dir))?;
        let page = dir.join(report::FILE_NAME);
        write(&page, &report::render(&runs, &issues(), now())?)?;
        println!("{}\n{}", page.display(), entry.path.display());
        let keep = Retention {
            last: self.args.keep.max(1),
            monthly: self.args.monthly,
        };
        for name in self.history.prune(keep)? {
            println!("removed {name}, which was old");
        }
        self.broken.iter().for_each(|line| eprintln!("{line}"));
        Ok(match code {
            exit_code::EXPECTED if !self.broken.is_empty() => exit_code::BENCH_ERROR,
            code => code,
        })
    }

    fn tell_plan(
        &self,
        kernels: &[Option<String>],
        plans: Vec<Vec<String>>,
        knowledge: &Knowledge,
    ) -> u8 {
        let share = self.args.budget.saturating_sub(AFTERWARDS) / kernels.len() as u32;
        for (kernel, pairs) in kernels.iter().zip(plans) {
            let kernel = kernel.as_deref();
            let candidates = knowledge.order(kernel, pairs, self.racing(kernel));
            let overhead = if kernel.is_some() {
                BOOT
            } else {
                Duration::ZERO
            };
            let fit = fitting(&candidates, share, overhead);
            println!(
                "kernel {}: {fit} of {} fit",
                kernel.unwrap_or(HERE),
                candidates.len()
            );
            for c in &candidates[..fit] {
                println!("  {:<52} {:>6.1} s  {}", c.pair, c.seconds, c.why.words());
            }
        }
        exit_code::EXPECTED
    }
}
