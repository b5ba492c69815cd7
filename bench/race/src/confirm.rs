//! Confirmed before claimed: between batches the actors look at what the race left (P1), each through its
//! own mapping and the leader by read(2), and whatever is wrong is looked at again in four ways before the
//! race goes on (DESIGN section 3).

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use punchbench_results::{Answer, Phase, Via};

use crate::actor::{Ended, FRESH, Racer};
use crate::content::{Content, Piece};
use crate::judge::{Got, judge};
use crate::message::{Finding, Message, decode, encode, failed};
use crate::{DirectIo, FileId, Look};

/// Confirmations of a trial, beside those of a verdict seen for the first time. One a batch: evicting for
/// one may evict the next one's page.
const PER_TRIAL: u64 = 16;
/// In a page's word the file stands above, the page below.
const FILE_SHIFT: u32 = 48;
/// The pause before a range is read again: long enough for any I/O of the race to have ended.
const PAUSE: Duration = Duration::from_millis(10);

impl Racer<'_> {
    /// P1 of a batch, and the confirmation of what was found in it or in the race.
    pub(crate) fn probe_batch(
        &mut self,
        pass: u64,
        from: u64,
        to: u64,
        contents: &[Content],
    ) -> Result<(), Ended> {
        let (plan, board, spin) = (self.part.plan, self.part.board, self.part.spin);
        let scope = plan.scope(from, to, contents);
        let maps = &plan.actors[self.part.me].maps;
        for (file, range) in scope.iter().filter(|(f, _)| maps.contains(f)) {
            self.probe_and_tell(
                Look::Mapping,
                pass,
                from,
                to,
                *file,
                range.clone(),
                contents,
            )?;
        }
        board.gate(spin)?;
        let mut wrong = Vec::new();
        if self.leads() {
            for (file, range) in &scope {
                let pages = self.probe_and_tell(
                    Look::Read,
                    pass,
                    from,
                    to,
                    *file,
                    range.clone(),
                    contents,
                )?;
                wrong.extend(pages);
            }
        }
        self.violated +=
            u64::from(board.violated().load(SeqCst).count_ones()) * u64::from(self.leads());
        let mut next = self.next_suspect();
        // One attempt is all there is of a staged trial: each filler's page is looked at again.
        wrong.retain(|place| !plan.stage.is_empty() && *place != next);
        wrong.truncate(PER_TRIAL as usize);
        loop {
            if self.leads() {
                board.confirm().store(next, SeqCst);
            }
            board.gate(spin)?;
            match board.confirm().load(SeqCst) {
                0 => return Ok(()),
                suspect => self.confirm(suspect, from..to, contents)?,
            }
            if plan.stage.is_empty() {
                return Ok(());
            }
            next = wrong.pop().unwrap_or(0);
        }
    }

    /// The pages that were wrong, as words.
    #[expect(clippy::too_many_arguments, reason = "where and when a probe looks")]
    fn probe_and_tell(
        &mut self,
        how: Look,
        pass: u64,
        from: u64,
        to: u64,
        file: FileId,
        range: std::ops::Range<u64>,
        contents: &[Content],
    ) -> Result<Vec<u64>, Ended> {
        let content = &contents[usize::from(file)];
        let mut places = Vec::new();
        for (wrong, bytes) in self.probe_range(how, file, range, content) {
            let pieces: Vec<Piece> = content.window(wrong.offset..wrong.offset + 1).collect();
            let via = if how == Look::Mapping {
                Via::Mapping
            } else {
                Via::Read
            };
            let finding = self.finding(file, wrong, &bytes, &pieces, Phase::After, via);
            let round = self.part.plan.round_of(wrong.offset, from, to);
            let bit = 1 << (round - from);
            self.part.board.violated().fetch_or(bit, SeqCst);
            let now = self.part.board.now();
            self.tell(Finding {
                pass,
                round,
                clock: [now, now, 0, 0],
                ..finding
            })?;
            places.push(place_of(file, wrong.offset / self.part.plan.page()));
        }
        Ok(places)
    }

    /// The suspect to confirm now, or 0.
    fn next_suspect(&self) -> u64 {
        let all = (0..self.part.plan.actors.len()).map(|a| self.part.board.suspect(a).load(SeqCst));
        let worth = |s: &u64| *s & FRESH != 0 || *s != 0 && self.confirmed < PER_TRIAL;
        // Fresh ones are the largest.
        all.filter(worth).max().unwrap_or(0) & !FRESH
    }

    /// All actors look at the suspect page again; the leader asks and tells.
    fn confirm(
        &mut self,
        suspect: u64,
        rounds: std::ops::Range<u64>,
        contents: &[Content],
    ) -> Result<(), Ended> {
        let (board, spin, plan) = (self.part.board, self.part.spin, self.part.plan);
        let (file, page) = file_and_page(suspect);
        let content = &contents[usize::from(file)];
        let start = page * plan.page();
        // A page past the end has no bytes to look at: the whole of it must stay away.
        let end = match content.size() {
            size if size > start => size.min(start + plan.page()),
            _ => start + plan.page(),
        };
        let range = start..end;
        let maps = plan.actors[self.part.me].maps.contains(&file);
        let again = self.leads().then(|| {
            std::thread::sleep(PAUSE);
            self.ask(Look::Read, file, &range, content)
        });
        board.gate(spin)?;
        let mine = if maps {
            self.ask(Look::Mapping, file, &range, content)
        } else {
            [0; 3]
        };
        for (word, value) in board.answer(self.part.me).iter().zip(mine) {
            word.store(value, SeqCst);
        }
        board.gate(spin)?;
        let direct = self
            .leads()
            .then(|| self.ask_directly(file, &range, content));
        if maps {
            self.subject.unmap(file, range.clone())?;
        }
        board.gate(spin)?;
        if let (Some(again), Some(direct)) = (again, direct) {
            let proved = self.subject.evict(file, range.clone())?;
            let evicted = self.ask(Look::Read, file, &range, content);
            let names = &plan.names;
            let mappings = plan
                .actors
                .iter()
                .enumerate()
                .filter(|(_, a)| a.maps.contains(&file))
                .map(|(i, a)| {
                    (
                        a.name.clone(),
                        decode(board.answer(i).map(|w| w.load(SeqCst)), names),
                    )
                });
            let message = Message::Confirmed {
                rounds: (rounds.start, rounds.end),
                file,
                at: range.start,
                len: range.end - range.start,
                again: decode(again, names),
                mappings: mappings.collect(),
                direct,
                evicted: decode(evicted, names),
                proved,
            };
            self.confirmed += 1;
            self.sender.send(&message)?;
        }
        Ok(board.gate(spin)?)
    }

    /// Looks at the page once more; whose the first wrong byte is, if there is one, as an answer in words of
    /// shared memory.
    fn ask(
        &mut self,
        how: Look,
        file: FileId,
        range: &std::ops::Range<u64>,
        content: &Content,
    ) -> [u64; 3] {
        let len = (range.end - range.start) as usize;
        let outcome = self
            .subject
            .look(how, file, range.start, &mut self.probe[..len]);
        if outcome.errno != 0 {
            return failed(outcome.errno);
        }
        let seen = &self.probe[..outcome.bytes as usize];
        let pieces: Vec<Piece> = content.window(range.clone()).collect();
        let stamps = self.part.stamps;
        match judge(stamps, range.start, seen, std::iter::once(&pieces[..])) {
            Ok(()) => encode(None),
            Err(wrong) => {
                let bytes = &seen[(wrong.offset - range.start) as usize..];
                encode(Some(Got::name(stamps, wrong.offset, bytes)))
            }
        }
    }

    fn ask_directly(
        &mut self,
        file: FileId,
        range: &std::ops::Range<u64>,
        content: &Content,
    ) -> Answer {
        if let Some(why) = why_not(self.part.direct) {
            return Answer::NotAsked(why.into());
        }
        decode(
            self.ask(Look::Direct, file, range, content),
            &self.part.plan.names,
        )
    }
}

/// A page of a file as one word, never 0.
pub(crate) fn place_of(file: FileId, page: u64) -> u64 {
    1 + (u64::from(file) << FILE_SHIFT | page)
}

fn file_and_page(place: u64) -> (FileId, u64) {
    let place = place - 1;
    (
        (place >> FILE_SHIFT) as FileId,
        place & ((1 << FILE_SHIFT) - 1),
    )
}

/// Why a direct read would confirm nothing, if it would not.
pub(crate) fn why_not(direct: DirectIo) -> Option<&'static str> {
    match direct {
        DirectIo::Real => None,
        DirectIo::Buffered => Some("direct reads come from the page cache here"),
        DirectIo::None => Some("O_DIRECT is refused here"),
    }
}
