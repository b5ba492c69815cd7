//! A scenario with its numbers filled in: which chunk each round races, who calls what, and what the
//! round's operations may do to the files. Every actor works it out for itself from the same plan.

mod effects;
mod layout;
mod outcomes;

use std::ops::Range;

use punchbench_scenarios::{
    Content as Fills, Effect, Geometry, On, Op, RangeError, Repeat, Role, Scenario, Step as Cue,
};

pub use outcomes::Way;

use crate::board::{BATCH_ROUNDS, Known, MOST_ACTORS, MOST_MUTATORS};
use crate::content::{Change, Content, Piece};
use crate::stamp::Owner;
use crate::{Call, FileId};

/// Probes after a batch look at no more than this at a time, unless one round needs more.
const BATCH_BYTES: u64 = 256 << 10;
/// A pass of a shifting scenario is cut off here: an insert makes the file grow.
const SHIFTING_ROUNDS: u64 = 2048;
/// Rounds of a pass whose rounds all race the same chunk.
const FIXED_ROUNDS: u64 = 1024;

/// A scenario that cannot be raced as it stands.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A range is impossible.
    #[error("scenario {scenario}: {source}")]
    Range {
        /// The scenario.
        scenario: String,
        /// What is wrong.
        source: RangeError,
    },
    /// Anything else that the loader could not know without the target's geometry.
    #[error("scenario {scenario}: {what}")]
    Shape {
        /// The scenario.
        scenario: String,
        /// What is wrong.
        what: String,
    },
}

/// A file of the plan.
#[derive(Debug, Clone)]
pub struct FilePlan {
    /// Its name in the scenario.
    pub name: String,
    /// Bytes that ranges may use.
    pub size: u64,
    /// Bytes when a pass begins.
    pub filled: u64,
    /// What it holds then.
    pub fills: Fills,
    /// It must come through unharmed.
    pub witness: bool,
    /// It is no file of its own, but what this one trades with the boot loader inode.
    pub behind: Option<FileId>,
}

/// An actor of the plan.
#[derive(Debug, Clone)]
pub struct ActorPlan {
    /// Its name in the scenario.
    pub name: String,
    /// Its position in the scenario.
    pub index: usize,
    /// Its part.
    pub role: Role,
    /// It repeats until the invalidator has returned.
    pub repeats: bool,
    /// Its operations.
    pub ops: Vec<Op>,
    /// Files it maps.
    pub maps: Vec<FileId>,
    /// Pages of a chunk, counted from its start, that no other filler's operations name: what becomes
    /// resident there it has brought in itself.
    pub alone: Vec<u64>,
    /// The mutator slot of each operation, if it changes content or blocks. The invalidator's first is 0.
    pub mutators: Vec<Option<usize>>,
}

/// The plan of a trial.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The scenario's name.
    pub scenario: String,
    /// The files, by [`FileId`].
    pub files: Vec<FilePlan>,
    /// Their names.
    pub names: Vec<String>,
    /// The raced file.
    pub on: FileId,
    /// Who races; the invalidator first.
    pub actors: Vec<ActorPlan>,
    /// What runs once after each pass.
    pub reuse: Vec<(String, Vec<Op>)>,
    /// Rounds of a whole pass.
    pub rounds: u64,
    /// Rounds between two probes.
    pub batch: u64,
    /// An operation moves what lies behind the chunk.
    pub shifting: bool,
    /// Every round races the last chunk; it is evicted before each.
    pub fixed: bool,
    /// The steps of a staged scenario, which has one round.
    pub stage: Vec<Cue>,
    /// Rounds go downwards, so that what is read ahead is no later round's chunk.
    descending: bool,
    /// The filesystem is full while it races.
    pub fills_up: bool,
    /// Somebody writes past the page cache.
    pub writes_directly: bool,
    /// Mutators that may take effect in part, or not at all, as bits: writes on a full filesystem.
    pub partial: u8,
    chunk: u64,
    /// The first round's chunk, where chunks go upwards.
    first: u64,
    /// From one round's chunk to the next; downwards in a shifting scenario.
    stride: u64,
    /// Bytes behind the last chunk of each batch that nobody may touch.
    guard: u64,
    geometry: Geometry,
    /// Mutator slots in use.
    pub mutators: usize,
}

/// One call of a round.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is called.
    pub call: Call,
    /// The mutator slot that its ticks go to.
    pub mutator: Option<usize>,
    /// The generation that it writes.
    pub generation: u32,
    /// For an observing call: what it may show, and when.
    pub candidates: Vec<(Way, Vec<Piece>)>,
    /// The mutators that change what it observes, as bits.
    pub relevant: u8,
    /// Those of them that may take effect in part, or not at all.
    pub partial: u8,
}

/// One round, as one actor needs it.
#[derive(Debug, Clone)]
pub struct RoundPlan {
    /// The raced chunk.
    pub chunk: Range<u64>,
    /// The actor's calls.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Works a scenario out for a target's geometry.
    pub fn new(scenario: &Scenario, geometry: Geometry) -> Result<Plan, PlanError> {
        let shape = |what: String| PlanError::Shape {
            scenario: scenario.scenario.clone(),
            what,
        };
        let files: Vec<FilePlan> = scenario
            .files
            .iter()
            .map(|(name, f)| FilePlan {
                name: name.into(),
                size: f.size.bytes(geometry),
                filled: f.filled.as_ref().unwrap_or(&f.size).bytes(geometry),
                fills: f.content.clone(),
                witness: f.witness,
                behind: match &f.content {
                    Fills::BootOf(other) => scenario.files.index(other).map(|i| i as FileId),
                    Fills::Stamped | Fills::SameAs(_) | Fills::Empty | Fills::Hole => None,
                },
            })
            .collect();
        let file_id = |name: &str| {
            scenario
                .files
                .index(name)
                .map(|i| i as FileId)
                .ok_or_else(|| shape(format!("no file `{name}`")))
        };
        let mut mutators = 0;
        let mut actors = Vec::new();
        let racing = std::iter::once(scenario.invalidator()).chain(scenario.racers());
        for (name, actor) in racing {
            let slots = actor.ops.iter().map(|op| {
                let mutates = actor.role == Role::Invalidator || op.effect() != Effect::None;
                mutates.then(|| {
                    mutators += 1;
                    mutators - 1
                })
            });
            let slots = slots.collect();
            let mut maps = Vec::new();
            for op in actor.ops.iter().filter(|op| op.maps()) {
                if let (Some((file, _)), _) = op.operands() {
                    maps.push(file_id(file)?);
                }
            }
            maps.sort_unstable();
            maps.dedup();
            actors.push(ActorPlan {
                name: name.into(),
                index: scenario.actors.index(name).expect("it came from there"),
                role: actor.role,
                repeats: matches!(actor.repeat, Repeat::While(_)),
                ops: actor.ops.clone(),
                maps,
                alone: Vec::new(),
                mutators: slots,
            });
        }
        if actors.len() > MOST_ACTORS || mutators > MOST_MUTATORS {
            return Err(shape(format!(
                "{} racing actors and {mutators} operations that change content; at most {MOST_ACTORS} and {MOST_MUTATORS} are supported",
                actors.len()
            )));
        }
        let on = file_id(&scenario.round.on)?;
        let chunk = scenario.chunk(geometry);
        let shifting = actors.iter().flat_map(|a| &a.ops).any(|op| {
            let effect = op.effect();
            matches!(
                effect,
                Effect::Collapse(_) | Effect::Insert(_) | Effect::Truncate(_)
            )
        });
        let all = || actors.iter().flat_map(|a| &a.ops);
        let descending = all().any(|op| matches!(op, Op::Read(a) if a.readahead));
        let writes_directly = all().any(|op| matches!(op, Op::Write(a) if a.direct));
        let fills = |op: &Op| matches!(op, Op::Write(a) if a.fills_up);
        let slots = actors.iter().flat_map(|a| a.ops.iter().zip(&a.mutators));
        let partial = slots
            .filter(|(op, _)| fills(op))
            .filter_map(|(_, slot)| *slot);
        let partial = partial.fold(0u8, |mask, slot| mask | 1 << slot);
        let mut plan = Plan {
            scenario: scenario.scenario.clone(),
            names: files.iter().map(|f| f.name.clone()).collect(),
            files,
            on,
            actors,
            reuse: scenario
                .actors
                .iter()
                .filter(|(_, a)| a.role == Role::Reuser)
                .map(|(n, a)| (n.to_string(), a.ops.clone()))
                .collect(),
            rounds: 0,
            batch: 1,
            shifting,
            fixed: scenario.round.fixed,
            stage: scenario.stage.clone(),
            descending,
            fills_up: partial != 0,
            writes_directly,
            partial,
            chunk,
            first: 0,
            stride: chunk,
            guard: 0,
            geometry,
            mutators,
        };
        plan.copies_what_stays().map_err(shape)?;
        plan.lay_out()
            .and_then(|()| plan.share_out().map_err(Ok))
            .map_err(|what| match what {
                Ok(source) => PlanError::Range {
                    scenario: scenario.scenario.clone(),
                    source,
                },
                Err(what) => shape(what),
            })?;
        Ok(plan)
    }

    fn file(&self, name: &str) -> FileId {
        self.files
            .iter()
            .position(|f| f.name == name)
            .expect("the loader checked the names") as FileId
    }

    fn size(&self, name: &str) -> u64 {
        self.files[usize::from(self.file(name))].size
    }

    /// What lies behind a file, if anything does.
    pub fn behind(&self, file: FileId) -> Option<FileId> {
        let behind = |f: &FilePlan| f.behind == Some(file);
        self.files.iter().position(behind).map(|i| i as FileId)
    }

    /// The files that can be looked at.
    pub fn visible(&self) -> impl Iterator<Item = FileId> + use<> {
        let visible: Vec<FileId> = (0..self.files.len())
            .filter(|&i| self.files[i].behind.is_none())
            .map(|i| i as FileId)
            .collect();
        visible.into_iter()
    }

    /// The generation of a pass's initial content.
    pub fn generation(&self, pass: u64) -> u32 {
        let ops = self.actors.iter().flat_map(|a| &a.ops);
        let writes = ops
            .into_iter()
            .any(|op| matches!(op.effect(), Effect::Overwrite(_)));
        let written = self.rounds * self.mutators as u64 * u64::from(writes);
        (1 + pass * (written + 1 + self.reuse.len() as u64)).min(u64::from(u32::MAX)) as u32
    }

    /// The generation that a mutator writes in a round; each is written once.
    fn written(&self, pass: u64, round: u64, mutator: usize) -> u32 {
        self.generation(pass) + 1 + (round * self.mutators as u64) as u32 + mutator as u32
    }

    /// The generation that a reuser writes after a pass.
    pub fn reuse_generation(&self, pass: u64, reuser: usize) -> u32 {
        self.generation(pass + 1) - 1 - reuser as u32
    }

    /// Whether a stamp of another file is the file's own: of what lies behind it (its other half of an
    /// EXT4_IOC_SWAP_BOOT), or of what it held when a pass began, as both were the same then.
    pub fn is_own(&self, file: FileId, owner: Owner) -> bool {
        if self.behind(file) == Some(owner.file) {
            return true;
        }
        let Fills::SameAs(other) = &self.files[usize::from(file)].fills else {
            return false;
        };
        let stride = self.generation(1) - self.generation(0);
        let began = owner.generation > 0 && (owner.generation - 1).is_multiple_of(stride);
        self.file(other) == owner.file && began
    }

    /// What every file holds when a pass begins.
    pub fn contents(&self, pass: u64) -> Vec<Content> {
        let generation = self.generation(pass);
        (0..self.files.len())
            .map(|i| self.initial(i as FileId, generation))
            .collect()
    }

    fn initial(&self, file: FileId, generation: u32) -> Content {
        let plan = &self.files[usize::from(file)];
        match &plan.fills {
            Fills::Stamped | Fills::BootOf(_) => Content::stamped(file, generation, plan.filled),
            Fills::SameAs(other) => Content::stamped(self.file(other), generation, plan.filled),
            Fills::Empty => Content::default(),
            Fills::Hole => Content::hole(plan.filled),
        }
    }

    /// One round as `actor` needs it, from the contents before it.
    pub fn round(&self, pass: u64, round: u64, actor: usize, contents: &[Content]) -> RoundPlan {
        let chunk = self.chunk(round);
        let changes = self.changes(pass, round);
        let plan = &self.actors[actor];
        let steps = plan.ops.iter().zip(&plan.mutators).map(|(op, slot)| {
            let call = self.call(op, &chunk);
            let candidates = match call.shows() {
                Some((file, at, len)) => {
                    let content = &contents[usize::from(file)];
                    self.candidates(content, file, &(at..at + len), &changes)
                }
                None => Vec::new(),
            };
            let generation = slot.map_or(0, |slot| self.written(pass, round, slot));
            Step {
                call,
                mutator: *slot,
                generation,
                partial: self.partial,
                relevant: candidates.iter().fold(0, |all, (way, _)| all | way.applied),
                candidates,
            }
        });
        RoundPlan {
            chunk: chunk.clone(),
            steps: steps.collect(),
        }
    }

    /// The longest range that any call has.
    pub fn longest(&self) -> u64 {
        let chunk = self.chunk(0);
        let longest = self
            .actors
            .iter()
            .flat_map(|a| &a.ops)
            .map(|op| match op.operands().0 {
                Some((name, range)) => range
                    .resolve(&chunk, self.size(name), self.geometry)
                    .map_or(0, |r| r.end - r.start),
                None => 0,
            });
        longest.max().unwrap_or(0).max(self.chunk)
    }

    /// Page size of the target.
    pub fn page(&self) -> u64 {
        self.geometry.page
    }

    /// What a file's blocks are counted in: those of the filesystem, or pages where it allocates more at a
    /// time.
    pub fn block(&self) -> u64 {
        self.geometry.block.min(self.geometry.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_files_began_with_is_either_s_and_what_is_stored_is_not() {
        let scenario = punchbench_scenarios::find("dedupe-while-target-store").remove(0);
        let geometry = Geometry {
            page: 4096,
            block: 4096,
        };
        let plan = Plan::new(&scenario, geometry).unwrap();
        let (source, target) = (plan.file("source"), plan.file("target"));
        let stamp = |file, generation| Owner {
            file,
            generation,
            unit: 0,
        };
        for pass in [0, 7] {
            let began = plan.generation(pass);
            assert!(plan.is_own(target, stamp(source, began)));
            assert!(!plan.is_own(target, stamp(source, plan.written(pass, 5, 0))));
            assert!(!plan.is_own(source, stamp(target, began)));
        }
    }

    #[test]
    fn what_is_resident_after_a_direct_write_was_brought_in_by_the_filler() {
        let geometry = Geometry {
            page: 4096,
            block: 4096,
        };
        let alone = |name| {
            let scenario = punchbench_scenarios::find(name).remove(0);
            Plan::new(&scenario, geometry).unwrap().actors[1]
                .alone
                .clone()
        };
        assert_eq!(alone("direct-write-while-readahead"), [0]);
        assert_eq!(alone("punch-while-readahead"), [0]);
    }
}
