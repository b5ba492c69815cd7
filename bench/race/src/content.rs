//! What a file may legally hold: pieces of known origin, moved about by the operations' effects.
//!
//! Content is provenance, not bytes: collapse and insert move pieces, a punch makes zeros, an overwrite
//! a new generation. Where operations ran beside each other in an order nobody knows, a piece holds the
//! *set* of what it may be.

use std::ops::Range;

use crate::FileId;

/// Where a piece's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// Zeros: a hole, or zeroed.
    Zero,
    /// The stamps of a file's generation, for the bytes from `offset` on.
    Stamp {
        /// Whose.
        file: FileId,
        /// Which generation.
        generation: u32,
        /// Offset in the stamped file of the piece's first byte.
        offset: u64,
    },
}

impl Origin {
    /// The origin of the byte `by` further on.
    fn advance(self, by: u64) -> Origin {
        match self {
            Origin::Zero => Origin::Zero,
            Origin::Stamp {
                file,
                generation,
                offset,
            } => Origin::Stamp {
                file,
                generation,
                offset: offset + by,
            },
        }
    }
}

/// The most origins that one byte may have at a time: the old one, one of each mutator, and zeros.
const MOST: usize = crate::board::MOST_MUTATORS + 2;

/// A set of origins, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Legal {
    origins: [Origin; MOST],
    len: u8,
}

impl Legal {
    /// Exactly this.
    pub fn one(origin: Origin) -> Legal {
        Legal {
            origins: [origin; MOST],
            len: 1,
        }
    }

    /// The origins, each once.
    pub fn origins(&self) -> &[Origin] {
        &self.origins[..self.len.into()]
    }

    /// Adds what another set allows. The race engine bounds the mutators of a round so that it fits.
    pub fn extend(&mut self, other: &Legal) {
        for &origin in other.origins() {
            if !self.origins().contains(&origin) {
                assert!(
                    usize::from(self.len) < MOST,
                    "more than {MOST} legal origins for one byte"
                );
                self.origins[usize::from(self.len)] = origin;
                self.len += 1;
            }
        }
    }

    fn advance(&self, by: u64) -> Legal {
        Legal {
            origins: self.origins.map(|o| o.advance(by)),
            len: self.len,
        }
    }
}

/// Some bytes of a file and what they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file.
    pub start: u64,
    /// Length in bytes, not 0.
    pub len: u64,
    /// What they may be, for the first byte.
    pub legal: Legal,
}

impl Piece {
    /// One past its last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }

    /// What the byte at `offset` of the file may be.
    pub fn legal_at(&self, offset: u64) -> Legal {
        self.legal.advance(offset - self.start)
    }

    /// The part of it within `range`, if any.
    fn clip(&self, range: &Range<u64>) -> Option<Piece> {
        let (start, end) = (self.start.max(range.start), self.end().min(range.end));
        (start < end).then(|| Piece {
            start,
            len: end - start,
            legal: self.legal.advance(start - self.start),
        })
    }

    /// Whether `next` goes on where this one ends, so that one piece can say both.
    fn continues_into(&self, next: &Piece) -> bool {
        self.end() == next.start && self.legal.advance(self.len) == next.legal
    }
}

/// An effect on content with its numbers filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "`at` and `len` are the range in bytes everywhere"
)]
pub enum Change {
    /// Zeros within the file.
    Zero { at: u64, len: u64 },
    /// Removed; what was behind moves down.
    Collapse { at: u64, len: u64 },
    /// A hole is inserted; what was there moves up.
    Insert { at: u64, len: u64 },
    /// Cut off at `at`.
    Truncate { at: u64 },
    /// Zeros from its end up to `at`, if it is shorter.
    Extend { at: u64 },
    /// Stamps of `file`'s `generation`; extends the file if need be.
    Overwrite {
        at: u64,
        len: u64,
        file: FileId,
        generation: u32,
    },
}

/// The content of one file: sorted pieces without gaps from 0 to its size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pieces: Vec<Piece>,
}

impl Content {
    /// A file of `size` bytes of its stamps.
    pub fn stamped(file: FileId, generation: u32, size: u64) -> Content {
        let mut content = Content::default();
        content.push(Piece {
            start: 0,
            len: size,
            legal: Legal::one(Origin::Stamp {
                file,
                generation,
                offset: 0,
            }),
        });
        content
    }

    /// A file of `size` bytes that is one hole.
    pub fn hole(size: u64) -> Content {
        let mut content = Content::default();
        content.push(Piece {
            start: 0,
            len: size,
            legal: Legal::one(Origin::Zero),
        });
        content
    }

    /// Whether it is one hole.
    pub fn is_hole(&self) -> bool {
        self.size() != 0 && *self == Content::hole(self.size())
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.pieces.last().map_or(0, Piece::end)
    }

    /// All pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The pieces within a range, clipped to it; shorter than the range where the file ends.
    pub fn window(&self, range: Range<u64>) -> impl Iterator<Item = Piece> + '_ {
        let first = self.pieces.partition_point(|p| p.end() <= range.start);
        self.pieces[first..]
            .iter()
            .map_while(move |p| p.clip(&range))
    }

    /// A copy of the pieces within a range: a content that begins at the range's start, for working out
    /// changes inside the range without copying the whole file.
    pub fn part(&self, range: Range<u64>) -> Content {
        Content {
            pieces: self.window(range).collect(),
        }
    }

    /// Puts a changed part back: it stands for everything of the file within `range`, and what lies behind
    /// moves if the part has become shorter or longer.
    pub fn put_back(&mut self, range: Range<u64>, part: &Content) {
        let shift = part.pieces.last().map_or(range.start, Piece::end) as i64 - range.end as i64;
        self.replace(range, &part.pieces, shift);
    }

    /// Applies one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Zero { at, len } => {
                let end = (at + len).min(self.size());
                if at < end {
                    self.replace(
                        at..end,
                        &[Piece {
                            start: at,
                            len: end - at,
                            legal: Legal::one(Origin::Zero),
                        }],
                        0,
                    );
                }
            }
            Change::Collapse { at, len } => self.replace(at..at + len, &[], -(len as i64)),
            Change::Insert { at, len } => {
                self.replace(
                    at..at,
                    &[Piece {
                        start: at,
                        len,
                        legal: Legal::one(Origin::Zero),
                    }],
                    len as i64,
                );
            }
            Change::Truncate { at } => self.replace(at..self.size().max(at), &[], 0),
            Change::Extend { at } => {
                let size = self.size();
                self.push(Piece {
                    start: size,
                    len: at.saturating_sub(size),
                    legal: Legal::one(Origin::Zero),
                });
            }
            Change::Overwrite {
                at,
                len,
                file,
                generation,
            } => {
                self.apply(Change::Extend { at });
                let end = (at + len).min(self.size());
                let origin = Origin::Stamp {
                    file,
                    generation,
                    offset: at,
                };
                // What lies beyond the old size is only pushed, so nothing behind it moves.
                self.replace(
                    at..end,
                    &[Piece {
                        start: at,
                        len,
                        legal: Legal::one(origin),
                    }],
                    0,
                );
            }
        }
    }

    /// Lets every byte also be what `other` holds there. Both must have the same size.
    pub fn unite(&mut self, other: &Content) {
        assert_eq!(
            self.size(),
            other.size(),
            "a file cannot have two sizes at rest"
        );
        let mine = std::mem::take(&mut self.pieces);
        let (mut a, mut b) = (0, 0);
        let mut at = 0;
        while let (Some(x), Some(y)) = (mine.get(a), other.pieces.get(b)) {
            let end = x.end().min(y.end());
            let range = at..end;
            if let (Some(mut piece), Some(also)) = (x.clip(&range), y.clip(&range)) {
                piece.legal.extend(&also.legal);
                self.push(piece);
            }
            at = end;
            a += usize::from(x.end() == end);
            b += usize::from(y.end() == end);
        }
    }

    /// Replaces `range` by `with` and moves everything behind it by `shift`.
    fn replace(&mut self, range: Range<u64>, with: &[Piece], shift: i64) {
        let first = self.pieces.partition_point(|p| p.end() <= range.start);
        let behind = self
            .pieces
            .partition_point(|p| p.start < range.end.max(range.start + 1));
        let rest = self.pieces.split_off(first.min(behind));
        for piece in &rest {
            if let Some(piece) = piece.clip(&(0..range.start)) {
                self.push(piece);
            }
        }
        for piece in with {
            self.push(*piece);
        }
        for piece in &rest {
            if let Some(mut piece) = piece.clip(&(range.end..u64::MAX)) {
                piece.start = piece.start.wrapping_add_signed(shift);
                self.push(piece);
            }
        }
    }

    fn push(&mut self, piece: Piece) {
        if piece.len == 0 {
            return;
        }
        match self.pieces.last_mut() {
            Some(last) if last.continues_into(&piece) => last.len += piece.len,
            _ => self.pieces.push(piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same content, byte by byte.
    fn bytes(content: &Content) -> Vec<Legal> {
        content
            .pieces()
            .iter()
            .flat_map(|p| (0..p.len).map(|i| p.legal.advance(i)))
            .collect()
    }

    fn change(size: u64) -> impl Strategy<Value = Change> {
        (0..4u8, 0..size, 1..=size, 1u32..50).prop_map(move |(kind, at, len, generation)| {
            let fits = len.min(size - at).max(1);
            match kind {
                0 => Change::Zero { at, len },
                1 => Change::Collapse { at, len: fits },
                2 => Change::Insert {
                    at,
                    len: len.min(8),
                },
                _ => Change::Overwrite {
                    at,
                    len,
                    file: 1,
                    generation,
                },
            }
        })
    }

    /// The naive meaning of each change.
    fn naive(model: &mut Vec<Legal>, change: Change) {
        match change {
            Change::Zero { at, len } => {
                let end = (at + len).min(model.len() as u64) as usize;
                model[at as usize..end].fill(Legal::one(Origin::Zero));
            }
            Change::Collapse { at, len } => {
                model.drain(at as usize..(at + len) as usize);
            }
            Change::Insert { at, len } => {
                model.splice(
                    at as usize..at as usize,
                    vec![Legal::one(Origin::Zero); len as usize],
                );
            }
            Change::Truncate { at } => model.truncate(at as usize),
            Change::Extend { at } => {
                model.resize(model.len().max(at as usize), Legal::one(Origin::Zero));
            }
            Change::Overwrite {
                at,
                len,
                file,
                generation,
            } => {
                model.resize(
                    model.len().max((at + len) as usize),
                    Legal::one(Origin::Zero),
                );
                for i in at..at + len {
                    model[i as usize] = Legal::one(Origin::Stamp {
                        file,
                        generation,
                        offset: i,
                    });
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_and_bytes_agree(changes in prop::collection::vec((0..6u8, any::<prop::sample::Index>(), 1u64..20, 1u32..9), 1..12)) {
            let mut content = Content::stamped(0, 1, 40);
            let mut model: Vec<Legal> = bytes(&content);
            for (kind, at, len, generation) in changes {
                let size = content.size();
                if size == 0 { break; }
                let at = at.index(size as usize) as u64;
                let change = match kind {
                    0 => Change::Zero { at, len },
                    1 => Change::Collapse { at, len: len.min(size - at) },
                    2 => Change::Insert { at, len },
                    3 => Change::Truncate { at },
                    4 => Change::Extend { at: at + len },
                    _ => Change::Overwrite { at, len, file: 1, generation },
                };
                content.apply(change);
                naive(&mut model, change);
                prop_assert_eq!(&bytes(&content), &model);
                prop_assert!(content.pieces().windows(2).all(|w| !w[0].continues_into(&w[1])), "pieces are merged");
            }
        }

        #[test]
        fn a_window_is_a_clip(first in change(40), second in change(20), from in 0u64..60, len in 1u64..30) {
            let mut content = Content::stamped(0, 1, 64);
            content.apply(first);
            if content.size() > 40 { content.apply(second); }
            let all = bytes(&content);
            let seen: Vec<Legal> = content.window(from..from + len).flat_map(|p| (0..p.len).map(move |i| p.legal.advance(i))).collect();
            let (from, to) = ((from as usize).min(all.len()), ((from + len) as usize).min(all.len()));
            prop_assert_eq!(&seen[..], &all[from..to]);
        }

        #[test]
        fn a_union_allows_both(at in 0u64..40, len in 1u64..24) {
            let mut a = Content::stamped(0, 1, 64);
            let b = a.clone();
            a.apply(Change::Zero { at, len });
            let zeroed = bytes(&a);
            a.unite(&b);
            for (i, legal) in bytes(&a).iter().enumerate() {
                prop_assert!(zeroed[i].origins().iter().all(|o| legal.origins().contains(o)));
                prop_assert!(bytes(&b)[i].origins().iter().all(|o| legal.origins().contains(o)));
            }
        }
    }
}
