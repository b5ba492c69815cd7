//! Fault injection: makes an operation lie, so that a test can prove that the bench notices.
//!
//! Sits between the engine and any subject and speaks only their traits, so what it shows is judged like
//! everything else. Each kind names the verdict that a trial must end in. Where lying in every round would
//! be nothing like a race, a lie is told in some rounds only, always the same ones.

use std::io;
use std::sync::Arc;

use punchbench_race::{Stage, Subject, SubjectError, Subjects};
use punchbench_results::Verdict;
use punchbench_scenarios::{Actor, Effect, Op, Role, Scenario};

mod board;
mod liar;
mod stage;

use board::Board;
use liar::{Liar, Part};
use stage::InjectedStage;

/// What is made to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    SkipInvalidation,
    StaleCache,
    Foreign,
    Background,
    DropStore,
    DropWrite,
    CutShort,
    ChangeWitness,
    Wait,
    Errno,
    Hang,
    KernelWarning,
    NeverOverlap,
    NeverFill,
    Crash,
}

/// A kind of injection.
#[derive(Debug)]
pub struct Kind {
    /// The word on the command line.
    pub word: &'static str,
    /// The verdict it must produce.
    pub verdict: Verdict,
    /// What it does.
    pub doc: &'static str,
    lie: Lie,
}

/// A chosen injection.
#[derive(Debug, Clone)]
pub struct Injection {
    kind: &'static Kind,
    /// Only this actor lies.
    actor: Option<String>,
}

/// An injection that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// There is no such kind.
    #[error("there is no injection `{word}`; there are {}", words())]
    Unknown {
        /// As given.
        word: String,
    },
    /// The kind lies through one part only, so no actor can be chosen.
    #[error("`{word}` takes no actor; `never-overlap:ACTOR` does")]
    TakesNoActor {
        /// The kind.
        word: &'static str,
    },
    /// The scenario gives it nothing to lie about.
    #[error("`{word}` needs {needs}, and {scenario} has none")]
    NotApplicable {
        /// The kind.
        word: &'static str,
        /// What it needs.
        needs: String,
        /// The scenario.
        scenario: String,
    },
    /// No memory to share between the actors.
    #[error("mapping memory for the injection failed: {0}")]
    Memory(#[from] io::Error),
}

impl Injection {
    /// Every kind.
    pub const ALL: &[Kind] = &[
        Kind {
            lie: Lie::SkipInvalidation,
            word: "skip-invalidation",
            verdict: Verdict::StaleMapping,
            doc: "the invalidator reports success and does nothing (`stale` where nothing can be evicted)",
        },
        Kind {
            lie: Lie::StaleCache,
            word: "stale-cache",
            verdict: Verdict::Stale,
            doc: "reads and mappings show the bytes from before the operation until they are evicted",
        },
        Kind {
            lie: Lie::Foreign,
            word: "foreign",
            verdict: Verdict::Foreign,
            doc: "the range holds another file's stamps after the operation",
        },
        Kind {
            lie: Lie::Background,
            word: "background",
            verdict: Verdict::Uninitialized,
            doc: "the range holds the device's background after the operation",
        },
        Kind {
            lie: Lie::DropStore,
            word: "drop-store",
            verdict: Verdict::Lost,
            doc: "a completed store has no effect",
        },
        Kind {
            lie: Lie::DropWrite,
            word: "drop-write",
            verdict: Verdict::Lost,
            doc: "a completed write, or a page of a long one, has no effect",
        },
        Kind {
            lie: Lie::CutShort,
            word: "cut-short",
            verdict: Verdict::Inconclusive,
            doc: "a read into a mapping moves half of what it was asked for, as it may",
        },
        Kind {
            lie: Lie::ChangeWitness,
            word: "change-witness",
            verdict: Verdict::Damaged,
            doc: "a byte of a witness flips beside the operation",
        },
        Kind {
            lie: Lie::Wait,
            word: "wait",
            verdict: Verdict::Blocked,
            doc: "a NOWAIT read waits for 400 ms",
        },
        Kind {
            lie: Lie::Errno,
            word: "errno",
            verdict: Verdict::WrongResult,
            doc: "the invalidator works and reports EIO",
        },
        Kind {
            lie: Lie::Hang,
            word: "hang",
            verdict: Verdict::Hung,
            doc: "the invalidator never returns",
        },
        Kind {
            lie: Lie::KernelWarning,
            word: "kernel-warning",
            verdict: Verdict::KernelReport,
            doc: "a warning appears in the kernel's log beside the operation",
        },
        Kind {
            lie: Lie::NeverOverlap,
            word: "never-overlap",
            verdict: Verdict::Inconclusive,
            doc: "every filler, or with `:ACTOR` that one, waits until the invalidator has returned",
        },
        Kind {
            lie: Lie::NeverFill,
            word: "never-fill",
            verdict: Verdict::Inconclusive,
            doc: "fillers report success and bring no page into the page cache",
        },
        Kind {
            lie: Lie::Crash,
            word: "crash",
            verdict: Verdict::Error,
            doc: "the invalidator's process aborts",
        },
    ];

    /// Reads `KIND` or `never-overlap:ACTOR`.
    pub fn parse(text: &str) -> Result<Injection, InjectError> {
        let (word, actor) = match text.split_once(':') {
            Some((word, actor)) => (word, Some(actor.to_owned())),
            None => (text, None),
        };
        let kind = Self::ALL
            .iter()
            .find(|kind| kind.word == word)
            .ok_or_else(|| InjectError::Unknown { word: word.into() })?;
        if actor.is_some() && kind.lie != Lie::NeverOverlap {
            return Err(InjectError::TakesNoActor { word: kind.word });
        }
        Ok(Injection { kind, actor })
    }

    /// Which kind it is.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// Whether an actor of the scenario is one that this injection lies through.
    fn lies(&self, name: &str, actor: &Actor) -> bool {
        let does = |f: &dyn Fn(&Op) -> bool| actor.ops.iter().any(f);
        match self.kind.lie {
            Lie::SkipInvalidation | Lie::StaleCache => {
                actor.role == Role::Invalidator && does(&|op| op.effect() != Effect::None)
            }
            Lie::Foreign
            | Lie::Background
            | Lie::ChangeWitness
            | Lie::Errno
            | Lie::Hang
            | Lie::KernelWarning
            | Lie::Crash => actor.role == Role::Invalidator,
            Lie::DropStore => does(&|op| matches!(op, Op::Store(_))),
            Lie::DropWrite => does(&|op| matches!(op, Op::Write(_))),
            Lie::CutShort => does(&|op| matches!(op, Op::ReadInto(_))),
            Lie::Wait => does(&Op::may_not_wait),
            Lie::NeverFill => actor.role == Role::Filler,
            Lie::NeverOverlap => {
                matches!(actor.role, Role::Filler | Role::Dirtier)
                    && self.actor.as_deref().is_none_or(|only| only == name)
            }
        }
    }

    /// What the scenario must have for this injection to say anything.
    fn needs(&self) -> String {
        match (self.kind.lie, &self.actor) {
            (Lie::NeverOverlap, Some(actor)) => format!("a filler or dirtier `{actor}`"),
            (Lie::NeverOverlap, None) => "a filler or dirtier".into(),
            (Lie::NeverFill, _) => "a filler".into(),
            (Lie::SkipInvalidation | Lie::StaleCache, _) => {
                "an invalidator that changes content".into()
            }
            (Lie::DropStore, _) => "an actor that stores".into(),
            (Lie::DropWrite, _) => "an actor that writes".into(),
            (Lie::CutShort, _) => "an actor that reads into a mapping".into(),
            (Lie::Wait, _) => "an actor that reads with `nowait`".into(),
            (Lie::ChangeWitness, _) => "a witness".into(),
            (
                Lie::Foreign
                | Lie::Background
                | Lie::Errno
                | Lie::Hang
                | Lie::KernelWarning
                | Lie::Crash,
                _,
            ) => "an invalidator".into(),
        }
    }
}

fn words() -> String {
    let words: Vec<_> = Injection::ALL.iter().map(|kind| kind.word).collect();
    words.join(", ")
}

/// Subjects some of which lie.
pub struct InjectedSubjects {
    inner: Box<dyn Subjects>,
    injection: Injection,
    /// What each actor does in the lie.
    parts: Vec<Part>,
    /// And the coordinator, who carries out what a reuser does.
    coordinator: Part,
    witness: Option<u16>,
    /// Another file's number, for its stamps.
    other: u16,
    nonce: u64,
    board: Arc<Board>,
    /// One attempt decides: every call is lied about.
    always: bool,
}

impl std::fmt::Debug for InjectedSubjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InjectedSubjects")
            .field("injection", &self.injection)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}

impl InjectedSubjects {
    /// Puts `injection` over `inner`, before the actors are forked. `nonce` is that of the run's stamps.
    pub fn new(
        inner: Box<dyn Subjects>,
        injection: Injection,
        scenario: &Scenario,
        nonce: u64,
    ) -> Result<InjectedSubjects, InjectError> {
        let part = |(name, actor): (&str, &Actor)| match actor.role {
            Role::Invalidator => Part::Invalidator,
            Role::Reuser | Role::Filler | Role::Dirtier | Role::Helper
                if injection.lies(name, actor) =>
            {
                Part::Liar
            }
            Role::Reuser | Role::Filler | Role::Dirtier | Role::Helper => Part::Honest,
        };
        let parts = scenario.actors.iter().map(part).collect();
        let mut actors = scenario.actors.iter();
        let coordinator = match actors.any(|(n, a)| a.role == Role::Reuser && injection.lies(n, a))
        {
            true => Part::Liar,
            false => Part::Honest,
        };
        let witness = scenario.files.iter().position(|(_, file)| file.witness);
        let anyone = scenario.actors.iter().any(|(n, a)| injection.lies(n, a));
        if !anyone || injection.kind.lie == Lie::ChangeWitness && witness.is_none() {
            return Err(InjectError::NotApplicable {
                word: injection.kind.word,
                needs: injection.needs(),
                scenario: scenario.scenario.clone(),
            });
        }
        let raced = scenario.files.index(&scenario.round.on).unwrap_or(0);
        Ok(InjectedSubjects {
            inner,
            injection,
            parts,
            coordinator,
            witness: witness.map(|file| file as u16),
            other: u16::from(raced == 0),
            always: scenario.is_staged(),
            nonce,
            board: Arc::new(Board::new()?),
        })
    }

    fn wrap(&self, inner: Box<dyn Subject>, part: Part) -> Result<Box<dyn Subject>, SubjectError> {
        Ok(Box::new(Liar::new(self, inner, part)?))
    }
}

impl Subjects for InjectedSubjects {
    fn actor(&self, index: usize) -> Result<Box<dyn Subject>, SubjectError> {
        let part = self.parts.get(index).copied().unwrap_or(Part::Honest);
        self.wrap(self.inner.actor(index)?, part)
    }

    fn coordinator(&self) -> Result<Box<dyn Subject>, SubjectError> {
        self.wrap(self.inner.coordinator()?, self.coordinator)
    }

    fn stage(&self) -> Result<Box<dyn Stage>, SubjectError> {
        Ok(Box::new(InjectedStage {
            inner: self.inner.stage()?,
            board: Arc::clone(&self.board),
        }))
    }
}

#[cfg(test)]
mod tests;
