//! Livelock: a circle of states in which an operation goes on taking steps and never ends, while everybody
//! else gets a turn. It really happened: a reader that kept faulting kept a punch on tmpfs from finishing
//! (commit f00cdc6df7d7). No single schedule of finite length shows it; the graph of all states does.

use crate::explore::Limits;
use crate::micro::Micro;
use crate::model::Model;
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

/// A state on such a circle: a strongly connected part of the graph in which some call that is waited for
/// takes a step, and in which every actor that could always take one does.
pub(crate) fn find(model: &Model, limits: &Limits) -> Option<State> {
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
        (moved & waited != 0 && fair).then(|| graph.state(model, part[0]))
    })
}

/// All states and the steps between them. No state is left out: a circle must be a real one.
struct Graph {
    visited: Visited,
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
        Some(Graph { visited, edges })
    }

    fn state(&self, model: &Model, n: u32) -> State {
        State::unpack(model.extent, self.visited.get(n as usize))
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
