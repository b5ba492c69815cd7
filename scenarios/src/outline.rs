//! The shape of a YAML file with the place of every node: what a loader needs to point at things, and
//! the first gate for hostile or accidental input.
//!
//! serde_yaml gives the values but keeps no places, lets the last of two equal keys win and follows
//! aliases. So the text is first walked here, event by event: nothing is ever expanded, and what is
//! kept is bounded by the size of the file.

use std::borrow::Cow;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::diagnostics::Diagnostic;

/// Larger files are no scenario.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// Deeper nesting is no scenario.
const MOST_DEEP: usize = 16;
/// More nodes are no scenario.
const MOST_NODES: usize = 20_000;

/// A node and where it stands, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it stands.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A word, number or sentence.
    Scalar(String),
    /// Items.
    List(Vec<Node>),
    /// Key, where the key stands, value.
    Map(Vec<(String, Range<usize>, Node)>),
}

impl Node {
    /// The value at a path of keys and list indices; the deepest one that exists.
    pub fn value(&self, path: &[&str]) -> &Node {
        path.split_first()
            .and_then(|(step, rest)| Some(self.step(step)?.1.value(rest)))
            .unwrap_or(self)
    }

    /// Where the key at the end of a path stands (a list's item has no key: the item).
    pub fn key(&self, path: &[&str]) -> Range<usize> {
        let Some((last, parents)) = path.split_last() else {
            return self.span.clone();
        };
        let parent = self.value(parents);
        parent
            .step(last)
            .map_or(parent.span.clone(), |(key, _)| key)
    }

    fn step(&self, step: &str) -> Option<(Range<usize>, &Node)> {
        match &self.kind {
            Kind::Scalar(_) => None,
            Kind::List(items) => {
                let item = items.get(step.parse::<usize>().ok()?)?;
                Some((item.span.clone(), item))
            }
            Kind::Map(entries) => entries
                .iter()
                .find(|(k, _, _)| k == step)
                .map(|(_, at, v)| (at.clone(), v)),
        }
    }

    /// The span of the key or scalar that begins at a byte.
    pub fn beginning_at(&self, at: usize) -> Option<Range<usize>> {
        match &self.kind {
            Kind::Scalar(_) => (self.span.start == at).then(|| self.span.clone()),
            Kind::List(items) => items.iter().find_map(|n| n.beginning_at(at)),
            Kind::Map(entries) => entries.iter().find_map(|(_, key, v)| {
                if key.start == at {
                    Some(key.clone())
                } else {
                    v.beginning_at(at)
                }
            }),
        }
    }
}

/// Walks the text. Everything that YAML allows and a scenario does not is refused here.
pub(crate) fn outline(text: &str) -> Result<Node, Box<Diagnostic>> {
    characters(text)?;
    let mut walk = Walk {
        parser: Parser::new_from_str(text),
        text,
        bytes: text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect(),
        nodes: 0,
    };
    walk.document()
}

/// Tabs and control characters, before any parser trips over them in its own words.
fn characters(text: &str) -> Result<(), Box<Diagnostic>> {
    if text.len() > MOST_BYTES {
        return Diagnostic::new(
            format!(
                "the file has {} bytes, more than the {MOST_BYTES} that are read",
                text.len()
            ),
            None,
        )
        .err();
    }
    for (at, c) in text.char_indices() {
        let span = Some(at..at + c.len_utf8());
        match c {
            '\n' | '\r' => {}
            '\t' => {
                return Diagnostic::new("tab character", span)
                    .label("here")
                    .help("indent and separate with spaces")
                    .err();
            }
            '\u{feff}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                return Diagnostic::new(
                    format!("invisible character U+{:04X}", u32::from(c)),
                    span,
                )
                .label("here")
                .help("remove it")
                .err();
            }
            c if c.is_control() => {
                return Diagnostic::new(
                    format!(
                        "control character U+{:04X}: is this a text file?",
                        u32::from(c)
                    ),
                    span,
                )
                .label("here")
                .err();
            }
            _ => {}
        }
    }
    Ok(())
}

struct Walk<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    text: &'a str,
    /// Byte of each character, for the parser counts characters.
    bytes: Vec<usize>,
    nodes: usize,
}

impl<'a> Walk<'a> {
    fn byte(&self, mark: &Marker) -> usize {
        self.bytes
            .get(mark.index())
            .copied()
            .unwrap_or(self.text.len())
    }

    fn span(&self, span: &Span) -> Range<usize> {
        let start = self.byte(&span.start);
        start..self.byte(&span.end).max(start)
    }

    fn next(&mut self) -> Result<(Event<'a>, Range<usize>), Box<Diagnostic>> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let span = self.span(&span);
                Ok((event, span))
            }
            Some(Err(e)) => self.syntax(&e).err(),
            None => Diagnostic::new("the file ends too early", None).err(),
        }
    }

    fn syntax(&self, e: &ScanError) -> Diagnostic {
        let at = self.byte(e.marker());
        if e.info().contains("unknown anchor") {
            return refused("an alias", at..at);
        }
        let found =
            Diagnostic::new(format!("not valid YAML: {}", e.info()), Some(at..at)).label("here");
        let help = sentence_with_colon(self.text, at)
            .map(|key| {
                format!("`: ` begins a value; put the sentence after `{key}:` in double quotes")
            })
            .or_else(|| {
                let line = unclosed_before(self.text, at)?;
                Some(format!("a bracket that opens in line {line} is not closed"))
            });
        found.maybe_help(help)
    }

    fn document(&mut self) -> Result<Node, Box<Diagnostic>> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) => {
                    if root.is_some() {
                        return Diagnostic::new("more than one document", Some(span))
                            .label("a second one begins here")
                            .help("one file describes one thing; remove the `---`")
                            .err();
                    }
                }
                Event::StreamEnd => {
                    return root
                        .ok_or_else(|| Box::new(Diagnostic::new("the file is empty", None)));
                }
                event => root = Some(self.node(event, span, 0)?),
            }
        }
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Range<usize>,
        depth: usize,
    ) -> Result<Node, Box<Diagnostic>> {
        self.nodes += 1;
        if depth > MOST_DEEP {
            return Diagnostic::new(format!("nested deeper than {MOST_DEEP}"), Some(span))
                .label("here")
                .err();
        }
        if self.nodes > MOST_NODES {
            return Diagnostic::new(format!("more than {MOST_NODES} values"), Some(span))
                .label("from here")
                .err();
        }
        match event {
            Event::Alias(_) => refused("an alias", span).err(),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refused("an anchor", span).err()
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refused("a tag", span).err(),
            Event::Scalar(value, style, _, _) => Ok(self.scalar(value, style, span)),
            Event::SequenceStart(..) => self.list(span, depth),
            Event::MappingStart(..) => self.map(span, depth),
            other => Diagnostic::new(format!("unexpected {other:?}"), Some(span))
                .label("here")
                .err(),
        }
    }

    fn scalar(&self, value: Cow<'a, str>, style: ScalarStyle, mut span: Range<usize>) -> Node {
        // A plain scalar's span may take in the blanks and the comment behind it.
        if style == ScalarStyle::Plain {
            let written = self.text.get(span.clone()).unwrap_or_default();
            span.end = span.start + written.trim_end().len();
        }
        Node {
            span,
            kind: Kind::Scalar(value.into_owned()),
        }
    }

    fn list(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Box<Diagnostic>> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    let span = self.closed(&span, &end);
                    return Ok(Node {
                        span,
                        kind: Kind::List(items),
                    });
                }
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn map(&mut self, span: Range<usize>, depth: usize) -> Result<Node, Box<Diagnostic>> {
        let mut entries: Vec<(String, Range<usize>, Node)> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                let span = self.closed(&span, &at);
                return Ok(Node {
                    span,
                    kind: Kind::Map(entries),
                });
            }
            let key = self.node(event, at.clone(), depth + 1)?;
            let Kind::Scalar(name) = key.kind else {
                return Diagnostic::new("a key must be one word", Some(at))
                    .label("here")
                    .err();
            };
            if name == "<<" {
                return refused("a merge key", key.span).err();
            }
            if let Some((_, first, _)) = entries.iter().find(|(k, _, _)| *k == name) {
                return Diagnostic::new(format!("`{name}` is given twice"), Some(key.span))
                    .label("again here")
                    .also(first.clone(), "first here")
                    .help("each name may be given once; rename or remove one")
                    .err();
            }
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            entries.push((name, key.span, value));
        }
    }

    /// A collection in brackets spans them; one by indentation is pointed at by its first line.
    fn closed(&self, start: &Range<usize>, end: &Range<usize>) -> Range<usize> {
        let bracketed = matches!(self.text.as_bytes().get(start.start), Some(b'[' | b'{'))
            && self
                .text
                .get(end.clone())
                .is_some_and(|e| e == "]" || e == "}");
        if bracketed {
            return start.start..end.end;
        }
        let rest = &self.text[start.start..];
        start.start..start.start + rest.lines().next().unwrap_or_default().trim_end().len()
    }
}

fn refused(what: &str, span: Range<usize>) -> Diagnostic {
    Diagnostic::new(format!("{what} of YAML is not accepted"), Some(span))
        .label("here")
        .help("write the value out where it is used, or quote it if it is a sentence")
}

/// The key of an error's line, if that line looks like a sentence with an unquoted `: `.
fn sentence_with_colon(text: &str, at: usize) -> Option<&str> {
    let start = text[..at.min(text.len())].rfind('\n').map_or(0, |n| n + 1);
    // The parser may notice on the following line.
    let before = text[..start.saturating_sub(1)]
        .rfind('\n')
        .map_or(0, |n| n + 1);
    [start, before].into_iter().find_map(|from| {
        let (key, value) = text[from..].lines().next()?.split_once(": ")?;
        let quoted = value.trim_start().starts_with(['"', '\'', '{', '[']);
        (!quoted && (value.contains(": ") || value.ends_with(':'))).then(|| key.trim())
    })
}

/// The line of the innermost bracket that is still open at an error.
fn unclosed_before(text: &str, at: usize) -> Option<usize> {
    let mut open = Vec::new();
    for (n, line) in text[..at.min(text.len())].lines().enumerate() {
        for c in line.chars() {
            match c {
                '[' | '{' => open.push(n + 1),
                ']' | '}' => drop(open.pop()),
                _ => {}
            }
        }
    }
    open.pop()
}
