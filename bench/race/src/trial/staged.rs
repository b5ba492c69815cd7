//! The coordinator on stage: it takes one step after the other, and notes who was seen doing what.
//!
//! A step that does not come about (nobody was parked, say) ends the stage: everything is released and
//! everybody started, so that the attempt ends as any other and is judged by what it left, but proves nothing.

use punchbench_results::{Did, Meanwhile, Moment, Parked, Staged};
use punchbench_scenarios::{Does, During, Held, OnRange, Op, Step};

use super::*;
use crate::board::Cue;
use crate::grip::{Asleep, Grip, GripError, Hold, HoldId};

/// Holds end by themselves after this: well below the kernel's hung-task limit of 120 s.
const HOLD_AT_MOST: Duration = Duration::from_secs(40);
/// How long somebody may take to get where a step wants to see it. Emulated CPUs are slow.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at a process: the kernel tells nobody that a task has begun to wait for a lock.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// Between the first and the last of the samples that show somebody blocked.
const APART: Duration = Duration::from_millis(100);
/// After so long in one place that takes no lock, somebody waits for something else.
const ELSEWHERE: Duration = Duration::from_millis(600);

/// Somebody seen asleep in one place.
struct Seen {
    asleep: Asleep,
    since: Instant,
    /// When the actor was first seen there, on the board's clock.
    ns: u64,
}

/// Something held.
struct OnHold {
    name: String,
    id: HoldId,
    /// Whoever holds it tells what waits.
    tells: bool,
}

/// What is going on on stage.
pub(super) struct OnStage {
    began: u64,
    holds: Vec<OnHold>,
    started: Vec<usize>,
    /// Per actor.
    seen: Vec<Option<Seen>>,
    record: Staged,
}

impl Lead<'_> {
    /// Takes the steps, and waits until every actor has returned.
    pub(super) fn stage(&mut self, pass: u64, contents: &mut [Content]) -> Result<(), RaceError> {
        let mut on = OnStage {
            began: self.board.ns(),
            holds: Vec::new(),
            started: Vec::new(),
            seen: self.plan.actors.iter().map(|_| None).collect(),
            record: Staged::default(),
        };
        let taken = self.take_steps(pass, contents, &mut on);
        // Whatever came of it, nobody is left waiting.
        let holds = std::mem::take(&mut on.holds);
        let released: Vec<_> = holds
            .into_iter()
            .map(|hold| self.grip()?.release(hold.id).map_err(RaceError::from))
            .collect();
        for actor in 0..self.plan.actors.len() {
            if !on.started.contains(&actor) {
                self.board.cue(actor, Cue::Start);
            }
        }
        taken?;
        released.into_iter().collect::<Result<Vec<()>, _>>()?;
        for actor in 0..self.plan.actors.len() {
            self.await_return(actor)?;
        }
        self.note_returns(&mut on);
        self.conclude(pass, &mut on);
        self.evidence.staged = Some(on.record);
        for actor in 0..self.plan.actors.len() {
            self.board.cue(actor, Cue::Judge);
        }
        Ok(())
    }

    fn grip(&mut self) -> Result<&mut (dyn Grip + '_), RaceError> {
        match &mut self.grip {
            Some(grip) => Ok(&mut **grip),
            None => Err(RaceError::NoGrip),
        }
    }

    fn take_steps(
        &mut self,
        pass: u64,
        contents: &mut [Content],
        on: &mut OnStage,
    ) -> Result<(), RaceError> {
        let before = self.blocks()?;
        for step in &self.plan.stage {
            let lacking = match step {
                Step::Warm(range) => self.warm(range)?,
                Step::Cool(range) => self.cool(range)?,
                Step::CoolMetadata(_) => {
                    self.grip()?.cool_metadata()?;
                    self.note(on, "metadata that is not in use is evicted".to_owned());
                    None
                }
                // The caller has done it, before there were actors.
                Step::Remount(_) => None,
                Step::Hold(args) => {
                    let what = self.hold(&args.what);
                    let id = self.grip()?.hold(&what, HOLD_AT_MOST)?;
                    on.holds.push(OnHold {
                        name: args.name.clone(),
                        id,
                        tells: !matches!(what, Hold::IoOf { .. }),
                    });
                    self.note(on, format!("`{}` is held", args.name));
                    None
                }
                Step::Start(args) => {
                    for name in &args.actors {
                        let actor = self.actor(name);
                        on.started.push(actor);
                        self.board.cue(actor, Cue::Start);
                    }
                    None
                }
                Step::Parked(args) => {
                    let actor = self.actor(&args.actor);
                    self.parked(on, actor, &args.within)?
                }
                Step::Gone(range) => {
                    self.gone(on, range)?;
                    None
                }
                Step::Observe(args) => {
                    let actors: Vec<usize> = args.actors.iter().map(|a| self.actor(a)).collect();
                    self.observe(on, &actors)?;
                    None
                }
                Step::Release(args) => {
                    self.still(on)?;
                    if let Some(at) = on.holds.iter().position(|h| h.name == args.hold) {
                        let hold = on.holds.remove(at);
                        self.note(on, format!("`{}` is released", hold.name));
                        self.grip()?.release(hold.id)?;
                    }
                    None
                }
                Step::Returned(args) => {
                    let actor = self.actor(&args.actor);
                    self.await_return(actor)?;
                    None
                }
                Step::Reuse(_) => {
                    self.reuse(pass, before.clone(), contents)?;
                    self.note(on, "the freed blocks are given away".to_owned());
                    None
                }
            };
            if let Some(lacking) = lacking {
                on.record.lacking.get_or_insert(lacking);
                return Ok(());
            }
        }
        Ok(())
    }

    fn actor(&self, name: &str) -> usize {
        let found = self.plan.actors.iter().position(|a| a.name == name);
        found.expect("the loader checked the names")
    }

    fn file(&self, name: &str) -> (FileId, u64) {
        let file = self.plan.names.iter().position(|n| n == name);
        let file = file.expect("the loader checked the names");
        (file as FileId, self.plan.files[file].filled)
    }

    fn range(&self, on: &OnRange) -> (FileId, std::ops::Range<u64>) {
        let (file, size) = self.file(&on.file);
        let chunk = self.plan.chunk(0);
        let range = on.range.resolve(&chunk, size, self.spec.geometry);
        (file, range.expect("the loader checked the ranges"))
    }

    fn hold(&self, what: &Held) -> Hold {
        match what {
            Held::ReadsOf(on) => {
                let (file, range) = self.range(on);
                Hold::ReadsOf { file, range }
            }
            Held::WritesOf(on) => {
                let (file, range) = self.range(on);
                Hold::WritesOf { file, range }
            }
            Held::MetadataOf(on) => {
                let (file, range) = self.range(on);
                Hold::MetadataOf { file, range }
            }
            Held::ReadsExcept(on) => {
                let (file, size) = self.file(&on.file);
                Hold::ReadsExcept {
                    file,
                    range: 0..size,
                }
            }
            Held::IoOf(of) => Hold::IoOf {
                pid: self.pid(self.actor(&of.actor)),
            },
            Held::Journal(_) | Held::Checkpoint(_) => Hold::Commits,
        }
    }

    fn pid(&self, actor: usize) -> i32 {
        self.crew.pids().get(actor).copied().unwrap_or(-1)
    }

    fn op(&self, actor: usize) -> &Op {
        let ops = &self.plan.actors[actor].ops;
        let about = ops.iter().find(|op| op.invalidates() || op.brings_in());
        about.unwrap_or(&ops[0])
    }

    fn ms(on: &OnStage, ns: u64) -> f64 {
        ns.saturating_sub(on.began) as f64 / 1e6
    }

    /// Notes what the bench does.
    fn note(&self, on: &mut OnStage, what: String) {
        let ms = Self::ms(on, self.board.ns());
        let actor = String::new();
        on.record.moments.push(Moment { ms, actor, what });
    }

    fn saw(&self, on: &mut OnStage, actor: usize, ns: u64, what: String) {
        let actor = self.plan.actors[actor].name.clone();
        let ms = Self::ms(on, ns);
        on.record.moments.push(Moment { ms, actor, what });
    }

    fn warm(&mut self, on: &OnRange) -> Result<Option<String>, RaceError> {
        let (file, range) = self.range(on);
        let resident = self.verifier.warm(file, range)?;
        Ok((resident == Some(false)).then(|| {
            format!(
                "`{}` of {} would not stay in the page cache",
                on.range, on.file
            )
        }))
    }

    fn cool(&mut self, on: &OnRange) -> Result<Option<String>, RaceError> {
        let (file, range) = self.range(on);
        let gone = self.verifier.evict_range(file, range)?;
        Ok((!gone).then(|| format!("`{}` of {} could not be evicted", on.range, on.file)))
    }

    fn gone(&mut self, stage: &mut OnStage, on: &OnRange) -> Result<(), RaceError> {
        let (file, range) = self.range(on);
        let resident = self.verifier.any_resident(file, range)?;
        let what = match resident {
            Some(false) => format!("`{}` of {} is gone from the page cache", on.range, on.file),
            Some(true) => format!("`{}` of {} is still in the page cache", on.range, on.file),
            None => "whether pages are gone cannot be told here".to_owned(),
        };
        self.note(stage, what);
        let gone = resident == Some(false);
        stage.record.gone = Some(stage.record.gone.unwrap_or(true) && gone);
        Ok(())
    }

    /// Waits until an actor is seen where what is held keeps it; else says what was seen instead.
    fn parked(
        &mut self,
        on: &mut OnStage,
        actor: usize,
        within: &[String],
    ) -> Result<Option<String>, RaceError> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(errno) = self.board.await_return(actor, LOOK_EVERY) {
                let name = &self.plan.actors[actor].name;
                let what = match errno {
                    0 => "returned".to_owned(),
                    errno => format!("failed ({})", std::io::Error::from_raw_os_error(errno)),
                };
                return Ok(Some(format!("{name} {what} and was never parked")));
            }
            // On its way it may sleep for other reasons: what is held must be waiting, too, where that can
            // be told.
            let io = self.held_io(on)?;
            let held = io.is_some() || on.holds.iter().all(|hold| !hold.tells);
            if held && let Some((asleep, within)) = self.place(actor, within)? {
                let ns = self.board.ns();
                let place = within.as_ref().unwrap_or(&asleep.top);
                let what = match &io {
                    Some(io) => format!("parked in {place}, by {io}"),
                    None => format!("parked in {place}"),
                };
                self.saw(on, actor, ns, what);
                on.record.parked.push(Parked {
                    actor: self.plan.actors[actor].name.clone(),
                    top: asleep.top.clone(),
                    within: within.clone(),
                    io,
                    stack: asleep.stack,
                });
                return Ok(None);
            }
            if Instant::now() >= until {
                let name = self.plan.actors[actor].name.clone();
                let (pid, op) = (self.pid(actor), self.op(actor).clone());
                let instead = match self.grip()?.asleep(pid, &op)? {
                    Some(asleep) => format!("it sleeps in {}", asleep.stack.join(" < ")),
                    None => "it does not sleep in the kernel".to_owned(),
                };
                return Ok(Some(format!("{name} was never seen parked: {instead}")));
            }
            self.alive()?;
        }
    }

    /// The first request that any of the holds has.
    fn held_io(&mut self, on: &OnStage) -> Result<Option<String>, RaceError> {
        for hold in &on.holds {
            if let Some(io) = self.grip()?.await_held(hold.id, Duration::ZERO)? {
                return Ok(Some(io));
            }
        }
        Ok(None)
    }

    /// Where an actor sleeps, if that is within one of these functions.
    fn place(
        &mut self,
        actor: usize,
        within: &[String],
    ) -> Result<Option<(Asleep, Option<String>)>, RaceError> {
        let (pid, op) = (self.pid(actor), self.op(actor).clone());
        let Some(asleep) = self.grip()?.asleep(pid, &op)? else {
            return Ok(None);
        };
        if within.is_empty() {
            return Ok(Some((asleep, None)));
        }
        let found = within.iter().find(|name| asleep.stack.contains(name));
        Ok(found.cloned().map(|name| (asleep, Some(name))))
    }

    /// Waits until each actor has returned, or was seen in the same place for long enough.
    fn observe(&mut self, on: &mut OnStage, actors: &[usize]) -> Result<(), RaceError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut open = false;
            for &actor in actors {
                if self.board.await_return(actor, Duration::ZERO).is_some() {
                    on.seen[actor] = None;
                    continue;
                }
                self.look(on, actor)?;
                open |= match &on.seen[actor] {
                    Some(seen) if seen.asleep.by_lock => seen.since.elapsed() < APART,
                    Some(seen) => seen.since.elapsed() < ELSEWHERE,
                    None => true,
                };
            }
            if !open || Instant::now() >= until {
                break;
            }
            self.alive()?;
            std::thread::sleep(LOOK_EVERY);
        }
        for &actor in actors {
            let did = self.did(on, actor);
            let ns = self.board.ns();
            let returned = self.board.times(actor).1;
            if let (Did::Blocked | Did::Waited, Some(seen)) = (did, &on.seen[actor]) {
                let what = format!("{} in {}", did.word(), seen.asleep.top);
                let ns = seen.ns;
                self.saw(on, actor, ns, what);
            }
            let (begin, end) = self.board.times(actor);
            let top = on.seen[actor].as_ref().map(|s| s.asleep.top.clone());
            let end = if end == 0 { ns } else { end };
            on.record.meanwhile.push(Meanwhile {
                actor: self.plan.actors[actor].name.clone(),
                op: self.op(actor).word().to_owned(),
                expected: self.expected(actor)?.word().to_owned(),
                did,
                top: top.filter(|_| returned == 0),
                ms: end.saturating_sub(begin) as f64 / 1e6,
                blocked_ms: None,
            });
        }
        Ok(())
    }

    fn look(&mut self, on: &mut OnStage, actor: usize) -> Result<(), RaceError> {
        let (pid, op) = (self.pid(actor), self.op(actor).clone());
        let now = self.grip()?.asleep(pid, &op)?;
        let seen = &mut on.seen[actor];
        match (now, &seen) {
            (Some(now), Some(before)) if before.asleep.top == now.top => {}
            (Some(asleep), _) => {
                *seen = Some(Seen {
                    asleep,
                    since: Instant::now(),
                    ns: self.board.ns(),
                });
            }
            (None, _) => *seen = None,
        }
        Ok(())
    }

    fn did(&self, on: &OnStage, actor: usize) -> Did {
        const EAGAIN: i32 = nix::errno::Errno::EAGAIN as i32;
        match (
            self.board.await_return(actor, Duration::ZERO),
            &on.seen[actor],
        ) {
            (Some(EAGAIN), _) => Did::Again,
            (Some(_), _) => Did::Done,
            (None, Some(seen)) if seen.asleep.by_lock && seen.since.elapsed() >= APART => {
                Did::Blocked
            }
            (None, Some(_)) => Did::Waited,
            (None, None) => Did::Unseen,
        }
    }

    fn expected(&mut self, actor: usize) -> Result<Does, RaceError> {
        let name = self.plan.actors[actor].name.clone();
        let rules = self.spec.scenario.expect.during.clone();
        let grip = self.grip()?;
        Ok(During::of(&rules, &name, grip.driver(), grip.kernel()))
    }

    /// Just before a release: whoever was blocked must be so still, or was not blocked by what is held.
    fn still(&mut self, on: &mut OnStage) -> Result<(), RaceError> {
        for at in 0..on.record.meanwhile.len() {
            let was = on.record.meanwhile[at].clone();
            if was.did != Did::Blocked || was.blocked_ms.is_some() {
                continue;
            }
            let actor = self.actor(&was.actor);
            self.look(on, actor)?;
            let did = self.did(on, actor);
            let since = on.seen[actor]
                .as_ref()
                .map_or(Duration::ZERO, |s| s.since.elapsed());
            let entry = &mut on.record.meanwhile[at];
            entry.did = did;
            if did == Did::Blocked {
                entry.blocked_ms = Some(since.as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }

    /// Waits for an actor for as long as the watchdog lets it: an operation that never returns is its to find.
    fn await_return(&mut self, actor: usize) -> Result<(), RaceError> {
        while self.board.await_return(actor, TICK).is_none() {
            self.alive()?;
        }
        Ok(())
    }

    /// Fails when an actor did.
    fn alive(&mut self) -> Result<(), RaceError> {
        match self.crew.dead()? {
            Some((actor, exit)) => Err(RaceError::Died {
                actor: self.plan.actors[actor].name.clone(),
                exit,
            }),
            None => Ok(()),
        }
    }

    /// Notes when everybody called and returned.
    fn note_returns(&self, on: &mut OnStage) {
        for actor in 0..self.plan.actors.len() {
            let (begin, end) = self.board.times(actor);
            let words: Vec<&str> = self.plan.actors[actor].ops.iter().map(Op::word).collect();
            self.saw(on, actor, begin, words.join(", "));
            let what = match self.board.await_return(actor, Duration::ZERO) {
                Some(0) | None => "returns".to_owned(),
                Some(errno) => format!("returns: {}", std::io::Error::from_raw_os_error(errno)),
            };
            self.saw(on, actor, end, what);
        }
        on.record.moments.sort_by(|a, b| a.ms.total_cmp(&b.ms));
    }

    /// What the attempt lacks to prove anything, and who waited where it must not.
    fn conclude(&mut self, pass: u64, on: &mut OnStage) {
        let mut lacking = None;
        let (by_lock, waits) = (Does::Blocked.word(), Does::Waits.word());
        let must_wait = |m: &Meanwhile| m.expected == by_lock || m.expected == waits;
        if on.record.gone == Some(false) && on.record.meanwhile.iter().any(must_wait) {
            lacking = Some(
                "the pages were still in the page cache: it was not parked inside its critical section"
                    .to_owned(),
            );
        }
        for m in on.record.meanwhile.clone() {
            let top = m.top.clone().unwrap_or_else(|| "user space".to_owned());
            let may_not_wait = self.may_not_wait(&m.actor);
            match m.did {
                Did::Blocked if may_not_wait => {
                    let actor = self.actor(&m.actor);
                    self.violations.push(self.blocked(pass, actor, &top));
                }
                Did::Blocked => self
                    .evidence
                    .blocked
                    .push(format!("{} asleep in {top}", m.actor)),
                Did::Done | Did::Again if must_wait(&m) => {
                    lacking.get_or_insert(format!(
                        "{} returned while the operation was parked; with nothing wrong left behind, that proves neither",
                        m.actor
                    ));
                }
                Did::Waited if m.expected == waits => {}
                Did::Waited | Did::Unseen if must_wait(&m) => {
                    lacking.get_or_insert(format!(
                        "{} was not seen blocked by a lock, but in {top}",
                        m.actor
                    ));
                }
                Did::Done | Did::Again | Did::Waited | Did::Unseen => {}
            }
            let other = m.expected == Does::Done.word() && m.did == Did::Blocked && !may_not_wait
                || m.expected == Does::Again.word() && m.did == Did::Done;
            if other {
                let note = format!(
                    "{} was expected to be {}, and was {}",
                    m.actor,
                    m.expected,
                    m.did.word()
                );
                self.evidence.notes.push(note);
            }
        }
        if let Some(lacking) = lacking {
            on.record.lacking.get_or_insert(lacking);
        }
    }

    fn may_not_wait(&self, name: &str) -> bool {
        let ops = &self.plan.actors[self.actor(name)].ops;
        ops.iter().any(Op::may_not_wait)
    }
}

impl From<GripError> for RaceError {
    fn from(error: GripError) -> RaceError {
        RaceError::Grip(error)
    }
}
