//! What the actors of a trial share: the gate, the clock, who has returned, and a few answers. Words in
//! shared memory, each group on a cache line of its own, so that it works for processes and threads alike.
//!
//! **Order.** Only mutators advance the clock: a tick before and after each call. Observers read it before
//! and after theirs. A mutator whose end tick is not above the clock that an observer read before its call
//! had returned before the observer began (ORACLE section 1).

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use punchbench_results::Floor;
use punchbench_sys::{futex, process, shm::SharedWords};

/// The most actors that may race.
pub const MOST_ACTORS: usize = 8;
/// The most operations of a round that change content or blocks.
pub const MOST_MUTATORS: usize = 3;
/// The most rounds of a batch: they are bits of a word.
pub const BATCH_ROUNDS: u64 = 64;

/// How long who has a CPU of its own spins before it yields: some microseconds.
const OWN_SPINS: u32 = 200;

const LINE: usize = 8;
const ARRIVED: usize = 0;
const EPOCH: usize = LINE;
const CLOCK: usize = 2 * LINE;
const ABORT: usize = 3 * LINE;
const COMMAND: usize = 4 * LINE;
const GO: usize = 5 * LINE;
const ABSENT: usize = 6 * LINE;
const CONFIRM: usize = 8 * LINE;
const ROUNDS: usize = 9 * LINE;
const VIOLATED: usize = 7 * LINE;
const VOID: usize = 10 * LINE;
const CALL_NS: usize = 11 * LINE;
/// One line for each actor: suspect, answer (3 words), call sequence, resident,
/// overlapped, filled.
const ACTORS: usize = 12 * LINE;
/// One line for each actor of a staged scenario: cue, done, errno, begin and end.
const STAGE: usize = ACTORS + MOST_ACTORS * LINE;
/// (begin, end) of each mutator, for each round of a batch.
const TICKS: usize = STAGE + MOST_ACTORS * LINE;
/// What is known of the order of each round's mutators, for a whole pass.
const ORDERS: usize = TICKS + BATCH_ROUNDS as usize * MOST_MUTATORS * LINE;

/// The bench gave the trial up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

/// How long who waits for a cue sleeps before it looks whether the trial was given up.
const NAP: Duration = Duration::from_millis(500);

/// What an actor of a staged scenario is told to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cue {
    /// Its operations.
    Start = 1,
    /// Look at what it saw, and at what all have left.
    Judge = 2,
}

/// The shared words of one trial.
#[derive(Debug)]
pub struct Board {
    words: SharedWords,
    actors: u64,
    origin: Instant,
}

/// Which mutators of a round had returned before which others began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known(u16);

impl Known {
    fn bit(a: usize, b: usize) -> u16 {
        1 << (4 * a + b)
    }

    /// Notes that `a` had returned before `b` began.
    pub fn say(&mut self, a: usize, b: usize) {
        self.0 |= Known::bit(a, b);
    }

    /// Without what it says of the mutators in `mask`.
    pub fn without(self, mask: u8) -> Known {
        let mut kept = Known::default();
        for a in (0..MOST_MUTATORS).filter(|a| mask >> a & 1 == 0) {
            for b in (0..MOST_MUTATORS).filter(|b| mask >> b & 1 == 0) {
                kept.0 |= self.0 & Known::bit(a, b);
            }
        }
        kept
    }

    /// Whether anything that this says is also said by `other`.
    pub fn shares(self, other: Known) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether a set of mutators that have taken effect, as bits, holds with each also those before it.
    pub fn closed(self, applied: u8) -> bool {
        self.0 == 0
            || (0..MOST_MUTATORS).all(|b| {
                applied >> b & 1 == 0
                    || (0..MOST_MUTATORS)
                        .all(|a| self.0 & Known::bit(a, b) == 0 || applied >> a & 1 != 0)
            })
    }

    /// As a word of shared memory.
    pub fn word(self) -> u64 {
        self.0.into()
    }

    /// The reverse of [`Known::word`].
    pub fn of(word: u64) -> Known {
        Known(word as u16)
    }
}

/// What an actor waits with at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spin {
    /// It has a CPU of its own: spins for a while before it yields.
    Own,
    /// It shares its CPU: yields at once.
    Shared,
}

impl Board {
    /// For `actors` racing actors and passes of at most `rounds` rounds.
    pub fn new(actors: usize, rounds: u64) -> std::io::Result<Board> {
        Ok(Board {
            words: SharedWords::new(ORDERS + rounds as usize)?,
            actors: actors as u64,
            origin: Instant::now(),
        })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at]
    }

    /// Waits until every actor is here. Nothing sleeps between the gate and what follows it.
    pub fn gate(&self, spin: Spin) -> Result<(), Aborted> {
        let epoch = self.word(EPOCH).load(SeqCst);
        if self.word(ARRIVED).fetch_add(1, SeqCst) + 1 == self.actors {
            self.word(ARRIVED).store(0, SeqCst);
            self.word(EPOCH).store(epoch + 1, SeqCst);
            return Ok(());
        }
        self.spin_until(spin, || self.word(EPOCH).load(SeqCst) != epoch)
    }

    /// Spins until `done`.
    pub fn spin_until(&self, spin: Spin, done: impl Fn() -> bool) -> Result<(), Aborted> {
        let mut spins = 0u32;
        while !done() {
            spins += 1;
            if spin == Spin::Own && spins < OWN_SPINS {
                std::hint::spin_loop();
            } else {
                if self.aborted() {
                    return Err(Aborted);
                }
                process::yield_now();
            }
        }
        Ok(())
    }

    /// Gives the trial up: every actor leaves at the next gate.
    pub fn abort(&self) {
        self.word(ABORT).store(1, SeqCst);
    }

    /// Whether it was given up.
    pub fn aborted(&self) -> bool {
        self.word(ABORT).load(SeqCst) != 0
    }

    /// The clock, read by an observer.
    pub fn now(&self) -> u64 {
        self.word(CLOCK).load(SeqCst)
    }

    fn ticks(&self, round: u64, mutator: usize) -> usize {
        TICKS + ((round % BATCH_ROUNDS) as usize * MOST_MUTATORS + mutator) * LINE
    }

    /// A mutator begins its call.
    pub fn begin(&self, round: u64, mutator: usize) -> u64 {
        let tick = self.word(CLOCK).fetch_add(1, SeqCst) + 1;
        self.word(self.ticks(round, mutator)).store(tick, SeqCst);
        tick
    }

    /// Its call returned.
    pub fn end(&self, round: u64, mutator: usize) -> u64 {
        let tick = self.word(CLOCK).fetch_add(1, SeqCst) + 1;
        self.word(self.ticks(round, mutator) + 1)
            .store(tick, SeqCst);
        tick
    }

    /// Begin and end tick of a mutator in a round, 0 where it has not got there.
    pub fn interval(&self, round: u64, mutator: usize) -> (u64, u64) {
        let at = self.ticks(round, mutator);
        (self.word(at).load(SeqCst), self.word(at + 1).load(SeqCst))
    }

    /// What the ticks of a round say of the order of its first `mutators` mutators.
    pub fn known(&self, round: u64, mutators: usize) -> Known {
        let mut known = Known::default();
        if mutators < 2 {
            return known;
        }
        let mut intervals = [(0, 0); MOST_MUTATORS];
        for (mutator, interval) in intervals.iter_mut().enumerate().take(mutators) {
            *interval = self.interval(round, mutator);
        }
        for (a, &(begin, end)) in intervals.iter().enumerate().take(mutators) {
            for (b, &(later, _)) in intervals.iter().enumerate().take(mutators) {
                // Who repeats may be in its next call: then its end is that of an earlier one.
                if a != b && end > begin && end < later {
                    known.say(a, b);
                }
            }
        }
        known
    }

    /// What was known of a round's mutators in the end; written by the leader after the batch.
    pub fn order(&self, round: u64) -> &AtomicU64 {
        self.word(ORDERS + round as usize)
    }

    /// Forgets what a mutator left where the ticks of `round` go; by the mutator itself, before a batch,
    /// when nobody reads those of the last one any more.
    pub fn clear(&self, round: u64, mutator: usize) {
        let at = self.ticks(round, mutator);
        self.word(at).store(0, SeqCst);
        self.word(at + 1).store(0, SeqCst);
    }

    /// The word that actors sleep on between passes.
    pub fn command(&self) -> &AtomicU64 {
        self.word(COMMAND)
    }

    /// Whether the leader goes on with the batch.
    pub fn go(&self) -> &AtomicU64 {
        self.word(GO)
    }

    /// A bit for each round of the batch: its chunk was absent at the gate.
    pub fn absent(&self) -> &AtomicU64 {
        self.word(ABSENT)
    }

    /// In how many rounds so far an actor has overlapped, and really filled (all bits where that is not asked).
    pub fn counts(&self, actor: usize) -> [&AtomicU64; 2] {
        let at = ACTORS + actor * LINE + 6;
        [self.word(at), self.word(at + 1)]
    }

    /// How often an actor that repeats has come through the gate of a round, all together.
    pub fn started(&self) -> &AtomicU64 {
        self.word(ROUNDS + 2)
    }

    /// Freed blocks proved reused so far.
    pub fn reused(&self) -> &AtomicU64 {
        self.word(ROUNDS + 1)
    }

    /// Whether every actor that races the leader has done so in as many rounds as `floor` asks for.
    pub fn exercised(&self, floor: Floor) -> bool {
        let reused = self.reused().load(SeqCst) >= floor.reused_blocks;
        reused
            && (1..self.actors as usize).all(|actor| {
                let [overlapped, filled] = self.counts(actor).map(|w| w.load(SeqCst));
                overlapped >= floor.overlapped && filled >= floor.filled
            })
    }

    /// A bit for each round of the batch: pages that only this actor may have brought in were resident
    /// before any probe.
    pub fn resident(&self, actor: usize) -> &AtomicU64 {
        self.word(ACTORS + actor * LINE + 5)
    }

    /// A bit for each round of the batch in which something illegal was seen.
    pub fn violated(&self) -> &AtomicU64 {
        self.word(VIOLATED)
    }

    /// The suspect to confirm, or 0.
    pub fn confirm(&self) -> &AtomicU64 {
        self.word(CONFIRM)
    }

    /// Rounds raced so far, for progress.
    pub fn rounds(&self) -> &AtomicU64 {
        self.word(ROUNDS)
    }

    /// Not 0 when the invalidator failed, so that nobody knows what the pass's files hold.
    pub fn void(&self) -> &AtomicU64 {
        self.word(VOID)
    }

    /// How long the invalidator's last round took, in nanoseconds.
    pub fn call_ns(&self) -> &AtomicU64 {
        self.word(CALL_NS)
    }

    /// How long the last actor that calls once a round took, in nanoseconds.
    pub fn once_ns(&self) -> &AtomicU64 {
        self.word(CALL_NS + 1)
    }

    /// What an actor found suspicious in this batch, or 0.
    pub fn suspect(&self, actor: usize) -> &AtomicU64 {
        self.word(ACTORS + actor * LINE)
    }

    /// An actor's answer to a confirmation.
    pub fn answer(&self, actor: usize) -> [&AtomicU64; 3] {
        let at = ACTORS + actor * LINE + 1;
        [self.word(at), self.word(at + 1), self.word(at + 2)]
    }

    /// Nanoseconds since the board was made: the same clock for every actor.
    pub fn ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Gives an actor of a staged scenario its cue.
    pub fn cue(&self, actor: usize, cue: Cue) {
        let word = self.word(STAGE + actor * LINE);
        word.store(cue as u64, SeqCst);
        futex::wake_all(word);
    }

    /// Sleeps until an actor's cue has come.
    pub fn await_cue(&self, actor: usize, cue: Cue) -> Result<(), Aborted> {
        let word = self.word(STAGE + actor * LINE);
        loop {
            let seen = word.load(SeqCst);
            if seen >= cue as u64 {
                return Ok(());
            }
            if self.aborted() {
                return Err(Aborted);
            }
            futex::wait(word, seen, NAP);
        }
    }

    /// An actor of a staged scenario makes its first call.
    pub fn called(&self, actor: usize) {
        let at = STAGE + actor * LINE;
        self.word(at + 3).store(self.ns(), SeqCst);
    }

    /// Its last call has returned, with this errno.
    pub fn returned(&self, actor: usize, errno: i32) {
        let at = STAGE + actor * LINE;
        self.word(at + 2).store(errno as u64, SeqCst);
        self.word(at + 4).store(self.ns(), SeqCst);
        self.word(at + 1).store(1, SeqCst);
        futex::wake_all(self.word(at + 1));
    }

    /// What an actor's last call returned, if it has; else sleeps for it, at most so long.
    pub fn await_return(&self, actor: usize, at_most: Duration) -> Option<i32> {
        let at = STAGE + actor * LINE;
        let done = || self.word(at + 1).load(SeqCst) != 0;
        if !done() && !at_most.is_zero() {
            futex::wait(self.word(at + 1), 0, at_most);
        }
        done().then(|| self.word(at + 2).load(SeqCst) as i32)
    }

    /// When an actor's first call began and its last one returned, in nanoseconds of this board; 0 for what
    /// is yet to come.
    pub fn times(&self, actor: usize) -> (u64, u64) {
        let at = STAGE + actor * LINE;
        (
            self.word(at + 3).load(SeqCst),
            self.word(at + 4).load(SeqCst),
        )
    }

    /// Forgets what an actor did on the last stage.
    pub fn clear_stage(&self, actor: usize) {
        for word in 0..LINE {
            self.word(STAGE + actor * LINE + word).store(0, SeqCst);
        }
    }

    /// Odd while an actor is in a call that must not wait.
    pub fn no_wait(&self, actor: usize) -> &AtomicU64 {
        self.word(ACTORS + actor * LINE + 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_a_gate_before_all_have_come() {
        let board = Board::new(3, 0).unwrap();
        let inside = AtomicU64::new(0);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for round in 1..2000u64 {
                        inside.fetch_add(1, SeqCst);
                        board.gate(Spin::Shared).unwrap();
                        let seen = inside.load(SeqCst);
                        assert!(
                            seen >= 3 * round && seen <= 3 * round + 2,
                            "{seen} in round {round}"
                        );
                        board.gate(Spin::Shared).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn an_abort_frees_who_waits() {
        let board = Board::new(2, 0).unwrap();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| board.gate(Spin::Own));
            board.abort();
            assert_eq!(waiter.join().unwrap(), Err(Aborted));
        });
    }

    #[test]
    fn who_reads_the_end_tick_began_after_the_return() {
        let board = Board::new(1, 0).unwrap();
        let before = board.now();
        let begin = board.begin(4, 0);
        let during = board.now();
        let end = board.end(4, 0);
        let after = board.now();
        assert!(before < begin && begin <= during && during < end && end <= after);
        assert_eq!(board.interval(4, 0), (begin, end));
        board.clear(4 + BATCH_ROUNDS, 0);
        assert_eq!(board.interval(4, 0), (0, 0));
    }

    #[test]
    fn what_returned_before_another_began_is_known_and_what_overlapped_is_not() {
        let board = Board::new(1, 1).unwrap();
        board.begin(0, 0);
        board.begin(0, 1);
        board.end(0, 0);
        board.end(0, 1);
        board.begin(0, 2);
        let mut both = Known::default();
        both.say(0, 2);
        both.say(1, 2);
        assert_eq!(board.known(0, 3), both);
        assert!(both.closed(0b011) && both.closed(0b111) && both.closed(0b001));
        assert!(!both.closed(0b100) && !both.closed(0b101));
        // A call that has begun again hides the end of the one before.
        board.begin(0, 1);
        let mut one = Known::default();
        one.say(0, 2);
        one.say(0, 1);
        assert_eq!(board.known(0, 3), one);
    }
}
