//! One step of one actor: the one definition of the protocol. The explorer, the walks, the replay and the
//! threads of the live reference all call this function and nothing else.

use crate::anomaly::Anomaly;
use crate::micro::Micro;
use crate::model::Model;
use crate::oracle;
use crate::sem::Mode;
use crate::state::{HOLE, OPEN, Page, State, UNWRITTEN, USED, flag};
use crate::value::Value;

/// What follows if this actor takes its next step; nothing if it cannot.
pub fn step(model: &Model, state: &State, actor: usize) -> Option<State> {
    if state.broken != 0 {
        return None;
    }
    let mut next = *state;
    let mut run = Run {
        model,
        s: &mut next,
        a: actor,
    };
    run.whole().then_some(next)
}

/// A state in the making.
struct Run<'a> {
    model: &'a Model,
    s: &'a mut State,
    a: usize,
}

/// How a micro-operation ended.
enum To {
    /// It must wait; nothing has changed.
    Blocked,
    /// It waits in a queue from now on: a step, but not past the micro-operation.
    Queued,
    Next,
    Jump(u8),
}

impl Run<'_> {
    /// A call's begin, the micro-operation, and what follows without being a step of its own.
    fn whole(&mut self) -> bool {
        while let Micro::Begin { op } = self.micro() {
            oracle::begin(self.model, self.s, self.a, op);
            self.s.actors[self.a].pc += 1;
        }
        match self.one(self.micro()) {
            // A call without a step of its own, such as an fsync where nothing is written back.
            To::Blocked if matches!(self.micro(), Micro::Return { .. } | Micro::Goto { .. }) => {}
            To::Blocked => return false,
            To::Queued => return true,
            To::Next => self.s.actors[self.a].pc += 1,
            To::Jump(to) => self.s.actors[self.a].pc = to,
        }
        self.settle(self.a);
        true
    }

    fn micro(&self) -> Micro {
        self.model.next(self.s, self.a)
    }

    /// Goes through what is no step of its own.
    fn settle(&mut self, actor: usize) {
        loop {
            match self.model.next(self.s, actor) {
                Micro::Goto { to } => self.s.actors[actor].pc = to,
                Micro::Return { op } => {
                    oracle::end(self.model, self.s, actor, op);
                    self.s.actors[actor].pc += 1;
                }
                _ => return,
            }
        }
    }

    fn page(&mut self, page: u8) -> &mut Page {
        &mut self.s.pages[usize::from(page)]
    }

    fn me(&self) -> u8 {
        self.a as u8 + 1
    }

    /// Whether the actor holds the folio lock.
    fn mine(&self, page: u8) -> bool {
        let page = self.s.pages[usize::from(page)];
        page.is(flag::PRESENT) && page.locker == self.me()
    }

    fn one(&mut self, micro: Micro) -> To {
        match micro {
            Micro::Begin { .. } | Micro::Return { .. } | Micro::Goto { .. } | Micro::End => {
                To::Blocked
            }
            Micro::Again { until, to } => {
                let over = self.model.ended(self.s, until.into());
                if over { To::Next } else { To::Jump(to) }
            }
            Micro::Down { .. }
            | Micro::TryDown { .. }
            | Micro::Up { .. }
            | Micro::MmapLock
            | Micro::MmapUnlock
            | Micro::LockEntries { .. }
            | Micro::WaitEntry { .. }
            | Micro::UnlockEntries { .. } => self.lock(micro),
            Micro::LockFolio { .. }
            | Micro::TrylockFolio { .. }
            | Micro::WaitFolio { .. }
            | Micro::UnlockFolio { .. }
            | Micro::WaitWriteback { .. } => self.folio_lock(micro),
            Micro::Find { .. }
            | Micro::TestUptodate { .. }
            | Micro::AddFolio { .. }
            | Micro::CheckSize { .. }
            | Micro::GetBlock { .. }
            | Micro::SubmitBio { .. }
            | Micro::BioDone { .. }
            | Micro::EndRead { .. }
            | Micro::MarkUptodate { .. }
            | Micro::CopyOut { .. }
            | Micro::DioMap { .. }
            | Micro::DioRead { .. }
            | Micro::SetPte { .. }
            | Micro::MapPages { .. }
            | Micro::Load { .. } => self.fill(micro),
            Micro::Store { .. }
            | Micro::Dirty { .. }
            | Micro::GetBlockWrite { .. }
            | Micro::StartWriteback { .. }
            | Micro::WriteFolio { .. }
            | Micro::EndWriteback { .. }
            | Micro::DioWrite { .. } => self.write(micro),
            Micro::Zap { .. }
            | Micro::Remove { .. }
            | Micro::Rescan { .. }
            | Micro::Unmap { .. }
            | Micro::FreeBlock { .. }
            | Micro::Convert { .. }
            | Micro::Shift { .. }
            | Micro::Share { .. }
            | Micro::Swap { .. }
            | Micro::SetSize { .. }
            | Micro::Allocate { .. }
            | Micro::Compare { .. } => self.change(micro),
            Micro::DaxInsert { .. }
            | Micro::Pin { .. }
            | Micro::Unpin { .. }
            | Micro::TestPinned { .. }
            | Micro::WaitPinned { .. } => self.dax(micro),
        }
    }

    fn lock(&mut self, micro: Micro) -> To {
        let (a, me) = (self.a, self.me());
        match micro {
            Micro::Down { sem, mode } => {
                let sem = &mut self.s.sems[usize::from(sem)];
                if sem.waits(a) {
                    To::Blocked
                } else if sem.try_take(a, mode) {
                    To::Next
                } else {
                    sem.enqueue(a);
                    To::Queued
                }
            }
            Micro::TryDown { sem, mode, fail } => {
                let taken = self.s.sems[usize::from(sem)].try_take(a, mode);
                if taken { To::Next } else { To::Jump(fail) }
            }
            Micro::Up { sem, mode } => {
                let model = self.model;
                let before = *self.s;
                let wants = |waiter| match model.next_step(&before, waiter) {
                    Micro::Down { mode, .. } => mode,
                    _ => Mode::Exclusive,
                };
                let woken = self.s.sems[usize::from(sem)].release(a, mode, wants);
                for waiter in (0..self.model.extent.actors).filter(|w| woken & 1 << w != 0) {
                    self.s.actors[waiter].pc += 1;
                    self.settle(waiter);
                }
                To::Next
            }
            Micro::LockEntries { pages, closed } => {
                let mask = |p: &usize| pages & 1 << p != 0;
                if (0..self.model.extent.pages)
                    .filter(mask)
                    .any(|p| self.s.pages[p].entry != 0)
                {
                    return To::Blocked;
                }
                let holder = if closed { me } else { me | OPEN };
                (0..self.model.extent.pages)
                    .filter(mask)
                    .for_each(|p| self.s.pages[p].entry = holder);
                To::Next
            }
            Micro::UnlockEntries { pages } => {
                let all = (0..self.model.extent.pages).filter(|p| pages & 1 << p != 0);
                all.for_each(|p| self.s.pages[p].entry = 0);
                To::Next
            }
            Micro::WaitEntry { page } => match self.page(page).entry {
                0 => To::Next,
                holder if holder & !OPEN == me => To::Next,
                _ => To::Blocked,
            },
            // mmap_lock: of the actor's own process.
            _ => To::Next,
        }
    }

    fn folio_lock(&mut self, micro: Micro) -> To {
        let me = self.me();
        match micro {
            Micro::LockFolio { page, gone } => match *self.page(page) {
                p if !p.is(flag::PRESENT) => To::Jump(gone),
                p if p.locker != 0 => To::Blocked,
                _ => {
                    self.page(page).locker = me;
                    To::Next
                }
            },
            Micro::TrylockFolio { page, fail } => match *self.page(page) {
                p if !p.is(flag::PRESENT) || p.locker != 0 => To::Jump(fail),
                _ => {
                    self.page(page).locker = me;
                    To::Next
                }
            },
            Micro::WaitFolio { page } if self.page(page).locker != 0 => To::Blocked,
            Micro::WaitWriteback { page } if self.page(page).is(flag::WRITEBACK) => To::Blocked,
            Micro::UnlockFolio { page } => {
                self.page(page).locker = 0;
                To::Next
            }
            _ => To::Next,
        }
    }

    fn fill(&mut self, micro: Micro) -> To {
        let (a, me) = (self.a, self.me());
        match micro {
            Micro::Find { page, miss, stale } => match *self.page(page) {
                p if !p.is(flag::PRESENT) => To::Jump(miss),
                p if !p.is(flag::UPTODATE) => To::Jump(stale),
                p => {
                    self.s.actors[a].value = p.value;
                    To::Next
                }
            },
            Micro::TestUptodate { page, not } => match self.page(page).is(flag::UPTODATE) {
                true => To::Next,
                false => To::Jump(not),
            },
            Micro::AddFolio { page, exists } => match *self.page(page) {
                p if p.entry != 0 && p.entry & OPEN == 0 && p.entry != me => To::Blocked,
                p if p.is(flag::PRESENT) => To::Jump(exists),
                p => {
                    *self.page(page) = Page {
                        flags: flag::PRESENT,
                        locker: me,
                        entry: p.entry,
                        ..Page::default()
                    };
                    To::Next
                }
            },
            Micro::CheckSize { page, beyond } => {
                let file = self.model.file_of(page.into());
                let index = usize::from(page) - self.model.files[file].first;
                if index < usize::from(self.s.sizes[file]) {
                    To::Next
                } else {
                    To::Jump(beyond)
                }
            }
            Micro::GetBlock { page, other } => {
                if !self.mine(page) {
                    return To::Jump(other);
                }
                self.s.actors[a].block = self.s.map[usize::from(page)];
                To::Next
            }
            Micro::SubmitBio { page, other } => {
                if !self.mine(page) {
                    return To::Jump(other);
                }
                let block = std::mem::take(&mut self.s.actors[a].block);
                self.page(page).io = if block == 0 || block & UNWRITTEN != 0 {
                    HOLE
                } else {
                    block
                };
                To::Next
            }
            Micro::BioDone { page, other } => {
                if !self.mine(page) {
                    return To::Jump(other);
                }
                let value = match std::mem::take(&mut self.page(page).io) {
                    HOLE => Value::ZERO,
                    io => self.s.on_block(io - 1),
                };
                self.page(page).value = value;
                To::Next
            }
            Micro::EndRead { page, other } => {
                if !self.mine(page) {
                    return To::Jump(other);
                }
                self.page(page).flags |= flag::UPTODATE;
                self.page(page).locker = 0;
                To::Next
            }
            Micro::MarkUptodate { page } => {
                self.page(page).flags |= flag::UPTODATE;
                To::Next
            }
            Micro::CopyOut { slot } => {
                oracle::shown(self.model, self.s, a, slot);
                To::Next
            }
            Micro::DioMap { page } => {
                self.s.actors[a].block = self.s.map[usize::from(page)];
                To::Next
            }
            Micro::DioRead { .. } => {
                let block = std::mem::take(&mut self.s.actors[a].block);
                self.s.actors[a].value = match block {
                    0 => Value::ZERO,
                    b if b & UNWRITTEN != 0 => Value::ZERO,
                    b => self.s.on_block(b - 1),
                };
                To::Next
            }
            Micro::SetPte { page, writable } => {
                self.s.actors[a].mapped |= 1 << page;
                if writable {
                    self.s.actors[a].writable |= 1 << page;
                }
                To::Next
            }
            Micro::MapPages { page, none } => {
                let found = *self.page(page);
                if !found.settled() || found.locker != 0 {
                    return To::Jump(none);
                }
                self.s.actors[a].mapped |= 1 << page;
                To::Next
            }
            Micro::Load { page, slot, fault } => {
                if self.s.actors[a].mapped & 1 << page == 0 {
                    return To::Jump(fault);
                }
                let found = *self.page(page);
                self.s.actors[a].value = match found.is(flag::DAX) {
                    true => self.s.on_block(found.io),
                    false => found.value,
                };
                oracle::shown(self.model, self.s, a, slot);
                To::Next
            }
            _ => To::Blocked,
        }
    }

    fn write(&mut self, micro: Micro) -> To {
        let a = self.a;
        match micro {
            Micro::Store { page, word, fault } => {
                if self.s.actors[a].writable & 1 << page == 0 {
                    return To::Jump(fault);
                }
                let page = self.page(page);
                page.value = page.value.with_word(word);
                page.flags |= flag::DIRTY;
                To::Next
            }
            Micro::Dirty { page, write } => {
                self.s.actors[a].block = 0;
                let page = self.page(page);
                page.flags |= flag::DIRTY;
                if let Some(word) = write {
                    page.value = page.value.with_word(word);
                }
                To::Next
            }
            Micro::GetBlockWrite { page, copy } => {
                let at = usize::from(page);
                let found = self.s.map[at] & !UNWRITTEN;
                let shared = found != 0 && self.s.sharers(found - 1) > 1;
                if (found == 0 || shared && copy)
                    && let Some(block) = self.s.free_block(self.model.extent)
                {
                    self.s.blocks[usize::from(block)] |= USED;
                    self.s.map[at] = (block + 1) | UNWRITTEN;
                }
                self.s.actors[a].block = self.s.map[at];
                To::Next
            }
            Micro::StartWriteback { page, clean } => {
                if !self.page(page).is(flag::DIRTY) {
                    return To::Jump(clean);
                }
                let p = self.page(page);
                p.flags = p.flags & !flag::DIRTY | flag::WRITEBACK;
                for actor in &mut self.s.actors {
                    actor.writable &= !(1 << page);
                }
                To::Next
            }
            Micro::WriteFolio { page } => {
                let value = self.page(page).value;
                self.put_on_disk(page, value);
                To::Next
            }
            Micro::EndWriteback { page } => {
                self.page(page).flags &= !flag::WRITEBACK;
                To::Next
            }
            Micro::DioWrite { page, value } => {
                self.put_on_disk(page, value);
                To::Next
            }
            _ => To::Blocked,
        }
    }

    /// A write reaches the device at the block that get_block found: it had better still be the page's.
    fn put_on_disk(&mut self, page: u8, value: Value) {
        let found = std::mem::take(&mut self.s.actors[self.a].block) & !UNWRITTEN;
        let at = usize::from(page);
        if found == 0 {
            return;
        }
        if self.s.map[at] & !UNWRITTEN != found {
            self.s.broken = Anomaly::StaleWriteback.code();
            return;
        }
        self.s.blocks[usize::from(found) - 1] = USED | value.0;
        self.s.map[at] = found;
    }

    fn change(&mut self, micro: Micro) -> To {
        let a = self.a;
        match micro {
            Micro::Zap { page } => self.s.zap(page.into()),
            Micro::Remove { page, clean } => {
                let page = self.page(page);
                if clean && page.is(flag::DIRTY) {
                    page.locker = 0;
                } else {
                    *page = Page {
                        entry: page.entry,
                        ..Page::default()
                    };
                }
            }
            Micro::Rescan { pages, from } => {
                let mut range = (0..self.model.extent.pages).filter(|p| pages & 1 << p != 0);
                if range.any(|p| self.s.pages[p].is(flag::PRESENT)) {
                    return To::Jump(from);
                }
            }
            Micro::Unmap { page, hole } => {
                let found = std::mem::take(&mut self.s.map[usize::from(page)]) & !UNWRITTEN;
                if found == 0 {
                    return To::Jump(hole);
                }
                self.s.actors[a].block = found;
            }
            Micro::FreeBlock { .. } => {
                let block = std::mem::take(&mut self.s.actors[a].block) - 1;
                if self.s.sharers(block) == 0 {
                    self.s.blocks[usize::from(block)] &= !USED;
                }
            }
            Micro::Convert { page } => {
                let at = usize::from(page);
                if self.s.map[at] != 0 {
                    self.s.map[at] |= UNWRITTEN;
                }
            }
            Micro::Shift { from, to } => {
                self.s.map[usize::from(to)] = std::mem::take(&mut self.s.map[usize::from(from)]);
            }
            Micro::Share { from, to } => {
                // One transaction: nobody sees a hole in between.
                let (from, to) = (usize::from(from), usize::from(to));
                let new = self.s.map[from];
                let old = std::mem::replace(&mut self.s.map[to], new) & !UNWRITTEN;
                if old != 0 && self.s.sharers(old - 1) == 0 {
                    self.s.blocks[usize::from(old) - 1] &= !USED;
                }
            }
            Micro::Swap { page, with } => self.s.map.swap(page.into(), with.into()),
            Micro::SetSize { file, pages } => self.s.sizes[usize::from(file)] = pages,
            Micro::Allocate { page, none } => {
                let Some(block) = self.s.free_block(self.model.extent) else {
                    return To::Jump(none);
                };
                self.s.blocks[usize::from(block)] |= USED;
                self.s.map[usize::from(page)] = (block + 1) | UNWRITTEN;
                self.s.actors[a].block = block + 1;
            }
            Micro::Compare {
                page,
                with,
                differs,
            } => {
                if self.s.pages[usize::from(page)].value != self.s.pages[usize::from(with)].value {
                    return To::Jump(differs);
                }
            }
            _ => return To::Blocked,
        }
        To::Next
    }

    fn dax(&mut self, micro: Micro) -> To {
        let me = self.me();
        match micro {
            Micro::DaxInsert { page, hole } => {
                let found = std::mem::take(&mut self.s.actors[self.a].block);
                if found == 0 {
                    return To::Jump(hole);
                }
                let entry = self.page(page).entry;
                *self.page(page) = Page {
                    flags: flag::PRESENT | flag::UPTODATE | flag::DAX,
                    locker: 0,
                    entry,
                    value: Value::ZERO,
                    io: found - 1,
                };
                self.s.actors[self.a].mapped |= 1 << page;
                To::Next
            }
            Micro::Pin { page } => {
                self.page(page).locker = me;
                To::Next
            }
            Micro::Unpin { page } => {
                if self.page(page).locker == me {
                    self.page(page).locker = 0;
                }
                To::Next
            }
            Micro::TestPinned { page, pinned } => {
                let p = *self.page(page);
                if p.is(flag::DAX) && p.locker != 0 {
                    To::Jump(pinned)
                } else {
                    To::Next
                }
            }
            Micro::WaitPinned { page } => {
                let p = *self.page(page);
                if p.is(flag::DAX) && p.locker != 0 {
                    To::Blocked
                } else {
                    To::Next
                }
            }
            _ => To::Blocked,
        }
    }
}
