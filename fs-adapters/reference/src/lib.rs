//! The reference implementation: the kernel's page-cache protocol as micro-operations over a compact state,
//! with locking policies that are data, and every interleaving of a few actors explored.
//!
//! One definition ([`step`]) and two drivers: the explorer, which visits every state, and threads that run
//! the same steps live. [`setup`] says what is raced, [`policy`] which locks are taken where, [`compile`]
//! makes programs of both, [`oracle`] says what is wrong with a state.

pub mod anomaly;
mod code;
pub mod compile;
pub mod draw;
pub mod explore;
pub mod hazards;
pub mod hook;
pub mod live;
mod livelock;
pub mod lockdep;
pub mod matrix;
pub mod micro;
pub mod minimise;
pub mod model;
pub mod mutants;
pub mod oracle;
pub mod policy;
mod reduce;
pub mod scenario;
pub mod sem;
pub mod setup;
pub mod shortest;
pub mod state;
pub mod step;
pub mod token;
pub mod value;
mod visited;
pub mod waits;
pub mod walk;

pub use anomaly::Anomaly;
pub use compile::{CompileError, compile};
pub use draw::draw;
pub use explore::{Exploration, Limits, explore};
pub use hazards::hazards;
pub use hook::Hook;
pub use matrix::{Cell, Outcome, Subject, cell, subjects};
pub use minimise::{Counterexample, minimise};
pub use model::Model;
pub use policy::{Policy, policies};
pub use setup::{Call, Setup, SetupActor, SetupFile};
pub use state::State;
pub use step::step;
pub use token::{Token, TokenError};
