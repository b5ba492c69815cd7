//! What a staged scenario can show for itself: who was parked where, who was blocked on what and how long,
//! who finished, and what was let go when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Diagram, Row};

/// The course of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Staged {
    /// Who was parked, and where.
    pub parked: Vec<Parked>,
    /// Whether the pages that the operation drops were seen to be gone while it was parked; absent where
    /// the scenario does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<bool>,
    /// What every other actor did meanwhile.
    pub meanwhile: Vec<Meanwhile>,
    /// All that happened, first to last.
    pub moments: Vec<Moment>,
    /// Why this attempt proves nothing, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<String>,
}

/// An actor that what was held kept waiting in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parked {
    /// Its name.
    pub actor: String,
    /// The topmost function of its kernel stack.
    pub top: String,
    /// The function that it had to be in, of those that the scenario names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// The I/O that it waited for, as the holder saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
    /// Its kernel stack, topmost first.
    #[serde(default)]
    pub stack: Vec<String>,
}

/// What an actor did while the operation was parked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Meanwhile {
    /// Its name.
    pub actor: String,
    /// Its operations, such as `read`.
    pub op: String,
    /// What it was to do: `blocked`, `done`, `again` or `any`.
    pub expected: String,
    /// What it did.
    pub did: Did,
    /// The topmost function of its kernel stack, if it waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<String>,
    /// Milliseconds from its call to its return.
    pub ms: f64,
    /// Milliseconds that it was seen blocked, up to the release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_ms: Option<f64>,
}

/// What an actor was seen doing while the operation was parked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// Nobody looked.
    #[default]
    Unseen,
    /// It waited where a lock is taken, in two samples at least 100 ms apart and still at the release.
    Blocked,
    /// It waited elsewhere, for held I/O say.
    Waited,
    /// It returned.
    Done,
    /// It returned with EAGAIN.
    Again,
}

impl Did {
    /// As it stands in texts.
    pub fn word(self) -> &'static str {
        match self {
            Did::Unseen => "unseen",
            Did::Blocked => "blocked",
            Did::Waited => "waited",
            Did::Done => "done",
            Did::Again => "again",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Moment {
    /// Milliseconds since the first step.
    pub ms: f64,
    /// The actor that did it; empty for what the bench did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// What it was.
    pub what: String,
}

impl Staged {
    /// The attempt as the diagram of a commit message: one column an actor, the bench's own doing at the
    /// margin. `columns` are the actors' operations by name.
    pub fn diagram(&self) -> Diagram {
        let mut columns: Vec<String> = Vec::new();
        let mut moments: Vec<&Moment> = self.moments.iter().collect();
        moments.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        for moment in moments.iter().filter(|m| !m.actor.is_empty()) {
            if !columns.contains(&moment.actor) {
                columns.push(moment.actor.clone());
            }
        }
        let rows = moments.iter().map(|moment| {
            let at = format!("{:.0} ms", moment.ms);
            match columns.iter().position(|c| *c == moment.actor) {
                Some(actor) => Row::new(actor, moment.what.clone()).margin(at),
                None => Row {
                    // Of no column: what the bench did stands at the margin.
                    actor: columns.len(),
                    lines: Vec::new(),
                    margin: format!("{at}: {}", moment.what),
                },
            }
        });
        Diagram {
            rows: rows.collect(),
            columns,
            closing: self.lacking.iter().cloned().collect(),
        }
    }

    /// What was proved, in one sentence.
    pub fn proof(&self) -> String {
        let parked = self.parked.iter().map(|p| {
            let place = p.within.as_ref().unwrap_or(&p.top);
            format!("{} was parked in {place}", p.actor)
        });
        let meanwhile = self.meanwhile.iter().map(|m| match (m.did, &m.top) {
            (Did::Blocked, Some(top)) => format!("{} was blocked in {top}", m.actor),
            (Did::Waited, Some(top)) => format!("{} waited in {top}", m.actor),
            (Did::Again, _) => format!("{} got EAGAIN", m.actor),
            (Did::Done, _) => format!("{} returned meanwhile", m.actor),
            (Did::Blocked | Did::Waited | Did::Unseen, _) => {
                format!("{} was not looked at", m.actor)
            }
        });
        parked.chain(meanwhile).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_drawn_in_their_order_with_the_benchs_own_at_the_margin() {
        let moment = |ms, actor: &str, what: &str| Moment {
            ms,
            actor: actor.into(),
            what: what.into(),
        };
        let staged = Staged {
            moments: vec![
                moment(0.0, "", "`edge` is held"),
                moment(9.0, "puncher", "returns"),
                moment(1.0, "puncher", "punch_hole"),
                moment(2.0, "reader", "blocked in page_cache_ra_unbounded"),
            ],
            ..Staged::default()
        };
        let text = staged.diagram().render_text(100);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(at("`edge` is held") < at("punch_hole"));
        assert!(at("punch_hole") < at("blocked in page_cache_ra_unbounded"));
        assert!(at("blocked in page_cache_ra_unbounded") < at("returns"));
    }
}
