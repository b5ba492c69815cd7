//! Holding block I/O, and seeing who waits where. A staged scenario parks an operation inside its critical
//! section by holding the I/O that it needs there ([`Holder`], [`Throttle`]), sends the fillers in, and looks
//! at every task's kernel stack ([`observe`]) to tell who is blocked by the lock and who runs through.
//!
//! Every hold ends by itself after the time it was given, by the clock of whoever holds; a dead trial, server
//! or runner releases everything.

mod board;
mod frames;
pub(crate) mod fusectl;
mod holder;
mod image_server;
pub mod observe;
pub mod place;
mod server;
pub(crate) mod throttle;
mod wire;

pub use frames::{Way, accepted};
pub use holder::{
    HeldIo, HoldError, HoldId, HoldSpec, Holder, IoKind, LONGEST, Mark, Place, Seen, SeenIo, now,
};
pub use image_server::{COMMAND as SERVE_IMAGE, ImageServer, probe};
pub use observe::{At, Stay, Task};
pub use server::serve;
pub use throttle::{ActorHold, Throttle};
