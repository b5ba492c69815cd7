//! The same plan by the same program, in a guest with another kernel. Records come back as they are made; a
//! guest that panics or hangs gets a record saying so, and the rest of the plan another guest.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use punchbench_fs::Target as Mounted;
use punchbench_fs::image::NO_ROOM;
use punchbench_guest::init::RECORDS_PATH;
use punchbench_guest::{GuestError, GuestRun, Kernel, News};
use punchbench_results::record::trial_on;
use punchbench_results::{Record, Verdict};

use crate::blank;
use crate::cli::{self, RunArgs};
use crate::guest_end::{
    did_not_boot, more_memory, not_recorded, outcome_lines, ran_something, replay_on,
};
use crate::guest_gaps::Gaps;
use crate::plan::{self, Racing, Trial};

/// CPUs: one for the invalidator, one for the fillers.
pub const CPUS: u32 = 2;

/// How often a guest is booted that does not come up: emulated machines have been seen to stop on the way, or to
/// panic, once in many. Nothing was raced then, so nothing is hidden.
const BOOTS: u32 = 2;

/// What a filesystem that wants persistent memory gets of it: the usual image, and mkfs.xfs's least.
const PMEM_MIB: u32 = 384;

/// How long a guest may take on an emulated CPU, if phases have the usual patience.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits {
    boot: Duration,
    /// What a trial takes beside racing.
    set_up: Duration,
    /// One that says nothing for longer is not coming back, its own watchdog included.
    silence: Duration,
    /// Of a trial.
    racing: Duration,
}

impl Limits {
    /// For a machine as slow as `patience` (in seconds) says; a test's impatience makes it no faster.
    fn new(patience: f64, racing: Duration) -> Limits {
        let slowness = (patience / cli::PATIENCE_S).max(1.0);
        let seconds = |s: u64| Duration::from_secs(s).mul_f64(slowness);
        Limits {
            boot: seconds(120),
            set_up: seconds(90),
            silence: seconds(240),
            racing: racing.mul_f64(slowness),
        }
    }

    fn deadline(&self, trials: u32) -> Duration {
        self.boot + trials * (self.racing + self.set_up)
    }
}

/// What a guest's thread tells the run's own.
#[derive(Debug)]
pub enum Told {
    /// Something worth a line.
    Line(String),
    /// So many trials need not be run again.
    Skip(usize),
    /// A trial has ended.
    Record(Box<Record>),
}

/// One kernel's part of a run.
#[derive(Debug)]
pub struct Job<'a> {
    /// The run's options.
    pub args: &'a RunArgs,
    /// The kernel, as the command line names it.
    pub name: &'a str,
    /// What that is.
    pub kernel: Kernel,
    /// All trials.
    pub plan: &'a [Trial],
    /// Whether each of them is finished.
    pub done: Vec<bool>,
    /// Where the console's logs go.
    pub dir: &'a Path,
    /// The run's seed.
    pub seed: u64,
}

impl Job<'_> {
    /// Runs what is open, in as many guests as it takes, until `stop` can be read. It tells all that happens; once
    /// nobody listens, no other guest is started. Whether other jobs should be.
    pub fn run(
        mut self,
        stop: BorrowedFd,
        tell: &mut dyn FnMut(Told) -> bool,
    ) -> anyhow::Result<bool> {
        let line = format!("kernel {}: {}", self.name, self.kernel.release);
        let mut heard =
            tell(Told::Line(line)) && tell(Told::Skip(self.plan.len() - self.open().len()));
        let mut boots_left = BOOTS;
        while let Some(&from) = self.open().first()
            && heard
        {
            let again = if boots_left < BOOTS { "-again" } else { "" };
            let log = self.dir.join(format!(
                "console-{}-{from:04}{again}.log",
                self.name.replace(['/', ':'], "-")
            ));
            let guest = guest(self.args, &self.kernel, self.plan, from, &log, self.seed)?;
            let mut gaps = Gaps::of(&self.kernel);
            let (mut broken, mut hung) = (None, false);
            let outcome = guest.run_until(Some(stop), &mut |news| {
                gaps.note(&news);
                if let News::Record(line) = news {
                    match self.take_in(line, &gaps) {
                        Ok(Some(record)) => {
                            hung = record.verdict == Verdict::Hung;
                            heard &= tell(Told::Record(Box::new(record)));
                        }
                        Ok(None) => {}
                        Err(error) => drop(broken.get_or_insert(error)),
                    }
                }
            });
            if let Some(error) = broken {
                return Err(error);
            }
            match &outcome {
                Ok(outcome) => {
                    for line in outcome_lines(outcome) {
                        tell(Told::Line(format!("{}: {line}", self.name)));
                    }
                }
                Err(GuestError::Interrupted) => return Ok(false),
                Err(_) => {}
            }
            boots_left -= 1;
            if did_not_boot(&outcome) && boots_left > 0 {
                let line = format!("{}: did not boot, and is booted once more", self.name);
                heard &= tell(Told::Line(line));
                continue;
            }
            boots_left = BOOTS;
            if hung {
                // It ended with that trial, which has its record: however it did, no other is to blame.
                continue;
            }
            // Whatever was first without a record is what the guest ended in. Where nothing ran at all, nothing
            // would the next time.
            let lost = if ran_something(&outcome) {
                1
            } else {
                self.plan.len()
            };
            for at in self.open().into_iter().take(lost) {
                self.done[at] = true;
                let (trial, memory) = (&self.plan[at], self.args.memory);
                let record = not_recorded(trial, self.name, &self.kernel, memory, &outcome, &log);
                heard &= tell(Told::Record(Box::new(record)));
            }
        }
        Ok(heard)
    }

    /// Positions of trials without a record.
    fn open(&self) -> Vec<usize> {
        (0..self.plan.len()).filter(|&at| !self.done[at]).collect()
    }

    /// A record from the guest becomes one of this run, unless there is one already.
    fn take_in(&mut self, line: &str, gaps: &Gaps) -> anyhow::Result<Option<Record>> {
        let mut record: Record = serde_json::from_str(line)?;
        if let Ok(target) = Mounted::parse(&record.target) {
            gaps.judge(&target, &mut record);
            blank::judge_expectation(&mut record);
        }
        if record.verdict == Verdict::Error && record.reason.starts_with(NO_ROOM) {
            record.hint = Some(format!(
                "the guest's memory holds the image: {}",
                more_memory(self.args.memory)
            ));
        }
        // Where the scenario is a file, the guest has it elsewhere.
        let planned = self.plan.iter().position(|trial| trial.id == record.trial);
        if let Some(at) = planned
            && std::mem::replace(&mut self.done[at], true)
        {
            return Ok(None);
        }
        let replay = planned.map_or(&record.replay, |at| &self.plan[at].replay);
        record.replay = replay_on(replay, self.name, self.args.memory);
        record.trial = trial_on(&record.trial, Some(self.name));
        // Paths in the guest are gone with it.
        record.artefacts.clear();
        Ok(Some(record))
    }
}

/// The guest's command line is ours, without what only concerns this side.
fn guest(
    args: &RunArgs,
    kernel: &Kernel,
    plan: &[Trial],
    from: usize,
    log: &Path,
    seed: u64,
) -> anyhow::Result<GuestRun> {
    let mut targets: Vec<String> = plan.iter().map(|trial| trial.target.to_string()).collect();
    targets.dedup();
    let mut argv: Vec<String> = [
        "punchbench",
        "run",
        "--out",
        "/tmp/out",
        "--records-to",
        RECORDS_PATH,
    ]
    .map(str::to_owned)
    .into();
    let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
    option("--fs", targets.join(","));
    // In the order of the plan, by name; files come along.
    let mut files = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for trial in plan {
        if !named.contains(&trial.scenario.scenario.as_str()) {
            named.push(&trial.scenario.scenario);
            option("--scenario", in_guest(trial, &mut files)?);
        }
    }
    // What is no product of targets and scenarios is named pair by pair, so that the guest makes the same plan in
    // the same order.
    let whole = args.shard.is_none() && args.pick.is_empty();
    if !whole || plan.iter().any(|t| t.target.mounted().is_none()) {
        let mut pairs: Vec<String> = plan.iter().map(Trial::pair).collect();
        pairs.dedup();
        option("--pick", pairs.join(","));
    }
    if let Some(shard) = args.shard {
        option("--shard", shard.to_string());
    }
    option("--seed", seed.to_string());
    // Its memory has room for one image.
    option("--jobs", "1".to_owned());
    option("--repeat", args.repeat.to_string());
    option("--from", from.to_string());
    option("--patience", args.patience.to_string());
    let racing = match plan::racing(args) {
        Racing::Seconds { least, most } => {
            option("--seconds", least.to_string());
            option("--most", most.to_string());
            Duration::from_secs_f64(most)
        }
        Racing::Rounds(n) => {
            option("--rounds", n.to_string());
            // An emulated CPU manages some hundreds a second at its worst.
            Duration::from_secs(n / 100)
        }
    };
    option("--holder", args.holder.kind().word().to_owned());
    if let Some(kind) = &args.inject {
        option("--inject", kind.clone());
    }
    if args.phases {
        argv.push("--phases".to_owned());
    }
    let mut tools: Vec<String> = plan
        .iter()
        .flat_map(|t| t.target.tools())
        .chain(args.holder.kind().tools().iter().copied())
        .map(|tool| tool.name.to_owned())
        .collect();
    tools.dedup();
    let mut modules: Vec<String> = plan
        .iter()
        .flat_map(|t| t.target.modules())
        .chain(["loop"])
        .chain(args.holder.kind().modules().iter().copied())
        .map(str::to_owned)
        .collect();
    modules.sort_unstable();
    modules.dedup();
    let mounted = plan.iter().filter_map(|t| t.target.mounted());
    let is_dax = mounted.into_iter().any(|t| t.profile.is_dax());
    let trials = u32::try_from(plan.len() - from)?;
    let limits = Limits::new(args.patience, racing);
    Ok(GuestRun {
        kernel: kernel.clone(),
        program: std::env::current_exe()?,
        argv,
        tools,
        files,
        modules,
        pmem_mib: if is_dax { PMEM_MIB } else { 0 },
        memory_mib: args.memory,
        boot: limits.boot,
        cpus: CPUS,
        deadline: limits.deadline(trials),
        silence: limits.silence + limits.racing,
        console_log: Some(log.to_owned()),
    })
}

/// What names a trial's scenario in the guest.
fn in_guest(trial: &Trial, files: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<String> {
    let Some(file) = trial.scenario_file() else {
        return Ok(trial.scenario.scenario.clone());
    };
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    // Its name must stay the scenario's.
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let there = format!("/{name}");
    files.push((there.clone(), text));
    Ok(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_on_a_slow_machine_is_given_more_time_and_never_less() {
        let racing = Duration::from_secs(10);
        let usual = Limits::new(cli::PATIENCE_S, racing);
        assert_eq!(usual.deadline(3), Duration::from_secs(120 + 3 * 100));
        let slow = Limits::new(3.0 * cli::PATIENCE_S, racing);
        assert_eq!(slow.boot, 3 * usual.boot);
        assert_eq!(slow.silence, 3 * usual.silence);
        assert_eq!(slow.deadline(3), 3 * usual.deadline(3));
        assert_eq!(Limits::new(1.0, racing), usual);
    }
}
