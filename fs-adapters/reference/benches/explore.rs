//! States a second of our search beside stateright's on the same step function, in the same run, and what a
//! state takes in memory.
//!
//! `cargo bench -p punchbench-reference`.

use divan::counter::ItemsCount;
use punchbench_reference::hazards::{crowd, punch_read_reuse};
use punchbench_reference::{Limits, Model, Setup, State, compile, explore, policies, step};
use stateright::{Checker, Model as _, Property};

fn main() {
    for (setup, policy) in cases() {
        let model = model(&setup, policy);
        let (all, some) = (
            explore(&model, &whole()),
            explore(&model, &Limits::default()),
        );
        println!(
            "{} under {policy}: {} states of {:.0} bytes in {:.1?}, {:.2} M/s; reduced {} states in {:.1?}",
            setup.name,
            all.states,
            all.bytes_per_state,
            all.time,
            all.states as f64 / all.time.as_secs_f64() / 1e6,
            some.states,
            some.time
        );
    }
    divan::main();
}

fn cases() -> [(Setup, &'static str); 4] {
    [
        (punch_read_reuse(), "invalidate-lock"),
        (crowd(2), "none"),
        (crowd(3), "invalidate-lock"),
        (crowd(4), "invalidate-lock"),
    ]
}

fn model(setup: &Setup, policy: &str) -> Model {
    let policy = policies()
        .into_iter()
        .find(|p| p.policy == policy)
        .expect("a built-in policy");
    compile(setup, &policy).expect("it compiles")
}

fn whole() -> Limits {
    Limits {
        reduce: false,
        ..Limits::default()
    }
}

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
        vec![Property::always("visits all", |_, _| true)]
    }
}

#[divan::bench(sample_count = 5)]
fn ours(bencher: divan::Bencher<'_, '_>) {
    let model = model(&crowd(2), "none");
    let states = explore(&model, &whole()).states;
    bencher
        .counter(ItemsCount::new(states))
        .bench(|| explore(&model, &whole()).states);
}

#[divan::bench(sample_count = 5)]
fn staterights(bencher: divan::Bencher<'_, '_>) {
    let states = explore(&model(&crowd(2), "none"), &whole()).states;
    bencher
        .counter(ItemsCount::new(states))
        .with_inputs(|| Theirs(model(&crowd(2), "none")))
        .bench_values(|model| model.checker().spawn_bfs().join().unique_state_count());
}
