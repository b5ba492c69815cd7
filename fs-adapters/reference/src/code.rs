//! A small assembler for programs of micro-operations: labels, and regions that a policy's locks surround.
//! A jump out of a region gives the region's locks back on its way, so nothing can be forgotten.

use crate::hook::Hook;
use crate::micro::Micro;
use crate::model::SemInfo;
use crate::policy::{LockKind, Policy};
use crate::sem::Mode;

/// A place in the program that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    id: u8,
    /// How many locks are held there.
    depth: usize,
}

/// What a region holds, to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Sem(u8, Mode),
    Entries(u8),
    Mmap,
    /// A look at a lock that holds nothing.
    Nothing,
}

/// A file and the pages of it that a region is about, a bit a slot.
pub(crate) type Place = (usize, u8);

/// A program in the making.
pub(crate) struct Code<'a> {
    policy: &'a Policy,
    sems: &'a mut Vec<SemInfo>,
    out: Vec<Micro>,
    held: Vec<Held>,
    places: Vec<Option<usize>>,
    stubs: Vec<(u8, Vec<Micro>, u8)>,
}

impl<'a> Code<'a> {
    pub(crate) fn new(policy: &'a Policy, sems: &'a mut Vec<SemInfo>) -> Self {
        Code {
            policy,
            sems,
            out: Vec::new(),
            held: Vec::new(),
            places: Vec::new(),
            stubs: Vec::new(),
        }
    }

    /// How many locks are held here.
    pub(crate) fn depth(&self) -> usize {
        self.held.len()
    }

    /// A label for here or later, with the locks that are held now.
    pub(crate) fn label(&mut self) -> Label {
        Label {
            id: self.new_place(),
            depth: self.held.len(),
        }
    }

    fn new_place(&mut self) -> u8 {
        self.places.push(None);
        (self.places.len() - 1).min(255) as u8
    }

    /// The label is here.
    pub(crate) fn place(&mut self, label: Label) {
        debug_assert_eq!(
            self.held.len(),
            label.depth,
            "a label stands where other locks are held"
        );
        self.places[usize::from(label.id)] = Some(self.out.len());
    }

    /// A new label, here.
    pub(crate) fn here(&mut self) -> Label {
        let label = self.label();
        self.place(label);
        label
    }

    pub(crate) fn push(&mut self, micro: Micro) {
        self.out.push(micro);
    }

    /// As a jump's target.
    pub(crate) fn to(&mut self, label: Label) -> u8 {
        self.past(label, &[])
    }

    /// As a jump's target, with something to do on the way.
    pub(crate) fn past(&mut self, label: Label, first: &[Micro]) -> u8 {
        if self.held.len() == label.depth && first.is_empty() {
            return label.id;
        }
        let mut way = first.to_vec();
        way.extend(
            self.held[label.depth..]
                .iter()
                .rev()
                .filter_map(|h| give_back(*h)),
        );
        let same = self
            .stubs
            .iter()
            .find(|(_, w, to)| *w == way && *to == label.id);
        if let Some((id, ..)) = same {
            return *id;
        }
        let id = self.new_place();
        self.stubs.push((id, way, label.id));
        id
    }

    pub(crate) fn goto(&mut self, label: Label) {
        let to = self.to(label);
        self.push(Micro::Goto { to });
    }

    /// The policy's locks at a hook around a piece of program.
    pub(crate) fn region(&mut self, hook: Hook, places: &[Place], body: impl FnOnce(&mut Self)) {
        self.region_or(hook, places, None, body);
    }

    /// The same with trylocks, and where to go if one fails.
    pub(crate) fn region_or(
        &mut self,
        hook: Hook,
        places: &[Place],
        nowait: Option<Label>,
        body: impl FnOnce(&mut Self),
    ) {
        let depth = self.held.len();
        let mut places = places.to_vec();
        places.sort_unstable();
        places.dedup_by_key(|(file, _)| *file);
        for take in self.policy.takes(hook) {
            let kind = self
                .policy
                .locks
                .get(&take.lock)
                .copied()
                .unwrap_or(LockKind::Rwsem);
            match kind {
                LockKind::Rwsem => {
                    for (file, _) in &places {
                        let sem = self.sem(&take.lock, *file);
                        let mode = take.mode;
                        match nowait {
                            None => self.push(Micro::Down { sem, mode }),
                            Some(label) => {
                                let fail = self.to(label);
                                self.push(Micro::TryDown { sem, mode, fail });
                            }
                        }
                        self.held.push(Held::Sem(sem, mode));
                    }
                }
                LockKind::PageEntries | LockKind::WaitQueue => {
                    let pages = places.iter().fold(0, |mask, (_, pages)| mask | pages);
                    self.entries(take.mode, kind, pages);
                }
            }
        }
        body(self);
        self.close(depth);
    }

    fn entries(&mut self, mode: Mode, kind: LockKind, pages: u8) {
        match mode {
            Mode::Exclusive => {
                let closed = kind == LockKind::PageEntries;
                self.push(Micro::LockEntries { pages, closed });
                self.held.push(Held::Entries(pages));
            }
            Mode::Shared => {
                for page in (0..8).filter(|p| pages & 1 << p != 0) {
                    self.push(Micro::WaitEntry { page });
                }
                self.held.push(Held::Nothing);
            }
        }
    }

    /// The actor's own mmap_lock around a piece of program.
    pub(crate) fn mmap_locked(&mut self, body: impl FnOnce(&mut Self)) {
        let depth = self.held.len();
        self.push(Micro::MmapLock);
        self.held.push(Held::Mmap);
        body(self);
        self.close(depth);
    }

    fn close(&mut self, depth: usize) {
        while self.held.len() > depth {
            let held = self
                .held
                .pop()
                .expect("more is held than the region began with");
            if let Some(micro) = give_back(held) {
                self.push(micro);
            }
        }
    }

    /// Drops the innermost lock, does something, and takes it again (`ext4_wait_dax_page`).
    pub(crate) fn dropping_innermost(&mut self, body: impl FnOnce(&mut Self)) {
        let innermost = self.held.last().copied();
        if let Some(micro) = innermost.and_then(give_back) {
            self.push(micro);
        }
        body(self);
        if let Some(Held::Sem(sem, mode)) = innermost {
            self.push(Micro::Down { sem, mode });
        }
    }

    fn sem(&mut self, lock: &str, file: usize) -> u8 {
        let lock = self.policy.locks.index(lock).unwrap_or(0);
        let info = SemInfo { lock, file };
        let at = self
            .sems
            .iter()
            .position(|s| *s == info)
            .unwrap_or_else(|| {
                self.sems.push(info);
                self.sems.len() - 1
            });
        at as u8
    }

    /// The finished program; nothing if it is too long for a program counter of a byte.
    pub(crate) fn finish(mut self) -> Option<Vec<Micro>> {
        self.push(Micro::End);
        for (id, way, to) in std::mem::take(&mut self.stubs) {
            self.places[usize::from(id)] = Some(self.out.len());
            self.out.extend(way);
            self.out.push(Micro::Goto { to });
        }
        if self.out.len() > 255 || self.places.len() > 255 {
            return None;
        }
        let places = &self.places;
        for micro in &mut self.out {
            for target in micro.targets().into_iter().flatten().flatten() {
                *target = places[usize::from(*target)].expect("every label is placed") as u8;
            }
        }
        Some(self.out)
    }
}

fn give_back(held: Held) -> Option<Micro> {
    match held {
        Held::Sem(sem, mode) => Some(Micro::Up { sem, mode }),
        Held::Entries(pages) => Some(Micro::UnlockEntries { pages }),
        Held::Mmap => Some(Micro::MmapUnlock),
        Held::Nothing => None,
    }
}
