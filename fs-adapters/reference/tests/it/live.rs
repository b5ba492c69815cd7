//! Threads that run the model come out as the explorer says, through the race engine and its oracle.

use punchbench_race::{Host, Limits, RaceReport, TrialSpec, race, verdict};
use punchbench_reference::live::{Live, NotLive};
use punchbench_reference::policies;
use punchbench_reference::scenario::setup;
use punchbench_results::Verdict;
use punchbench_scenarios::{Scenario, catalog, find};

use crate::policy;

fn scenario(name: &str) -> Scenario {
    find(name).remove(0)
}

fn run(live: &Live, scenario: &Scenario, rounds: u64, seed: u64) -> (RaceReport, Verdict, String) {
    let spec = TrialSpec {
        scenario: scenario.clone(),
        geometry: live.geometry(),
        seed,
        nonce: 77,
        limits: Limits {
            time: None,
            most: None,
            rounds: Some(rounds),
        },
        cpus: Vec::new(),
        prepared: false,
    };
    let report = race(&spec, live, Host::Thread, &mut |_| {}).unwrap();
    let (word, why) = verdict(
        &report.evidence,
        &report.violations,
        &scenario.evidence,
        live.cache_is_store(),
    );
    (report, word, why)
}

#[test]
fn without_a_lock_threads_leave_stale_pages_and_with_it_none() {
    for name in [
        "punch-while-read",
        "punch-while-fault",
        "punch-while-fadvise",
        "collapse-while-read",
        "truncate-while-read",
        "punch-and-reuse",
    ] {
        let scenario = scenario(name);
        let live = Live::new(&scenario, &policy("none"), 1).unwrap();
        let (report, word, why) = run(&live, &scenario, 4000, 5);
        assert_eq!(word, Verdict::Stale, "{name}: {why}\n{:?}", report.evidence);
        let live = Live::new(&scenario, &policy("invalidate-lock"), 1).unwrap();
        let (report, word, why) = run(&live, &scenario, 4000, 5);
        assert_eq!(word, Verdict::Safe, "{name}: {why}\n{:?}", report.evidence);
    }
}

/// Every policy on every scenario that threads can play: what the explorer proves impossible is not seen in a few
/// hundred rounds, and what it knows to go wrong is seen before a hundred thousand are over, mostly in the first few hundred.
#[test]
fn threads_and_the_explorer_agree() {
    const ROUNDS: u64 = 300;
    // The rarest is met once in 3,000 rounds (dedupe-while-target-store under locked-entries).
    const TRIES: u64 = 400;
    let (mut wrong, mut right) = (0, 0);
    for scenario in catalog() {
        for policy in policies() {
            let Ok(live) = Live::new(&scenario, &policy, 3) else {
                continue;
            };
            let name = format!("{} under {}", scenario.scenario, policy.policy);
            let shows = |seed| {
                let (report, word, why) = run(&live, &scenario, ROUNDS, seed);
                assert_ne!(word, Verdict::Error, "{name}: {why}");
                if word.is_violation() && !live.may_show() {
                    panic!(
                        "{name}: {}, yet {why}\n{:#?}",
                        live.explored(),
                        report.violations
                    );
                }
                word.is_violation()
            };
            if live.may_show() {
                assert!(
                    (0..TRIES).any(shows),
                    "{name}: {}, and no thread saw it",
                    live.explored()
                );
                wrong += 1;
            } else {
                shows(0);
                right += 1;
            }
        }
    }
    assert!(wrong > 100 && right > 300, "{wrong} and {right}");
}

#[test]
fn what_would_hang_or_shows_nothing_is_refused() {
    let error = Live::new(&scenario("enospc-while-fault"), &policy("none"), 1).unwrap_err();
    assert!(matches!(error, NotLive::Unfit(..)), "{error}");
    let error = Live::new(
        &scenario("punch-while-fadvise-and-read"),
        &policy("locked-entries"),
        1,
    )
    .unwrap_err();
    assert!(matches!(error, NotLive::Hangs(..)), "{error}");
}

#[test]
fn all_that_the_model_can_run_is_run_live_but_where_nothing_stale_could_be_told() {
    let refused = catalog().into_iter().filter(|scenario| {
        let live = Live::new(scenario, &policy("invalidate-lock"), 1);
        setup(scenario).is_ok() && live.is_err()
    });
    let names: Vec<String> = refused.map(|s| s.scenario).collect();
    // The latter would hang: the lock as merged does not fit what collapse_file() does.
    assert_eq!(names, ["enospc-while-fault", "punch-while-thp-collapse"]);
}
