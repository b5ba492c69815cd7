//! A locking policy: which locks are taken where. Data, so that someone with an idea writes a file and sees
//! what it breaks; nothing in the model knows any policy by name.

use std::collections::BTreeMap;
use std::path::Path;

use include_dir::{Dir, include_dir};
use punchbench_scenarios::Named;
use punchbench_scenarios::strict::{self, Diagnostic, Diagnostics, Node, suggest};
use serde::{Deserialize, Serialize};

use crate::hook::Hook;
use crate::sem::Mode;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/policies");

/// Locks that every policy may name in its order without declaring them: the protocol takes them itself.
pub const OWN_LOCKS: [&str; 2] = ["mmap_lock", "folio_lock"];

/// A policy as its file says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name; the file is named like it.
    pub policy: String,
    /// What it is, in one sentence.
    pub about: String,
    /// Where it comes from: mail, commit, kernel source.
    pub source: String,
    /// The locks that each file has, and of what kind they are.
    #[serde(default)]
    pub locks: Named<LockKind>,
    /// The documented order: `i_rwsem -> invalidate_lock`, outer before inner.
    #[serde(default)]
    pub order: Vec<String>,
    /// Which locks are taken at which hook, in this order: `invalidate_lock shared`.
    #[serde(default)]
    pub hooks: Named<Vec<String>>,
    /// How the compare of a dedupe gets at the pages.
    #[serde(default)]
    pub dedupe_compare: CompareBy,
    /// Where the data is.
    #[serde(default)]
    pub data: Data,
}

/// What a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// A rw_semaphore, first come, first served.
    Rwsem,
    /// Locked entries in the page cache: exclusive puts one into each slot of the range, shared waits until
    /// none is there. No folio is added where one is.
    PageEntries,
    /// A range that faults wait for (`shmem_falloc`): as page entries, but nothing keeps folios out.
    WaitQueue,
}

/// How vfs_dedupe_file_range_compare() gets at a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompareBy {
    /// read_mapping_page(): below the level at which fillers take locks.
    #[default]
    ReadMappingPage,
    /// filemap_read(), as a filler does: what Chinner feared.
    FilemapRead,
}

/// Where the data is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Data {
    /// On a device, found through a block map.
    #[default]
    Device,
    /// In the page cache itself (tmpfs): what is not cached is a hole.
    PageCache,
}

/// Taking one lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Which.
    pub lock: String,
    /// How.
    pub mode: Mode,
}

impl Policy {
    /// What is taken at a hook, in order.
    pub fn takes(&self, hook: Hook) -> Vec<Take> {
        let list = self.hooks.get(hook.word());
        list.into_iter()
            .flatten()
            .filter_map(|t| parse_take(t).ok())
            .collect()
    }

    /// The hooks at which it takes something.
    pub fn hooked(&self) -> Vec<Hook> {
        let used = self.hooks.iter().filter(|(_, takes)| !takes.is_empty());
        used.filter_map(|(word, _)| Hook::named(word)).collect()
    }

    /// The same policy without one hook: a mutant.
    pub fn without(&self, hook: Hook) -> Policy {
        let mut mutant = self.clone();
        mutant.policy = format!("{}-without-{}", self.policy, hook.word());
        mutant.hooks.0.retain(|(word, _)| word != hook.word());
        mutant
    }

    /// The documented order, outer and inner.
    pub fn ordered(&self) -> Vec<(String, String)> {
        let pairs = self.order.iter().filter_map(|line| line.split_once("->"));
        pairs
            .map(|(a, b)| (a.trim().to_owned(), b.trim().to_owned()))
            .collect()
    }

    /// Reads one from text. The origin is the file's name, for messages.
    pub fn load(text: &str, origin: &str) -> Result<Policy, Diagnostics> {
        strict::parse(
            text,
            origin,
            |_| Vec::new(),
            |policy, tree, origin| sense(policy, tree, origin),
        )
    }

    /// Reads one from a file.
    pub fn load_file(path: &Path) -> Result<Policy, Diagnostics> {
        Policy::load(&strict::read_file(path)?, &path.display().to_string())
    }
}

/// The policies that are built into the program, sorted by name.
///
/// # Panics
/// If one of them does not load; a test of this crate loads them all.
pub fn policies() -> Vec<Policy> {
    let mut all: Vec<Policy> = FILES
        .files()
        .filter_map(|f| Some((f.path().to_str()?, f.contents_utf8()?)))
        .filter(|(path, _)| path.ends_with(".yaml"))
        .map(|(path, text)| {
            Policy::load(text, path).unwrap_or_else(|e| panic!("built-in policy:\n{e}"))
        })
        .collect();
    all.sort_by(|a, b| a.policy.cmp(&b.policy));
    all
}

fn parse_take(text: &str) -> Result<Take, String> {
    let (lock, mode) = text
        .trim()
        .split_once(' ')
        .ok_or("a lock is taken as `LOCK shared` or `LOCK exclusive`")?;
    let mode = match mode.trim() {
        "shared" => Mode::Shared,
        "exclusive" => Mode::Exclusive,
        other => {
            return Err(format!(
                "`{other}` is no way to take a lock: `shared` or `exclusive`"
            ));
        }
    };
    Ok(Take {
        lock: lock.to_owned(),
        mode,
    })
}

fn sense(policy: &Policy, tree: &Node, origin: &str) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    let at = |path: &[&str]| Some(tree.value(path).span.clone());
    let stem = Path::new(origin).file_stem().and_then(|s| s.to_str());
    if origin.ends_with(".yaml") && stem.is_some_and(|s| s != policy.policy) {
        let wrong = format!("`{}` is not the name of the file", policy.policy);
        out.push(Diagnostic::new(wrong, at(&["policy"])).label("here"));
    }
    let locks: Vec<&str> = policy.locks.iter().map(|(name, _)| name).collect();
    for own in OWN_LOCKS.iter().filter(|own| locks.contains(own)) {
        let wrong = format!("`{own}` is taken by the protocol itself");
        let help = "leave it out; the order may name it all the same";
        out.push(
            Diagnostic::new(wrong, Some(tree.key(&["locks", own])))
                .label("here")
                .help(help),
        );
    }
    let words: Vec<&str> = Hook::ALL.iter().map(|h| h.word()).collect();
    for (hook, takes) in policy.hooks.iter() {
        if Hook::named(hook).is_none() {
            let wrong = Diagnostic::new(
                format!("unknown hook `{hook}`"),
                Some(tree.key(&["hooks", hook])),
            );
            out.push(
                wrong
                    .label("not known here")
                    .maybe_help(suggest(hook, &words)),
            );
        }
        let mut seen: Vec<String> = Vec::new();
        for (n, take) in takes.iter().enumerate() {
            let span = at(&["hooks", hook, &n.to_string()]);
            match parse_take(take) {
                Err(wrong) => out.push(Diagnostic::new(wrong, span).label("here")),
                Ok(take) if !locks.contains(&take.lock.as_str()) => {
                    let wrong = Diagnostic::new(format!("unknown lock `{}`", take.lock), span);
                    let help =
                        suggest(&take.lock, &locks).or(Some("declare it under `locks`".to_owned()));
                    out.push(wrong.label("not declared").maybe_help(help));
                }
                Ok(take) if seen.contains(&take.lock) => {
                    let wrong = format!("`{}` is taken twice at one hook", take.lock);
                    out.push(Diagnostic::new(wrong, span).label("again here"));
                }
                Ok(take) => seen.push(take.lock),
            }
        }
    }
    order(policy, tree, &locks, &mut out);
    out
}

/// The documented order must be one: no lock may come before itself.
fn order(policy: &Policy, tree: &Node, locks: &[&str], out: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = locks.iter().copied().chain(OWN_LOCKS).collect();
    let mut after: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (n, line) in policy.order.iter().enumerate() {
        let span = Some(tree.value(&["order", &n.to_string()]).span.clone());
        let Some((outer, inner)) = line.split_once("->") else {
            let wrong = "an order is written `OUTER -> INNER`";
            out.push(Diagnostic::new(wrong, span).label("here"));
            continue;
        };
        let (outer, inner) = (outer.trim(), inner.trim());
        let unknown = [outer, inner].into_iter().find(|l| !known.contains(l));
        if let Some(lock) = unknown {
            let wrong = Diagnostic::new(format!("unknown lock `{lock}`"), span);
            out.push(
                wrong
                    .label("not declared")
                    .maybe_help(suggest(lock, &known)),
            );
            continue;
        }
        if let Some(path) = path(&after, inner, outer) {
            let wrong = format!("the lock order is cyclic: {outer} -> {}", path.join(" -> "));
            let help = "remove one of these lines; a lock that is really taken in both orders is found without";
            out.push(
                Diagnostic::new(wrong, span)
                    .label("this closes the cycle")
                    .help(help),
            );
            continue;
        }
        after.entry(outer).or_default().push(inner);
    }
}

/// A way from one lock to another.
fn path<'a>(
    after: &BTreeMap<&'a str, Vec<&'a str>>,
    from: &'a str,
    to: &'a str,
) -> Option<Vec<&'a str>> {
    if from == to {
        return Some(vec![to]);
    }
    // No cycles are in `after`: each line that closes one is left out.
    after.get(from).into_iter().flatten().find_map(|next| {
        let mut rest = path(after, next, to)?;
        rest.insert(0, from);
        Some(rest)
    })
}
