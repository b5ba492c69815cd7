//! From text to a checked scenario. Three gates, each with its own kind of message: the outline (is it
//! the YAML we accept), serde (does it have the shape), the checks (does it make sense).

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::Scenario;
use crate::check;
use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::outline::{Kind, MOST_BYTES, Node, outline};

/// Reads a scenario from text. The origin is the file's name, for messages; if it ends in `.yaml`, the
/// scenario must be named like it.
pub fn load(text: &str, origin: &str) -> Result<Scenario, Diagnostics> {
    parse(
        text,
        origin,
        operations_are_maps,
        |s: &mut Scenario, tree, origin| {
            s.fill_in_round();
            check::scenario(s, tree, origin)
        },
    )
}

/// Reads a scenario from bytes that may be anything.
pub fn load_bytes(bytes: &[u8], origin: &str) -> Result<Scenario, Diagnostics> {
    load(utf8(bytes, origin)?, origin)
}

/// Reads a scenario from a file, of which no more is read than a scenario may have.
pub fn load_file(path: &Path) -> Result<Scenario, Diagnostics> {
    load(&read_file(path)?, &path.display().to_string())
}

/// The text of a file, of which no more is read than a file of ours may have.
pub fn read_file(path: &Path) -> Result<String, Diagnostics> {
    let origin = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|e| {
            Diagnostics::new(
                &origin,
                "",
                vec![Diagnostic::new(format!("cannot read it: {e}"), None)],
            )
        })?;
    utf8(&bytes, &origin).map(str::to_owned)
}

pub(crate) fn utf8<'a>(bytes: &'a [u8], origin: &str) -> Result<&'a str, Diagnostics> {
    let refuse = |message| Diagnostics::new(origin, "", vec![Diagnostic::new(message, None)]);
    if bytes.len() > MOST_BYTES {
        return Err(refuse(format!(
            "the file has more than the {MOST_BYTES} bytes that are read"
        )));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        refuse(format!(
            "not a text file: byte {} is not UTF-8",
            e.valid_up_to()
        ))
    })
}

/// The three gates, for any kind of file.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    origin: &str,
    shape: impl FnOnce(&Node) -> Vec<Diagnostic>,
    sense: impl FnOnce(&mut T, &Node, &str) -> Vec<Diagnostic>,
) -> Result<T, Diagnostics> {
    // A text too large to be walked is not kept for the message either.
    let kept = if text.len() > MOST_BYTES { "" } else { text };
    let fail = |items| Diagnostics::new(origin, kept, items);
    let tree = outline(text).map_err(|d| fail(vec![*d]))?;
    let wrong = shape(&tree);
    if !wrong.is_empty() {
        return Err(fail(wrong));
    }
    let mut value: T =
        serde_yaml::from_str(text).map_err(|e| fail(vec![misshapen(&e, text, &tree)]))?;
    let wrong = sense(&mut value, &tree, origin);
    if wrong.is_empty() {
        Ok(value)
    } else {
        Err(fail(wrong))
    }
}

/// Before serde: it would report a list item that is no map in the words of its enums.
fn operations_are_maps(tree: &Node) -> Vec<Diagnostic> {
    let Kind::Map(actors) = &tree.value(&["actors"]).kind else {
        return Vec::new();
    };
    let lists = actors.iter().map(|(_, _, actor)| actor.value(&["do"]));
    let operations = lists.flat_map(|ops| {
        let example = ("read: {file: victim, range: chunk}", "syncfs: {}");
        are_maps(ops, "an operation", "operation", example)
    });
    let example = ("start: {actors: [puncher]}", "reuse: {}");
    let steps = are_maps(tree.value(&["stage"]), "a step", "step", example);
    operations.chain(steps).collect()
}

/// Whether each item of a list, if it is one, is a map of one key.
fn are_maps(list: &Node, one: &str, each: &str, example: (&str, &str)) -> Vec<Diagnostic> {
    let Kind::List(items) = &list.kind else {
        return Vec::new();
    };
    let refuse = |item: &Node, message, help| {
        Diagnostic::new(message, Some(item.span.clone()))
            .label("here")
            .help(help)
    };
    let (usual, bare) = example;
    items
        .iter()
        .filter_map(|item| match &item.kind {
            Kind::Map(entries) if entries.len() == 1 => None,
            Kind::Map(entries) => Some(refuse(
                item,
                format!("{one} has one key; this map has {}", entries.len()),
                format!("write one list item for each {each}: `- {usual}`"),
            )),
            _ => Some(refuse(
                item,
                format!("{one} is a map of one key"),
                format!("write `- {usual}`, or `- {bare}`"),
            )),
        })
        .collect()
}

/// serde's message, in the words of the file, at the place that it means.
fn misshapen(e: &serde_yaml::Error, text: &str, tree: &Node) -> Diagnostic {
    let mut message = e.to_string();
    let mut span = None;
    if let Some(l) = e.location() {
        let suffix = format!(" at line {} column {}", l.line(), l.column());
        if let Some(cut) = message.strip_suffix(&suffix) {
            message.truncate(cut.len());
        }
        let at = byte(text, l.line(), l.column());
        span = Some(tree.beginning_at(at).unwrap_or_else(|| line_from(text, at)));
    }
    // serde_yaml begins with the path, which the caret shows better.
    if let Some((path, rest)) = message.split_once(": ")
        && path
            .chars()
            .all(|c| c.is_alphanumeric() || "._-[]?".contains(c))
    {
        message = rest.to_owned();
    }
    // serde names our types, which the file's author does not know.
    if let Some((what, _)) = message.split_once(", expected struct ") {
        message = format!("{what}, expected a map of keys and values");
    }
    let Some((what, known)) = message.split_once(", expected ") else {
        return Diagnostic::new(message.replace("missing field", "missing key"), span)
            .label("here");
    };
    let unknown = backticked(what).next();
    let words: Vec<&str> = backticked(known).collect();
    match unknown {
        Some(word) if what.starts_with("unknown ") => {
            let what = if what.starts_with("unknown field") {
                "key"
            } else {
                "word"
            };
            Diagnostic::new(format!("unknown {what} `{word}`"), span)
                .label("not known here")
                .maybe_help(suggest(word, &words))
        }
        _ => Diagnostic::new(format!("{what}, expected {known}"), span).label("here"),
    }
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn byte(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let rest = &text[start.min(text.len())..];
    let within = rest
        .char_indices()
        .nth(column.saturating_sub(1))
        .map_or(rest.len(), |(at, _)| at);
    start + within
}

fn line_from(text: &str, at: usize) -> std::ops::Range<usize> {
    let rest = text.get(at..).unwrap_or_default();
    at..at + rest.lines().next().unwrap_or_default().trim_end().len()
}
