//! The shortest way to an anomaly: fewest context switches first, then fewest steps. That is the order which
//! a person can follow, and which a scheduler is most likely to take. Dijkstra's algorithm over (state, last
//! actor).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::anomaly::Anomaly;
use crate::explore::deadlocked;
use crate::model::Model;
use crate::oracle;
use crate::state::State;
use crate::step::step;
use crate::visited::Visited;

/// The order in which the actors step.
pub type Schedule = Vec<u8>;

/// Changes of actor in a schedule.
pub fn switches(schedule: &[u8]) -> usize {
    schedule
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .count()
}

/// Whether a state shows it.
pub fn shows(model: &Model, state: &State, anomaly: Anomaly) -> bool {
    match anomaly {
        Anomaly::Deadlock => deadlocked(model, state),
        _ => oracle::check(model, state).is_some_and(|(found, _)| found == anomaly),
    }
}

/// The shortest schedule from the first state to the anomaly, if there is one within so many nodes.
pub fn shortest(model: &Model, anomaly: Anomaly, most: usize) -> Option<Schedule> {
    let stride = State::stride(model.extent) + 1;
    let mut visited = Visited::new(stride);
    // Of each node: its best cost, where that came from, and whether it is settled.
    let mut nodes: Vec<(Cost, u32, bool)> = Vec::new();
    let mut heap = BinaryHeap::new();
    let mut packed = Vec::new();
    model.first.pack(model.extent, &mut packed);
    packed.push(u8::MAX);
    visited.insert(&packed);
    nodes.push(((0, 0), u32::MAX, false));
    heap.push(Reverse(((0u16, 0u16), 0u32)));
    while let Some(Reverse((cost, n))) = heap.pop() {
        let node = &mut nodes[n as usize];
        if std::mem::replace(&mut node.2, true) {
            continue;
        }
        let bytes = visited.get(n as usize);
        let last = bytes[stride - 1];
        let state = State::unpack(model.extent, bytes);
        if shows(model, &state, anomaly) {
            return Some(way(&visited, &nodes, n, stride));
        }
        if nodes.len() > most {
            return None;
        }
        for actor in 0..model.extent.actors {
            let Some(next) = step(model, &state, actor) else {
                continue;
            };
            let actor = actor as u8;
            let switch = u16::from(last != u8::MAX && last != actor);
            let cost = (cost.0 + switch, cost.1 + 1);
            packed.clear();
            next.pack(model.extent, &mut packed);
            packed.push(actor);
            let (m, new) = visited.insert(&packed);
            if new {
                nodes.push((cost, n, false));
            } else if nodes[m as usize].2 || nodes[m as usize].0 <= cost {
                continue;
            } else {
                (nodes[m as usize].0, nodes[m as usize].1) = (cost, n);
            }
            heap.push(Reverse((cost, m)));
        }
    }
    None
}

/// Context switches, then steps.
type Cost = (u16, u16);

fn way(visited: &Visited, nodes: &[(Cost, u32, bool)], to: u32, stride: usize) -> Schedule {
    let mut schedule = Vec::new();
    let mut n = to;
    while nodes[n as usize].1 != u32::MAX {
        schedule.push(visited.get(n as usize)[stride - 1]);
        n = nodes[n as usize].1;
    }
    schedule.reverse();
    schedule
}
