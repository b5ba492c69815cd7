//! Lock order as lockdep would judge it: from which lock is taken under which, whether or not the deadlock
//! can be reached. The programs are followed along every branch, so no schedule is needed.

use std::collections::{BTreeMap, BTreeSet};

use crate::micro::Micro;
use crate::model::Model;
use crate::sem::Mode;

/// A class of locks and how it is held or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    lock: Lock,
    /// Which of two files of a class, lower inode first: lockdep's subclass. Of folios, the page.
    file: usize,
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    Sem(usize),
    Mmap,
    Folio,
}

/// Locks that are taken in a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// What lockdep would print: `invalidate_lock is taken while invalidate_lock is held (by read)`.
    pub lines: Vec<String>,
}

/// The first circle, if the programs take locks in one.
pub fn cycle(model: &Model) -> Option<Cycle> {
    let mut edges: BTreeMap<Lock, BTreeMap<Lock, usize>> = BTreeMap::new();
    for actor in 0..model.extent.actors {
        for (held, taken) in pairs(model, actor) {
            if held.lock == taken.lock {
                // Of two inodes the lower one's first, with a subclass of its own.
                let nested = held.file < taken.file || held.lock == Lock::Folio;
                if !nested {
                    let name = name(model, held.lock);
                    let who = &model.actors[actor];
                    let line = format!(
                        "{who}: {name} is taken{} while {name} is held{}",
                        way(taken.mode),
                        way(held.mode)
                    );
                    return Some(Cycle { lines: vec![line] });
                }
                continue;
            }
            edges
                .entry(held.lock)
                .or_default()
                .entry(taken.lock)
                .or_insert(actor);
        }
    }
    let starts: Vec<Lock> = edges.keys().copied().collect();
    starts.into_iter().find_map(|start| {
        let way = circle(&edges, start, start, &mut BTreeSet::new())?;
        let line = |(held, taken, actor): &(Lock, Lock, usize)| {
            let (who, held, taken) = (
                &model.actors[*actor],
                name(model, *held),
                name(model, *taken),
            );
            format!("{who}: {taken} is taken while {held} is held")
        };
        Some(Cycle {
            lines: way.iter().map(line).collect(),
        })
    })
}

fn way(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => " (shared)",
        Mode::Exclusive => " (exclusive)",
    }
}

fn name(model: &Model, lock: Lock) -> String {
    match lock {
        Lock::Sem(n) => model.locks[n].clone(),
        Lock::Mmap => "mmap_lock".into(),
        Lock::Folio => "folio_lock".into(),
    }
}

type Edge = (Lock, Lock, usize);

fn circle(
    edges: &BTreeMap<Lock, BTreeMap<Lock, usize>>,
    at: Lock,
    goal: Lock,
    seen: &mut BTreeSet<Lock>,
) -> Option<Vec<Edge>> {
    if !seen.insert(at) {
        return None;
    }
    edges.get(&at)?.iter().find_map(|(next, actor)| {
        let edge = (at, *next, *actor);
        if *next == goal {
            return Some(vec![edge]);
        }
        let mut rest = circle(edges, *next, goal, seen)?;
        rest.insert(0, edge);
        Some(rest)
    })
}

/// What an actor takes while it holds what, along every way through its program. A trylock cannot wait, so
/// it orders nothing; what it has taken is held all the same.
fn pairs(model: &Model, actor: usize) -> BTreeSet<(Class, Class)> {
    let program = &model.programs[actor];
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<(usize, BTreeSet<Class>)> = vec![(0, BTreeSet::new())];
    while let Some((pc, mut held)) = todo.pop() {
        if !seen.insert((pc, held.clone())) {
            continue;
        }
        let mut micro = program[pc];
        let before = held.clone();
        let (takes, waits) = match micro {
            Micro::Down { sem, mode } => (Some(sem_class(model, sem, mode)), true),
            Micro::TryDown { sem, mode, .. } => (Some(sem_class(model, sem, mode)), false),
            Micro::MmapLock => (Some(mmap()), true),
            Micro::LockFolio { page, .. } => (Some(folio(page)), true),
            Micro::TrylockFolio { page, .. } | Micro::AddFolio { page, .. } => {
                (Some(folio(page)), false)
            }
            // Waiting for a folio's lock is as good as taking it.
            Micro::WaitFolio { page } => {
                found.extend(held.iter().map(|h| (*h, folio(page))));
                (None, false)
            }
            _ => (None, false),
        };
        if let Some(taken) = takes {
            if waits {
                found.extend(held.iter().map(|h| (*h, taken)));
            }
            held.insert(taken);
        }
        match micro {
            Micro::Up { sem, mode } => drop(held.remove(&sem_class(model, sem, mode))),
            Micro::MmapUnlock => drop(held.remove(&mmap())),
            Micro::UnlockFolio { page }
            | Micro::EndRead { page, .. }
            | Micro::Remove { page, .. } => {
                held.remove(&folio(page));
            }
            _ => {}
        }
        // A jump is taken where nothing was got; of a read, where the folio is somebody else's.
        let mut before = before;
        if let Micro::GetBlock { page, .. }
        | Micro::SubmitBio { page, .. }
        | Micro::BioDone { page, .. }
        | Micro::EndRead { page, .. } = micro
        {
            before.remove(&folio(page));
        }
        for target in micro.targets().into_iter().flatten().flatten() {
            todo.push((usize::from(*target), before.clone()));
        }
        if !matches!(micro, Micro::Goto { .. } | Micro::End) {
            todo.push((pc + 1, held));
        }
    }
    found
}

fn sem_class(model: &Model, sem: u8, mode: Mode) -> Class {
    let info = model.sems[usize::from(sem)];
    Class {
        lock: Lock::Sem(info.lock),
        file: info.file,
        mode,
    }
}

fn mmap() -> Class {
    Class {
        lock: Lock::Mmap,
        file: 0,
        mode: Mode::Shared,
    }
}

fn folio(page: u8) -> Class {
    Class {
        lock: Lock::Folio,
        file: page.into(),
        mode: Mode::Exclusive,
    }
}
