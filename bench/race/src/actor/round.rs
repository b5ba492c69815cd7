//! One round of one actor: its calls, the clock around them, and the oracle's word on what they showed.
//! Everything after the gate is either a call or a few instructions.

use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Instant;

use nix::errno::Errno;

use super::*;

const EINTR: i32 = Errno::EINTR as i32;
const EAGAIN: i32 = Errno::EAGAIN as i32;
/// The leader looks which chunks are absent from the page cache every so many rounds, before the gate.
const SAMPLE: u64 = 16;
/// The longest that anybody holds back after the gate, to meet the beginning of a call.
const MOST_NS: u64 = 1_000_000;
/// The longest call to whose end somebody is sent.
const LATE_NS: u64 = 10_000_000;
const EBUSY: i32 = Errno::EBUSY as i32;
const EINVAL: i32 = Errno::EINVAL as i32;
const ENOMEM: i32 = Errno::ENOMEM as i32;
const EFAULT: i32 = Errno::EFAULT as i32;
const ENOSPC: i32 = Errno::ENOSPC as i32;

impl Racer<'_> {
    /// One round: everything until the gate is preparation; nothing after it may wait but the calls.
    pub(super) fn race(&mut self, i: u64) -> Result<(), Ended> {
        let round = self.batch.first + i;
        let board = self.part.board;
        self.fill_buffers(i);
        self.evict_again(round)?;
        let me = &self.part.plan.actors[self.part.me];
        let delay = self.delay();
        if self.leads() && i.is_multiple_of(SAMPLE) {
            let end = (round + SAMPLE).min(self.batch.first + self.batch.rounds.len() as u64);
            let resident = match self.part.cache_is_store {
                true => Some(0),
                false => self.residency(round..end, |_| true),
            };
            // Where it cannot be told, nothing counts as absent.
            let absent = resident.map_or(0, |bits| !bits & ((1 << (end - round)) - 1));
            self.batch.absent |= absent << i;
        }
        self.subject.round(&self.batch.rounds[i as usize].chunk);
        board.gate(self.part.spin)?;
        if delay > 0 {
            let from = Instant::now();
            while (from.elapsed().as_nanos() as u64) < delay {
                std::hint::spin_loop();
            }
        }
        if self.part.cache_is_store {
            self.start_together()?;
        }
        if self.leads() {
            self.invalidate(i, round);
            return Ok(());
        }
        let from = Instant::now();
        let mut contact = Class::Outside;
        let mut tries = 0u32;
        loop {
            for k in 0..self.batch.rounds[i as usize].steps.len() {
                contact = contact.max(self.step(i, round, k));
            }
            if !me.repeats || self.invalidated(round).1 != 0 {
                break;
            }
            tries += 1;
            if self.part.spin == Spin::Shared || tries.is_multiple_of(YIELD_EVERY) {
                process::yield_now();
            }
        }
        // Where it went first: otherwise it may have waited for the invalidator.
        if !me.repeats && self.leader_waits {
            learn(board.once_ns(), from);
        }
        let usage = self.subject.usage();
        let by_itself = usage != self.usage;
        self.usage = usage;
        self.batch.by_itself |= u64::from(by_itself) << i;
        self.batch.overlapped |= u64::from(contact != Class::Outside) << i;
        match contact {
            Class::Outside => self.evidence.contact.outside += 1,
            Class::Early => self.evidence.contact.early += 1,
            Class::Straddle => self.evidence.contact.straddle += 1,
            Class::Inside => self.evidence.contact.inside += 1,
        }
        Ok(())
    }

    /// Makes ready what a round's stores and writes put into the files.
    pub(super) fn fill_buffers(&mut self, i: u64) {
        let steps = &self.batch.rounds[i as usize].steps;
        for (step, buf) in steps.iter().zip(&mut self.buffers) {
            if let Call::Store { file, at, len } | Call::Write { file, at, len, .. } = step.call {
                let buf = &mut buf[..len as usize];
                self.part.stamps.fill(file, step.generation, at, buf);
            }
        }
    }

    /// Holds the leader back until whoever repeats is there. In memory alone its call takes less time than the
    /// change from one to the other of two fillers that share a CPU.
    fn start_together(&mut self) -> Result<(), Ended> {
        let (plan, board) = (self.part.plan, self.part.board);
        if self.leads() {
            let repeaters = plan.actors.iter().filter(|a| a.repeats).count() as u64;
            self.begun += repeaters;
            let all = || board.started().load(SeqCst) >= self.begun;
            board.spin_until(self.part.spin, all)?;
        } else if plan.actors[self.part.me].repeats {
            board.started().fetch_add(1, SeqCst);
        }
        Ok(())
    }

    /// Evicts the chunk that every round of the pass races.
    fn evict_again(&mut self, round: u64) -> Result<(), Ended> {
        let plan = self.part.plan;
        if !plan.fixed || self.part.cache_is_store {
            return Ok(());
        }
        if plan.actors[self.part.me].maps.contains(&plan.on) {
            self.subject.unmap(plan.on, plan.chunk(round))?;
        }
        self.part.board.gate(self.part.spin)?;
        if self.leads() {
            // Whether it worked is seen at the gate.
            self.subject.evict(plan.on, plan.chunk(round))?;
        }
        Ok(())
    }

    /// When the leader's first call of a round began and its last one ended, as ticks; 0 for what is yet to
    /// come.
    fn invalidated(&self, round: u64) -> (u64, u64) {
        let board = self.part.board;
        let last = self.part.plan.actors[0].ops.len() - 1;
        (board.interval(round, 0).0, board.interval(round, last).1)
    }

    /// How long to hold back after the gate, in nanoseconds, where somebody calls only once a round: both
    /// orders, and everything between, must come up. All actors draw the same numbers: in half of the
    /// rounds the leader is held back, in the others those who call once.
    fn delay(&mut self) -> u64 {
        let once = |actor: &ActorPlan| !actor.repeats;
        if !self.part.plan.actors[1..].iter().any(once) {
            return 0;
        }
        let draw = self.random.next_u64();
        self.leader_waits = draw.is_multiple_of(2);
        let board = self.part.board;
        let range = match (self.leads(), self.leader_waits) {
            (true, true) => 0..(board.once_ns().load(SeqCst) / 4 * 3).min(MOST_NS),
            (false, false) if once(&self.part.plan.actors[self.part.me]) => {
                within_call(board.call_ns().load(SeqCst), self.too_early())
            }
            _ => 0..0,
        };
        range.start + (draw >> 1) % (range.end - range.start + 1)
    }

    /// Whether hardly anything of what was filled during the call has stayed: where the pages are dropped as the
    /// last thing, outside any lock (`fuse_file_fallocate`), only who comes late really fills.
    fn too_early(&self) -> bool {
        let kept = self.evidence.filled.unwrap_or(u64::MAX);
        kept < self.evidence.overlapped / 10
    }

    /// The leader's calls.
    pub(super) fn invalidate(&mut self, i: u64, round: u64) {
        let board = self.part.board;
        let from = Instant::now();
        for k in 0..self.batch.rounds[i as usize].steps.len() {
            let step = &self.batch.rounds[i as usize].steps[k];
            let slot = step.mutator.unwrap_or(0);
            self.subject.approach(&step.call);
            let begin = board.begin(round, slot);
            let outcome = self.subject.perform(&step.call, &mut self.buffers[k]);
            self.last = outcome;
            let settled_before =
                outcome.same == Some(true) && self.completed_store_before(round, &step.call, begin);
            let op = &self.part.plan.actors[0].ops[k];
            let counted = Counted::of(op, &step.call, outcome);
            let short = wanted(&step.call).is_some_and(|len| outcome.bytes < len);
            let failed = (outcome.errno != 0 || short) && counted != Some(Counted::Short);
            let failed = failed || settled_before;
            if failed {
                board.void().store(1, SeqCst);
            }
            let end = board.end(round, slot);
            if let Some(counted) = counted {
                self.outcomes[counted as usize] += 1;
            }
            if failed {
                self.keep(
                    round,
                    k,
                    None,
                    outcome,
                    Applied::default(),
                    [begin, end, begin, end],
                    0,
                );
            }
        }
        if !self.leader_waits {
            learn(board.call_ns(), from);
        }
    }

    /// Whether another actor's store or write into a range that this dedupe compares had completed before
    /// it began at tick `begin`: then the files differed, and SAME is a lie.
    fn completed_store_before(&self, round: u64, call: &Call, begin: u64) -> bool {
        let Call::Dedupe {
            file,
            at,
            len,
            into,
        } = *call
        else {
            return false;
        };
        let plan = self.part.plan;
        let chunk = plan.chunk(round);
        let others = plan.actors[1..]
            .iter()
            .flat_map(|a| a.ops.iter().zip(&a.mutators));
        others.into_iter().any(|(op, slot)| {
            let (Call::Store {
                file: f,
                at: o,
                len: n,
            }
            | Call::Write {
                file: f,
                at: o,
                len: n,
                ..
            }) = plan.call(op, &chunk)
            else {
                return false;
            };
            let inside = (f == file || f == into) && o < at + len && at < o + n;
            let end = slot.map_or(0, |slot| self.part.board.interval(round, slot).1);
            inside && end != 0 && end < begin
        })
    }

    /// One call of a filler or dirtier; its contact with the invalidator.
    pub(super) fn step(&mut self, i: u64, round: u64, k: usize) -> Class {
        let board = self.part.board;
        let step = &self.batch.rounds[i as usize].steps[k];
        self.subject.approach(&step.call);
        let may_not_wait = step.call.may_not_wait();
        if may_not_wait {
            board.no_wait(self.part.me).fetch_add(1, SeqCst);
        }
        let a = step
            .mutator
            .map_or_else(|| board.now(), |slot| board.begin(round, slot));
        let mut outcome = self.subject.perform(&step.call, &mut self.buffers[k]);
        let mut met_until = None;
        if let Call::Splice {
            file,
            at,
            len,
            late,
        } = step.call
        {
            met_until = Some(board.now());
            // The pipe holds the pages themselves: what is drained late is as they are then.
            let returned = || self.invalidated(round).1 != 0;
            let drain = Call::Drain { file, at, len };
            if late && board.spin_until(self.part.spin, returned).is_err() {
                outcome = Outcome::default();
            } else if outcome.errno == 0 {
                outcome = self.subject.perform(&drain, &mut self.buffers[k]);
            }
        }
        // An observer's loads are done before it reads the clock again.
        fence(Acquire);
        let b = step
            .mutator
            .map_or_else(|| board.now(), |slot| board.end(round, slot));
        if may_not_wait {
            board.no_wait(self.part.me).fetch_add(1, SeqCst);
        }
        self.last = outcome;
        let (begin, end) = self.invalidated(round);
        let class = Class::of(a, met_until.unwrap_or(b), begin, end);
        self.evidence.calls += 1;
        self.evidence.sigbus += u64::from(outcome.sigbus);
        self.evidence.errors += u64::from(outcome.errno != 0);
        self.batch.touched |= u64::from(outcome.bytes > 0 && class != Class::Outside) << i;
        let benign = matches!(outcome.errno, 0 | EINTR)
            || may_not_wait && outcome.errno == EAGAIN
            || may_give_up(&step.call, outcome.errno);
        let clock = [a, b, begin, end];
        let Some((_, at, _)) = step.call.shows() else {
            let short = wanted(&step.call).is_some_and(|len| outcome.bytes < len);
            if step.mutator.is_some() && (outcome.errno != 0 || outcome.sigbus || short) {
                // Nobody knows what the file holds now.
                board.void().store(1, SeqCst);
            }
            let legal = may_fall_short(&step.call) && matches!(outcome.errno, 0 | EFAULT);
            if (!benign || short) && !legal || outcome.sigbus {
                self.keep(round, k, None, outcome, Applied::default(), clock, 0);
            }
            return class;
        };
        let mut applied = Applied {
            known: board
                .known(round, self.part.plan.mutators)
                .without(self.repeating),
            ..Applied::default()
        };
        for slot in 0..self.part.plan.mutators {
            let (begin, end) = board.interval(round, slot);
            // Of who repeats only the last call's ticks are left: what it did before may have been undone.
            applied.settled |= u8::from(begin < end && end <= a) << slot;
            // What had not begun when the call ended cannot be seen in it.
            let repeats = self.repeating >> slot & 1 != 0;
            applied.begun |= u8::from(begin != 0 && (begin <= b || repeats)) << slot;
        }
        let seen = &self.buffers[k][..outcome.bytes as usize];
        let candidates = legal(step, applied);
        // A pipe may take less.
        let cut_short = outcome.errno != 0 || may_not_wait || met_until.is_some();
        match judge(self.part.stamps, at, seen, candidates) {
            Ok(()) if benign && !outcome.sigbus => {}
            Err(wrong)
                if wrong.bytes == 0
                    && benign
                    && (cut_short || outcome.sigbus && !may_end(step, applied)) =>
            {
                if outcome.sigbus {
                    self.keep(round, k, None, outcome, applied, clock, 0);
                }
            }
            Ok(()) => {
                if !benign || !may_end(step, applied) {
                    self.keep(round, k, None, outcome, applied, clock, 0);
                }
            }
            // It failed, and what it gave before that is right.
            Err(wrong) if wrong.bytes == 0 && !benign => {
                self.keep(round, k, None, outcome, applied, clock, 0);
            }
            Err(wrong) => self.keep(
                round,
                k,
                Some(wrong),
                outcome,
                applied,
                clock,
                outcome.bytes as usize,
            ),
        }
        class
    }

    /// Keeps an illegal observation until the batch is over; beyond the first few it only counts.
    #[expect(
        clippy::too_many_arguments,
        reason = "one observation, field by field, without allocating"
    )]
    fn keep(
        &mut self,
        round: u64,
        step: usize,
        wrong: Option<Wrong>,
        outcome: Outcome,
        applied: Applied,
        clock: [u64; 4],
        len: usize,
    ) {
        if self.part.board.void().load(SeqCst) != 0 && wrong.is_some() {
            return;
        }
        let board = self.part.board;
        board
            .violated()
            .fetch_or(1 << (round - self.batch.first), SeqCst);
        // The same round again is the same finding.
        let known = self.batch.held[..self.batch.kept]
            .iter()
            .any(|h| h.round == round && h.step == step);
        if known || self.batch.kept == HELD {
            self.further += u64::from(!known);
            return;
        }
        let at_ns = self.started.elapsed().as_nanos() as u64;
        let held = &mut self.batch.held[self.batch.kept];
        (held.round, held.step, held.wrong, held.outcome) = (round, step, wrong, outcome);
        (held.applied, held.clock, held.at_ns) = (applied, clock, at_ns);
        held.bytes[..len].copy_from_slice(&self.buffers[step][..len]);
        self.batch.kept += 1;
    }

    pub(super) fn count_fills(&mut self) {
        let absent = self.part.board.absent().load(SeqCst);
        let resident = self.part.board.resident(self.part.me).load(SeqCst);
        let batch = &self.batch;
        self.evidence.overlapped += u64::from(batch.overlapped.count_ones());
        self.evidence.io_rounds +=
            u64::from((batch.by_itself & batch.overlapped & absent).count_ones());
        if let Some(filled) = &mut self.evidence.filled {
            let me = &self.part.plan.actors[self.part.me];
            // These fill the filesystem's own cache: that they returned is all there is to see.
            let tells =
                |op: &Op| op.observes() || matches!(op, Op::Fiemap(_) | Op::PrecacheExtents(_));
            let tells = me.ops.iter().any(tells);
            let fills = if tells { batch.touched } else { resident } | batch.by_itself;
            *filled += u64::from((batch.overlapped & absent & fills).count_ones());
        }
        let filled = self.evidence.filled.unwrap_or(u64::MAX);
        let counts = self.part.board.counts(self.part.me);
        counts[0].store(self.evidence.overlapped, SeqCst);
        counts[1].store(filled, SeqCst);
    }
}

/// Whether a call that promises nothing gave up: MADV_COLLAPSE, as a folio of the range was busy, gone or dirty just
/// then, or there was no huge page to be had (`madvise_collapse_errno`).
fn may_give_up(call: &Call, errno: i32) -> bool {
    matches!(
        call,
        Call::Madvise {
            advice: MadviseAdvice::Collapse,
            ..
        }
    ) && matches!(errno, EAGAIN | EBUSY | EINVAL | ENOMEM)
}

/// How long to hold back, in nanoseconds, to meet a call that takes `call`: its beginning, or `late` its end. The
/// estimate is the shortest call rather than the usual one, so its end is looked for beyond it, too.
fn within_call(call: u64, late: bool) -> Range<u64> {
    match late && call <= LATE_NS {
        true => call / 4 * 3..call / 2 * 3,
        false => 0..(call / 3).min(MOST_NS),
    }
}

/// Moves an estimate of how long a call takes, in nanoseconds, towards the time since `from`: quickly
/// downwards, slowly upwards, since a call that was held up says little of the next.
fn learn(estimate: &AtomicU64, from: Instant) {
    let ns = from.elapsed().as_nanos() as u64;
    let known = estimate.load(SeqCst);
    let next = match known {
        0 => ns,
        _ if ns < known => (known + ns) / 2,
        _ => known + (ns - known).min(known / 8 + 1),
    };
    estimate.store(next, SeqCst);
}

/// How a call met the invalidator's, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Outside,
    Early,
    Straddle,
    Inside,
}

impl Class {
    /// From the clock before and after the call, and the invalidator's ticks (0: not there yet).
    fn of(a: u64, b: u64, begin: u64, end: u64) -> Class {
        if begin == 0 || b < begin || end != 0 && a >= end {
            Class::Outside
        } else if a < begin {
            Class::Early
        } else if end == 0 || b < end {
            Class::Inside
        } else {
            Class::Straddle
        }
    }
}

/// An outcome of the invalidator that a scenario may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Same,
    Differs,
    Whole,
    Short,
}

impl Counted {
    pub(super) const NAMES: [&str; 4] = ["same", "differs", "whole", "short"];

    fn of(op: &Op, call: &Call, outcome: Outcome) -> Option<Counted> {
        match (outcome.same, op) {
            (Some(true), _) => Some(Counted::Same),
            (Some(false), _) => Some(Counted::Differs),
            (None, Op::Write(args)) if args.fills_up => match outcome.errno {
                0 if Some(outcome.bytes) == wanted(call) => Some(Counted::Whole),
                0 | ENOSPC => Some(Counted::Short),
                _ => None,
            },
            (None, _) => None,
        }
    }
}

/// What is known of the mutators of a round when a call is judged, as bits.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Applied {
    /// They had returned before the call began.
    settled: u8,
    /// They had begun before the call ended.
    begun: u8,
    /// What is known of their order.
    known: Known,
}

/// The windows that a call may show: everything settled has taken effect, nothing that had not begun.
pub(super) fn legal(step: &Step, applied: Applied) -> impl Iterator<Item = &[Piece]> + Clone {
    // What takes effect in part is never known to have taken effect, nor not to be under way.
    let settled = applied.settled & !step.partial;
    let must = settled & step.relevant;
    let known = applied.known.without(!step.relevant | step.partial);
    let possible = move |way: &Way| {
        way.applied & must == must
            && way.applied & !(applied.begun | must) == 0
            // A size that is changed twice, down and up, is settled when both are.
            && (way.fleeting == 0 || way.fleeting & !settled != 0)
            && way.may_be(known)
    };
    let candidates = step.candidates.iter();
    candidates
        .filter(move |(way, _)| possible(way))
        .map(|(_, window)| &window[..])
}

/// Whether the file may end within the call's range, so that SIGBUS or a short result is legal.
fn may_end(step: &Step, applied: Applied) -> bool {
    let (_, start, len) = step.call.shows().unwrap_or_default();
    legal(step, applied).any(|w| w.last().map_or(0, |p| p.end() - start) < len)
}

/// Bytes that a mutator's call must move.
fn wanted(call: &Call) -> Option<u64> {
    match *call {
        Call::Store { len, .. } | Call::Write { len, .. } | Call::ReadInto { len, .. } => Some(len),
        _ => None,
    }
}

/// Whether it may legally move less: the fault on its buffer may fail (`fault_in_iov_iter_writeable`).
fn may_fall_short(call: &Call) -> bool {
    matches!(call, Call::ReadInto { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contact_classes() {
        assert_eq!(Class::of(0, 0, 0, 0), Class::Outside);
        assert_eq!(Class::of(0, 4, 5, 6), Class::Outside);
        assert_eq!(Class::of(4, 5, 5, 0), Class::Early);
        assert_eq!(Class::of(5, 5, 5, 0), Class::Inside);
        assert_eq!(Class::of(5, 5, 5, 6), Class::Inside);
        assert_eq!(Class::of(5, 6, 5, 6), Class::Straddle);
        assert_eq!(Class::of(6, 6, 5, 6), Class::Outside);
    }

    #[test]
    fn a_call_is_met_at_its_beginning_and_if_that_is_too_early_at_its_end() {
        assert_eq!(within_call(300_000, false), 0..100_000);
        assert_eq!(within_call(30_000_000, false), 0..MOST_NS);
        let late = within_call(4_000_000, true);
        assert!(late.start < 4_000_000 && late.end > 4_000_000, "{late:?}");
        assert_eq!(within_call(LATE_NS + 1, true), 0..MOST_NS);
        assert_eq!(within_call(0, true), 0..0);
    }
}
