//! `--kernel K`: the same plan by the same program, in a guest with another kernel. Records come back as they
//! are made; a guest that panics or hangs gets a record saying so, and the rest of the plan another guest.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use punchbench_fs::Target as Mounted;
use punchbench_guest::init::RECORDS_PATH;
use punchbench_guest::{GuestRun, Kernel, KernelSpec, News};
use punchbench_results::Record;
use punchbench_results::record::trial_on;

use crate::blank;
use crate::cli::{self, RunArgs};
use crate::guest_end::{not_recorded, outcome_lines, ran_something, replay_on};
use crate::guest_gaps::Gaps;
use crate::outdir::OutDir;
use crate::plan::{self, Racing, Trial};
use crate::progress::Reporter;
use crate::supervisor::{End, Signals};

/// CPUs: one for the invalidator, one for the fillers.
const CPUS: u32 = 2;

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

/// Runs the plan on each kernel.
pub fn run(
    args: &RunArgs,
    out: &mut OutDir,
    signals: &Signals,
    reporter: &mut Reporter,
) -> anyhow::Result<End> {
    let here_only = [
        ("--in", args.in_dir.is_some()),
        ("--device", args.device.is_some()),
    ];
    if let Some((option, _)) = here_only.iter().find(|(_, given)| *given) {
        bail!(
            "{option} names something of this machine, which a guest with another kernel does not have"
        );
    }
    // All are found before the first is raced: a wrong word in the last one should not cost a night.
    let specs: Vec<KernelSpec> = args
        .kernel
        .iter()
        .map(|name| KernelSpec::parse(name))
        .collect::<Result<_, _>>()?;
    let mut kernels = Vec::new();
    for (name, spec) in args.kernel.iter().zip(&specs) {
        if kernels.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let kernel = spec.resolve();
        if let Some(signal) = signals.came() {
            return Ok(End::Interrupted(signal));
        }
        kernels.push((name, kernel?));
    }
    for (name, kernel) in &kernels {
        reporter.line(&format!("kernel {name}: {}", kernel.release));
        if let End::Interrupted(signal) = on_kernel(args, name, kernel, out, signals, reporter)? {
            return Ok(End::Interrupted(signal));
        }
    }
    Ok(End::Finished)
}

fn on_kernel(
    args: &RunArgs,
    name: &str,
    kernel: &Kernel,
    out: &mut OutDir,
    signals: &Signals,
    reporter: &mut Reporter,
) -> anyhow::Result<End> {
    let plan = out.plan.clone();
    let open = |out: &OutDir| -> Vec<usize> {
        (0..plan.len())
            .filter(|&at| !out.has(&plan[at], Some(name)))
            .collect()
    };
    let mut left = open(out);
    reporter.skip(plan.len() - left.len());
    while let Some(&from) = left.first() {
        let log = out.path.join(format!(
            "console-{}-{from:04}.log",
            name.replace(['/', ':'], "-")
        ));
        let guest = guest(args, kernel, &plan, from, &log, out.seed)?;
        let mut broken = None;
        let mut gaps = Gaps::of(kernel);
        let outcome = guest.run_until(Some(signals.as_fd()), &mut |news| {
            gaps.note(&news);
            if let News::Record(line) = news
                && let Err(error) = take_in(line, name, args.memory, &gaps, out, reporter)
            {
                broken.get_or_insert(error);
            }
        });
        if let Some(signal) = signals.came() {
            return Ok(End::Interrupted(signal));
        }
        if let Some(error) = broken {
            return Err(error);
        }
        if let Ok(outcome) = &outcome {
            outcome_lines(outcome)
                .iter()
                .for_each(|line| reporter.line(line));
        }
        left = open(out);
        // Whatever was first without a record is what the guest ended in. Where nothing ran at all, nothing
        // would the next time.
        let lost = if ran_something(&outcome) {
            1
        } else {
            left.len()
        };
        for &at in left.iter().take(lost) {
            let record = not_recorded(&plan[at], name, kernel, args.memory, &outcome, &log);
            reporter.finished(&record);
            out.keep(record)?;
        }
        left = open(out);
    }
    Ok(End::Finished)
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

/// A record from the guest becomes one of this run.
fn take_in(
    line: &str,
    kernel: &str,
    memory: u32,
    gaps: &Gaps,
    out: &mut OutDir,
    reporter: &mut Reporter,
) -> anyhow::Result<()> {
    let mut record: Record = serde_json::from_str(line)?;
    if let Ok(target) = Mounted::parse(&record.target) {
        gaps.judge(&target, &mut record);
        blank::judge_expectation(&mut record);
    }
    // Where the scenario is a file, the guest has it elsewhere.
    let planned = out.plan.iter().find(|trial| trial.id == record.trial);
    let replay = planned.map_or(&record.replay, |trial| &trial.replay);
    record.replay = replay_on(replay, kernel, memory);
    record.trial = trial_on(&record.trial, Some(kernel));
    // Paths in the guest are gone with it.
    record.artefacts.clear();
    if out.records.iter().any(|r| r.trial == record.trial) {
        return Ok(());
    }
    reporter.finished(&record);
    out.keep(record)
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
