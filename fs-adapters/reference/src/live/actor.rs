//! What an actor does, and what the coordinator sees: steps of the model on one chunk, one at a time.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use punchbench_race::{Call, FileId, Look, Outcome, Subject, SubjectError, Usage};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{PAGE, Shared, Window};
use crate::micro::Micro;
use crate::model::Model;
use crate::state::{Page, UNWRITTEN, USED, flag};
use crate::step::step;
use crate::value::Value;

/// What cannot go on for so long never will: the explorer proved before that no deadlock is possible.
const PATIENCE: Duration = Duration::from_secs(5);
const EAGAIN: i32 = 11;
const EDEADLK: i32 = 35;
const EOPNOTSUPP: i32 = 95;

/// One actor, or the coordinator.
pub(super) struct LiveActor {
    pub shared: Arc<Shared>,
    /// Its number, if it is an actor's.
    pub actor: Option<usize>,
    /// Which of its operations is next.
    pub next: usize,
    /// What a splice has put into the pipe.
    pub pipe: Vec<u8>,
    /// What it has read from the device.
    pub usage: Usage,
    pub rng: Xoshiro256PlusPlus,
}

impl LiveActor {
    /// Takes the steps of the next operation on the chunk; the values that it shows, by slot.
    fn run(&mut self, at: u64, stored: Option<(usize, &[u8])>) -> Result<[Option<Value>; 2], i32> {
        let shared = Arc::clone(&self.shared);
        let actor = self.actor.ok_or(EOPNOTSUPP)?;
        let ops = &shared.scripts[actor];
        let calls = &ops[self.next % ops.len()];
        self.next += 1;
        let mut shown = [None; 2];
        for (begin, end) in calls {
            let begun = shared.with(at, |_, w| {
                w.state.actors[actor].pc = *begin;
                let program = &shared.model.programs[actor][usize::from(*begin)..usize::from(*end)];
                let word = program.iter().find_map(|m| match m {
                    Micro::Store { word, .. }
                    | Micro::Dirty {
                        write: Some(word), ..
                    } => Some(*word),
                    _ => None,
                });
                if let (Some(word), Some((offset, bytes))) = (word, stored) {
                    w.words[usize::from(word)] = (offset, bytes.to_vec());
                }
            });
            begun.ok_or(EOPNOTSUPP)?;
            let mut moved = Instant::now();
            loop {
                match shared.with(at, |_, w| {
                    one_step(&shared.model, w, actor, *end, &mut shown)
                }) {
                    Some(Took::Last) => break,
                    Some(Took::Step { read }) => {
                        self.usage.inblock += if read { PAGE / 512 } else { 0 };
                        moved = Instant::now();
                        if self.rng.random_range(0..4u8) == 0 {
                            std::thread::yield_now();
                        }
                    }
                    Some(Took::None) if moved.elapsed() < PATIENCE => std::thread::yield_now(),
                    Some(Took::None) | None => return Err(EDEADLK),
                }
            }
        }
        Ok(shown)
    }

    /// The bytes of what was shown, as far as all of it was.
    fn bytes(&self, at: u64, len: u64, shown: &[Option<Value>; 2], buf: &mut [u8]) -> u64 {
        let mut done = 0;
        for value in shown.iter().map_while(|v| *v) {
            let from = at + done;
            let offset = from % PAGE;
            let n = (PAGE - offset).min(len - done);
            if n == 0 {
                break;
            }
            let part = &mut buf[done as usize..(done + n) as usize];
            self.shared.with(at, |start, w| {
                self.shared.fill(w, start, value, offset as usize, part)
            });
            done += n;
        }
        done
    }

    fn show(&mut self, at: u64, len: u64, buf: &mut [u8]) -> Outcome {
        match self.run(at, None) {
            Err(errno) => failed(errno),
            Ok(shown) => match self.bytes(at, len, &shown, buf) {
                0 => failed(EAGAIN),
                bytes => Outcome {
                    bytes,
                    ..Outcome::default()
                },
            },
        }
    }

    fn silent(&mut self, at: u64) -> Outcome {
        self.run(at, None)
            .map_or_else(failed, |_| Outcome::default())
    }
}

fn failed(errno: i32) -> Outcome {
    Outcome {
        errno,
        ..Outcome::default()
    }
}

enum Took {
    None,
    Step {
        /// A page from the device.
        read: bool,
    },
    Last,
}

fn one_step(
    model: &Model,
    w: &mut Window,
    actor: usize,
    end: u8,
    shown: &mut [Option<Value>; 2],
) -> Took {
    let before = w.state;
    if before.actors[actor].pc == end {
        return Took::Last;
    }
    let Some(mut next) = step(model, &before, actor) else {
        return Took::None;
    };
    // What is wrong with it is for the engine's oracle to say.
    next.broken = 0;
    w.state = next;
    let micro = model.next_step(&before, actor);
    match micro {
        Micro::CopyOut { slot } => shown[usize::from(slot)] = Some(before.actors[actor].value),
        Micro::Load { page, slot, .. } if before.actors[actor].mapped & 1 << page != 0 => {
            shown[usize::from(slot)] = Some(before.pages[usize::from(page)].value);
        }
        _ => {}
    }
    Took::Step {
        read: matches!(micro, Micro::SubmitBio { .. }),
    }
}

impl Subject for LiveActor {
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        match *call {
            Call::PunchHole { at, .. } | Call::ZeroRange { at, .. } => self.silent(at),
            Call::Fadvise { at, .. } | Call::Readahead { at, .. } => self.silent(at),
            Call::Madvise { at, .. } => self.silent(at),
            Call::Read { at, len, .. }
            | Call::UringRead { at, len, .. }
            | Call::Fault { at, len, .. } => self.show(at, len, buf),
            Call::Splice { at, len, .. } => {
                let mut pipe = std::mem::take(&mut self.pipe);
                pipe.resize(len as usize, 0);
                let outcome = self.show(at, len, &mut pipe);
                pipe.truncate(outcome.bytes as usize);
                self.pipe = pipe;
                outcome
            }
            Call::Drain { .. } => {
                buf[..self.pipe.len()].copy_from_slice(&self.pipe);
                Outcome {
                    bytes: std::mem::take(&mut self.pipe).len() as u64,
                    ..Outcome::default()
                }
            }
            Call::Store { at, len, .. }
            | Call::Write {
                at,
                len,
                direct: false,
                ..
            } => {
                let data = &buf[..len as usize];
                match self.run(at, Some(((at % PAGE) as usize, data))) {
                    Err(errno) => failed(errno),
                    Ok(_) => Outcome {
                        bytes: len,
                        ..Outcome::default()
                    },
                }
            }
            Call::CollapseRange { .. }
            | Call::InsertRange { .. }
            | Call::Truncate { .. }
            | Call::Fiemap { .. }
            | Call::PrecacheExtents { .. }
            | Call::Dedupe { .. }
            | Call::CloneRange { .. }
            | Call::ExchangeRange { .. }
            | Call::SwapBoot { .. }
            | Call::JournalData { .. }
            | Call::BlkZeroout { .. }
            | Call::BlkDiscard { .. }
            | Call::ReadInto { .. }
            | Call::Write { .. }
            | Call::Syncfs => failed(EOPNOTSUPP),
        }
    }

    fn usage(&mut self) -> Usage {
        self.usage
    }

    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        let size = self.shared.size(file);
        let end = (at + buf.len() as u64).min(size).max(at);
        for (page, slot) in self.shared.slots(file, at..end).collect::<Vec<_>>() {
            let (from, to) = (page.max(at), (page + PAGE).min(end));
            let part = &mut buf[(from - at) as usize..(to - at) as usize];
            self.shared.with(page, |start, w| {
                let cached = w.state.pages[slot];
                let value = match (how, cached.is(flag::PRESENT | flag::UPTODATE)) {
                    (Look::Read | Look::Mapping, true) => cached.value,
                    (Look::Direct, true) if self.shared.model.cache_is_store => cached.value,
                    _ => w.state.on_disk(slot),
                };
                if how != Look::Direct && !cached.is(flag::PRESENT) {
                    w.state.pages[slot] = Page {
                        flags: flag::PRESENT | flag::UPTODATE,
                        value,
                        ..Page::default()
                    };
                }
                self.shared
                    .fill(w, start, value, (from - page) as usize, part);
            });
        }
        Outcome {
            bytes: end - at,
            ..Outcome::default()
        }
    }

    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()> {
        for ((at, slot), there) in self.shared.slots(file, range).zip(pages) {
            *there = self
                .shared
                .with(at, |_, w| w.state.pages[slot].is(flag::PRESENT))?;
        }
        Some(())
    }

    fn unmap(&mut self, file: FileId, range: Range<u64>) -> Result<(), SubjectError> {
        if let Some(actor) = self.actor {
            for (at, slot) in self.shared.slots(file, range) {
                self.shared.with(at, |_, w| {
                    w.state.actors[actor].mapped &= !(1 << slot);
                    w.state.actors[actor].writable &= !(1 << slot);
                });
            }
        }
        Ok(())
    }

    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError> {
        if self.shared.model.cache_is_store {
            return Ok(false);
        }
        let gone = |(at, slot): (u64, usize)| {
            self.shared
                .with(at, |_, w| evict(&self.shared.model, w, slot))
        };
        Ok(self
            .shared
            .slots(file, range)
            .all(|page| gone(page) == Some(true)))
    }
}

/// Writes a page back and drops it.
fn evict(model: &Model, w: &mut Window, slot: usize) -> bool {
    let page = w.state.pages[slot];
    if page.locker != 0 || page.is(flag::WRITEBACK) {
        return false;
    }
    if page.is(flag::PRESENT | flag::DIRTY) {
        let mapped = w.state.map[slot] & !UNWRITTEN;
        let block = match mapped {
            0 => w.state.free_block(model.extent),
            block => Some(block - 1),
        };
        let Some(block) = block else {
            return false;
        };
        w.state.blocks[usize::from(block)] = USED | page.value.0;
        w.state.map[slot] = block + 1;
    }
    w.state.zap(slot);
    w.state.pages[slot] = Page::default();
    true
}
