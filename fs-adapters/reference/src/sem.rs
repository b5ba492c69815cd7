//! The kernel's rw_semaphore as far as order matters: first come, first served. A waiter of either kind
//! keeps new readers out (`rwsem_down_read_slowpath`), which is what turns taking a lock shared twice into a
//! deadlock; and a reader at the head of the queue takes every waiting reader along (`rwsem_mark_wake`).

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// One semaphore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Sem {
    /// Who holds it exclusive: the actor + 1.
    pub writer: u8,
    /// Who holds it shared: a bit an actor.
    pub readers: u8,
    /// Who waits, the first to come first: the actor + 1, four bits each.
    pub queue: [u8; 4],
}

/// How a lock is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// down_read().
    Shared,
    /// down_write().
    Exclusive,
}

impl Sem {
    fn waiter(&self, at: usize) -> u8 {
        self.queue[at / 2] >> (at % 2 * 4) & 0xf
    }

    /// Those who wait, in order.
    pub fn waiters(&self) -> impl Iterator<Item = usize> {
        (0..8)
            .map(|at| self.waiter(at))
            .take_while(|w| *w != 0)
            .map(|w| usize::from(w) - 1)
    }

    /// Whether this actor waits.
    pub fn waits(&self, actor: usize) -> bool {
        self.waiters().any(|w| w == actor)
    }

    /// Takes it if it can be had at once, as trylock does.
    pub fn try_take(&mut self, actor: usize, mode: Mode) -> bool {
        let free = self.writer == 0 && self.queue[0] == 0;
        let fits = free && (mode == Mode::Shared || self.readers == 0);
        if fits {
            self.give(actor, mode);
        }
        fits
    }

    fn give(&mut self, actor: usize, mode: Mode) {
        match mode {
            Mode::Shared => self.readers |= 1 << actor,
            Mode::Exclusive => self.writer = actor as u8 + 1,
        }
    }

    /// Joins the queue.
    pub fn enqueue(&mut self, actor: usize) {
        let at = self.waiters().count();
        self.queue[at / 2] |= (actor as u8 + 1) << (at % 2 * 4);
    }

    /// Gives it back, and hands it to whoever is next. `wants` tells how a waiter wants it. Returns the
    /// actors that now hold it, a bit each.
    pub fn release(&mut self, actor: usize, mode: Mode, wants: impl Fn(usize) -> Mode) -> u8 {
        match mode {
            Mode::Shared => self.readers &= !(1 << actor),
            Mode::Exclusive => self.writer = 0,
        }
        let waiting: [Option<usize>; 8] = std::array::from_fn(|at| match self.waiter(at) {
            0 => None,
            w => Some(usize::from(w) - 1),
        });
        let Some(first) = waiting[0] else {
            return 0;
        };
        let mut woken = 0;
        match wants(first) {
            Mode::Exclusive if self.writer == 0 && self.readers == 0 => woken = 1 << first,
            Mode::Exclusive => {}
            Mode::Shared if self.writer == 0 => {
                let readers = waiting
                    .iter()
                    .flatten()
                    .filter(|w| wants(**w) == Mode::Shared);
                readers.for_each(|w| woken |= 1 << w);
            }
            Mode::Shared => {}
        }
        self.queue = [0; 4];
        for waiter in waiting.into_iter().flatten() {
            if woken & 1 << waiter == 0 {
                self.enqueue(waiter);
            } else {
                self.give(waiter, wants(waiter));
            }
        }
        woken
    }

    /// Whether this actor holds it, either way.
    pub fn held_by(&self, actor: usize) -> bool {
        self.readers & 1 << actor != 0 || usize::from(self.writer) == actor + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_writer_keeps_new_readers_out_and_is_served_first() {
        let mut sem = Sem::default();
        assert!(sem.try_take(0, Mode::Shared));
        assert!(!sem.try_take(1, Mode::Exclusive));
        sem.enqueue(1);
        assert!(!sem.try_take(0, Mode::Shared), "down_read is not recursive");
        sem.enqueue(2);
        let wants = |actor| {
            if actor == 1 {
                Mode::Exclusive
            } else {
                Mode::Shared
            }
        };
        assert_eq!(sem.release(0, Mode::Shared, wants), 0b010);
        assert_eq!(sem.release(1, Mode::Exclusive, wants), 0b100);
        assert_eq!(sem.waiters().count(), 0);
        assert!(sem.held_by(2));
    }

    #[test]
    fn the_first_waiting_reader_takes_the_others_along() {
        let mut sem = Sem::default();
        assert!(sem.try_take(3, Mode::Exclusive));
        [0, 1, 2].into_iter().for_each(|a| sem.enqueue(a));
        let wants = |actor| {
            if actor == 1 {
                Mode::Exclusive
            } else {
                Mode::Shared
            }
        };
        assert_eq!(sem.release(3, Mode::Exclusive, wants), 0b101);
        assert_eq!(sem.waiters().collect::<Vec<_>>(), [1]);
        assert_eq!(sem.release(0, Mode::Shared, wants), 0);
        assert_eq!(sem.release(2, Mode::Shared, wants), 0b010);
    }
}
