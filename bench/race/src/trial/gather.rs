//! From findings and their confirmations to violations, and from calls that sleep where they must not.

use super::*;

impl Lead<'_> {
    /// Notices an actor that sleeps in a call that must not wait: the same call in two looks at least
    /// 100 ms apart, asleep both times.
    pub(super) fn watch_waits(&mut self, pass: u64) {
        let pids = self.crew.pids();
        for actor in 0..self.plan.actors.len() {
            let sequence = self.board.no_wait(actor).load(SeqCst);
            let (seen, since) = self.waits[actor];
            let Some(&pid) = pids.get(actor).filter(|_| sequence % 2 == 1) else {
                continue;
            };
            let Some(frame) = crate::asleep::asleep(pid) else {
                self.waits[actor] = (0, Instant::now());
                continue;
            };
            if seen != sequence {
                self.waits[actor] = (sequence, Instant::now());
            } else if since.elapsed() >= Duration::from_millis(100)
                && self.violations.len() < MOST_VIOLATIONS
            {
                self.waits[actor] = (0, Instant::now());
                self.evidence.blocked.push(format!(
                    "{} asleep in {frame}",
                    self.plan.actors[actor].name
                ));
                self.violations.push(self.blocked(pass, actor, &frame));
            }
        }
    }

    pub(super) fn blocked(&self, pass: u64, actor: usize, frame: &str) -> Violation {
        Violation {
            verdict: Verdict::Blocked,
            phase: Phase::Race,
            via: Via::Result,
            actor: self.plan.actors[actor].name.clone(),
            file: self.plan.names[usize::from(self.plan.on)].clone(),
            offset: 0,
            wrong_bytes: 0,
            pass,
            round: self.board.rounds().load(SeqCst),
            got: format!("asleep in {frame}, seen twice at least 100 ms apart in one call"),
            expected: "data or EAGAIN, without waiting".into(),
            bytes: String::new(),
            clock: [0; 4],
            at_s: self.evidence.racing_ns as f64 / 1e9,
            confirmation: None,
        }
    }

    /// Whether a record has room for one more; always for the first of a verdict.
    pub(super) fn has_room(&self, verdict: Verdict) -> bool {
        self.violations.len() < MOST_VIOLATIONS
            || self.violations.iter().all(|v| v.verdict != verdict)
    }

    /// Turns the findings of a pass and their confirmations into violations.
    pub(super) fn gather(&mut self, pass: u64, before_ns: u64) {
        let findings = std::mem::take(&mut self.findings);
        for finding in findings {
            let confirmation = self.confirmation(pass, &finding);
            let unconfirmed = confirmation.is_none() && finding.via != Via::Result;
            if unconfirmed || !self.has_room(finding.verdict) {
                self.evidence.further_violations += 1;
                continue;
            }
            let evicted = confirmation.as_ref().filter(|c| c.eviction_proved);
            let verdict = match (finding.verdict, evicted.map(|c| &c.evicted)) {
                (Verdict::Stale, Some(Answer::Wrong(_))) => Verdict::StaleMapping,
                // What is there once the page is gone was never lost.
                (Verdict::Lost, Some(Answer::Legal)) if finding.result.is_none() => Verdict::Stale,
                (other, _) => other,
            };
            self.violations.push(Violation {
                verdict,
                phase: finding.phase,
                via: finding.via,
                actor: self.plan.actors[finding.actor].name.clone(),
                file: self.plan.names[usize::from(finding.file)].clone(),
                offset: finding.offset,
                wrong_bytes: finding.wrong_bytes,
                pass,
                round: finding.round,
                got: finding.got,
                expected: finding.expected,
                bytes: finding.bytes.iter().map(|b| format!("{b:02x}")).collect(),
                clock: finding.clock,
                at_s: (before_ns + finding.at_ns) as f64 / 1e9,
                confirmation,
            });
        }
    }

    fn confirmation(&self, pass: u64, finding: &Finding) -> Option<Confirmation> {
        self.confirmed
            .iter()
            .find_map(|(in_pass, message)| match message {
                Message::Confirmed {
                    rounds: (from, to),
                    file,
                    at,
                    len,
                    again,
                    mappings,
                    direct,
                    evicted,
                    proved,
                } if *in_pass == pass
                    && (*from..*to).contains(&finding.round)
                    && *file == finding.file
                    && (*at..at + len).contains(&finding.offset) =>
                {
                    let wrong = |a: &Answer| matches!(a, Answer::Wrong(_));
                    let seen_again = wrong(again)
                        || mappings.iter().any(|(_, a)| wrong(a))
                        || wrong(direct)
                        || wrong(evicted);
                    Some(Confirmation {
                        again: again.clone(),
                        mappings: mappings.clone(),
                        direct: direct.clone(),
                        evicted: evicted.clone(),
                        eviction_proved: *proved,
                        borne_out: seen_again
                            || finding.phase == Phase::Race
                                && finding.rejudged
                                && finding.wrong_bytes > 0,
                    })
                }
                _ => None,
            })
    }
}
