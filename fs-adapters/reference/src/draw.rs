//! A counterexample as people draw it: time downward, a column an actor, at the margin what changed and who
//! holds what, and one line that says why.

use punchbench_results::{Diagram, Row};

use crate::anomaly::Anomaly;
use crate::lockdep;
use crate::micro::Micro;
use crate::model::Model;
use crate::oracle;
use crate::sem::Sem;
use crate::shortest::switches;
use crate::state::{State, UNWRITTEN, USED, flag};
use crate::step::step;
use crate::token::{Token, TokenError};
use crate::waits;

/// One step of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Who.
    pub actor: usize,
    /// What.
    pub micro: Micro,
    /// Before it.
    pub before: State,
    /// After it.
    pub after: State,
}

/// Steps through a schedule.
pub fn replay(model: &Model, schedule: &[u8]) -> Result<Vec<Moment>, TokenError> {
    let mut state = model.first;
    let mut moments = Vec::new();
    for (n, actor) in schedule.iter().enumerate() {
        let who = usize::from(*actor);
        let after = (who < model.extent.actors)
            .then(|| step(model, &state, who))
            .flatten();
        let after = after.ok_or(TokenError::Step {
            step: n + 1,
            actor: *actor,
        })?;
        moments.push(Moment {
            actor: who,
            micro: model.next_step(&state, who),
            before: state,
            after,
        });
        state = after;
    }
    Ok(moments)
}

/// Locks taken or waited for on the way.
pub fn lock_steps(moments: &[Moment]) -> usize {
    moments.iter().filter(|m| m.micro.is_lock()).count()
}

/// Draws the way to an anomaly.
pub fn draw(model: &Model, anomaly: Anomaly, schedule: &[u8]) -> Result<Diagram, TokenError> {
    let moments = replay(model, schedule)?;
    let last = moments.last().map_or(model.first, |m| m.after);
    let columns = (0..model.extent.actors).map(|actor| {
        let calls = model
            .ops
            .iter()
            .filter(|o| o.actor == actor)
            .map(|o| o.text.as_str());
        format!(
            "{}: {}",
            model.actors[actor],
            calls.collect::<Vec<_>>().join("; ")
        )
    });
    let rows = moments.iter().filter(|m| !idle(m));
    let rows = rows.map(|m| Row {
        actor: m.actor,
        lines: vec![line(model, m)],
        margin: margin(model, m),
    });
    let mut closing = vec![format!(
        "=> {anomaly}: {}",
        what(model, anomaly, &last, &moments)
    )];
    let because = because(model, anomaly, &moments);
    if !because.is_empty() {
        closing.push(format!("because {because}"));
    }
    if !schedule.is_empty() {
        let (steps, switches) = (schedule.len(), switches(schedule));
        closing.push(format!(
            "{steps} steps, {switches} context switches; {}",
            Token::of(model, schedule)
        ));
    }
    Ok(Diagram {
        columns: columns.collect(),
        rows: rows.collect(),
        closing,
    })
}

/// A step that changed nothing and that nobody needs to see.
fn idle(m: &Moment) -> bool {
    let mut before = m.before;
    before.actors[m.actor] = m.after.actors[m.actor];
    let quiet = matches!(
        m.micro,
        Micro::Zap { .. }
            | Micro::WaitWriteback { .. }
            | Micro::WaitFolio { .. }
            | Micro::WaitEntry { .. }
            | Micro::CheckSize { .. }
            | Micro::TestUptodate { .. }
            | Micro::LockFolio { .. }
            | Micro::StartWriteback { .. }
            | Micro::TestPinned { .. }
            | Micro::UnlockFolio { .. }
            | Micro::Return { .. }
            | Micro::Goto { .. }
    );
    quiet && before == m.after
}

fn line(model: &Model, m: &Moment) -> String {
    let text = m.micro.text(model);
    let own = &m.after.actors[m.actor];
    match m.micro {
        Micro::Find { page, .. } => match m.before.pages[usize::from(page)] {
            p if !p.is(flag::PRESENT) => format!("{text}: miss"),
            p if !p.is(flag::UPTODATE) => format!("{text}: not uptodate"),
            _ => format!("{text}: hit"),
        },
        Micro::GetBlock { .. } | Micro::DioMap { .. } => match own.block {
            0 => format!("{text} = hole"),
            b if b & UNWRITTEN != 0 => format!("{text} = unwritten"),
            b => format!("{text} = block {}", b - 1),
        },
        Micro::Down { sem, .. } if m.after.sems[usize::from(sem)].waits(m.actor) => {
            format!("{text}  <- waits")
        }
        Micro::Load { page, fault, .. } if own.pc == fault => {
            format!("{text}: {} is not mapped", model.page_name(page.into()))
        }
        _ => text,
    }
}

fn margin(model: &Model, m: &Moment) -> String {
    let mut notes = Vec::new();
    for (n, (a, b)) in m.before.pages.iter().zip(&m.after.pages).enumerate() {
        let name = || model.page_name(n);
        if a.is(flag::PRESENT) && !b.is(flag::PRESENT) {
            notes.push(format!("{} not cached", name()));
        } else if b.settled() && (!a.settled() || a.value != b.value) && !b.is(flag::DAX) {
            notes.push(format!("{} cached: {}", name(), model.value_name(b.value)));
        } else if b.is(flag::DAX) && !a.is(flag::DAX) {
            notes.push(format!("{} maps block {}", name(), b.io));
        }
        if !a.is(flag::DIRTY) && b.is(flag::DIRTY) && !a.settled() {
            notes.push(format!("{} dirty", name()));
        }
    }
    for (n, (a, b)) in m.before.map.iter().zip(&m.after.map).enumerate() {
        if a != b {
            let name = model.page_name(n);
            notes.push(match b {
                0 => format!("{name} is a hole"),
                b if b & UNWRITTEN != 0 => {
                    format!("{name} = block {}, unwritten", (b & !UNWRITTEN) - 1)
                }
                b => format!("{name} = block {}", b - 1),
            });
        }
    }
    for (n, (a, b)) in m.before.blocks.iter().zip(&m.after.blocks).enumerate() {
        if a & USED != 0 && b & USED == 0 {
            notes.push(format!("block {n} free"));
        } else if a & !USED != b & !USED {
            notes.push(format!(
                "block {n}: {}",
                model.value_name(m.after.on_block(n as u8))
            ));
        }
    }
    for (n, (a, b)) in m.before.sems.iter().zip(&m.after.sems).enumerate() {
        if a != b {
            notes.push(holders(model, n, b));
        }
    }
    for (n, (a, b)) in m.before.sizes.iter().zip(&m.after.sizes).enumerate() {
        if a != b {
            notes.push(format!("{}: {b} pages", model.file_name(n)));
        }
    }
    notes.join("; ")
}

fn holders(model: &Model, n: usize, sem: &Sem) -> String {
    let names = |list: Vec<usize>| {
        list.into_iter()
            .map(|a| model.actors[a].as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let held: Vec<usize> = (0..model.extent.actors)
        .filter(|a| sem.held_by(*a))
        .collect();
    let how = if sem.writer == 0 {
        "shared"
    } else {
        "exclusive"
    };
    let mut text = match held.is_empty() {
        true => format!("{} free", model.sem_name(n)),
        false => format!("{}: {} {how}", model.sem_name(n), names(held)),
    };
    let waiting: Vec<usize> = sem.waiters().collect();
    if !waiting.is_empty() {
        text.push_str(&format!(", {} waits", names(waiting)));
    }
    text
}

/// What the last state shows.
fn what(model: &Model, anomaly: Anomaly, state: &State, moments: &[Moment]) -> String {
    let page = oracle::check(model, state).and_then(|(_, page)| page);
    match (anomaly, page) {
        (Anomaly::Deadlock, _) => {
            let circle = waits::circle(model, state).unwrap_or_default();
            let lines: Vec<String> = circle.into_iter().map(|w| w.why).collect();
            if lines.is_empty() {
                "nobody can go on".into()
            } else {
                lines.join("; ")
            }
        }
        (Anomaly::LockOrder, _) => {
            lockdep::cycle(model).map_or(String::new(), |c| c.lines.join("; "))
        }
        (Anomaly::Livelock, _) => {
            format!("the last {} steps can go round for ever", round(moments))
        }
        (Anomaly::StaleWriteback, _) => {
            "a write reaches a block that is no longer the file's".into()
        }
        (_, Some(page)) if state.pages[page].settled() => {
            let value = match state.pages[page] {
                p if p.is(flag::DAX) => state.on_block(p.io),
                p => p.value,
            };
            let disk = if model.cache_is_store {
                String::new()
            } else {
                format!(", on disk it is {}", model.value_name(state.on_disk(page)))
            };
            format!(
                "the page cache shows {} for {}{disk}",
                model.value_name(value),
                model.page_name(page)
            )
        }
        (_, Some(page)) => format!(
            "{} reads as {}",
            model.page_name(page),
            model.value_name(state.on_disk(page))
        ),
        (_, None) => "a call has shown what it may not show".into(),
    }
}

/// How many of the last steps led back to where they began; 0 if none did.
pub fn round(moments: &[Moment]) -> usize {
    let last = moments.last().map(|m| m.after);
    let first = moments.iter().position(|m| Some(m.before) == last);
    first.map_or(0, |n| moments.len() - n)
}

/// The few steps whose order made it.
fn because(model: &Model, anomaly: Anomaly, moments: &[Moment]) -> String {
    let who = |n: usize| model.actors[moments[n].actor].as_str();
    let last_of = |want: &dyn Fn(&Micro) -> bool| moments.iter().rposition(|m| want(&m.micro));
    match anomaly {
        Anomaly::StalePage | Anomaly::ForeignData | Anomaly::StaleRead => {
            let Some(looked) =
                last_of(&|m| matches!(m, Micro::GetBlock { .. } | Micro::DioMap { .. }))
            else {
                return String::new();
            };
            let page = match moments[looked].micro {
                Micro::GetBlock { page, .. } | Micro::DioMap { page } => page,
                _ => return String::new(),
            };
            let name = model.page_name(page.into());
            let later = moments[looked..].iter().position(|m| {
                matches!(m.micro, Micro::Unmap { page: p, .. } | Micro::Convert { page: p } if p == page)
                    || matches!(m.micro, Micro::Shift { to, .. } | Micro::Share { to, .. } if to == page)
                    || matches!(m.micro, Micro::Swap { page: p, with } if p == page || with == page)
                    || matches!(m.micro, Micro::DioWrite { page: p, .. } if p == page)
            });
            let Some(changed) = later.map(|n| n + looked) else {
                return String::new();
            };
            let mut why = format!(
                "{}'s get_block({name}) came before {} changed the extent",
                who(looked),
                who(changed)
            );
            let scanned = moments[..looked]
                .iter()
                .rposition(|m| matches!(m.micro, Micro::Rescan { .. }));
            if let Some(scanned) = scanned {
                why.push_str(&format!(
                    " and its folio after {}'s truncate_inode_pages_range()",
                    who(scanned)
                ));
            }
            let reused = moments[changed..]
                .iter()
                .position(|m| matches!(m.micro, Micro::Allocate { .. }));
            if let (Anomaly::ForeignData, Some(n)) = (anomaly, reused) {
                why.push_str(&format!(
                    ", and the block was {}'s before it was read",
                    who(n + changed)
                ));
            }
            why
        }
        Anomaly::LostWrite => {
            let dropped = last_of(&|m| matches!(m, Micro::Remove { .. } | Micro::Share { .. }));
            let stored = last_of(&|m| {
                matches!(m, Micro::Store { .. } | Micro::Dirty { write: Some(_), .. })
            });
            match (stored, dropped) {
                (Some(s), Some(d)) if s < d => {
                    format!("{} dropped the page that {} had made dirty", who(d), who(s))
                }
                _ => String::new(),
            }
        }
        Anomaly::StaleWriteback => {
            let mapped = last_of(&|m| matches!(m, Micro::GetBlockWrite { .. }));
            let gone = last_of(&|m| {
                matches!(
                    m,
                    Micro::Unmap { .. } | Micro::Share { .. } | Micro::Swap { .. }
                )
            });
            match (mapped, gone) {
                (Some(m), Some(g)) if m < g => format!(
                    "{} had looked the block up before {} took it away",
                    who(m),
                    who(g)
                ),
                _ => String::new(),
            }
        }
        Anomaly::StaleMapping | Anomaly::Deadlock | Anomaly::LockOrder | Anomaly::Livelock => {
            String::new()
        }
    }
}
