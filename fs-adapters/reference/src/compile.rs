//! From a set-up and a policy to a model: one program of micro-operations for each actor, the first state,
//! and what each call makes of each page. How the kernel does each call is in the files below.

mod change;
mod fill;
mod remap;
mod write;

use crate::code::{Code, Place};
use crate::hook::Hook;
use crate::micro::Micro;
use crate::model::{Model, ModelFile, OpInfo, SemInfo};
use crate::policy::{Data, Policy};
use crate::setup::{Call, Setup};
use crate::state::{ACTORS, BLOCKS, Extent, FILES, PAGES, Page, SEMS, SPAN, State, USED, flag};
use crate::value::{BODIES, Set, Value, WORDS};

/// Why a set-up cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// There is too much of something.
    #[error(
        "{setup} under {policy} is too large for the model: {what}, at most {most}; leave actors, calls or pages out"
    )]
    TooLarge {
        /// The set-up.
        setup: String,
        /// The policy.
        policy: String,
        /// Of what there is too much.
        what: String,
        /// How much there may be.
        most: usize,
    },
    /// Where the page cache is the store, there are no blocks to move.
    #[error("{policy} has its data in the page cache, and nothing that {call} could do")]
    Lacks {
        /// The policy.
        policy: String,
        /// The call.
        call: String,
    },
}

/// Compiles.
pub fn compile(setup: &Setup, policy: &Policy) -> Result<Model, CompileError> {
    let too_large = |what: String, most: usize| CompileError::TooLarge {
        setup: setup.name.clone(),
        policy: policy.policy.clone(),
        what,
        most,
    };
    let check = |what: &str, n: usize, most: usize| match n > most {
        true => Err(too_large(format!("{n} {what}"), most)),
        false => Ok(()),
    };
    check("files", setup.files.len(), FILES)?;
    check("actors", setup.actors.len(), ACTORS)?;
    check("pages", setup.files.iter().map(|f| f.room).sum(), PAGES)?;
    let calls = || setup.actors.iter().flat_map(|a| &a.calls);
    let moved = calls().find(|c| c.moves_blocks() || setup.dax);
    if let (Data::PageCache, Some(call)) = (policy.data, moved) {
        return Err(CompileError::Lacks {
            policy: policy.policy.clone(),
            call: call.word().to_owned(),
        });
    }
    let used: usize = setup.files.iter().map(|f| f.size).sum();
    let spare = calls().filter(|c| c.allocates()).count();
    let blocks = if policy.data == Data::Device {
        used + spare
    } else {
        0
    };
    check("blocks", blocks, BLOCKS)?;
    check("words", calls().filter(|c| c.dirties()).count(), WORDS - 1)?;

    let mut c = Compiler::new(setup, policy);
    c.first(blocks);
    check(
        "different contents",
        c.bodies.len() + c.whole_pages(),
        BODIES,
    )?;
    for actor in 0..setup.actors.len() {
        let program = c.program(actor).ok_or_else(|| {
            let name = &setup.actors[actor].name;
            too_large(format!("the program of {name} is longer"), 255)
        })?;
        c.programs.push(program);
    }
    check("locks", c.sems.len(), SEMS)?;
    check(
        "changing calls",
        c.ops.iter().filter(|o| o.mutator.is_some()).count(),
        8,
    )?;
    let shown = c.ops.iter().map(|o| o.shows.len()).max().unwrap_or(0);
    check("pages in one call", shown, SPAN)?;
    Ok(c.model(blocks))
}

/// What is collected on the way.
struct Compiler<'a> {
    setup: &'a Setup,
    policy: &'a Policy,
    files: Vec<ModelFile>,
    sems: Vec<SemInfo>,
    ops: Vec<OpInfo>,
    programs: Vec<Vec<Micro>>,
    bodies: Vec<String>,
    words: Vec<String>,
    first: State,
}

impl<'a> Compiler<'a> {
    fn new(setup: &'a Setup, policy: &'a Policy) -> Self {
        let mut at = 0;
        let files = setup.files.iter().map(|f| {
            let first = at;
            at += f.room;
            ModelFile {
                name: f.name.clone(),
                first,
                pages: f.room,
            }
        });
        Compiler {
            files: files.collect(),
            setup,
            policy,
            sems: Vec::new(),
            ops: Vec::new(),
            programs: Vec::new(),
            bodies: vec!["zeros".into()],
            words: vec![String::new()],
            first: State::default(),
        }
    }

    /// The slot of a file's page.
    fn slot(&self, file: usize, page: usize) -> u8 {
        (self.files[file].first + page) as u8
    }

    /// The place that a region is about: some pages of a file.
    fn on(&self, file: usize, pages: &std::ops::Range<usize>) -> Place {
        (
            file,
            pages
                .clone()
                .fold(0, |mask, p| mask | 1 << self.slot(file, p)),
        )
    }

    /// A page of a file, as the place that a region is about.
    fn at(&self, slot: u8) -> Place {
        let file = self
            .files
            .iter()
            .position(|f| (f.first..f.first + f.pages).contains(&usize::from(slot)));
        (file.unwrap_or(0), 1 << slot)
    }

    /// All of a file.
    fn all(&self, file: usize) -> std::ops::Range<usize> {
        0..self.files[file].pages
    }

    /// Whether anybody makes pages dirty: otherwise nothing needs to be written back.
    fn dirty(&self) -> bool {
        self.setup
            .actors
            .iter()
            .flat_map(|a| &a.calls)
            .any(Call::dirties)
    }

    fn on_device(&self) -> bool {
        self.policy.data == Data::Device
    }

    fn whole_pages(&self) -> usize {
        let all = self.setup.actors.iter().flat_map(|a| &a.calls);
        all.map(|call| match call {
            Call::Reuse { .. } => 1,
            Call::DirectWrite { pages, .. } => pages.len(),
            _ => 0,
        })
        .sum()
    }

    fn first(&mut self, blocks: usize) {
        let mut block = 0;
        let mut contents: Vec<Vec<Value>> = Vec::new();
        for (n, file) in self.setup.files.iter().enumerate() {
            let twin = file.same_as.map(|f| contents[f].clone());
            let mut own = Vec::new();
            for page in 0..file.room {
                let slot = usize::from(self.slot(n, page));
                let value = match &twin {
                    _ if page >= file.size => Value::ZERO,
                    Some(values) => values[page],
                    None => {
                        self.bodies.push(format!("{}.{page}", file.name));
                        Value((self.bodies.len() - 1).min(7) as u8)
                    }
                };
                own.push(value);
                self.first.allowed[slot] = Set::of(value);
                if page >= file.size {
                    continue;
                }
                if self.on_device() {
                    self.first.map[slot] = block + 1;
                    self.first.blocks[usize::from(block)] = USED | value.0;
                    block += 1;
                }
                if file.cached || !self.on_device() {
                    let dirty = if self.on_device() { 0 } else { flag::DIRTY };
                    self.first.pages[slot] = Page {
                        flags: flag::PRESENT | flag::UPTODATE | dirty,
                        value,
                        ..Page::default()
                    };
                }
            }
            self.first.sizes[n] = file.size as u8;
            contents.push(own);
        }
        debug_assert!(usize::from(block) <= blocks);
    }

    fn program(&mut self, actor: usize) -> Option<Vec<Micro>> {
        let mut sems = std::mem::take(&mut self.sems);
        let mut code = Code::new(self.policy, &mut sems);
        let spec = &self.setup.actors[actor];
        let start = code.here();
        for call in &spec.calls {
            self.call(&mut code, actor, call);
        }
        if let Some(until) = spec.until {
            let to = code.to(start);
            code.push(Micro::Again {
                until: until as u8,
                to,
            });
        }
        let program = code.finish();
        self.sems = sems;
        program
    }

    /// What a page may hold that a call takes its data from: what it holds at first, or if anybody changes
    /// it, whatever it may ever hold (filled in by `model`).
    fn initial(&self, file: usize, page: usize) -> Set {
        self.first.allowed[usize::from(self.slot(file, page))]
    }

    /// Begins a call, and tells its number.
    fn begin(&mut self, code: &mut Code<'_>, actor: usize, text: String) -> usize {
        let op = self.ops.len();
        self.ops.push(OpInfo {
            text,
            actor,
            effects: [Set::default(); PAGES],
            shows: Vec::new(),
            mutator: None,
        });
        code.push(Micro::Begin { op: op as u8 });
        op
    }

    fn effect(&mut self, op: usize, slot: u8, set: Set) {
        self.ops[op].effects[usize::from(slot)] = set;
    }

    /// A new word, for a store or a write of this actor.
    fn word(&mut self, actor: usize) -> u8 {
        let name = &self.setup.actors[actor].name;
        self.words.push(format!("{name}'s word"));
        (self.words.len() - 1) as u8
    }

    /// A new body, for a write of a whole page.
    fn body(&mut self, name: String) -> Value {
        self.bodies.push(name);
        Value::whole((self.bodies.len() - 1).min(7) as u8)
    }

    fn call(&mut self, code: &mut Code<'_>, actor: usize, call: &Call) {
        let name = |file: usize| self.files[file].name.as_str();
        let text = match call {
            Call::Read {
                file,
                pages,
                nowait: true,
                ..
            } => format!("preadv2({}{}, RWF_NOWAIT)", name(*file), span(pages)),
            Call::Read { file, pages, .. } => format!("read({}{})", name(*file), span(pages)),
            Call::ReadInto {
                file,
                page,
                from,
                from_page,
            } => {
                format!(
                    "read({}.{from_page}) into a mapping of {}.{page}",
                    name(*from),
                    name(*file)
                )
            }
            Call::Fault { file, pages, .. } => format!("fault({}{})", name(*file), span(pages)),
            Call::Fadvise { file, pages } => {
                format!("fadvise({}{}, WILLNEED)", name(*file), span(pages))
            }
            Call::CollapseFile { file, pages } => {
                format!("madvise({}{}, COLLAPSE)", name(*file), span(pages))
            }
            Call::DaxFault { file, page } => format!("DAX fault({}.{page})", name(*file)),
            Call::DirectRead { file, pages } => {
                format!("direct read({}{})", name(*file), span(pages))
            }
            Call::Store { file, page } => format!("store({}.{page})", name(*file)),
            Call::Write { file, page } => format!("write({}.{page})", name(*file)),
            Call::DirectWrite { file, pages } => {
                format!("direct write({}{})", name(*file), span(pages))
            }
            Call::Sync { file } => format!("fsync({})", name(*file)),
            Call::PunchHole { file, pages } => {
                format!("fallocate(PUNCH_HOLE, {}{})", name(*file), span(pages))
            }
            Call::ZeroRange { file, pages } => {
                format!("fallocate(ZERO_RANGE, {}{})", name(*file), span(pages))
            }
            Call::CollapseRange { file, pages } => {
                format!("fallocate(COLLAPSE_RANGE, {}{})", name(*file), span(pages))
            }
            Call::InsertRange { file, pages } => {
                format!("fallocate(INSERT_RANGE, {}{})", name(*file), span(pages))
            }
            Call::Truncate { file, size } => format!("ftruncate({}, {size} pages)", name(*file)),
            Call::FailedWrite { file, page } => format!("failing write({}.{page})", name(*file)),
            Call::CloneRange { file, pages, from } => format!(
                "FICLONERANGE({}{} from {})",
                name(*file),
                span(pages),
                name(*from)
            ),
            Call::Dedupe {
                file, pages, into, ..
            } => format!(
                "FIDEDUPERANGE({}{} into {})",
                name(*file),
                span(pages),
                name(*into)
            ),
            Call::ExchangeRange { file, pages, with } => format!(
                "EXCHANGE_RANGE({}{} with {})",
                name(*file),
                span(pages),
                name(*with)
            ),
            Call::SwapBoot { file, .. } => format!("SWAP_BOOT({})", name(*file)),
            Call::JournalData { file } => format!("set FS_JOURNAL_DATA_FL({})", name(*file)),
            Call::Reuse { file, page } => format!("write({}.{page})", name(*file)),
        };
        let op = self.begin(code, actor, text);
        match call {
            Call::Read {
                file,
                pages,
                nowait,
                readahead,
            } => self.read(code, op, (*file, pages), *nowait, *readahead),
            Call::ReadInto {
                file,
                page,
                from,
                from_page,
            } => {
                let word = self.word(actor);
                self.read_into(
                    code,
                    op,
                    self.slot(*file, *page),
                    self.slot(*from, *from_page),
                    word,
                );
            }
            Call::Fault {
                file,
                pages,
                around,
            } => self.fault_load(code, op, (*file, pages), *around),
            Call::Fadvise { file, pages } => return self.fadvise(code, op, *file, pages),
            Call::CollapseFile { file, pages } => self.collapse_file(code, *file, pages),
            Call::DaxFault { file, page } => self.dax_fault(code, op, self.slot(*file, *page)),
            Call::DirectRead { file, pages } => self.direct_read(code, op, *file, pages),
            Call::Store { file, page } => {
                let word = self.word(actor);
                self.store(code, op, self.slot(*file, *page), word);
            }
            Call::Write { file, page } => {
                let word = self.word(actor);
                self.write(code, op, self.slot(*file, *page), word);
            }
            Call::DirectWrite { file, pages } => self.direct_write(code, op, *file, pages),
            Call::Sync { file } => self.flush(code, *file, &self.all(*file)),
            Call::PunchHole { file, pages } => self.punch(code, op, *file, pages),
            Call::ZeroRange { file, pages } => self.zero(code, op, *file, pages),
            Call::CollapseRange { file, pages } => self.collapse(code, op, *file, pages),
            Call::InsertRange { file, pages } => self.insert(code, op, *file, pages),
            Call::Truncate { file, size } => self.truncate(code, op, *file, *size),
            Call::FailedWrite { file, page } => {
                // It writes nothing that anybody may see.
                self.words.push(String::new());
                self.failed_write(code, op, self.slot(*file, *page));
            }
            Call::CloneRange { file, pages, from } => {
                self.clone_range(code, op, *file, pages, *from)
            }
            Call::Dedupe {
                file,
                pages,
                into,
                into_page,
            } => self.dedupe(code, (*file, pages), (*into, *into_page)),
            Call::ExchangeRange { file, pages, with } => {
                self.exchange(code, op, Hook::ExchangeRange, *file, pages, *with)
            }
            Call::SwapBoot { file, with } => {
                let pages = self.all(*file);
                self.exchange(code, op, Hook::SwapBoot, *file, &pages, *with);
            }
            Call::JournalData { file } => self.journal_data(code, *file),
            Call::Reuse { file, page } => self.reuse(code, op, self.slot(*file, *page), actor),
        }
        code.push(Micro::Return { op: op as u8 });
    }

    fn model(mut self, blocks: usize) -> Model {
        // What only this call changes is known exactly; what others change too may be any of it.
        let mut bit = 0;
        for op in &mut self.ops {
            if op.effects.iter().any(|e| !e.is_empty()) {
                op.mutator = Some(bit);
                bit += 1;
            }
        }
        let pages = self.files.iter().map(|f| f.pages).sum();
        let mut ever = self.first.allowed;
        for op in &self.ops {
            for (page, effect) in op.effects.iter().enumerate() {
                ever[page] = ever[page].union(*effect);
            }
        }
        let sizes_fixed = !self
            .programs
            .iter()
            .flatten()
            .any(|m| matches!(m, Micro::SetSize { .. }));
        let alike = alike(&self.programs, &self.ops);
        Model {
            name: self.setup.name.clone(),
            policy: self.policy.policy.clone(),
            extent: Extent {
                pages,
                blocks,
                files: self.files.len(),
                sems: self.sems.len(),
                actors: self.programs.len(),
            },
            files: self.files,
            locks: self
                .policy
                .locks
                .iter()
                .map(|(name, _)| name.to_owned())
                .collect(),
            sems: self.sems,
            actors: self.setup.actors.iter().map(|a| a.name.clone()).collect(),
            programs: self.programs,
            ops: self.ops,
            bodies: self.bodies,
            words: self.words,
            ever,
            alike,
            sizes_fixed,
            cache_is_store: self.policy.data == Data::PageCache,
            first: self.first,
        }
    }
}

fn span(pages: &std::ops::Range<usize>) -> String {
    match pages.len() {
        1 => format!(".{}", pages.start),
        _ => format!(".{}-{}", pages.start, pages.end - 1),
    }
}

/// Actors whose programs differ in nothing but the numbers of their calls, none of which changes anything.
fn alike(programs: &[Vec<Micro>], ops: &[OpInfo]) -> Vec<Vec<usize>> {
    let base = |actor: usize| ops.iter().position(|o| o.actor == actor).unwrap_or(0) as u8;
    let plain = |actor: usize| {
        let renumber = |micro: &Micro| match *micro {
            Micro::Begin { op } => Micro::Begin {
                op: op - base(actor),
            },
            Micro::Return { op } => Micro::Return {
                op: op - base(actor),
            },
            other => other,
        };
        programs[actor].iter().map(renumber).collect::<Vec<_>>()
    };
    let harmless = |actor: usize| ops.iter().all(|o| o.actor != actor || o.mutator.is_none());
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for actor in (0..programs.len()).filter(|a| harmless(*a)) {
        match groups.iter_mut().find(|g| plain(g[0]) == plain(actor)) {
            Some(group) => group.push(actor),
            None => groups.push(vec![actor]),
        }
    }
    groups.retain(|g| g.len() > 1);
    groups
}
