//! What an actor tells of a batch once it is over: illegal observations, named, and put up for confirmation.

use std::sync::atomic::Ordering::SeqCst;

use nix::errno::Errno;

use super::round::legal;
use super::*;

impl Racer<'_> {
    /// Tells of the illegal observations of the batch, and puts the first up for confirmation.
    pub(super) fn report_held(&mut self, pass: u64) -> Result<(), Ended> {
        self.part.board.suspect(self.part.me).store(0, SeqCst);
        let held = std::mem::take(&mut self.batch.held);
        let told = held[..self.batch.kept]
            .iter()
            .try_for_each(|h| self.report_one(pass, h));
        self.batch.held = held;
        self.batch.kept = 0;
        told
    }

    fn report_one(&mut self, pass: u64, held: &Held) -> Result<(), Ended> {
        let plan = self.part.plan;
        let step = &self.batch.rounds[(held.round - self.batch.first) as usize].steps[held.step];
        let op = &plan.actors[self.part.me].ops[held.step];
        let (file, start) = operand(&step.call);
        let finding = match held.wrong {
            Some(wrong) => {
                let at = (wrong.offset - start) as usize;
                let seen = &held.bytes[..held.outcome.bytes as usize];
                let again = judge(self.part.stamps, start, seen, legal(step, held.applied));
                let pieces: Vec<Piece> = legal(step, held.applied).flatten().copied().collect();
                let mut finding = self.finding(
                    file,
                    wrong,
                    &seen[at..],
                    &pieces,
                    Phase::Race,
                    via(&step.call),
                );
                finding.rejudged = again == Err(wrong);
                finding
            }
            None => {
                let word = op.word();
                let (result, verdict) = match (held.outcome.sigbus, held.outcome.errno) {
                    (true, _) => (
                        format!("{word} raised SIGBUS within the file"),
                        Verdict::WrongResult,
                    ),
                    (_, 0) if held.outcome.same != Some(true) => {
                        return Err(Ended::Bench(format!(
                            "{word} on {} moved {} bytes only",
                            plan.names[usize::from(file)],
                            held.outcome.bytes
                        )));
                    }
                    (_, 0) => (
                        format!(
                            "{word} answered SAME although a store that made the files differ had completed before it began"
                        ),
                        Verdict::Lost,
                    ),
                    (_, errno) if is_benchs_own(errno) => {
                        let error = std::io::Error::from_raw_os_error(errno);
                        return Err(Ended::Bench(format!(
                            "{word} on {} failed: {error}",
                            plan.names[usize::from(file)]
                        )));
                    }
                    (_, errno) => {
                        let error = std::io::Error::from_raw_os_error(errno);
                        (format!("{word} failed: {error}"), Verdict::WrongResult)
                    }
                };
                let wrong = Wrong {
                    offset: start,
                    bytes: 0,
                };
                let mut finding = self.finding(file, wrong, &[], &[], Phase::Race, Via::Result);
                finding.result = Some(result.clone());
                (finding.got, finding.expected, finding.verdict) =
                    (result, "success".into(), verdict);
                finding.rejudged = true;
                finding
            }
        };
        self.tell(Finding {
            pass,
            round: held.round,
            clock: held.clock,
            at_ns: held.at_ns,
            ..finding
        })
    }

    /// A finding with everything but its place in time.
    pub(crate) fn finding(
        &self,
        file: FileId,
        wrong: Wrong,
        bytes: &[u8],
        pieces: &[Piece],
        phase: Phase,
        via: Via,
    ) -> Finding {
        let names = &self.part.plan.names;
        let got = Got::name(self.part.stamps, wrong.offset, bytes);
        let expected = legal_at(pieces, wrong.offset);
        let witness = self.part.plan.files[usize::from(file)].witness;
        let verdict = if witness {
            Verdict::Damaged
        } else {
            let plan = self.part.plan;
            got.of(file, |owner| plan.is_own(file, owner))
                .verdict(file, expected.as_ref())
        };
        Finding {
            file,
            offset: wrong.offset,
            wrong_bytes: wrong.bytes,
            phase,
            via,
            actor: self.part.me,
            pass: 0,
            round: 0,
            bytes: bytes[..bytes.len().min(64)].to_vec(),
            clock: [0; 4],
            at_ns: self.started.elapsed().as_nanos() as u64,
            result: None,
            rejudged: false,
            expected: legal_words(expected.as_ref(), names),
            verdict,
            got: got.words(names),
        }
    }

    /// Sends a finding and puts it up for confirmation, unless there have been too many; the first of each
    /// verdict is never one too many.
    pub(crate) fn tell(&mut self, finding: Finding) -> Result<(), Ended> {
        self.findings += 1;
        let fresh = !self.told.contains(&finding.verdict);
        if fresh {
            self.told.push(finding.verdict);
        } else if self.findings > MOST_FINDINGS {
            self.further += 1;
            return Ok(());
        }
        let suspect = self.part.board.suspect(self.part.me);
        if finding.via != Via::Result && (fresh || suspect.load(SeqCst) == 0) {
            let place = place_of(finding.file, finding.offset / self.part.plan.page());
            suspect.store(place | if fresh { FRESH } else { 0 }, SeqCst);
        }
        Ok(self.sender.send(&Message::Found(Box::new(finding)))?)
    }

    /// Looks at a range and judges it page by page against the contents; tells of every wrong page.
    pub(crate) fn probe_range(
        &mut self,
        how: Look,
        file: FileId,
        range: std::ops::Range<u64>,
        content: &Content,
    ) -> Vec<(Wrong, Vec<u8>)> {
        let len = (range.end - range.start) as usize;
        let outcome = self
            .subject
            .look(how, file, range.start, &mut self.probe[..len]);
        let seen = &self.probe[..outcome.bytes as usize];
        crate::verify::wrong_pages(
            self.part.stamps,
            self.part.plan.page(),
            seen,
            range,
            content,
        )
    }
}

pub(super) fn operand(call: &Call) -> (FileId, u64) {
    match *call {
        Call::PunchHole { file, at, .. }
        | Call::ZeroRange { file, at, .. }
        | Call::CollapseRange { file, at, .. }
        | Call::InsertRange { file, at, .. }
        | Call::Read { file, at, .. }
        | Call::UringRead { file, at, .. }
        | Call::Splice { file, at, .. }
        | Call::Drain { file, at, .. }
        | Call::Fault { file, at, .. }
        | Call::Fadvise { file, at, .. }
        | Call::Readahead { file, at, .. }
        | Call::Madvise { file, at, .. }
        | Call::Fiemap { file, at, .. }
        | Call::Dedupe { file, at, .. }
        | Call::CloneRange { file, at, .. }
        | Call::ExchangeRange { file, at, .. }
        | Call::BlkZeroout { file, at, .. }
        | Call::BlkDiscard { file, at, .. }
        | Call::ReadInto { file, at, .. }
        | Call::Store { file, at, .. }
        | Call::Write { file, at, .. } => (file, at),
        Call::Truncate { file, size } => (file, size),
        Call::PrecacheExtents { file }
        | Call::SwapBoot { file }
        | Call::JournalData { file }
        | Call::Fsync { file } => (file, 0),
        Call::Syncfs => (0, 0),
    }
}

fn via(call: &Call) -> Via {
    match call {
        Call::Fault { .. } => Via::Mapping,
        Call::Read { direct: true, .. } => Via::Direct,
        _ => Via::Read,
    }
}

/// Errors that say something of the machine or the bench, not of the race.
fn is_benchs_own(errno: i32) -> bool {
    use Errno::*;
    let own = [
        ENOSPC, EFBIG, ENOMEM, EINTR, EDQUOT, EOPNOTSUPP, EPERM, EBADF, EFAULT,
    ];
    own.contains(&Errno::from_raw(errno))
}
