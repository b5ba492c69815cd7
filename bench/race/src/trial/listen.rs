//! What the coordinator hears from the actors, and that it hears when one is gone.

use super::*;

impl Lead<'_> {
    pub(super) fn await_ready(&mut self) -> Result<(), RaceError> {
        let mut ready = vec![None; self.plan.actors.len()];
        while ready.contains(&None) {
            for (actor, message) in self.messages()? {
                if let Message::Ready { cpu } = message {
                    ready[actor] = Some(cpu);
                }
            }
        }
        let named = self.plan.actors.iter().zip(ready);
        self.placement = named
            .map(|(a, cpu)| Placement {
                actor: a.name.clone(),
                cpu: cpu.flatten(),
            })
            .collect();
        Ok(())
    }

    /// Waits for messages, at most a tick; fails when an actor did.
    pub(super) fn messages(&mut self) -> Result<Vec<(usize, Message)>, RaceError> {
        {
            let mut fds: Vec<PollFd> = self
                .crew
                .receivers
                .iter()
                .map(|r| PollFd::new(r.pipe().as_fd(), PollFlags::POLLIN))
                .collect();
            match poll(
                &mut fds,
                PollTimeout::try_from(TICK).unwrap_or(PollTimeout::ZERO),
            ) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
        }
        let mut all = Vec::new();
        let mut closed = false;
        for (actor, receiver) in self.crew.receivers.iter_mut().enumerate() {
            let mut messages = Vec::new();
            closed |= receiver.drain(&mut messages)?;
            all.extend(messages.into_iter().map(|m| (actor, m)));
        }
        for (actor, message) in &all {
            if let Message::Failed { what, errno } = message {
                return Err(RaceError::Actor {
                    actor: self.plan.actors[*actor].name.clone(),
                    what: what.clone(),
                    errno: *errno,
                });
            }
        }
        if let Some((actor, exit)) = self.crew.dead()? {
            return Err(RaceError::Died {
                actor: self.plan.actors[actor].name.clone(),
                exit,
            });
        }
        if closed && all.is_empty() && self.board.aborted() {
            return Err(std::io::Error::other("an actor left the race without a word").into());
        }
        Ok(all)
    }

    pub(super) fn await_pass(&mut self, pass: u64) -> Result<PassEnd, RaceError> {
        let mut waiting = self.plan.actors.len();
        let mut end = PassEnd {
            rounds: 0,
            last: false,
            void: false,
        };
        while waiting > 0 {
            for (actor, message) in self.messages()? {
                match message {
                    Message::Ready { .. } | Message::Failed { .. } => {}
                    Message::Found(finding) => self.findings.push(*finding),
                    Message::Confirmed { .. } => self.confirmed.push((pass, message)),
                    Message::Counted { evidence, further } => {
                        self.fillers[actor - 1] = evidence;
                        self.furthers[actor] = further;
                        waiting -= 1;
                    }
                    Message::PassDone {
                        rounds,
                        racing_ns,
                        outcomes,
                        further,
                        violated,
                        last,
                    } => {
                        self.evidence.violated_rounds = violated;
                        end = PassEnd {
                            rounds,
                            last,
                            void: self.board.void().load(SeqCst) != 0,
                        };
                        self.evidence.rounds += rounds;
                        self.evidence.racing_ns += racing_ns;
                        self.evidence.outcomes = outcomes.into_iter().collect::<BTreeMap<_, _>>();
                        self.furthers[actor] = further;
                        waiting -= 1;
                    }
                }
            }
            self.watch_waits(pass);
            (self.on_event)(Event::Racing {
                pass,
                rounds: self.board.rounds().load(SeqCst),
            });
        }
        Ok(end)
    }
}
