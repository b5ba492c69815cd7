//! The scenario as it stands in a YAML file, after loading: shapes only, no behaviour of a kernel.

use punchbench_results::Floor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{During, Named, Only, Op, RangeExpr, Size, Step};

/// One scenario: what races what, on which files, and what must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: lower-case words joined by `-`, equal to the file's name.
    pub scenario: String,
    /// What holds on a correct kernel, in one sentence.
    pub claim: String,
    /// The mail, commit or test it comes from.
    pub source: String,
    /// Whether it is one of the few that run when none is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub headline: bool,
    /// What the target must be able to do; must name every capability that its operations need.
    #[serde(default)]
    pub needs: Vec<Capability>,
    /// Where alone a staged scenario's steps lead to what it is about; elsewhere it is unsupported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// The files it works on, by name.
    pub files: Named<FileSpec>,
    /// What one round is, of a stress scenario. Of a staged one, whose steps stand under `stage`, the
    /// loader works it out: the file that the operation works on, as a whole, once.
    #[serde(default)]
    pub round: Round,
    /// Who races whom, by name. Exactly one invalidator.
    pub actors: Named<Actor>,
    /// What happens, step by step, in a staged scenario.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    #[schemars(with = "Vec<Step>")]
    pub stage: Vec<Step>,
    /// What must hold after each round.
    pub expect: Expect,
    /// A stricter floor of evidence than the usual one.
    #[serde(default)]
    pub evidence: EvidenceSpec,
}

/// A file of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Its size when a pass begins.
    pub size: Size,
    /// Its size when a pass begins, where that is less: then `size` is the room that ranges may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<Size>,
    /// What it holds when a pass begins.
    #[serde(default, with = "serde_yaml::with::singleton_map")]
    #[schemars(with = "Content")]
    pub content: Content,
    /// It must come through every pass unharmed.
    #[serde(default)]
    pub witness: bool,
}

/// What a file holds when a pass begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Self-describing stamps of its own.
    #[default]
    Stamped,
    /// Nothing: created empty in each pass, to be written by a reuser.
    Empty,
    /// Zeros: one hole from begin to end, in which the first store or write allocates.
    Hole,
    /// The same bytes as another file.
    SameAs(String),
    /// What another file trades with its filesystem's boot loader inode (EXT4_IOC_SWAP_BOOT): stamps that
    /// are put there before a pass. No actor can name the inode itself.
    BootOf(String),
}

/// What one round is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// The file whose chunks are raced, one a round.
    pub on: String,
    /// The size of a chunk.
    pub chunk: Size,
    /// Every round races the same chunk, the last one of the file, instead of one each.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
}

/// One actor: a process of its own with its own descriptors and mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// Its part in the race.
    pub role: Role,
    /// Its pages must be absent from the page cache at the gate.
    #[serde(default)]
    pub cold: bool,
    /// How often it repeats within a round.
    #[serde(default)]
    pub repeat: Repeat,
    /// What it does, in order.
    #[serde(rename = "do")]
    #[schemars(with = "Vec<Op>")]
    #[serde(with = "serde_yaml::with::singleton_map_recursive")]
    pub ops: Vec<Op>,
}

/// An actor's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Removes, moves or shares blocks under cached pages; runs once a round.
    Invalidator,
    /// Can instantiate pages.
    Filler,
    /// Writes or stores into pages.
    Dirtier,
    /// Allocates the freed blocks for another file, once after each pass.
    Reuser,
    /// Sets the scene of a staged scenario, with whatever operations; what it sees is judged as anybody's.
    Helper,
}

/// How often an actor repeats its operations within a round. In YAML: `once`, or `while NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Once.
    #[default]
    Once,
    /// Until the named actor (the invalidator) has returned.
    While(String),
}

impl std::str::FromStr for Repeat {
    type Err = String;

    fn from_str(text: &str) -> Result<Repeat, String> {
        match text.trim().split_once(' ') {
            None if text.trim() == "once" => Ok(Repeat::Once),
            Some(("while", name)) if !name.trim().is_empty() && !name.trim().contains(' ') => {
                Ok(Repeat::While(name.trim().to_owned()))
            }
            _ => Err("an actor repeats `once` or `while NAME`".to_owned()),
        }
    }
}

impl std::fmt::Display for Repeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Repeat::Once => f.write_str("once"),
            Repeat::While(name) => write!(f, "while {name}"),
        }
    }
}

/// What must hold after each round. The oracle derives the content from the operations; this states it
/// for the reader, and the loader checks that both agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The file, if not the one raced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The range.
    pub range: RangeExpr,
    /// What it holds.
    pub is: Holds,
    /// What the actors of a staged scenario do while the operation is parked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub during: Vec<During>,
}

/// What a range holds after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    /// Zeros.
    Zeros,
    /// What was behind it (collapse) or before it (insert).
    Shifted,
    /// What was written or stored last.
    Written,
    /// What the same offsets of the file hold that it was copied from.
    Copied,
    /// What the other side of an exchange, a file or the boot loader's inode, held there before.
    Exchanged,
    /// What it held before.
    Unchanged,
}

/// A scenario's own floors, where stricter than the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceSpec {
    /// Overlapped rounds, for every filler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlapped: Option<u64>,
    /// Really filled rounds, for every filler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<u64>,
    /// Blocks proved reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_blocks: Option<u64>,
    /// Least share of the overlapped rounds, in percent, that each named result of the invalidator must
    /// have: `same: 10` and `differs: 10` for a dedupe.
    #[serde(default)]
    pub outcomes: Named<u32>,
}

impl EvidenceSpec {
    /// The floor that a record is held against: the usual one, raised where the scenario asks for more.
    pub fn floor(&self) -> Floor {
        let usual = Floor::default();
        Floor {
            overlapped: self.overlapped.unwrap_or(0).max(usual.overlapped),
            filled: self.filled.unwrap_or(0).max(usual.filled),
            reused_blocks: self.reused_blocks.unwrap_or(0),
        }
    }
}

/// What a target may or may not be able to do; probed on the mount.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// FALLOC_FL_PUNCH_HOLE.
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE.
    ZeroRange,
    /// FALLOC_FL_COLLAPSE_RANGE.
    CollapseRange,
    /// FALLOC_FL_INSERT_RANGE.
    InsertRange,
    /// FIDEDUPERANGE.
    Dedupe,
    /// FICLONERANGE.
    Clone,
    /// XFS_IOC_EXCHANGE_RANGE.
    ExchangeRange,
    /// EXT4_IOC_SWAP_BOOT.
    SwapBoot,
    /// FALLOC_FL_PUNCH_HOLE of ranges that are not made of whole blocks.
    UnalignedPunch,
    /// ftruncate(2), and writes past the end.
    Resize,
    /// FS_JOURNAL_DATA_FL can be set and cleared, with effect.
    JournalData,
    /// BLKZEROOUT.
    BlkZeroout,
    /// BLKDISCARD of blocks that read as zeros afterwards.
    BlkDiscard,
    /// RWF_NOWAIT.
    Nowait,
    /// O_DIRECT reads that really are direct.
    DirectRead,
    /// O_DIRECT writes that really are direct: they drop even a page that is mapped.
    DirectWrite,
    /// io_uring, with IORING_OP_READ.
    IoUring,
    /// MADV_POPULATE_READ.
    PopulateRead,
    /// MADV_COLLAPSE of a file on disk, which brings absent pages in.
    MadviseCollapse,
    /// posix_fadvise(WILLNEED), readahead(2) and madvise(WILLNEED) bring absent pages in.
    AdviceFills,
    /// FS_IOC_FIEMAP with addresses on the device.
    Fiemap,
    /// EXT4_IOC_PRECACHE_EXTENTS.
    PrecacheExtents,
}

impl Scenario {
    /// The one invalidator. The loader refuses a scenario without exactly one.
    pub fn invalidator(&self) -> (&str, &Actor) {
        self.actors
            .iter()
            .find(|(_, a)| a.role == Role::Invalidator)
            .expect("the loader checked that there is exactly one invalidator")
    }

    /// The actors that race the invalidator within a round, and a staged scenario's helpers.
    pub fn racers(&self) -> impl Iterator<Item = (&str, &Actor)> {
        self.actors
            .iter()
            .filter(|(_, a)| matches!(a.role, Role::Filler | Role::Dirtier | Role::Helper))
    }

    /// Whether one attempt decides, step by step, rather than many rounds.
    pub fn is_staged(&self) -> bool {
        !self.stage.is_empty()
    }

    /// `staged` or `stress`, for lists.
    pub fn kind(&self) -> &'static str {
        if self.is_staged() { "staged" } else { "stress" }
    }

    /// The floor that a record is held against. Of a staged scenario nothing is counted but reused blocks:
    /// who was seen blocked is what counts.
    pub fn floor(&self) -> Floor {
        match self.is_staged() {
            true => Floor {
                overlapped: 0,
                filled: 0,
                reused_blocks: self.evidence.reused_blocks.unwrap_or(0),
            },
            false => self.evidence.floor(),
        }
    }

    /// Works out the round of a staged scenario.
    pub(crate) fn fill_in_round(&mut self) {
        if !self.is_staged() || self.round != Round::default() {
            return;
        }
        let invalidator = self
            .actors
            .iter()
            .find(|(_, a)| a.role == Role::Invalidator);
        let on = invalidator
            .and_then(|(_, a)| a.ops.iter().find(|op| op.invalidates())?.file())
            .unwrap_or_default()
            .to_owned();
        if let Some(file) = self.files.get(&on) {
            self.round = Round {
                chunk: file.size,
                on,
                fixed: true,
            };
        }
    }
}
