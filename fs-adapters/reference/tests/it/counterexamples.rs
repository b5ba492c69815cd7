//! The shortest counterexamples are as short as they can be, replay, and are drawn.

use punchbench_reference::draw::{draw, lock_steps, replay};
use punchbench_reference::hazards::{
    dedupe_within_a_file, hazard, punch_read_reuse, read_into_own_mapping,
};
use punchbench_reference::shortest::{shows, switches};
use punchbench_reference::walk::{Choice, walk};
use punchbench_reference::{
    Anomaly, Counterexample, Limits, Setup, Token, TokenError, minimise, waits,
};

use crate::{model, policy};

fn least(setup: &Setup, name: &str, anomaly: Anomaly) -> Counterexample {
    minimise(setup, &policy(name), anomaly, &Limits::default()).expect("it goes wrong")
}

#[test]
fn a_stale_page_takes_two_context_switches_and_two_actors() {
    let least = least(&punch_read_reuse(), "none", Anomaly::StalePage);
    assert_eq!(switches(&least.schedule), 2);
    assert_eq!(least.model.actors, ["puncher", "filler"]);
}

#[test]
fn foreign_data_takes_four_context_switches_and_three_actors() {
    let least = least(&punch_read_reuse(), "none", Anomaly::ForeignData);
    assert_eq!(switches(&least.schedule), 4);
    assert_eq!(least.model.extent.actors, 3);
}

#[test]
fn the_glock_deadlocks_in_four_lock_steps() {
    let least = least(&read_into_own_mapping(), "glock", Anomaly::Deadlock);
    let moments = replay(&least.model, &least.schedule).unwrap();
    assert_eq!(lock_steps(&moments), 4);
    let circle = waits::circle(&least.model, &moments.last().unwrap().after).unwrap();
    let why: Vec<&str> = circle.iter().map(|w| w.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "puncher waits for glock, which reader holds",
            "reader waits for glock, behind puncher in its queue"
        ]
    );
}

#[test]
fn a_dedupe_that_fills_like_a_read_waits_for_itself_in_two_lock_steps() {
    let least = least(
        &dedupe_within_a_file(),
        "dedupe-standard-path",
        Anomaly::Deadlock,
    );
    let moments = replay(&least.model, &least.schedule).unwrap();
    assert_eq!((lock_steps(&moments), switches(&least.schedule)), (2, 0));
    let circle = waits::circle(&least.model, &moments.last().unwrap().after).unwrap();
    assert_eq!(
        circle[0].why,
        "deduper waits for invalidate_lock, which it holds itself"
    );
}

#[test]
fn a_token_replays_to_the_same_state_and_only_on_the_same_programs() {
    let least = least(&punch_read_reuse(), "none", Anomaly::StalePage);
    let token = Token::parse(&Token::of(&least.model, &least.schedule).to_string()).unwrap();
    token.fits(&least.model).unwrap();
    let last = replay(&least.model, &token.schedule)
        .unwrap()
        .last()
        .unwrap()
        .after;
    assert!(shows(&least.model, &last, Anomaly::StalePage));
    let other = model(&punch_read_reuse(), &policy("invalidate-lock"));
    assert!(matches!(
        token.fits(&other),
        Err(TokenError::Changed { .. })
    ));
    assert!(matches!(
        replay(&least.model, &[9]),
        Err(TokenError::Step { step: 1, actor: 9 })
    ));
}

#[test]
fn the_diagram_is_the_one_of_the_commit_message() {
    let least = least(&punch_read_reuse(), "none", Anomaly::StalePage);
    let drawn = draw(&least.model, Anomaly::StalePage, &least.schedule).unwrap();
    let text: String = drawn
        .render_text(150)
        .lines()
        .filter(|l| !l.contains("v1:"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(text, STALE_PAGE, "\n{text}");
}

const STALE_PAGE: &str = "";

#[test]
fn walks_find_what_the_search_finds_and_nothing_else() {
    let racy = model(&punch_read_reuse(), &policy("none"));
    for choice in [Choice::Random, Choice::Pct { changes: 3 }] {
        let found = walk(&racy, choice, 100_000, 7).expect("a violation");
        let last = replay(&racy, &found.schedule)
            .unwrap()
            .last()
            .unwrap()
            .after;
        assert!(shows(&racy, &last, found.anomaly));
        let safe = model(&punch_read_reuse(), &policy("invalidate-lock"));
        assert_eq!(walk(&safe, choice, 2_000, 7), None);
    }
    let livelock = model(
        &hazard("punch-endless-faults").unwrap(),
        &policy("invalidate-lock"),
    );
    assert_eq!(walk(&livelock, Choice::Random, 200, 7), None);
}
