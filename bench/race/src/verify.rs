//! The coordinator's own looks at whole files: after eviction (P2) and after a remount (P4).

use std::time::Duration;

use punchbench_results::{Answer, Confirmation, Phase, Verdict, Via, Violation};

use crate::confirm::why_not;
use crate::content::{Content, Piece};
use crate::judge::{Got, Wrong, judge, legal_words};
use crate::message::{decode, encode, legal_at};
use crate::plan::Plan;
use crate::stamp::Stamps;
use crate::{Call, DirectIo, FileId, Look, Subject, SubjectError};

/// Bytes looked at in one go.
const STEP: u64 = 1 << 20;
/// Bytes a reuser writes in one go.
const REUSE_STEP: u64 = 64 << 10;
const ENOSPC: i32 = nix::errno::Errno::ENOSPC as i32;
/// Before something is looked at again.
const PAUSE: Duration = Duration::from_millis(10);
/// Wrong pages of one look that are confirmed and told in full.
const MOST: usize = 4;

/// What a look at a file found.
#[derive(Debug, Default)]
pub struct Found {
    /// The first few, confirmed.
    pub violations: Vec<Violation>,
    /// How many more pages were wrong.
    pub further: u64,
}

/// Looks at whole files with a subject of its own.
pub struct Verifier<'a> {
    plan: &'a Plan,
    stamps: Stamps,
    subject: Box<dyn Subject>,
    cache_is_store: bool,
    direct: DirectIo,
    buf: Vec<u8>,
}

impl std::fmt::Debug for Verifier<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl<'a> Verifier<'a> {
    /// With the coordinator's subject.
    pub fn new(
        plan: &'a Plan,
        stamps: Stamps,
        subject: Box<dyn Subject>,
        cache_is_store: bool,
        direct: DirectIo,
    ) -> Verifier<'a> {
        Verifier {
            plan,
            stamps,
            subject,
            cache_is_store,
            direct,
            buf: vec![0; STEP as usize],
        }
    }

    /// Evicts a whole file; whether its absence was proved.
    pub fn evict(&mut self, file: FileId, size: u64) -> Result<bool, SubjectError> {
        if self.cache_is_store || size == 0 {
            return Ok(false);
        }
        self.subject.evict(file, 0..size)
    }

    /// Evicts a range of a file; whether its absence was proved.
    pub fn evict_range(
        &mut self,
        file: FileId,
        range: std::ops::Range<u64>,
    ) -> Result<bool, SubjectError> {
        Ok(!self.cache_is_store && self.subject.evict(file, range)?)
    }

    /// Reads a range into the page cache; whether all of it is there then, where that can be told.
    pub fn warm(
        &mut self,
        file: FileId,
        range: std::ops::Range<u64>,
    ) -> Result<Option<bool>, SubjectError> {
        let mut at = range.start;
        while at < range.end {
            let n = STEP.min(range.end - at);
            let buf = &mut self.buf[..n as usize];
            let outcome = self.subject.look(Look::Read, file, at, buf);
            if outcome.errno != 0 || outcome.bytes == 0 {
                let error = std::io::Error::from_raw_os_error(outcome.errno);
                let on = format!("file {file} at {at}");
                return Err(SubjectError {
                    what: "read",
                    on,
                    error,
                });
            }
            at += outcome.bytes;
        }
        let pages = self.pages(file, range);
        Ok(pages.map(|pages| pages.iter().all(|p| *p)))
    }

    /// Whether any page of a range is in the page cache, where that can be told; touches none.
    pub fn any_resident(
        &mut self,
        file: FileId,
        range: std::ops::Range<u64>,
    ) -> Result<Option<bool>, SubjectError> {
        let pages = self.pages(file, range);
        Ok(pages.map(|pages| pages.contains(&true)))
    }

    fn pages(&mut self, file: FileId, range: std::ops::Range<u64>) -> Option<Vec<bool>> {
        let page = self.plan.page();
        let count = range.end.div_ceil(page) - range.start / page;
        let mut pages = vec![false; count as usize];
        self.subject.resident(file, range, &mut pages)?;
        Some(pages)
    }

    /// Carries out a reuser's call, in steps, writing `generation`; ends early when no space is left. How
    /// many bytes it wrote.
    pub fn carry_out(&mut self, call: &Call, generation: u32) -> Result<u64, SubjectError> {
        let Call::Write {
            file,
            at,
            len,
            direct,
        } = *call
        else {
            let outcome = self.subject.perform(call, &mut self.buf);
            self.must(outcome.errno, "reuse", call)?;
            return Ok(0);
        };
        let mut done = 0;
        while done < len {
            let n = REUSE_STEP.min(len - done);
            let step = Call::Write {
                file,
                at: at + done,
                len: n,
                direct,
            };
            let buf = &mut self.buf[..n as usize];
            self.stamps.fill(file, generation, at + done, buf);
            let outcome = self.subject.perform(&step, buf);
            done += outcome.bytes;
            match outcome.errno {
                ENOSPC => break,
                0 if outcome.bytes < n => break,
                errno => self.must(errno, "write", &step)?,
            }
        }
        Ok(done)
    }

    fn must(&self, errno: i32, what: &'static str, call: &Call) -> Result<(), SubjectError> {
        match errno {
            0 => Ok(()),
            _ => Err(SubjectError {
                what,
                on: format!("{call:?}"),
                error: std::io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Judges a whole file as it is now.
    pub fn look(
        &mut self,
        file: FileId,
        content: &Content,
        phase: Phase,
    ) -> Result<Found, SubjectError> {
        let mut found = Found::default();
        let mut at = 0;
        while at < content.size() {
            let end = (at + STEP).min(content.size());
            for (wrong, bytes) in self.wrong_pages(Look::Read, file, at..end, content) {
                if found.violations.len() < MOST {
                    let violation = self.violation(file, content, wrong, &bytes, phase)?;
                    found.violations.push(violation);
                } else {
                    found.further += 1;
                }
            }
            at = end;
        }
        let end = content.size();
        let beyond = |v: &mut Self| v.subject.look(Look::Read, file, end, &mut v.buf[..1]).bytes;
        if beyond(self) > 0 {
            std::thread::sleep(PAUSE);
            let again = beyond(self) > 0;
            found
                .violations
                .push(self.too_long(file, end, again, phase));
        }
        Ok(found)
    }

    /// A file that goes on where it should have ended.
    fn too_long(&self, file: FileId, end: u64, again: bool, phase: Phase) -> Violation {
        let why = || Answer::NotAsked("a size is no content".into());
        let got = "a byte past the end";
        Violation {
            verdict: Verdict::WrongResult,
            phase,
            via: Via::Read,
            actor: "the coordinator".into(),
            file: self.plan.names[usize::from(file)].clone(),
            offset: end,
            wrong_bytes: 1,
            pass: 0,
            round: 0,
            got: got.into(),
            expected: "end of file".into(),
            bytes: String::new(),
            clock: [0; 4],
            at_s: 0.0,
            confirmation: Some(Confirmation {
                again: if again {
                    Answer::Wrong(got.into())
                } else {
                    Answer::Legal
                },
                mappings: Vec::new(),
                direct: why(),
                evicted: why(),
                eviction_proved: false,
                borne_out: again,
            }),
        }
    }

    fn wrong_pages(
        &mut self,
        how: Look,
        file: FileId,
        range: std::ops::Range<u64>,
        content: &Content,
    ) -> Vec<(Wrong, Vec<u8>)> {
        let len = (range.end - range.start) as usize;
        let outcome = self
            .subject
            .look(how, file, range.start, &mut self.buf[..len]);
        let seen = &self.buf[..outcome.bytes as usize];
        wrong_pages(self.stamps, self.plan.page(), seen, range, content)
    }

    fn violation(
        &mut self,
        file: FileId,
        content: &Content,
        wrong: Wrong,
        bytes: &[u8],
        phase: Phase,
    ) -> Result<Violation, SubjectError> {
        let page = self.plan.page();
        let start = wrong.offset / page * page;
        let range = start..(start + page).min(content.size());
        let names = self.plan.names.clone();
        let answer = |found: Vec<(Wrong, Vec<u8>)>, stamps: Stamps| {
            decode(
                encode(found.first().map(|(w, b)| Got::name(stamps, w.offset, b))),
                &names,
            )
        };
        std::thread::sleep(PAUSE);
        let again = answer(
            self.wrong_pages(Look::Read, file, range.clone(), content),
            self.stamps,
        );
        let direct = match why_not(self.direct) {
            None => {
                let found = self.wrong_pages(Look::Direct, file, range.clone(), content);
                answer(found, self.stamps)
            }
            Some(why) => Answer::NotAsked(why.into()),
        };
        let proved = !self.cache_is_store && self.subject.evict(file, range.clone())?;
        let evicted = answer(
            self.wrong_pages(Look::Read, file, range, content),
            self.stamps,
        );
        let pieces: Vec<Piece> = content.window(wrong.offset..wrong.offset + 1).collect();
        let expected = legal_at(&pieces, wrong.offset);
        let got = Got::name(self.stamps, wrong.offset, bytes);
        let named = got.of(file, |owner| self.plan.is_own(file, owner));
        let verdict = match named.verdict(file, expected.as_ref()) {
            _ if self.plan.files[usize::from(file)].witness => Verdict::Damaged,
            Verdict::Stale
                if phase == Phase::Remounted || proved && matches!(evicted, Answer::Wrong(_)) =>
            {
                Verdict::StaleMapping
            }
            verdict => verdict,
        };
        let borne_out = [&again, &direct, &evicted]
            .iter()
            .any(|a| matches!(a, Answer::Wrong(_)));
        Ok(Violation {
            verdict,
            phase,
            via: Via::Read,
            actor: "the coordinator".into(),
            file: names[usize::from(file)].clone(),
            offset: wrong.offset,
            wrong_bytes: wrong.bytes,
            pass: 0,
            round: 0,
            got: got.words(&names),
            expected: legal_words(expected.as_ref(), &names),
            bytes: bytes.iter().take(64).map(|b| format!("{b:02x}")).collect(),
            clock: [0; 4],
            at_s: 0.0,
            confirmation: Some(Confirmation {
                again,
                mappings: Vec::new(),
                direct,
                evicted,
                eviction_proved: proved,
                borne_out,
            }),
        })
    }
}

/// The wrong pages of a look at `range`, each with its bytes from the first wrong one on.
pub fn wrong_pages(
    stamps: Stamps,
    page: u64,
    seen: &[u8],
    range: std::ops::Range<u64>,
    content: &Content,
) -> Vec<(Wrong, Vec<u8>)> {
    let pieces: Vec<Piece> = content.window(range.clone()).collect();
    if judge(stamps, range.start, seen, std::iter::once(&pieces[..])).is_ok() {
        return Vec::new();
    }
    let mut wrongs = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let end = ((at / page + 1) * page).min(range.end);
        let pieces: Vec<Piece> = content.window(at..end).collect();
        let from = ((at - range.start) as usize).min(seen.len());
        let to = ((end - range.start) as usize).min(seen.len());
        if let Err(wrong) = judge(stamps, at, &seen[from..to], std::iter::once(&pieces[..])) {
            let first = ((wrong.offset - range.start) as usize).min(to);
            wrongs.push((wrong, seen[first..to].to_vec()));
        }
        at = end;
    }
    wrongs
}
