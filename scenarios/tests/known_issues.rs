//! The known issues say of 5.10 and 6.1 what the thread says.

use punchbench_results::{Expectation, Verdict};
use punchbench_scenarios::{
    Capability, Does, During, KernelVersion, MadviseAdvice, Only, Op, Role, Scenario, catalog,
    expectation, known_issues, match_issue, match_log,
};

const BULLSEYE: &str = "5.10.0-35-amd64";
const BOOKWORM: &str = "6.1.0-40-amd64";
const TRIXIE: &str = "6.12.117+deb13-amd64";

/// Whether a store goes into a page of which the operation takes a part: with blocks smaller than a page,
/// kernels lost it until 17207d0bb209.
fn stores_beside_freed_blocks(scenario: &str) -> bool {
    ["punch-while-store-unaligned", "zero-while-store-unaligned"].contains(&scenario)
}

/// Whether a filler of the scenario is one that i_mmap_sem does not keep out: it locks out page faults only.
/// Of a staged scenario it must be one that is to wait.
fn fills_unlocked(s: &Scenario, target: &str, driver: &str) -> bool {
    if s.only
        .as_ref()
        .is_some_and(|only| !only.holds(target, driver, BULLSEYE))
    {
        return false;
    }
    let waits = |name: &str| {
        let does = During::of(&s.expect.during, name, driver, BULLSEYE);
        !s.is_staged() || matches!(does, Does::Blocked | Does::Waits)
    };
    let fillers = s
        .racers()
        .filter(|(name, a)| a.role == Role::Filler && waits(name));
    fillers.flat_map(|(_, a)| &a.ops).any(|op| match op {
        Op::Read(a) => !a.direct,
        Op::Madvise(a) => a.advice == MadviseAdvice::Willneed,
        Op::UringRead(_) | Op::Splice(_) | Op::Fadvise(_) | Op::Readahead(_) => true,
        _ => false,
    })
}

#[test]
fn racy_cells_of_5_10() {
    for s in catalog() {
        let name = s.scenario.as_str();
        for (target, driver) in [
            ("ext4", "ext4"),
            ("ext4:1k", "ext4"),
            ("ext3", "ext4"),
            ("ext2", "ext4"),
            ("f2fs", "f2fs"),
        ] {
            let there = match s.operation() {
                _ if s.needs.contains(&Capability::Dedupe) => false,
                Op::PunchHole(_) => true,
                // Files without extents cannot.
                Op::ZeroRange(_) => !matches!(target, "ext3" | "ext2"),
                // f2fs truncates the page cache a second time.
                Op::CollapseRange(_) | Op::InsertRange(_) => target.starts_with("ext4"),
                Op::SwapBoot(_) => driver == "ext4",
                _ => false,
            };
            let ruled_out = |only: &Only| !only.holds(target, driver, BULLSEYE);
            if s.only.as_ref().is_some_and(ruled_out) {
                continue;
            }
            let issue = match_issue(name, target, driver, BULLSEYE);
            if target == "ext4:1k" && stores_beside_freed_blocks(name) {
                assert!(issue.is_some_and(|i| i.verdicts.contains(&Verdict::Lost)));
                assert_eq!(match_issue(name, target, driver, BOOKWORM), issue);
                assert_eq!(match_issue(name, target, driver, TRIXIE), None);
                continue;
            }
            // An oops, where delayed allocation does not have the flag ignored; up to 6.12.
            let stores = name.starts_with("journal-data-while-store");
            if stores && ["ext3", "ext4:1k"].contains(&target) {
                assert!(issue.is_some_and(|i| i.verdicts.contains(&Verdict::Hung)));
                assert_eq!(match_issue(name, target, driver, TRIXIE), issue);
                assert_eq!(match_issue(name, target, driver, "6.17.0"), None);
                continue;
            }
            // Stores that are counted twice; up to 6.0.
            if issue.is_some_and(|i| i.verdicts.contains(&Verdict::KernelReport)) {
                assert!(target.starts_with("f2fs") && name.contains("-while-store"));
                assert_eq!(match_issue(name, target, driver, "6.1.0"), None);
                continue;
            }
            let racy = there && fills_unlocked(&s, target, driver);
            assert_eq!(issue.is_some(), racy, "{name} on {target}");
            assert!(issue.is_none_or(|i| i.verdicts.contains(&Verdict::Stale)));
            assert_eq!(match_issue(name, target, driver, BOOKWORM), None);
            assert_eq!(match_issue(name, target, driver, "5.15.0"), None);
        }
        for (target, driver) in [
            ("xfs", "xfs"),
            ("btrfs", "btrfs"),
            ("tmpfs", "tmpfs"),
            ("ext2", "ext2"),
            ("reference:none", "reference"),
        ] {
            let issue = match_issue(name, target, driver, BULLSEYE);
            let of_its_own = match (target, name) {
                ("btrfs", "dedupe-while-target-store") => Some(Verdict::Hung),
                ("tmpfs", "punch-while-store-into-hole-unaligned") => Some(Verdict::Lost),
                _ => None,
            };
            match of_its_own {
                Some(verdict) => assert!(issue.is_some_and(|i| i.verdicts.contains(&verdict))),
                None => assert_eq!(issue, None, "{name} on {target}"),
            }
            assert_eq!(match_issue(name, target, driver, "5.17.0"), None);
        }
    }
}

#[test]
fn racy_ioctls_of_5_10() {
    for s in catalog() {
        let name = s.scenario.as_str();
        let ioctl = matches!(s.operation(), Op::BlkDiscard(_) | Op::BlkZeroout(_));
        // There a NOWAIT read does not wait; Debian's 6.1.0-56 has what makes it wait.
        let waits =
            name == "staged-zeroout-while-nowait-read" || name.starts_with("punch-while-nowait");
        // There fallocate(2) gives EBUSY where somebody else dirties a page.
        let busy = match_issue(name, "bdev", "bdev", BULLSEYE)
            .is_some_and(|issue| issue.issue == "bdev-fallocate-busy");
        let dirties = s.actors.iter().any(|(_, a)| a.role == Role::Dirtier);
        assert!(dirties || !busy, "{name}");
        let issue = match_issue(name, "bdev", "bdev", BULLSEYE);
        assert_eq!(issue.is_some(), ioctl && !waits || busy, "{name}");
        let issue = match_issue(name, "bdev", "bdev", BOOKWORM);
        assert_eq!(issue.is_some(), waits, "{name}");
        assert!(issue.is_none_or(|i| i.verdicts.contains(&Verdict::Blocked)));
    }
}

#[test]
fn releases() {
    for (text, version) in [
        ("5.10.0-35-amd64", KernelVersion(5, 10, 0)),
        ("6.18.44-fc", KernelVersion(6, 18, 44)),
        ("7.2~rc3", KernelVersion(7, 2, 0)),
        ("5.15-rc1", KernelVersion(5, 15, 0)),
        ("6.12.107+deb13-amd64", KernelVersion(6, 12, 107)),
        ("4.19.", KernelVersion(4, 19, 0)),
    ] {
        assert_eq!(text.parse(), Ok(version), "{text}");
    }
    for text in ["", "6", "x6.1", "6.x", "6..1", ".6.1", "6.99999999999"] {
        let parsed = text.parse::<KernelVersion>();
        assert!(parsed.is_err(), "{text}: {parsed:?}");
    }
    assert!(
        KernelVersion(5, 9, 20) < KernelVersion(5, 10, 0),
        "by number, not by letter"
    );
    assert!(
        !known_issues()[0]
            .kernels
            .contain("a kernel without a number")
    );
}

#[test]
fn expectations() {
    let issue = match_issue("punch-while-read", "ext4", "ext4", BULLSEYE);
    assert!(issue.is_some());
    for v in Verdict::ALL {
        let without = match v {
            Verdict::Safe | Verdict::Unsupported | Verdict::Skipped => Expectation::Expected,
            _ => Expectation::Unexpected,
        };
        assert_eq!(expectation(&v, None), without, "{v}");
        let with = match v {
            Verdict::Safe => Expectation::Fixed,
            Verdict::Stale => Expectation::Expected,
            _ => without,
        };
        assert_eq!(expectation(&v, issue), with, "{v}");
    }
}

#[test]
fn an_issue_with_a_log_is_meant_only_where_the_log_says_so() {
    const SID: &str = "7.2.13+deb14-amd64";
    let says = |kernel, line: &str| {
        let log = ["exe (process 9): state D".to_owned(), line.to_owned()];
        match_log("insert-while-fadvise", "xfs", "xfs", kernel, &log)
    };
    let issue = says(SID, "  collapse_file+0x431/0x1220");
    assert_eq!(issue.unwrap().issue, "khugepaged-deadlock");
    assert_eq!(
        expectation(&Verdict::Hung, issue),
        Expectation::Expected,
        "it accounts for the hang"
    );
    assert_eq!(says(SID, "  wait_extent_bit+0x10/0x20"), None);
    assert_eq!(says("6.18.44", "  collapse_file+0x431/0x1220"), None);
    // Nor is a trial that shows nothing of the kind expected to hang, or taken for mended.
    assert_eq!(match_issue("insert-while-fadvise", "xfs", "xfs", SID), None);
}
