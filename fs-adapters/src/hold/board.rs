//! The book that whoever holds keeps: which holds there are and until when, what each has taken, and which
//! requests came. Pure: no clock and no I/O of its own, so that its promises can be tested.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::holder::{HeldIo, HoldId, HoldSpec, IoKind, LONGEST, Mark, Seen, SeenIo};

/// Requests kept in the log: more than a staged attempt makes, set-up included.
const LOG: usize = 1 << 16;

/// A hold.
#[derive(Debug)]
struct Hold {
    id: HoldId,
    what: HoldSpec,
    until: Duration,
}

/// A request that is held, and what is needed to let it go on.
#[derive(Debug)]
struct Parked<T> {
    io: HeldIo,
    request: T,
}

/// The book; `T` is what is needed to let a request go on.
#[derive(Debug)]
pub(super) struct Board<T> {
    holds: Vec<Hold>,
    parked: Vec<Parked<T>>,
    log: VecDeque<SeenIo>,
    /// Requests that came before those in the log.
    before_log: u64,
    next: u64,
}

/// The hold has ended, or never was.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over;

impl<T> Board<T> {
    pub fn new() -> Self {
        Board {
            holds: Vec::new(),
            parked: Vec::new(),
            log: VecDeque::new(),
            before_log: 0,
            next: 1,
        }
    }

    /// A new hold, from now on.
    pub fn hold(&mut self, what: HoldSpec, at_most: Duration, now: Duration) -> HoldId {
        let id = HoldId(self.next);
        self.next += 1;
        self.holds.push(Hold {
            id,
            what,
            until: now + at_most.min(LONGEST),
        });
        id
    }

    /// A request has come: it goes on if it is given back, else it is held until a release or [`Board::expire`]
    /// gives it back.
    pub fn arrive(
        &mut self,
        kind: IoKind,
        range: Range<u64>,
        now: Duration,
        request: T,
    ) -> Option<T> {
        let taken = self
            .holds
            .iter()
            .find(|hold| hold.until > now && hold.what.takes(kind, &range))
            .map(|hold| hold.id);
        if self.log.len() == LOG {
            self.log.pop_front();
            self.before_log += 1;
        }
        self.log.push_back(SeenIo {
            kind,
            range: range.clone(),
            at: now,
            held: taken,
        });
        let Some(hold) = taken else {
            return Some(request);
        };
        let io = HeldIo {
            hold,
            kind,
            range,
            since: now,
        };
        self.parked.push(Parked { io, request });
        None
    }

    /// Everything that is held, in the order in which it came.
    pub fn held(&self) -> Vec<HeldIo> {
        self.parked.iter().map(|parked| parked.io.clone()).collect()
    }

    /// The first request that a hold has.
    pub fn first_of(&self, hold: HoldId) -> Result<Option<HeldIo>, Over> {
        if !self.holds.iter().any(|h| h.id == hold) {
            return Err(Over);
        }
        let first = self.parked.iter().find(|parked| parked.io.hold == hold);
        Ok(first.map(|parked| parked.io.clone()))
    }

    /// Ends a hold.
    pub fn release(&mut self, hold: HoldId) -> Result<Vec<T>, Over> {
        let count = self.holds.len();
        self.holds.retain(|h| h.id != hold);
        if self.holds.len() == count {
            return Err(Over);
        }
        Ok(self.let_go(|of| of == hold))
    }

    /// Ends all holds.
    pub fn release_all(&mut self) -> Vec<T> {
        self.holds.clear();
        self.let_go(|_| true)
    }

    /// Ends the holds whose time is up.
    pub fn expire(&mut self, now: Duration) -> Vec<T> {
        let (over, still) = std::mem::take(&mut self.holds)
            .into_iter()
            .partition::<Vec<_>, _>(|hold| hold.until <= now);
        self.holds = still;
        self.let_go(|of| over.iter().any(|hold| hold.id == of))
    }

    /// When [`Board::expire`] has something to do next.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.holds.iter().map(|hold| hold.until).min()
    }

    fn let_go(&mut self, which: impl Fn(HoldId) -> bool) -> Vec<T> {
        let (go, stay) = std::mem::take(&mut self.parked)
            .into_iter()
            .partition::<Vec<_>, _>(|parked| which(parked.io.hold));
        self.parked = stay;
        go.into_iter().map(|parked| parked.request).collect()
    }

    /// Where the next request will stand in the log.
    pub fn mark(&self) -> Mark {
        Mark(self.before_log + self.log.len() as u64)
    }

    /// The requests since a mark.
    pub fn seen(&self, since: Mark) -> Seen {
        let skip = since.0.saturating_sub(self.before_log);
        Seen {
            requests: self
                .log
                .iter()
                .skip(usize::try_from(skip).unwrap_or(usize::MAX))
                .cloned()
                .collect(),
            lost: self.before_log.saturating_sub(since.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Duration {
        SECOND * seconds
    }

    #[test]
    fn a_hold_takes_what_it_names_and_gives_it_back_on_release() {
        let mut board = Board::new();
        let id = board.hold(HoldSpec::reads(vec![4096..8192]), at(5), at(0));
        assert_eq!(board.arrive(IoKind::Read, 0..4096, at(1), 'a'), Some('a'));
        assert_eq!(
            board.arrive(IoKind::Write, 4096..8192, at(1), 'b'),
            Some('b')
        );
        assert_eq!(board.first_of(id), Ok(None));
        assert_eq!(board.arrive(IoKind::Read, 0..8192, at(2), 'c'), None);
        assert_eq!(board.arrive(IoKind::Read, 8191..8192, at(3), 'd'), None);
        let first = board.first_of(id).unwrap().unwrap();
        assert_eq!((first.range, first.since), (0..8192, at(2)));
        assert_eq!(board.held().len(), 2);
        assert_eq!(board.release(id), Ok(vec!['c', 'd']));
        assert_eq!(board.release(id), Err(Over));
        assert_eq!(board.first_of(id), Err(Over));
        assert_eq!(
            board.arrive(IoKind::Read, 4096..8192, at(3), 'e'),
            Some('e')
        );
    }

    #[test]
    fn a_hold_ends_with_its_time_and_never_lasts_longer_than_the_longest() {
        let mut board = Board::new();
        board.hold(HoldSpec::reads(vec![0..1]), SECOND * 3600, at(0));
        let short = board.hold(HoldSpec::writes(vec![0..1]), at(2), at(0));
        assert_eq!(board.next_expiry(), Some(at(2)));
        assert_eq!(board.arrive(IoKind::Write, 0..1, at(1), 'w'), None);
        assert_eq!(board.arrive(IoKind::Read, 0..1, at(1), 'r'), None);
        // The clock decides, even before anybody has expired it.
        assert_eq!(board.arrive(IoKind::Write, 0..1, at(2), 'x'), Some('x'));
        assert_eq!(board.expire(at(2)), ['w']);
        assert_eq!(board.first_of(short), Err(Over));
        assert_eq!(board.next_expiry(), Some(LONGEST));
        assert_eq!(board.expire(LONGEST), ['r']);
        assert_eq!(board.next_expiry(), None);
    }

    #[test]
    fn the_older_hold_has_what_two_would_take() {
        let mut board = Board::new();
        let old = board.hold(HoldSpec::reads(vec![0..1]), at(5), at(0));
        let young = board.hold(HoldSpec::reads_outside(Vec::new()), at(5), at(0));
        board.arrive(IoKind::Read, 0..1, at(1), 'a');
        board.arrive(IoKind::Read, 7..8, at(1), 'b');
        assert_eq!(board.release(young), Ok(vec!['b']));
        assert_eq!(board.first_of(old).unwrap().unwrap().range, 0..1);
        assert_eq!(board.release_all(), ['a']);
        assert_eq!(board.release(old), Err(Over));
    }

    #[test]
    fn the_log_tells_what_it_has_lost() {
        let mut board = Board::new();
        board.arrive(IoKind::Read, 0..1, at(0), ());
        let mark = board.mark();
        for n in 0..LOG as u64 {
            board.arrive(IoKind::Write, n..n + 1, at(0), ());
        }
        let seen = board.seen(mark);
        assert_eq!((seen.requests.len(), seen.lost), (LOG, 0));
        assert_eq!(board.seen(Mark(0)).lost, 1);
        board.arrive(IoKind::Flush, 0..0, at(0), ());
        let seen = board.seen(mark);
        assert_eq!((seen.requests.len(), seen.lost), (LOG, 1));
        assert_eq!(seen.requests[LOG - 1].kind, IoKind::Flush);
        assert!(board.seen(board.mark()).requests.is_empty());
    }
}
