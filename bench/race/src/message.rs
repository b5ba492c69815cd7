//! What actors tell the coordinator between rounds: JSON lines on a pipe, for processes and threads alike.

use std::fs::File;
use std::io::{Read, Write};

use punchbench_results::{Answer, FillerEvidence, Phase, Via};
use serde::{Deserialize, Serialize};

use crate::content::Legal;
use crate::judge::Got;

/// An observation that nothing legal explains, as the actor that made it saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finding {
    /// The raced file or whichever it was, by number.
    pub file: u16,
    /// Offset of the first wrong byte.
    pub offset: u64,
    /// How many were wrong.
    pub wrong_bytes: u64,
    /// In the race or after it.
    pub phase: Phase,
    /// How it was seen.
    pub via: Via,
    /// Who saw it, by position among the racing actors.
    pub actor: usize,
    /// Pass and round.
    pub pass: u64,
    /// Round within the pass.
    pub round: u64,
    /// The first wrong bytes.
    pub bytes: Vec<u8>,
    /// Observation's begin and end, invalidator's begin and end.
    pub clock: [u64; 4],
    /// Nanoseconds of racing in this pass until then.
    pub at_ns: u64,
    /// What was wrong with the call itself rather than with bytes, such as an errno.
    pub result: Option<String>,
    /// A second, independent look at the very bytes agreed (observations within the race).
    pub rejudged: bool,
    /// What was legal at the first wrong byte, in words, and the verdict it amounts to.
    pub expected: String,
    /// The verdict of the finding by itself.
    pub verdict: punchbench_results::Verdict,
    /// Whose it is, in words.
    pub got: String,
}

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// An actor is ready; the CPU it was bound to.
    Ready {
        /// `None` where binding failed.
        cpu: Option<u32>,
    },
    /// Something illegal.
    Found(Box<Finding>),
    /// The leader had a range confirmed.
    Confirmed {
        /// The batch whose findings it is about: its first round, and the one after its last.
        rounds: (u64, u64),
        /// Which file and where the confirmed page begins.
        file: u16,
        /// Offset of the page.
        at: u64,
        /// Its length.
        len: u64,
        /// Read again after a pause.
        again: Answer,
        /// Through the actors' mappings.
        mappings: Vec<(String, Answer)>,
        /// Directly.
        direct: Answer,
        /// After eviction.
        evicted: Answer,
        /// Whether absence was proved before.
        proved: bool,
    },
    /// The leader is through with a pass.
    PassDone {
        /// Rounds raced in it.
        rounds: u64,
        /// Nanoseconds from the first gate to the last judgement.
        racing_ns: u64,
        /// Results of the invalidator that a scenario counts.
        outcomes: Vec<(String, u64)>,
        /// Violations beyond those reported one by one.
        further: u64,
        /// Rounds of the trial so far in which anything illegal was seen.
        violated: u64,
        /// The limits of the trial are reached, or it cannot go on.
        last: bool,
    },
    /// Another actor is through with a pass; all it has counted so far.
    Counted {
        /// Its evidence.
        evidence: FillerEvidence,
        /// Violations beyond those reported one by one.
        further: u64,
    },
    /// The actor cannot go on: the bench's own trouble.
    Failed {
        /// Why.
        what: String,
        /// The system's answer, where it was a call that failed.
        errno: Option<i32>,
    },
}

/// The writing end.
#[derive(Debug)]
pub struct Sender(pub File);

impl Sender {
    /// Sends one message. The coordinator reads all the time, so this waits for it at most briefly.
    pub fn send(&mut self, message: &Message) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// The reading end, with the part of a line that has come so far.
#[derive(Debug)]
pub struct Receiver {
    pipe: File,
    partial: Vec<u8>,
}

impl Receiver {
    /// Reads from a non-blocking pipe.
    pub fn new(pipe: File) -> Receiver {
        Receiver {
            pipe,
            partial: Vec::new(),
        }
    }

    /// The pipe, for poll(2).
    pub fn pipe(&self) -> &File {
        &self.pipe
    }

    /// All whole messages that have come; `true` when the actor has closed its end.
    pub fn drain(&mut self, messages: &mut Vec<Message>) -> std::io::Result<bool> {
        let mut buf = [0; 16384];
        loop {
            match self.pipe.read(&mut buf) {
                Ok(0) => return Ok(true),
                Ok(n) => self.partial.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            while let Some(end) = self.partial.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                messages.push(serde_json::from_slice(&line)?);
            }
        }
    }
}

/// An answer in three words of shared memory: 0 nothing, 1 legal, else wrong and whose.
pub fn encode(wrong: Option<Got>) -> [u64; 3] {
    match wrong {
        None => [1, 0, 0],
        Some(Got::Zeros) => [2, 0, 0],
        Some(Got::Unknown) => [3, 0, 0],
        Some(Got::End) => [4, 0, 0],
        Some(Got::Stamp(owner, offset)) => [5, owner.pack(), offset],
    }
}

/// An answer that could not be had, in the same words.
pub fn failed(errno: i32) -> [u64; 3] {
    [6, errno as u64, 0]
}

/// The reverse of [`encode`] and [`failed`], in words.
pub fn decode(words: [u64; 3], names: &[String]) -> Answer {
    let got = match words[0] {
        1 => return Answer::Legal,
        2 => Got::Zeros,
        3 => Got::Unknown,
        4 => Got::End,
        5 => Got::Stamp(crate::stamp::Owner::unpack(words[1]), words[2]),
        6 => {
            let error = std::io::Error::from_raw_os_error(words[1] as i32);
            return Answer::NotAsked(format!("the look failed: {error}"));
        }
        _ => return Answer::NotAsked("no mapping".into()),
    };
    Answer::Wrong(got.words(names))
}

/// What was legal at one byte: whatever any of the pieces that cover it allows.
pub fn legal_at(pieces: &[crate::content::Piece], offset: u64) -> Option<Legal> {
    let covering = pieces
        .iter()
        .filter(|p| p.start <= offset && offset < p.end());
    covering
        .map(|p| p.legal_at(offset))
        .reduce(|mut all, legal| {
            all.extend(&legal);
            all
        })
}
