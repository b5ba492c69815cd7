//! The same definition run by real threads: each round's chunk is a small state of the model of its own, taken out
//! of the files when the round begins, and an actor's call takes the steps of its program on it, one at a time, with
//! others' steps in between as it happens. So the race engine can race the reference like any filesystem, without
//! root, and every run can carry its own controls.
//!
//! Bytes come in only at the edges: a value of the model says which file's page it was at first, and what was
//! written into it.

mod actor;
mod rest;
mod stage;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punchbench_race::plan::Plan;
use punchbench_race::{FileId, Stage, Subject, SubjectError, Subjects, Usage};
use punchbench_scenarios::{Capability, Content, Geometry, Scenario};
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::anomaly::Anomaly;
use crate::compile::{CompileError, compile};
use crate::explore::{Limits, explore};
use crate::micro::Micro;
use crate::model::Model;
use crate::policy::{Data, Policy};
use crate::scenario::{NotModelled, calls_of, folio, setup};
use crate::state::flag;

use actor::LiveActor;
use rest::{Bytes, Rest};
use stage::LiveStage;
use window::Window;

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
    /// Threads cannot play it.
    #[error("{0} cannot be run live: {1}; `punchbench explore` can")]
    Unfit(String, String),
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
    /// Bytes that a page of the model stands for.
    folio: u64,
    zeros: Bytes,
    /// By the model's number of a file: the scenario's.
    real: Vec<FileId>,
    /// What lies behind a file: what it trades with the boot loader's inode.
    behind: Option<(FileId, FileId)>,
    /// By the scenario's number of an actor: its number in the model, and of each operation, where its calls
    /// begin and end.
    scripts: Vec<Option<Script>>,
    files: Mutex<Files>,
    seed: u64,
    /// What some order of steps leads to.
    found: Vec<Anomaly>,
    /// How many states there are.
    states: usize,
}

/// An actor's part.
#[derive(Debug)]
struct Script {
    actor: usize,
    ops: Vec<Vec<(u8, u8)>>,
}

/// The files, and what is taken out of them.
#[derive(Debug)]
struct Files {
    rest: Rest,
    windows: Vec<Arc<Mutex<Window>>>,
}

impl Live {
    /// Sets the files up; they are empty until the engine prepares them. `seed` is for the yields.
    pub fn new(scenario: &Scenario, policy: &Policy, seed: u64) -> Result<Live, NotLive> {
        let unfit = |why: String| NotLive::Unfit(scenario.scenario.clone(), why);
        let setup = setup(scenario)?;
        let plan = Plan::new(scenario, GEOMETRY).map_err(|e| unfit(e.to_string()))?;
        let folio = folio(scenario).map_err(unfit)?;
        fits(&plan).map_err(unfit)?;
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
        let real = setup
            .files
            .iter()
            .map(|f| plan.names.iter().position(|n| *n == f.name));
        let behind = plan.files.iter().position(|f| f.behind.is_some());
        let behind = behind.and_then(|of| Some((plan.files[of].behind?, of as FileId)));
        let rest = Rest::new(plan.files.len(), model.cache_is_store);
        let windows = Vec::new();
        Ok(Live(Arc::new(Shared {
            folio,
            zeros: Bytes::zeros(folio),
            real: real.flatten().map(|n| n as FileId).collect(),
            behind,
            scripts: scripts(&model, &calls_of(scenario)?),
            files: Mutex::new(Files { rest, windows }),
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

/// Whether threads can play it, and if not, why.
fn fits(plan: &Plan) -> Result<(), String> {
    let raced = &plan.files[usize::from(plan.on)];
    if plan.chunk(0).end > raced.filled {
        return Err("the raced range lies past the end of the file at first".into());
    }
    if plan.files.iter().any(|f| !f.size.is_multiple_of(PAGE)) {
        return Err("a file does not end with a page".into());
    }
    let twins = plan
        .files
        .iter()
        .any(|f| matches!(f.fills, Content::SameAs(_)));
    if twins && (plan.shifting || plan.fixed) {
        return Err("files that hold the same would have to again in the next round".into());
    }
    Ok(())
}

/// Where each operation's calls begin and end in the programs.
fn scripts(model: &Model, counts: &[Vec<usize>]) -> Vec<Option<Script>> {
    // Who has no calls is no actor of the model.
    let mut programs = model.programs.iter().enumerate();
    let script = |counts: &Vec<usize>| {
        if counts.iter().all(|n| *n == 0) {
            return None;
        }
        let (actor, program) = programs.next()?;
        let stops = |m: &Micro| matches!(m, Micro::Begin { .. } | Micro::End);
        let stops: Vec<u8> = (0..program.len())
            .filter(|at| stops(&program[*at]))
            .map(|at| at as u8)
            .collect();
        let mut calls = stops.windows(2).map(|pair| (pair[0], pair[1]));
        let ops = counts
            .iter()
            .map(|n| calls.by_ref().take(*n).collect())
            .collect();
        Some(Script { actor, ops })
    };
    counts.iter().map(script).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the trial; what is looked at meanwhile does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The window of a round's chunk, made by whoever comes first.
    fn window(&self, start: u64) -> Arc<Mutex<Window>> {
        let mut files = lock(&self.files);
        let there = files.windows.iter().find(|w| lock(w).start == start);
        if let Some(window) = there {
            return Arc::clone(window);
        }
        let pages = self.model.files.iter().map(|f| f.pages as u64).max();
        let span = pages.unwrap_or(0) * self.folio;
        if files.windows.iter().any(|w| lock(w).overlaps(start, span)) {
            self.put_back(&mut files);
        }
        let window = Window::take(self, &mut files.rest, start);
        let window = Arc::new(Mutex::new(window));
        files.windows.push(Arc::clone(&window));
        window
    }

    fn put_back(&self, files: &mut Files) {
        for window in files.windows.drain(..) {
            lock(&window).put_back(self, &mut files.rest);
        }
    }

    /// The files between rounds, or batches of them: no call is under way.
    fn at_rest<R>(&self, body: impl FnOnce(&mut Rest) -> R) -> R {
        let mut files = lock(&self.files);
        self.put_back(&mut files);
        body(&mut files.rest)
    }

    /// Whether a page is in the page cache, while calls may be under way.
    fn is_cached(&self, files: &Files, file: FileId, page: u64) -> bool {
        let of = self.real.iter().position(|f| *f == file);
        let in_window = |window: &Arc<Mutex<Window>>| {
            let (w, of) = (lock(window), &self.model.files[of?]);
            let folio = (page * PAGE).checked_sub(w.start)? / self.folio;
            let slot = of.first + usize::try_from(folio).ok()?;
            let mine = slot < of.first + of.pages;
            mine.then(|| w.state.pages[slot].is(flag::PRESENT))
        };
        let found = files.windows.iter().find_map(in_window);
        found.unwrap_or_else(|| files.rest.is_cached(file, page as usize))
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
            start: 0,
            window: None,
            next: 0,
            pipe: Vec::new(),
            usage: Usage::default(),
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }
}
