//! Records as a bench would write them.

use punchbench_results::{
    Answer, Confirmation, Contact, Evidence, Expectation, FillerEvidence, Floor, Phase, Placement,
    Record, SCHEMA_VERSION, Verdict, Via, Violation, Where,
};

/// A trial that ended in `verdict`, as expected unless that accuses somebody.
pub fn record(scenario: &str, target: &str, verdict: Verdict) -> Record {
    let raced = verdict.was_exercised() || verdict == Verdict::Inconclusive;
    Record {
        schema: SCHEMA_VERSION,
        scenario: scenario.into(),
        target: target.into(),
        driver: target.split(':').next().unwrap_or_default().into(),
        kernel: "6.1.0-41-amd64".into(),
        kernel_version: "#1 SMP Debian 6.1.158-1".into(),
        verdict,
        at: (verdict == Verdict::StaleMapping).then_some(Where::Disk),
        expectation: if verdict.is_violation() {
            Expectation::Unexpected
        } else {
            Expectation::Expected
        },
        known_issue: None,
        reason: match verdict {
            Verdict::Safe => "nothing was violated in 24990 overlapped rounds".into(),
            Verdict::Skipped => format!("mkfs.{target} was not found"),
            Verdict::Unsupported => "fallocate(COLLAPSE_RANGE) says EOPNOTSUPP".into(),
            Verdict::Inconclusive => {
                "reader overlapped 312 rounds, at least 1000 are needed".into()
            }
            Verdict::Error => "umount: target is busy".into(),
            _ => "reader saw old data after the operation had returned".into(),
        },
        hint: (verdict == Verdict::Skipped).then(|| "apt install gfs2-utils".into()),
        seed: 42,
        replay: format!("punchbench run --fs {target} --scenario {scenario} --seconds 5 --seed 42"),
        seconds: 6.25,
        first_violation_s: verdict.is_violation().then_some(0.3125),
        evidence: if raced {
            evidence()
        } else {
            Evidence::default()
        },
        floor: Floor::default(),
        violations: if verdict.is_violation() {
            vec![violation(verdict)]
        } else {
            Vec::new()
        },
        placement: vec![Placement {
            actor: "reader".into(),
            cpu: Some(1),
        }],
        setup: vec![
            "mkfs.ext4 -q -E nodiscard (e2fsprogs 1.47.0)".into(),
            "mount -o noatime,nodiscard".into(),
        ],
        log: Vec::new(),
        artefacts: Vec::new(),
        started: 1_795_000_000.5,
        version: "0.1.0".into(),
        trial: format!("{scenario}/{target}/42"),
    }
}

fn evidence() -> Evidence {
    Evidence {
        rounds: 25_000,
        overlapped: 24_990,
        filled: Some(20_500),
        reused_blocks: None,
        passes: 4,
        racing_ns: 5_000_000_000,
        fillers: vec![FillerEvidence {
            actor: "reader".into(),
            op: "read".into(),
            calls: 61_234,
            overlapped: 24_990,
            filled: Some(20_500),
            io_rounds: 20_100,
            contact: Contact {
                inside: 12_000,
                straddle: 12_490,
                early: 500,
                outside: 10,
            },
            sigbus: 0,
            errors: 0,
            cpu: Some(1),
        }],
        direct: "real".into(),
        eviction_proved: true,
        ..Evidence::default()
    }
}

fn violation(verdict: Verdict) -> Violation {
    Violation {
        verdict,
        phase: Phase::After,
        via: Via::Read,
        actor: "reader".into(),
        file: "victim".into(),
        offset: 0x2000,
        wrong_bytes: 4096,
        pass: 0,
        round: 17,
        got: "victim generation 3 offset 0x2000 (old)".into(),
        expected: "zeros".into(),
        bytes: "50756e6368000300000000000020000000000000deadbeef".into(),
        clock: [140, 152, 100, 131],
        at_s: 0.3125,
        confirmation: Some(Confirmation {
            again: Answer::Wrong("victim generation 3 offset 0x2000 (old)".into()),
            mappings: vec![("mapper".into(), Answer::Legal)],
            direct: Answer::Legal,
            evicted: Answer::NotAsked("the page stayed resident".into()),
            eviction_proved: false,
            borne_out: true,
        }),
    }
}
