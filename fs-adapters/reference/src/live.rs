//! The same definition run by real threads: each chunk of a file is a small state of the model of its own, and
//! an actor's call takes the steps of its program on it, one at a time, with others' steps in between as it
//! happens. So the race engine can race the reference like any filesystem, without root, and every run can
//! carry its own controls.
//!
//! Bytes come in only at the edges: a value of the model says which file's page it was at first, and what was
//! written into it.

mod actor;
mod layout;
mod stage;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use punchbench_race::plan::Plan;
use punchbench_race::{FileId, Stage, Subject, SubjectError, Subjects, Usage};
use punchbench_scenarios::{Capability, Geometry, Op, Role, Scenario};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::anomaly::Anomaly;
use crate::compile::{CompileError, compile};
use crate::explore::{Limits, explore};
use crate::micro::Micro;
use crate::model::Model;
use crate::policy::{Data, Policy};
use crate::scenario::{NotModelled, calls_of, setup};
use crate::state::State;
use crate::value::{Value, WORDS};

use actor::LiveActor;
use layout::Layout;
use stage::LiveStage;

const PAGE: u64 = 4096;
const GEOMETRY: Geometry = Geometry {
    page: PAGE,
    block: PAGE,
};
/// A trial begins with the exploration.
const LIMITS: Limits = Limits {
    states: 5_000_000,
    time: Duration::from_secs(20),
    reduce: true,
};

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
    /// What threads may show would not be known.
    #[error(
        "{0} under {1} has more states than the {2} that were visited, so it is not known what threads may show"
    )]
    Unexplored(String, String, usize),
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
    /// What some order of steps leads to.
    found: Vec<Anomaly>,
    /// How many states there are.
    states: usize,
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
        if policy.data == Data::PageCache && scenario.needs.contains(&Capability::AdviceFills) {
            let why = "where the data is the page cache, advice brings nothing in".to_owned();
            let scenario = scenario.scenario.clone();
            return Err(NotModelled { scenario, why }.into());
        }
        let model = compile(&setup, policy)?;
        let explored = explore(&model, &LIMITS);
        let found = &explored.found;
        if found.contains(&Anomaly::Deadlock) || found.contains(&Anomaly::Livelock) {
            return Err(NotLive::Hangs(
                scenario.scenario.clone(),
                policy.policy.clone(),
            ));
        }
        if !explored.complete {
            return Err(NotLive::Unexplored(
                scenario.scenario.clone(),
                policy.policy.clone(),
                explored.states,
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
            found: explored.found.into_iter().collect(),
            states: explored.states,
        })))
    }

    /// Its units: the model's pages are as large as most kernels'.
    pub fn geometry(&self) -> Geometry {
        GEOMETRY
    }

    /// Whether there is nothing below the page cache.
    pub fn cache_is_store(&self) -> bool {
        self.0.model.cache_is_store
    }

    /// Whether some order of steps shows an observer what it must not see.
    pub fn may_show(&self) -> bool {
        self.0.found.iter().any(|a| a.is_seen())
    }

    /// What the explorer found, in a sentence.
    pub fn explored(&self) -> String {
        let states = self.0.states;
        match &self.0.found[..] {
            [] => format!("the explorer proved that none of its {states} states is wrong"),
            found => {
                let words: Vec<&str> = found.iter().map(|a| a.word()).collect();
                format!(
                    "the explorer found in its {states} states: {}",
                    words.join(", ")
                )
            }
        }
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
        | Op::PrecacheExtents(_)
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
            usage: Usage::default(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }
}
