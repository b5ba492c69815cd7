//! The scenario language: what a YAML file may say, how it is loaded and checked, and the catalogue
//! that is built into the program.

pub mod catalog;
mod check;
pub mod diagnostics;
pub mod grammar;
mod layout;
pub mod load;
pub mod model;
pub mod named;
pub mod op;
mod outline;
pub mod range;
mod wire;

pub use catalog::{catalog, find, matches_glob};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use grammar::GrammarError;
pub use load::{load, load_bytes, load_file};
pub use model::{
    Actor, Capability, Content, EvidenceSpec, Expect, FileSpec, Holds, Repeat, Role, Round,
    Scenario,
};
pub use named::Named;
pub use op::{DedupeArgs, Effect, MadviseAdvice, MadviseArgs, NoArgs, OnRange, Op, ReadArgs};
pub use range::{Anchor, Geometry, Position, RangeError, RangeExpr, Size, Unit};
