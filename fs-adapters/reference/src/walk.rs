//! For what is too large to visit whole: random schedules, and schedules that change priorities at a few
//! random steps (PCT), over the same step function. They find; they prove nothing.

use rand::RngExt;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::anomaly::Anomaly;
use crate::explore::deadlocked;
use crate::model::Model;
use crate::oracle;
use crate::shortest::Schedule;
use crate::state::State;
use crate::step::step;

/// How a walk chooses who steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Anybody who can, each as likely.
    Random,
    /// Whoever has the highest priority and can; priorities are drawn at the start, and at so many random
    /// steps the one who runs becomes the lowest (Burckhardt et al., ASPLOS 2010).
    Pct {
        /// Changes of priority.
        changes: usize,
    },
}

/// What walks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The first that went wrong.
    pub anomaly: Anomaly,
    /// Its schedule.
    pub schedule: Schedule,
    /// Which walk it was, from 1.
    pub walk: usize,
}

/// Steps of one walk, at most.
const MOST_STEPS: usize = 10_000;

/// Walks until something goes wrong, at most so many times.
pub fn walk(model: &Model, choice: Choice, walks: usize, seed: u64) -> Option<Found> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // A walk is about as long as all programs together.
    let length = model.programs.iter().map(Vec::len).sum::<usize>().max(2);
    (1..=walks).find_map(|n| {
        let (anomaly, schedule) = one(model, choice, length, &mut rng)?;
        Some(Found {
            anomaly,
            schedule,
            walk: n,
        })
    })
}

fn one(
    model: &Model,
    choice: Choice,
    length: usize,
    rng: &mut Xoshiro256PlusPlus,
) -> Option<(Anomaly, Schedule)> {
    let actors = model.extent.actors;
    let mut order: Vec<usize> = (0..actors).collect();
    for n in (1..actors).rev() {
        order.swap(n, rng.random_range(0..=n));
    }
    let mut changes: Vec<usize> = match choice {
        Choice::Random => Vec::new(),
        Choice::Pct { changes } => (0..changes).map(|_| rng.random_range(0..length)).collect(),
    };
    let mut state = model.first;
    let mut schedule = Vec::new();
    while schedule.len() < MOST_STEPS {
        let able = |a: usize| step(model, &state, a).map(|next| (a, next));
        let next: Option<(usize, State)> = match choice {
            Choice::Random => {
                let all: Vec<(usize, State)> = (0..actors).filter_map(able).collect();
                (!all.is_empty()).then(|| all[rng.random_range(0..all.len())])
            }
            Choice::Pct { .. } => order.iter().find_map(|a| able(*a)),
        };
        let Some((actor, next)) = next else {
            return deadlocked(model, &state).then_some((Anomaly::Deadlock, schedule));
        };
        schedule.push(actor as u8);
        state = next;
        if let Some((anomaly, _)) = oracle::check(model, &state) {
            return Some((anomaly, schedule));
        }
        if let Some(at) = changes.iter().position(|c| *c == schedule.len()) {
            changes.swap_remove(at);
            order.retain(|a| *a != actor);
            order.push(actor);
        }
    }
    None
}
