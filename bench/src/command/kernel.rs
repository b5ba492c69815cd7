//! `punchbench kernel`: the kernels that were fetched for `--kernel debian:SUITE`, which take some hundred
//! megabytes each.

use punchbench_guest::KernelSpec;
use punchbench_guest::cache::{self, CachedKernel};
use punchbench_results::exit_code;
use serde_json::json;

use crate::cli::KernelCommand;

/// Lists, fetches or removes.
pub fn run(command: &KernelCommand) -> anyhow::Result<u8> {
    match command {
        KernelCommand::List(args) => list(args.json)?,
        KernelCommand::Fetch { kernels } => {
            for (name, spec) in specs(kernels)? {
                let kernel = cache::fetch(&spec)?;
                println!("{name}: {} in {}", kernel.release, kernel.image.display());
            }
        }
        KernelCommand::Remove { kernels } => {
            for (name, spec) in specs(kernels)? {
                let removed = cache::remove(&spec)?;
                println!("{name}: removed {}", mib(removed.bytes));
            }
        }
    }
    Ok(exit_code::EXPECTED)
}

/// All of them before anything is done to the first.
fn specs(names: &[String]) -> anyhow::Result<Vec<(&String, KernelSpec)>> {
    names
        .iter()
        .map(|name| Ok((name, KernelSpec::parse(name)?)))
        .collect()
}

fn list(as_json: bool) -> anyhow::Result<()> {
    let kernels = cache::list()?;
    if as_json {
        let kernels: Vec<_> = kernels.iter().map(as_value).collect();
        println!(
            "{}",
            serde_json::to_string_pretty(&json!({"kernels": kernels}))?
        );
    } else if kernels.is_empty() {
        println!("none yet: `punchbench kernel fetch debian:bookworm` fetches one");
    }
    for kernel in kernels.iter().filter(|_| !as_json) {
        let release = match &kernel.release {
            Ok(release) => release.clone(),
            Err(error) => format!("unusable: {error}"),
        };
        println!("{:<20} {:>9}  {release}", kernel.name, mib(kernel.bytes));
    }
    Ok(())
}

fn as_value(kernel: &CachedKernel) -> serde_json::Value {
    json!({
        "kernel": kernel.name,
        "release": kernel.release.as_ref().ok(),
        "error": kernel.release.as_ref().err(),
        "path": kernel.path,
        "bytes": kernel.bytes,
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
