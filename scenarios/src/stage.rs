//! The steps of a staged scenario: what is held, who is started and when, what must be seen meanwhile.
//!
//! A stress scenario lets actors race freely, many times. A staged one holds chosen block I/O, so that the
//! operation stops within its critical section, and then sends the others in: one attempt decides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Kernels, NoArgs, OnFile, OnRange, matches_glob};

/// One step, written in YAML as a map of one key: `- start: {actors: [puncher]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Reads a range into the page cache, so that it is seen to go, and the filesystem knows its blocks.
    Warm(OnRange),
    /// Evicts a range, and proves it.
    Cool(OnRange),
    /// Evicts what of the filesystem's metadata is clean and not in use from the page cache of its device
    /// (BLKFLSBUF). What a file's inode keeps, such as ext4's extent status, stays.
    CoolMetadata(NoArgs),
    /// Mounts the filesystem anew, before anybody has opened a file: metadata must be read again. The first
    /// step, if it is one.
    Remount(NoArgs),
    /// From here on, block I/O of this kind is kept waiting.
    Hold(HoldArgs),
    /// Starts actors, in this order.
    Start(ActorsArgs),
    /// Waits until an actor is seen asleep in the kernel by what is held.
    Parked(ParkedArgs),
    /// The pages of a range are seen to be gone from the page cache, before anybody looks for them: the
    /// operation is past its invalidation.
    Gone(OnRange),
    /// Waits until each of these actors has returned or is seen to be blocked.
    Observe(ActorsArgs),
    /// Lets what is held go on.
    Release(ReleaseArgs),
    /// Waits until an actor has returned.
    Returned(ActorArgs),
    /// The reuser takes the blocks that are free by now.
    Reuse(NoArgs),
}

/// Something is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldArgs {
    /// Its name, for `release`.
    pub name: String,
    /// What is held.
    #[schemars(with = "Held")]
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    pub what: Held,
}

/// Block I/O that can be held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// Reads of the blocks under a range of a file, as FIEMAP tells them.
    ReadsOf(OnRange),
    /// Writes to the blocks under a range of a file.
    WritesOf(OnRange),
    /// Reads of anything but the blocks of a file's data.
    ReadsExcept(OnFile),
    /// Reads of the metadata that reading a range of a file takes, such as ext4's extent blocks: found by
    /// reading it once, so nothing may have read it since the filesystem was mounted.
    MetadataOf(OnRange),
    /// All I/O of the process of one actor.
    IoOf(ActorArgs),
    /// Writes to the journal.
    Journal(NoArgs),
    /// Writes to the checkpoint area.
    Checkpoint(NoArgs),
}

/// Some actors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActorsArgs {
    /// Their names.
    pub actors: Vec<String>,
}

/// One actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActorArgs {
    /// Its name.
    pub actor: String,
}

/// Who is parked, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkedArgs {
    /// The actor.
    pub actor: String,
    /// Functions of the kernel of which one must stand in its stack, whichever filesystem it is. None: any
    /// place in the kernel will do.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<String>,
}

/// What is let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseArgs {
    /// The name of the hold.
    pub hold: String,
}

/// Where alone the steps lead to what the scenario is about: the same steps park elsewhere, or nowhere, in
/// another filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Only {
    /// Globs of the drivers, with a `!` before those not meant; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<String>,
    /// Globs of the targets; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The kernels.
    #[serde(default, skip_serializing_if = "Kernels::are_all")]
    pub kernels: Kernels,
    /// Why not elsewhere, in one sentence.
    pub why: String,
}

impl Only {
    /// Whether a target, served by a driver of a kernel, is meant.
    pub fn holds(&self, target: &str, driver: &str, kernel: &str) -> bool {
        let fits = |globs: &[String], word| {
            let mut but = globs.iter().filter_map(|g| g.strip_prefix('!'));
            let mut these = globs.iter().filter(|g| !g.starts_with('!')).peekable();
            !but.any(|g| matches_glob(g, word))
                && (these.peek().is_none() || these.any(|g| matches_glob(g, word)))
        };
        fits(&self.drivers, driver) && fits(&self.targets, target) && self.kernels.contain(kernel)
    }
}

/// What some actors must do while the operation is parked. Of the rules that fit, the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct During {
    /// Whom it is about.
    pub actors: Vec<String>,
    /// What they do.
    pub does: Does,
    /// Globs of the drivers that it holds for; none: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drivers: Vec<String>,
    /// The kernels that it holds for.
    #[serde(default, skip_serializing_if = "Kernels::are_all")]
    pub kernels: Kernels,
}

/// What an actor does while the operation is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Does {
    /// It waits for a lock that the operation holds, until the release.
    Blocked,
    /// It waits until the release, for a lock or for anything else.
    Waits,
    /// It returns before the release. For a NOWAIT read, EAGAIN is as good.
    Done,
    /// It returns with EAGAIN before the release.
    Again,
    /// Either; what it does is told and never held against anybody.
    Any,
}

impl Does {
    /// The word in YAML and records.
    pub fn word(self) -> &'static str {
        match self {
            Does::Blocked => "blocked",
            Does::Waits => "waits",
            Does::Done => "done",
            Does::Again => "again",
            Does::Any => "any",
        }
    }
}

impl During {
    /// What an actor must do, by the first rule that fits; `any` without one.
    pub fn of(rules: &[During], actor: &str, driver: &str, kernel: &str) -> Does {
        let fits = |rule: &&During| {
            rule.actors.iter().any(|a| a == actor)
                && (rule.drivers.is_empty() || rule.drivers.iter().any(|g| matches_glob(g, driver)))
                && rule.kernels.contain(kernel)
        };
        rules.iter().find(fits).map_or(Does::Any, |rule| rule.does)
    }
}

impl Step {
    /// The word in YAML.
    pub fn word(&self) -> &'static str {
        match self {
            Step::Warm(_) => "warm",
            Step::Cool(_) => "cool",
            Step::CoolMetadata(_) => "cool_metadata",
            Step::Remount(_) => "remount",
            Step::Hold(_) => "hold",
            Step::Start(_) => "start",
            Step::Parked(_) => "parked",
            Step::Gone(_) => "gone",
            Step::Observe(_) => "observe",
            Step::Release(_) => "release",
            Step::Returned(_) => "returned",
            Step::Reuse(_) => "reuse",
        }
    }

    /// The range that it names, with the keys that lead to it below the step's own.
    pub(crate) fn on_range(&self) -> Option<(&[&'static str], &OnRange)> {
        match self {
            Step::Warm(on) | Step::Cool(on) | Step::Gone(on) => Some((&[], on)),
            Step::Hold(HoldArgs { what, .. }) => match what {
                Held::ReadsOf(on) => Some((&["what", "reads_of"], on)),
                Held::WritesOf(on) => Some((&["what", "writes_of"], on)),
                Held::MetadataOf(on) => Some((&["what", "metadata_of"], on)),
                Held::ReadsExcept(_) | Held::IoOf(_) | Held::Journal(_) | Held::Checkpoint(_) => {
                    None
                }
            },
            Step::Remount(_)
            | Step::CoolMetadata(_)
            | Step::Start(_)
            | Step::Parked(_)
            | Step::Observe(_)
            | Step::Release(_)
            | Step::Returned(_)
            | Step::Reuse(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_is_a_bound_of_drivers_targets_and_kernels() {
        let only: Only =
            serde_yaml::from_str("{drivers: [ext*], kernels: {before: \"6.12\"}, why: w}").unwrap();
        assert!(only.holds("ext4:1k", "ext4", "5.10.0-39-amd64"));
        assert!(!only.holds("ext4", "ext4", "6.12.1") && !only.holds("xfs", "xfs", "5.10.0"));
        let only: Only = serde_yaml::from_str("{targets: [\"ext4:*\"], why: w}").unwrap();
        assert!(only.holds("ext4:1k", "ext4", "6.12.1") && !only.holds("ext4", "ext4", "6.12.1"));
        let only: Only =
            serde_yaml::from_str("{drivers: [\"!gfs2\", \"!ocfs*\"], why: w}").unwrap();
        let holds = |driver| only.holds("x", driver, "6.12.1");
        assert!(holds("ext4") && !holds("gfs2") && !holds("ocfs2"));
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules: Vec<During> = serde_yaml::from_str(
            "
- {actors: [reader], does: done, drivers: [btrfs]}
- {actors: [reader, loader], does: done, kernels: {before: \"5.15\"}}
- {actors: [reader], does: blocked}
",
        )
        .unwrap();
        let of = |actor, driver, kernel| During::of(&rules, actor, driver, kernel);
        assert_eq!(of("reader", "btrfs", "6.18.5"), Does::Done);
        assert_eq!(of("reader", "ext4", "5.10.0-39-amd64"), Does::Done);
        assert_eq!(of("reader", "ext4", "6.1.0"), Does::Blocked);
        assert_eq!(of("loader", "ext4", "6.1.0"), Does::Any);
    }
}
