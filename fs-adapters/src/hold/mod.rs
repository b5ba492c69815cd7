//! Holding block I/O, and seeing who waits where. A staged scenario parks an operation inside its critical
//! section by holding the I/O that it needs there ([`Holder`], [`Throttle`]), sends the fillers in, and looks
//! at every task's kernel stack ([`observe`]) to tell who is blocked by the lock and who runs through.
//!
//! Every hold ends by itself after the time it was given, by the clock of whoever holds; a dead trial, server
//! or runner releases everything.

mod frames;
mod holder;
pub mod observe;
mod throttle;

pub use frames::{Way, accepted};
pub use holder::{
    HeldIo, HoldError, HoldId, HoldSpec, Holder, IoKind, LONGEST, Mark, Place, Seen, SeenIo, now,
};
pub use observe::{Stay, Task};
pub use throttle::{ActorHold, Throttle};
