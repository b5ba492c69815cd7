//! The trial's own process: sets the target up, races, looks again after eviction, fsck and remount, and
//! tells the runner each step. It is process 1 of its namespaces and stays free of threads, because it forks
//! the actors.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Stdin, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use punchbench_fs::folios::{FolioCounter, Folios};
use punchbench_fs::inject::{InjectedSubjects, Injection};
use punchbench_fs::subject::SyscallSubjects;
use punchbench_fs::{
    Ballast, DeviceChoice, FsckResult, Mounted, MountedGrip, Privilege, Reuse, SetUp, SetUpError,
    Tag,
};
use punchbench_race::stamp::{BACKGROUND, Stamps};
use punchbench_race::trial::{
    Event, Limits, RaceError, RaceReport, TrialSpec, prepare, race, remounted, staged,
};
use punchbench_race::verdict::verdict;
use punchbench_race::{DirectIo, GripError, Host, Subjects};
use punchbench_reference::Policy;
use punchbench_reference::live::NotLive;
use punchbench_results::{Phase as Seen, Record, Verdict, Via, Violation, Where};
use punchbench_scenarios::{Content, Geometry, Op, Role, Step};
use punchbench_sys::namespaces::inherited_events;

use crate::reference;
use crate::target::Target;
use crate::wire::{Message, Phase, Spec};

/// At least this long between two words about progress.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Left free when a filesystem is filled up so that freed blocks are reused: room for its metadata.
const METADATA_ROOM: u64 = 16 << 20;

/// The hidden command.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("punchbench: trial: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut link = Link {
        events: File::from(inherited_events()?),
        orders: BufReader::new(io::stdin()),
        told: Instant::now(),
        rounds: 0,
        phase: Phase::Start,
    };
    let mut line = String::new();
    link.orders.read_line(&mut line)?;
    let spec: Spec = serde_json::from_str(&line)?;
    let mut record = spec.record.clone();
    match attempt(&spec, &mut record, &mut link) {
        Ok(()) => {}
        Err(Stop::SetUp(SetUpError::Skipped { reason, hint })) => {
            (record.verdict, record.reason, record.hint) = (Verdict::Skipped, reason, hint);
        }
        Err(Stop::SetUp(SetUpError::Unsupported { reason }) | Stop::Unsupported(reason)) => {
            (record.verdict, record.reason) = (Verdict::Unsupported, reason);
        }
        Err(Stop::Inconclusive(reason)) => {
            (record.verdict, record.reason) = (Verdict::Inconclusive, reason);
        }
        Err(Stop::SetUp(SetUpError::Error(reason)) | Stop::Bench(reason)) => {
            (record.verdict, record.reason) = (Verdict::Error, reason);
        }
    }
    link.tell(&Message::Done(Box::new(record)))
}

/// The way back to the runner.
struct Link {
    events: File,
    orders: BufReader<Stdin>,
    told: Instant,
    rounds: u64,
    phase: Phase,
}

impl Link {
    fn tell(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.events.write_all(&line)
    }

    fn phase(&mut self, phase: Phase) -> io::Result<()> {
        if phase == self.phase {
            return Ok(());
        }
        self.phase = phase;
        if matches!(phase, Phase::Fsck | Phase::Remount | Phase::CleanUp) {
            reap_orphans();
        }
        self.tell(&Message::Phase(phase))
    }

    /// Waits until no other trial races.
    fn turn(&mut self, spec: &Spec) -> io::Result<()> {
        if spec.takes_turns {
            self.phase(Phase::Turn)?;
            self.orders.read_line(&mut String::new())?;
        }
        Ok(())
    }

    /// Only what has changed: the watchdog takes every word for a sign of life.
    fn event(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Preparing { .. } => self.phase(Phase::Prepare),
            Event::Verifying { .. } => self.phase(Phase::Evict),
            Event::Racing { rounds, .. } => {
                self.phase(Phase::Race)?;
                if rounds == self.rounds || self.told.elapsed() < TELL_EVERY {
                    return Ok(());
                }
                (self.rounds, self.told) = (rounds, Instant::now());
                self.tell(&Message::Progress { rounds })
            }
        }
    }
}

/// Children of children that ended: this is process 1, so they are ours. Not to be called while actors are
/// left, which are the engine's to wait for.
fn reap_orphans() {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
        waitpid(None, Some(WaitPidFlag::WNOHANG))
    {}
}

/// Why a trial ends early.
enum Stop {
    SetUp(SetUpError),
    Unsupported(String),
    Inconclusive(String),
    Bench(String),
}

impl From<SetUpError> for Stop {
    fn from(error: SetUpError) -> Stop {
        Stop::SetUp(error)
    }
}

impl From<NotLive> for Stop {
    fn from(error: NotLive) -> Stop {
        Stop::Unsupported(error.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Bench(error.to_string())
    }
}

fn bench(error: impl std::fmt::Display) -> Stop {
    Stop::Bench(error.to_string())
}

fn attempt(spec: &Spec, record: &mut Record, link: &mut Link) -> Result<(), Stop> {
    let injection = spec
        .inject
        .as_deref()
        .map(Injection::parse)
        .transpose()
        .map_err(bench)?;
    let target = match Target::parse(&spec.target).map_err(bench)? {
        Target::Mounted(target) => target,
        Target::Reference(_, policy) => return on_reference(spec, &policy, record, link),
    };
    let tag =
        Tag::from_environment().ok_or_else(|| Stop::Bench("started without a tag".to_owned()))?;
    link.phase(Phase::Mkfs)?;
    hide_work_dir(spec, &tag)?;
    let stamps = Stamps::new(spec.nonce);
    let background = |at: u64, buf: &mut [u8]| stamps.fill(BACKGROUND, 0, at, buf);
    let device = spec.device.clone().map(|path| DeviceChoice {
        path,
        insist: spec.insist,
    });
    let mut env = SetUp::new(&tag, &spec.work_dir, &background);
    env.image_dir = spec.image_dir.as_deref();
    env.device = device.as_ref();
    env.in_dir = spec.in_dir.as_deref();
    env.hold = spec.scenario.is_staged().then_some(spec.holder);
    target.check(&env)?;
    ruled_out(spec, target, record)?;
    let mut mounted = target.set_up(&env)?;

    link.phase(Phase::Mount)?;
    record.driver = mounted.driver().to_owned();
    record.setup = mounted.facts().to_vec();
    can_do(spec, &mounted, link)?;
    mounted.provide(&spec.scenario, &env)?;
    record.setup = mounted.facts().to_vec();
    for name in mounted.device_names() {
        link.tell(&Message::Device(name))?;
    }
    let mut trial = trial_spec(spec, mounted.units());
    let direct = prepared(spec, &mut trial, &mut mounted)?;
    if spec.scenario.is_staged() {
        mounted.be_lazy()?;
    }
    // The files first: a full filesystem may have no room for an inode.
    let honest = subjects(spec, &mounted, direct)?;
    let ballast = fill_up(spec, &mounted)?;
    let subjects: Box<dyn Subjects> = match injection {
        Some(injection) => Box::new(
            InjectedSubjects::new(Box::new(honest), injection, &spec.scenario, spec.nonce)
                .map_err(|error| Stop::Unsupported(error.to_string()))?,
        ),
        None => Box::new(honest),
    };
    link.turn(spec)?;
    let counter = folio_counter(spec, &tag, &mounted, record);
    let mut on_event = |event| {
        if let Some(counter) = &counter {
            counter.count(matches!(event, Event::Racing { .. }));
        }
        // A runner that is gone takes this process with it.
        let _ = link.event(event);
    };
    let mut report = if spec.scenario.is_staged() {
        let mut grip = MountedGrip::new(&mounted, &spec.scenario, &tag, &spec.work_dir);
        staged(&trial, &*subjects, Host::Fork, &mut grip, &mut on_event)
    } else {
        race(&trial, &*subjects, Host::Fork, &mut on_event)
    }
    .map_err(|error| match error {
        RaceError::Grip(GripError::Unsupported(why)) => Stop::Unsupported(why),
        error @ RaceError::Undropped => Stop::Inconclusive(error.to_string()),
        error => bench(error),
    })?;
    drop(subjects);
    if let Some(counter) = counter {
        let Folios { large, readahead } = counter.counted();
        report.evidence.large_folios = large;
        report.evidence.async_readahead = readahead;
    }

    link.phase(Phase::Evict)?;
    drop(ballast);
    write_back(&mounted)?;
    conclude(spec, record, &report, &mounted);
    if mounted.can_remount() {
        look_again(spec, record, &report, &trial, &mut mounted, link)?;
    }
    link.phase(Phase::CleanUp)?;
    drop(mounted);
    Ok(())
}

fn trial_spec(spec: &Spec, geometry: Geometry) -> TrialSpec {
    TrialSpec {
        scenario: spec.scenario.clone(),
        geometry,
        seed: spec.data_seed,
        nonce: spec.nonce,
        limits: Limits {
            time: spec
                .seconds
                .map(|(least, _)| Duration::from_secs_f64(least)),
            most: spec.seconds.map(|(_, most)| Duration::from_secs_f64(most)),
            rounds: spec.rounds,
        },
        cpus: Vec::new(),
        prepared: false,
    }
}

/// The same on the reference: nothing to mount, nothing to mount again.
fn on_reference(
    spec: &Spec,
    policy: &Policy,
    record: &mut Record,
    link: &mut Link,
) -> Result<(), Stop> {
    let live = reference::set_up(spec, policy)?;
    link.turn(spec)?;
    let mut on_event = |event| {
        // A runner that is gone takes this process with it.
        let _ = link.event(event);
    };
    let trial = trial_spec(spec, live.geometry());
    let report = race(&trial, &live, Host::Thread, &mut on_event).map_err(bench)?;
    reference::conclude(&live, spec, report, record);
    Ok(())
}

/// Mounts anew, with the files made, where a staged scenario wants to begin with that. Whether direct reads are
/// direct, if that is known then: to find out would bring metadata in.
fn prepared(
    spec: &Spec,
    trial: &mut TrialSpec,
    mounted: &mut Mounted,
) -> Result<Option<DirectIo>, Stop> {
    let Some(Step::Remount(_)) = spec.scenario.stage.first() else {
        return Ok(None);
    };
    if !mounted.can_remount() {
        let why = format!("{} cannot be mounted anew with its files kept", spec.target);
        return Err(Stop::Unsupported(why));
    }
    let direct = prepare(trial, &subjects(spec, mounted, None)?).map_err(bench)?;
    mounted.remount()?;
    trial.prepared = true;
    Ok(Some(direct))
}

/// Covers the run's work directory, so that what is mounted and made there goes with this namespace.
fn hide_work_dir(spec: &Spec, tag: &Tag) -> Result<(), Stop> {
    if Privilege::current() == Privilege::User {
        return Ok(());
    }
    // Device nodes live there, so it is not mounted nodev.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let data = Some("mode=700,size=1m");
    nix::mount::mount(
        Some(tag.to_string().as_str()),
        &spec.work_dir,
        Some("tmpfs"),
        flags,
        data,
    )
    .map_err(|e| {
        Stop::Bench(format!(
            "cannot mount a tmpfs on {}: {e}",
            spec.work_dir.display()
        ))
    })
}

/// Says so before anything is mounted where the scenario is for other targets, drivers or kernels. Which driver serves
/// ext2, ext3 and a directory is seen on the mount.
fn ruled_out(spec: &Spec, target: punchbench_fs::Target, record: &mut Record) -> Result<(), Stop> {
    let driver = target.adapter.name();
    let known = !matches!(driver, "ext2" | "ext3" | "dir");
    match &spec.scenario.only {
        Some(only) if known && !only.holds(&spec.target, driver, &spec.record.kernel) => {
            record.driver = driver.to_owned();
            Err(Stop::Unsupported(only.why.clone()))
        }
        _ => Ok(()),
    }
}

/// Whether the target can do what the scenario needs.
fn can_do(spec: &Spec, mounted: &Mounted, link: &mut Link) -> Result<(), Stop> {
    for capability in &spec.scenario.needs {
        if let Err(why) = mounted.capability(*capability) {
            link.tell(&Message::Cannot(*capability))?;
            let word = serde_json::to_string(capability).map_err(bench)?;
            return Err(Stop::Unsupported(format!(
                "{} cannot {}: {why}",
                spec.target,
                word.trim_matches('"')
            )));
        }
    }
    if let Some(only) = &spec.scenario.only
        && !only.holds(&spec.target, mounted.driver(), &spec.record.kernel)
    {
        return Err(Stop::Unsupported(only.why.clone()));
    }
    mounted
        .can_fill(&spec.scenario)
        .map_err(Stop::Unsupported)?;
    match mounted.reuse() {
        Reuse::Never(why) if spec.scenario.floor().reused_blocks > 0 => {
            Err(Stop::Unsupported(format!(
                "freed blocks cannot be seen reused on {}: {why}",
                spec.target
            )))
        }
        Reuse::Never(_) | Reuse::Plan(_) => Ok(()),
    }
}

/// Whether the filesystem is to be full while the race goes on.
fn is_filled_up(spec: &Spec) -> bool {
    let mut ops = spec.scenario.actors.iter().flat_map(|(_, a)| &a.ops);
    ops.any(|op| matches!(op, Op::Write(a) if a.fills_up))
}

fn reuses(spec: &Spec) -> bool {
    spec.scenario
        .actors
        .iter()
        .any(|(_, actor)| actor.role == Role::Reuser)
}

/// Where an allocator would rather take other blocks than those just freed, there must be no others.
fn fill_up(spec: &Spec, mounted: &Mounted) -> Result<Option<Ballast>, Stop> {
    match mounted.reuse() {
        Reuse::Plan(_) if reuses(spec) && !mounted.is_foreign() => {}
        Reuse::Plan(_) | Reuse::Never(_) => return Ok(None),
    }
    let files = spec
        .scenario
        .files
        .iter()
        .filter(|(_, file)| file.content != Content::Empty);
    let prepared: u64 = files
        .map(|(_, file)| file.size.bytes(mounted.units()))
        .sum();
    Ok(Some(Ballast::fill(mounted, prepared + METADATA_ROOM)?))
}

/// Counts large folios and asynchronous readahead where the scenario reads with readahead.
fn folio_counter(
    spec: &Spec,
    tag: &Tag,
    mounted: &Mounted,
    record: &mut Record,
) -> Option<FolioCounter> {
    let mut ops = spec.scenario.actors.iter().flat_map(|(_, a)| &a.ops);
    if !ops.any(|op| matches!(op, Op::Read(a) if a.readahead)) {
        return None;
    }
    let counter = if Privilege::current() == Privilege::User {
        Err("tracing needs root".to_owned())
    } else {
        FolioCounter::new(tag, &spec.work_dir.join("tracing"), mounted.dir())
            .map_err(|e| e.to_string())
    };
    counter
        .map_err(|why| {
            record
                .setup
                .push(format!("large folios were not counted: {why}"))
        })
        .ok()
}

fn subjects(
    spec: &Spec,
    mounted: &Mounted,
    direct: Option<DirectIo>,
) -> Result<SyscallSubjects, Stop> {
    let chunk = spec.scenario.chunk(mounted.units());
    let mut options = mounted.subject_options(chunk, reuses(spec));
    options.direct = direct;
    if is_filled_up(spec) {
        if mounted.is_foreign() || mounted.cache_is_store() {
            let why = "only a filesystem of our own on a device can be filled up";
            return Err(Stop::Unsupported(why.to_owned()));
        }
        options.may_fill = true;
    }
    SyscallSubjects::new(mounted.dir(), &spec.scenario, mounted.units(), options).map_err(bench)
}

/// Everything to the medium before the unmount, where a slow disk does not look like a hanging umount.
fn write_back(mounted: &Mounted) -> Result<(), Stop> {
    let dir = File::open(mounted.dir())?;
    match nix::unistd::syncfs(&dir) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::EDQUOT) => Err(Stop::Bench("the filesystem is full".to_owned())),
        Err(error) => Err(Stop::Bench(format!("syncfs failed: {error}"))),
    }
}

fn conclude(spec: &Spec, record: &mut Record, report: &RaceReport, mounted: &Mounted) {
    record.evidence = report.evidence.clone();
    record.violations = report.violations.clone();
    record.first_violation_s = report.first_violation_s;
    record.placement = report.placement.clone();
    judge(spec, record, mounted);
}

fn judge(spec: &Spec, record: &mut Record, mounted: &Mounted) {
    let rules = &spec.scenario.evidence;
    let (word, why) = verdict(
        &record.evidence,
        &record.violations,
        rules,
        mounted.cache_is_store(),
    );
    (record.verdict, record.reason) = (word, why);
    record.at = (word == Verdict::StaleMapping).then_some(Where::Unknown);
}

/// Unmount, fsck, mount again, and look at every file once more.
fn look_again(
    spec: &Spec,
    record: &mut Record,
    report: &RaceReport,
    trial: &TrialSpec,
    mounted: &mut Mounted,
    link: &mut Link,
) -> Result<(), Stop> {
    link.phase(Phase::Fsck)?;
    match mounted.fsck()? {
        FsckResult::Clean => record.setup.push("fsck: clean".to_owned()),
        FsckResult::NotRun(why) => record.setup.push(format!("fsck did not run: {why}")),
        FsckResult::Damaged(what) => record.violations.push(damage(&what)),
    }
    link.phase(Phase::Remount)?;
    mounted.remount()?;
    if let Some(contents) = &report.contents {
        let again = subjects(spec, mounted, None)?;
        let violations = remounted(trial, &again, contents).map_err(bench)?;
        let at = place(record, &violations);
        record.violations.extend(violations);
        judge(spec, record, mounted);
        if record.verdict == Verdict::StaleMapping {
            record.at = Some(at);
        }
    } else {
        judge(spec, record, mounted);
    }
    Ok(())
}

/// Where a wrong mapping lives: told by whether it survived the remount. Only the last pass's files did.
fn place(record: &Record, remounted: &[Violation]) -> Where {
    let last = record.evidence.passes.saturating_sub(1);
    let wrong = record
        .violations
        .iter()
        .filter(|v| v.verdict == Verdict::StaleMapping);
    let mut wrong = wrong.filter(|v| v.pass == last).peekable();
    if wrong.peek().is_none() {
        return Where::Unknown;
    }
    let survived = |v: &Violation| remounted.iter().any(|r| r.file == v.file);
    if wrong.any(survived) {
        Where::Disk
    } else {
        Where::Memory
    }
}

/// What fsck found, as an observation.
fn damage(what: &str) -> Violation {
    Violation {
        verdict: Verdict::Damaged,
        phase: Seen::Remounted,
        via: Via::Fsck,
        actor: "fsck".to_owned(),
        file: "the filesystem".to_owned(),
        offset: 0,
        wrong_bytes: 0,
        pass: 0,
        round: 0,
        got: what.to_owned(),
        expected: "a clean filesystem".to_owned(),
        bytes: String::new(),
        clock: [0; 4],
        at_s: 0.0,
        confirmation: None,
    }
}
