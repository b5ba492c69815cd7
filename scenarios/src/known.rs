//! What is known to be broken: data, so that a new kernel's table shows only what is new.
//!
//! One YAML file each under `known-issues/`, loaded as strictly as a scenario.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use include_dir::{Dir, include_dir};
use punchbench_results::{Expectation, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::catalog::{catalog, matches_glob, texts};
use crate::check::{is_kebab, stem};
use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::load::parse;
use crate::outline::Node;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/known-issues");

/// One known issue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownIssue {
    /// Its name: lower-case words joined by `-`, equal to the file's name.
    pub issue: String,
    /// Globs of the scenarios that show it.
    pub scenarios: Vec<String>,
    /// Glob of the targets that show it.
    pub target: String,
    /// Glob of the driver that serves the target, if only that one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The kernels that have it.
    #[serde(default)]
    pub kernels: Kernels,
    /// The verdicts that it may lead to. Listing `safe` makes it one that does not always show.
    pub verdicts: Vec<Verdict>,
    /// What must stand in the record's log, such as a function of the kernel, for this issue to be meant: so a trial
    /// that hung for this reason is told from one that hung for any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What is wrong, in a sentence or two.
    pub why: String,
    /// The mail or the commit.
    pub link: String,
}

/// A range of kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kernels {
    /// The first that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<KernelVersion>,
    /// The first that has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<KernelVersion>,
}

impl Kernels {
    /// Whether there are no bounds.
    pub fn are_all(&self) -> bool {
        *self == Kernels::default()
    }

    /// Whether a release lies within. One that cannot be read lies only within no bounds at all.
    pub fn contain(&self, release: &str) -> bool {
        match release.parse::<KernelVersion>() {
            Ok(v) => self.from.is_none_or(|f| f <= v) && self.before.is_none_or(|b| v < b),
            Err(_) => self.from.is_none() && self.before.is_none(),
        }
    }
}

/// Major, minor and patch of a kernel's release; what follows (`-35-amd64`, `~rc3`) does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32, pub u32);

impl FromStr for KernelVersion {
    type Err = String;

    fn from_str(release: &str) -> Result<Self, String> {
        let end = release
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(release.len());
        let mut parts = release[..end]
            .trim_end_matches('.')
            .split('.')
            .map(str::parse::<u32>);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), None) => Ok(KernelVersion(major, minor, 0)),
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => {
                Ok(KernelVersion(major, minor, patch))
            }
            _ => Err("a kernel version begins with MAJOR.MINOR, such as 5.15".to_owned()),
        }
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.2 {
            0 => write!(f, "{}.{}", self.0, self.1),
            patch => write!(f, "{}.{}.{patch}", self.0, self.1),
        }
    }
}

/// Reads a known issue from text, with the same diagnostics as a scenario.
pub fn load_issue(text: &str, origin: &str) -> Result<KnownIssue, Diagnostics> {
    parse(text, origin, |_| Vec::new(), check)
}

/// Every built-in known issue, sorted by name.
///
/// # Panics
/// If one of them does not load; a test of this crate loads them all.
pub fn known_issues() -> &'static [KnownIssue] {
    static ALL: OnceLock<Vec<KnownIssue>> = OnceLock::new();
    ALL.get_or_init(|| {
        texts(&FILES)
            .into_iter()
            .map(|(path, text)| {
                load_issue(text, path).unwrap_or_else(|e| panic!("built-in known issue:\n{e}"))
            })
            .collect()
    })
}

/// The first known issue that a trial may show, whatever its log says.
pub fn match_issue(
    scenario: &str,
    target: &str,
    driver: &str,
    kernel_release: &str,
) -> Option<&'static KnownIssue> {
    known_issues()
        .iter()
        .find(|i| i.log.is_none() && i.covers(scenario, target, driver, kernel_release))
}

/// The first known issue that a trial shows by its log.
pub fn match_log(
    scenario: &str,
    target: &str,
    driver: &str,
    kernel_release: &str,
    log: &[String],
) -> Option<&'static KnownIssue> {
    let says = |word: &str| log.iter().any(|line| line.contains(word));
    known_issues().iter().find(|i| {
        i.log.as_deref().is_some_and(says) && i.covers(scenario, target, driver, kernel_release)
    })
}

impl KnownIssue {
    /// Whether a trial may show it.
    pub fn covers(&self, scenario: &str, target: &str, driver: &str, kernel_release: &str) -> bool {
        self.scenarios.iter().any(|g| matches_glob(g, scenario))
            && matches_glob(&self.target, target)
            && self.driver.as_ref().is_none_or(|g| matches_glob(g, driver))
            && self.kernels.contain(kernel_release)
    }
}

/// Holds a verdict against the issue that covers its trial, if any.
pub fn expectation(verdict: &Verdict, issue: Option<&KnownIssue>) -> Expectation {
    let listed = issue.is_some_and(|i| i.verdicts.contains(verdict));
    match verdict {
        _ if listed => Expectation::Expected,
        Verdict::Safe if issue.is_some() => Expectation::Fixed,
        Verdict::Safe | Verdict::Unsupported | Verdict::Skipped => Expectation::Expected,
        Verdict::Stale
        | Verdict::StaleMapping
        | Verdict::Foreign
        | Verdict::Uninitialized
        | Verdict::Lost
        | Verdict::Damaged
        | Verdict::Blocked
        | Verdict::WrongResult
        | Verdict::Hung
        | Verdict::KernelReport
        | Verdict::Inconclusive
        | Verdict::Error => Expectation::Unexpected,
    }
}

fn check(i: &mut KnownIssue, tree: &Node, origin: &str) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let mut at = |path: &[&str], message: String, help: Option<String>| {
        let span = tree.value(path).span.clone();
        out.push(
            Diagnostic::new(message, Some(span))
                .label("here")
                .maybe_help(help),
        );
    };
    let name = &i.issue;
    if !is_kebab(name) {
        let help = "write lower-case words joined by `-`".to_owned();
        at(
            &["issue"],
            format!("`{name}` is not an issue's name"),
            Some(help),
        );
    } else if let Some(stem) = stem(origin)
        && stem != name
    {
        let help = format!("name it `{stem}`, or rename the file to `{name}.yaml`");
        at(
            &["issue"],
            format!("`{name}` is not the name of the file"),
            Some(help),
        );
    }
    let all = catalog();
    let names: Vec<&str> = all.iter().map(|s| s.scenario.as_str()).collect();
    if i.scenarios.is_empty() {
        at(&["scenarios"], "no scenario shows it".to_owned(), None);
    }
    for (n, glob) in i.scenarios.iter().enumerate() {
        if !names.iter().any(|name| matches_glob(glob, name)) {
            at(
                &["scenarios", &n.to_string()],
                format!("no scenario matches `{glob}`"),
                suggest(glob, &names),
            );
        }
    }
    if !i.verdicts.iter().any(|v| v.is_violation()) {
        let help = "list the verdicts that accuse the kernel, such as `stale`".to_owned();
        at(
            &["verdicts"],
            "no verdict is a violation".to_owned(),
            Some(help),
        );
    }
    let log = i.log.as_ref().map(|text| ("log", text));
    for (key, text) in [("target", &i.target), ("why", &i.why)]
        .into_iter()
        .chain(log)
    {
        if text.trim().is_empty() {
            at(&[key], format!("`{key}` is empty"), None);
        }
    }
    if !i.link.starts_with("https://") {
        at(
            &["link"],
            format!("`{}` is not a link", i.link),
            Some("begin it with `https://`".to_owned()),
        );
    }
    if let (Some(from), Some(before)) = (i.kernels.from, i.kernels.before)
        && from >= before
    {
        at(
            &["kernels"],
            format!("no kernel is at least {from} and before {before}"),
            None,
        );
    }
    out
}
