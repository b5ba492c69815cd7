//! One self-contained HTML file: the newest run as a heat map, what changed, each cell's evidence, and the trend over
//! all runs. It opens from disk, loads nothing, and works without scripts: drilling down is a link to a part of the
//! page that is shown only while it is the target. Scripts add filters and arrow keys.
//!
//! The page's looks are in `report.html`, `report.css` and `report.js` beside this file; here is what it says.

mod cells;
mod glance;
mod trend;

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;

use crate::compare::Options;
use crate::history::Entry;
use crate::table::{Mark, Summary};
use crate::text::rfc3339;
use crate::{Comparison, History, Source, SourceError, explain_failure};

use cells::{CellView, Kernel};
use trend::Trends;

/// A page with more runs than that shows the newest: a trend of years is a question for `history`.
const RUNS_MAX: usize = 400;

/// Changes told on the page; `compare` tells all.
const CHANGES_MAX: usize = 200;

/// What a known issue says, for readers of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Its name, as in records.
    pub name: String,
    /// What is wrong.
    pub why: String,
    /// The mail or the commit.
    pub link: String,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The newest run cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A history cannot be read.
    #[error(transparent)]
    History(#[from] crate::history::HistoryError),
    /// There is no run to report on.
    #[error("no run with records among {0}")]
    Nothing(String),
    /// The template is wrong; a test renders it.
    #[error("the report's template failed: {0}")]
    Template(#[from] minijinja::Error),
}

#[derive(Serialize)]
struct Page<'a> {
    title: String,
    made: String,
    version: &'static str,
    runs: usize,
    runs_left_out: usize,
    newest: &'a str,
    counts: Vec<String>,
    kernels: Vec<Kernel>,
    cells: Vec<CellView>,
    changes: Vec<ChangeView>,
    changes_title: String,
    changes_left_out: usize,
    issues: Vec<IssueView>,
    problems: Vec<String>,
    nights: Vec<trend::Night>,
    verdicts: Vec<(&'static str, &'static str)>,
    marks: Vec<(char, &'static str)>,
    css: &'static str,
    js: &'static str,
}

#[derive(Serialize)]
struct ChangeView {
    kind: &'static str,
    alarm: bool,
    what: String,
    why: String,
    before: String,
    after: String,
    cell: Option<usize>,
}

#[derive(Serialize)]
struct IssueView {
    name: String,
    why: String,
    link: String,
    cells: Vec<(usize, String)>,
}

/// The runs below `paths`, in the order of time: each is a run's directory, a record file, or a history of runs.
///
/// # Errors
/// If a history cannot be listed.
pub fn runs_below(paths: &[std::path::PathBuf]) -> Result<Vec<Entry>, ReportError> {
    let mut runs = Vec::new();
    for path in paths {
        let inside = if path.is_dir() && !path.join(crate::journal::FILE_NAME).exists() {
            History::at(path).entries()?
        } else {
            Vec::new()
        };
        if inside.is_empty() {
            let name = path.display().to_string();
            runs.push(Entry {
                name,
                path: path.clone(),
            });
        }
        runs.extend(inside);
    }
    Ok(runs)
}

/// Renders the page. `known` explains the known issues that records name.
///
/// # Errors
/// If no run has records. A run that cannot be read beside others is told on the page and left out.
pub fn render(runs: &[Entry], known: &[Issue], now: f64) -> Result<String, ReportError> {
    let left_out = runs.len().saturating_sub(RUNS_MAX);
    let runs = &runs[left_out..];
    let mut problems = Vec::new();
    let (newest, at) = newest(runs, &mut problems)?;
    let trends = Trends::read(&runs[..=at], &mut problems);
    let previous = at
        .checked_sub(1)
        .and_then(|before| Source::read(&runs[before].path).ok());
    let comparison =
        previous.map(|previous| Comparison::of(&[previous, newest.clone()], Options::default()));
    let summary = Summary::new(&newest.records);
    let (kernels, cells) = cells::views(&newest.records, &summary, &trends, known);
    let page = Page {
        title: match summary.blocks.as_slice() {
            [one] => format!("punchbench on {}", one.kernel),
            several => format!("punchbench on {} kernels", several.len()),
        },
        made: rfc3339(now),
        version: env!("CARGO_PKG_VERSION"),
        runs: runs.len(),
        runs_left_out: left_out,
        newest: &newest.name,
        counts: crate::notes::counts_lines(&summary),
        changes: comparison
            .as_ref()
            .map_or_else(Vec::new, |c| changes(c, &cells)),
        changes_title: comparison.as_ref().map_or_else(
            || "there is no earlier run to compare with".to_owned(),
            |c| c.headline(),
        ),
        changes_left_out: comparison
            .as_ref()
            .map_or(0, |c| c.changes.len().saturating_sub(CHANGES_MAX)),
        issues: issues(&summary, &cells, known),
        problems,
        nights: trends.nights(),
        verdicts: crate::Verdict::ALL
            .map(|v| (v.word(), v.meaning()))
            .to_vec(),
        marks: [Mark::Unexpected, Mark::Fixed, Mark::Known]
            .map(|m| (m.sign(), m.meaning()))
            .to_vec(),
        css: include_str!("report.css"),
        js: include_str!("report.js"),
        kernels,
        cells,
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    environment.set_syntax(syntax);
    environment.add_template("report.html", include_str!("report.html"))?;
    Ok(environment
        .get_template("report.html")?
        .render(minijinja::value::Serde(page))?)
}

/// The last run that has records, and where it is.
fn newest(runs: &[Entry], problems: &mut Vec<String>) -> Result<(Source, usize), ReportError> {
    let mut failed = None;
    for (at, run) in runs.iter().enumerate().rev() {
        match Source::read(&run.path) {
            Ok(mut source) if !source.records.is_empty() => {
                source.name.clone_from(&run.name);
                problems.append(&mut source.problems.clone());
                return Ok((source, at));
            }
            Ok(_) => problems.push(format!("{}: a run without records, left out", run.name)),
            Err(e) => {
                problems.push(e.to_string());
                failed.get_or_insert(e);
            }
        }
    }
    Err(match failed {
        Some(e) => e.into(),
        None => {
            let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
            ReportError::Nothing(names.join(", "))
        }
    })
}

fn changes(c: &Comparison, cells: &[CellView]) -> Vec<ChangeView> {
    let view = |x: &crate::compare::Change| {
        let pair = &c.kernels[x.kernel];
        let release = pair.after.as_deref().unwrap_or_default();
        let side = |seen: &Option<crate::compare::Seen>| {
            seen.as_ref()
                .map_or_else(|| "no record".to_owned(), |s| s.words())
        };
        ChangeView {
            kind: x.kind.words(),
            alarm: x.alarm,
            what: format!("{} on {} ({})", x.scenario, x.target, pair.title()),
            why: x.why.clone(),
            before: side(&x.before),
            after: side(&x.after),
            cell: cells
                .iter()
                .find(|v| v.is(release, &x.target, &x.scenario))
                .map(|v| v.id),
        }
    };
    c.changes.iter().take(CHANGES_MAX).map(view).collect()
}

fn issues(summary: &Summary, cells: &[CellView], known: &[Issue]) -> Vec<IssueView> {
    let mut views: Vec<IssueView> = Vec::new();
    for cell in summary.cells() {
        let Some(name) = &cell.known_issue else {
            continue;
        };
        let at = views
            .iter()
            .position(|v| v.name == *name)
            .unwrap_or_else(|| {
                let text = known.iter().find(|k| k.name == *name);
                views.push(IssueView {
                    name: name.clone(),
                    why: text.map_or_else(String::new, |t| t.why.clone()),
                    link: text.map_or_else(String::new, |t| t.link.clone()),
                    cells: Vec::new(),
                });
                views.len() - 1
            });
        let id = cells
            .iter()
            .find(|v| v.is(&cell.kernel, &cell.target, &cell.scenario));
        if let Some(view) = id {
            let text = format!("{} on {}: {}", cell.scenario, cell.target, cell.verdict());
            views[at].cells.push((view.id, text));
        }
    }
    views
}

/// Where a report goes unless told otherwise.
pub const FILE_NAME: &str = "report.html";

/// Writes the page to `path`, whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, page: &str) -> Result<(), crate::JournalError> {
    let dir = path
        .parent()
        .filter(|p| *p != Path::new(""))
        .unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .map_or(FILE_NAME.into(), |n| n.to_string_lossy());
    crate::history::write_whole(dir, &name, page.as_bytes())
}

/// The text of a record's failure, as the page shows it.
fn told(record: &crate::Record) -> String {
    explain_failure(record)
}
