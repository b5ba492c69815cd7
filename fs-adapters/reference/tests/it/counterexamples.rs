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

const STALE_PAGE: &str = "\
puncher: fallocate(PUNCH_HOLE, A.0)       filler: read(A.0)
down_write(i_rwsem)                                                                i_rwsem: puncher exclusive
truncate_inode_pages_range() has scanned
                                          filemap_get_folio(A.0): miss
                                          filemap_add_folio(A.0), locked
                                          get_block(A.0) = block 0
                                          submit_bio(read A.0)
                                          read of A.0 completes
                                          folio_end_read(A.0): uptodate, unlocked  A.0 cached: A.0
remove the extent of A.0                                                           A.0 is a hole
free the block                                                                     block 0 free
up_write(i_rwsem)                                                                  i_rwsem free
=> stale-page: the page cache shows A.0 for A.0, on disk it is zeros
because filler's get_block(A.0) came before puncher changed the extent and its folio after puncher's truncate_inode_pages_range()
";

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

#[test]
fn a_livelock_goes_round_with_steps_of_the_one_who_never_ends() {
    let least = least(
        &hazard("punch-endless-faults").unwrap(),
        "tmpfs-bare",
        Anomaly::Livelock,
    );
    let moments = replay(&least.model, &least.schedule).unwrap();
    let round = punchbench_reference::draw::round(&moments);
    let circle = &least.schedule[least.schedule.len() - round..];
    assert!(
        round > 0 && circle.contains(&0) && circle.contains(&1),
        "{circle:?}"
    );
}
