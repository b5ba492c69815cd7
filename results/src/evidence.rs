//! The proof that a race was exercised, without which nothing is called safe (DESIGN section 5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Staged;

/// What a trial can show for itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Evidence {
    /// Rounds raced.
    pub rounds: u64,
    /// Rounds overlapped by the filler that overlapped least.
    pub overlapped: u64,
    /// Rounds really filled by the filler that filled least; absent where the scenario has no filler
    /// that fills (a dedupe against stores, say).
    pub filled: Option<u64>,
    /// Freed blocks that the reuser was proved to own afterwards, cumulative over each pass;
    /// absent where the operation frees none or the filesystem has no block map.
    pub reused_blocks: Option<u64>,
    /// Passes prepared and raced.
    pub passes: u64,
    /// Nanoseconds spent between the first gate and the last judgement of every pass.
    pub racing_ns: u64,
    /// One entry for every actor but the invalidator.
    pub fillers: Vec<FillerEvidence>,
    /// Folios of more than one page that came into the page cache while actors raced; absent where that is
    /// not asked or the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_folios: Option<u64>,
    /// Windows that were read ahead asynchronously while actors raced; absent likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_readahead: Option<u64>,
    /// Counted results of the invalidator that a scenario asks about, such as `same` and `differs`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outcomes: BTreeMap<String, u64>,
    /// Rounds in which anything illegal was seen, in the race or by the probes after it.
    #[serde(default)]
    pub violated_rounds: u64,
    /// Violations that were not confirmed one by one, the first ones having been.
    #[serde(default)]
    pub further_violations: u64,
    /// Whether a direct read is really direct on this target: `real`, `buffered` or `none`.
    pub direct: String,
    /// Whether eviction could be proved on this target.
    pub eviction_proved: bool,
    /// Blocked samples, used by staged scenarios.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<String>,
    /// The course of a staged scenario's attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// Anything a reader of the record should know about how this was counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What one filler (or dirtier) did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FillerEvidence {
    /// The actor's name in the scenario.
    pub actor: String,
    /// The operation it repeats, such as `read`.
    pub op: String,
    /// Calls made within rounds.
    pub calls: u64,
    /// Rounds in which one of its calls intersected the invalidator's.
    pub overlapped: u64,
    /// Rounds in which the pages were absent at the gate and this actor faulted, read or left them resident;
    /// absent for an actor that does not fill.
    pub filled: Option<u64>,
    /// Rounds in which this very actor's major faults or block input rose: the strictest proof of a fill.
    pub io_rounds: u64,
    /// Rounds by best contact class.
    pub contact: Contact,
    /// SIGBUS outcomes.
    pub sigbus: u64,
    /// Calls that returned an error.
    pub errors: u64,
    /// CPU it was bound to.
    pub cpu: Option<u32>,
}

/// Rounds of one actor by the best contact that any of its calls had with the invalidator.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub struct Contact {
    /// Began and ended within the operation.
    pub inside: u64,
    /// Began within the operation, ended after it.
    pub straddle: u64,
    /// Began before the operation and overlapped it.
    pub early: u64,
    /// Never overlapped it.
    pub outside: u64,
}

/// The least evidence for `safe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Floor {
    /// Overlapped rounds, for every filler.
    pub overlapped: u64,
    /// Really filled rounds, for every filler that fills.
    pub filled: u64,
    /// Blocks proved reused.
    pub reused_blocks: u64,
}

impl Default for Floor {
    fn default() -> Self {
        Floor {
            overlapped: 1000,
            filled: 100,
            reused_blocks: 0,
        }
    }
}

/// Where the actors ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Placement {
    /// The actor's name.
    pub actor: String,
    /// The CPU it was bound to, if binding worked.
    pub cpu: Option<u32>,
}
