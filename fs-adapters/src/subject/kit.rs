//! What an actor needs beside a descriptor of each file, told by its operations: all of it is made before
//! the race, and nothing of it for an actor that has no use for it.

use punchbench_scenarios::{Actor, Op, Role, Scenario};

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MapFor {
    /// The actor loads from it and stores to it.
    Actor,
    /// Only to ask what is in the page cache: keeps no page mapped.
    Probe,
}

/// What one actor is given.
#[derive(Debug, Default)]
pub(super) struct Kit {
    /// How it maps each file.
    pub maps: Vec<Option<MapFor>>,
    /// A second descriptor of each file, which keeps the default read-ahead.
    pub ahead: bool,
    /// An io_uring.
    pub ring: bool,
    /// A pipe to splice into.
    pub pipe: bool,
}

impl Kit {
    /// What an actor of the scenario needs.
    pub fn of(actor: &Actor, scenario: &Scenario) -> Kit {
        let mapped = |name: &str| {
            let on = |op: &Op| op.maps() && op.file() == Some(name);
            match actor.role {
                _ if actor.ops.iter().any(on) => Some(MapFor::Actor),
                // It leads the rounds, so it is the one who asks what is in the page cache.
                Role::Invalidator => Some(MapFor::Probe),
                // A mapping that nobody uses would only make the invalidation slower.
                Role::Filler | Role::Dirtier | Role::Reuser | Role::Helper => None,
            }
        };
        let does = |f: fn(&Op) -> bool| actor.ops.iter().any(f);
        Kit {
            maps: scenario
                .files
                .iter()
                .map(|(name, _)| mapped(name))
                .collect(),
            ahead: does(|op| matches!(op, Op::Read(args) if args.readahead)),
            ring: does(|op| matches!(op, Op::UringRead(_))),
            pipe: does(|op| matches!(op, Op::Splice(_))),
        }
    }

    /// What the coordinator needs, who looks at files and writes what a reuser writes.
    pub fn coordinator(files: usize) -> Kit {
        Kit {
            maps: vec![Some(MapFor::Probe); files],
            ..Kit::default()
        }
    }
}
