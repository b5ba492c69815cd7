//! What a page and a result may be, by the order of calls and returns alone. It is looked at in every state
//! and not at the end: with two punchers on a page the second one wipes out what the first one left.
//!
//! A call that overlaps another may come before or after it; one that begins after a return may not show
//! what was before. A page is judged only while no call that changes it is under way.

use crate::anomaly::Anomaly;
use crate::model::Model;
use crate::state::{State, flag};
use crate::value::{Set, Value};

/// A call begins.
pub(crate) fn begin(model: &Model, s: &mut State, actor: usize, op: u8) {
    let info = &model.ops[usize::from(op)];
    let mut overlapped = 0;
    let mut legal = s.actors[actor].legal;
    for (slot, page) in info.shows.iter().enumerate() {
        legal[slot] = s.allowed[*page];
    }
    for other in (0..model.extent.actors).filter(|o| *o != actor) {
        let Some(theirs) = model.op_of(s, other) else {
            continue;
        };
        if let Some(bit) = theirs.mutator {
            overlapped |= 1 << bit;
            for (slot, page) in info.shows.iter().enumerate() {
                legal[slot] = legal[slot].union(theirs.effects[*page]);
            }
        }
        if let Some(bit) = info.mutator {
            s.actors[other].overlapped |= 1 << bit;
            for (slot, page) in theirs.shows.iter().enumerate() {
                let seen = &mut s.actors[other].legal[slot];
                *seen = seen.union(info.effects[*page]);
            }
        }
    }
    let me = &mut s.actors[actor];
    me.op = op + 1;
    me.legal = legal;
    // Whoever changes nothing need not remember.
    me.overlapped = if info.mutator.is_some() {
        overlapped
    } else {
        0
    };
}

/// It returns: what it did is settled, except for what overlapped it.
pub(crate) fn end(model: &Model, s: &mut State, actor: usize, op: u8) {
    let info = &model.ops[usize::from(op)];
    if info.mutator.is_some() {
        let overlapped = s.actors[actor].overlapped;
        for page in 0..model.extent.pages {
            let mut new = info.effects[page];
            for other in &model.ops {
                if other.mutator.is_some_and(|bit| overlapped & 1 << bit != 0) {
                    new = new.union(other.effects[page].only(info.effects[page]));
                }
            }
            s.allowed[page] = s.allowed[page].replaced_by(new);
        }
    }
    let me = &mut s.actors[actor];
    (me.op, me.overlapped, me.block, me.value) = (0, 0, 0, Value::ZERO);
    me.legal = Default::default();
}

/// A call shows the value in its register for its `slot`th page.
pub(crate) fn shown(model: &Model, s: &mut State, actor: usize, slot: u8) {
    let slot = usize::from(slot);
    let value = std::mem::take(&mut s.actors[actor].value);
    let Some(op) = model.op_of(s, actor) else {
        return;
    };
    let Some(page) = op.shows.get(slot) else {
        return;
    };
    if !model.ever[*page].has_body(value) {
        s.broken = Anomaly::ForeignData.code();
    } else if !s.actors[actor].legal[slot].has(value) {
        s.broken = Anomaly::StaleRead.code();
    }
}

/// What is wrong with a state, and with which page.
pub fn check(model: &Model, s: &State) -> Option<(Anomaly, Option<usize>)> {
    if let Some(anomaly) = Anomaly::from_code(s.broken) {
        return Some((anomaly, None));
    }
    (0..model.extent.pages).find_map(|page| Some((page_wrong(model, s, page)?, Some(page))))
}

fn page_wrong(model: &Model, s: &State, at: usize) -> Option<Anomaly> {
    let file = &model.files[model.file_of(at)];
    if at - file.first >= usize::from(s.sizes[model.file_of(at)]) {
        return None;
    }
    let page = s.pages[at];
    let shown = match (page.settled(), page.is(flag::DAX)) {
        (false, _) => None,
        (true, true) => Some(s.on_block(page.io)),
        (true, false) => Some(page.value),
    };
    if shown.is_some_and(|v| !model.ever[at].has_body(v)) {
        return Some(Anomaly::ForeignData);
    }
    if (0..model.extent.actors).any(|a| {
        model
            .op_of(s, a)
            .is_some_and(|op| !op.effects[at].is_empty())
    }) {
        return None;
    }
    let allowed = s.allowed[at];
    if let Some(value) = shown
        && !allowed.has(value)
    {
        return Some(old_or_lost(allowed, value, Anomaly::StalePage));
    }
    if model.cache_is_store {
        let lost = !page.is(flag::PRESENT) && !allowed.has(Value::ZERO);
        return lost.then_some(Anomaly::LostWrite);
    }
    // What is dirty or on its way will reach the device; what is locked is being read.
    let on_its_way = page.is(flag::DIRTY) || page.is(flag::WRITEBACK) || page.locker != 0;
    if on_its_way {
        return None;
    }
    let disk = s.on_disk(at);
    if !model.ever[at].has_body(disk) {
        return Some(Anomaly::StaleMapping);
    }
    if !allowed.has(disk) {
        return Some(old_or_lost(allowed, disk, Anomaly::StaleMapping));
    }
    (shown.is_some_and(|v| v != disk)).then_some(Anomaly::StalePage)
}

/// The body decides; with the right body, a word that should be there and is not was lost.
fn old_or_lost(allowed: Set, value: Value, old: Anomaly) -> Anomaly {
    let word_must_be = allowed.words & 1 == 0;
    if allowed.has_body(value) && word_must_be {
        Anomaly::LostWrite
    } else {
        old
    }
}
