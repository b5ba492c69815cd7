//! Every state that any order of the steps can lead to, each looked at once. What was not visited to the end
//! is never called proved: an exploration says whether it is complete.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::anomaly::Anomaly;
use crate::livelock;
use crate::lockdep;
use crate::micro::Micro;
use crate::model::Model;
use crate::oracle;
use crate::reduce::{canonical, unnoticed};
use crate::state::State;
use crate::step::step;
use crate::visited::Visited;

/// How far to go, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// States, at most; none beyond it is kept.
    pub states: usize,
    /// Time, at most.
    pub time: Duration,
    /// Leave out what cannot change a verdict (`reduce.rs`).
    pub reduce: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            states: 20_000_000,
            time: Duration::from_secs(120),
            reduce: true,
        }
    }
}

/// What an exploration found.
#[derive(Debug, Clone, PartialEq)]
pub struct Exploration {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub transitions: usize,
    /// Whether there are no others.
    pub complete: bool,
    /// For each anomaly that was met, one of the states nearest to the first that shows it.
    pub found: BTreeMap<Anomaly, State>,
    /// States in which a call that shows data waits for a semaphore: what the policy costs readers.
    pub reads_waiting: usize,
    /// Bytes of memory for each state.
    pub bytes_per_state: f64,
    /// How long it took.
    pub time: Duration,
}

impl Exploration {
    /// Nothing is wrong, and that is proved.
    pub fn proved(&self) -> bool {
        self.complete && self.found.is_empty()
    }
}

/// About how many states there may be: the product of the programs' lengths, an upper bound in all set-ups
/// of the catalogue. Said before a search that would not end.
pub fn estimate(model: &Model) -> f64 {
    let steps = |program: &Vec<Micro>| {
        let real = |m: &&Micro| {
            !matches!(
                m,
                Micro::Begin { .. } | Micro::Return { .. } | Micro::Goto { .. }
            )
        };
        program.iter().filter(real).count() as f64
    };
    model.programs.iter().map(steps).product()
}

/// Explores.
pub fn explore(model: &Model, limits: &Limits) -> Exploration {
    let begun = Instant::now();
    let mut found = BTreeMap::new();
    let mut visited = Visited::new(State::stride(model.extent));
    let mut packed = Vec::new();
    let mut waiting = 0;
    let mut transitions = 0;
    let mut complete = true;
    model.first.pack(model.extent, &mut packed);
    visited.insert(&packed);
    // States are numbered in the order in which they are found, so this goes breadth first.
    let mut at = 0;
    while at < visited.len() {
        if visited.len() >= limits.states || (at % 4096 == 0 && begun.elapsed() > limits.time) {
            complete = false;
            break;
        }
        let state = State::unpack(model.extent, visited.get(at));
        at += 1;
        if let Some((anomaly, _)) = oracle::check(model, &state) {
            found.entry(anomaly).or_insert(state);
        }
        waiting += usize::from(read_waits(model, &state));
        let mut stuck = true;
        for actor in expand(model, &state, limits.reduce) {
            let Some(mut next) = step(model, &state, actor) else {
                continue;
            };
            stuck = false;
            transitions += 1;
            if limits.reduce {
                canonical(model, &mut next);
            }
            packed.clear();
            next.pack(model.extent, &mut packed);
            visited.insert(&packed);
        }
        if stuck && deadlocked(model, &state) {
            found.entry(Anomaly::Deadlock).or_insert(state);
        }
    }
    if lockdep::cycle(model).is_some() {
        found.insert(Anomaly::LockOrder, model.first);
    }
    if complete && livelock::possible(model) && livelock::find(model, limits).is_some() {
        found.insert(Anomaly::Livelock, model.first);
    }
    Exploration {
        states: visited.len(),
        transitions,
        complete,
        found,
        reads_waiting: waiting,
        bytes_per_state: visited.bytes_per_state(),
        time: begun.elapsed(),
    }
}

/// The actors that have to be tried in a state.
pub(crate) fn expand(model: &Model, state: &State, reduce: bool) -> std::ops::Range<usize> {
    match reduce.then(|| unnoticed(model, state)).flatten() {
        Some(actor) => actor..actor + 1,
        None => 0..model.extent.actors,
    }
}

/// Whether a state that nothing follows is a deadlock.
pub fn deadlocked(model: &Model, state: &State) -> bool {
    state.broken == 0
        && (0..model.extent.actors).any(|a| !model.ended(state, a))
        && (0..model.extent.actors).all(|a| step(model, state, a).is_none())
}

fn read_waits(model: &Model, state: &State) -> bool {
    (0..model.extent.actors).any(|a| {
        let shows = model.op_of(state, a).is_some_and(|op| !op.shows.is_empty());
        shows
            && match model.next(state, a) {
                Micro::Down { sem, .. } => state.sems[usize::from(sem)].waits(a),
                _ => false,
            }
    })
}
