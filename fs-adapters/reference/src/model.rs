//! A set-up compiled under a policy: the actors' programs, the first state, and what the oracle and the
//! diagrams must know about it. Immutable; every search and every thread works on one of these.

use crate::micro::Micro;
use crate::state::{Extent, State};
use crate::value::{Set, Value};

/// One file of a set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its name.
    pub name: String,
    /// Its first page slot.
    pub first: usize,
    /// How many slots it has.
    pub pages: usize,
}

/// One semaphore: a lock of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemInfo {
    /// The lock, by its place in [`Model::locks`].
    pub lock: usize,
    /// Whose.
    pub file: usize,
}

/// One call of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpInfo {
    /// As the header of a column says it: `read(A.0)`.
    pub text: String,
    /// Whose.
    pub actor: usize,
    /// What it makes of each page, settled once it has returned. Empty halves: unchanged.
    pub effects: [Set; crate::state::PAGES],
    /// The pages whose data it shows, in the order of its slots.
    pub shows: Vec<usize>,
    /// Its bit among those that change something; none if it changes nothing.
    pub mutator: Option<u8>,
}

/// A compiled set-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Of the set-up.
    pub name: String,
    /// Of the policy.
    pub policy: String,
    /// How much of a state is used.
    pub extent: Extent,
    /// The files, in the order of their inodes' addresses.
    pub files: Vec<ModelFile>,
    /// Lock names.
    pub locks: Vec<String>,
    /// The semaphores.
    pub sems: Vec<SemInfo>,
    /// Actors' names.
    pub actors: Vec<String>,
    /// One program an actor.
    pub programs: Vec<Vec<Micro>>,
    /// The calls, by the number in `Begin` and `Return`.
    pub ops: Vec<OpInfo>,
    /// Names of the bodies: `A.0`, `zeros`.
    pub bodies: Vec<String>,
    /// Names of the words.
    pub words: Vec<String>,
    /// Everything that a page may ever hold: what is not in it belongs to somebody else.
    pub ever: [Set; crate::state::PAGES],
    /// Groups of actors that do the same: no state differs by which of them is where.
    pub alike: Vec<Vec<usize>>,
    /// Pages are the data: there is no device under them.
    pub cache_is_store: bool,
    /// Where everything begins.
    pub first: State,
}

impl Model {
    /// The file of a page slot.
    pub fn file_of(&self, page: usize) -> usize {
        let found = self
            .files
            .iter()
            .position(|f| (f.first..f.first + f.pages).contains(&page));
        found.unwrap_or(0)
    }

    /// `A.0`.
    pub fn page_name(&self, page: usize) -> String {
        let file = &self.files[self.file_of(page)];
        format!("{}.{}", file.name, page - file.first)
    }

    /// `A.0, A.1`.
    pub fn page_names(&self, mask: u8) -> String {
        let pages = (0..self.extent.pages).filter(|p| mask & 1 << p != 0);
        pages
            .map(|p| self.page_name(p))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Of a file.
    pub fn file_name(&self, file: usize) -> &str {
        &self.files[file].name
    }

    /// The lock, with its file where several files have one.
    pub fn sem_name(&self, sem: usize) -> String {
        let info = self.sems[sem];
        let lock = &self.locks[info.lock];
        let alone = self.sems.iter().filter(|s| s.lock == info.lock).count() == 1;
        if alone {
            lock.clone()
        } else {
            format!("{}->{lock}", self.file_name(info.file))
        }
    }

    /// `A.0`, `zeros`, `A.0 with P's word`.
    pub fn value_name(&self, value: Value) -> String {
        let body = &self.bodies[usize::from(value.body())];
        match value.word() {
            0 => body.clone(),
            word => format!("{body} with {}", self.words[usize::from(word)]),
        }
    }

    /// What an actor will do next.
    pub fn next(&self, state: &State, actor: usize) -> Micro {
        self.programs[actor][usize::from(state.actors[actor].pc)]
    }

    /// What it does once it may: calls begin with the step after.
    pub fn next_step(&self, state: &State, actor: usize) -> Micro {
        let mut pc = usize::from(state.actors[actor].pc);
        while let Micro::Begin { .. } = self.programs[actor][pc] {
            pc += 1;
        }
        self.programs[actor][pc]
    }

    /// Whether an actor has nothing left to do.
    pub fn ended(&self, state: &State, actor: usize) -> bool {
        self.next(state, actor) == Micro::End
    }

    /// The call in progress.
    pub fn op_of(&self, state: &State, actor: usize) -> Option<&OpInfo> {
        match state.actors[actor].op {
            0 => None,
            op => Some(&self.ops[usize::from(op) - 1]),
        }
    }
}
