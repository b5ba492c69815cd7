//! What the runner and a trial's process say to each other: one [`Spec`] in, as a line of JSON on standard
//! input; [`Message`]s out, a line each, on a descriptor of their own that no tool inherits.

use std::path::PathBuf;

use punchbench_fs::hold::HolderKind;
use punchbench_results::Record;
use punchbench_scenarios::{Capability, Scenario};
use serde::{Deserialize, Serialize};

/// Everything that a trial's process needs to know.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What is raced.
    pub scenario: Scenario,
    /// On what, as a user types it.
    pub target: String,
    /// What the data is drawn from.
    pub data_seed: u64,
    /// What the stamps are keyed with.
    pub nonce: u64,
    /// Seconds of racing: at least, and at most while evidence lacks.
    pub seconds: Option<(f64, f64)>,
    /// Rounds of racing.
    pub rounds: Option<u64>,
    /// Where it mounts things: an empty directory.
    pub work_dir: PathBuf,
    /// Where the image goes.
    pub image_dir: Option<PathBuf>,
    /// The device to use instead.
    pub device: Option<PathBuf>,
    /// Even if something is on it.
    pub insist: bool,
    /// The directory to race in instead.
    pub in_dir: Option<PathBuf>,
    /// What holds I/O of a staged scenario.
    pub holder: HolderKind,
    /// The lie to tell.
    pub inject: Option<String>,
    /// Ask for leave before racing, because other trials run.
    pub takes_turns: bool,
    /// What is known of the record already.
    pub record: Record,
}

/// What a trial is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Starting up.
    Start,
    /// Making the image and the filesystem on it.
    Mkfs,
    /// Mounting it and probing what it can do.
    Mount,
    /// Waiting until another trial has raced.
    Turn,
    /// Writing the files of a pass.
    Prepare,
    /// Racing.
    Race,
    /// Evicting, and looking at everything again.
    Evict,
    /// Unmounting and checking the filesystem.
    Fsck,
    /// Mounting it again and looking at the files once more.
    Remount,
    /// Taking everything down.
    CleanUp,
}

impl Phase {
    /// As it stands in messages.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Mkfs => "mkfs",
            Phase::Mount => "mount",
            Phase::Turn => "waiting",
            Phase::Prepare => "prepare",
            Phase::Race => "race",
            Phase::Evict => "evict",
            Phase::Fsck => "fsck",
            Phase::Remount => "remount",
            Phase::CleanUp => "clean-up",
        }
    }
}

/// What a trial's process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// A phase begins.
    Phase(Phase),
    /// A block device of the trial, as the kernel's log names it.
    Device(String),
    /// Racing goes on.
    Progress {
        /// Rounds so far.
        rounds: u64,
    },
    /// What the target was seen to be unable to, for which the record that follows is `unsupported`.
    Cannot(Capability),
    /// The last word.
    Done(Box<Record>),
}

/// What the runner answers to [`Phase::Turn`].
pub const GO: &[u8] = b"go\n";

#[cfg(test)]
mod tests {
    #[test]
    fn every_scenario_survives_the_pipe() {
        for scenario in punchbench_scenarios::catalog() {
            let line = serde_json::to_string(&scenario).unwrap();
            assert!(!line.contains('\n'));
            let back: punchbench_scenarios::Scenario = serde_json::from_str(&line).unwrap();
            assert_eq!(back, scenario);
        }
    }
}
