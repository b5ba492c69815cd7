//! The explorer against an independent one, and its reductions against none.

use std::time::Duration;

use punchbench_reference::hazards::{crowd, punch_read_reuse};
use punchbench_reference::{Limits, Model, State, explore, hazards, policies, step};
use stateright::{Checker, Model as _, Property};

use crate::{model, policy};

/// The same step function behind stateright's trait.
struct Theirs(Model);

impl stateright::Model for Theirs {
    type State = State;
    type Action = usize;

    fn init_states(&self) -> Vec<State> {
        vec![self.0.first]
    }

    fn actions(&self, _: &State, actions: &mut Vec<usize>) {
        actions.extend(0..self.0.extent.actors);
    }

    fn next_state(&self, state: &State, actor: usize) -> Option<State> {
        step(&self.0, state, actor)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // Without one that holds, it would not visit anything.
        vec![Property::always("visits all", |_, _| true)]
    }
}

fn whole() -> Limits {
    Limits {
        reduce: false,
        ..Limits::default()
    }
}

#[test]
fn state_counts_equal_staterights() {
    for policy in policies() {
        for setup in hazards() {
            let Ok(model) = punchbench_reference::compile(&setup, &policy) else {
                continue;
            };
            let ours = explore(&model, &whole());
            let theirs = Theirs(model)
                .checker()
                .spawn_bfs()
                .join()
                .unique_state_count();
            assert!(ours.complete);
            assert_eq!(
                ours.states, theirs,
                "{} under {}",
                setup.name, policy.policy
            );
        }
    }
}

#[test]
fn reductions_leave_out_states_and_no_verdict() {
    let mut less = 0;
    let mut setups = hazards();
    setups.push(crowd(2));
    for policy in policies() {
        for setup in &setups {
            let Ok(model) = punchbench_reference::compile(setup, &policy) else {
                continue;
            };
            let (all, some) = (
                explore(&model, &whole()),
                explore(&model, &Limits::default()),
            );
            let verdicts = |e: &punchbench_reference::Exploration| e.found.clone();
            assert_eq!(
                verdicts(&all),
                verdicts(&some),
                "{} under {}",
                setup.name,
                policy.policy
            );
            assert!(some.states <= all.states);
            less += usize::from(some.states < all.states);
        }
    }
    assert!(less > 60, "{less} of the cells were reduced");
}

#[test]
fn what_was_not_visited_is_not_proved() {
    let model = model(&punch_read_reuse(), &policy("invalidate-lock"));
    let few = Limits {
        states: 100,
        ..Limits::default()
    };
    let part = explore(&model, &few);
    assert!(!part.complete && !part.proved() && part.found.is_empty());
    let none = Limits {
        time: Duration::ZERO,
        ..Limits::default()
    };
    assert!(!explore(&model, &none).complete);
    assert!(explore(&model, &Limits::default()).proved());
}

#[test]
fn six_actors_on_two_pages_are_visited_whole() {
    let model = model(&crowd(4), &policy("invalidate-lock"));
    let result = explore(&model, &Limits::default());
    assert!(
        result.proved(),
        "{} states in {:?}",
        result.states,
        result.time
    );
    println!(
        "six actors: {} states, {:?}, {:.0} B",
        result.states, result.time, result.bytes_per_state
    );
    assert_eq!(model.alike, [vec![2, 4], vec![3, 5]]);
}
