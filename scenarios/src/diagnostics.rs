//! What is wrong with a file, said where it stands: the message, the source line with a caret, what
//! would be right. Rendered by annotate-snippets in the manner of rustc.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

/// More than this many messages help nobody.
const MOST: usize = 20;
/// Lines wider than this are cut by the renderer.
const WIDTH: usize = 140;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes of the source; none if the file as a whole is meant.
    pub span: Option<Range<usize>>,
    /// What stands at the caret.
    pub label: String,
    /// Another place that belongs to it.
    pub also: Option<(Range<usize>, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// What is wrong, and where.
    pub fn new(message: impl Into<String>, span: Option<Range<usize>>) -> Self {
        Diagnostic {
            message: message.into(),
            span,
            label: String::new(),
            also: None,
            help: None,
        }
    }

    /// With what stands at the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn also(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As an error; boxed, so that no result is large for its sake.
    pub(crate) fn err<T>(self) -> Result<T, Box<Diagnostic>> {
        Err(Box::new(self))
    }

    /// With what to do, if that is known.
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// Everything that is wrong with one file. [`fmt::Display`] renders it in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    origin: String,
    source: String,
    items: Vec<Diagnostic>,
    left_out: usize,
}

impl std::error::Error for Diagnostics {}

impl Diagnostics {
    pub(crate) fn new(origin: &str, source: &str, mut items: Vec<Diagnostic>) -> Self {
        let left_out = items.len().saturating_sub(MOST);
        items.truncate(MOST);
        Diagnostics {
            origin: origin.to_owned(),
            source: source.to_owned(),
            items,
            left_out,
        }
    }

    /// The file's name as it was given.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// One by one, in the order found.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Line and column (in characters), both from 1, of a byte offset.
    pub fn line_column(&self, at: usize) -> (usize, usize) {
        let before = self.source.get(..at).unwrap_or(&self.source);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |n| n + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// As text; with colours for a terminal.
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.term_width(WIDTH);
        let mut out = String::new();
        for item in &self.items {
            if !out.is_empty() {
                out.push_str("\n\n");
            }
            out.push_str(&self.render_one(&renderer, item));
        }
        if self.left_out > 0 {
            out.push_str(&format!("\n\nand {} more", self.left_out));
        }
        out
    }

    fn render_one(&self, renderer: &Renderer, item: &Diagnostic) -> String {
        let title = Level::ERROR.primary_title(item.message.as_str());
        let mut elements: Vec<Element<'_>> = Vec::new();
        match &item.span {
            None => elements.push(Origin::path(self.origin.as_str()).into()),
            Some(span) => {
                let visible = self.visible(span);
                let mut snippet = Snippet::source(self.source.as_str())
                    .path(self.origin.as_str())
                    .annotation(
                        AnnotationKind::Primary
                            .span(visible)
                            .label(item.label.as_str()),
                    );
                if let Some((also, label)) = &item.also {
                    let also = self.boundary(also.start)..self.boundary(also.end);
                    snippet = snippet
                        .annotation(AnnotationKind::Context.span(also).label(label.as_str()));
                }
                elements.push(snippet.into());
            }
        }
        if let Some(help) = &item.help {
            elements.push(Level::HELP.message(help.as_str()).into());
        }
        renderer.render(&[title.elements(elements)])
    }

    /// What the caret can stand under: an empty span takes the character at it, or before it at the
    /// end of a line.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let (start, end) = (self.boundary(span.start), self.boundary(span.end));
        if start < end {
            return start..end;
        }
        match self.source[start..].chars().next() {
            Some(c) if c != '\n' && c != '\r' => start..start + c.len_utf8(),
            _ => {
                let before = self.source[..start]
                    .chars()
                    .next_back()
                    .filter(|c| *c != '\n');
                start - before.map_or(0, char::len_utf8)..start
            }
        }
    }

    fn boundary(&self, at: usize) -> usize {
        let mut at = at.min(self.source.len());
        while !self.source.is_char_boundary(at) {
            at += 1;
        }
        at
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// The known word nearest to an unknown one, if any is near.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|k| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &k.to_lowercase()),
                *k,
            )
        })
        .filter(|(distance, k)| *distance <= 1 + k.len().min(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// "did you mean", or else all that are known.
pub fn suggest(word: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, known) {
        return Some(format!("did you mean `{near}`?"));
    }
    let all: Vec<_> = known.iter().map(|k| format!("`{k}`")).collect();
    (!all.is_empty()).then(|| format!("known: {}", all.join(", ")))
}
