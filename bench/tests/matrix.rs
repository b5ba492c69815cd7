//! Every scenario on every filesystem as a named test, `ext4::punch_while_read`, each a run of the program.
//!
//! A cell that cannot run here is ignored with its reason, except where `PUNCHBENCH_REQUIRE=ext4,xfs` (or
//! `supported`, for all that the kernel can mount) says that the filesystem must be there. `PUNCHBENCH_INSTALL=1` installs missing tools.
//! Profiles beside the base one (`ext4:1k::punch_while_read`) run with `--include-ignored`, or if required.
//! What fails is what the program calls unexpected: a violation that no known issue covers, a known issue that is gone, an error.

mod common;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use punchbench_fs::Target;
use punchbench_fs::kernel::{self, Support};
use punchbench_results::{Expectation, Verdict, explain_failure};
use punchbench_scenarios::catalog;

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // Races side by side would not be races.
    args.test_threads.get_or_insert(1);
    let required = match required() {
        Ok(required) => required,
        Err(error) => {
            eprintln!("PUNCHBENCH_REQUIRE: {error}");
            return ExitCode::FAILURE;
        }
    };
    let trials: Vec<Trial> = Target::all(true)
        .into_iter()
        .flat_map(|target| catalog().into_iter().map(move |s| (target, s.scenario)))
        .map(|(target, scenario)| {
            let (base, target) = (target.profile.name.is_empty(), target.to_string());
            let name = format!("{target}::{}", scenario.replace('-', "_"));
            let must = required.contains(&target);
            Trial::ignorable_test(name, move || cell(&target, &scenario, must))
                .with_ignored_flag(!base && !must)
        })
        .collect();
    // libtest-mimic would call that a success.
    if trials.iter().all(|trial| args.is_filtered_out(trial)) {
        eprintln!("no test matches: the matrix has `filesystem::scenario_name`, see --list");
        return ExitCode::FAILURE;
    }
    libtest_mimic::run(&args, trials).exit_code()
}

/// The targets that may not be skipped: a list, or `supported` for all that this kernel can mount.
fn required() -> Result<Vec<String>, String> {
    let list = std::env::var("PUNCHBENCH_REQUIRE").unwrap_or_default();
    if list == "supported" {
        let mountable = |driver: &str| !matches!(kernel::support(driver), Support::Missing(_));
        let all = Target::all(false).into_iter();
        let there = all.filter(|target| target.adapter.drivers().iter().any(|d| mountable(d)));
        return Ok(there.map(|target| target.to_string()).collect());
    }
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let parse = |name| {
        Target::parse(name)
            .map(|t| t.to_string())
            .map_err(|e| e.to_string())
    };
    names.map(parse).collect()
}

fn cell(target: &str, scenario: &str, must: bool) -> Result<Completion, Failed> {
    let mut words = vec!["--scenario", scenario, "--rounds", "2000"];
    let here = tempfile::tempdir()?;
    let dir = here.path().to_string_lossy();
    match target {
        "dir" => words.extend(["--in", &dir]),
        _ => words.extend(["--fs", target]),
    }
    if std::env::var_os("PUNCHBENCH_INSTALL").is_some_and(|v| v == "1") {
        words.push("--install");
    }
    let out = tempfile::tempdir()?;
    let output = common::command(&words, out.path()).output()?;
    let records = common::records(out.path());
    let said = || {
        format!(
            "{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    };
    let [record] = &records[..] else {
        return Err(format!("one record expected, {} came: {}", records.len(), said()).into());
    };
    match record.verdict {
        Verdict::Skipped if must => Err(format!("required, but skipped: {}", record.reason).into()),
        Verdict::Skipped | Verdict::Unsupported => {
            Ok(Completion::ignored_with(record.reason.clone()))
        }
        // On a busy machine some rounds are lost; the program itself never calls this a pass either.
        Verdict::Inconclusive => Ok(Completion::ignored_with(format!(
            "inconclusive: {}",
            record.reason
        ))),
        _ if record.expectation == Expectation::Expected => Ok(Completion::Completed),
        _ => Err(explain_failure(record).into()),
    }
}
