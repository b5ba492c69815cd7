//! The whole engine over a toy page cache of a few lines, with threads as actors: without a lock between
//! filler and punch it must find the stale page, with one it must find nothing. Needs neither root nor a
//! filesystem.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, RwLock};

use punchbench_race::subject::Extent;
use punchbench_race::{
    Call, DirectIo, FileId, Host, Limits, Look, Outcome, RaceReport, Stage, Subject, SubjectError,
    Subjects, TrialSpec, race, verdict,
};
use punchbench_results::{Phase, Verdict, Via};
use punchbench_scenarios::{EvidenceSpec, Geometry, Scenario};

const PAGE: u64 = 4096;

/// What the toy gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toy {
    /// Readers and punches exclude each other.
    Locked,
    /// Nothing keeps a reader from filling between the drop of the pages and the freeing of the blocks.
    Bare,
    /// As `Locked`, but a punch forgets to free the blocks.
    Forgetful,
    /// As `Locked`, but reads return nothing at all.
    Empty,
}

#[derive(Debug, Default)]
struct File {
    disk: Mutex<Vec<u8>>,
    cache: Mutex<BTreeMap<u64, Vec<u8>>>,
    lock: RwLock<()>,
}

#[derive(Debug, Clone)]
struct ToyFs {
    toy: Toy,
    files: Arc<Vec<File>>,
}

impl ToyFs {
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
                let _guard = (self.toy != Toy::Bare).then(|| file.lock.read().unwrap());
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
        if self.toy != Toy::Forgetful {
            file.disk.lock().unwrap()[at as usize..(at + len) as usize].fill(0);
        }
        Outcome::default()
    }
}

impl Subject for ToyFs {
    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        match *call {
            Call::PunchHole { file, at, len } => self.punch(file, at, len),
            Call::Read { file, at, len, .. } => self.read(file, at, &mut buf[..len as usize]),
            _ => Outcome {
                errno: nix::errno::Errno::EOPNOTSUPP as i32,
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
        self.files[usize::from(file)]
            .cache
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

fn run(toy: Toy, rounds: u64) -> (RaceReport, Verdict, String) {
    let scenario: Scenario = punchbench_scenarios::find("punch-while-read").remove(0);
    let spec = TrialSpec {
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
    };
    let files = Arc::new(vec![File::default()]);
    let report = race(&spec, &ToyFs { toy, files }, Host::Thread, &mut |_| {}).unwrap();
    let (word, why) = verdict(
        &report.evidence,
        &report.violations,
        &EvidenceSpec::default(),
        false,
    );
    (report, word, why)
}

#[test]
fn a_locked_cache_is_safe() {
    let (report, word, why) = run(Toy::Locked, 9000);
    assert_eq!(word, Verdict::Safe, "{why}\n{:?}", report.evidence);
    assert_eq!(report.evidence.rounds, 9000);
    assert_eq!(report.evidence.passes, 2);
}

#[test]
fn a_bare_cache_is_stale_and_confirmed() {
    let (report, word, why) = run(Toy::Bare, 9000);
    assert_eq!(word, Verdict::Stale, "{why}\n{:?}", report.evidence);
    let found = report
        .violations
        .iter()
        .find(|v| v.phase == Phase::After)
        .expect("a page left behind");
    let confirmation = found.confirmation.as_ref().expect("a confirmation");
    assert!(confirmation.borne_out && confirmation.eviction_proved);
    assert_eq!(confirmation.evicted, punchbench_results::Answer::Legal);
    assert_eq!(confirmation.direct, punchbench_results::Answer::Legal);
    assert!(
        found.got.starts_with("victim generation 1 offset 0x"),
        "{}",
        found.got
    );
    assert!(report.evidence.violated_rounds > 0);
}

#[test]
fn blocks_that_were_never_freed_are_a_wrong_mapping() {
    let (_, word, why) = run(Toy::Forgetful, 512);
    assert_eq!(word, Verdict::StaleMapping, "{why}");
}

#[test]
fn short_reads_within_the_file_are_wrong_results() {
    let (report, word, why) = run(Toy::Empty, 128);
    assert_eq!(word, Verdict::WrongResult, "{why}");
    assert!(report.violations.iter().any(|v| v.via == Via::Read));
}

#[test]
fn few_rounds_are_never_safe() {
    let (_, word, why) = run(Toy::Locked, 500);
    assert_eq!(word, Verdict::Inconclusive, "{why}");
}

#[test]
fn a_failing_operation_is_the_benchs_trouble_or_a_wrong_result() {
    let scenario = punchbench_scenarios::find("collapse-while-fault").remove(0);
    let spec = TrialSpec {
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
            rounds: Some(64),
        },
        cpus: Vec::new(),
        prepared: false,
    };
    let files = Arc::new(vec![File::default()]);
    let error = race(
        &spec,
        &ToyFs {
            toy: Toy::Locked,
            files,
        },
        Host::Thread,
        &mut |_| {},
    )
    .unwrap_err();
    assert!(error.to_string().contains("collapse_range"), "{error}");
}
