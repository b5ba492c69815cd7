//! `punchbench export FORMAT DIR…`: the records of runs in a format that another program reads.

use std::path::Path;

use punchbench_results::format::kcidb::Kcidb;
use punchbench_results::{Exporter, Record, Source, Style, exit_code, exporter, exporters};

use crate::cli::ExportArgs;
use crate::plan::{PlanError, nearest};
use crate::screen;

/// Exports to standard output, or to a file that is there whole or not at all.
pub fn run(args: &ExportArgs) -> anyhow::Result<u8> {
    let format = find(&args.format)?;
    let format = match &args.origin {
        Some(_) if format.name() != "kcidb" => {
            return Err(
                PlanError::Words("--origin is for the format kcidb alone".to_owned()).into(),
            );
        }
        Some(origin) => Box::new(Kcidb {
            origin: origin.clone(),
        }) as Box<dyn Exporter>,
        None => format,
    };
    let sources = Source::read_all(&args.runs).map_err(|e| PlanError::Words(e.to_string()))?;
    let mut records: Vec<Record> = Vec::new();
    for source in sources {
        source.problems.iter().for_each(|p| eprintln!("{p}"));
        if source.records.is_empty() && !source.cells.is_empty() {
            let text = format!("{} is a table: only records can be exported", source.name);
            return Err(PlanError::Words(text).into());
        }
        records.extend(source.records);
    }
    let text = format.render(&records);
    match &args.output {
        Some(path) => punchbench_results::report::write(path, &text)?,
        None => screen::print(&text)?,
    }
    Ok(if records.is_empty() {
        exit_code::NOTHING_RAN
    } else {
        exit_code::EXPECTED
    })
}

/// The format by that name.
fn find(name: &str) -> Result<Box<dyn Exporter>, PlanError> {
    exporter(name, Style::default()).ok_or_else(|| {
        let all = exporters(Style::default());
        let names: Vec<&str> = all.iter().map(|e| e.name()).collect();
        let hint = nearest(name, names.iter().copied())
            .map_or_else(String::new, |n| format!("; did you mean `{n}`?"));
        PlanError::Words(format!(
            "there is no format `{name}`{hint} There are: {}",
            names.join(", ")
        ))
    })
}

/// Checks the names given with `run --format`, before anything is run.
pub fn check(names: &[String]) -> Result<(), PlanError> {
    names.iter().try_for_each(|name| find(name).map(|_| ()))
}

/// Writes the named formats into a run's directory; returns the files.
pub fn write_all(names: &[String], records: &[Record], dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for name in names {
        let format = find(name)?;
        let path = dir.join(format.file_name());
        punchbench_results::report::write(&path, &format.render(records))?;
        files.push(path.display().to_string());
    }
    Ok(files)
}
