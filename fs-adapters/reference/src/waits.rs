//! Who waits for whom, and the circle that makes a deadlock.

use crate::micro::Micro;
use crate::model::Model;
use crate::sem::Mode;
use crate::state::{OPEN, State};

/// One actor's wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who waits.
    pub actor: usize,
    /// Whom for; perhaps itself.
    pub on: usize,
    /// In words: `reader waits for glock, behind puncher in the queue`.
    pub why: String,
}

/// Everybody that an actor waits for.
fn waits(model: &Model, state: &State, actor: usize) -> Vec<Wait> {
    let name = |a: usize| &model.actors[a];
    let wait = |on: usize, why: String| Wait {
        actor,
        on,
        why: format!("{} {why}", name(actor)),
    };
    let page_of = |page: u8| state.pages[usize::from(page)];
    match model.next_step(state, actor) {
        Micro::Down { sem, mode } => {
            let info = &state.sems[usize::from(sem)];
            if !info.waits(actor) {
                return Vec::new();
            }
            let lock = model.sem_name(sem.into());
            let holders = (0..model.extent.actors).filter(|a| info.held_by(*a));
            let blocking =
                holders.filter(|a| mode == Mode::Exclusive || usize::from(info.writer) == a + 1);
            let held = blocking.map(|a| match a == actor {
                true => wait(a, format!("waits for {lock}, which it holds itself")),
                false => wait(a, format!("waits for {lock}, which {} holds", name(a))),
            });
            let ahead = info.waiters().take_while(|w| *w != actor);
            let queued = ahead.map(|a| {
                wait(
                    a,
                    format!("waits for {lock}, behind {} in its queue", name(a)),
                )
            });
            held.chain(queued).collect()
        }
        Micro::LockFolio { page, .. } | Micro::WaitFolio { page } if page_of(page).locker != 0 => {
            let on = usize::from(page_of(page).locker) - 1;
            vec![wait(
                on,
                format!(
                    "waits for the folio lock of {}, which {} holds",
                    model.page_name(page.into()),
                    name(on)
                ),
            )]
        }
        Micro::WaitEntry { page } | Micro::AddFolio { page, .. } if page_of(page).entry != 0 => {
            let on = usize::from(page_of(page).entry & !OPEN) - 1;
            vec![wait(
                on,
                format!(
                    "waits for the locked entry of {}, which {} put there",
                    model.page_name(page.into()),
                    name(on)
                ),
            )]
        }
        Micro::LockEntries { pages, .. } => {
            let held = (0..model.extent.pages).filter(|p| pages & 1 << p != 0);
            let holders = held
                .map(|p| state.pages[p].entry & !OPEN)
                .filter(|e| *e != 0);
            holders
                .map(|e| usize::from(e) - 1)
                .map(|on| wait(on, format!("waits for an entry of {}", name(on))))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// A circle of waits, if there is one.
pub fn circle(model: &Model, state: &State) -> Option<Vec<Wait>> {
    (0..model.extent.actors).find_map(|start| {
        let mut way = Vec::new();
        search(model, state, start, start, &mut way).then_some(way)
    })
}

fn search(model: &Model, state: &State, at: usize, goal: usize, way: &mut Vec<Wait>) -> bool {
    for wait in waits(model, state, at) {
        if way.iter().any(|w| w.actor == wait.actor) {
            return false;
        }
        let on = wait.on;
        way.push(wait);
        if on == goal || search(model, state, on, goal, way) {
            return true;
        }
        way.pop();
    }
    false
}
