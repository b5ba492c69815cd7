//! A trial's race from end to end: the coordinator prepares the files, lets the actors race pass after
//! pass, looks at everything again after eviction, and gathers evidence and violations.

mod gather;
mod listen;
mod reuse;
mod staged;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use punchbench_results::{
    Answer, Confirmation, Evidence, FillerEvidence, Phase, Placement, Verdict, Via, Violation,
};
use punchbench_scenarios::{Geometry, Scenario};
use punchbench_sys::process::Exit;
use punchbench_sys::{futex, process};

use crate::actor::{Part, Racer};
use crate::board::{Board, Known, Spin};
use crate::content::{Change, Content};
use crate::grip::{Grip, GripError};
use crate::host::{Crew, Host};
use crate::message::{Finding, Message};
use crate::plan::{Plan, PlanError};
use crate::stamp::{GENERATION_BITS, Stamps};
use crate::verdict::rare;
use crate::verify::Verifier;
use crate::{Call, DirectIo, FileId, Stage, Subject, SubjectError, Subjects};

/// How long to wait for actors' messages before looking around.
const TICK: Duration = Duration::from_millis(50);
/// Violations that a record carries in full.
const MOST_VIOLATIONS: usize = 32;

/// What to race.
#[derive(Debug, Clone)]
pub struct TrialSpec {
    /// The scenario.
    pub scenario: Scenario,
    /// Page and block size of the target.
    pub geometry: Geometry,
    /// Same seed, same plan, same delays.
    pub seed: u64,
    /// Keys the stamps; the image's background must have been written with it too.
    pub nonce: u64,
    /// When to stop.
    pub limits: Limits,
    /// The CPUs to use; empty for all that this process may run on.
    pub cpus: Vec<usize>,
    /// The first pass's files are there already: [`prepare`] has made them.
    pub prepared: bool,
}

/// When to stop, whichever comes first. At least one batch is raced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Time from the first race on, with the preparation of all passes but the first.
    pub time: Option<Duration>,
    /// The same while the scenario's floor of evidence is not reached; no less than `time`.
    pub most: Option<Duration>,
    /// Rounds.
    pub rounds: Option<u64>,
}

/// What happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "pass and rounds so far")]
pub enum Event {
    /// The files of a pass are being prepared.
    Preparing { pass: u64 },
    /// The actors race.
    Racing { pass: u64, rounds: u64 },
    /// Everything is evicted and looked at again.
    Verifying { pass: u64 },
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct RaceReport {
    /// Proof of exercise.
    pub evidence: Evidence,
    /// What was found and confirmed, or not borne out by its own confirmation.
    pub violations: Vec<Violation>,
    /// Seconds of racing until the first violation.
    pub first_violation_s: Option<f64>,
    /// Where the actors ran.
    pub placement: Vec<Placement>,
    /// What every file holds now, for a look after a remount; absent after a failed operation.
    pub contents: Option<Vec<Content>>,
}

/// The race could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RaceError {
    /// The scenario does not fit the target.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A subject failed where it must not.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// An actor died.
    #[error("actor {actor} died within the race: {exit:?}")]
    Died {
        /// Its name.
        actor: String,
        /// How.
        exit: Exit,
    },
    /// An actor gave up.
    #[error("actor {actor}: {what}")]
    Actor {
        /// Its name.
        actor: String,
        /// Why.
        what: String,
        /// The system's answer, where it was a call that failed.
        errno: Option<i32>,
    },
    /// The holder or the observer failed.
    #[error(transparent)]
    Grip(GripError),
    /// A staged scenario without anything to hold I/O with.
    #[error("a staged scenario needs something that holds block I/O, and this target has nothing")]
    NoGrip,
    /// The kernel says that a page may be old by design (`dio_warn_stale_pagecache` in mm/filemap.c).
    #[error(
        "the kernel could not drop a page behind a direct write, as EIO of fsync(2) says: what is cached may be old \
         by design"
    )]
    Undropped,
    /// The system refused something that the engine itself needs.
    #[error("the race engine failed: {0}")]
    System(#[from] std::io::Error),
}

/// Races one trial of a stress scenario.
pub fn race(
    spec: &TrialSpec,
    subjects: &dyn Subjects,
    host: Host,
    on_event: &mut dyn FnMut(Event),
) -> Result<RaceReport, RaceError> {
    run(spec, subjects, host, None, on_event)
}

/// Makes the files of the first pass, so that the filesystem can be mounted anew before actors open them. Says
/// whether direct reads are direct.
pub fn prepare(spec: &TrialSpec, subjects: &dyn Subjects) -> Result<DirectIo, RaceError> {
    let plan = Plan::new(&spec.scenario, spec.geometry)?;
    let (mut stage, contents) = (subjects.stage()?, plan.contents(0));
    for file in plan.visible() {
        write_out(
            &mut *stage,
            Stamps::new(spec.nonce),
            file,
            &contents[usize::from(file)],
        )?;
    }
    Ok(stage.direct())
}

/// Makes a file hold what it holds when a pass begins.
fn write_out(
    stage: &mut dyn Stage,
    stamps: Stamps,
    file: FileId,
    content: &Content,
) -> Result<(), SubjectError> {
    if content.is_hole() {
        return stage.hole(file, content.size());
    }
    stage.prepare(file, content.size(), &mut |at: u64, buf: &mut [u8]| {
        let pieces: Vec<_> = content.window(at..at + buf.len() as u64).collect();
        crate::judge::render(stamps, at, &pieces, buf);
    })
}

/// Makes one attempt of a staged scenario.
pub fn staged(
    spec: &TrialSpec,
    subjects: &dyn Subjects,
    host: Host,
    grip: &mut dyn Grip,
    on_event: &mut dyn FnMut(Event),
) -> Result<RaceReport, RaceError> {
    run(spec, subjects, host, Some(grip), on_event)
}

fn run(
    spec: &TrialSpec,
    subjects: &dyn Subjects,
    host: Host,
    grip: Option<&mut dyn Grip>,
    on_event: &mut dyn FnMut(Event),
) -> Result<RaceReport, RaceError> {
    let plan = Plan::new(&spec.scenario, spec.geometry)?;
    let mut stage = subjects.stage()?;
    let board = Board::new(plan.actors.len(), plan.rounds)?;
    let cpus = if spec.cpus.is_empty() {
        process::cpus()?
    } else {
        spec.cpus.clone()
    };
    let part = |me: usize| {
        let (cpu, spin) = match spec.scenario.is_staged() {
            // Who is parked needs no CPU, and other attempts may run beside this one.
            true => (None, Spin::Shared),
            false => place(me, plan.actors.len(), &cpus),
        };
        Part {
            plan: &plan,
            board: &board,
            stamps: Stamps::new(spec.nonce),
            me,
            cpu,
            spin,
            cache_is_store: stage.cache_is_store(),
            direct: stage.direct(),
            rounds: spec.limits.rounds,
            time: spec.limits.time,
            most: spec.limits.most,
            floor: spec.scenario.floor(),
            needs: &spec.scenario.evidence,
            seed: spec.seed,
        }
    };
    let parts: Vec<Part> = (0..plan.actors.len()).map(part).collect();
    let body = |me: usize, mut sender: crate::message::Sender| {
        let part = parts[me];
        let subject = match subjects.actor(part.plan.actors[me].index) {
            Ok(subject) => subject,
            Err(error) => {
                let _ = sender.send(&Message::Failed {
                    what: error.to_string(),
                    errno: error.error.raw_os_error(),
                });
                return;
            }
        };
        if let Ok(mut racer) = Racer::new(part, subject, sender) {
            // The coordinator has been told; a process that ends early is noticed as well.
            let _ = racer.run();
        }
    };
    host.crew(&board, plan.actors.len(), &body, |crew| {
        let coordinator = subjects.coordinator()?;
        let grip = grip.map(|grip| -> &mut dyn Grip { grip });
        let lead = Lead::new(
            spec,
            &plan,
            &board,
            crew,
            &mut *stage,
            coordinator,
            on_event,
        );
        let lead = Lead { grip, ..lead };
        let report = lead.run();
        if report.is_err() {
            board.abort();
        }
        report
    })?
}

/// The CPU of an actor and how it waits: the invalidator has the first CPU, the others share the rest.
fn place(me: usize, actors: usize, cpus: &[usize]) -> (Option<usize>, Spin) {
    match cpus {
        [] => (None, Spin::Shared),
        [only] => (Some(*only), Spin::Shared),
        [first, ..] if me == 0 => (Some(*first), Spin::Own),
        [_, rest @ ..] => {
            let cpu = rest[(me - 1) % rest.len()];
            (
                Some(cpu),
                if actors - 1 > rest.len() {
                    Spin::Shared
                } else {
                    Spin::Own
                },
            )
        }
    }
}

/// The coordinator at work.
struct Lead<'a> {
    spec: &'a TrialSpec,
    plan: &'a Plan,
    board: &'a Board,
    crew: &'a mut Crew,
    stage: &'a mut dyn Stage,
    verifier: Verifier<'a>,
    grip: Option<&'a mut dyn Grip>,
    on_event: &'a mut dyn FnMut(Event),
    began: Option<Instant>,
    evidence: Evidence,
    fillers: Vec<FillerEvidence>,
    furthers: Vec<u64>,
    findings: Vec<Finding>,
    confirmed: Vec<(u64, Message)>,
    violations: Vec<Violation>,
    placement: Vec<Placement>,
    /// For each actor, the last odd no-wait sequence seen and since when.
    waits: Vec<(u64, Instant)>,
}

/// How a pass ended.
struct PassEnd {
    rounds: u64,
    last: bool,
    void: bool,
}

impl<'a> Lead<'a> {
    fn new(
        spec: &'a TrialSpec,
        plan: &'a Plan,
        board: &'a Board,
        crew: &'a mut Crew,
        stage: &'a mut dyn Stage,
        coordinator: Box<dyn Subject>,
        on_event: &'a mut dyn FnMut(Event),
    ) -> Lead<'a> {
        let direct = match stage.direct() {
            DirectIo::Real => "real",
            DirectIo::Buffered => "buffered",
            DirectIo::None => "none",
        };
        let now = Instant::now();
        Lead {
            spec,
            plan,
            board,
            crew,
            verifier: Verifier::new(
                plan,
                Stamps::new(spec.nonce),
                coordinator,
                stage.cache_is_store(),
                stage.direct(),
            ),
            stage,
            grip: None,
            on_event,
            began: None,
            evidence: Evidence {
                direct: direct.into(),
                eviction_proved: true,
                ..Evidence::default()
            },
            fillers: vec![FillerEvidence::default(); plan.actors.len() - 1],
            furthers: vec![0; plan.actors.len()],
            findings: Vec::new(),
            confirmed: Vec::new(),
            violations: Vec::new(),
            placement: Vec::new(),
            waits: vec![(0, now); plan.actors.len()],
        }
    }

    fn run(mut self) -> Result<RaceReport, RaceError> {
        let ended = self.passes().map_err(|error| {
            let errno = match &error {
                RaceError::Subject(error) => error.error.raw_os_error(),
                RaceError::Actor { errno, .. } => *errno,
                _ => None,
            };
            match errno == Some(Errno::EIO as i32) && self.plan.writes_directly {
                true => RaceError::Undropped,
                false => error,
            }
        });
        if let Err(RaceError::Undropped) = &ended {
            // All else that was found stands.
            self.violations.retain(|v| v.verdict != Verdict::Stale);
        }
        if self.plan.fills_up {
            // What comes after needs some room.
            self.stage.fill_up(false)?;
        }
        match ended {
            Ok(contents) => Ok(self.report(contents)),
            // What was found and confirmed stands, however the race ended.
            Err(error) if !self.violations.is_empty() => {
                let note = format!("the race ended early: {error}");
                self.evidence.notes.push(note);
                self.board.abort();
                Ok(self.report(None))
            }
            Err(error) => Err(error),
        }
    }

    /// Races pass after pass; what every file holds in the end, if that is known.
    fn passes(&mut self) -> Result<Option<Vec<Content>>, RaceError> {
        self.await_ready()?;
        let mut pass = 0;
        loop {
            (self.on_event)(Event::Preparing { pass });
            let mut contents = self.prepare(pass)?;
            let on_stage = !self.plan.stage.is_empty();
            let before = self.blocks()?;
            if before.is_some() || self.plan.fills_up {
                self.stage.fill_up(true)?;
            }
            let rounds = self.board.rounds().load(SeqCst);
            (self.on_event)(Event::Racing { pass, rounds });
            self.board.command().store(pass + 1, SeqCst);
            futex::wake_all(self.board.command());
            self.began.get_or_insert_with(Instant::now);
            let before_ns = self.evidence.racing_ns;
            if on_stage {
                self.stage(pass, &mut contents)?;
            }
            let end = self.await_pass(pass);
            self.gather(pass, before_ns);
            let end = end?;
            if end.void {
                if self.violations.is_empty() {
                    let note = "a call fell short, as it may: what the file holds is not known, and the race ended there";
                    self.evidence.notes.push(note.into());
                }
                return Ok(None);
            }
            for round in 0..end.rounds {
                let known = Known::of(self.board.order(round).load(SeqCst));
                self.plan.settle(pass, round, known, &mut contents);
            }
            (self.on_event)(Event::Verifying { pass });
            if !on_stage {
                self.reuse(pass, before, &mut contents)?;
            }
            self.verify(pass, end.rounds, &contents)?;
            self.evidence.passes += 1;
            pass += 1;
            // A generation is written once; there are only so many.
            let exhausted = self.plan.generation(pass + 1) >> GENERATION_BITS != 0;
            if end.last || exhausted || on_stage || self.over() {
                return Ok(Some(contents));
            }
        }
    }

    fn over(&self) -> bool {
        let limits = &self.spec.limits;
        let scenario = &self.spec.scenario;
        let enough = self.board.exercised(scenario.floor())
            && rare(&self.evidence, &scenario.evidence).is_none();
        let time = if enough {
            limits.time
        } else {
            limits.most.max(limits.time)
        };
        time.is_some_and(|t| self.began.is_some_and(|b| b.elapsed() >= t))
            || limits.rounds.is_some_and(|r| self.evidence.rounds >= r)
            || limits.time.is_none() && limits.rounds.is_none()
    }

    /// Writes every file anew and evicts it.
    fn prepare(&mut self, pass: u64) -> Result<Vec<Content>, RaceError> {
        if !self.plan.reuse.is_empty() || self.plan.fills_up {
            self.stage.fill_up(false)?;
        }
        let contents = self.plan.contents(pass);
        let stamps = Stamps::new(self.spec.nonce);
        // What lies behind a file is put there through it, so those come first.
        let hidden = (0..)
            .zip(&self.plan.files)
            .filter_map(|(of, f)| Some((f.behind?, of)));
        for (file, of) in hidden.chain(self.plan.visible().map(|file| (file, file))) {
            if self.spec.prepared && pass == 0 {
                continue;
            }
            write_out(self.stage, stamps, file, &contents[usize::from(of)])?;
            if file != of {
                self.verifier.carry_out(&Call::SwapBoot { file }, 0)?;
            }
        }
        for file in self.plan.visible() {
            let content = &contents[usize::from(file)];
            let proved = self.verifier.evict(file, content.size())?;
            self.evidence.eviction_proved &= proved || content.size() == 0;
        }
        Ok(contents)
    }

    /// P2: everything again, after eviction.
    fn verify(&mut self, pass: u64, rounds: u64, contents: &[Content]) -> Result<(), RaceError> {
        for file in self.plan.visible() {
            let content = &contents[usize::from(file)];
            let proved = self.verifier.evict(file, content.size())?;
            let phase = if proved { Phase::Evicted } else { Phase::After };
            self.evidence.eviction_proved &= proved || content.size() == 0;
            let found = self.verifier.look(file, content, phase)?;
            for mut violation in found.violations {
                violation.pass = pass;
                violation.round = self.plan.round_of(violation.offset, 0, rounds.max(1));
                violation.at_s = self.evidence.racing_ns as f64 / 1e9;
                if self.has_room(violation.verdict) {
                    self.violations.push(violation);
                } else {
                    self.evidence.further_violations += 1;
                }
            }
            self.evidence.further_violations += found.further;
        }
        Ok(())
    }

    fn report(mut self, contents: Option<Vec<Content>>) -> RaceReport {
        let fillers = std::mem::take(&mut self.fillers);
        self.evidence.overlapped = fillers.iter().map(|f| f.overlapped).min().unwrap_or(0);
        self.evidence.filled = fillers.iter().filter_map(|f| f.filled).min();
        self.evidence.fillers = fillers;
        self.evidence.further_violations += self.furthers.iter().sum::<u64>();
        if self.stage.cache_is_store() {
            self.evidence.eviction_proved = false;
            self.evidence.notes.push("the page cache is the only store: nothing to evict, and a round counts as filled when its page was touched".into());
        }
        let first = self
            .violations
            .iter()
            .map(|v| v.at_s)
            .min_by(f64::total_cmp);
        RaceReport {
            evidence: self.evidence,
            violations: self.violations,
            first_violation_s: first,
            placement: self.placement,
            contents,
        }
    }
}

/// Looks at every file once more after a remount (P4). `subjects` must be of the new mount.
pub fn remounted(
    spec: &TrialSpec,
    subjects: &dyn Subjects,
    contents: &[Content],
) -> Result<Vec<Violation>, RaceError> {
    let plan = Plan::new(&spec.scenario, spec.geometry)?;
    let mut verifier = Verifier::new(
        &plan,
        Stamps::new(spec.nonce),
        subjects.coordinator()?,
        false,
        subjects.stage()?.direct(),
    );
    let mut violations = Vec::new();
    for file in plan.visible() {
        let content = &contents[usize::from(file)];
        violations.extend(verifier.look(file, content, Phase::Remounted)?.violations);
    }
    Ok(violations)
}
