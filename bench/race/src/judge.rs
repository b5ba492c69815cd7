//! The oracle's verdict on bytes: legal where some order of the operations explains each of them, and
//! named where none does. Judges bytes, never "torn" as such: a mix is legal iff every byte is.

use punchbench_results::Verdict;

use crate::FileId;
use crate::content::{Legal, Origin, Piece};
use crate::stamp::{BACKGROUND, Owner, Stamps};

/// Illegal bytes in an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrong {
    /// Offset in the file of the first of them.
    pub offset: u64,
    /// How many; 0 where the observation ended too early instead.
    pub bytes: u64,
}

/// Judges `seen`, the bytes of a file from `at` on, against the contents it may have had: each candidate is
/// the pieces of that window. Does not allocate.
pub fn judge<'a>(
    stamps: Stamps,
    at: u64,
    seen: &[u8],
    candidates: impl Iterator<Item = &'a [Piece]> + Clone,
) -> Result<(), Wrong> {
    let window_len = |pieces: &[Piece]| pieces.last().map_or(0, |p| p.end().saturating_sub(at));
    let len = seen.len() as u64;
    if candidates
        .clone()
        .any(|pieces| window_len(pieces) == len && equals(stamps, at, seen, pieces))
    {
        return Ok(());
    }
    let shortest = candidates.clone().map(window_len).min().unwrap_or(0);
    let wrong = wrong_bytes(stamps, at, seen, candidates);
    match wrong {
        Some(wrong) => Err(wrong),
        None if len < shortest => Err(Wrong {
            offset: at + len,
            bytes: 0,
        }),
        None => Ok(()),
    }
}

/// Whether every piece has exactly one origin and `seen` is just that.
fn equals(stamps: Stamps, at: u64, seen: &[u8], pieces: &[Piece]) -> bool {
    pieces.iter().all(|piece| {
        let [origin] = piece.legal.origins() else {
            return false;
        };
        let from = (piece.start - at) as usize;
        let bytes = &seen[from..from + piece.len as usize];
        match *origin {
            Origin::Zero => is_zero(bytes),
            Origin::Stamp {
                file,
                generation,
                offset,
            } => stamps.matches(file, generation, offset, bytes),
        }
    })
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let (blocks, tail) = words.as_chunks::<32>();
    blocks
        .iter()
        .all(|block| block.iter().fold(0, |acc, w| acc | u64::from_ne_bytes(*w)) == 0)
        && tail.as_flattened().iter().chain(rest).all(|b| *b == 0)
}

const SLICE: usize = 1024;

/// The bytes that no origin of any candidate explains.
fn wrong_bytes<'a>(
    stamps: Stamps,
    at: u64,
    seen: &[u8],
    candidates: impl Iterator<Item = &'a [Piece]> + Clone,
) -> Option<Wrong> {
    let mut wrong: Option<Wrong> = None;
    for (n, slice) in seen.chunks(SLICE).enumerate() {
        let start = at + (n * SLICE) as u64;
        let end = start + slice.len() as u64;
        let mut legal = [false; SLICE];
        let mut expected = [0; SLICE];
        for piece in candidates.clone().flatten() {
            let (from, to) = (piece.start.max(start), piece.end().min(end));
            if from >= to {
                continue;
            }
            let range = (from - start) as usize..(to - start) as usize;
            for &origin in piece.legal.origins() {
                expect(
                    stamps,
                    origin,
                    from - piece.start,
                    &mut expected[range.clone()],
                );
                for i in range.clone() {
                    legal[i] |= slice[i] == expected[i];
                }
            }
        }
        for i in (0..slice.len()).filter(|&i| !legal[i]) {
            let wrong = wrong.get_or_insert(Wrong {
                offset: start + i as u64,
                bytes: 0,
            });
            wrong.bytes += 1;
        }
    }
    wrong
}

/// The bytes of an origin from `skip` on.
fn expect(stamps: Stamps, origin: Origin, skip: u64, buf: &mut [u8]) {
    match origin {
        Origin::Zero => buf.fill(0),
        Origin::Stamp {
            file,
            generation,
            offset,
        } => stamps.fill(file, generation, offset + skip, buf),
    }
}

/// Fills `buf` with what `pieces` (each of one origin) say from `at` on.
pub fn render(stamps: Stamps, at: u64, pieces: &[Piece], buf: &mut [u8]) {
    for piece in pieces {
        let from = (piece.start - at) as usize;
        expect(
            stamps,
            piece.legal.origins()[0],
            0,
            &mut buf[from..from + piece.len as usize],
        );
    }
}

/// Whose bytes were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// Zeros.
    Zeros,
    /// A stamp of this run: its owner and the offset in the owner's file of the first recognised word.
    Stamp(Owner, u64),
    /// No stamp of this run.
    Unknown,
    /// Nothing: the file ended.
    End,
}

impl Got {
    /// Names bytes seen at `at` of a file.
    pub fn name(stamps: Stamps, at: u64, bytes: &[u8]) -> Got {
        if bytes.is_empty() {
            return Got::End;
        }
        let head = &bytes[..bytes.len().min(64)];
        if is_zero(head) {
            return Got::Zeros;
        }
        stamps
            .identify(at, head)
            .map_or(Got::Unknown, |(owner, offset)| Got::Stamp(owner, offset))
    }

    /// Takes stamps of another file for the file's own where they are.
    pub fn of(self, file: FileId, is_own: impl Fn(Owner) -> bool) -> Got {
        match self {
            Got::Stamp(owner, offset) if is_own(owner) => {
                Got::Stamp(Owner { file, ..owner }, offset)
            }
            other => other,
        }
    }

    /// What it amounts to when it was found in `file` where `expected` was legal.
    pub fn verdict(self, file: FileId, expected: Option<&Legal>) -> Verdict {
        let expects_data = expected.is_some_and(|l| l.origins().iter().all(|o| *o != Origin::Zero));
        match self {
            Got::Zeros if expects_data => Verdict::Lost,
            Got::Zeros => Verdict::WrongResult,
            Got::End => Verdict::WrongResult,
            Got::Unknown => Verdict::Foreign,
            Got::Stamp(owner, _) if owner.file == BACKGROUND => Verdict::Uninitialized,
            Got::Stamp(owner, _) if owner.file != file => Verdict::Foreign,
            Got::Stamp(owner, _) => {
                let newer = |o: &Origin| matches!(*o, Origin::Stamp { file: f, generation, .. } if f == file && generation > owner.generation);
                if expected.is_some_and(|l| l.origins().iter().all(newer)) {
                    Verdict::Lost
                } else {
                    Verdict::Stale
                }
            }
        }
    }

    /// In words, with the files' names.
    pub fn words(self, names: &[String]) -> String {
        match self {
            Got::Zeros => "zeros".into(),
            Got::End => "end of file".into(),
            Got::Unknown => "bytes that carry no stamp of this run".into(),
            Got::Stamp(owner, offset) if owner.file == BACKGROUND => {
                format!(
                    "the device's background, written before mkfs, of device offset {offset:#x}"
                )
            }
            Got::Stamp(owner, offset) => match names.get(usize::from(owner.file)) {
                Some(name) => format!("{name} generation {} offset {offset:#x}", owner.generation),
                None => format!(
                    "file number {} generation {} offset {offset:#x}",
                    owner.file, owner.generation
                ),
            },
        }
    }
}

/// What was legal, in words.
pub fn legal_words(legal: Option<&Legal>, names: &[String]) -> String {
    let Some(legal) = legal else {
        return "end of file".into();
    };
    let words = legal.origins().iter().map(|origin| match *origin {
        Origin::Zero => "zeros".to_string(),
        Origin::Stamp {
            file,
            generation,
            offset,
        } => {
            let name = names.get(usize::from(file)).map_or("?", String::as_str);
            format!("{name} generation {generation} offset {offset:#x}")
        }
    });
    words.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Change, Content};
    use proptest::prelude::*;

    const STAMPS: fn() -> Stamps = || Stamps::new(42);

    fn window(content: &Content, at: u64, len: u64) -> Vec<Piece> {
        content.window(at..at + len).collect()
    }

    fn bytes(content: &Content, at: u64, len: u64) -> Vec<u8> {
        let pieces = window(content, at, len);
        let mut buf = vec![0; pieces.last().map_or(0, |p| p.end() - at) as usize];
        render(STAMPS(), at, &pieces, &mut buf);
        buf
    }

    #[test]
    fn old_or_zero_is_legal_during_a_punch_and_only_zero_after() {
        let old = Content::stamped(0, 3, 16384);
        let mut new = old.clone();
        new.apply(Change::Zero {
            at: 4096,
            len: 4096,
        });
        let (o, n) = (window(&old, 4096, 4096), window(&new, 4096, 4096));
        let seen_old = bytes(&old, 4096, 4096);
        assert_eq!(
            judge(STAMPS(), 4096, &seen_old, [&o[..], &n[..]].into_iter()),
            Ok(())
        );
        assert_eq!(
            judge(STAMPS(), 4096, &[0; 4096], [&o[..], &n[..]].into_iter()),
            Ok(())
        );
        let mut torn = seen_old.clone();
        torn[100..2000].fill(0);
        assert_eq!(
            judge(STAMPS(), 4096, &torn, [&o[..], &n[..]].into_iter()),
            Ok(())
        );
        let wrong = judge(STAMPS(), 4096, &torn, [&n[..]].into_iter()).unwrap_err();
        assert_eq!(wrong.offset, 4096);
        let got = Got::name(STAMPS(), 4096, &torn);
        assert_eq!(
            got.words(&["victim".into()]),
            "victim generation 3 offset 0x1000"
        );
        assert_eq!(got.verdict(0, Some(&n[0].legal)), Verdict::Stale);
    }

    #[test]
    fn a_foreign_byte_is_named() {
        let old = Content::stamped(0, 3, 8192);
        let o = window(&old, 0, 4096);
        let mut seen = bytes(&old, 0, 4096);
        STAMPS().fill(2, 9, 0, &mut seen[1024..2048]);
        let wrong = judge(STAMPS(), 0, &seen, [&o[..]].into_iter()).unwrap_err();
        assert!(
            wrong.offset >= 1024 && wrong.offset < 1032 && wrong.bytes > 900,
            "{wrong:?}"
        );
        let at = wrong.offset as usize;
        assert_eq!(
            Got::name(STAMPS(), wrong.offset, &seen[at..2048]).verdict(0, Some(&o[0].legal)),
            Verdict::Foreign
        );
    }

    #[test]
    fn verdicts_by_what_was_got() {
        let data = Legal::one(Origin::Stamp {
            file: 0,
            generation: 5,
            offset: 0,
        });
        let zero = Legal::one(Origin::Zero);
        let stamp = |file, generation| {
            Got::Stamp(
                Owner {
                    file,
                    generation,
                    unit: 0,
                },
                0,
            )
        };
        assert_eq!(Got::Zeros.verdict(0, Some(&data)), Verdict::Lost);
        assert_eq!(stamp(0, 4).verdict(0, Some(&data)), Verdict::Lost);
        assert_eq!(stamp(0, 5).verdict(0, Some(&zero)), Verdict::Stale);
        assert_eq!(stamp(0, 5).verdict(0, Some(&data)), Verdict::Stale);
        assert_eq!(stamp(1, 5).verdict(0, Some(&zero)), Verdict::Foreign);
        assert_eq!(
            stamp(BACKGROUND, 0).verdict(0, Some(&zero)),
            Verdict::Uninitialized
        );
        assert_eq!(Got::Unknown.verdict(0, Some(&zero)), Verdict::Foreign);
        assert_eq!(Got::End.verdict(0, Some(&zero)), Verdict::WrongResult);
    }

    proptest! {
        #[test]
        fn every_mix_of_legal_bytes_is_legal_and_one_other_byte_is_not(
            at in 0u64..3000, len in 1usize..3000, hole in 0u64..6000, hole_len in 1u64..3000,
            picks in prop::collection::vec(any::<bool>(), 3000), flip: prop::sample::Index,
        ) {
            let old = Content::stamped(0, 1, 8192);
            let mut new = old.clone();
            new.apply(Change::Zero { at: hole, len: hole_len });
            let (o, n) = (window(&old, at, len as u64), window(&new, at, len as u64));
            let (a, b) = (bytes(&old, at, len as u64), bytes(&new, at, len as u64));
            let mut seen: Vec<u8> = (0..len).map(|i| if picks[i] { a[i] } else { b[i] }).collect();
            let both = [&o[..], &n[..]];
            prop_assert_eq!(judge(STAMPS(), at, &seen, both.into_iter()), Ok(()));
            let i = flip.index(len);
            seen[i] = (0..=255).find(|x| *x != a[i] && *x != b[i]).unwrap();
            prop_assert_eq!(judge(STAMPS(), at, &seen, both.into_iter()), Err(Wrong { offset: at + i as u64, bytes: 1 }));
        }

        #[test]
        fn a_short_observation_is_wrong(len in 1usize..3000, cut in 1usize..3000) {
            let content = Content::stamped(0, 1, 8192);
            let pieces = window(&content, 0, len as u64);
            let seen = &bytes(&content, 0, len as u64)[..len.saturating_sub(cut)];
            let short = judge(STAMPS(), 0, seen, [&pieces[..]].into_iter());
            prop_assert_eq!(short, Err(Wrong { offset: seen.len() as u64, bytes: 0 }));
        }
    }
}
