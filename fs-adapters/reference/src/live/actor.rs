//! What an actor does, and what the coordinator sees: steps of the model on the round's window, one at a time.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use punchbench_race::{Call, FileId, Look, Outcome, Subject, SubjectError, Usage};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::rest::Bytes;
use super::window::Window;
use super::{PAGE, Shared, lock};
use crate::micro::Micro;
use crate::model::Model;
use crate::state::SPAN;
use crate::step::step;
use crate::value::Value;

/// What cannot go on for so long never will: the explorer proved before that no deadlock is possible.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many steps of others are waited for at most; a call has some tens.
const FAR: u32 = 32;
/// After so long the others are done, or wait for this one, or somebody else has the CPU.
const LINGER: Duration = Duration::from_micros(20);
const EAGAIN: i32 = 11;
const EDEADLK: i32 = 35;
const EOPNOTSUPP: i32 = 95;

/// One actor, or the coordinator.
pub(super) struct LiveActor {
    pub shared: Arc<Shared>,
    /// Its number in the scenario, if it is an actor's.
    pub actor: Option<usize>,
    /// Where the round's chunk begins.
    pub start: u64,
    /// Its window.
    pub window: Option<Arc<Mutex<Window>>>,
    /// Which of its operations is next.
    pub next: usize,
    /// What a splice has put into the pipe.
    pub pipe: Vec<u8>,
    /// What it has read from the device.
    pub usage: Usage,
    pub rng: Xoshiro256PlusPlus,
}

/// What a call has come to.
#[derive(Default)]
struct Ran {
    /// The values that it showed, page by page.
    shown: [Option<Value>; SPAN],
    /// It stored or wrote.
    wrote: bool,
    /// A compare found a difference.
    differs: bool,
}

impl LiveActor {
    /// Takes the steps of the next operation; `data` is what it stores or writes, from `at` on.
    fn run(&mut self, data: Option<(u64, &[u8])>) -> Result<Ran, i32> {
        let shared = Arc::clone(&self.shared);
        let window = self.window.clone().ok_or(EOPNOTSUPP)?;
        let script = self.actor.and_then(|a| shared.scripts[a].as_ref());
        let script = script.ok_or(EOPNOTSUPP)?;
        let calls = &script.ops[self.next % script.ops.len()];
        self.next += 1;
        let mut ran = Ran::default();
        for (begin, end) in calls {
            begin_call(
                &shared,
                &mut lock(&window),
                script.actor,
                (*begin, *end),
                data,
            );
            let mut moved = Instant::now();
            loop {
                let took = one_step(
                    &shared.model,
                    &mut lock(&window),
                    script.actor,
                    *end,
                    &mut ran,
                );
                match took {
                    Took::Last => break,
                    Took::Step { read } => {
                        self.usage.inblock += if read { PAGE / 512 } else { 0 };
                        moved = Instant::now();
                        self.linger(&window);
                    }
                    Took::None if moved.elapsed() < PATIENCE => std::thread::yield_now(),
                    Took::None => return Err(EDEADLK),
                }
            }
        }
        Ok(ran)
    }

    /// Lets others go first: often by a step, and now and then far. What goes wrong only where each of two calls meets
    /// one place of the other would hardly be met by chance.
    fn linger(&mut self, window: &Mutex<Window>) {
        let others = match self.rng.random_range(0..16u8) {
            0 => self.rng.random_range(1..=FAR),
            1..=3 => 1,
            _ => return,
        };
        let until = lock(window).steps + others;
        let began = Instant::now();
        while lock(window).steps < until && began.elapsed() < LINGER {
            std::thread::yield_now();
        }
    }

    /// The bytes of what was shown, as far as all of it was.
    fn bytes(&self, at: u64, len: u64, shown: &[Option<Value>], buf: &mut [u8]) -> u64 {
        let Some(window) = &self.window else { return 0 };
        let (window, folio) = (lock(window), self.shared.folio);
        let mut done = 0;
        for value in shown.iter().map_while(|v| *v) {
            let offset = (at + done - window.start) % folio;
            let n = (folio - offset).min(len - done);
            let part = &mut buf[done as usize..(done + n) as usize];
            window.fill(value, offset as usize, part);
            done += n;
        }
        done
    }

    fn show(&mut self, at: u64, len: u64, buf: &mut [u8]) -> Outcome {
        match self.run(None) {
            Err(errno) => failed(errno),
            Ok(ran) => moved(self.bytes(at, len, &ran.shown, buf)),
        }
    }

    fn silent(&mut self) -> Outcome {
        self.run(None).map_or_else(failed, |_| Outcome::default())
    }

    /// Stores or writes.
    fn put(&mut self, at: u64, data: &[u8]) -> Outcome {
        match self.run(Some((at, data))) {
            Err(errno) => failed(errno),
            Ok(ran) if ran.wrote => moved(data.len() as u64),
            // Its page is past the end.
            Ok(_) => Outcome {
                sigbus: true,
                ..Outcome::default()
            },
        }
    }

    /// What another file of the window holds, which nobody changes.
    fn other(&self, file: FileId, at: u64, len: u64) -> Option<Vec<u8>> {
        let shared = &self.shared;
        let window = lock(self.window.as_ref()?);
        let of = shared.real.iter().position(|f| *f == file)?;
        let (page, offset) = (
            (at - window.start) / shared.folio,
            (at - window.start) % shared.folio,
        );
        let slot = shared.model.files[of].first + page as usize;
        let body = (1..shared.model.bodies.len() as u8).map(Value::whole);
        let body = body
            .into_iter()
            .find(|b| shared.model.first.allowed[slot].has_body(*b));
        let mut bytes = vec![0; len as usize];
        window.fill(body?, offset as usize, &mut bytes);
        Some(bytes)
    }

    /// What the coordinator does between passes, to files at rest.
    fn arrange(&mut self, call: &Call, buf: &[u8]) -> Outcome {
        match *call {
            Call::Write { file, at, len, .. } => {
                let data = &buf[..len as usize];
                self.shared.at_rest(|rest| rest.write(file, at, data));
                moved(len)
            }
            Call::SwapBoot { .. } => match self.shared.behind {
                Some((file, behind)) => {
                    self.shared.at_rest(|rest| rest.swap(file, behind));
                    Outcome::default()
                }
                None => failed(EOPNOTSUPP),
            },
            Call::Fsync { .. } | Call::Syncfs => Outcome::default(),
            _ => failed(EOPNOTSUPP),
        }
    }
}

fn failed(errno: i32) -> Outcome {
    Outcome {
        errno,
        ..Outcome::default()
    }
}

fn moved(bytes: u64) -> Outcome {
    Outcome {
        bytes,
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

/// Puts an actor at the begin of a call, and what the call brings along where the model's words and bodies are.
fn begin_call(
    shared: &Shared,
    w: &mut Window,
    actor: usize,
    (begin, end): (u8, u8),
    data: Option<(u64, &[u8])>,
) {
    w.state.actors[actor].pc = begin;
    let Some((at, data)) = data else { return };
    let model = &shared.model;
    let at = (at - w.start) as usize;
    let folio = shared.folio as usize;
    // What of it lies in a page of the model, and where there.
    let part = |page: u8| {
        let index = usize::from(page) - model.files[model.file_of(page.into())].first;
        let (from, to) = (
            at.max(index * folio),
            (at + data.len()).min((index + 1) * folio),
        );
        (from - index * folio, data[from - at..to - at].to_vec())
    };
    for micro in &model.programs[actor][usize::from(begin)..usize::from(end)] {
        match *micro {
            Micro::Store { page, word, .. }
            | Micro::Dirty {
                page,
                write: Some(word),
            } => w.words[usize::from(word)] = part(page),
            Micro::DioWrite { page, value } => {
                w.bodies[usize::from(value.body())] = Bytes::new(part(page).1);
            }
            _ => {}
        }
    }
}

fn one_step(model: &Model, w: &mut Window, actor: usize, end: u8, ran: &mut Ran) -> Took {
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
    w.steps += 1;
    let micro = model.next_step(&before, actor);
    match micro {
        Micro::CopyOut { slot } => ran.shown[usize::from(slot)] = Some(before.actors[actor].value),
        Micro::Load { page, slot, .. } if before.actors[actor].mapped & 1 << page != 0 => {
            ran.shown[usize::from(slot)] = Some(before.pages[usize::from(page)].value);
        }
        Micro::Store { page, .. } => {
            ran.wrote |= before.actors[actor].writable & 1 << page != 0;
        }
        Micro::Dirty { write: Some(_), .. } | Micro::DioWrite { .. } => ran.wrote = true,
        Micro::Compare { page, with, .. } => {
            let value = |page: u8| before.pages[usize::from(page)].value;
            ran.differs |= value(page) != value(with);
        }
        _ => {}
    }
    Took::Step {
        read: matches!(micro, Micro::SubmitBio { .. } | Micro::DioRead { .. }),
    }
}

impl Subject for LiveActor {
    fn round(&mut self, chunk: &Range<u64>) {
        (self.start, self.window, self.next) = (chunk.start, None, 0);
    }

    fn approach(&mut self, _: &Call) {
        // Not before the gate: until then somebody may still look at files at rest.
        if self.window.is_none() {
            self.window = Some(self.shared.window(self.start));
        }
    }

    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        if self.actor.is_none() {
            return self.arrange(call, buf);
        }
        match *call {
            Call::PunchHole { .. }
            | Call::ZeroRange { .. }
            | Call::CollapseRange { .. }
            | Call::InsertRange { .. }
            | Call::Fadvise { .. }
            | Call::Readahead { .. }
            | Call::Madvise { .. }
            | Call::CloneRange { .. }
            | Call::ExchangeRange { .. }
            | Call::SwapBoot { .. }
            | Call::JournalData { .. } => self.silent(),
            // The model writes back whenever it likes.
            Call::Fsync { .. } | Call::Syncfs => self.silent(),
            Call::Dedupe { .. } => self.run(None).map_or_else(failed, |ran| Outcome {
                same: Some(!ran.differs),
                ..Outcome::default()
            }),
            Call::Truncate { file, size } => {
                let outcome = self.silent();
                if let Some(window) = &self.window {
                    lock(window).resize(file, size);
                }
                outcome
            }
            Call::Read { at, len, .. } | Call::UringRead { at, len, .. } => {
                match self.show(at, len, buf) {
                    Outcome {
                        bytes: 0, errno: 0, ..
                    } if call.may_not_wait() => failed(EAGAIN),
                    outcome => outcome,
                }
            }
            Call::Fault { at, len, .. } => {
                let outcome = self.show(at, len, buf);
                Outcome {
                    sigbus: outcome.errno == 0 && outcome.bytes < len,
                    ..outcome
                }
            }
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
                moved(std::mem::take(&mut self.pipe).len() as u64)
            }
            Call::Store { at, len, .. } | Call::Write { at, len, .. } => {
                self.put(at, &buf[..len as usize])
            }
            Call::ReadInto { at, len, from, .. } => match self.other(from, at, len) {
                Some(data) => self.put(at, &data),
                None => failed(EOPNOTSUPP),
            },
            Call::Fiemap { .. }
            | Call::PrecacheExtents { .. }
            | Call::BlkZeroout { .. }
            | Call::BlkDiscard { .. } => failed(EOPNOTSUPP),
        }
    }

    fn usage(&mut self) -> Usage {
        self.usage
    }

    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        let bytes = self.shared.at_rest(|rest| rest.look(how, file, at, buf));
        moved(bytes)
    }

    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()> {
        let files = lock(&self.shared.files);
        for (page, there) in (range.start / PAGE..range.end.div_ceil(PAGE)).zip(pages) {
            *there = self.shared.is_cached(&files, file, page);
        }
        Some(())
    }

    fn unmap(&mut self, _: FileId, _: Range<u64>) -> Result<(), SubjectError> {
        // Page tables are the window's: files at rest are mapped nowhere.
        self.shared.at_rest(|_| ());
        Ok(())
    }

    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError> {
        if self.shared.model.cache_is_store {
            return Ok(false);
        }
        self.shared.at_rest(|rest| {
            for page in range.start / PAGE..range.end.div_ceil(PAGE) {
                rest.drop_cached(file, page as usize);
            }
        });
        Ok(true)
    }
}
