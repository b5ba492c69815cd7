//! The holder that chooses an actor and not a sector: one process in a cgroup whose reads of the device are
//! throttled to almost nothing (`blkio.throttle.read_bps_device`, or `rbps` of `io.max`), while everybody
//! else's I/O flows. It needs neither FUSE nor device-mapper, and cannot hold a journal's threads.

use std::time::Duration;

use super::HoldError;

/// A place where cgroups can be made that throttle.
#[derive(Debug)]
pub struct Throttle {}

/// One process whose reads are held; released on drop.
#[derive(Debug)]
pub struct ActorHold {}

impl Throttle {
    /// Finds out how a process's reads can be throttled here; [`HoldError::Unsupported`] says why not.
    pub fn probe() -> Result<Throttle, HoldError> {
        Err(HoldError::Unsupported("not there yet".to_owned()))
    }

    /// From now on holds the reads of process `pid` from the device with these numbers. `io` is the size in
    /// bytes of the read that is to be held: the rate is such that the kernel lets it go after `at_most` by
    /// itself, whoever has died.
    pub fn hold_actor(
        &self,
        _pid: i32,
        _device: (u32, u32),
        _io: u64,
        _at_most: Duration,
    ) -> Result<ActorHold, HoldError> {
        Err(HoldError::Unsupported("not there yet".to_owned()))
    }
}

impl ActorHold {
    /// Lets its reads go.
    pub fn release(self) -> Result<(), HoldError> {
        Ok(())
    }
}
