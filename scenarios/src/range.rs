//! Sizes (`64KiB`, `1 page`, `2 blocks`) and ranges (`chunk + 100B .. chunk.end - 100B`): the small
//! expression language of a scenario. It knows `+`, `-`, `..`, `.start`, `.end` and nothing more.

use std::ops::Range;

/// A size in bytes, pages or filesystem blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub count: u64,
    /// Of what.
    pub unit: Unit,
}

/// What a size counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, also for KiB, MiB and GiB, multiplied out.
    #[default]
    Byte,
    /// Pages of the machine.
    Page,
    /// Blocks of the filesystem under test.
    Block,
}

/// What the units mean on a target, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Page size.
    pub page: u64,
    /// What the filesystem allocates and frees at a time: its block, or a cluster of blocks (ext4's bigalloc).
    /// Collapse and insert take multiples of it only (`ext4_collapse_range`: EINVAL).
    pub block: u64,
}

impl Size {
    /// In bytes on a target.
    pub fn bytes(self, g: Geometry) -> u64 {
        match self.unit {
            Unit::Byte => self.count,
            Unit::Page => self.count * g.page,
            Unit::Block => self.count * g.block,
        }
    }
}

/// A name a position may start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Position 0 of the file: a bare size.
    Zero,
    /// First byte of the round's chunk.
    ChunkStart,
    /// One past the last byte of the round's chunk.
    ChunkEnd,
    /// First byte of the file: 0.
    FileStart,
    /// Its size when the pass began.
    FileEnd,
}

/// A position: an anchor and the terms added to or taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Where it starts from.
    pub anchor: Anchor,
    /// Added (`true`) or subtracted sizes.
    pub terms: Vec<(bool, Size)>,
}

/// A range: two positions. `chunk` alone is the chunk; `chunk + 1 page` is the chunk moved up by a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeExpr {
    /// Its first byte.
    pub start: Position,
    /// One past its last byte.
    pub end: Position,
    /// As written, for messages.
    pub text: String,
}

/// Where a position falls outside what a file offset can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Below 0.
    #[error("`{0}` lies before the start of the file")]
    BeforeStart(String),
    /// The end does not lie behind the start.
    #[error("`{0}` is empty")]
    Empty(String),
}

impl Position {
    fn resolve(&self, chunk: &Range<u64>, file_size: u64, g: Geometry) -> Option<u64> {
        let from = match self.anchor {
            Anchor::Zero | Anchor::FileStart => 0,
            Anchor::ChunkStart => chunk.start,
            Anchor::ChunkEnd => chunk.end,
            Anchor::FileEnd => file_size,
        };
        self.terms.iter().try_fold(from, |at, (plus, size)| {
            let by = size.bytes(g);
            if *plus {
                at.checked_add(by)
            } else {
                at.checked_sub(by)
            }
        })
    }
}

impl RangeExpr {
    /// The bytes it stands for, given the round's chunk and the file's size when the pass began.
    pub fn resolve(
        &self,
        chunk: &Range<u64>,
        file_size: u64,
        g: Geometry,
    ) -> Result<Range<u64>, RangeError> {
        let at = |p: &Position| {
            p.resolve(chunk, file_size, g)
                .ok_or_else(|| RangeError::BeforeStart(self.text.clone()))
        };
        let (start, end) = (at(&self.start)?, at(&self.end)?);
        if start < end {
            Ok(start..end)
        } else {
            Err(RangeError::Empty(self.text.clone()))
        }
    }

    /// The chunk itself.
    pub fn chunk() -> RangeExpr {
        RangeExpr {
            start: Position {
                anchor: Anchor::ChunkStart,
                terms: vec![],
            },
            end: Position {
                anchor: Anchor::ChunkEnd,
                terms: vec![],
            },
            text: "chunk".into(),
        }
    }
}
