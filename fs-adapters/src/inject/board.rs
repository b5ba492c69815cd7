//! What the lying actors share, each being a process of its own: the bytes that a stale page cache shows,
//! and how often the invalidator has returned.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use punchbench_race::FileId;
use punchbench_sys::shm::SharedWords;

/// The most bytes that are shown stale.
pub(super) const STALE_MAX: usize = 64 << 10;

// Places on the board; the bytes follow.
const RETURNED: usize = 0;
/// 0, or the number of what is shown: changes with the entry, so that a torn copy is noticed.
const SHOWN: usize = 1;
const SHOWN_EVER: usize = 2;
const FILE: usize = 3;
const AT: usize = 4;
const LEN: usize = 5;
const BYTES: usize = 6;
const WORD: usize = size_of::<u64>();

/// Shared by every process forked after it was made.
#[derive(Debug)]
pub(super) struct Board {
    words: SharedWords,
}

impl Board {
    pub(super) fn new() -> io::Result<Board> {
        Ok(Board {
            words: SharedWords::new(BYTES + STALE_MAX / WORD)?,
        })
    }

    /// The invalidator is about to return.
    pub(super) fn count_return(&self) {
        self.words[RETURNED].fetch_add(1, AcqRel);
    }

    pub(super) fn returns(&self) -> u64 {
        self.words[RETURNED].load(Acquire)
    }

    /// Shows `bytes` (at most [`STALE_MAX`]) in place of what `file` holds from `at` on.
    pub(super) fn show(&self, file: FileId, at: u64, bytes: &[u8]) {
        self.words[SHOWN].store(0, Release);
        self.words[FILE].store(file.into(), Relaxed);
        self.words[AT].store(at, Relaxed);
        self.words[LEN].store(bytes.len() as u64, Relaxed);
        for (slot, bytes) in self.words[BYTES..].iter().zip(bytes.chunks(WORD)) {
            let mut word = [0; WORD];
            word[..bytes.len()].copy_from_slice(bytes);
            slot.store(u64::from_le_bytes(word), Relaxed);
        }
        let number = self.words[SHOWN_EVER].fetch_add(1, Relaxed) + 1;
        self.words[SHOWN].store(number, Release);
    }

    /// Stops showing anything of `file` that touches `range`.
    pub(super) fn clear(&self, file: FileId, range: &Range<u64>) {
        if let Some((_, shown)) = self.shown(file)
            && shown.start < range.end
            && range.start < shown.end
        {
            self.words[SHOWN].store(0, Release);
        }
    }

    /// Lays what is shown over `seen`, the bytes that `file` holds from `at` on.
    pub(super) fn lay_over(&self, file: FileId, at: u64, seen: &mut [u8]) {
        let Some((number, shown)) = self.shown(file) else {
            return;
        };
        let (start, end) = (
            shown.start.max(at),
            shown.end.min(at.saturating_add(seen.len() as u64)),
        );
        for offset in start..end {
            let i = (offset - shown.start) as usize;
            let word = self.words[BYTES + i / WORD].load(Relaxed).to_le_bytes();
            if self.words[SHOWN].load(Acquire) != number {
                return;
            }
            seen[(offset - at) as usize] = word[i % WORD];
        }
    }

    fn shown(&self, file: FileId) -> Option<(u64, Range<u64>)> {
        let number = self.words[SHOWN].load(Acquire);
        let (at, len) = (self.words[AT].load(Relaxed), self.words[LEN].load(Relaxed));
        (number != 0 && self.words[FILE].load(Relaxed) == u64::from(file))
            .then(|| (number, at..at + len))
    }
}
