//! What an operation comes to in a round: the call with its numbers, and what it does to the files.

use super::*;

impl Plan {
    /// What the round's mutators change, by slot.
    pub(super) fn changes(&self, pass: u64, round: u64) -> Vec<(usize, FileId, Change)> {
        let mut changes = Vec::with_capacity(self.mutators);
        for actor in &self.actors {
            for (op, slot) in actor.ops.iter().zip(&actor.mutators) {
                let Some(slot) = *slot else { continue };
                let changes_of = self.changes_of(op, pass, round, slot);
                changes.extend(changes_of.into_iter().map(|(file, c)| (slot, file, c)));
            }
        }
        changes
    }

    /// Whose stamps a file has when a pass begins, if it has any.
    pub(super) fn owner(&self, file: FileId) -> Option<FileId> {
        match &self.files[usize::from(file)].fills {
            Fills::Stamped | Fills::BootOf(_) => Some(file),
            Fills::SameAs(other) => Some(self.file(other)),
            Fills::Empty | Fills::Hole => None,
        }
    }

    /// Refuses copies of what another operation changes: their content would depend on the order.
    pub(super) fn copies_what_stays(&self) -> Result<(), String> {
        let slots = || {
            let ops = self
                .actors
                .iter()
                .flat_map(|a| a.ops.iter().zip(&a.mutators));
            ops.filter_map(|(op, slot)| Some((op, (*slot)?)))
        };
        let changes = |file: FileId, but: usize| {
            let others = slots().filter(move |(_, slot)| *slot != but);
            others.into_iter().any(|(op, slot)| {
                let changed = self.changes_of(op, 0, 0, slot);
                changed.iter().any(|(f, _)| *f == file)
            })
        };
        for (op, slot) in slots() {
            let (on, from, both) = match op.effect() {
                Effect::CopyOf { on, from } => (self.file(on.file), self.file(from), false),
                Effect::Exchange { on, with } => (self.file(on.file), self.file(with), true),
                _ => continue,
            };
            let same = self.owner(on) == self.owner(from);
            let moves = changes(from, slot) || both && (self.fixed || changes(on, slot));
            if moves && !same {
                let (word, from) = (op.word(), &self.names[usize::from(from)]);
                return Err(format!(
                    "{word} takes what `{from}` holds while something else changes it: that is not modelled"
                ));
            }
        }
        Ok(())
    }

    /// The changes that a mutator's operation makes in a round. What is copied from another file is as it
    /// was when the pass began: no two rounds touch the same bytes.
    pub(super) fn changes_of(
        &self,
        op: &Op,
        pass: u64,
        round: u64,
        slot: usize,
    ) -> Vec<(FileId, Change)> {
        let chunk = self.chunk(round);
        let place = |r: On<'_>| {
            let range = r
                .range
                .resolve(&chunk, self.size(r.file), self.geometry)
                .expect("checked by lay_out");
            (self.file(r.file), range.start, range.end - range.start)
        };
        let copy = |at, len, from| match self.owner(from) {
            None => Change::Zero { at, len },
            Some(file) => Change::Overwrite {
                at,
                len,
                file,
                generation: self.generation(pass),
            },
        };
        match op.effect() {
            Effect::None => Vec::new(),
            Effect::Zero(r) => {
                let (file, at, len) = place(r);
                vec![(file, Change::Zero { at, len })]
            }
            Effect::Collapse(r) => {
                let (file, at, len) = place(r);
                vec![(file, Change::Collapse { at, len })]
            }
            Effect::Insert(r) => {
                let (file, at, len) = place(r);
                vec![(file, Change::Insert { at, len })]
            }
            Effect::Truncate(r) => {
                let (file, at, _) = place(r);
                vec![(file, Change::Truncate { at })]
            }
            Effect::Extend(name) => vec![(
                self.file(name),
                Change::Extend {
                    at: self.size(name),
                },
            )],
            Effect::Overwrite(r) => {
                let (file, at, len) = place(r);
                let generation = self.written(pass, round, slot);
                vec![(
                    file,
                    Change::Overwrite {
                        at,
                        len,
                        file,
                        generation,
                    },
                )]
            }
            Effect::CopyOf { on, from } => {
                let (file, at, len) = place(on);
                vec![(file, copy(at, len, self.file(from)))]
            }
            Effect::Exchange { on, with } => {
                let (file, at, len) = place(on);
                let with = self.file(with);
                vec![(file, copy(at, len, with)), (with, copy(at, len, file))]
            }
            Effect::SwapBoot(name) => {
                // Every second swap brings the file's own back.
                let file = self.file(name);
                let from = match self.behind(file) {
                    Some(boot) if round.is_multiple_of(2) => boot,
                    _ => file,
                };
                let len = self.files[usize::from(file)].filled;
                vec![(file, copy(0, len, from))]
            }
        }
    }

    /// The call that an operation on `chunk` makes.
    pub fn call(&self, op: &Op, chunk: &Range<u64>) -> Call {
        let (operand, second) = op.operands();
        let (file, at, len) = operand.map_or((0, 0, 0), |(name, range)| {
            let range = range
                .resolve(chunk, self.size(name), self.geometry)
                .expect("checked by lay_out");
            (self.file(name), range.start, range.end - range.start)
        });
        match op {
            Op::PunchHole(_) => Call::PunchHole { file, at, len },
            Op::ZeroRange(_) => Call::ZeroRange { file, at, len },
            Op::CollapseRange(_) => Call::CollapseRange { file, at, len },
            Op::InsertRange(_) => Call::InsertRange { file, at, len },
            Op::Truncate(_) => Call::Truncate { file, size: at },
            Op::Extend(f) => Call::Truncate {
                file: self.file(&f.file),
                size: self.size(&f.file),
            },
            Op::Read(a) => Call::Read {
                file,
                at,
                len,
                nowait: a.nowait,
                direct: a.direct,
                readahead: a.readahead,
            },
            Op::UringRead(a) => Call::UringRead {
                file,
                at,
                len,
                nowait: a.nowait,
            },
            Op::Splice(a) => Call::Splice {
                file,
                at,
                len,
                late: a.late,
            },
            Op::Fault(_) => Call::Fault { file, at, len },
            Op::Fadvise(_) => Call::Fadvise { file, at, len },
            Op::Readahead(_) => Call::Readahead { file, at, len },
            Op::Madvise(a) => Call::Madvise {
                file,
                at,
                len,
                advice: a.advice,
            },
            Op::Fiemap(_) => Call::Fiemap { file, at, len },
            Op::PrecacheExtents(f) => Call::PrecacheExtents {
                file: self.file(&f.file),
            },
            Op::CloneRange(_) => Call::CloneRange {
                file,
                at,
                len,
                from: second.map_or(file, |name| self.file(name)),
            },
            Op::ExchangeRange(_) => Call::ExchangeRange {
                file,
                at,
                len,
                with: second.map_or(file, |name| self.file(name)),
            },
            Op::SwapBoot(f) => Call::SwapBoot {
                file: self.file(&f.file),
            },
            Op::JournalData(f) => Call::JournalData {
                file: self.file(&f.file),
            },
            Op::BlkZeroout(_) => Call::BlkZeroout { file, at, len },
            Op::BlkDiscard(_) => Call::BlkDiscard { file, at, len },
            Op::ReadInto(_) => Call::ReadInto {
                file,
                at,
                len,
                from: second.map_or(file, |name| self.file(name)),
            },
            Op::Dedupe(_) => Call::Dedupe {
                file,
                at,
                len,
                into: second.map_or(file, |name| self.file(name)),
            },
            Op::Store(_) => Call::Store { file, at, len },
            Op::Write(a) => Call::Write {
                file,
                at,
                len,
                direct: a.direct,
            },
            Op::Fsync(f) => Call::Fsync {
                file: self.file(&f.file),
            },
            Op::Syncfs(_) => Call::Syncfs,
        }
    }
}
