//! Livelock: a circle of states in which an operation goes on taking steps and never ends, while everybody
//! else gets a turn. It really happened: a reader that kept faulting kept a punch on tmpfs from finishing
//! (commit f00cdc6df7d7). No single schedule of finite length shows it; the graph of all states does.

use std::collections::VecDeque;

use crate::explore::Limits;
use crate::micro::Micro;
use crate::model::Model;
use crate::shortest::Schedule;
use crate::state::State;
use crate::step::step;
use crate::visited::Visited;

/// Whether any actor repeats: without that every program ends.
pub(crate) fn possible(model: &Model) -> bool {
    model
        .programs
        .iter()
        .flatten()
        .any(|m| matches!(m, Micro::Again { .. }))
}

/// Such a circle with the way to it, and how many of the steps are the circle: a strongly connected part of the graph in which some call that is waited for
/// takes a step, and in which every actor that could always take one does.
pub(crate) fn find(model: &Model, limits: &Limits) -> Option<Schedule> {
    let graph = Graph::of(model, limits)?;
    let waited: u8 = model
        .programs
        .iter()
        .flatten()
        .fold(0, |mask, micro| match micro {
            Micro::Again { until, .. } => mask | 1 << until,
            _ => mask,
        });
    graph.parts().into_iter().find_map(|part| {
        let inside = |n: &u32| part.binary_search(n).is_ok();
        let (mut moved, mut always) = (0u8, u8::MAX);
        for n in &part {
            let mut enabled = 0u8;
            for (actor, to) in &graph.edges[*n as usize] {
                enabled |= 1 << actor;
                if inside(to) {
                    moved |= 1 << actor;
                }
            }
            always &= enabled;
        }
        let fair = always & !moved == 0;
        (moved & waited != 0 && fair)
            .then(|| graph.lasso(&part, waited))
            .flatten()
    })
}

/// All states and the steps between them. No state is left out: a circle must be a real one.
struct Graph {
    edges: Vec<Vec<(u8, u32)>>,
}

impl Graph {
    fn of(model: &Model, limits: &Limits) -> Option<Graph> {
        let mut visited = Visited::new(State::stride(model.extent));
        let mut edges = Vec::new();
        let mut packed = Vec::new();
        model.first.pack(model.extent, &mut packed);
        visited.insert(&packed);
        while edges.len() < visited.len() {
            if visited.len() > limits.states / 4 {
                return None;
            }
            let state = State::unpack(model.extent, visited.get(edges.len()));
            let mut out = Vec::new();
            for actor in 0..model.extent.actors {
                if let Some(next) = step(model, &state, actor) {
                    packed.clear();
                    next.pack(model.extent, &mut packed);
                    out.push((actor as u8, visited.insert(&packed).0));
                }
            }
            edges.push(out);
        }
        Some(Graph { edges })
    }

    /// From the first state into the part, and once round it with a step of one who is waited for.
    fn lasso(&self, part: &[u32], waited: u8) -> Option<Schedule> {
        let inside = |n: u32| part.binary_search(&n).is_ok();
        let mut schedule = self.way(0, part[0], |_| true)?;
        let (from, actor, to) = part.iter().find_map(|n| {
            let edges = self.edges[*n as usize].iter();
            let mut steps = edges.filter(|(a, to)| waited & 1 << a != 0 && inside(*to));
            steps.next().map(|(a, to)| (*n, *a, *to))
        })?;
        schedule.extend(self.way(part[0], from, inside)?);
        schedule.push(actor);
        schedule.extend(self.way(to, part[0], inside)?);
        Some(schedule)
    }

    /// The fewest steps from one state to another through those allowed.
    fn way(&self, from: u32, to: u32, allowed: impl Fn(u32) -> bool) -> Option<Schedule> {
        let mut came: Vec<Option<(u32, u8)>> = vec![None; self.edges.len()];
        let mut todo = VecDeque::from([from]);
        while let Some(n) = todo.pop_front() {
            if n == to {
                let mut schedule = Schedule::new();
                let mut at = to;
                while at != from {
                    let (before, actor) = came[at as usize]?;
                    schedule.push(actor);
                    at = before;
                }
                schedule.reverse();
                return Some(schedule);
            }
            for (actor, next) in &self.edges[n as usize] {
                if *next != from && allowed(*next) && came[*next as usize].is_none() {
                    came[*next as usize] = Some((n, *actor));
                    todo.push_back(*next);
                }
            }
        }
        None
    }

    /// The strongly connected parts with a circle in them, each sorted: Tarjan's algorithm with its own stack.
    fn parts(&self) -> Vec<Vec<u32>> {
        const NEW: u32 = u32::MAX;
        let n = self.edges.len();
        let (mut index, mut low) = (vec![NEW; n], vec![0; n]);
        let (mut on_stack, mut stack) = (vec![false; n], Vec::new());
        let (mut next, mut parts) = (0, Vec::new());
        for root in 0..n {
            if index[root] != NEW {
                continue;
            }
            let mut calls = vec![(root, 0)];
            while let Some((v, edge)) = calls.pop() {
                if edge == 0 {
                    (index[v], low[v]) = (next, next);
                    next += 1;
                    stack.push(v as u32);
                    on_stack[v] = true;
                } else {
                    let done = self.edges[v][edge - 1].1 as usize;
                    if on_stack[done] {
                        low[v] = low[v].min(low[done]);
                    }
                }
                if let Some((_, to)) = self.edges[v].get(edge) {
                    calls.push((v, edge + 1));
                    if index[*to as usize] == NEW {
                        calls.push((*to as usize, 0));
                    }
                    continue;
                }
                if low[v] == index[v] {
                    let at = stack.iter().rposition(|s| *s as usize == v).unwrap_or(0);
                    let mut part = stack.split_off(at);
                    part.iter().for_each(|s| on_stack[*s as usize] = false);
                    part.sort_unstable();
                    let circle =
                        part.len() > 1 || self.edges[v].iter().any(|(_, to)| *to as usize == v);
                    if circle {
                        parts.push(part);
                    }
                }
            }
        }
        parts
    }
}
