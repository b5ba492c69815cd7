//! Holding block I/O, and seeing who waits where. A staged scenario parks an operation inside its critical
//! section by holding the I/O that it needs there ([`Holder`], [`Throttle`]), sends the fillers in, and looks
//! at every task's kernel stack ([`observe`]) to tell who is blocked by the lock and who runs through.
//!
//! Every hold ends by itself after the time it was given, by the clock of whoever holds; a dead trial, server
//! or runner releases everything.

mod board;
pub(crate) mod dm_delay;
mod frames;
pub(crate) mod fusectl;
mod holder;
mod image_server;
pub mod observe;
pub mod place;
mod server;
pub(crate) mod throttle;
mod wire;

pub use dm_delay::DmDelay;
pub use frames::{Way, accepted};
pub use holder::{
    HeldIo, HoldError, HoldId, HoldSpec, Holder, IoKind, LONGEST, Mark, Place, Seen, SeenIo, now,
};
pub use image_server::{COMMAND as SERVE_IMAGE, ImageServer, probe};
pub use observe::{At, Stay, Task};
pub use server::serve;
pub use throttle::{ActorHold, Throttle};

use serde::{Deserialize, Serialize};

use crate::tools::{DMSETUP, Tool};

/// What holds chosen I/O of a target's device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderKind {
    /// A process that serves the loop device's image by FUSE.
    #[default]
    ImageServer,
    /// device-mapper's delay target over the loop device.
    DmDelay,
}

impl HolderKind {
    /// All of them.
    pub const ALL: [HolderKind; 2] = [HolderKind::ImageServer, HolderKind::DmDelay];

    /// Whether it can be had here; [`HoldError::Unsupported`] says why not.
    pub fn probe(self) -> Result<(), HoldError> {
        match self {
            HolderKind::ImageServer => image_server::probe(),
            HolderKind::DmDelay => dm_delay::probe(),
        }
    }

    /// The word in options and records.
    pub fn word(self) -> &'static str {
        match self {
            HolderKind::ImageServer => "image-server",
            HolderKind::DmDelay => "dm-delay",
        }
    }

    /// Modules of the kernel that it needs.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            HolderKind::ImageServer => &["fuse"],
            HolderKind::DmDelay => &dm_delay::MODULES,
        }
    }

    /// Programs that it needs.
    pub fn tools(self) -> &'static [Tool] {
        match self {
            HolderKind::ImageServer => &[],
            HolderKind::DmDelay => &[DMSETUP],
        }
    }
}
