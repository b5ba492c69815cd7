//! A counterexample as a line of text: which set-up, which policy, what they compiled to, and who stepped
//! when. Whoever has the same version of the program sees the same thing.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::Model;
use crate::shortest::Schedule;

/// The version of tokens that this program writes and reads.
pub const VERSION: &str = "v1";

/// A parsed token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The set-up's name: a hazard's or a scenario's.
    pub setup: String,
    /// The policy's name.
    pub policy: String,
    /// Of the compiled programs, so that another version's schedule is not replayed on this one's.
    pub programs: u64,
    /// Who stepped.
    pub schedule: Schedule,
}

/// Why a token cannot be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its first part is not our version.
    #[error(
        "the token is of version `{0}`, this program reads {VERSION}; run the program that wrote it, or explore again"
    )]
    Version(String),
    /// It has not the five parts.
    #[error(
        "column {column}: {what}; a token is {VERSION}:SETUP:POLICY:PROGRAMS:STEPS, such as {VERSION}:punch-read-reuse:none:1f2e:0*4.1*6"
    )]
    Shape {
        /// Where, from 1.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// The set-up or the policy has changed since.
    #[error(
        "the token was made of other programs than {setup} under {policy} now compiles to; explore again"
    )]
    Changed {
        /// The set-up.
        setup: String,
        /// The policy.
        policy: String,
    },
    /// A step that cannot be taken.
    #[error("step {step} is actor {actor}'s, who cannot take one there")]
    Step {
        /// From 1.
        step: usize,
        /// From 0.
        actor: u8,
    },
}

/// A number that stands for what a model's actors do.
pub fn programs_hash(model: &Model) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}{:?}", model.programs, model.first).hash(&mut hasher);
    hasher.finish() & 0xffff_ffff
}

impl Token {
    /// Of a schedule.
    pub fn of(model: &Model, schedule: &[u8]) -> Token {
        Token {
            setup: model.name.clone(),
            policy: model.policy.clone(),
            programs: programs_hash(model),
            schedule: schedule.to_vec(),
        }
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        if parts[0] != VERSION {
            return Err(TokenError::Version(parts[0].to_owned()));
        }
        let column = |n: usize| {
            parts[..n]
                .iter()
                .map(|p| p.chars().count() + 1)
                .sum::<usize>()
                + 1
        };
        let shape = |n: usize, what: String| TokenError::Shape {
            column: column(n),
            what,
        };
        let [_, setup, policy, programs, steps] = parts[..] else {
            return Err(shape(
                parts.len().min(5),
                format!("{} parts instead of 5", parts.len()),
            ));
        };
        let programs = u64::from_str_radix(programs, 16)
            .map_err(|_| shape(3, format!("`{programs}` is no hexadecimal number")))?;
        let mut schedule = Vec::new();
        for run in steps.split('.') {
            let bad = || shape(4, format!("`{run}` is not ACTOR*TIMES"));
            let (actor, times) = run.split_once('*').ok_or_else(bad)?;
            let actor: u8 = actor.parse().map_err(|_| bad())?;
            let times: usize = times.parse().map_err(|_| bad())?;
            if schedule.len() + times > 100_000 {
                return Err(shape(4, "more than 100000 steps".into()));
            }
            schedule.extend(std::iter::repeat_n(actor, times));
        }
        Ok(Token {
            setup: setup.to_owned(),
            policy: policy.to_owned(),
            programs,
            schedule,
        })
    }

    /// Whether it belongs to this model.
    pub fn fits(&self, model: &Model) -> Result<(), TokenError> {
        if self.programs == programs_hash(model) {
            return Ok(());
        }
        Err(TokenError::Changed {
            setup: self.setup.clone(),
            policy: self.policy.clone(),
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let runs = self.schedule.chunk_by(|a, b| a == b);
        let runs: Vec<String> = runs.map(|r| format!("{}*{}", r[0], r.len())).collect();
        let (setup, policy, programs) = (&self.setup, &self.policy, self.programs);
        write!(
            f,
            "{VERSION}:{setup}:{policy}:{programs:x}:{}",
            runs.join(".")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token {
            setup: "punch-read-reuse".into(),
            policy: "none".into(),
            programs: 0x1f2e,
            schedule: vec![0, 0, 0, 1, 0],
        };
        let text = token.to_string();
        assert_eq!(text, "v1:punch-read-reuse:none:1f2e:0*3.1*1.0*1");
        assert_eq!(Token::parse(&text), Ok(token));
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_place() {
        for (text, says) in [
            ("v2:a:b:1:0*1", "version `v2`"),
            ("", "version ``"),
            ("v1:a:b", "column 8: 3 parts"),
            ("v1:a:b:x:0*1", "column 8: `x`"),
            ("v1:a:b:1:0*1.7", "column 10: `7` is not"),
            ("v1:a:b:1:0*999999999", "column 10: more than"),
        ] {
            let error = Token::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
