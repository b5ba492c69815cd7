//! Shards make the plan again, and what is missing or there twice is told.

use std::path::PathBuf;

use proptest::prelude::*;
use punchbench_results::merge::MergeError;
use punchbench_results::run_info::plan_checksum;
use punchbench_results::{Journal, Merged, Record, RunInfo, Shard, Verdict, read_records};

use crate::samples::record;

fn plan() -> Vec<String> {
    let scenarios = ["punch-while-read", "punch-while-fault", "zero-while-read"];
    let on = |fs: &'static str| scenarios.map(|s| format!("{s} on {fs}, seed 7, seconds 2"));
    [on("ext4"), on("xfs"), on("btrfs")].concat()
}

fn shards(of: u32) -> Vec<Shard> {
    (1..=of).map(|index| Shard { index, of }).collect()
}

fn result(trial: &str) -> Record {
    Record {
        trial: trial.to_owned(),
        ..record("punch-while-read", "ext4", Verdict::Safe)
    }
}

/// Directories of the shards' runs, as `run --shard` writes them.
fn runs(dir: &std::path::Path, of: u32, plan: &[String]) -> Vec<PathBuf> {
    let checksum = plan_checksum(plan.iter().map(String::as_str));
    let make = |shard: Shard| {
        let path = dir.join(format!("shard-{}", shard.index));
        let trials: Vec<String> = plan.iter().filter(|t| shard.has(t)).cloned().collect();
        let (mut journal, _) = Journal::create_or_resume(&path).unwrap();
        trials
            .iter()
            .for_each(|t| journal.append(&result(t)).unwrap());
        let info = RunInfo {
            seed: 7,
            shard: Some(shard),
            plan: checksum,
            planned: plan.len(),
            trials,
        };
        info.write(&path).unwrap();
        path
    };
    shards(of).into_iter().map(make).collect()
}

#[test]
fn all_shards_are_the_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let merged = Merged::of(&runs(dir.path(), 4, &plan())).unwrap();
    assert_eq!(
        (merged.gaps.len(), merged.conflicts.len(), merged.twice),
        (0, 0, 0),
        "{merged:?}"
    );
    let mut trials: Vec<String> = merged.records.iter().map(|r| r.trial.clone()).collect();
    let mut planned = plan();
    trials.sort();
    planned.sort();
    assert_eq!(trials, planned);
    let out = dir.path().join("whole");
    merged.write(&out).unwrap();
    assert_eq!(
        read_records(&out.join("records.jsonl")).unwrap(),
        merged.records
    );
    assert_eq!(RunInfo::read(&out).unwrap().unwrap().trials, planned);
    let error = merged.write(&out).unwrap_err().to_string();
    assert!(error.contains("nothing was overwritten"), "{error}");
}

#[test]
fn a_missing_shard_and_a_missing_trial_are_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = runs(dir.path(), 3, &plan());
    let full = paths
        .iter()
        .position(|p| !read_records(&p.join("records.jsonl")).unwrap().is_empty());
    let journal = paths[full.unwrap()].join("records.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let first: Record = serde_json::from_str(first).unwrap();
    std::fs::write(&journal, rest).unwrap();
    let told = Merged::of(&paths).unwrap().gaps.join("\n");
    assert!(
        told.contains(&format!("planned, but not run: {}", first.trial)),
        "{told}"
    );
    paths.pop();
    let told = Merged::of(&paths).unwrap().gaps.join("\n");
    assert!(told.contains("shards without a run: 3/3"), "{told}");
}

#[test]
fn equal_duplicates_count_once_and_others_are_conflicts() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = runs(dir.path(), 1, &plan());
    paths.push(paths[0].clone());
    let merged = Merged::of(&paths).unwrap();
    assert_eq!(
        (merged.records.len(), merged.twice, merged.conflicts.len()),
        (9, 9, 0)
    );
    let other = dir.path().join("other.jsonl");
    let different = Record {
        verdict: Verdict::Stale,
        ..result(&plan()[0])
    };
    std::fs::write(&other, serde_json::to_string(&different).unwrap()).unwrap();
    let merged = Merged::of(&[paths[0].clone(), other]).unwrap();
    assert_eq!((merged.records.len(), merged.conflicts.len()), (9, 1));
    assert!(
        merged.conflicts[0].contains("another result in"),
        "{:?}",
        merged.conflicts
    );
}

#[test]
fn shards_of_two_plans_are_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut paths = runs(a.path(), 2, &plan());
    paths[1] = runs(b.path(), 2, &plan()[1..]).remove(1);
    let error = Merged::of(&paths).unwrap_err();
    assert!(matches!(error, MergeError::OtherPlan { .. }), "{error}");
}

#[test]
fn shards_are_written_as_people_write_them() {
    assert_eq!("2/4".parse::<Shard>().unwrap(), Shard { index: 2, of: 4 });
    for wrong in ["0/4", "5/4", "2", "a/b", "1/0", "1/99999", "-1/3"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn every_trial_is_in_exactly_one_shard_for_any_n(trials: Vec<String>, of in 1u32..40) {
        for trial in &trials {
            prop_assert_eq!(shards(of).iter().filter(|s| s.has(trial)).count(), 1);
        }
    }
}
