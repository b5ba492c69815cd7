//! Fewer states with the same answers: a step that nobody else can notice is taken at once and alone, and
//! states that differ only by which of several equal actors is where are one. A test holds that neither
//! changes a verdict.

use crate::micro::Micro;
use crate::model::Model;
use crate::state::{Actor, State};

/// An actor whose next step nobody else can notice, if there is one: it may go first, alone.
pub(crate) fn unnoticed(model: &Model, state: &State) -> Option<usize> {
    (0..model.extent.actors).find(|a| {
        let program = &model.programs[*a];
        let pc = usize::from(state.actors[*a].pc);
        let changes = model.op_of(state, *a).is_none_or(|op| op.mutator.is_some());
        match program[pc] {
            // Of a folio that the actor has locked, nobody else looks at the bio.
            Micro::MmapLock
            | Micro::MmapUnlock
            | Micro::TestUptodate { .. }
            | Micro::SubmitBio { .. } => !changes || !returns(program, pc + 1),
            Micro::CheckSize { .. } => model.sizes_fixed && !changes,
            // What it may show only grows with time: now is the strictest moment.
            Micro::CopyOut { .. } => !changes,
            _ => false,
        }
    })
}

/// Whether the call returns as part of the step before `pc`.
fn returns(program: &[Micro], mut pc: usize) -> bool {
    loop {
        match program[pc] {
            Micro::Return { .. } => return true,
            Micro::Goto { to } => pc = to.into(),
            _ => return false,
        }
    }
}

/// The one state that stands for all that differ by the names of equal actors only.
pub(crate) fn canonical(model: &Model, state: &mut State) {
    for group in &model.alike {
        let key = |a: usize| {
            let Actor { op, ref legal, .. } = state.actors[a];
            let actor = &state.actors[a];
            let op = if op == 0 { 0 } else { op - base(model, a) };
            (
                actor.pc,
                op,
                actor.block,
                actor.value.0,
                actor.mapped,
                *legal,
            )
        };
        if group.windows(2).all(|pair| key(pair[0]) <= key(pair[1])) {
            continue;
        }
        let mut sorted = group.clone();
        sorted.sort_by_key(|a| key(*a));
        let mut to: [usize; 8] = std::array::from_fn(|a| a);
        for (place, actor) in group.iter().zip(&sorted) {
            to[*actor] = *place;
        }
        rename(model, state, &to);
    }
}

/// The number of an actor's first call.
fn base(model: &Model, actor: usize) -> u8 {
    model.ops.iter().position(|o| o.actor == actor).unwrap_or(0) as u8
}

fn rename(model: &Model, state: &mut State, to: &[usize; 8]) {
    let old = *state;
    let owner = |o: u8, flags: u8| match o & !flags {
        0 => 0,
        id => (to[usize::from(id) - 1] as u8 + 1) | o & flags,
    };
    for (actor, place) in to.iter().enumerate().take(model.extent.actors) {
        let mut moved = old.actors[actor];
        if moved.op != 0 {
            moved.op = moved.op - base(model, actor) + base(model, *place);
        }
        state.actors[*place] = moved;
    }
    for page in &mut state.pages[..model.extent.pages] {
        page.locker = owner(page.locker, 0);
        page.entry = owner(page.entry, crate::state::OPEN);
    }
    for (sem, before) in state.sems[..model.extent.sems].iter_mut().zip(&old.sems) {
        sem.writer = owner(before.writer, 0);
        sem.readers = 0;
        for actor in (0..model.extent.actors).filter(|a| before.readers & 1 << a != 0) {
            sem.readers |= 1 << to[actor];
        }
        sem.queue = [0; 4];
        before.waiters().for_each(|w| sem.enqueue(to[w]));
    }
}
