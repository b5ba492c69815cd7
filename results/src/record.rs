//! One trial, one record: the line in `records.jsonl` that everything else is made of.

use serde::{Deserialize, Serialize};

use crate::{Evidence, Expectation, Floor, Placement, Verdict, Where};

/// The version of [`Record`]'s schema; raised when a field gains or changes meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of one scenario on one target with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Record {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema: u32,
    /// The scenario's name.
    pub scenario: String,
    /// The target as a user types it, such as `ext4:1k`.
    pub target: String,
    /// The driver that really served it, such as `ext4` for an ext2 image; empty if nothing was mounted.
    pub driver: String,
    /// The kernel's release, `uname -r`.
    pub kernel: String,
    /// The kernel's version line, `uname -v`.
    #[serde(default)]
    pub kernel_version: String,
    /// The outcome.
    pub verdict: Verdict,
    /// Where a `stale-mapping` lives.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "where")]
    pub at: Option<Where>,
    /// The outcome against the known issues.
    pub expectation: Expectation,
    /// The known issue that matched, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_issue: Option<String>,
    /// Why this verdict, in one sentence.
    pub reason: String,
    /// What would help, such as the package to install; for `skipped` and `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The seed: the same seed gives the same plan and the same data.
    pub seed: u64,
    /// The command that runs exactly this trial again.
    pub replay: String,
    /// Wall time of the whole trial, in seconds.
    pub seconds: f64,
    /// Seconds of racing until the first violation.
    pub first_violation_s: Option<f64>,
    /// Proof of exercise.
    pub evidence: Evidence,
    /// The floor that the evidence was held against.
    #[serde(default)]
    pub floor: Floor,
    /// What was found, the first few in full.
    pub violations: Vec<Violation>,
    /// Where the actors ran.
    #[serde(default)]
    pub placement: Vec<Placement>,
    /// Facts about the set-up worth keeping: mkfs command and version, mount options, image placement.
    #[serde(default)]
    pub setup: Vec<String>,
    /// Kernel log lines of the trial's window that made it a `kernel-report`, or the stacks of a hung trial.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Files kept for a closer look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artefacts: Vec<String>,
    /// Seconds since the epoch when the trial began.
    pub started: f64,
    /// punchbench's own version.
    pub version: String,
    /// Identity of the trial within a plan; resume skips what is already there.
    pub trial: String,
}

/// Stands between the name of another kernel and the identity of the trial there.
const SEPARATOR: &str = " :: ";

/// A trial's identity on another kernel, named as on the command line; without one, on this machine's.
pub fn trial_on(trial: &str, kernel: Option<&str>) -> String {
    match kernel {
        Some(kernel) => format!("{kernel}{SEPARATOR}{trial}"),
        None => trial.to_owned(),
    }
}

/// The kernel's name and the trial's identity there, from what [`trial_on`] made.
pub fn split_trial(id: &str) -> (Option<&str>, &str) {
    match id.rsplit_once(SEPARATOR) {
        Some((kernel, trial)) => (Some(kernel), trial),
        None => (None, id),
    }
}

impl Record {
    /// The kernel as the command line named it, such as `debian:bookworm`; `None` for this machine's own.
    pub fn kernel_name(&self) -> Option<&str> {
        split_trial(&self.trial).0
    }
}

/// When an observation was made (ORACLE section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// P0: within the race.
    Race,
    /// P1: after the operation and every filler returned, page cache as it is.
    After,
    /// P2: after proved eviction.
    Evicted,
    /// P4: after unmount, fsck and remount.
    Remounted,
}

/// The way an observation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// read(2) through the page cache.
    Read,
    /// A load through the named actor's own mapping.
    Mapping,
    /// An O_DIRECT read.
    Direct,
    /// The result of the call itself (errno, SAME/DIFFERS, length).
    Result,
    /// fsck.
    Fsck,
}

/// One observation that no legal order of the operations explains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Violation {
    /// What it amounts to.
    pub verdict: Verdict,
    /// When it was seen.
    pub phase: Phase,
    /// How it was seen.
    pub via: Via,
    /// The actor that saw it.
    pub actor: String,
    /// The file, by its name in the scenario.
    pub file: String,
    /// Byte offset in the file of the first wrong byte.
    pub offset: u64,
    /// Wrong bytes in the observation.
    pub wrong_bytes: u64,
    /// Pass number, from 0.
    pub pass: u64,
    /// Round within the pass, from 0.
    pub round: u64,
    /// Whose data it is, in words: `victim generation 3 offset 0x2000 (old)`.
    pub got: String,
    /// What would have been legal, in words.
    pub expected: String,
    /// The first wrong bytes, as lower-case hex, at most 64 bytes.
    pub bytes: String,
    /// Clock of the observation's begin and end, and of the invalidator's (ticks, see the race engine).
    pub clock: [u64; 4],
    /// Seconds of racing until it was seen.
    pub at_s: f64,
    /// What the confirmation found.
    pub confirmation: Option<Confirmation>,
}

/// The four answers of DESIGN section 3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Confirmation {
    /// Read again after a pause.
    pub again: Answer,
    /// Through each filler's own mapping, by actor.
    pub mappings: Vec<(String, Answer)>,
    /// Read directly.
    pub direct: Answer,
    /// Read after eviction.
    pub evicted: Answer,
    /// Whether absence from the page cache was proved before `evicted`.
    pub eviction_proved: bool,
    /// Whether these answers bear the violation out.
    pub borne_out: bool,
}

/// What a confirming observation showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing wrong any more.
    Legal,
    /// Wrong, and whose data.
    Wrong(String),
    /// Could not be asked, and why.
    NotAsked(String),
}
