//! Every policy against every set-up: each cell is proved, or has its shortest counterexample, or says why
//! it is neither.

use punchbench_results::Diagram;
use punchbench_scenarios::Scenario;
use serde::Serialize;

use crate::anomaly::Anomaly;
use crate::compile::compile;
use crate::draw::draw;
use crate::explore::{Limits, estimate, explore};
use crate::hazards::hazards;
use crate::minimise::minimise;
use crate::policy::Policy;
use crate::scenario;
use crate::setup::Setup;
use crate::token::Token;
use crate::walk::{Choice, walk};

/// Walks over what is too large, of each kind.
const WALKS: usize = 20_000;

/// One policy on one set-up.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The set-up.
    pub setup: String,
    /// The policy.
    pub policy: String,
    /// What came out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// No interleaving goes wrong; all were visited.
    Proved {
        /// Different states.
        states: usize,
        /// Steps between them.
        transitions: usize,
        /// States in which a call that shows data waits for a semaphore.
        reads_waiting: usize,
    },
    /// Something goes wrong.
    Broken {
        /// What, the worst first, each with its shortest counterexample.
        anomalies: Vec<Shown>,
        /// Different states visited.
        states: usize,
        /// Whether these are all, so that no other anomaly exists.
        complete: bool,
    },
    /// Not all states were visited, and nothing was found. No proof.
    Open {
        /// Different states visited, or none if it was not begun.
        states: usize,
        /// About how many there may be.
        estimate: f64,
        /// Random and PCT walks that found nothing.
        walks: usize,
    },
    /// The model cannot run it.
    NotModelled {
        /// Why.
        why: String,
    },
}

/// One anomaly.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Which.
    pub anomaly: Anomaly,
    /// Context switches of its shortest schedule; none where no schedule shows it.
    pub switches: Option<usize>,
    /// The token that replays it.
    pub token: Option<String>,
    /// Drawn.
    pub diagram: Option<Diagram>,
}

/// A row: a set-up, or a scenario that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// What is raced, or why it is not modelled.
    pub setup: Result<Setup, String>,
}

/// The rows there are: the model's own hazards and the scenarios.
pub fn subjects(scenarios: &[Scenario]) -> Vec<Subject> {
    let own = hazards().into_iter().map(|s| Subject {
        name: s.name.clone(),
        setup: Ok(s),
    });
    let others = scenarios.iter().map(|s| Subject {
        name: s.scenario.clone(),
        setup: scenario::setup(s).map_err(|e| e.why),
    });
    own.chain(others).collect()
}

/// Explores one cell. `shown` wants counterexamples, not only their names.
pub fn cell(subject: &Subject, policy: &Policy, limits: &Limits, shown: bool) -> Cell {
    let outcome = match &subject.setup {
        Err(why) => Outcome::NotModelled { why: why.clone() },
        Ok(setup) => outcome(setup, policy, limits, shown),
    };
    Cell {
        setup: subject.name.clone(),
        policy: policy.policy.clone(),
        outcome,
    }
}

fn outcome(setup: &Setup, policy: &Policy, limits: &Limits, shown: bool) -> Outcome {
    let model = match compile(setup, policy) {
        Ok(model) => model,
        Err(e) => return Outcome::NotModelled { why: e.to_string() },
    };
    let result = explore(&model, limits);
    if result.proved() {
        return Outcome::Proved {
            states: result.states,
            transitions: result.transitions,
            reads_waiting: result.reads_waiting,
        };
    }
    if !result.found.is_empty() {
        let anomalies = result
            .found
            .iter()
            .map(|a| show(setup, policy, *a, limits, shown));
        return Outcome::Broken {
            anomalies: anomalies.collect(),
            states: result.states,
            complete: result.complete,
        };
    }
    let found = [Choice::Random, Choice::Pct { changes: 4 }]
        .into_iter()
        .find_map(|c| walk(&model, c, WALKS, 1));
    match found {
        Some(found) => Outcome::Broken {
            anomalies: vec![Shown {
                anomaly: found.anomaly,
                switches: Some(crate::shortest::switches(&found.schedule)),
                token: Some(Token::of(&model, &found.schedule).to_string()),
                diagram: draw(&model, found.anomaly, &found.schedule).ok(),
            }],
            states: result.states,
            complete: false,
        },
        None => Outcome::Open {
            states: result.states,
            estimate: estimate(&model),
            walks: 2 * WALKS,
        },
    }
}

fn show(setup: &Setup, policy: &Policy, anomaly: Anomaly, limits: &Limits, shown: bool) -> Shown {
    let none = Shown {
        anomaly,
        switches: None,
        token: None,
        diagram: None,
    };
    if !shown {
        return none;
    }
    let Some(least) = minimise(setup, policy, anomaly, limits) else {
        return none;
    };
    let diagram = draw(&least.model, anomaly, &least.schedule).ok();
    if least.schedule.is_empty() {
        return Shown { diagram, ..none };
    }
    Shown {
        anomaly,
        switches: Some(crate::shortest::switches(&least.schedule)),
        token: Some(Token::of(&least.model, &least.schedule).to_string()),
        diagram,
    }
}

impl Cell {
    /// As the table says it: `proved 959`, `stale-page, foreign-data`.
    pub fn label(&self) -> String {
        match &self.outcome {
            Outcome::Proved { states, .. } => format!("proved {states}"),
            Outcome::Broken {
                anomalies,
                complete,
                ..
            } => {
                let words: Vec<&str> = anomalies.iter().map(|s| s.anomaly.word()).collect();
                let more = if *complete { "" } else { ", …" };
                format!("{}{more}", words.join(", "))
            }
            Outcome::Open { states, .. } => format!("open, {states} visited"),
            Outcome::NotModelled { .. } => "–".into(),
        }
    }
}
