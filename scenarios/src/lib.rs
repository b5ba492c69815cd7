//! The scenario language: what a YAML file may say, how it is loaded and checked, and the catalogue
//! that is built into the program.

pub mod catalog;
mod check;
pub mod diagnostics;
pub mod explain;
pub mod grammar;
pub mod known;
mod layout;
pub mod load;
pub mod model;
pub mod named;
pub mod op;
mod outline;
pub mod range;
pub mod schema;
pub mod stage;
mod wire;

/// The strict loader, for other kinds of files in the same manner: policies of the reference.
pub mod strict {
    pub use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
    pub use crate::load::{parse, read_file};
    pub use crate::outline::{Kind, Node};
}

pub use catalog::{catalog, find, matches_glob};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use explain::{explain, one_line};
pub use grammar::GrammarError;
pub use known::{
    KernelVersion, Kernels, KnownIssue, expectation, known_issues, load_issue, match_issue,
    match_log,
};
pub use load::{load, load_bytes, load_file};
pub use model::{
    Actor, Capability, Content, EvidenceSpec, Expect, FileSpec, Holds, Repeat, Role, Round,
    Scenario,
};
pub use named::Named;
pub use op::{
    CopyArgs, DedupeArgs, Effect, ExchangeArgs, MadviseAdvice, MadviseArgs, NoArgs, On, OnFile,
    OnRange, Op, ReadArgs, SpliceArgs, UringReadArgs, WriteArgs,
};
pub use range::{Anchor, Geometry, Position, RangeError, RangeExpr, Size, Unit};
pub use schema::schema_json;
pub use stage::{
    ActorArgs, ActorsArgs, Does, During, Held, HoldArgs, Only, ParkedArgs, ReleaseArgs, Step,
};
