//! From what was found and what was proved to one word and one sentence.

use punchbench_results::{Evidence, Floor, Verdict, Violation};
use punchbench_scenarios::EvidenceSpec;

/// Violations in the order in which they name a trial: the gravest first.
const GRAVEST: [Verdict; 8] = [
    Verdict::Damaged,
    Verdict::Foreign,
    Verdict::Uninitialized,
    Verdict::Lost,
    Verdict::StaleMapping,
    Verdict::Stale,
    Verdict::WrongResult,
    Verdict::Blocked,
];

/// The verdict of a race and why, in one sentence. `safe` needs the whole floor.
pub fn verdict(
    evidence: &Evidence,
    violations: &[Violation],
    spec: &EvidenceSpec,
    cache_is_store: bool,
) -> (Verdict, String) {
    let refuted = |v: &&Violation| v.confirmation.as_ref().is_some_and(|c| !c.borne_out);
    let (refuted, standing): (Vec<_>, Vec<_>) = violations.iter().partition(refuted);
    let gravest = GRAVEST
        .iter()
        .find_map(|g| standing.iter().find(|v| v.verdict == *g));
    if let Some(v) = gravest {
        let more = standing.len() as u64 - 1 + evidence.further_violations;
        let mut what = format!(
            "{} saw {} at offset {:#x} of {} where only {} was legal (round {} of pass {}; {more} more)",
            v.actor, v.got, v.offset, v.file, v.expected, v.round, v.pass
        );
        if !refuted.is_empty() {
            what += &format!(
                "; {} others did not survive their own confirmation",
                refuted.len()
            );
        }
        return (v.verdict, what);
    }
    if let Some(v) = refuted.first() {
        let what = format!(
            "{} at offset {:#x} of {} in round {} of pass {} did not survive its own confirmation: the bench is wrong, or the page was dropped in between",
            v.verdict, v.offset, v.file, v.round, v.pass
        );
        return (Verdict::Error, what);
    }
    if evidence.further_violations > 0 {
        let what = format!(
            "{} violations, none of them confirmed",
            evidence.further_violations
        );
        return (Verdict::Error, what);
    }
    let lacking = match &evidence.staged {
        Some(staged) => staged.lacking.clone().or_else(|| {
            reused_or_evicted(evidence, spec.reused_blocks.unwrap_or(0), cache_is_store)
        }),
        None => lacking(evidence, spec.floor(), spec, cache_is_store),
    };
    match (lacking, &evidence.staged) {
        (Some(lack), _) => (Verdict::Inconclusive, lack),
        (None, Some(staged)) => (Verdict::Safe, staged.proof() + "; nothing violated"),
        (None, None) => (Verdict::Safe, exercised(evidence)),
    }
}

/// What is missing for `safe`, if anything.
fn lacking(
    evidence: &Evidence,
    floor: Floor,
    spec: &EvidenceSpec,
    cache_is_store: bool,
) -> Option<String> {
    for filler in &evidence.fillers {
        if filler.overlapped < floor.overlapped {
            let (name, got, need) = (&filler.actor, filler.overlapped, floor.overlapped);
            return Some(format!(
                "{name} overlapped in {got} of {} rounds; {need} are needed",
                evidence.rounds
            ));
        }
        if let Some(filled) = filler.filled.filter(|f| *f < floor.filled) {
            let (name, need) = (&filler.actor, floor.filled);
            return Some(format!(
                "{name} really filled in {filled} of {} rounds; {need} are needed",
                evidence.rounds
            ));
        }
    }
    rare(evidence, spec)
        .or_else(|| reused_or_evicted(evidence, floor.reused_blocks, cache_is_store))
}

/// The outcome that came up too rarely, if one did.
pub(crate) fn rare(evidence: &Evidence, spec: &EvidenceSpec) -> Option<String> {
    spec.outcomes.iter().find_map(|(outcome, percent)| {
        let got = evidence.outcomes.get(outcome).copied().unwrap_or(0);
        (got * 100 < evidence.rounds * u64::from(*percent)).then(|| {
            format!(
                "{got} of {} rounds ended in {outcome}; {percent} % are needed",
                evidence.rounds
            )
        })
    })
}

/// What `safe` lacks of what is looked at once the race is over.
fn reused_or_evicted(evidence: &Evidence, need: u64, cache_is_store: bool) -> Option<String> {
    let reused = evidence.reused_blocks.unwrap_or(0);
    if reused < need {
        return Some(format!(
            "{reused} freed blocks were proved reused; {need} are needed"
        ));
    }
    if !evidence.eviction_proved && !cache_is_store {
        return Some(
            "eviction could not be proved, so what lies behind the page cache was never looked at"
                .into(),
        );
    }
    None
}

fn exercised(evidence: &Evidence) -> String {
    let mut what = format!(
        "{} rounds, {} overlapped",
        evidence.rounds, evidence.overlapped
    );
    if let Some(filled) = evidence.filled {
        what += &format!(", {filled} really filled");
    }
    if let Some(reused) = evidence.reused_blocks {
        what += &format!(", {reused} freed blocks reused");
    }
    what + ", nothing violated"
}

#[cfg(test)]
mod tests {
    use super::*;
    use punchbench_results::FillerEvidence;

    fn evidence(overlapped: u64, filled: Option<u64>) -> Evidence {
        let filler = FillerEvidence {
            actor: "reader".into(),
            overlapped,
            filled,
            ..FillerEvidence::default()
        };
        Evidence {
            rounds: 2000,
            overlapped,
            filled,
            fillers: vec![filler],
            eviction_proved: true,
            ..Evidence::default()
        }
    }

    fn word(evidence: &Evidence) -> Verdict {
        verdict(evidence, &[], &EvidenceSpec::default(), false).0
    }

    #[test]
    fn nothing_is_safe_without_its_floor() {
        assert_eq!(word(&evidence(1000, Some(100))), Verdict::Safe);
        assert_eq!(word(&evidence(999, Some(100))), Verdict::Inconclusive);
        assert_eq!(word(&evidence(1000, Some(99))), Verdict::Inconclusive);
        assert_eq!(word(&evidence(1000, None)), Verdict::Safe);
        let unproved = Evidence {
            eviction_proved: false,
            ..evidence(1000, Some(100))
        };
        assert_eq!(word(&unproved), Verdict::Inconclusive);
        assert_eq!(
            word(&Evidence {
                further_violations: 1,
                ..evidence(1000, Some(100))
            }),
            Verdict::Error
        );
    }

    #[test]
    fn a_scenarios_own_floor_counts() {
        let reuse = EvidenceSpec {
            reused_blocks: Some(5),
            ..EvidenceSpec::default()
        };
        let with = |n| Evidence {
            reused_blocks: n,
            ..evidence(1000, Some(100))
        };
        assert_eq!(
            verdict(&with(None), &[], &reuse, false).0,
            Verdict::Inconclusive
        );
        assert_eq!(
            verdict(&with(Some(4)), &[], &reuse, false).0,
            Verdict::Inconclusive
        );
        assert_eq!(verdict(&with(Some(5)), &[], &reuse, false).0, Verdict::Safe);
    }
}
