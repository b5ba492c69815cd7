//! `--kernel K`: the same plan by the same program, in a guest with another kernel. Records come back as they
//! are made; a guest that panics or hangs gets a record saying so, and the rest of the plan another guest.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use punchbench_fs::adapter::Store;
use punchbench_guest::init::RECORDS_PATH;
use punchbench_guest::{GuestEnd, GuestOutcome, GuestRun, Kernel, KernelSpec};
use punchbench_results::{Record, Verdict};

use crate::blank;
use crate::cli::RunArgs;
use crate::outdir::{self, OutDir};
use crate::plan::{self, Racing, Trial};
use crate::progress::Reporter;
use crate::supervisor::{End, Signals};

/// Memory for an image, its page cache and the tools.
const MEMORY_MIB: u32 = 2048;

/// CPUs: one for the invalidator, one for the fillers.
const CPUS: u32 = 2;

/// Booting, and what a trial takes beside racing, on an emulated CPU.
const BOOT: Duration = Duration::from_secs(120);
const SET_UP: Duration = Duration::from_secs(90);

/// A guest that says nothing for longer is not coming back, its own watchdog included.
const SILENCE: Duration = Duration::from_secs(240);

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
    if let Some(file) = args.scenario.iter().find(|name| name.ends_with(".yaml")) {
        bail!("{file}: only built-in scenarios can be run on another kernel");
    }
    for name in &args.kernel {
        let kernel = KernelSpec::parse(name)?.resolve()?;
        reporter.line(&format!("kernel {name}: {}", kernel.release));
        if let End::Interrupted(signal) = on_kernel(args, name, &kernel, out, signals, reporter)? {
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
    let first_open = |out: &OutDir| plan.iter().position(|trial| !out.has(trial, Some(name)));
    let mut from = first_open(out).unwrap_or(plan.len());
    reporter.skip(from);
    while from < plan.len() {
        let log = out.path.join(format!(
            "console-{}-{from:04}.log",
            name.replace(['/', ':'], "-")
        ));
        let guest = guest(args, kernel, &plan, from, &log, out.seed)?;
        let mut broken = None;
        let outcome = guest.run_until(Some(signals.as_fd()), &mut |line| {
            if let Err(error) = take_in(line, name, out, reporter) {
                broken.get_or_insert(error);
            }
        });
        let outcome = match (outcome, signals.came()) {
            (_, Some(signal)) => return Ok(End::Interrupted(signal)),
            (outcome, None) => outcome?,
        };
        if let Some(error) = broken {
            return Err(error);
        }
        let Some(next) = first_open(out) else { break };
        // Whatever was first without a record is what the guest ended in.
        let record = not_recorded(&plan[next], name, kernel, &outcome, &log);
        reporter.finished(&record);
        out.keep(record)?;
        from = first_open(out).unwrap_or(plan.len());
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
    // In the order of the plan, by name.
    let mut named: Vec<&str> = Vec::new();
    for trial in plan {
        if !named.contains(&trial.scenario.scenario.as_str()) {
            named.push(&trial.scenario.scenario);
            option("--scenario", trial.scenario.scenario.clone());
        }
    }
    option("--seed", seed.to_string());
    option("--repeat", args.repeat.to_string());
    option("--from", from.to_string());
    option("--patience", args.patience.to_string());
    let racing = match plan::racing(args) {
        Racing::Seconds(s) => {
            option("--seconds", s.to_string());
            Duration::from_secs_f64(s)
        }
        Racing::Rounds(n) => {
            option("--rounds", n.to_string());
            // An emulated CPU manages some hundreds a second at its worst.
            Duration::from_secs(n / 100)
        }
    };
    if let Some(kind) = &args.inject {
        option("--inject", kind.clone());
    }
    let mut tools: Vec<String> = plan
        .iter()
        .flat_map(|t| t.target.tools())
        .map(|tool| tool.name.to_owned())
        .collect();
    tools.dedup();
    let mut modules: Vec<String> = vec!["loop".to_owned()];
    for trial in plan
        .iter()
        .filter(|t| matches!(t.target.adapter.store(), Store::Device(_)))
    {
        modules.extend(
            trial
                .target
                .adapter
                .drivers()
                .iter()
                .map(|driver| (*driver).to_owned()),
        );
    }
    modules.sort_unstable();
    modules.dedup();
    let trials = u32::try_from(plan.len() - from)?;
    Ok(GuestRun {
        kernel: kernel.clone(),
        program: std::env::current_exe()?,
        argv,
        tools,
        modules,
        memory_mib: MEMORY_MIB,
        cpus: CPUS,
        deadline: BOOT + trials * (racing + SET_UP),
        silence: SILENCE + racing,
        console_log: Some(log.to_owned()),
    })
}

/// A record from the guest becomes one of this run.
fn take_in(
    line: &str,
    kernel: &str,
    out: &mut OutDir,
    reporter: &mut Reporter,
) -> anyhow::Result<()> {
    let mut record: Record = serde_json::from_str(line)?;
    record.trial = outdir::id_on(&record.trial, Some(kernel));
    record.replay = format!("{} --kernel {kernel}", record.replay);
    // Paths in the guest are gone with it.
    record.artefacts.clear();
    if out.records.iter().any(|r| r.trial == record.trial) {
        return Ok(());
    }
    reporter.finished(&record);
    out.keep(record)
}

/// The record of the trial that a guest ended in.
fn not_recorded(
    trial: &Trial,
    name: &str,
    kernel: &Kernel,
    outcome: &GuestOutcome,
    log: &Path,
) -> Record {
    let mut record = blank::record(trial);
    record.trial = outdir::id_on(&trial.id, Some(name));
    record.replay = format!("{} --kernel {name}", trial.replay);
    record.kernel = outcome
        .release
        .clone()
        .unwrap_or_else(|| kernel.release.clone());
    record.kernel_version = String::new();
    record.started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let (verdict, reason) = match &outcome.end {
        GuestEnd::Panic => (
            Verdict::KernelReport,
            "the guest's kernel panicked".to_owned(),
        ),
        GuestEnd::Oops => (
            Verdict::KernelReport,
            "the guest's kernel oopsed, and the run did not end".to_owned(),
        ),
        GuestEnd::Hung { silent: true } if outcome.boot.is_some() => (
            Verdict::Hung,
            "the guest fell silent, its own watchdog included".to_owned(),
        ),
        GuestEnd::Hung { .. } if outcome.boot.is_none() => {
            (Verdict::Error, "the guest did not boot in time".to_owned())
        }
        GuestEnd::Hung { .. } => (
            Verdict::Error,
            "the guest did not get through the plan in time".to_owned(),
        ),
        GuestEnd::EarlyExit { qemu } => (
            Verdict::Error,
            format!("the machine ended by itself: {qemu}"),
        ),
        GuestEnd::Done { exit } => (
            Verdict::Error,
            format!("the run in the guest ended with code {exit} without this trial's record"),
        ),
    };
    (record.verdict, record.reason) = (verdict, reason);
    record.log = outcome.console_tail.clone();
    record.artefacts = vec![log.display().to_string()];
    blank::judge_expectation(&mut record);
    record
}
