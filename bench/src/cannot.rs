//! What a run saw its targets to be unable to, so that no filesystem is made only to see it again. The whole
//! catalogue on every target is `unsupported` in some half of its cells.

use std::collections::HashMap;

use punchbench_results::{Record, Verdict};
use punchbench_scenarios::Capability;

use crate::blank;
use crate::plan::Trial;

/// The first record of each target and capability that it lacks. A run has one kernel, and a target is made and
/// mounted with the same options each time.
#[derive(Debug, Default)]
pub struct Cannot(HashMap<String, Vec<(Capability, Record)>>);

impl Cannot {
    /// `record` is `unsupported` because its target lacks `what`.
    pub fn learn(&mut self, what: Capability, record: &Record) {
        if record.verdict != Verdict::Unsupported {
            return;
        }
        let known = self.0.entry(record.target.clone()).or_default();
        known.push((what, record.clone()));
    }

    /// The record of a trial that needs what its target was seen to lack.
    pub fn record(&self, trial: &Trial) -> Option<Record> {
        let known = self.0.get(&trial.target.to_string())?;
        let (_, seen) = known
            .iter()
            .find(|(what, _)| trial.scenario.needs.contains(what))?;
        let mut record = blank::record(trial);
        record.verdict = seen.verdict;
        record.driver.clone_from(&seen.driver);
        record.reason.clone_from(&seen.reason);
        record.setup.clone_from(&seen.setup);
        blank::judge_expectation(&mut record);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;

    #[test]
    fn what_a_target_lacks_is_known_of_it_alone() {
        let one = |words: &str| plan::tests::one(words);
        let collapse = one("--fs ext2 --scenario collapse-while-read");
        let mut record = blank::record(&collapse);
        record.verdict = Verdict::Unsupported;
        record.reason = "ext2 cannot collapse_range".to_owned();
        record.driver = "ext4".to_owned();
        let mut cannot = Cannot::default();
        assert_eq!(cannot.record(&collapse), None);
        cannot.learn(Capability::CollapseRange, &record);

        let again = cannot
            .record(&one("--fs ext2 --scenario collapse-while-fault"))
            .unwrap();
        assert_eq!(again.scenario, "collapse-while-fault");
        assert_eq!(again.verdict, Verdict::Unsupported);
        assert_eq!(
            (&*again.reason, &*again.driver),
            ("ext2 cannot collapse_range", "ext4")
        );
        for other in [
            "--fs ext2 --scenario punch-while-read",
            "--fs ext4 --scenario collapse-while-read",
            "--fs ext3 --scenario collapse-while-read",
        ] {
            assert_eq!(cannot.record(&one(other)), None, "{other}");
        }
    }

    #[test]
    fn a_trial_that_ended_otherwise_teaches_nothing() {
        let trial = plan::tests::one("--fs ext2 --scenario collapse-while-read");
        let mut cannot = Cannot::default();
        cannot.learn(Capability::CollapseRange, &blank::record(&trial));
        assert_eq!(cannot.record(&trial), None);
    }
}
