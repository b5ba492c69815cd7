//! Threads that run the model come out as the explorer says, through the race engine and its oracle.

use punchbench_race::{Host, Limits, RaceReport, TrialSpec, race, verdict};
use punchbench_reference::live::{Live, NotLive};
use punchbench_reference::{explore, policies};
use punchbench_results::Verdict;
use punchbench_scenarios::{EvidenceSpec, Geometry, Scenario, find};

use crate::{model, policy};

fn scenario(name: &str) -> Scenario {
    find(name).remove(0)
}

fn run(live: &Live, scenario: Scenario, rounds: u64) -> (RaceReport, Verdict, String) {
    let spec = TrialSpec {
        scenario,
        geometry: Geometry {
            page: 4096,
            block: 4096,
        },
        seed: 5,
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
        &EvidenceSpec::default(),
        false,
    );
    (report, word, why)
}

#[test]
fn without_a_lock_threads_leave_stale_pages_and_with_it_none() {
    for name in [
        "punch-while-read",
        "punch-while-fault",
        "punch-while-fadvise",
    ] {
        let live = Live::new(&scenario(name), &policy("none"), 1).unwrap();
        let (report, word, why) = run(&live, scenario(name), 4000);
        assert_eq!(word, Verdict::Stale, "{name}: {why}\n{:?}", report.evidence);
        let live = Live::new(&scenario(name), &policy("invalidate-lock"), 1).unwrap();
        let (report, word, why) = run(&live, scenario(name), 4000);
        assert_eq!(word, Verdict::Safe, "{name}: {why}\n{:?}", report.evidence);
    }
}

#[test]
fn threads_and_the_explorer_agree() {
    let mut ran = 0;
    for scenario in find("*-while-*") {
        for policy in policies() {
            let Ok(live) = Live::new(&scenario, &policy, 3) else {
                continue;
            };
            let setup = punchbench_reference::scenario::setup(&scenario).unwrap();
            let found = explore(
                &model(&setup, &policy),
                &punchbench_reference::Limits::default(),
            )
            .found;
            let (report, word, why) = run(&live, scenario.clone(), 300);
            let name = format!("{} under {}", scenario.scenario, policy.policy);
            // A few hundred rounds need not show what is rare; but they never show what cannot be.
            if found.is_empty() {
                assert!(report.violations.is_empty(), "{name}: {word:?} {why}");
            }
            ran += 1;
        }
    }
    assert!(ran > 100, "{ran}");
}

#[test]
fn what_would_hang_or_reaches_further_is_refused() {
    let error = Live::new(&scenario("collapse-while-read"), &policy("none"), 1).unwrap_err();
    assert!(matches!(error, NotLive::BeyondTheChunk(..)), "{error}");
    let error = Live::new(
        &scenario("punch-while-fadvise-and-read"),
        &policy("locked-entries"),
        1,
    )
    .unwrap_err();
    assert!(matches!(error, NotLive::Hangs(..)), "{error}");
}
