//! The least that still goes wrong: actors and calls are left out one by one as long as the anomaly stays,
//! and of what is left the shortest schedule is taken.

use crate::anomaly::Anomaly;
use crate::compile::compile;
use crate::explore::{Limits, explore};
use crate::livelock;
use crate::model::Model;
use crate::policy::Policy;
use crate::setup::Setup;
use crate::shortest::{Schedule, shortest};

/// Nodes of the search for the shortest schedule, at most.
const MOST_NODES: usize = 2_000_000;

/// A counterexample in its least form.
#[derive(Debug, Clone, PartialEq)]
pub struct Counterexample {
    /// What goes wrong.
    pub anomaly: Anomaly,
    /// What is left of the set-up, compiled.
    pub model: Model,
    /// Who steps when.
    pub schedule: Schedule,
}

/// Minimises. Nothing if the anomaly cannot be reached within the limits. A lock order is found in the programs,
/// so it has no schedule; a livelock's ends where it has gone round once.
pub fn minimise(
    setup: &Setup,
    policy: &Policy,
    anomaly: Anomaly,
    limits: &Limits,
) -> Option<Counterexample> {
    let still = |setup: &Setup| {
        let model = compile(setup, policy).ok()?;
        explore(&model, limits)
            .found
            .contains(&anomaly)
            .then_some(model)
    };
    let mut setup = setup.clone();
    let mut model = still(&setup)?;
    loop {
        let smaller = smaller(&setup).find_map(|s| Some((still(&s)?, s)));
        match smaller {
            Some((m, s)) => (model, setup) = (m, s),
            None => break,
        }
    }
    let schedule = match anomaly {
        Anomaly::LockOrder => Schedule::new(),
        Anomaly::Livelock => livelock::find(&model, limits)?,
        _ => shortest(&model, anomaly, MOST_NODES)?,
    };
    Some(Counterexample {
        anomaly,
        model,
        schedule,
    })
}

/// The set-up, and everything that leaving out actors and calls can make of it: where a token's set-up is
/// found again.
pub fn all_smaller(setup: &Setup) -> Vec<Setup> {
    let mut all = vec![setup.clone()];
    let mut at = 0;
    while at < all.len() {
        let less: Vec<Setup> = smaller(&all[at]).filter(|s| !all.contains(s)).collect();
        for setup in less {
            if !all.contains(&setup) {
                all.push(setup);
            }
        }
        at += 1;
    }
    all
}

/// The set-up with one actor or one call less.
fn smaller(setup: &Setup) -> impl Iterator<Item = Setup> + '_ {
    let actors = (0..setup.actors.len()).filter_map(|n| {
        let needed = setup.actors.iter().any(|a| a.until == Some(n));
        (!needed && setup.actors.len() > 1).then(|| {
            let mut less = setup.clone();
            less.actors.remove(n);
            for until in less.actors.iter_mut().filter_map(|a| a.until.as_mut()) {
                *until -= usize::from(*until > n);
            }
            less
        })
    });
    let calls = (0..setup.actors.len()).flat_map(move |a| {
        let calls = setup.actors[a].calls.len();
        (0..calls).filter(move |_| calls > 1).map(move |c| {
            let mut less = setup.clone();
            less.actors[a].calls.remove(c);
            less
        })
    });
    actors.chain(calls)
}
