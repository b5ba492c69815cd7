//! What a trial and the server of its image say to each other: a line of JSON each, one answer an order.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::holder::{HeldIo, HoldId, HoldSpec, Mark, Seen};

/// What the server is to do.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Order {
    /// See [`super::Holder::hold`].
    Hold {
        /// Which requests.
        what: HoldSpec,
        /// For how long.
        at_most: Duration,
    },
    /// See [`super::Holder::held`].
    Held,
    /// See [`super::Holder::wait_held`].
    WaitHeld {
        /// By which hold.
        hold: HoldId,
        /// For how long.
        timeout: Duration,
    },
    /// See [`super::Holder::mark`].
    Mark,
    /// See [`super::Holder::seen`].
    Seen(Mark),
    /// See [`super::Holder::release`].
    Release(HoldId),
    /// See [`super::Holder::release_all`].
    ReleaseAll,
}

/// What it says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// It waits for the image and the connection, in a mount namespace of its own.
    Ready,
    /// It serves.
    Serving,
    /// It cannot, and ends.
    Failed(String),
    /// The hold.
    Hold(HoldId),
    /// What is held.
    Held(Vec<HeldIo>),
    /// The first that a hold has.
    First(Option<HeldIo>),
    /// Where the log is.
    Mark(Mark),
    /// What came.
    Seen(Seen),
    /// How many requests went on.
    Released(usize),
    /// The hold has ended before.
    Over(HoldId),
}

/// Sends one of either, as a line.
pub(super) fn send(mut socket: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)
}
