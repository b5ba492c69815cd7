//! Every state that any order of the steps can lead to, each looked at once. What was not visited to the end
//! is never called proved: an exploration says whether it is complete.

use std::collections::BTreeSet;
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
    /// States: a search that has so many ends.
    pub states: usize,
    /// Time: a search that took so long ends.
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
    /// What goes wrong in some of them.
    pub found: BTreeSet<Anomaly>,
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

/// States that one thread alone is quicker with.
const ALONE: usize = 50_000;
/// States that a thread takes in one go; what they lead to is kept in between.
const BATCH: usize = 1 << 12;
/// Threads, at most.
const THREADS: usize = 8;

/// Explores, on all CPUs where there is much to do.
pub fn explore(model: &Model, limits: &Limits) -> Exploration {
    let begun = Instant::now();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut shards = vec![Shard::first(model)];
    let mut complete = true;
    let states = |shards: &[Shard]| shards.iter().map(|s| s.visited.len()).sum::<usize>();
    while shards.iter().any(Shard::has_more) {
        if states(&shards) >= limits.states || begun.elapsed() > limits.time {
            complete = false;
            break;
        }
        if let [alone] = &shards[..]
            && alone.visited.len() > ALONE
            && cpus > 1
        {
            shards = alone.split(cpus.min(THREADS));
        }
        advance(model, limits.reduce, &mut shards);
    }
    let mut found: BTreeSet<Anomaly> = shards.iter().flat_map(|s| s.found.clone()).collect();
    if lockdep::cycle(model).is_some() {
        found.insert(Anomaly::LockOrder);
    }
    if complete && livelock::possible(model) && livelock::find(model, limits).is_some() {
        found.insert(Anomaly::Livelock);
    }
    let memory: usize = shards.iter().map(|s| s.visited.memory()).sum();
    Exploration {
        states: states(&shards),
        transitions: shards.iter().map(|s| s.transitions).sum(),
        complete,
        found,
        reads_waiting: shards.iter().map(|s| s.waiting).sum(),
        bytes_per_state: memory as f64 / states(&shards).max(1) as f64,
        time: begun.elapsed(),
    }
}

/// The states of one thread: those whose hash says so. What was found and not yet looked at stands behind the rest,
/// so the search goes breadth first, batch by batch.
struct Shard {
    visited: Visited,
    /// How many were looked at.
    at: usize,
    found: BTreeSet<Anomaly>,
    transitions: usize,
    waiting: usize,
}

/// States on their way to the shard that they belong to.
#[derive(Default)]
struct Parcel {
    hashes: Vec<u32>,
    bytes: Vec<u8>,
}

fn home(hash: u32, shards: usize) -> usize {
    (hash >> 16) as usize % shards
}

impl Shard {
    fn of(visited: Visited) -> Shard {
        Shard {
            visited,
            at: 0,
            found: BTreeSet::new(),
            transitions: 0,
            waiting: 0,
        }
    }

    fn first(model: &Model) -> Shard {
        let mut packed = Vec::new();
        model.first.pack(model.extent, &mut packed);
        let mut visited = Visited::new(packed.len());
        visited.insert(&packed);
        Shard::of(visited)
    }

    fn has_more(&self) -> bool {
        self.at < self.visited.len()
    }

    /// Deals the states out.
    fn split(&self, shards: usize) -> Vec<Shard> {
        let mut all: Vec<Shard> = (0..shards)
            .map(|_| Shard::of(self.visited.another()))
            .collect();
        for n in 0..self.visited.len() {
            let state = self.visited.get(n);
            let hash = self.visited.hash(state);
            let shard = &mut all[home(hash, shards)];
            shard.visited.insert_hashed(hash, state);
            shard.at += usize::from(n < self.at);
        }
        all[0].found = self.found.clone();
        (all[0].transitions, all[0].waiting) = (self.transitions, self.waiting);
        all
    }

    /// Looks at the next states; what they lead to, by shard.
    fn expand(&mut self, model: &Model, reduce: bool, shards: usize) -> Vec<Parcel> {
        let mut out: Vec<Parcel> = (0..shards).map(|_| Parcel::default()).collect();
        let mut packed = Vec::with_capacity(self.visited.stride());
        let end = self.visited.len().min(self.at + BATCH);
        for n in self.at..end {
            let state = State::unpack(model.extent, self.visited.get(n));
            if let Some((anomaly, _)) = oracle::check(model, &state) {
                self.found.insert(anomaly);
            }
            self.waiting += usize::from(read_waits(model, &state));
            let mut stuck = true;
            for actor in expand(model, &state, reduce) {
                let Some(mut next) = step(model, &state, actor) else {
                    continue;
                };
                stuck = false;
                self.transitions += 1;
                if reduce {
                    canonical(model, &mut next);
                }
                packed.clear();
                next.pack(model.extent, &mut packed);
                let hash = self.visited.hash(&packed);
                let parcel = &mut out[home(hash, shards)];
                parcel.hashes.push(hash);
                parcel.bytes.extend_from_slice(&packed);
            }
            if stuck && deadlocked(model, &state) {
                self.found.insert(Anomaly::Deadlock);
            }
        }
        self.at = end;
        out
    }

    fn take_in<'a>(&mut self, parcels: impl Iterator<Item = &'a Parcel>) {
        for parcel in parcels {
            let states = parcel.bytes.chunks_exact(self.visited.stride());
            for (hash, state) in parcel.hashes.iter().zip(states) {
                self.visited.insert_hashed(*hash, state);
            }
        }
    }
}

/// A batch of every shard, each on a thread of its own.
fn advance(model: &Model, reduce: bool, shards: &mut [Shard]) {
    let count = shards.len();
    if let [alone] = shards {
        let parcels = alone.expand(model, reduce, 1);
        return alone.take_in(parcels.iter());
    }
    let parcels: Vec<Vec<Parcel>> = std::thread::scope(|scope| {
        let expand = |shard: &'_ mut Shard| shard.expand(model, reduce, count);
        let threads: Vec<_> = shards
            .iter_mut()
            .map(|shard| scope.spawn(move || expand(shard)))
            .collect();
        let ended = threads.into_iter().map(|t| t.join());
        ended
            .map(|t| t.expect("a search that panics is a bug"))
            .collect()
    });
    std::thread::scope(|scope| {
        for (n, shard) in shards.iter_mut().enumerate() {
            let parcels = &parcels;
            scope.spawn(move || shard.take_in(parcels.iter().map(|from| &from[n])));
        }
    });
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
