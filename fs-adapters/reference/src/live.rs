//! The same definition run by real threads: each chunk of a file is a small state of the model of its own, and
//! an actor's call takes the steps of its program on it, one at a time, with others' steps in between as it
//! happens. So the race engine can race the reference like any filesystem, without root, and every run can
//! carry its own controls.
//!
//! Bytes come in only at the edges: a value of the model says which file's page it was at first, and what was
//! written into it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use punchbench_race::plan::Plan;
use punchbench_race::subject::Extent;
use punchbench_race::{
    Call, DirectIo, FileId, Look, Outcome, Stage, Subject, SubjectError, Subjects,
};
use punchbench_scenarios::{Geometry, Op, Role, Scenario};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::anomaly::Anomaly;
use crate::compile::{CompileError, compile};
use crate::explore::{Limits, explore};
use crate::micro::Micro;
use crate::model::Model;
use crate::policy::Policy;
use crate::scenario::{NotModelled, calls_of, setup};
use crate::state::{Page, State, UNWRITTEN, USED, flag};
use crate::step::step;
use crate::value::{Value, WORDS};

const PAGE: u64 = 4096;
const GEOMETRY: Geometry = Geometry {
    page: PAGE,
    block: PAGE,
};
/// What cannot go on for so long never will: the explorer proved before that no deadlock is possible.
const PATIENCE: Duration = Duration::from_secs(5);
const EAGAIN: i32 = 11;
const EDEADLK: i32 = 35;
const EOPNOTSUPP: i32 = 95;

/// Why a scenario cannot be run live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotLive {
    /// The model cannot run it.
    #[error(transparent)]
    NotModelled(#[from] NotModelled),
    /// Nor can the policy.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It reaches beyond one chunk, where the live reference has one small state for each.
    #[error("{0} cannot be run live: {1}; `punchbench explore` can")]
    BeyondTheChunk(String, String),
    /// Threads would hang.
    #[error(
        "{0} under {1} can deadlock or livelock, so threads would hang; `punchbench explore` shows how"
    )]
    Hangs(String, String),
}

/// One target: a scenario's files under a policy.
#[derive(Debug, Clone)]
pub struct Live(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    model: Model,
    layout: Layout,
    /// By the scenario's number of a file: which file of the model it is; none for a witness.
    files: Vec<Option<usize>>,
    /// What the files held when the pass began.
    bytes: Vec<RwLock<Vec<u8>>>,
    /// By the scenario's number of an actor: of each operation, where its calls begin and end.
    scripts: Vec<Vec<Vec<(u8, u8)>>>,
    /// Of each body, where its bytes are: file of the model, page.
    bodies: Vec<Option<(usize, usize)>>,
    windows: RwLock<Vec<Mutex<Window>>>,
    seed: u64,
}

/// Which pages of the files are one chunk: rounds keep guard pages between them, which are alone.
#[derive(Debug)]
struct Layout {
    /// Of each page: its window, and which page of that it is.
    pages: Vec<(usize, usize)>,
    /// Of each window: its first byte.
    starts: Vec<u64>,
}

impl Layout {
    fn of(plan: &Plan, size: u64) -> Layout {
        let pages = (size / PAGE) as usize;
        let mut layout = Layout {
            pages: vec![(usize::MAX, 0); pages],
            starts: Vec::new(),
        };
        for chunk in (0..plan.rounds).map(|round| plan.chunk(round)) {
            let window = layout.starts.len();
            layout.starts.push(chunk.start);
            for (n, page) in (chunk.start / PAGE..chunk.end / PAGE).enumerate() {
                layout.pages[page as usize] = (window, n);
            }
        }
        for page in (0..pages)
            .filter(|p| layout.pages[*p].0 == usize::MAX)
            .collect::<Vec<_>>()
        {
            layout.pages[page] = (layout.starts.len(), 0);
            layout.starts.push(page as u64 * PAGE);
        }
        layout
    }
}

/// One chunk.
#[derive(Debug, Clone)]
struct Window {
    state: State,
    /// Of each word, where in its page it stands and what it is.
    words: [(usize, Vec<u8>); WORDS],
}

impl Live {
    /// Sets the files up; they are empty until the engine prepares them. `seed` is for the yields.
    pub fn new(scenario: &Scenario, policy: &Policy, seed: u64) -> Result<Live, NotLive> {
        let beyond = |why: &str| NotLive::BeyondTheChunk(scenario.scenario.clone(), why.to_owned());
        for (_, actor) in scenario.actors.iter() {
            if actor.role == Role::Reuser {
                return Err(beyond("a reuser needs blocks that leave the chunk"));
            }
            if let Some(op) = actor.ops.iter().find(|op| !within_a_chunk(op)) {
                return Err(beyond(&format!("{} does", op.word())));
            }
        }
        let setup = setup(scenario)?;
        let chunk = scenario.round.chunk.bytes(GEOMETRY);
        let plan = Plan::new(scenario, GEOMETRY).map_err(|e| beyond(&e.to_string()))?;
        let size = scenario
            .files
            .get(&scenario.round.on)
            .map_or(0, |f| f.size.bytes(GEOMETRY));
        if setup.files.iter().any(|f| f.room as u64 * PAGE != chunk) {
            return Err(beyond("its chunk has more pages than the model"));
        }
        let model = compile(&setup, policy)?;
        let found = explore(&model, &Limits::default()).found;
        if found.contains_key(&Anomaly::Deadlock) || found.contains_key(&Anomaly::Livelock) {
            return Err(NotLive::Hangs(
                scenario.scenario.clone(),
                policy.policy.clone(),
            ));
        }
        let names: Vec<&str> = setup.files.iter().map(|f| f.name.as_str()).collect();
        let files = scenario
            .files
            .iter()
            .map(|(name, _)| names.iter().position(|n| *n == name));
        let bodies = (0..model.bodies.len()).map(|body| {
            let slot = (0..model.extent.pages)
                .find(|p| body > 0 && model.first.allowed[*p].has_body(Value(body as u8)))?;
            let file = model.file_of(slot);
            Some((file, slot - model.files[file].first))
        });
        Ok(Live(Arc::new(Shared {
            layout: Layout::of(&plan, size),
            files: files.collect(),
            bytes: setup.files.iter().map(|_| RwLock::default()).collect(),
            scripts: scripts(&model, &calls_of(scenario)?),
            bodies: bodies.collect(),
            windows: RwLock::default(),
            seed,
            model,
        })))
    }
}

/// Whether an operation stays within the round's chunk, and leaves the file's size alone.
fn within_a_chunk(op: &Op) -> bool {
    match op {
        Op::PunchHole(_)
        | Op::ZeroRange(_)
        | Op::Read(_)
        | Op::UringRead(_)
        | Op::Splice(_)
        | Op::Fault(_)
        | Op::Fadvise(_)
        | Op::Readahead(_)
        | Op::Madvise(_)
        | Op::Store(_) => true,
        Op::Write(a) => !a.direct && !a.fills_up,
        Op::CollapseRange(_)
        | Op::InsertRange(_)
        | Op::Truncate(_)
        | Op::Extend(_)
        | Op::Fiemap(_)
        | Op::Dedupe(_)
        | Op::CloneRange(_)
        | Op::ExchangeRange(_)
        | Op::SwapBoot(_)
        | Op::JournalData(_)
        | Op::BlkZeroout(_)
        | Op::BlkDiscard(_)
        | Op::ReadInto(_)
        | Op::Syncfs(_) => false,
    }
}

/// Where each operation's calls begin and end in the programs. All actors have calls here, so the scenario's
/// order is the model's.
fn scripts(model: &Model, counts: &[Vec<usize>]) -> Vec<Vec<Vec<(u8, u8)>>> {
    let script = |(program, counts): (&Vec<Micro>, &Vec<usize>)| {
        let stops = |m: &Micro| matches!(m, Micro::Begin { .. } | Micro::End);
        let stops: Vec<u8> = (0..program.len())
            .filter(|at| stops(&program[*at]))
            .map(|at| at as u8)
            .collect();
        let mut calls = stops.windows(2).map(|pair| (pair[0], pair[1]));
        counts
            .iter()
            .map(|n| calls.by_ref().take(*n).collect())
            .collect()
    };
    model.programs.iter().zip(counts).map(script).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the trial; what is looked at meanwhile does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The bytes of a page, from `offset` in it on.
    fn fill(&self, window: &Window, start: u64, value: Value, offset: usize, buf: &mut [u8]) {
        match self.bodies[usize::from(value.body())] {
            None => buf.fill(0),
            Some((file, page)) => {
                let bytes = self.bytes[file]
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                let at = start as usize + page * PAGE as usize + offset;
                buf.copy_from_slice(&bytes[at..at + buf.len()]);
            }
        }
        let (at, word) = &window.words[usize::from(value.word())];
        for (n, byte) in word.iter().enumerate() {
            if let Some(there) = (at + n).checked_sub(offset).and_then(|n| buf.get_mut(n)) {
                *there = *byte;
            }
        }
    }

    /// Of a file, in bytes: the same as when it was prepared.
    fn size(&self, file: FileId) -> u64 {
        let bytes = self.files[usize::from(file)].map(|f| &self.bytes[f]);
        bytes.map_or(0, |b| {
            b.read().unwrap_or_else(PoisonError::into_inner).len() as u64
        })
    }

    /// The window of a byte, and where it begins.
    fn with<R>(&self, at: u64, body: impl FnOnce(u64, &mut Window) -> R) -> Option<R> {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        let (window, _) = *self.layout.pages.get((at / PAGE) as usize)?;
        let start = self.layout.starts[window];
        Some(body(start, &mut lock(windows.get(window)?)))
    }

    /// The slots of a range, each with its offset in the file.
    fn slots(&self, file: FileId, range: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
        let first = self.files[usize::from(file)].map(|f| self.model.files[f].first);
        let pages = (range.start / PAGE)..range.end.div_ceil(PAGE);
        pages.filter_map(move |page| {
            let at = page * PAGE;
            let (_, page) = *self.layout.pages.get(page as usize)?;
            Some((at, first? + page))
        })
    }
}

/// One actor, or the coordinator.
struct LiveActor {
    shared: Arc<Shared>,
    /// Its number, if it is an actor's.
    actor: Option<usize>,
    /// Which of its operations is next.
    next: usize,
    /// What a splice has put into the pipe.
    pipe: Vec<u8>,
    rng: Xoshiro256PlusPlus,
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
                    Some(Took::Step) => {
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
    Step,
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
    match model.next_step(&before, actor) {
        Micro::CopyOut { slot } => shown[usize::from(slot)] = Some(before.actors[actor].value),
        Micro::Load { page, slot, .. } if before.actors[actor].mapped & 1 << page != 0 => {
            shown[usize::from(slot)] = Some(before.pages[usize::from(page)].value);
        }
        _ => {}
    }
    Took::Step
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

struct LiveStage(Arc<Shared>);

impl Stage for LiveStage {
    fn page(&self) -> u64 {
        PAGE
    }

    fn prepare(
        &mut self,
        file: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError> {
        let Some(file) = self.0.files[usize::from(file)] else {
            return Ok(());
        };
        let mut bytes = vec![0; size as usize];
        fill(0, &mut bytes);
        *self.0.bytes[file]
            .write()
            .unwrap_or_else(PoisonError::into_inner) = bytes;
        let window = || {
            Mutex::new(Window {
                state: self.0.model.first,
                words: Default::default(),
            })
        };
        let windows = self.0.layout.starts.len();
        *self
            .0
            .windows
            .write()
            .unwrap_or_else(PoisonError::into_inner) = (0..windows).map(|_| window()).collect();
        Ok(())
    }

    fn blocks(&mut self, _: FileId, _: Range<u64>) -> Result<Option<Vec<Extent>>, SubjectError> {
        Ok(None)
    }

    fn fill_up(&mut self, _: bool) -> Result<(), SubjectError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SubjectError> {
        Ok(())
    }

    fn direct(&self) -> DirectIo {
        if self.0.model.cache_is_store {
            DirectIo::Buffered
        } else {
            DirectIo::Real
        }
    }

    fn cache_is_store(&self) -> bool {
        self.0.model.cache_is_store
    }
}

impl Subjects for Live {
    fn actor(&self, index: usize) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(self.subject(Some(index))))
    }

    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(self.subject(None)))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError> {
        Ok(Box::new(LiveStage(Arc::clone(&self.0))))
    }
}

impl Live {
    fn subject(&self, actor: Option<usize>) -> LiveActor {
        let seed = self.0.seed.wrapping_add(actor.map_or(0, |a| a as u64 + 1));
        LiveActor {
            shared: Arc::clone(&self.0),
            actor,
            next: 0,
            pipe: Vec::new(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }
}
