//! The scenario language: what a YAML file may say, how it is loaded and checked, and the catalogue
//! that is built into the program.

pub mod grammar;
pub mod model;
pub mod named;
pub mod op;
pub mod range;
mod wire;

pub use grammar::GrammarError;
pub use model::{
    Actor, Capability, Content, EvidenceSpec, Expect, FileSpec, Holds, Repeat, Role, Round,
    Scenario,
};
pub use named::Named;
pub use op::{DedupeArgs, Effect, MadviseAdvice, MadviseArgs, NoArgs, OnRange, Op, ReadArgs};
pub use range::{Anchor, Geometry, Position, RangeError, RangeExpr, Size, Unit};
