//! The words a trial may end in, and how each relates to what was expected.

use serde::{Deserialize, Serialize};

/// The outcome of one trial (DESIGN section 3).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The race was exercised, as the evidence shows, and nothing was violated.
    Safe,
    /// After the operation returned, the page cache or a mapping still shows what was there before.
    Stale,
    /// Still wrong after proved eviction: the filesystem's own mapping is wrong.
    StaleMapping,
    /// Data of another file, or of the block's next owner.
    Foreign,
    /// Bytes that no file ever wrote.
    Uninitialized,
    /// A completed write or store is gone.
    Lost,
    /// A witness changed, or fsck finds damage.
    Damaged,
    /// An operation waited where it must not.
    Blocked,
    /// Wrong errno, size, SIGBUS, SAME/DIFFERS.
    WrongResult,
    /// The watchdog fired.
    Hung,
    /// WARN, BUG, lockdep, KASAN or an I/O error of our device in the trial's dmesg window.
    KernelReport,
    /// Not exercised enough to claim anything; never counted as a pass.
    Inconclusive,
    /// The filesystem lacks the operation.
    Unsupported,
    /// A tool, driver or privilege is missing.
    Skipped,
    /// The bench itself failed.
    Error,
}

impl Verdict {
    /// Every verdict, in the order of DESIGN section 3.
    pub const ALL: [Verdict; 15] = [
        Verdict::Safe,
        Verdict::Stale,
        Verdict::StaleMapping,
        Verdict::Foreign,
        Verdict::Uninitialized,
        Verdict::Lost,
        Verdict::Damaged,
        Verdict::Blocked,
        Verdict::WrongResult,
        Verdict::Hung,
        Verdict::KernelReport,
        Verdict::Inconclusive,
        Verdict::Unsupported,
        Verdict::Skipped,
        Verdict::Error,
    ];

    /// True for a verdict that accuses the kernel.
    pub fn is_violation(self) -> bool {
        match self {
            Verdict::Stale
            | Verdict::StaleMapping
            | Verdict::Foreign
            | Verdict::Uninitialized
            | Verdict::Lost
            | Verdict::Damaged
            | Verdict::Blocked
            | Verdict::WrongResult
            | Verdict::Hung
            | Verdict::KernelReport => true,
            Verdict::Safe
            | Verdict::Inconclusive
            | Verdict::Unsupported
            | Verdict::Skipped
            | Verdict::Error => false,
        }
    }

    /// True if the race was exercised enough to say something about the kernel.
    pub fn was_exercised(self) -> bool {
        self == Verdict::Safe || self.is_violation()
    }

    /// How bad it is: of several repeats, a table shows the highest.
    pub fn severity(self) -> u8 {
        match self {
            Verdict::Safe => 0,
            Verdict::Unsupported => 1,
            Verdict::Skipped => 2,
            Verdict::Inconclusive => 3,
            Verdict::Error => 4,
            Verdict::Hung => 5,
            Verdict::KernelReport => 6,
            Verdict::Blocked => 7,
            Verdict::WrongResult => 8,
            Verdict::Stale => 9,
            Verdict::StaleMapping => 10,
            Verdict::Uninitialized => 11,
            Verdict::Foreign => 12,
            Verdict::Lost => 13,
            Verdict::Damaged => 14,
        }
    }

    /// A word of at most six letters, for tables with many columns; their legend explains it.
    pub fn short_word(self) -> &'static str {
        match self {
            Verdict::StaleMapping => "st-map",
            Verdict::Foreign => "alien",
            Verdict::Uninitialized => "uninit",
            Verdict::Damaged => "damage",
            Verdict::Blocked => "block",
            Verdict::WrongResult => "wrong",
            Verdict::KernelReport => "kernel",
            Verdict::Inconclusive => "incon",
            Verdict::Unsupported => "unsup",
            Verdict::Skipped => "skip",
            Verdict::Safe | Verdict::Stale | Verdict::Lost | Verdict::Hung | Verdict::Error => {
                self.word()
            }
        }
    }

    /// What it means, in one sentence for somebody who never saw punchbench.
    pub fn meaning(self) -> &'static str {
        match self {
            Verdict::Safe => {
                "the race was exercised, as the evidence shows, and nothing was violated"
            }
            Verdict::Stale => {
                "after the operation returned, the page cache or a mapping still showed what was there before"
            }
            Verdict::StaleMapping => {
                "still wrong after proved eviction from the page cache: the filesystem's own mapping is wrong"
            }
            Verdict::Foreign => "data of another file, or of the block's next owner, was seen",
            Verdict::Uninitialized => "bytes were seen that no file ever wrote",
            Verdict::Lost => "a completed write or store is gone",
            Verdict::Damaged => "a file that nobody touched changed, or fsck found damage",
            Verdict::Blocked => "an operation waited where it must not",
            Verdict::WrongResult => {
                "a call returned a wrong errno, size or answer, or raised a wrong SIGBUS"
            }
            Verdict::Hung => {
                "the trial did not end in time; the stacks of its tasks are in the record"
            }
            Verdict::KernelReport => {
                "the kernel logged a WARN, BUG, lockdep, KASAN or I/O error during the trial"
            }
            Verdict::Inconclusive => "not exercised enough to claim anything; not a pass",
            Verdict::Unsupported => "the filesystem lacks the operation",
            Verdict::Skipped => "a tool, a driver or a privilege is missing",
            Verdict::Error => "the bench itself failed",
        }
    }

    /// The word as it stands in YAML, records and tables.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Safe => "safe",
            Verdict::Stale => "stale",
            Verdict::StaleMapping => "stale-mapping",
            Verdict::Foreign => "foreign",
            Verdict::Uninitialized => "uninitialized",
            Verdict::Lost => "lost",
            Verdict::Damaged => "damaged",
            Verdict::Blocked => "blocked",
            Verdict::WrongResult => "wrong-result",
            Verdict::Hung => "hung",
            Verdict::KernelReport => "kernel-report",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Unsupported => "unsupported",
            Verdict::Skipped => "skipped",
            Verdict::Error => "error",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// A verdict held against the known issues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// As the known issues say, or `safe` (or not run) where they say nothing.
    Expected,
    /// Not what was expected: look into it.
    Unexpected,
    /// A known issue said it would fail and it did not.
    Fixed,
}

/// Where a `stale-mapping` lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Where {
    /// Gone after a remount: the filesystem's in-memory mapping was wrong.
    Memory,
    /// Still there after a remount.
    Disk,
    /// The trial could not remount, so it cannot tell.
    Unknown,
}
