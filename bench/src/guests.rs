//! `--kernel K`, once or more: finds all kernels, then runs a guest for each, side by side where CPUs and memory
//! allow. Each guest is watched by a thread of its own; records are kept, and progress shown, by this one.

use std::os::fd::AsFd;
use std::sync::{Mutex, mpsc};
use std::thread;

use anyhow::bail;
use punchbench_fs::image::memory_available;
use punchbench_guest::KernelSpec;

use crate::cli::RunArgs;
use crate::guest::{self, Job, Told};
use crate::outdir::OutDir;
use crate::plan::Trial;
use crate::progress::Reporter;
use crate::supervisor::{End, Signals};

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
    let (plan, dir, seed) = (out.plan.clone(), out.path.clone(), out.seed);
    let mut jobs: Vec<Job> = Vec::new();
    for (name, spec) in args.kernel.iter().zip(&specs) {
        if jobs.iter().any(|job| job.name == name) {
            continue;
        }
        let kernel = spec.resolve();
        if let Some(signal) = signals.came() {
            return Ok(End::Interrupted(signal));
        }
        jobs.push(Job {
            args,
            name,
            kernel: kernel?,
            plan: &plan,
            done: plan.iter().map(|t| out.has(t, Some(name))).collect(),
            dir: &dir,
            seed,
        });
    }
    let at_once = at_once(args.memory, &plan).min(jobs.len());
    side_by_side(jobs, at_once, signals, &mut |told| {
        match told {
            Told::Line(line) => reporter.line(&line),
            Told::Skip(trials) => reporter.skip(trials),
            Told::Record(record) => {
                reporter.finished(&record);
                out.keep(*record)?;
            }
        }
        Ok(())
    })?;
    Ok(signals.came().map_or(End::Finished, End::Interrupted))
}

/// How many guests this machine carries: their racing actors want their CPUs for themselves; who is parked in a
/// staged attempt uses none.
fn at_once(memory_mib: u32, plan: &[Trial]) -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let each = match plan.iter().all(|trial| trial.scenario.is_staged()) {
        true => 1,
        false => guest::CPUS as usize,
    };
    let room = memory_available().map_or(1, |bytes| bytes / (u64::from(memory_mib) << 20));
    (cpus / each)
        .min(usize::try_from(room).unwrap_or(usize::MAX))
        .max(1)
}

/// Runs the jobs, so many at a time. What they tell comes one after the other; once `take` fails, no other guest
/// is started.
fn side_by_side(
    jobs: Vec<Job>,
    at_once: usize,
    signals: &Signals,
    take: &mut dyn FnMut(Told) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let jobs = Mutex::new(jobs.into_iter());
    let next = || jobs.lock().unwrap_or_else(|e| e.into_inner()).next();
    let (tell, told) = mpsc::channel();
    // It is read, and so taken away from the other guests, by nobody until all have ended.
    let stop = signals.as_fd();
    thread::scope(|scope| {
        for _ in 0..at_once {
            let tell = tell.clone();
            scope.spawn(move || {
                while let Some(job) = next() {
                    let on = job
                        .run(stop, &mut |told| tell.send(Ok(told)).is_ok())
                        .or_else(|error| tell.send(Err(error)).map(|()| true));
                    if !on.unwrap_or(false) {
                        return;
                    }
                }
            });
        }
        drop(tell);
        told.into_iter().try_for_each(|told| take(told?))
    })
}
