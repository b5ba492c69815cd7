//! Self-describing content: every byte of every file says whose it is, which generation, and where it
//! belongs, so that a wrong byte can be named.
//!
//! A stamp covers one unit of [`UNIT`] bytes. Its words 1 and 2 are in the clear for a hex dump: the packed
//! owner, and the run's nonce added to it. All others are `key + i·φ`, where the key is a bijection of the
//! owner and the nonce. So any word, with its place within the unit, names its origin; no word is the same
//! in two generations; and verification runs at memory speed.

/// Bytes one stamp covers: the smallest filesystem block that the bench cares about.
pub const UNIT: u64 = 1024;
/// The file number of what the device holds before mkfs.
pub const BACKGROUND: u16 = 63;

const WORDS: usize = (UNIT / 8) as usize;
/// Places of the words in the clear.
const OWNER_WORD: usize = 1;
const NONCE_WORD: usize = 2;
/// 2^64 / golden ratio, odd.
const PHI: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words worked on side by side, for the compiler to make vectors of.
const LANES: usize = 8;
/// From one word of a lane to the next.
const STRIDE: u64 = PHI.wrapping_mul(LANES as u64);

/// Generations a trial can tell apart: 2 to the power of this.
pub const GENERATION_BITS: u32 = 26;
const UNIT_BITS: u32 = 32;

/// Whose a unit of bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    /// The file's number, below [`BACKGROUND`], or [`BACKGROUND`].
    pub file: u16,
    /// The generation of its content, below 2^26.
    pub generation: u32,
    /// The unit within the file (or device) it was written for.
    pub unit: u64,
}

impl Owner {
    /// Packs into one word: 6 bits file, 26 bits generation, 32 bits unit.
    pub fn pack(self) -> u64 {
        debug_assert!(
            self.file <= BACKGROUND
                && self.generation >> GENERATION_BITS == 0
                && self.unit >> UNIT_BITS == 0
        );
        u64::from(self.file) << (GENERATION_BITS + UNIT_BITS)
            | u64::from(self.generation) << UNIT_BITS
            | self.unit
    }

    /// The reverse of [`Owner::pack`].
    pub fn unpack(word: u64) -> Owner {
        Owner {
            file: (word >> (GENERATION_BITS + UNIT_BITS)) as u16,
            generation: (word >> UNIT_BITS) as u32 & ((1 << GENERATION_BITS) - 1),
            unit: word & ((1 << UNIT_BITS) - 1),
        }
    }
}

/// The first keyed word of each lane.
fn ramp(key: u64) -> [u64; LANES] {
    std::array::from_fn(|i| key.wrapping_add(PHI.wrapping_mul(i as u64)))
}

/// A bijection of u64 (the finaliser of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The reverse of [`mix`].
fn unmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}

/// Writes and checks the stamps of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    nonce: u64,
}

impl Stamps {
    /// The stamps of the run with this nonce.
    pub fn new(nonce: u64) -> Stamps {
        Stamps { nonce }
    }

    fn key(self, owner: Owner) -> u64 {
        mix(owner.pack() ^ self.nonce)
    }

    /// Word `i` of a unit.
    fn word(self, owner: Owner, key: u64, i: usize) -> u64 {
        match i {
            OWNER_WORD => owner.pack(),
            NONCE_WORD => self.nonce.wrapping_add(owner.pack()),
            _ => key.wrapping_add(PHI.wrapping_mul(i as u64)),
        }
    }

    /// Writes the stamps of `file` at `generation` for the bytes from `at` on.
    pub fn fill(self, file: u16, generation: u32, at: u64, buf: &mut [u8]) {
        self.walk(file, generation, at, buf.len(), |unit, from, to, range| {
            let buf = &mut buf[range];
            if from == 0 && to == UNIT as usize {
                self.fill_unit(unit, buf);
            } else {
                let mut whole = [0; UNIT as usize];
                self.fill_unit(unit, &mut whole);
                buf.copy_from_slice(&whole[from..to]);
            }
            true
        });
    }

    /// Whether `buf` is exactly what [`Stamps::fill`] would write.
    pub fn matches(self, file: u16, generation: u32, at: u64, buf: &[u8]) -> bool {
        self.walk(file, generation, at, buf.len(), |unit, from, to, range| {
            let buf = &buf[range];
            if from == 0 && to == UNIT as usize {
                self.unit_matches(unit, buf)
            } else {
                let mut whole = [0; UNIT as usize];
                self.fill_unit(unit, &mut whole);
                buf == &whole[from..to]
            }
        })
    }

    /// Calls `f(owner, from, to, range)` for each unit: bytes `from..to` of the unit are `range` of the
    /// buffer. Stops at the first `false` and returns it.
    fn walk(
        self,
        file: u16,
        generation: u32,
        at: u64,
        len: usize,
        mut f: impl FnMut(Owner, usize, usize, std::ops::Range<usize>) -> bool,
    ) -> bool {
        let mut done = 0;
        while done < len {
            let offset = at + done as u64;
            let from = (offset % UNIT) as usize;
            let n = (UNIT as usize - from).min(len - done);
            let owner = Owner {
                file,
                generation,
                unit: offset / UNIT,
            };
            if !f(owner, from, from + n, done..done + n) {
                return false;
            }
            done += n;
        }
        true
    }

    fn fill_unit(self, owner: Owner, buf: &mut [u8]) {
        let key = self.key(owner);
        let mut ramp = ramp(key);
        let (words, _) = buf.as_chunks_mut::<8>();
        for lanes in words.as_chunks_mut::<LANES>().0 {
            for (word, value) in lanes.iter_mut().zip(&mut ramp) {
                *word = value.to_le_bytes();
                *value = value.wrapping_add(STRIDE);
            }
        }
        for i in [OWNER_WORD, NONCE_WORD] {
            words[i] = self.word(owner, key, i).to_le_bytes();
        }
    }

    fn unit_matches(self, owner: Owner, buf: &[u8]) -> bool {
        let key = self.key(owner);
        let (words, _) = buf.as_chunks::<8>();
        let (head, rest) = words.split_at(LANES);
        let head = head.iter().enumerate().fold(0, |wrong, (i, word)| {
            wrong | (u64::from_le_bytes(*word) ^ self.word(owner, key, i))
        });
        let mut ramp = ramp(key.wrapping_add(STRIDE));
        let mut wrong = [0; LANES];
        for lanes in rest.as_chunks::<LANES>().0 {
            for ((wrong, word), value) in wrong.iter_mut().zip(lanes).zip(&mut ramp) {
                *wrong |= u64::from_le_bytes(*word) ^ *value;
                *value = value.wrapping_add(STRIDE);
            }
        }
        wrong.iter().fold(head, |all, lane| all | lane) == 0
    }

    /// Names the bytes: the owner whose stamp holds `bytes` at some place, and the offset in the owner's
    /// file of the first word that said so. `at` is where in a unit the first byte is thought to lie (any
    /// file offset will do); other places are tried after it. Needs 16 bytes to be sure, looks at 64.
    pub fn identify(self, at: u64, bytes: &[u8]) -> Option<(Owner, u64)> {
        let skip = (at.next_multiple_of(8) - at) as usize;
        let first = ((at + skip as u64) % UNIT / 8) as usize;
        let words = |from: usize| {
            let (words, _) = bytes.get(from..).unwrap_or_default().as_chunks::<8>();
            words
                .iter()
                .map(|w| u64::from_le_bytes(*w))
                .collect::<Vec<_>>()
        };
        let aligned = words(skip);
        let named = |words: &[u64], n: usize, i: usize| {
            let owner = self.decode(words[n], i)?;
            let holds = |n: usize, i: usize| words[n] == self.word(owner, self.key(owner), i);
            let agrees = match (n.checked_sub(1), i.checked_sub(1)) {
                _ if n + 1 < words.len() && i + 1 < WORDS => holds(n + 1, i + 1),
                (Some(n), Some(i)) => holds(n, i),
                _ => words.len() == 1,
            };
            agrees.then_some((owner, owner.unit * UNIT + 8 * i as u64))
        };
        let here = (0..aligned.len().min(8)).find_map(|n| named(&aligned, n, (first + n) % WORDS));
        here.or_else(|| {
            let words = words(0);
            (0..words.len().min(2)).find_map(|n| (0..WORDS).find_map(|i| named(&words, n, i)))
        })
    }

    /// The owner whose unit has `word` at place `i`, if there is a believable one.
    fn decode(self, word: u64, i: usize) -> Option<Owner> {
        let packed = match i {
            OWNER_WORD => word,
            NONCE_WORD => word.wrapping_sub(self.nonce),
            _ => unmix(word.wrapping_sub(PHI.wrapping_mul(i as u64))) ^ self.nonce,
        };
        let owner = Owner::unpack(packed);
        // What a neighbouring word must bear out; at most 16 files and 16 GiB are ever used.
        let mine = owner.file < 16 && owner.generation > 0 || owner.file == BACKGROUND;
        let believable = owner.unit >> 24 == 0 && mine;
        believable.then_some(owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mix_is_a_bijection_at_the_edges() {
        for x in [0, 1, u64::MAX, PHI, 1 << 63] {
            assert_eq!(unmix(mix(x)), x);
        }
    }

    proptest! {
        #[test]
        fn mix_and_unmix_are_inverse(x: u64) {
            prop_assert_eq!(unmix(mix(x)), x);
            prop_assert_eq!(mix(unmix(x)), x);
        }

        #[test]
        fn owners_pack_and_unpack(file in 0u16..64, generation in 0u32..1 << 26, unit in 0u64..1 << 32) {
            let owner = Owner { file, generation, unit };
            prop_assert_eq!(Owner::unpack(owner.pack()), owner);
        }

        #[test]
        fn what_is_filled_matches_and_any_flipped_byte_does_not(
            nonce: u64, file in 0u16..16, generation in 0u32..1000, at in 0u64..10_000, len in 1usize..5000, flip: prop::sample::Index,
        ) {
            let stamps = Stamps::new(nonce);
            let mut buf = vec![0; len];
            stamps.fill(file, generation, at, &mut buf);
            prop_assert!(stamps.matches(file, generation, at, &buf));
            let i = flip.index(len);
            buf[i] ^= 1;
            prop_assert!(!stamps.matches(file, generation, at, &buf));
        }

        #[test]
        fn a_fill_in_pieces_is_the_same_fill(nonce: u64, at in 0u64..5000, len in 2usize..5000, cut: prop::sample::Index) {
            let stamps = Stamps::new(nonce);
            let mut whole = vec![0; len];
            stamps.fill(1, 2, at, &mut whole);
            let mut pieces = vec![0; len];
            let cut = cut.index(len);
            stamps.fill(1, 2, at, &mut pieces[..cut]);
            stamps.fill(1, 2, at + cut as u64, &mut pieces[cut..]);
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn any_sixty_four_bytes_name_their_owner(
            nonce: u64, file in 0u16..16, generation in 1u32..1000, at in 0u64..100_000,
        ) {
            let stamps = Stamps::new(nonce);
            let mut buf = [0; 64];
            stamps.fill(file, generation, at, &mut buf);
            let (owner, offset) = stamps.identify(at, &buf).unwrap();
            prop_assert_eq!((owner.file, owner.generation), (file, generation));
            prop_assert!(offset >= at && offset < at + 64);
        }

        #[test]
        fn zeros_and_noise_are_nobodys(nonce: u64, at in 0u64..5000, noise: [u8; 32]) {
            prop_assert_eq!(Stamps::new(nonce).identify(at, &[0; 64]), None);
            prop_assert_eq!(Stamps::new(nonce).identify(at, &noise), None);
        }

        #[test]
        fn no_word_survives_a_change_of_generation(nonce: u64, generation in 1u32..1000, i in 0usize..128) {
            let stamps = Stamps::new(nonce);
            let (mut old, mut new) = ([0; 1024], [0; 1024]);
            stamps.fill(0, generation, 0, &mut old);
            stamps.fill(0, generation + 1, 0, &mut new);
            prop_assert_ne!(&old[8 * i..8 * i + 8], &new[8 * i..8 * i + 8]);
        }
    }
}
