//! Rounds a second on ext4 (loop over tmpfs) beside a bare loop with the same actors, gate and system calls
//! and nothing else: no clock, no judging, no probes, no evidence. Both in turn, five times; medians.
//!
//! `cargo bench -p punchbench --bench rounds` as root. Not root: says so and measures nothing.

use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use punchbench_fs::subject::SyscallSubjects;
use punchbench_fs::{Mounted, Privilege, SetUp, Tag, Target};
use punchbench_race::board::{Board, Spin};
use punchbench_race::host::Host;
use punchbench_race::plan::Plan;
use punchbench_race::{Limits, Subjects, TrialSpec, race};
use punchbench_scenarios::Scenario;
use punchbench_sys::process::{bind, cpus, yield_now};
use punchbench_sys::shm::SharedWords;

const TIMES: usize = 5;
const RACING: Duration = Duration::from_secs(2);

fn main() {
    if Privilege::current() != Privilege::Root {
        println!("not measured: a loop device needs root");
        return;
    }
    punchbench_sys::mount::enter_private_namespace().expect("a mount namespace of our own");
    let dir = tempfile::tempdir().expect("a directory");
    let tag = Tag::of_this_process();
    let background = |_: u64, buf: &mut [u8]| buf.fill(0x55);
    let env = SetUp::new(&tag, dir.path(), &background);
    let target = Target::parse("ext4").expect("ext4 is a target");
    let mounted = target.set_up(&env).expect("ext4 on a loop device");
    println!("| scenario | engine, rounds/s | bare loop, rounds/s | ratio |");
    println!("| --- | --- | --- | --- |");
    for name in [
        "punch-while-read",
        "punch-while-fault",
        "punch-while-fadvise",
        "punch-while-read-and-fault",
    ] {
        let scenario = punchbench_scenarios::find(name).remove(0);
        let (mut engine, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            engine.push(with_engine(&mounted, &scenario));
            bare.push(bare_loop(&mounted, &scenario));
        }
        let (engine, bare) = (median(engine), median(bare));
        println!(
            "| {name} | {engine:.0} | {bare:.0} | {:.2} |",
            engine / bare
        );
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn subjects(mounted: &Mounted, scenario: &Scenario) -> SyscallSubjects {
    let dir: &Path = mounted.dir();
    SyscallSubjects::new(
        dir,
        scenario,
        mounted.units(),
        mounted.subject_options(4096, false),
    )
    .expect("the files")
}

fn with_engine(mounted: &Mounted, scenario: &Scenario) -> f64 {
    let spec = TrialSpec {
        scenario: scenario.clone(),
        geometry: mounted.units(),
        seed: 1,
        nonce: 1,
        limits: Limits {
            time: Some(RACING),
            most: None,
            rounds: None,
        },
        cpus: Vec::new(),
        prepared: false,
    };
    let report =
        race(&spec, &subjects(mounted, scenario), Host::Fork, &mut |_| {}).expect("a race");
    assert!(
        report.violations.is_empty(),
        "measured on a filesystem that loses the race"
    );
    report.evidence.rounds as f64 * 1e9 / report.evidence.racing_ns as f64
}

/// Words that the bare loop's actors share: rounds whose call has returned, nanoseconds raced.
const RETURNED: usize = 0;
const RACED_NS: usize = 8;

fn bare_loop(mounted: &Mounted, scenario: &Scenario) -> f64 {
    let plan = Plan::new(scenario, mounted.units()).expect("a plan");
    let subjects = subjects(mounted, scenario);
    let mut stage = subjects.stage().expect("a stage");
    let mut coordinator = subjects.coordinator().expect("a subject");
    let (mut rounds, mut ns) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < RACING {
        let size = plan.files[usize::from(plan.on)].size;
        stage
            .prepare(plan.on, size, &mut |_, buf| buf.fill(0xaa))
            .expect("a file");
        coordinator.evict(plan.on, 0..size).expect("an eviction");
        let board = Board::new(plan.actors.len(), plan.rounds).expect("a board");
        let words = SharedWords::new(16).expect("shared words");
        let body = |me: usize, _| {
            let cpus = cpus().expect("CPUs");
            let others = cpus.len() - 1;
            let cpu = if me == 0 {
                cpus[0]
            } else {
                cpus[1 + (me - 1) % others]
            };
            bind(cpu).expect("a CPU");
            let shared = me > 0 && plan.actors.len() - 1 > others;
            let spin = if shared { Spin::Shared } else { Spin::Own };
            let actor = &plan.actors[me];
            let mut subject = subjects.actor(actor.index).expect("a subject");
            let mut buf = vec![0; plan.longest() as usize];
            let calls: Vec<Vec<_>> = (0..plan.rounds)
                .map(|r| {
                    actor
                        .ops
                        .iter()
                        .map(|op| plan.call(op, &plan.chunk(r)))
                        .collect()
                })
                .collect();
            board.gate(spin).expect("a gate");
            let from = Instant::now();
            for (round, calls) in calls.iter().enumerate() {
                board.gate(spin).expect("a gate");
                loop {
                    for call in calls {
                        subject.perform(call, &mut buf);
                    }
                    if me == 0 {
                        words[RETURNED].store(round as u64 + 1, SeqCst);
                    }
                    if words[RETURNED].load(SeqCst) > round as u64 {
                        break;
                    }
                    if shared {
                        yield_now();
                    }
                }
            }
            if me == 0 {
                words[RACED_NS].store(from.elapsed().as_nanos() as u64, SeqCst);
            }
        };
        Host::Fork
            .crew(&board, plan.actors.len(), &body, |_| ())
            .expect("actors");
        rounds += plan.rounds;
        ns += words[RACED_NS].load(SeqCst);
    }
    rounds as f64 * 1e9 / ns as f64
}
