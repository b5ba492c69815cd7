//! The states that were seen: packed side by side in one buffer, found through a hash table of their
//! numbers. Exact: whole states are compared, nothing is proved on the strength of a fingerprint.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// States of one size.
#[derive(Debug)]
pub(crate) struct Visited {
    stride: usize,
    bytes: Vec<u8>,
    /// Of each state its hash, so that growing and most misses touch no state, and its number.
    table: HashTable<(u32, u32)>,
    hasher: DefaultHashBuilder,
}

/// The table wants its bits spread over 64.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Visited {
    pub(crate) fn new(stride: usize) -> Self {
        Visited {
            stride,
            bytes: Vec::new(),
            table: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// An empty one of the same kind, with the same hashes.
    pub(crate) fn another(&self) -> Self {
        Visited {
            stride: self.stride,
            bytes: Vec::new(),
            table: HashTable::new(),
            hasher: self.hasher.clone(),
        }
    }

    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn hash(&self, state: &[u8]) -> u32 {
        self.hasher.hash_one(state) as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn get(&self, n: usize) -> &[u8] {
        &self.bytes[n * self.stride..(n + 1) * self.stride]
    }

    /// Bytes that it takes, table included.
    pub(crate) fn memory(&self) -> usize {
        self.bytes.len() + self.table.capacity() * (size_of::<(u32, u32)>() + 1)
    }

    /// The state's number, and whether it is new.
    pub(crate) fn insert(&mut self, state: &[u8]) -> (u32, bool) {
        self.insert_hashed(self.hash(state), state)
    }

    /// The same, with the state's hash.
    pub(crate) fn insert_hashed(&mut self, hash: u32, state: &[u8]) -> (u32, bool) {
        let Visited {
            stride,
            bytes,
            table,
            ..
        } = self;
        let at = |n: u32| &bytes[n as usize * *stride..(n as usize + 1) * *stride];
        let same = |(h, n): &(u32, u32)| *h == hash && at(*n) == state;
        match table.entry(spread(hash), same, |(h, _)| spread(*h)) {
            hashbrown::hash_table::Entry::Occupied(found) => (found.get().1, false),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let n = (bytes.len() / *stride) as u32;
                vacant.insert((hash, n));
                bytes.extend_from_slice(state);
                (n, true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_seen_once_and_keeps_its_number() {
        let mut visited = Visited::new(2);
        assert_eq!(visited.insert(&[1, 2]), (0, true));
        assert_eq!(visited.insert(&[2, 1]), (1, true));
        assert_eq!(visited.insert(&[1, 2]), (0, false));
        assert_eq!((visited.len(), visited.get(1)), (2, &[2, 1][..]));
    }
}
