//! What is published about filesystems before Linux 5.15, and about the mails' designs, comes out.

use punchbench_reference::scenario::setup;
use punchbench_reference::{Anomaly, Limits, Policy, explore};
use punchbench_scenarios::find;

use crate::{explored, found, model, policy};

/// read(2), mmap fault and advice, each against a punch with the block reused: safe?
fn row(policy: &Policy) -> [bool; 3] {
    [
        "punch-read-reuse",
        "punch-fault-reuse",
        "punch-fadvise-reuse",
    ]
    .map(|name| {
        let anomalies = found(name, policy);
        assert!(
            anomalies.is_empty() || anomalies == [Anomaly::StalePage, Anomaly::ForeignData],
            "{} {name}: {anomalies:?}",
            policy.policy
        );
        anomalies.is_empty()
    })
}

#[test]
fn filesystems_of_5_10_come_out_as_they_do_on_real_kernels() {
    for (name, expected) in [
        // cifs: at most the inode lock.
        ("none", [false, false, false]),
        // ext4, f2fs.
        ("fault-only", [false, true, false]),
        ("iolock-reads", [true, true, true]),
        ("dax-sem", [false, false, false]),
        ("glock", [true, true, true]),
        // What came after.
        ("invalidate-lock", [true, true, true]),
        ("invalidate-lock-v4", [true, true, true]),
        ("locked-entries", [true, true, true]),
    ] {
        assert_eq!(row(&policy(name)), expected, "{name}");
    }
}

#[test]
fn a_policy_that_is_only_a_file_gives_the_published_result() {
    // ceph before 5.15: reads under a semaphore, faults and readahead bare.
    let text = "\
policy: ceph-5.10
about: Reads under a semaphore, faults and readahead bare.
source: fs/ceph/file.c of Linux 5.10
locks: {caps: rwsem}
hooks:
  read: [caps shared]
  punch_hole: [caps exclusive]
";
    let ceph = Policy::load(text, "a test").unwrap();
    assert_eq!(row(&ceph), [true, false, false]);
}

#[test]
fn two_punches_leave_a_stale_page_that_a_check_at_the_end_would_not_see() {
    assert_eq!(
        found("punch-punch-read", &policy("none")),
        [Anomaly::StalePage]
    );
}

#[test]
fn reads_of_cached_pages_wait_for_writers_only_where_they_share_their_lock() {
    for (name, waits) in [
        ("iolock-reads", true),
        ("glock", true),
        ("invalidate-lock", false),
        ("none", false),
    ] {
        let waiting = explored("read-beside-write", &policy(name)).reads_waiting;
        assert_eq!(waiting > 0, waits, "{name}: {waiting} states");
    }
}

#[test]
fn faults_keep_a_punch_on_tmpfs_from_ending_unless_they_wait_in_its_queue() {
    assert_eq!(
        found("punch-endless-faults", &policy("tmpfs-bare")),
        [Anomaly::Livelock]
    );
    assert_eq!(found("punch-endless-faults", &policy("tmpfs")), []);
}

#[test]
fn lockdep_complains_of_the_glock_and_of_no_other_lock_of_the_mails() {
    for (name, complains) in [
        ("glock", true),
        ("invalidate-lock", false),
        ("invalidate-lock-v4", false),
        ("iolock-reads", false),
        ("locked-entries", false),
        ("fault-only", false),
    ] {
        let anomalies = found("read-into-own-mapping", &policy(name));
        assert_eq!(
            anomalies.contains(&Anomaly::LockOrder),
            complains,
            "{name}: {anomalies:?}"
        );
    }
}

#[test]
fn a_lock_around_the_adding_alone_is_enough_for_a_created_folio() {
    // Kara's comment in filemap_create_page(): the locked page would be enough from there on.
    let mut early =
        policy("invalidate-lock").without(punchbench_reference::Hook::FilemapCreateFolio);
    early.hooks.0.push((
        "filemap_add_folio".into(),
        vec!["invalidate_lock shared".into()],
    ));
    assert_eq!(found("punch-read-reuse", &early), []);
    early.hooks.0.pop();
    assert_ne!(found("punch-read-reuse", &early), []);
}

#[test]
fn huge_pages_want_the_lock_before_the_first_folio() {
    let scenario = find("punch-while-thp-collapse").remove(0);
    let setup = setup(&scenario).unwrap();
    let found = |policy: &Policy| -> Vec<Anomaly> {
        let result = explore(&model(&setup, policy), &Limits::default());
        assert!(result.complete);
        result.found.into_iter().collect()
    };
    // syzbot, 16bf7cd0ebeb1de93aa5.
    let merged = policy("invalidate-lock");
    assert_eq!(found(&merged), [Anomaly::Deadlock, Anomaly::LockOrder]);
    // "khugepaged: hold invalidate_lock across collapse_file() readahead", 2026-09-13.
    let mut mended = merged.clone();
    let takes = vec!["invalidate_lock shared".to_owned()];
    let hook = punchbench_reference::Hook::CollapseFile.word().to_owned();
    mended.hooks.0.push((hook, takes));
    assert_eq!(found(&mended), []);
}
