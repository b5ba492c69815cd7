//! Calls that take more than a temporary directory, on filesystems mounted for the test. What this machine
//! cannot mount is left out, with the reason printed.

use nix::libc;
use punchbench_scenarios::{
    Capability, CopyArgs, ExchangeArgs, OnFile, ReadArgs, SpliceArgs, UringReadArgs, WriteArgs,
};

use super::*;
use crate::adapter::Target;
use crate::mounted::Mounted;
use crate::set_up::{SetUp, SetUpError};
use crate::tag::Tag;
use crate::user::Privilege;

mod changes;
mod fillers;

/// The files of a scenario in which one actor does what is tested.
struct Raced {
    actor: Box<dyn Subject>,
    coordinator: Box<dyn Subject>,
    stage: Box<dyn Stage>,
}

impl Raced {
    fn perform(&mut self, call: Call, buf: &mut [u8]) -> Outcome {
        self.actor.perform(&call, buf)
    }

    /// What a file holds, through the page cache.
    fn read(&mut self, file: FileId, at: u64, len: u64) -> Vec<u8> {
        let mut buf = vec![0xaa; len as usize];
        let seen = self.coordinator.look(Look::Read, file, at, &mut buf);
        buf.truncate(seen.bytes as usize);
        buf
    }

    /// How many of a range's pages are in the page cache.
    fn resident(&mut self, file: FileId, at: u64, len: u64) -> usize {
        let mut pages = vec![false; (len / PAGE) as usize];
        self.coordinator
            .resident(file, at..at + len, &mut pages)
            .unwrap();
        pages.iter().filter(|page| **page).count()
    }

    fn evict(&mut self, file: FileId) {
        assert!(self.coordinator.evict(file, 0..SIZE).unwrap());
    }
}

/// Mounts a target where only this thread sees it. The directory is where its image may lie.
fn mount(target: &str) -> Option<(Mounted, TempDir)> {
    let target = Target::parse(target).unwrap();
    if !Privilege::current().may_use_devices() {
        println!("{target} is left out: not root");
        return None;
    }
    punchbench_sys::mount::enter_private_namespace().unwrap();
    let work = tempfile::tempdir().unwrap();
    let tag = Tag::of_this_process();
    match target.set_up(&SetUp::new(&tag, work.path(), &|_, _| {})) {
        Ok(mounted) => Some((mounted, work)),
        Err(SetUpError::Skipped { reason, .. }) => {
            println!("{target} is left out: {reason}");
            None
        }
        Err(error) => panic!("{target}: {error}"),
    }
}

/// Mounts a target and hands over its files; `OTHER` is filled with the complement of what `VICTIM` holds.
fn on_mount(target: &str, ops: &[Op], test: impl FnOnce(&Mounted, &mut Raced)) {
    let Some((mounted, _work)) = mount(target) else {
        return;
    };
    let dir = TempDir::new_in(mounted.dir()).unwrap();
    test(&mounted, &mut raced(dir.path(), ops));
}

fn raced(dir: &Path, ops: &[Op]) -> Raced {
    let mut scenario = scenario();
    scenario.actors.0[MAPPER].1.ops.extend_from_slice(ops);
    let options = SubjectOptions::default();
    let subjects = SyscallSubjects::new(dir, &scenario, GEOMETRY, options).unwrap();
    let mut stage = subjects.stage().unwrap();
    stage.prepare(VICTIM, SIZE, &mut pattern).unwrap();
    stage.prepare(OTHER, SIZE, &mut complement).unwrap();
    Raced {
        actor: subjects.actor(MAPPER).unwrap(),
        coordinator: subjects.coordinator().unwrap(),
        stage,
    }
}

fn complement(at: u64, buf: &mut [u8]) {
    pattern(at, buf);
    buf.iter_mut().for_each(|byte| *byte = !*byte);
}

fn complemented(at: u64, len: u64) -> Vec<u8> {
    let mut buf = vec![0; len as usize];
    complement(at, &mut buf);
    buf
}

const DISKS: [&str; 3] = ["ext4", "xfs", "btrfs"];
