//! How sizes and ranges are read from text and printed: one small hand-written parser, because the
//! language is five anchors, `+`, `-` and `..`, and its messages should name what stands there.

use std::fmt;
use std::str::FromStr;

use crate::{Anchor, Position, RangeExpr, Size, Unit};

/// Why a size or a range could not be read, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GrammarError {
    /// What is wrong and what would be right.
    pub message: String,
    /// Byte offset in the text.
    pub at: usize,
}

/// Larger sizes could not be multiplied by any page or block size within a file offset.
const MOST_UNITS: u64 = 1 << 40;
/// The largest file offset.
const MOST_BYTES: u64 = i64::MAX as u64;
/// More terms than this say nothing that fewer could not.
const MOST_TERMS: usize = 16;
/// Longer texts are not ranges.
const LONGEST: usize = 200;

const SIZE_FORMS: &str = "a size is a number with B, KiB, MiB, GiB, page(s) or block(s)";
const ANCHORS: &str = "chunk, chunk.start, chunk.end, file, file.start, file.end or a size";

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Result<Self, GrammarError> {
        if text.len() > LONGEST {
            return Err(GrammarError {
                message: format!("longer than {LONGEST} characters"),
                at: 0,
            });
        }
        Ok(Reader { text, at: 0 })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn eat(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !keep(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn fail<T>(&self, at: usize, message: impl Into<String>) -> Result<T, GrammarError> {
        Err(GrammarError {
            message: message.into(),
            at,
        })
    }

    fn size(&mut self) -> Result<Size, GrammarError> {
        let at = self.at;
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return self.fail(at, SIZE_FORMS);
        }
        let Ok(count) = digits.parse::<u64>() else {
            return self.fail(at, "too large");
        };
        self.skip_spaces();
        let unit_at = self.at;
        let word = self.take_while(|c| c.is_ascii_alphabetic());
        let (unit, shift) = match word {
            "" | "B" => (Unit::Byte, 0),
            "KiB" => (Unit::Byte, 10),
            "MiB" => (Unit::Byte, 20),
            "GiB" => (Unit::Byte, 30),
            "page" | "pages" => (Unit::Page, 0),
            "block" | "blocks" => (Unit::Block, 0),
            _ => return self.fail(unit_at, format!("unknown unit `{word}`; {SIZE_FORMS}")),
        };
        let most = if unit == Unit::Byte {
            MOST_BYTES >> shift
        } else {
            MOST_UNITS
        };
        if count > most {
            return self.fail(at, "too large");
        }
        Ok(Size {
            count: count << shift,
            unit,
        })
    }

    /// The position, and whether it began with a bare `chunk` or `file`.
    fn position(&mut self) -> Result<(Position, Option<Whole>), GrammarError> {
        self.skip_spaces();
        let at = self.at;
        let mut whole = None;
        let mut terms = Vec::new();
        let anchor = if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            terms.push((true, self.size()?));
            Anchor::Zero
        } else {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            // `chunk..` is the range sign, not a part.
            let part = if self.rest().starts_with("..") || !self.eat(".") {
                None
            } else {
                Some(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_'))
            };
            match (word, part) {
                ("chunk", None) => {
                    whole = Some(Whole::Chunk);
                    Anchor::ChunkStart
                }
                ("file", None) => {
                    whole = Some(Whole::File);
                    Anchor::FileStart
                }
                ("chunk", Some("start")) => Anchor::ChunkStart,
                ("chunk", Some("end")) => Anchor::ChunkEnd,
                ("file", Some("start")) => Anchor::FileStart,
                ("file", Some("end")) => Anchor::FileEnd,
                ("", None) => return self.fail(at, format!("expected {ANCHORS}")),
                _ => {
                    let found = &self.text[at..self.at];
                    return self.fail(
                        at,
                        format!("unknown position `{found}`; expected {ANCHORS}"),
                    );
                }
            }
        };
        loop {
            let before = self.at;
            self.skip_spaces();
            let plus = if self.eat("+") {
                true
            } else if self.eat("-") {
                false
            } else {
                self.at = before;
                break;
            };
            if terms.len() == MOST_TERMS {
                return self.fail(before, format!("more than {MOST_TERMS} terms"));
            }
            self.skip_spaces();
            terms.push((plus, self.size()?));
        }
        Ok((Position { anchor, terms }, whole))
    }

    fn end(&mut self, what: &str) -> Result<(), GrammarError> {
        self.skip_spaces();
        if self.rest().is_empty() {
            return Ok(());
        }
        self.fail(self.at, format!("`{}` after the {what}", self.rest()))
    }
}

/// An anchor that is a range of its own.
#[derive(Clone, Copy)]
enum Whole {
    Chunk,
    File,
}

impl FromStr for Size {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Size, GrammarError> {
        let mut r = Reader::new(text)?;
        r.skip_spaces();
        let size = r.size()?;
        r.end("size")?;
        Ok(size)
    }
}

impl FromStr for RangeExpr {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<RangeExpr, GrammarError> {
        let mut r = Reader::new(text)?;
        let (start, whole) = r.position()?;
        r.skip_spaces();
        if r.eat("..") {
            let (end, _) = r.position()?;
            r.end("range")?;
            return Ok(RangeExpr {
                start,
                end,
                text: text.trim().to_owned(),
            });
        }
        r.end("position (a range is `chunk`, `file` or `START .. END`)")?;
        let anchor = match whole {
            Some(Whole::Chunk) => Anchor::ChunkEnd,
            Some(Whole::File) => Anchor::FileEnd,
            None => {
                return r.fail(
                    0,
                    "one position is not a range; write `START .. END`, `chunk` or `file`",
                );
            }
        };
        let end = Position {
            anchor,
            terms: start.terms.clone(),
        };
        Ok(RangeExpr {
            start,
            end,
            text: text.trim().to_owned(),
        })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        match self.unit {
            Unit::Page => write!(f, "{} page{plural}", self.count),
            Unit::Block => write!(f, "{} block{plural}", self.count),
            Unit::Byte => {
                let (shift, unit) = [(30, "GiB"), (20, "MiB"), (10, "KiB")]
                    .into_iter()
                    .find(|(s, _)| self.count != 0 && self.count.trailing_zeros() >= *s)
                    .unwrap_or((0, "B"));
                write!(f, "{}{unit}", self.count >> shift)
            }
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms = self.terms.iter();
        match self.anchor {
            // A bare size is its own first term.
            Anchor::Zero => match terms.next() {
                Some((true, size)) => write!(f, "{size}")?,
                Some((false, size)) => write!(f, "0B - {size}")?,
                None => write!(f, "0B")?,
            },
            Anchor::ChunkStart => write!(f, "chunk.start")?,
            Anchor::ChunkEnd => write!(f, "chunk.end")?,
            Anchor::FileStart => write!(f, "file.start")?,
            Anchor::FileEnd => write!(f, "file.end")?,
        }
        for (plus, size) in terms {
            write!(f, " {} {size}", if *plus { '+' } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Display for RangeExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}
