//! Where a round's chunk lies: how many rounds fit a file, in which direction they go, what they leave
//! untouched between them, and which pages are one filler's alone.

use punchbench_sys::map::HUGE_PAGE;

use super::*;

impl Plan {
    /// Finds how many rounds fit, from what one round touches.
    pub(super) fn lay_out(&mut self) -> Result<(), Result<RangeError, String>> {
        let size = self.files[usize::from(self.on)].size;
        let probe = if self.fixed {
            size.saturating_sub(self.chunk)
        } else {
            size / 2 / self.chunk * self.chunk
        };
        let touched = self.touched(&(probe..probe + self.chunk)).map_err(Ok)?;
        let (before, behind) = (
            probe - touched.start.min(probe),
            touched.end.max(probe + self.chunk) - probe,
        );
        if self.fixed {
            (self.first, self.stride) = (size - self.chunk, 0);
            self.rounds = match self.stage.is_empty() {
                true => FIXED_ROUNDS,
                false => 1,
            };
        } else if self.shifting {
            // Downwards, so that each round's chunk was never cached in this pass.
            let room = size.saturating_sub(behind + before + 8 * self.chunk);
            self.rounds = (room / self.chunk).min(SHIFTING_ROUNDS);
            self.batch = 1;
        } else {
            self.stride = (before + behind).next_multiple_of(self.chunk);
            self.first = before.next_multiple_of(self.chunk);
            self.batch = (BATCH_BYTES / self.stride).clamp(1, BATCH_ROUNDS);
            // On a filesystem that is filled up, what the guards cut off would need extents of its own; and chunks
            // of huge pages must stay where a huge page may be.
            if self.reuse.is_empty() && !self.chunk.is_multiple_of(HUGE_PAGE as u64) {
                self.guard = self.geometry.page.max(self.geometry.block);
            }
            let room = size.saturating_sub(self.first);
            let whole = self.batch * self.stride + self.guard;
            let rest = (room % whole) / self.stride;
            self.rounds = room / whole * self.batch + rest.min(self.batch);
            if self.descending {
                // Whole batches, each with its guard behind it.
                self.batch = self.batch.min(self.rounds.max(1));
                self.rounds -= self.rounds % self.batch;
            }
        }
        if self.rounds == 0 {
            return Err(Err(format!(
                "no round of {} bytes fits into a file of {size} bytes",
                self.chunk
            )));
        }
        Ok(())
    }

    /// Everything of the raced file that a round on `chunk` touches.
    pub(super) fn touched(&self, chunk: &Range<u64>) -> Result<Range<u64>, RangeError> {
        let mut touched = chunk.clone();
        for op in self.actors.iter().flat_map(|a| &a.ops) {
            if let (Some((file, range)), _) = op.operands() {
                let size = self.size(file);
                let resolve = |chunk| range.resolve(chunk, size, self.geometry);
                let other = self.chunk..2 * self.chunk;
                let range = resolve(chunk)?;
                // Of another file only what goes with the chunk: no two rounds may share it.
                let moves = || resolve(&other).is_ok_and(|other| other != range);
                if self.file(file) == self.on || !self.fixed && moves() {
                    touched = touched.start.min(range.start)..touched.end.max(range.end);
                }
            }
        }
        Ok(touched)
    }

    /// Finds the pages of a chunk that are one filler's alone.
    pub(super) fn share_out(&mut self) -> Result<(), RangeError> {
        let (chunk, page) = (self.chunk(0), self.geometry.page);
        let mut named = Vec::new();
        for (who, actor) in self.actors.iter().enumerate() {
            for op in actor.ops.iter().filter(|op| op.brings_in()) {
                let (Some((file, range)), second) = op.operands() else {
                    continue;
                };
                let range = range.resolve(&chunk, self.size(file), self.geometry)?;
                let on = &self.names[usize::from(self.on)];
                if file == on || second == Some(on) {
                    named.push((who, range));
                }
            }
        }
        let first = chunk.start / page;
        for at in first..chunk.end.div_ceil(page) {
            let (from, to) = (at * page, (at + 1) * page);
            let mut whose = named
                .iter()
                .filter(|(_, r)| r.start < to && from < r.end)
                .map(|(who, _)| *who);
            if let Some(one) = whose.next()
                && whose.all(|other| other == one)
            {
                self.actors[one].alone.push(at - first);
            }
        }
        Ok(())
    }

    /// The chunk of a round.
    pub fn chunk(&self, round: u64) -> Range<u64> {
        let size = self.files[usize::from(self.on)].size;
        let at = if self.shifting && !self.fixed {
            size / self.chunk * self.chunk - (round + 8) * self.chunk
        } else {
            let round = if self.descending {
                self.rounds - 1 - round
            } else {
                round
            };
            self.first + round * self.stride + round / self.batch * self.guard
        };
        at..at + self.chunk
    }

    /// The round whose chunk (or its surroundings) holds `offset`, of those from `from` to `to`.
    pub fn round_of(&self, offset: u64, from: u64, to: u64) -> u64 {
        let away = |round: &u64| {
            let chunk = self.chunk(*round);
            chunk.start.saturating_sub(offset) + (offset + 1).saturating_sub(chunk.end)
        };
        (from..to).min_by_key(away).unwrap_or(from)
    }
}
