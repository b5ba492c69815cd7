//! Everything that may differ between two moments, and nothing else: pages, block map, blocks, sizes, locks
//! with their queues, actors with their registers and page tables, and what the oracle has to remember.
//!
//! For stepping it is a plain struct. For the visited set it is packed: only what a set-up has, a byte each.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::sem::Sem;
use crate::value::{Set, Value};

/// Page-cache slots, of all files together.
pub const PAGES: usize = 8;
/// Blocks on the device.
pub const BLOCKS: usize = 8;
/// Files.
pub const FILES: usize = 4;
/// Read-write semaphores, one a lock and file.
pub const SEMS: usize = 10;
/// Actors.
pub const ACTORS: usize = 7;
/// Pages that one call may show.
pub const SPAN: usize = 2;

/// Flags of a page-cache slot.
pub mod flag {
    /// A folio is there.
    pub const PRESENT: u8 = 1;
    /// PG_uptodate.
    pub const UPTODATE: u8 = 2;
    /// PG_dirty.
    pub const DIRTY: u8 = 4;
    /// PG_writeback.
    pub const WRITEBACK: u8 = 8;
    /// A DAX entry: no folio of its own, `io` is the block that it maps.
    pub const DAX: u8 = 16;
}

/// `io` of a read of a hole: nothing to wait for but the zeroing.
pub const HOLE: u8 = 0xf;
/// In the block map: allocated, and reads as zeros until it was written (an unwritten extent).
pub const UNWRITTEN: u8 = 0x80;
/// In a locked entry: it only makes others wait, and keeps no folio out.
pub const OPEN: u8 = 8;
/// In a block: it belongs to somebody.
pub const USED: u8 = 0x80;

/// A page-cache slot: a folio, a DAX entry or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Page {
    /// Of [`flag`].
    pub flags: u8,
    /// Who holds the folio lock (or, of a DAX entry, a pin): the actor + 1.
    pub locker: u8,
    /// Who holds the slot's locked entry: the actor + 1, perhaps [`OPEN`].
    pub entry: u8,
    /// What it holds.
    pub value: Value,
    /// The block being read into it, + 1; [`HOLE`] for none.
    pub io: u8,
}

impl Page {
    /// Whether all of the flags are set.
    pub fn is(self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Whether it holds data that anybody may look at: uptodate and not locked.
    pub fn settled(self) -> bool {
        self.is(flag::PRESENT | flag::UPTODATE) && (self.locker == 0 || self.is(flag::DAX))
    }
}

/// One actor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Actor {
    /// The next micro-operation.
    pub pc: u8,
    /// The operation in progress, + 1.
    pub op: u8,
    /// Register: what get_block found, as in the block map.
    pub block: u8,
    /// Register: data on its way to the caller.
    pub value: Value,
    /// The mutating operations that overlapped the one in progress, a bit each.
    pub overlapped: u8,
    /// What its operation may show, for each page of the call.
    pub legal: [Set; SPAN],
    /// Its page table: pages mapped.
    pub mapped: u8,
    /// Its page table: pages mapped writable.
    pub writable: u8,
}

/// A state of the whole system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    /// Page-cache slots.
    pub pages: [Page; PAGES],
    /// Block of each page, + 1, perhaps [`UNWRITTEN`]; 0 for a hole.
    pub map: [u8; PAGES],
    /// What each page may hold by what has returned (the oracle's).
    pub allowed: [Set; PAGES],
    /// Device blocks: a value, and [`USED`].
    pub blocks: [u8; BLOCKS],
    /// i_size in pages.
    pub sizes: [u8; FILES],
    /// The locks.
    pub sems: [Sem; SEMS],
    /// The actors.
    pub actors: [Actor; ACTORS],
    /// What a step has done that must never be done ([`crate::Anomaly`], + 1). Nothing follows such a state.
    pub broken: u8,
}

/// How much of a [`State`] a set-up uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Page slots.
    pub pages: usize,
    /// Blocks.
    pub blocks: usize,
    /// Files.
    pub files: usize,
    /// Semaphores.
    pub sems: usize,
    /// Actors.
    pub actors: usize,
}

impl State {
    /// What a block holds.
    pub fn on_block(&self, block: u8) -> Value {
        Value(self.blocks[usize::from(block)] & !USED)
    }

    /// What a read of the page from the device would give, through the block map as it is now.
    pub fn on_disk(&self, page: usize) -> Value {
        match self.map[page] {
            0 => Value::ZERO,
            m if m & UNWRITTEN != 0 => Value::ZERO,
            m => self.on_block(m - 1),
        }
    }

    /// How many pages map a block.
    pub fn sharers(&self, block: u8) -> usize {
        self.map
            .iter()
            .filter(|m| **m & !UNWRITTEN == block + 1)
            .count()
    }

    /// The lowest block that is free.
    pub fn free_block(&self, extent: Extent) -> Option<u8> {
        (0..extent.blocks as u8).find(|b| self.blocks[usize::from(*b)] & USED == 0)
    }

    /// Takes a page out of every page table (`unmap_mapping_range`).
    pub fn zap(&mut self, page: usize) {
        for actor in &mut self.actors {
            actor.mapped &= !(1 << page);
            actor.writable &= !(1 << page);
        }
    }

    /// The bytes that the set-up uses, in a fixed order.
    fn parts(&self, of: Extent) -> [&[u8]; 8] {
        [
            self.pages[..of.pages].as_bytes(),
            self.map[..of.pages].as_bytes(),
            self.allowed[..of.pages].as_bytes(),
            self.blocks[..of.blocks].as_bytes(),
            self.sizes[..of.files].as_bytes(),
            self.sems[..of.sems].as_bytes(),
            self.actors[..of.actors].as_bytes(),
            self.broken.as_bytes(),
        ]
    }

    /// The same.
    fn parts_mut(&mut self, of: Extent) -> [&mut [u8]; 8] {
        [
            self.pages[..of.pages].as_mut_bytes(),
            self.map[..of.pages].as_mut_bytes(),
            self.allowed[..of.pages].as_mut_bytes(),
            self.blocks[..of.blocks].as_mut_bytes(),
            self.sizes[..of.files].as_mut_bytes(),
            self.sems[..of.sems].as_mut_bytes(),
            self.actors[..of.actors].as_mut_bytes(),
            self.broken.as_mut_bytes(),
        ]
    }

    /// Bytes of a packed state.
    pub fn stride(extent: Extent) -> usize {
        let state = State::default();
        state.parts(extent).iter().map(|part| part.len()).sum()
    }

    /// Packs it behind what is in `out` already.
    pub fn pack(&self, extent: Extent, out: &mut Vec<u8>) {
        for part in self.parts(extent) {
            out.extend_from_slice(part);
        }
    }

    /// The state that was packed.
    pub fn unpack(extent: Extent, mut bytes: &[u8]) -> State {
        let mut state = State::default();
        for part in state.parts_mut(extent) {
            let (now, later) = bytes.split_at(part.len());
            part.copy_from_slice(now);
            bytes = later;
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing_that_is_used() {
        let extent = Extent {
            pages: 2,
            blocks: 3,
            files: 1,
            sems: 2,
            actors: 3,
        };
        let mut state = State::default();
        // A different byte everywhere.
        let parts = state.parts_mut(extent);
        let bytes = parts.into_iter().flatten();
        bytes.zip(1..).for_each(|(b, n)| *b = n);
        let mut packed = Vec::new();
        state.pack(extent, &mut packed);
        assert_eq!(packed.len(), State::stride(extent));
        assert_eq!(State::unpack(extent, &packed), state);
        assert!(packed.iter().zip(1..).all(|(b, n)| *b == n), "{packed:?}");
    }
}
