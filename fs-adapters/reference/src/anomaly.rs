//! What may go wrong, and what to call it.

use serde::Serialize;

/// A property that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// A page that anybody may look at shows what was there before, and no operation on it is under way.
    StalePage,
    /// A page or a result shows data that never belonged there: another file's, or the next owner's.
    ForeignData,
    /// A read that began after an operation had returned shows what was there before it.
    StaleRead,
    /// A write or store that had completed is gone.
    LostWrite,
    /// No page is cached, and the file's own mapping leads to the wrong data.
    StaleMapping,
    /// A write went to a block that was no longer the file's.
    StaleWriteback,
    /// Nobody can go on.
    Deadlock,
    /// Locks are taken in orders that lockdep would report, whether or not a deadlock can be reached.
    LockOrder,
    /// Others can keep an operation from ever finishing, though it goes on taking steps.
    Livelock,
}

impl Anomaly {
    /// All, the worst data loss first.
    pub const ALL: [Anomaly; 9] = [
        Anomaly::StalePage,
        Anomaly::ForeignData,
        Anomaly::StaleRead,
        Anomaly::LostWrite,
        Anomaly::StaleMapping,
        Anomaly::StaleWriteback,
        Anomaly::Deadlock,
        Anomaly::LockOrder,
        Anomaly::Livelock,
    ];

    /// In tables and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Anomaly::StalePage => "stale-page",
            Anomaly::ForeignData => "foreign-data",
            Anomaly::StaleRead => "stale-read",
            Anomaly::LostWrite => "lost-write",
            Anomaly::StaleMapping => "stale-mapping",
            Anomaly::StaleWriteback => "stale-writeback",
            Anomaly::Deadlock => "deadlock",
            Anomaly::LockOrder => "lock-order",
            Anomaly::Livelock => "livelock",
        }
    }

    /// Whether somebody who looks at a file, now or later, sees wrong data. Blocks are the file's own as long as no
    /// other takes them, so a write to one that was freed is not.
    pub fn is_seen(self) -> bool {
        match self {
            Anomaly::StalePage
            | Anomaly::ForeignData
            | Anomaly::StaleRead
            | Anomaly::LostWrite
            | Anomaly::StaleMapping => true,
            Anomaly::StaleWriteback
            | Anomaly::Deadlock
            | Anomaly::LockOrder
            | Anomaly::Livelock => false,
        }
    }

    /// As `broken` holds it: never 0.
    pub(crate) fn code(self) -> u8 {
        self as u8 + 1
    }

    /// From `broken`.
    pub(crate) fn from_code(code: u8) -> Option<Anomaly> {
        Anomaly::ALL.into_iter().find(|a| a.code() == code)
    }
}

impl std::fmt::Display for Anomaly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}
