//! Does a scenario of the right shape make sense? Each check points at the line it means.

mod actors;
mod outcome;
mod stage;

use std::path::Path;

use crate::diagnostics::{Diagnostic, suggest};
use crate::outline::Node;
use crate::{Content, Geometry, Scenario};

/// The check has no target yet, so it takes the commonest; messages say so.
const ASSUMED: Geometry = Geometry {
    page: 4096,
    block: 4096,
};
/// The files of a scenario together; the images must fit into memory.
const MOST_BYTES: u64 = 256 << 20;

pub(crate) fn scenario(s: &Scenario, tree: &Node, origin: &str) -> Vec<Diagnostic> {
    let mut c = Checker {
        s,
        tree,
        out: Vec::new(),
    };
    c.name(origin);
    c.sentences();
    c.names();
    c.kind();
    c.files();
    c.roles();
    c.operations();
    c.needs();
    c.steps();
    // What follows computes with files and ranges, and would only repeat what is wrong already.
    if c.out.is_empty() {
        c.ranges();
    }
    if c.out.is_empty() {
        c.expectation();
        c.evidence();
    }
    c.out
}

/// Lower-case words of letters and digits, joined by `-`.
pub(crate) fn is_kebab(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|w| {
            !w.is_empty()
                && w.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

/// The file's name without `.yaml`, if it has that.
pub(crate) fn stem(origin: &str) -> Option<&str> {
    let path = Path::new(origin);
    path.extension().filter(|e| *e == "yaml" || *e == "yml")?;
    path.file_stem()?.to_str()
}

struct Checker<'a> {
    s: &'a Scenario,
    tree: &'a Node,
    out: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Reports at a value.
    fn at(&mut self, path: &[&str], message: impl Into<String>, label: &str, help: Option<String>) {
        let span = self.tree.value(path).span.clone();
        self.out.push(
            Diagnostic::new(message, Some(span))
                .label(label)
                .maybe_help(help),
        );
    }

    /// Reports at a key.
    fn at_key(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        label: &str,
        help: Option<String>,
    ) {
        let span = self.tree.key(path);
        self.out.push(
            Diagnostic::new(message, Some(span))
                .label(label)
                .maybe_help(help),
        );
    }

    fn name(&mut self, origin: &str) {
        let name = &self.s.scenario;
        if !is_kebab(name) {
            let help =
                Some("write lower-case words joined by `-`, such as `punch-while-read`".to_owned());
            self.at(
                &["scenario"],
                format!("`{name}` is not a scenario's name"),
                "here",
                help,
            );
        } else if let Some(stem) = stem(origin)
            && stem != name
        {
            let help = Some(format!(
                "name it `{stem}`, or rename the file to `{name}.yaml`"
            ));
            self.at(
                &["scenario"],
                format!("`{name}` is not the name of the file"),
                "here",
                help,
            );
        }
    }

    fn sentences(&mut self) {
        for (key, text) in [("claim", &self.s.claim), ("source", &self.s.source)] {
            if text.trim().is_empty() {
                let help = match key {
                    "claim" => "say in one sentence what holds on a correct kernel",
                    _ => "name the mail, commit or test it comes from",
                };
                self.at(
                    &[key],
                    format!("`{key}` is empty"),
                    "here",
                    Some(help.to_owned()),
                );
            }
        }
    }

    fn names(&mut self) {
        let files = self.s.files.iter().map(|(n, _)| ("files", n));
        let actors = self.s.actors.iter().map(|(n, _)| ("actors", n));
        let bad: Vec<_> = files.chain(actors).filter(|(_, n)| !is_kebab(n)).collect();
        for (group, name) in bad {
            let help = Some("write lower-case words joined by `-`".to_owned());
            self.at_key(
                &[group, name],
                format!("`{name}` is not a name"),
                "here",
                help,
            );
        }
    }

    fn known_file(&mut self, path: &[&str], name: &str) -> bool {
        let known = self.s.files.get(name).is_some();
        if !known {
            let known: Vec<&str> = self.s.files.iter().map(|(n, _)| n).collect();
            let help = suggest(name, &known);
            self.at(path, format!("no file `{name}`"), "not under `files`", help);
        }
        known
    }

    fn files(&mut self) {
        let s = self.s;
        let mut total = 0_u64;
        for (name, file) in s.files.iter() {
            let size = file.size.bytes(ASSUMED);
            total = total.saturating_add(size);
            if size == 0 {
                self.at(
                    &["files", name, "size"],
                    format!("`{name}` has no bytes"),
                    "here",
                    None,
                );
            }
            if file.filled.is_some_and(|f| f.bytes(ASSUMED) > size) {
                let message = format!("`{name}` is filled beyond its size");
                self.at(&["files", name, "filled"], message, "here", None);
            }
            let like = match &file.content {
                Content::SameAs(other) => Some(("same_as", other)),
                Content::BootOf(other) => Some(("boot_of", other)),
                Content::Stamped | Content::Empty | Content::Hole => None,
            };
            if let Some((key, other)) = like {
                let path = ["files", name, "content", key];
                if !self.known_file(&path, other) {
                    continue;
                }
                let like = s.files.get(other).expect("known");
                if like.content != Content::Stamped {
                    self.at(
                        &path,
                        format!("`{other}` is not stamped itself"),
                        "here",
                        None,
                    );
                } else if like.size.bytes(ASSUMED) != size {
                    let message = format!("`{name}` and `{other}` differ in size");
                    self.at(&path, message, "here", None);
                }
            }
            if file.witness && file.content != Content::Stamped {
                let message =
                    format!("the witness `{name}` is not stamped, so no change would show");
                self.at_key(&["files", name], message, "here", None);
            }
        }
        if total > MOST_BYTES {
            let message = format!("the files have {total} bytes together, more than {MOST_BYTES}");
            self.at_key(&["files"], message, "here", Some("shrink them".to_owned()));
        }
        self.raced_file();
    }

    fn raced_file(&mut self) {
        let s = self.s;
        let on = s.round.on.as_str();
        if on.is_empty() {
            // Told of already: there is no round, or no operation that a staged scenario is about.
            return;
        }
        if !self.known_file(&["round", "on"], on) {
            return;
        }
        let file = s.files.get(on).expect("known");
        if file.witness || file.content == Content::Empty {
            let what = if file.witness { "a witness" } else { "empty" };
            self.at(
                &["round", "on"],
                format!("`{on}` is {what} and cannot be raced"),
                "here",
                None,
            );
        }
        let (size, chunk) = (file.size.bytes(ASSUMED), s.round.chunk.bytes(ASSUMED));
        if chunk == 0 || chunk > size || !size.is_multiple_of(chunk) {
            let message = format!("chunks of {chunk} bytes do not divide `{on}`, which has {size}");
            let help = assumed("choose a chunk that divides the file's size");
            self.at(&["round", "chunk"], message, "here", help);
        }
    }
}

fn assumed(help: &str) -> Option<String> {
    Some(format!(
        "{help} (checked with pages and blocks of {} bytes)",
        ASSUMED.page
    ))
}

/// The word that serde knows it by.
fn word_of(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}
