//! `punchbench run`: plan, sweep, install if asked, run here or on other kernels, report.

use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Context;
use punchbench_fs::inject::Injection;
use punchbench_fs::install::install;
use punchbench_fs::tools::FOR_GUESTS;
use punchbench_fs::tools::Tool;
use punchbench_fs::{self as fs_adapters, Privilege, sweep};
use punchbench_results::{
    Expectation, Record, Style, Verdict, exit_code, explain_failure, exporter,
};
use punchbench_sys::process::end_on_broken_pipe;

use crate::cli::RunArgs;
use crate::command::export;
use crate::guests;
use crate::outdir::OutDir;
use crate::plan::{PlanError, Trial};
use crate::progress::Reporter;
use crate::screen;
use crate::supervisor::{self, End, Signals};
use crate::target::Target;

/// Failures explained in full; the records have the others.
const EXPLAINED: usize = 10;

/// Added to a signal's number for the exit code of a run that it ended, as shells do.
pub const BY_SIGNAL: u8 = 128;

/// Does it all.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    export::check(&args.format)?;
    let signals = Signals::block()?;
    let required = required(args)?;
    let (out, end) = execute(args, &signals)?;
    // All is on disk; what is left is to say it.
    let _ = end_on_broken_pipe();
    report(args, &out, end, &required)
}

/// Runs the plan, and prints nothing but progress.
pub fn execute(args: &RunArgs, signals: &Signals) -> anyhow::Result<(OutDir, End)> {
    if let Some(kind) = &args.inject {
        Injection::parse(kind).map_err(|e| PlanError::Scenario(e.to_string()))?;
    }
    let mut out = OutDir::open(args)?;
    let mut reporter = Reporter::new(out.plan.len() * args.kernel.len().max(1));
    reporter.line(&format!(
        "results: {}, seed: {}",
        out.path.display(),
        out.seed
    ));
    if let Some(note) = out.journal.note() {
        reporter.line(note);
    }
    clear_up(args, &out, &reporter)?;
    if args.install {
        let log = out.path.join("install.log");
        for package in install(&tools(args, &out.plan), &log)? {
            reporter.line(&format!("installed {package}"));
        }
    }
    let end = if args.kernel.is_empty() {
        here(args, &mut out, signals, &mut reporter)?
    } else {
        guests::run(args, &mut out, signals, &mut reporter)?
    };
    reporter.end();
    out.tidy();
    Ok((out, end))
}

/// Runs the plan on this kernel.
fn here(
    args: &RunArgs,
    out: &mut OutDir,
    signals: &Signals,
    reporter: &mut Reporter,
) -> anyhow::Result<End> {
    let plan = out.plan.clone();
    let todo: Vec<(usize, &Trial)> = plan
        .iter()
        .enumerate()
        .skip(args.from)
        .filter(|(_, trial)| !out.has(trial, None))
        .collect();
    reporter.skip(plan.len() - todo.len());
    let dirs = out.dirs()?;
    let mut stream = args.records_to.as_deref().map(open_stream).transpose()?;
    supervisor::run(todo, args, &dirs, signals, reporter, &mut |record| {
        if let Some(stream) = &mut stream {
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            stream.write_all(&line).context("cannot pass a record on")?;
        }
        out.keep(record)
    })
}

fn open_stream(path: &Path) -> anyhow::Result<File> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.with_context(|| format!("cannot open {}", path.display()))
}

/// Removes what killed runs left behind.
fn clear_up(args: &RunArgs, out: &OutDir, reporter: &Reporter) -> anyhow::Result<()> {
    let work = out.dirs()?.work;
    let directories: Vec<&Path> = [Some(&work), args.in_dir.as_ref(), args.image_dir.as_ref()]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    match sweep(&directories) {
        Ok(lines) => lines
            .iter()
            .for_each(|line| reporter.line(&format!("left by an earlier run: {line}"))),
        // It is no reason not to run: whatever is in the way will say so itself.
        Err(error) => reporter.line(&format!(
            "cannot look for what earlier runs left behind: {error}"
        )),
    }
    Ok(())
}

fn tools(args: &RunArgs, plan: &[Trial]) -> Vec<Tool> {
    let mut tools: Vec<Tool> = plan.iter().flat_map(|trial| trial.target.tools()).collect();
    tools.dedup();
    tools.extend(args.holder.kind().tools());
    if !args.kernel.is_empty() {
        tools.extend(FOR_GUESTS);
    }
    tools
}

/// The filesystems that must not be skipped.
fn required(args: &RunArgs) -> Result<Vec<Target>, PlanError> {
    args.require
        .iter()
        .map(|name| Target::parse(name.trim()))
        .collect()
}

fn report(args: &RunArgs, out: &OutDir, end: End, required: &[Target]) -> anyhow::Result<u8> {
    let records = &out.records;
    let render = |format: &str, style| {
        exporter(format, style)
            .map(|e| e.render(records))
            .unwrap_or_default()
    };
    let table = out.path.join("table.md");
    fs::write(&table, render("markdown", Style::default()))
        .with_context(|| format!("cannot write {}", table.display()))?;
    for file in export::write_all(&args.format, records, &out.path)? {
        eprintln!("wrote {file}");
    }
    if args.json {
        print!("{}", render("json", Style::default()));
    } else {
        let style = Style {
            width: screen::width(),
            color: stdout().is_terminal(),
        };
        print!("{}", render("terminal", style));
        explain_failures(records);
    }
    let unmet = unmet(records, required);
    unmet.iter().for_each(|line| eprintln!("{line}"));
    if Privilege::current() != Privilege::Root {
        eprintln!(
            "not root: root would add the filesystems on loop devices: {}.",
            on_devices()
        );
    }
    Ok(match end {
        End::Interrupted(signal) => {
            let planned = out.plan.len() * args.kernel.len().max(1);
            let left = planned.saturating_sub(records.len());
            eprintln!(
                "ended by {signal}: {left} trials were not run; `--out {}` with the same options goes on",
                out.path.display()
            );
            BY_SIGNAL + signal as i32 as u8
        }
        End::Finished if !unmet.is_empty() => exit_code::UNEXPECTED,
        End::Finished => exit_code::of_records(records),
    })
}

fn explain_failures(records: &[Record]) {
    let failures: Vec<&Record> = records
        .iter()
        .filter(|r| r.expectation == Expectation::Unexpected || r.verdict == Verdict::Error)
        .collect();
    for record in failures.iter().take(EXPLAINED) {
        println!("\n{}", explain_failure(record));
    }
    if failures.len() > EXPLAINED {
        println!("\n{} more in records.jsonl", failures.len() - EXPLAINED);
    }
}

/// What --require asked for and did not get.
fn unmet(records: &[Record], required: &[Target]) -> Vec<String> {
    let of = |target: &Target| {
        let name = target.to_string();
        records.iter().filter(move |r| r.target == name)
    };
    required
        .iter()
        .filter_map(
            |target| match of(target).find(|r| r.verdict == Verdict::Skipped) {
                Some(skipped) => {
                    let help = skipped
                        .hint
                        .as_ref()
                        .map_or_else(String::new, |hint| format!(" ({hint})"));
                    Some(format!(
                        "required, but skipped: {target}: {}{help}",
                        skipped.reason
                    ))
                }
                None if of(target).next().is_none() => {
                    Some(format!("required, but not run: {target}"))
                }
                None => None,
            },
        )
        .collect()
}

fn on_devices() -> String {
    let targets = fs_adapters::Target::all(false);
    let names = targets.iter().filter(|t| t.is_on_device());
    names
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
