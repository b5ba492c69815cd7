//! One actor's life: it waits for a pass, meets the others at the gate, races its calls round by round,
//! and between batches of rounds helps to probe what the race left behind. Within a round it makes its
//! calls, reads the clock and judges; it does not allocate, log, or sleep.

use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::{Duration, Instant};

use punchbench_results::{FillerEvidence, Phase, Verdict, Via};
use punchbench_scenarios::Role;
use punchbench_sys::{futex, process};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::board::{Aborted, Board, Spin};
use crate::content::{Content, Piece};
use crate::judge::{Got, Wrong, judge, legal_words};
use crate::message::{Finding, Message, Sender, legal_at};
use crate::plan::{ActorPlan, Plan, RoundPlan, Step};
use crate::stamp::Stamps;
use crate::{Call, DirectIo, FileId, Look, Outcome, Subject, SubjectError};

/// Commands on the board's command word: a pass's number plus one, or this.
pub const QUIT: u64 = u64::MAX;

/// Findings that one actor reports in full; the rest are counted.
const MOST_FINDINGS: u64 = 64;
/// In a suspect's word: the file above, the page below, and whether its verdict is new to who tells.
pub(crate) const FILE_SHIFT: u32 = 48;
/// As [`FILE_SHIFT`].
pub(crate) const FRESH: u64 = 1 << 63;
/// A filler with a CPU of its own gives it away every so many calls: the worker that reads for it may be
/// waiting for that very CPU, and otherwise would until the next tick.
const YIELD_EVERY: u32 = 8;
/// Illegal observations of one batch that an actor keeps.
const HELD: usize = 4;

/// Everything an actor is given.
#[derive(Debug)]
pub struct Part<'a> {
    /// The plan that all actors share.
    pub plan: &'a Plan,
    /// The shared words.
    pub board: &'a Board,
    /// The run's stamps.
    pub stamps: Stamps,
    /// Its position among the racing actors; 0 is the leader, the invalidator.
    pub me: usize,
    /// The CPU to bind to, if any.
    pub cpu: Option<usize>,
    /// How it waits.
    pub spin: Spin,
    /// The page cache is the only store (tmpfs).
    pub cache_is_store: bool,
    /// Whether a direct read says anything.
    pub direct: DirectIo,
    /// The leader ends the trial after this many rounds.
    pub rounds: Option<u64>,
    /// The leader ends the trial this long after the first race began.
    pub time: Option<Duration>,
    /// Seeds its delays.
    pub seed: u64,
}

/// Why an actor ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The coordinator gave up.
    #[error("the trial was given up")]
    Aborted,
    /// Its subject failed.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The coordinator is gone.
    #[error("the coordinator does not listen: {0}")]
    Deaf(#[from] std::io::Error),
    /// Something that is no outcome of the race.
    #[error("{0}")]
    Bench(String),
}

impl From<Aborted> for Ended {
    fn from(_: Aborted) -> Ended {
        Ended::Aborted
    }
}

/// An illegal observation kept until the batch is over.
#[derive(Debug)]
struct Held {
    round: u64,
    step: usize,
    wrong: Option<Wrong>,
    outcome: Outcome,
    applied: Applied,
    clock: [u64; 4],
    at_ns: u64,
    bytes: Vec<u8>,
}

/// What an actor remembers of the batch at hand.
#[derive(Debug, Default)]
struct Batch {
    first: u64,
    rounds: Vec<RoundPlan>,
    overlapped: u64,
    touched: u64,
    by_itself: u64,
    held: Vec<Held>,
    kept: usize,
}

/// One actor at work.
pub struct Racer<'a> {
    pub(crate) part: Part<'a>,
    pub(crate) subject: Box<dyn Subject>,
    pub(crate) sender: Sender,
    pub(crate) probe: Vec<u8>,
    pub(crate) confirmed: u64,
    buffers: Vec<Vec<u8>>,
    pages: Vec<bool>,
    batch: Batch,
    evidence: FillerEvidence,
    findings: u64,
    /// Mutators that call more than once a round, as bits.
    repeating: u8,
    /// Verdicts told of so far.
    told: Vec<Verdict>,
    pub(crate) further: u64,
    pub(crate) violated: u64,
    same: u64,
    differs: u64,
    raced: u64,
    usage: crate::Usage,
    random: Xoshiro256PlusPlus,
    /// In this round the leader is held back rather than those who call once.
    leader_waits: bool,
    /// When the pass's race began.
    started: Instant,
    /// When the first pass's did.
    began: Option<Instant>,
}

impl std::fmt::Debug for Racer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Racer")
            .field("part", &self.part)
            .finish_non_exhaustive()
    }
}

impl<'a> Racer<'a> {
    /// Binds to its CPU, says so, and makes its buffers.
    pub fn new(
        part: Part<'a>,
        subject: Box<dyn Subject>,
        mut sender: Sender,
    ) -> Result<Racer<'a>, Ended> {
        let bound = part
            .cpu
            .filter(|&cpu| process::bind(cpu).is_ok())
            .map(|cpu| cpu as u32);
        sender.send(&Message::Ready { cpu: bound })?;
        let plan = part.plan;
        let me = &plan.actors[part.me];
        let longest = plan.longest() as usize;
        let (first, last) = (plan.chunk(0), plan.chunk(plan.batch.min(plan.rounds) - 1));
        let span = first.start.min(last.start)..first.end.max(last.end);
        let scope = plan.scope(0, plan.batch.min(plan.rounds), &plan.contents(0));
        let probe = scope
            .iter()
            .map(|(_, r)| r.end - r.start)
            .max()
            .unwrap_or(0);
        let probe = (probe + 2 * plan.page()) as usize;
        let evidence = FillerEvidence {
            actor: me.name.clone(),
            op: me
                .ops
                .iter()
                .map(|op| op.word())
                .collect::<Vec<_>>()
                .join("+"),
            filled: (me.role == Role::Filler).then_some(0),
            cpu: bound,
            ..FillerEvidence::default()
        };
        let repeating = plan
            .actors
            .iter()
            .filter(|a| a.repeats)
            .flat_map(|a| a.mutators.iter().flatten());
        let repeating = repeating.fold(0u8, |mask, slot| mask | 1 << slot);
        let held = (0..HELD).map(|_| Held {
            round: 0,
            step: 0,
            wrong: None,
            outcome: Outcome::default(),
            applied: Applied::default(),
            clock: [0; 4],
            at_ns: 0,
            bytes: vec![0; longest],
        });
        Ok(Racer {
            buffers: vec![vec![0; longest]; me.ops.len()],
            pages: vec![false; ((span.end - span.start) / plan.page() + 2) as usize],
            probe: vec![0; probe],
            batch: Batch {
                held: held.collect(),
                ..Batch::default()
            },
            evidence,
            confirmed: 0,
            findings: 0,
            repeating,
            told: Vec::new(),
            further: 0,
            violated: 0,
            same: 0,
            differs: 0,
            raced: 0,
            usage: crate::Usage::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(part.seed),
            leader_waits: false,
            started: Instant::now(),
            began: None,
            part,
            subject,
            sender,
        })
    }

    pub(crate) fn leads(&self) -> bool {
        self.part.me == 0
    }

    /// Races pass after pass until told to quit. Tells the coordinator when it cannot go on.
    pub fn run(&mut self) -> Result<(), Ended> {
        let ended = self.passes();
        if let Err(ended) = &ended {
            if !matches!(ended, Ended::Aborted | Ended::Deaf(_)) {
                self.sender.send(&Message::Failed {
                    what: ended.to_string(),
                })?;
            }
            self.part.board.abort();
        }
        ended
    }

    fn passes(&mut self) -> Result<(), Ended> {
        let mut seen = 0;
        loop {
            let command = self.part.board.command().load(SeqCst);
            match command {
                QUIT => return Ok(()),
                _ if command == seen => {
                    futex::wait(self.part.board.command(), seen, Duration::from_secs(1))
                }
                _ => {
                    seen = command;
                    self.pass(command - 1)?;
                }
            }
            if self.part.board.aborted() {
                return Err(Ended::Aborted);
            }
        }
    }

    /// Races one pass over files that the coordinator has prepared.
    fn pass(&mut self, pass: u64) -> Result<(), Ended> {
        let (plan, board, spin) = (self.part.plan, self.part.board, self.part.spin);
        let mut contents = plan.contents(pass);
        for slot in plan.actors[self.part.me].mutators.iter().flatten() {
            board.clear(0, *slot);
        }
        self.started = Instant::now();
        self.began.get_or_insert(self.started);
        let mut round = 0;
        let mut last = false;
        while round < plan.rounds {
            if self.leads() {
                let n = self.rounds_now(round);
                last = n == 0;
                let absent = if n == 0 {
                    0
                } else {
                    !self.residency(round, n, true)
                };
                board.absent().store(
                    if self.part.cache_is_store {
                        u64::MAX
                    } else {
                        absent
                    },
                    SeqCst,
                );
                board.violated().store(0, SeqCst);
                board.go().store(n, SeqCst);
            }
            board.gate(spin)?;
            let n = board.go().load(SeqCst);
            if n == 0 {
                break;
            }
            self.plan_batch(pass, round, n, &mut contents);
            for i in 0..n {
                self.race(i)?;
            }
            board.gate(spin)?;
            round += n;
            if board.void().load(SeqCst) != 0 {
                last = true;
                break;
            }
            if self.leads() {
                self.raced += n;
                board.rounds().store(self.raced, SeqCst);
                let resident = self.residency(round - n, n, false);
                board.resident().store(resident, SeqCst);
            }
            board.gate(spin)?;
            self.count_fills();
            self.report_held(pass)?;
            self.probe_batch(pass, round - n, round, &contents)?;
        }
        self.pass_done(pass, round, last)
    }

    fn pass_done(&mut self, pass: u64, rounds: u64, last: bool) -> Result<(), Ended> {
        let racing_ns = self.started.elapsed().as_nanos() as u64;
        self.report_failure(pass)?;
        for &file in &self.part.plan.actors[self.part.me].maps {
            let size = self.part.plan.files[usize::from(file)].size;
            self.subject.unmap(file, 0..size)?;
        }
        let message = if self.leads() {
            let outcomes = match self.same + self.differs {
                0 => Vec::new(),
                _ => vec![("same".into(), self.same), ("differs".into(), self.differs)],
            };
            Message::PassDone {
                rounds,
                racing_ns,
                outcomes,
                further: self.further,
                violated: self.violated,
                last,
            }
        } else {
            Message::Counted {
                evidence: self.evidence.clone(),
                further: self.further,
            }
        };
        Ok(self.sender.send(&message)?)
    }

    /// How many rounds the leader wants next; 0 when the trial's limits are reached.
    fn rounds_now(&self, round: u64) -> u64 {
        let plan = self.part.plan;
        let late = self
            .part
            .time
            .is_some_and(|t| self.began.is_some_and(|b| b.elapsed() >= t));
        let left = self
            .part
            .rounds
            .map_or(u64::MAX, |most| most.saturating_sub(self.raced));
        if late {
            0
        } else {
            plan.batch.min(plan.rounds - round).min(left)
        }
    }

    /// A bit for each round of the batch that has any of its chunk's pages in the page cache; every bit
    /// beyond the batch is set when `beyond`.
    fn residency(&mut self, round: u64, n: u64, beyond: bool) -> u64 {
        let plan = self.part.plan;
        let (a, b) = (plan.chunk(round), plan.chunk(round + n - 1));
        let span = a.start.min(b.start)..a.end.max(b.end);
        let page = plan.page();
        let base = span.start / page;
        let pages = &mut self.pages[..(span.end.div_ceil(page) - base) as usize];
        pages.fill(true);
        // Where it cannot be told, nothing counts as absent and nothing as left resident.
        if self.subject.resident(plan.on, span, pages).is_none() {
            return if beyond { u64::MAX } else { 0 };
        }
        let mut bits = if beyond && n < 64 { u64::MAX << n } else { 0 };
        for i in 0..n {
            let chunk = plan.chunk(round + i);
            let any =
                (chunk.start / page..chunk.end.div_ceil(page)).any(|p| pages[(p - base) as usize]);
            bits |= u64::from(any) << i;
        }
        bits
    }

    /// Works out the rounds of a batch, and moves the contents on to what they are after it.
    fn plan_batch(&mut self, pass: u64, first: u64, n: u64, contents: &mut [Content]) {
        let batch = &mut self.batch;
        batch.first = first;
        batch.rounds.clear();
        (batch.overlapped, batch.touched, batch.by_itself, batch.kept) = (0, 0, 0, 0);
        for round in first..first + n {
            batch
                .rounds
                .push(self.part.plan.round(pass, round, self.part.me, contents));
            self.part.plan.settle(pass, round, contents);
        }
        self.usage = self.subject.usage();
    }

    /// One round: everything until the gate is preparation; nothing after it may wait but the calls.
    fn race(&mut self, i: u64) -> Result<(), Ended> {
        let round = self.batch.first + i;
        let board = self.part.board;
        for (step, buf) in self.batch.rounds[i as usize]
            .steps
            .iter()
            .zip(&mut self.buffers)
        {
            if let Call::Store { file, at, len } | Call::Write { file, at, len } = step.call {
                self.part
                    .stamps
                    .fill(file, step.generation, at, &mut buf[..len as usize]);
            }
        }
        let me = &self.part.plan.actors[self.part.me];
        let delay = self.delay();
        board.gate(self.part.spin)?;
        if delay > 0 {
            let from = Instant::now();
            while (from.elapsed().as_nanos() as u64) < delay {
                std::hint::spin_loop();
            }
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
            if !me.repeats || board.interval(round, 0).1 != 0 {
                break;
            }
            tries += 1;
            if self.part.spin == Spin::Shared || tries % YIELD_EVERY == 0 {
                process::yield_now();
            }
        }
        // Where it went first: otherwise it may have waited for the invalidator.
        if !me.repeats && self.leader_waits {
            learn(board.once_ns(), from);
        }
        for slot in me.mutators.iter().flatten() {
            board.clear(round + 1, *slot);
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
        let most = match (self.leads(), self.leader_waits) {
            (true, true) => board.once_ns().load(SeqCst) / 4 * 3,
            (false, false) if once(&self.part.plan.actors[self.part.me]) => {
                board.call_ns().load(SeqCst) / 3
            }
            _ => 0,
        };
        (draw >> 1) % (most.min(1_000_000) + 1)
    }

    /// The leader's calls.
    fn invalidate(&mut self, i: u64, round: u64) {
        let board = self.part.board;
        let from = Instant::now();
        for k in 0..self.batch.rounds[i as usize].steps.len() {
            let step = &self.batch.rounds[i as usize].steps[k];
            let slot = step.mutator.unwrap_or(0);
            self.subject.approach(&step.call);
            let begin = board.begin(round, slot);
            let outcome = self.subject.perform(&step.call, &mut self.buffers[k]);
            let settled_before =
                outcome.same == Some(true) && self.completed_store_before(round, &step.call, begin);
            if outcome.errno != 0 || settled_before {
                board.void().store(1, SeqCst);
            }
            let end = board.end(round, slot);
            board.clear(round + 1, slot);
            match outcome.same {
                Some(true) => self.same += 1,
                Some(false) => self.differs += 1,
                None => {}
            }
            if outcome.errno != 0 || settled_before {
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
    fn step(&mut self, i: u64, round: u64, k: usize) -> Class {
        let board = self.part.board;
        let step = &self.batch.rounds[i as usize].steps[k];
        self.subject.approach(&step.call);
        let may_not_wait = matches!(step.call, Call::Read { nowait: true, .. });
        if may_not_wait {
            board.no_wait(self.part.me).fetch_add(1, SeqCst);
        }
        let a = step
            .mutator
            .map_or_else(|| board.now(), |slot| board.begin(round, slot));
        let outcome = self.subject.perform(&step.call, &mut self.buffers[k]);
        // An observer's loads are done before it reads the clock again.
        fence(Acquire);
        let b = step
            .mutator
            .map_or_else(|| board.now(), |slot| board.end(round, slot));
        if may_not_wait {
            board.no_wait(self.part.me).fetch_add(1, SeqCst);
        }
        let (begin, end) = board.interval(round, 0);
        let class = Class::of(a, b, begin, end);
        self.evidence.calls += 1;
        self.evidence.sigbus += u64::from(outcome.sigbus);
        self.evidence.errors += u64::from(outcome.errno != 0);
        self.batch.touched |= u64::from(outcome.bytes > 0 && class != Class::Outside) << i;
        let benign = matches!(outcome.errno, 0 | libc_errno::EINTR)
            || may_not_wait && outcome.errno == libc_errno::EAGAIN;
        let clock = [a, b, begin, end];
        let (Call::Read { at, .. } | Call::Fault { at, .. }) = step.call else {
            let short = wanted(&step.call).is_some_and(|len| outcome.bytes < len);
            if step.mutator.is_some() && (outcome.errno != 0 || outcome.sigbus || short) {
                // Nobody knows what the file holds now.
                board.void().store(1, SeqCst);
            }
            if !benign || outcome.sigbus || short {
                self.keep(round, k, None, outcome, Applied::default(), clock, 0);
            }
            return class;
        };
        let mut applied = Applied::default();
        for slot in 0..self.part.plan.mutators {
            let (begin, end) = board.interval(round, slot);
            applied.settled |= u8::from(end != 0 && end <= a) << slot;
            // What had not begun when the call ended cannot be seen in it. Who repeats has ticks of its last
            // call only.
            let repeats = self.repeating >> slot & 1 != 0;
            applied.begun |= u8::from(begin != 0 && (begin <= b || repeats)) << slot;
        }
        let seen = &self.buffers[k][..outcome.bytes as usize];
        let candidates = legal(step, applied);
        let cut_short = outcome.errno != 0 || may_not_wait;
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

    fn count_fills(&mut self) {
        let (absent, resident) = (
            self.part.board.absent().load(SeqCst),
            self.part.board.resident().load(SeqCst),
        );
        let batch = &self.batch;
        self.evidence.overlapped += u64::from(batch.overlapped.count_ones());
        self.evidence.io_rounds +=
            u64::from((batch.by_itself & batch.overlapped & absent).count_ones());
        if let Some(filled) = &mut self.evidence.filled {
            let actors = &self.part.plan.actors;
            let observes = actors[self.part.me].ops.iter().any(|op| op.observes());
            let alone = actors.iter().filter(|a| a.role == Role::Filler).count() == 1;
            // A page left resident is an adviser's own doing only if nobody else fills.
            let fills = match (observes, alone) {
                (true, _) => batch.touched,
                (false, true) => resident,
                (false, false) => 0,
            };
            *filled +=
                u64::from((batch.overlapped & absent & (fills | batch.by_itself)).count_ones());
        }
    }

    /// Tells of the failed call that made a pass void.
    fn report_failure(&mut self, pass: u64) -> Result<(), Ended> {
        let mutates = self.part.plan.actors[self.part.me]
            .mutators
            .iter()
            .any(Option::is_some);
        if mutates && self.part.board.void().load(SeqCst) != 0 {
            self.report_held(pass)?;
        }
        Ok(())
    }

    /// Tells of the illegal observations of the batch, and puts the first up for confirmation.
    fn report_held(&mut self, pass: u64) -> Result<(), Ended> {
        self.part.board.suspect(self.part.me).store(0, SeqCst);
        let held = std::mem::take(&mut self.batch.held);
        let told = held[..self.batch.kept]
            .iter()
            .try_for_each(|h| self.report_one(pass, h));
        self.batch.held = held;
        self.batch.kept = 0;
        told
    }

    fn report_one(&mut self, pass: u64, held: &Held) -> Result<(), Ended> {
        let plan = self.part.plan;
        let step = &self.batch.rounds[(held.round - self.batch.first) as usize].steps[held.step];
        let op = &plan.actors[self.part.me].ops[held.step];
        let (file, start) = operand(&step.call);
        let finding = match held.wrong {
            Some(wrong) => {
                let at = (wrong.offset - start) as usize;
                let seen = &held.bytes[..held.outcome.bytes as usize];
                let again = judge(self.part.stamps, start, seen, legal(step, held.applied));
                let pieces: Vec<Piece> = legal(step, held.applied).flatten().copied().collect();
                let mut finding = self.finding(
                    file,
                    wrong,
                    &seen[at..],
                    &pieces,
                    Phase::Race,
                    via(&step.call),
                );
                finding.rejudged = again == Err(wrong);
                finding
            }
            None => {
                let word = op.word();
                let (result, verdict) = match (held.outcome.sigbus, held.outcome.errno) {
                    (true, _) => (
                        format!("{word} raised SIGBUS within the file"),
                        Verdict::WrongResult,
                    ),
                    (_, 0) if held.outcome.same != Some(true) => {
                        return Err(Ended::Bench(format!(
                            "{word} on {} moved {} bytes only",
                            plan.names[usize::from(file)],
                            held.outcome.bytes
                        )));
                    }
                    (_, 0) => (
                        format!(
                            "{word} answered SAME although a store that made the files differ had completed before it began"
                        ),
                        Verdict::Lost,
                    ),
                    (_, errno) if is_benchs_own(errno) => {
                        let error = std::io::Error::from_raw_os_error(errno);
                        return Err(Ended::Bench(format!(
                            "{word} on {} failed: {error}",
                            plan.names[usize::from(file)]
                        )));
                    }
                    (_, errno) => {
                        let error = std::io::Error::from_raw_os_error(errno);
                        (format!("{word} failed: {error}"), Verdict::WrongResult)
                    }
                };
                let wrong = Wrong {
                    offset: start,
                    bytes: 0,
                };
                let mut finding = self.finding(file, wrong, &[], &[], Phase::Race, Via::Result);
                finding.result = Some(result.clone());
                (finding.got, finding.expected, finding.verdict) =
                    (result, "success".into(), verdict);
                finding.rejudged = true;
                finding
            }
        };
        self.tell(Finding {
            pass,
            round: held.round,
            clock: held.clock,
            at_ns: held.at_ns,
            ..finding
        })
    }

    /// A finding with everything but its place in time.
    pub(crate) fn finding(
        &self,
        file: FileId,
        wrong: Wrong,
        bytes: &[u8],
        pieces: &[Piece],
        phase: Phase,
        via: Via,
    ) -> Finding {
        let names = &self.part.plan.names;
        let got = Got::name(self.part.stamps, wrong.offset, bytes);
        let expected = legal_at(pieces, wrong.offset);
        let witness = self.part.plan.files[usize::from(file)].witness;
        let verdict = if witness {
            Verdict::Damaged
        } else {
            got.verdict(file, expected.as_ref())
        };
        Finding {
            file,
            offset: wrong.offset,
            wrong_bytes: wrong.bytes,
            phase,
            via,
            actor: self.part.me,
            pass: 0,
            round: 0,
            bytes: bytes[..bytes.len().min(64)].to_vec(),
            clock: [0; 4],
            at_ns: self.started.elapsed().as_nanos() as u64,
            result: None,
            rejudged: false,
            expected: legal_words(expected.as_ref(), names),
            verdict,
            got: got.words(names),
        }
    }

    /// Sends a finding and puts it up for confirmation, unless there have been too many; the first of each
    /// verdict is never one too many.
    pub(crate) fn tell(&mut self, finding: Finding) -> Result<(), Ended> {
        self.findings += 1;
        let fresh = !self.told.contains(&finding.verdict);
        if fresh {
            self.told.push(finding.verdict);
        } else if self.findings > MOST_FINDINGS {
            self.further += 1;
            return Ok(());
        }
        let suspect = self.part.board.suspect(self.part.me);
        if finding.via != Via::Result && (fresh || suspect.load(SeqCst) == 0) {
            let page = finding.offset / self.part.plan.page();
            let place = 1 + (u64::from(finding.file) << FILE_SHIFT | page);
            suspect.store(place | if fresh { FRESH } else { 0 }, SeqCst);
        }
        Ok(self.sender.send(&Message::Found(Box::new(finding)))?)
    }

    /// Looks at a range and judges it page by page against the contents; tells of every wrong page.
    pub(crate) fn probe_range(
        &mut self,
        how: Look,
        file: FileId,
        range: std::ops::Range<u64>,
        content: &Content,
    ) -> Vec<(Wrong, Vec<u8>)> {
        let len = (range.end - range.start) as usize;
        let outcome = self
            .subject
            .look(how, file, range.start, &mut self.probe[..len]);
        let seen = &self.probe[..outcome.bytes as usize];
        crate::verify::wrong_pages(
            self.part.stamps,
            self.part.plan.page(),
            seen,
            range,
            content,
        )
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
enum Class {
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

/// What is known of the mutators of a round when a call is judged, as bits.
#[derive(Debug, Clone, Copy, Default)]
struct Applied {
    /// They had returned before the call began.
    settled: u8,
    /// They had begun before the call ended.
    begun: u8,
}

/// The windows that a call may show: everything settled has taken effect, nothing that had not begun.
fn legal(step: &Step, applied: Applied) -> impl Iterator<Item = &[Piece]> + Clone {
    let must = applied.settled & step.relevant;
    let possible = move |mask: u8| mask & must == must && mask & !(applied.begun | must) == 0;
    let candidates = step.candidates.iter();
    candidates
        .filter(move |(mask, _)| possible(*mask))
        .map(|(_, window)| &window[..])
}

/// Whether the file may end within the call's range, so that SIGBUS or a short result is legal.
fn may_end(step: &Step, applied: Applied) -> bool {
    let (_, start) = operand(&step.call);
    let len = match step.call {
        Call::Read { len, .. } | Call::Fault { len, .. } => len,
        _ => 0,
    };
    legal(step, applied).any(|w| w.last().map_or(0, |p| p.end() - start) < len)
}

/// Bytes that a mutator's call must move.
fn wanted(call: &Call) -> Option<u64> {
    match *call {
        Call::Store { len, .. } | Call::Write { len, .. } => Some(len),
        _ => None,
    }
}

fn operand(call: &Call) -> (FileId, u64) {
    match *call {
        Call::PunchHole { file, at, .. }
        | Call::ZeroRange { file, at, .. }
        | Call::CollapseRange { file, at, .. }
        | Call::InsertRange { file, at, .. }
        | Call::Read { file, at, .. }
        | Call::Fault { file, at, .. }
        | Call::Fadvise { file, at, .. }
        | Call::Readahead { file, at, .. }
        | Call::Madvise { file, at, .. }
        | Call::Dedupe { file, at, .. }
        | Call::Store { file, at, .. }
        | Call::Write { file, at, .. } => (file, at),
        Call::Syncfs => (0, 0),
    }
}

fn via(call: &Call) -> Via {
    match call {
        Call::Fault { .. } => Via::Mapping,
        Call::Read { direct: true, .. } => Via::Direct,
        _ => Via::Read,
    }
}

/// Errors that say something of the machine or the bench, not of the race.
fn is_benchs_own(errno: i32) -> bool {
    use libc_errno::*;
    matches!(
        errno,
        ENOSPC | EFBIG | ENOMEM | EINTR | EDQUOT | EOPNOTSUPP | EPERM | EBADF | EFAULT
    )
}

/// The few error numbers that the engine tells apart.
mod libc_errno {
    use nix::errno::Errno;
    pub const EINTR: i32 = Errno::EINTR as i32;
    pub const EAGAIN: i32 = Errno::EAGAIN as i32;
    pub const ENOSPC: i32 = Errno::ENOSPC as i32;
    pub const EFBIG: i32 = Errno::EFBIG as i32;
    pub const ENOMEM: i32 = Errno::ENOMEM as i32;
    pub const EDQUOT: i32 = Errno::EDQUOT as i32;
    pub const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;
    pub const EPERM: i32 = Errno::EPERM as i32;
    pub const EBADF: i32 = Errno::EBADF as i32;
    pub const EFAULT: i32 = Errno::EFAULT as i32;
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
}
