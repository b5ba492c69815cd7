//! What can be held, and what whoever holds it tells: one trait before the image server and device-mapper,
//! so that a staged trial need not know which of them it has.

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A kind of request to a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoKind {
    /// REQ_OP_READ.
    Read,
    /// REQ_OP_WRITE.
    Write,
    /// REQ_OP_FLUSH. The loop driver's worker waits for it (`lo_req_flush`, vfs_fsync), and all other I/O of
    /// the device behind the worker.
    Flush,
}

/// Where on the device, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A request that touches one of these ranges.
    Within(Vec<Range<u64>>),
    /// A request that reaches out of these ranges.
    Outside(Vec<Range<u64>>),
}

impl Place {
    /// The whole device.
    pub fn anywhere() -> Place {
        Place::Outside(Vec::new())
    }

    /// Whether a request for `io` is meant.
    pub fn takes(&self, io: &Range<u64>) -> bool {
        match self {
            Place::Within(ranges) => ranges.iter().any(|r| r.start < io.end && io.start < r.end),
            Place::Outside(ranges) => {
                // The ranges may touch each other, in any order: what they leave of the request.
                let mut at = io.start;
                while at < io.end {
                    let next = ranges.iter().filter(|r| r.contains(&at)).map(|r| r.end);
                    match next.max() {
                        Some(end) => at = end,
                        None => return true,
                    }
                }
                false
            }
        }
    }
}

/// Which requests to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldSpec {
    /// Of these kinds.
    pub kinds: Vec<IoKind>,
    /// At this place; a flush has none and is always meant.
    pub place: Place,
}

impl HoldSpec {
    /// Reads of any of these ranges.
    pub fn reads(ranges: Vec<Range<u64>>) -> HoldSpec {
        HoldSpec {
            kinds: vec![IoKind::Read],
            place: Place::Within(ranges),
        }
    }

    /// Writes to any of these ranges.
    pub fn writes(ranges: Vec<Range<u64>>) -> HoldSpec {
        HoldSpec {
            kinds: vec![IoKind::Write],
            place: Place::Within(ranges),
        }
    }

    /// Reads of anything else.
    pub fn reads_outside(ranges: Vec<Range<u64>>) -> HoldSpec {
        HoldSpec {
            kinds: vec![IoKind::Read],
            place: Place::Outside(ranges),
        }
    }

    /// Whether a request is to be held.
    pub fn takes(&self, kind: IoKind, range: &Range<u64>) -> bool {
        self.kinds.contains(&kind) && (kind == IoKind::Flush || self.place.takes(range))
    }
}

/// Names a hold of one holder; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldId(pub u64);

/// A request that is being held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldIo {
    /// By which hold.
    pub hold: HoldId,
    /// What kind.
    pub kind: IoKind,
    /// Where on the device, in bytes.
    pub range: Range<u64>,
    /// When it came: see [`now`].
    pub since: Duration,
}

/// A place in the log of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark(pub u64);

/// A request that reached the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenIo {
    /// What kind.
    pub kind: IoKind,
    /// Where on the device, in bytes.
    pub range: Range<u64>,
    /// When it came: see [`now`].
    pub at: Duration,
    /// The hold that took it.
    pub held: Option<HoldId>,
}

/// What reached the device since a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The requests, in the order in which they came.
    pub requests: Vec<SeenIo>,
    /// How many more there were before them that the log had no room for. Only with 0 does the absence of a
    /// request prove anything.
    pub lost: u64,
}

/// Why a hold failed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// This way of holding cannot do it here.
    #[error("{0}")]
    Unsupported(String),
    /// Whoever held is gone; the I/O that it held has failed or gone on.
    #[error("the holder is gone, and what it held was let go: {0}")]
    Gone(String),
    /// The hold is over: it was released, or its time was up.
    #[error(
        "hold {0:?} is over: it was released, or its time was up; give it longer, or do less in it"
    )]
    Over(HoldId),
    /// A call failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// The step.
        what: String,
        /// The system's answer.
        error: io::Error,
    },
}

/// Holds chosen I/O of one block device while all other I/O flows.
pub trait Holder: Debug {
    /// From now on holds the requests that `what` names, until released, and for `at_most` so long (capped at
    /// [`LONGEST`]), whatever becomes of the caller. Requests that are under way are not caught. Where two
    /// holds take the same request, the older has it.
    fn hold(&self, what: &HoldSpec, at_most: Duration) -> Result<HoldId, HoldError>;

    /// The requests being held, in the order in which they came.
    fn held(&self) -> Result<Vec<HeldIo>, HoldError>;

    /// Waits until a hold has taken a request, and gives the first that it still has; `None` if none came in
    /// time. [`HoldError::Over`] once the hold has ended.
    fn wait_held(&self, hold: HoldId, timeout: Duration) -> Result<Option<HeldIo>, HoldError>;

    /// The place in the log where the next request will stand.
    fn mark(&self) -> Result<Mark, HoldError>;

    /// What has reached the device since, held or not: proof that a read went there, or that it did not.
    fn seen(&self, since: Mark) -> Result<Seen, HoldError>;

    /// Ends a hold; what it held goes on, and the device gives what is on it *now*. How many requests that
    /// were; [`HoldError::Over`] if it had ended before.
    fn release(&self, hold: HoldId) -> Result<usize, HoldError>;

    /// Ends every hold; how many requests went on.
    fn release_all(&self) -> Result<usize, HoldError>;
}

/// No hold is longer: far from the kernel's 120 s for a hung task (`hung_task_timeout_secs`).
pub const LONGEST: Duration = Duration::from_secs(60);

/// The time of all of this: CLOCK_MONOTONIC, the same in every process.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_is_touching_and_outside_is_reaching_out() {
        let within = Place::Within(vec![4096..8192]);
        assert!(within.takes(&(0..4097)));
        assert!(within.takes(&(8191..12288)));
        assert!(!within.takes(&(0..4096)) && !within.takes(&(8192..12288)));
        let outside = Place::Outside(vec![8192..12288, 4096..8192]);
        assert!(!outside.takes(&(4096..12288)));
        assert!(!outside.takes(&(5000..9000)));
        assert!(outside.takes(&(4096..12289)) && outside.takes(&(4095..4097)));
        assert!(Place::anywhere().takes(&(0..512)));
        assert!(!Place::Within(Vec::new()).takes(&(0..512)));
    }

    #[test]
    fn a_flush_has_no_place() {
        let spec = HoldSpec {
            kinds: vec![IoKind::Flush, IoKind::Write],
            place: Place::Within(vec![0..1]),
        };
        assert!(spec.takes(IoKind::Flush, &(0..0)));
        assert!(!spec.takes(IoKind::Write, &(1..2)) && !spec.takes(IoKind::Read, &(0..1)));
    }
}
