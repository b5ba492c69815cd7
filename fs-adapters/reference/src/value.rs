//! What a page or a block holds, as a symbol and never as bytes: a result then names its origin.
//!
//! A value has two parts, because most writes and stores change less than a page: the *body*, which only a
//! whole-page change replaces, and the *word* in it that was written or stored last. A store into a stale
//! page makes the word right and leaves the body wrong: that is how stale data is laundered to disk.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bodies that one set-up may tell apart.
pub const BODIES: usize = 8;
/// Words that one set-up may tell apart; the first stands for "none: as in the body".
pub const WORDS: usize = 8;

/// A body and a word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Value(pub u8);

impl Value {
    /// What a hole reads as.
    pub const ZERO: Value = Value(0);

    /// A whole page's worth.
    pub fn whole(body: u8) -> Value {
        debug_assert!(usize::from(body) < BODIES);
        Value(body)
    }

    /// The same body with a freshly written word.
    pub fn with_word(self, word: u8) -> Value {
        debug_assert!(usize::from(word) < WORDS);
        Value(self.body() | word << 3)
    }

    /// Which body.
    pub fn body(self) -> u8 {
        self.0 & 7
    }

    /// Which word, 0 for none.
    pub fn word(self) -> u8 {
        self.0 >> 3 & 7
    }
}

/// A set of bodies and a set of words, each a bit mask. As an effect, an empty half means "unchanged".
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
)]
#[repr(C)]
pub struct Set {
    /// A bit a body.
    pub bodies: u8,
    /// A bit a word.
    pub words: u8,
}

impl Set {
    /// One value.
    pub fn of(value: Value) -> Set {
        Set {
            bodies: 1 << value.body(),
            words: 1 << value.word(),
        }
    }

    /// One word, on any body.
    pub fn word(word: u8) -> Set {
        Set {
            bodies: 0,
            words: 1 << word,
        }
    }

    /// Both.
    pub fn union(self, other: Set) -> Set {
        Set {
            bodies: self.bodies | other.bodies,
            words: self.words | other.words,
        }
    }

    /// What `other` replaces of this: each half that it has.
    pub fn replaced_by(self, other: Set) -> Set {
        let half = |mine, theirs| if theirs == 0 { mine } else { theirs };
        Set {
            bodies: half(self.bodies, other.bodies),
            words: half(self.words, other.words),
        }
    }

    /// Only the halves that `other` has too.
    pub fn only(self, other: Set) -> Set {
        let half = |mine, theirs| if theirs == 0 { 0 } else { mine };
        Set {
            bodies: half(self.bodies, other.bodies),
            words: half(self.words, other.words),
        }
    }

    /// Nothing in it.
    pub fn is_empty(self) -> bool {
        self == Set::default()
    }

    /// Whether the body is in it.
    pub fn has_body(self, value: Value) -> bool {
        self.bodies & 1 << value.body() != 0
    }

    /// Whether the word is in it.
    pub fn has_word(self, value: Value) -> bool {
        self.words & 1 << value.word() != 0
    }

    /// Whether both are.
    pub fn has(self, value: Value) -> bool {
        self.has_body(value) && self.has_word(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_changes_the_word_and_a_punch_both() {
        let old = Set::of(Value::whole(3));
        let stored = old.replaced_by(Set::word(2));
        assert!(stored.has(Value::whole(3).with_word(2)));
        assert!(!stored.has(Value::whole(3)));
        let punched = stored.replaced_by(Set::of(Value::ZERO));
        assert!(punched.has(Value::ZERO) && !punched.has_body(Value::whole(3)));
        assert!(!punched.has_word(Value::ZERO.with_word(2)));
    }
}
