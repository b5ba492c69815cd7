//! The staged runner over a toy page cache, its gate as the holder and its threads as what is looked at: the same
//! steps must end `stale` without a lock and `safe`, with who was seen blocked, with one; and where a step does not
//! come about, nothing is proved.

use std::sync::Arc;
use std::time::Duration;

use punchbench_race::{Asleep, Grip, GripError, Hold, HoldId, Host, RaceReport, staged};
use punchbench_results::{Did, Verdict};
use punchbench_scenarios::{Op, load};

use crate::toy::{File, PAGE, Toy, ToyFs, judged, spec};

const SCENARIO: &str = r#"
scenario: staged-toy
claim: While a punch is between dropping the pages and freeing the blocks, reads wait.
source: this test
needs: [punch_hole]
files:
  victim: {size: 1MiB}
actors:
  puncher:
    role: invalidator
    do:
      - punch_hole: {file: victim, range: 64KiB .. 192KiB}
  reader:
    role: filler
    do:
      - read: {file: victim, range: 96KiB .. 96KiB + 1 page}
      - read: {file: victim, range: 160KiB .. 160KiB + 1 page}
stage:
  - warm: {file: victim, range: 64KiB .. 192KiB}
  - hold: {name: edge, what: {reads_of: {file: victim, range: 64KiB .. 64KiB + 1 page}}}
  - start: {actors: [puncher]}
  - parked: {actor: puncher, in: [toy_punch]}
  - gone: {file: victim, range: 64KiB .. 192KiB}
  - start: {actors: [reader]}
  - observe: {actors: [reader]}
  - release: {hold: edge}
expect:
  range: 64KiB .. 192KiB
  is: zeros
  during:
    - {actors: [reader], does: blocked}
"#;

/// What of the holder and the looks does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blind {
    No,
    /// Nothing is ever held.
    Hold,
    /// Whoever sleeps is never seen to sleep by the lock.
    Lock,
}

struct ToyGrip {
    files: Arc<Vec<File>>,
    blind: Blind,
}

impl Grip for ToyGrip {
    fn hold(&mut self, what: &Hold, _: Duration) -> Result<HoldId, GripError> {
        let edge = 65536..65536 + PAGE;
        assert_eq!(
            *what,
            Hold::ReadsOf {
                file: 0,
                range: edge
            }
        );
        self.files[0].gate.hold(self.blind != Blind::Hold);
        Ok(7)
    }

    fn await_held(&mut self, hold: HoldId, _: Duration) -> Result<Option<String>, GripError> {
        assert_eq!(hold, 7);
        Ok(self.files[0].gate.parked().then(|| "a read".to_owned()))
    }

    fn release(&mut self, hold: HoldId) -> Result<(), GripError> {
        assert_eq!(hold, 7);
        self.files[0].gate.hold(false);
        Ok(())
    }

    fn cool_metadata(&mut self) -> Result<(), GripError> {
        Ok(())
    }

    fn asleep(&mut self, _: i32, op: &Op) -> Result<Option<Asleep>, GripError> {
        let gate = &self.files[0].gate;
        let (there, top, by_lock) = match op {
            Op::PunchHole(_) => (gate.parked(), "toy_punch", false),
            _ => (gate.blocked(), "toy_read", self.blind != Blind::Lock),
        };
        Ok(there.then(|| Asleep {
            top: top.to_owned(),
            stack: vec![top.to_owned()],
            by_lock,
        }))
    }

    fn driver(&self) -> &str {
        "toy"
    }

    fn kernel(&self) -> &str {
        "6.18.0"
    }
}

fn run(toy: Toy, blind: Blind) -> (RaceReport, Verdict, String) {
    let scenario = load(SCENARIO, "staged-toy.yaml").unwrap();
    let fs = ToyFs::new(toy);
    let mut grip = ToyGrip {
        files: Arc::clone(&fs.files),
        blind,
    };
    judged(
        staged(
            &spec(scenario, 1),
            &fs,
            Host::Thread,
            &mut grip,
            &mut |_| {},
        )
        .unwrap(),
    )
}

#[test]
fn a_reader_that_the_lock_keeps_out_is_safe_and_seen_blocked() {
    let (report, word, why) = run(Toy::Locked, Blind::No);
    assert_eq!(word, Verdict::Safe, "{why}");
    let staged = report.evidence.staged.unwrap();
    assert_eq!((staged.gone, &staged.lacking), (Some(true), &None));
    assert_eq!(staged.parked[0].within.as_deref(), Some("toy_punch"));
    let [seen] = &staged.meanwhile[..] else {
        panic!("{staged:?}");
    };
    assert_eq!(
        (seen.did, seen.top.as_deref()),
        (Did::Blocked, Some("toy_read"))
    );
    assert!(seen.blocked_ms.is_some_and(|ms| ms >= 100.0), "{seen:?}");
}

#[test]
fn without_a_lock_every_page_that_was_filled_is_stale_and_confirmed() {
    let (report, word, why) = run(Toy::Bare, Blind::No);
    assert_eq!(word, Verdict::Stale, "{why}");
    let mut pages: Vec<u64> = report.violations.iter().map(|v| v.offset).collect();
    pages.sort_unstable();
    pages.dedup();
    assert_eq!(pages, [96 << 10, 160 << 10]);
    for violation in &report.violations {
        let confirmation = violation.confirmation.as_ref().expect("a confirmation");
        assert!(confirmation.borne_out && confirmation.eviction_proved);
    }
    assert_eq!(report.evidence.staged.unwrap().meanwhile[0].did, Did::Done);
}

#[test]
fn who_was_never_parked_proves_nothing() {
    let (report, word, why) = run(Toy::Locked, Blind::Hold);
    assert_eq!(word, Verdict::Inconclusive, "{why}");
    assert_eq!(why, "puncher returned and was never parked");
    assert!(report.violations.is_empty());
}

#[test]
fn who_waits_for_something_else_proves_nothing() {
    let (_, word, why) = run(Toy::Locked, Blind::Lock);
    assert_eq!(word, Verdict::Inconclusive, "{why}");
    assert_eq!(
        why,
        "reader was not seen blocked by a lock, but in toy_read"
    );
}
