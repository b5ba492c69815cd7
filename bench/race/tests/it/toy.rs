//! A page cache of a few lines, with threads as actors: what the engine's tests race. Needs neither root nor a
//! filesystem.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, RwLock, RwLockReadGuard};

use nix::errno::Errno;
use punchbench_race::subject::Extent;
use punchbench_race::{
    Call, DirectIo, FileId, Limits, Look, Outcome, RaceReport, Stage, Subject, SubjectError,
    Subjects, TrialSpec, verdict,
};
use punchbench_results::Verdict;
use punchbench_scenarios::{EvidenceSpec, Geometry, Scenario};

pub const PAGE: u64 = 4096;

/// What the toy gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toy {
    /// Readers and punches exclude each other.
    Locked,
    /// Nothing keeps a reader from filling between the drop of the pages and the freeing of the blocks.
    Bare,
    /// As `Locked`, but a punch forgets to free the blocks.
    Forgetful,
    /// As `Locked`, but reads return nothing at all.
    Empty,
    /// As `Locked`, but a page stays behind a direct write, and the next fsync says EIO.
    Undropped,
}

#[derive(Debug, Default)]
pub struct File {
    disk: Mutex<Vec<u8>>,
    cache: Mutex<BTreeMap<u64, Vec<u8>>>,
    lock: RwLock<()>,
    undropped: AtomicBool,
    pub gate: Gate,
}

/// Where a punch reads its edge block, between dropping the pages and freeing the blocks, and whoever tests can
/// hold it.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    /// A punch waits here.
    parked: bool,
    /// Readers that wait for the lock.
    blocked: usize,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.parked = true;
        while state.held {
            state = self.opened.wait(state).unwrap();
        }
        state.parked = false;
    }

    fn waits_for_lock(&self, waits: bool) {
        let blocked = &mut self.state.lock().unwrap().blocked;
        *blocked = if waits { *blocked + 1 } else { *blocked - 1 };
    }

    pub fn hold(&self, held: bool) {
        self.state.lock().unwrap().held = held;
        self.opened.notify_all();
    }

    pub fn parked(&self) -> bool {
        self.state.lock().unwrap().parked
    }

    pub fn blocked(&self) -> bool {
        self.state.lock().unwrap().blocked > 0
    }
}

#[derive(Debug, Clone)]
pub struct ToyFs {
    pub toy: Toy,
    pub files: Arc<Vec<File>>,
}

impl File {
    fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.lock.try_read().unwrap_or_else(|_| {
            self.gate.waits_for_lock(true);
            let guard = self.lock.read().unwrap();
            self.gate.waits_for_lock(false);
            guard
        })
    }
}

impl ToyFs {
    /// With one empty file.
    pub fn new(toy: Toy) -> ToyFs {
        let files = Arc::new(vec![File::default()]);
        ToyFs { toy, files }
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        if self.toy == Toy::Empty {
            return Outcome::default();
        }
        let file = &self.files[usize::from(file)];
        if at >= file.disk.lock().unwrap().len() as u64 {
            return Outcome::default();
        }
        for (n, buf) in buf.chunks_mut(PAGE as usize).enumerate() {
            let at = at + n as u64 * PAGE;
            let cached = file.cache.lock().unwrap().get(&at).cloned();
            let page = cached.unwrap_or_else(|| {
                let _guard = (self.toy != Toy::Bare).then(|| file.shared());
                let page = file.disk.lock().unwrap()[at as usize..(at + PAGE) as usize].to_vec();
                std::thread::yield_now();
                file.cache.lock().unwrap().insert(at, page.clone());
                page
            });
            buf.copy_from_slice(&page[..buf.len()]);
        }
        Outcome {
            bytes: buf.len() as u64,
            ..Outcome::default()
        }
    }

    fn punch(&self, file: FileId, at: u64, len: u64) -> Outcome {
        let file = &self.files[usize::from(file)];
        let _guard = (self.toy != Toy::Bare).then(|| file.lock.write().unwrap());
        file.cache
            .lock()
            .unwrap()
            .retain(|page, _| !(at..at + len).contains(page));
        std::thread::yield_now();
        file.gate.pass();
        if self.toy != Toy::Forgetful {
            file.disk.lock().unwrap()[at as usize..(at + len) as usize].fill(0);
        }
        Outcome::default()
    }
}

impl ToyFs {
    fn write_direct(&self, file: FileId, at: u64, buf: &[u8]) -> Outcome {
        let file = &self.files[usize::from(file)];
        let _guard = file.lock.write().unwrap();
        file.disk.lock().unwrap()[at as usize..][..buf.len()].copy_from_slice(buf);
        match self.toy {
            Toy::Undropped => file.undropped.store(true, SeqCst),
            _ => file
                .cache
                .lock()
                .unwrap()
                .retain(|page, _| !(at..at + buf.len() as u64).contains(page)),
        }
        Outcome {
            bytes: buf.len() as u64,
            ..Outcome::default()
        }
    }
}

impl Subject for ToyFs {
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        match *call {
            Call::PunchHole { file, at, len } => self.punch(file, at, len),
            Call::Read { file, at, len, .. } => self.read(file, at, &mut buf[..len as usize]),
            Call::Write { file, at, len, .. } => self.write_direct(file, at, &buf[..len as usize]),
            _ => Outcome {
                errno: Errno::EOPNOTSUPP as i32,
                ..Outcome::default()
            },
        }
    }

    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        match how {
            Look::Direct => {
                let disk = self.files[usize::from(file)].disk.lock().unwrap();
                buf.copy_from_slice(&disk[at as usize..at as usize + buf.len()]);
                Outcome {
                    bytes: buf.len() as u64,
                    ..Outcome::default()
                }
            }
            Look::Read | Look::Mapping => self.read(file, at, buf),
        }
    }

    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()> {
        let cache = self.files[usize::from(file)].cache.lock().unwrap();
        for (page, at) in pages.iter_mut().zip(range.step_by(PAGE as usize)) {
            *page = cache.contains_key(&at);
        }
        Some(())
    }

    fn unmap(&mut self, _: FileId, _: Range<u64>) -> Result<(), SubjectError> {
        Ok(())
    }

    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError> {
        let file = &self.files[usize::from(file)];
        if file.undropped.swap(false, SeqCst) {
            return Err(SubjectError {
                what: "evict",
                on: "victim".to_owned(),
                error: Errno::EIO.into(),
            });
        }
        file.cache
            .lock()
            .unwrap()
            .retain(|page, _| !range.contains(page));
        Ok(true)
    }
}

impl Stage for ToyFs {
    fn page(&self) -> u64 {
        PAGE
    }

    fn prepare(
        &mut self,
        file: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError> {
        let file = &self.files[usize::from(file)];
        let mut disk = vec![0; size as usize];
        fill(0, &mut disk);
        *file.disk.lock().unwrap() = disk;
        file.cache.lock().unwrap().clear();
        Ok(())
    }

    fn blocks(&mut self, _: FileId, _: Range<u64>) -> Result<Option<Vec<Extent>>, SubjectError> {
        Ok(None)
    }

    fn fill_up(&mut self, _: bool) -> Result<(), SubjectError> {
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SubjectError> {
        Ok(())
    }

    fn direct(&self) -> DirectIo {
        DirectIo::Real
    }

    fn cache_is_store(&self) -> bool {
        false
    }
}

impl Subjects for ToyFs {
    fn actor(&self, _: usize) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(self.clone()))
    }

    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(self.clone()))
    }

    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError> {
        Ok(Box::new(self.clone()))
    }
}

/// A trial of so many rounds on it.
pub fn spec(scenario: Scenario, rounds: u64) -> TrialSpec {
    TrialSpec {
        scenario,
        geometry: Geometry {
            page: PAGE,
            block: PAGE,
        },
        seed: 5,
        nonce: 77,
        limits: Limits {
            time: None,
            most: None,
            rounds: Some(rounds),
        },
        cpus: Vec::new(),
        prepared: false,
    }
}

/// What a report amounts to.
pub fn judged(report: RaceReport) -> (RaceReport, Verdict, String) {
    let (word, why) = verdict(
        &report.evidence,
        &report.violations,
        &EvidenceSpec::default(),
        false,
    );
    (report, word, why)
}
