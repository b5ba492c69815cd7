//! One actor that may lie.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use punchbench_race::stamp::{BACKGROUND, Stamps};
use punchbench_race::{Call, FileId, Look, Outcome, Subject, SubjectError, Usage};

use super::board::{Board, STALE_MAX};
use super::{InjectedSubjects, Lie};

/// What an actor has to do with the lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The one invalidator: it lies, or others go by what it does.
    Invalidator,
    /// Another actor that lies.
    Liar,
    /// Only shows what the lie has left.
    Honest,
}

/// The first call that is lied about, late enough for an honest beginning, and the calls from one lie to
/// the next: a prime, so that it falls in step with no chunk, page or pass.
const FIRST: u64 = 50;
const PERIOD: u64 = 97;

/// The same for a dropped store or write: only one that began after the operation returned is missed for
/// certain, and few do.
const DROP_PERIOD: u64 = 7;

/// A generation that no run comes to: stamps of it are legal nowhere.
pub(super) const NEVER: u32 = 1 << 25;

/// A wait that no operation without one can take, and that ends well before any watchdog.
const WAIT: Duration = Duration::from_millis(400);
/// How long an actor lets the invalidator take, and then lets it take its last ticket.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
const COURTESY: Duration = Duration::from_micros(50);
/// What a long write loses.
const LOSS: usize = 4096;
/// How much is lied about where a call names no length.
const SOME: u64 = 4096;

/// Reads as a warning of the kernel in all but its facility, which only the kernel itself can write.
const WARNING: &[u8] =
    b"<4>WARNING: CPU: 0 PID: 1 at fs/injected.c:1 injected_by_punchbench+0x0/0x0\n";

pub(super) struct Liar {
    inner: Box<dyn Subject>,
    lie: Lie,
    part: Part,
    board: Arc<Board>,
    stamps: Stamps,
    witness: Option<FileId>,
    other: FileId,
    /// One attempt decides: every call is lied about.
    always: bool,
    /// Calls so far that could have been lied about.
    calls: u64,
    /// Returns of the invalidator that this actor has waited for.
    returns: u64,
    /// What the invalidator last truncated the file to.
    size: u64,
    scratch: Vec<u8>,
    kmsg: Option<File>,
}

impl Liar {
    pub(super) fn new(
        of: &InjectedSubjects,
        inner: Box<dyn Subject>,
        part: Part,
    ) -> Result<Liar, SubjectError> {
        let lie = of.injection.kind.lie;
        let kmsg = match (lie, part) {
            (Lie::KernelWarning, Part::Invalidator) => {
                let open = File::options().write(true).open("/dev/kmsg");
                Some(open.map_err(|error| SubjectError {
                    what: "open",
                    on: "/dev/kmsg".into(),
                    error,
                })?)
            }
            _ => None,
        };
        Ok(Liar {
            inner,
            lie,
            part,
            board: Arc::clone(&of.board),
            stamps: Stamps::new(of.nonce),
            witness: of.witness,
            other: of.other,
            always: of.always,
            calls: 0,
            returns: 0,
            size: u64::MAX,
            scratch: vec![0; STALE_MAX],
            kmsg,
        })
    }

    /// Counts a call that could be lied about, and tells whether it is.
    fn fires(&mut self) -> bool {
        let period = match self.lie {
            Lie::DropStore | Lie::DropWrite => DROP_PERIOD,
            _ => PERIOD,
        };
        let call = self.calls;
        self.calls += 1;
        self.always
            || call
                .checked_sub(FIRST)
                .is_some_and(|since| since % period == 0)
    }

    /// The invalidator's own operation.
    fn invalidate(
        &mut self,
        call: &Call,
        file: FileId,
        at: u64,
        len: u64,
        buf: &mut [u8],
    ) -> Outcome {
        if self.lie == Lie::NeverOverlap {
            let outcome = self.inner.perform(call, buf);
            self.board.count_return();
            return outcome;
        }
        if !self.fires() {
            return self.inner.perform(call, buf);
        }
        let len = len.min(STALE_MAX as u64) as usize;
        match self.lie {
            Lie::SkipInvalidation => claimed(match *call {
                Call::Write { len, .. } => len,
                _ => 0,
            }),
            Lie::StaleCache => {
                let before = self
                    .inner
                    .look(Look::Read, file, at, &mut self.scratch[..len]);
                let outcome = self.inner.perform(call, buf);
                let before = &self.scratch[..before.bytes as usize];
                self.board.show(file, at, before);
                outcome
            }
            Lie::Foreign => self.leave(self.other, call, file, at, len, buf),
            Lie::Background => self.leave(BACKGROUND, call, file, at, len, buf),
            Lie::ChangeWitness => {
                self.flip_witness();
                self.inner.perform(call, buf)
            }
            Lie::Errno => Outcome {
                errno: libc::EIO,
                ..self.inner.perform(call, buf)
            },
            Lie::Hang => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            Lie::KernelWarning => {
                if let Some(mut kmsg) = self.kmsg.take() {
                    // Once is enough. If the log refuses the line, the self-test misses its verdict.
                    let _ = kmsg.write(WARNING);
                }
                self.inner.perform(call, buf)
            }
            Lie::Crash => std::process::abort(),
            Lie::DropWrite => match *call {
                Call::Write { len, .. } => self.drop_write(file, at, len, buf),
                _ => self.inner.perform(call, buf),
            },
            Lie::DropStore | Lie::CutShort | Lie::Wait | Lie::NeverOverlap | Lie::NeverFill => {
                self.inner.perform(call, buf)
            }
        }
    }

    /// Carries the call out and leaves somebody else's stamps in its range.
    fn leave(
        &mut self,
        whose: FileId,
        call: &Call,
        file: FileId,
        at: u64,
        len: usize,
        buf: &mut [u8],
    ) -> Outcome {
        let outcome = self.inner.perform(call, buf);
        // The device's background has no generations.
        let generation = if whose == BACKGROUND { 0 } else { NEVER };
        let stamps = &mut self.scratch[..len];
        self.stamps.fill(whose, generation, at, stamps);
        let len = len as u64;
        self.inner.perform(&write(file, at, len), stamps);
        outcome
    }

    /// Whether an ftruncate(2) to `size` cuts the file off, rather than extend it after that.
    fn cuts(&mut self, size: u64) -> bool {
        std::mem::replace(&mut self.size, size) >= size
    }

    /// Flips a byte, another one each time.
    fn flip_witness(&mut self) {
        let Some(file) = self.witness else { return };
        let (at, len) = (self.calls, 1);
        let mut byte = [0];
        if self.inner.look(Look::Read, file, at, &mut byte).bytes == len {
            byte[0] ^= 0xff;
            self.inner.perform(&write(file, at, len), &mut byte);
        }
    }

    /// Writes all but a page in the middle, or nothing if it is short, and claims to have written it all.
    fn drop_write(&mut self, file: FileId, at: u64, len: u64, buf: &mut [u8]) -> Outcome {
        let middle = len as usize / 2;
        if middle > LOSS {
            let head = write(file, at, middle as u64);
            let behind = middle + LOSS;
            let tail = write(file, at + behind as u64, len - behind as u64);
            self.inner.perform(&head, buf);
            self.inner.perform(&tail, &mut buf[behind..]);
        }
        claimed(len)
    }

    /// Gives what a filler would have got, without the page cache.
    fn pretend_to_fill(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        if let Some((file, at, len)) = call.shows() {
            let around = self
                .inner
                .look(Look::Direct, file, at, &mut buf[..len as usize]);
            return match around.errno {
                0 => around,
                // No direct reads here: then it can only fill and not say so.
                _ => self.inner.perform(call, buf),
            };
        }
        match *call {
            Call::Fadvise { .. }
            | Call::Readahead { .. }
            | Call::Madvise { .. }
            | Call::Fiemap { .. }
            | Call::PrecacheExtents { .. } => claimed(0),
            Call::Splice { len, .. } => claimed(len),
            Call::PunchHole { .. }
            | Call::ZeroRange { .. }
            | Call::CollapseRange { .. }
            | Call::InsertRange { .. }
            | Call::Truncate { .. }
            | Call::Dedupe { .. }
            | Call::CloneRange { .. }
            | Call::ExchangeRange { .. }
            | Call::SwapBoot { .. }
            | Call::JournalData { .. }
            | Call::BlkZeroout { .. }
            | Call::BlkDiscard { .. }
            | Call::ReadInto { .. }
            | Call::Store { .. }
            | Call::Write { .. }
            | Call::Fsync { .. }
            | Call::Syncfs
            // Came back above.
            | Call::Read { .. }
            | Call::UringRead { .. }
            | Call::Drain { .. }
            | Call::Fault { .. } => self.inner.perform(call, buf),
        }
    }

    /// What an actor other than the invalidator does.
    fn race(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        match (self.lie, *call) {
            (Lie::DropStore, Call::Store { len, .. }) if self.fires() => claimed(len),
            (Lie::DropWrite, Call::Write { file, at, len, .. })
                if len as usize > 2 * LOSS || self.fires() =>
            {
                self.drop_write(file, at, len, buf)
            }
            (
                Lie::CutShort,
                Call::ReadInto {
                    file,
                    at,
                    len,
                    from,
                },
            ) if self.fires() => {
                let len = len / 2;
                let half = Call::ReadInto {
                    file,
                    at,
                    len,
                    from,
                };
                self.inner.perform(&half, buf)
            }
            (Lie::Wait, asked) if asked.may_not_wait() && self.fires() => {
                std::thread::sleep(WAIT);
                self.inner.perform(call, buf)
            }
            (Lie::NeverFill, _) => self.pretend_to_fill(call, buf),
            _ => self.inner.perform(call, buf),
        }
    }

    /// Puts what is shown stale over what was really seen.
    fn lay_over(&self, file: FileId, at: u64, buf: &mut [u8], seen: Outcome) -> Outcome {
        let seen_len = buf.len().min(seen.bytes as usize);
        self.board.lay_over(file, at, &mut buf[..seen_len]);
        seen
    }
}

impl Subject for Liar {
    fn round(&mut self, chunk: &Range<u64>) {
        self.inner.round(chunk);
    }

    fn approach(&mut self, call: &Call) {
        self.inner.approach(call);
        if self.lie != Lie::NeverOverlap || self.part != Part::Liar {
            return;
        }
        let start = Instant::now();
        while self.board.returns() == self.returns && start.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        self.returns = self.board.returns();
        std::thread::sleep(COURTESY);
    }

    fn perform(&mut self, call: &Call, buf: &mut [u8]) -> Outcome {
        match (self.part, *call) {
            (
                Part::Invalidator,
                Call::PunchHole { file, at, len }
                | Call::ZeroRange { file, at, len }
                | Call::CollapseRange { file, at, len }
                | Call::InsertRange { file, at, len }
                | Call::Dedupe { file, at, len, .. }
                | Call::CloneRange { file, at, len, .. }
                | Call::ExchangeRange { file, at, len, .. }
                | Call::BlkZeroout { file, at, len }
                | Call::BlkDiscard { file, at, len }
                | Call::Write {
                    file,
                    at,
                    len,
                    direct: true,
                },
            ) => self.invalidate(call, file, at, len, buf),
            (Part::Invalidator, Call::Truncate { file, size }) if self.cuts(size) => {
                self.invalidate(call, file, size, SOME, buf)
            }
            (Part::Invalidator, Call::SwapBoot { file } | Call::JournalData { file }) => {
                self.invalidate(call, file, 0, SOME, buf)
            }
            // An invalidator may write after its operation.
            (Part::Liar, _) | (Part::Invalidator, Call::Write { .. }) => self.race(call, buf),
            (
                _,
                Call::Read {
                    file,
                    at,
                    direct: false,
                    ..
                }
                | Call::UringRead { file, at, .. }
                | Call::Drain { file, at, .. }
                | Call::Fault { file, at, .. },
            ) => {
                let seen = self.inner.perform(call, buf);
                self.lay_over(file, at, buf, seen)
            }
            _ => self.inner.perform(call, buf),
        }
    }

    fn usage(&mut self) -> Usage {
        match (self.lie, self.part) {
            (Lie::NeverFill, Part::Liar) => Usage::default(),
            _ => self.inner.usage(),
        }
    }

    fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> Outcome {
        let seen = self.inner.look(how, file, at, buf);
        match how {
            Look::Read | Look::Mapping => self.lay_over(file, at, buf, seen),
            Look::Direct => seen,
        }
    }

    fn resident(&mut self, file: FileId, range: Range<u64>, pages: &mut [bool]) -> Option<()> {
        self.inner.resident(file, range, pages)
    }

    fn unmap(&mut self, file: FileId, range: Range<u64>) -> Result<(), SubjectError> {
        self.inner.unmap(file, range)
    }

    fn evict(&mut self, file: FileId, range: Range<u64>) -> Result<bool, SubjectError> {
        let gone = self.inner.evict(file, range.clone())?;
        if gone {
            self.board.clear(file, &range);
        }
        Ok(gone)
    }
}

fn write(file: FileId, at: u64, len: u64) -> Call {
    Call::Write {
        file,
        at,
        len,
        direct: false,
    }
}

fn claimed(bytes: u64) -> Outcome {
    Outcome {
        bytes,
        ..Outcome::default()
    }
}
