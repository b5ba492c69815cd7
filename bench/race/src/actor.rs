//! One actor's life: it waits for a pass, meets the others at the gate, races its calls round by round,
//! and between batches of rounds helps to probe what the race left behind. Within a round it makes its
//! calls, reads the clock and judges; it does not allocate, log, or sleep.

mod round;
mod staged;
mod tell;

use std::ops::Range;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use round::{Applied, Counted};

use punchbench_results::{FillerEvidence, Floor, Phase, Verdict, Via};
use punchbench_scenarios::{EvidenceSpec, MadviseAdvice, Op, Role};
use punchbench_sys::{futex, process};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::board::{Aborted, Board, Known, Spin};
use crate::confirm::place_of;
use crate::content::{Content, Piece};
use crate::judge::{Got, Wrong, judge, legal_words};
use crate::message::{Finding, Message, Sender, legal_at};
use crate::plan::{ActorPlan, Plan, RoundPlan, Step, Way};
use crate::stamp::Stamps;
use crate::{Call, DirectIo, FileId, Look, Outcome, Subject, SubjectError};

/// Commands on the board's command word: a pass's number plus one, or this.
pub const QUIT: u64 = u64::MAX;

/// Findings that one actor reports in full; the rest are counted.
const MOST_FINDINGS: u64 = 64;
/// In a suspect's word: its verdict is new to who tells.
pub(crate) const FRESH: u64 = 1 << 63;
/// A filler with a CPU of its own gives it away every so many calls: the worker that reads for it may be
/// waiting for that very CPU, and otherwise would until the next tick.
const YIELD_EVERY: u32 = 8;
/// Illegal observations of one batch that an actor keeps.
const HELD: usize = 4;

/// Everything an actor is given.
#[derive(Debug, Clone, Copy)]
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
    /// The same while the floor is not reached.
    pub most: Option<Duration>,
    /// The evidence that `safe` needs.
    pub floor: Floor,
    /// And what it needs of the leader's outcomes.
    pub needs: &'a EvidenceSpec,
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
    /// The leader's: the chunk was seen absent from the page cache just before the gate.
    absent: u64,
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
    outcomes: [u64; Counted::NAMES.len()],
    raced: u64,
    /// Starts of others that the leader has waited for.
    begun: u64,
    usage: crate::Usage,
    random: Xoshiro256PlusPlus,
    /// What its last call returned.
    last: Outcome,
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
            .unwrap_or(0)
            .max(plan.longest());
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
            outcomes: [0; Counted::NAMES.len()],
            raced: 0,
            begun: 0,
            usage: crate::Usage::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(part.seed),
            last: Outcome::default(),
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
                    errno: match ended {
                        Ended::Subject(error) => error.error.raw_os_error(),
                        _ => None,
                    },
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
                    match self.part.plan.stage.is_empty() {
                        true => self.pass(command - 1)?,
                        false => self.staged_pass(command - 1)?,
                    }
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
        self.started = Instant::now();
        self.began.get_or_insert(self.started);
        let mut round = 0;
        let mut last = false;
        while round < plan.rounds {
            if self.leads() {
                let n = self.rounds_now(round);
                last = n == 0;
                board.violated().store(0, SeqCst);
                board.go().store(n, SeqCst);
            }
            board.gate(spin)?;
            let n = board.go().load(SeqCst);
            if n == 0 {
                break;
            }
            self.plan_batch(pass, round, n, &contents);
            for i in 0..n {
                self.race(i)?;
            }
            if self.leads() {
                board.absent().store(self.batch.absent, SeqCst);
            }
            board.gate(spin)?;
            round += n;
            if self.judge_batch(pass, round - n..round, &mut contents)? {
                last = true;
                break;
            }
        }
        self.pass_done(round, last)
    }

    /// After the last call of a batch: what the files hold now, what was seen in the race, and what it has
    /// left behind. Whether nobody knows what the files hold, because an operation failed.
    fn judge_batch(
        &mut self,
        pass: u64,
        rounds: Range<u64>,
        contents: &mut [Content],
    ) -> Result<bool, Ended> {
        let (plan, board) = (self.part.plan, self.part.board);
        if board.void().load(SeqCst) != 0 {
            self.report_held(pass)?;
            return Ok(true);
        }
        if self.leads() {
            self.raced += rounds.end - rounds.start;
            board.rounds().store(self.raced, SeqCst);
            for actor in 1..plan.actors.len() {
                let alone = |page| plan.actors[actor].alone.contains(&page);
                let resident = self.residency(rounds.clone(), alone).unwrap_or(0);
                board.resident(actor).store(resident, SeqCst);
            }
            for round in rounds.clone() {
                let known = board.known(round, plan.mutators);
                board.order(round).store(known.word(), SeqCst);
            }
        }
        board.gate(self.part.spin)?;
        for round in rounds.clone() {
            let known = Known::of(board.order(round).load(SeqCst));
            plan.settle(pass, round, known, contents);
        }
        self.count_fills();
        self.report_held(pass)?;
        self.probe_batch(pass, rounds.start, rounds.end, contents)?;
        Ok(false)
    }

    fn pass_done(&mut self, rounds: u64, last: bool) -> Result<(), Ended> {
        let racing_ns = self.started.elapsed().as_nanos() as u64;
        for &file in &self.part.plan.actors[self.part.me].maps {
            let size = self.part.plan.files[usize::from(file)].size;
            self.subject.unmap(file, 0..size)?;
        }
        let message = if self.leads() {
            let names = Counted::NAMES.into_iter().map(String::from);
            let outcomes = names.zip(self.outcomes).filter(|(_, n)| *n != 0).collect();
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
        let time = if self.part.board.exercised(self.part.floor) && !self.rare() {
            self.part.time
        } else {
            self.part.most.max(self.part.time)
        };
        let late = time.is_some_and(|t| self.began.is_some_and(|b| b.elapsed() >= t));
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

    /// Whether an outcome that the scenario needs came up too rarely so far.
    fn rare(&self) -> bool {
        self.part.needs.outcomes.iter().any(|(name, percent)| {
            let at = Counted::NAMES.iter().position(|n| *n == name);
            let got = at.map_or(0, |at| self.outcomes[at]);
            got * 100 < self.raced * u64::from(*percent)
        })
    }

    /// A bit for each of these rounds (at most 64) that has any of `these` pages of its chunk, counted from
    /// its start, in the page cache, the first round lowest; `None` where it cannot be told.
    fn residency(&mut self, rounds: Range<u64>, these: impl Fn(u64) -> bool) -> Option<u64> {
        let plan = self.part.plan;
        let (a, b) = (plan.chunk(rounds.start), plan.chunk(rounds.end - 1));
        let span = a.start.min(b.start)..a.end.max(b.end);
        let page = plan.page();
        let base = span.start / page;
        let pages = &mut self.pages[..(span.end.div_ceil(page) - base) as usize];
        self.subject.resident(plan.on, span, pages)?;
        let resident = rounds.enumerate().filter(|(_, round)| {
            let chunk = plan.chunk(*round);
            let first = chunk.start / page;
            (first..chunk.end.div_ceil(page))
                .any(|p| these(p - first) && pages[(p - base) as usize])
        });
        Some(resident.fold(0, |bits, (i, _)| bits | 1 << i))
    }

    /// Works out the rounds of a batch from the contents before it: no two of them touch the same bytes.
    fn plan_batch(&mut self, pass: u64, first: u64, n: u64, contents: &[Content]) {
        let batch = &mut self.batch;
        batch.first = first;
        batch.rounds.clear();
        (batch.overlapped, batch.touched, batch.by_itself, batch.kept) = (0, 0, 0, 0);
        batch.absent = 0;
        let (plan, me) = (self.part.plan, self.part.me);
        for round in first..first + n {
            batch.rounds.push(plan.round(pass, round, me, contents));
            for slot in plan.actors[me].mutators.iter().flatten() {
                self.part.board.clear(round, *slot);
            }
        }
        self.usage = self.subject.usage();
    }
}
