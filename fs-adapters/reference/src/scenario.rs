//! A scenario of the catalogue as a set-up of the model: one round, on one fresh chunk. Chunks of more than
//! two pages become two, fillers that repeat run once; what the model has no notion of is refused with a
//! reason.

use std::ops::Range;

use punchbench_scenarios::{Content, Geometry, MadviseAdvice, Op, RangeExpr, Role, Scenario};

use crate::setup::{Call, Setup, SetupActor, SetupFile};

/// The model's page; its blocks are as large.
const PAGE: u64 = 4096;
const GEOMETRY: Geometry = Geometry {
    page: PAGE,
    block: PAGE,
};
/// Pages that a chunk has in the model, at most.
const CHUNK: usize = 2;

/// A scenario that the model cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{scenario} is not modelled: {why}")]
pub struct NotModelled {
    /// Which.
    pub scenario: String,
    /// Why, in words.
    pub why: String,
}

/// The set-up of a scenario.
pub fn setup(scenario: &Scenario) -> Result<Setup, NotModelled> {
    let round = Round::of(scenario);
    let fail = |why: String| NotModelled {
        scenario: scenario.scenario.clone(),
        why,
    };
    if scenario.is_staged() {
        let why = "it holds block I/O to force an order, and the model tries every order without";
        return Err(fail(why.to_owned()));
    }
    let mut actors: Vec<SetupActor> = Vec::new();
    for (name, actor) in scenario.actors.iter() {
        let mut calls = Vec::new();
        for op in &actor.ops {
            calls.extend(round.calls(op, actor.role).map_err(fail)?);
        }
        actors.push(SetupActor::new(name, calls));
    }
    actors.retain(|a| !a.calls.is_empty());
    let mut files = scenario.files.iter();
    if let Some((name, _)) = files.find(|(_, file)| file.content == Content::Hole) {
        let why = format!("`{name}` begins as a hole, and the model's files begin with blocks");
        return Err(fail(why));
    }
    Ok(Setup {
        name: scenario.scenario.clone(),
        files: round.files(),
        actors,
        dax: false,
    })
}

/// How many calls of the model each operation of each actor has become, in the order of the scenario.
pub(crate) fn calls_of(scenario: &Scenario) -> Result<Vec<Vec<usize>>, NotModelled> {
    let round = Round::of(scenario);
    let count = |op: &Op, role| round.calls(op, role).map(|calls| calls.len());
    let actors = scenario.actors.iter();
    let counts = actors.map(|(_, a)| a.ops.iter().map(|op| count(op, a.role)).collect());
    counts
        .collect::<Result<_, String>>()
        .map_err(|why| NotModelled {
            scenario: scenario.scenario.clone(),
            why,
        })
}

/// Bytes of a file that a page of the model stands for when threads run it: a chunk of more pages than the model
/// has is made of large folios. Says what does not fit them.
pub(crate) fn folio(scenario: &Scenario) -> Result<u64, String> {
    let round = Round::of(scenario);
    let folio = round.chunk / round.pages as u64;
    if folio * round.pages as u64 != round.chunk || !folio.is_multiple_of(PAGE) {
        return Err("its chunk cannot be made of two folios".to_owned());
    }
    if folio != PAGE && round.behind > 0 {
        return Err("pages move, and its chunk is made of larger folios".to_owned());
    }
    let whole_folios = Round {
        folio: Some(folio),
        ..round
    };
    for (_, actor) in scenario.actors.iter() {
        for op in &actor.ops {
            whole_folios.calls(op, actor.role)?;
        }
    }
    Ok(folio)
}

/// A chunk somewhere in the middle of a large file, so that ranges may go beyond it on both sides.
fn middle(chunk: u64) -> Range<u64> {
    64 * chunk..65 * chunk
}

/// A range of that chunk's round.
fn bytes(range: &RangeExpr, chunk: u64) -> Result<Range<u64>, String> {
    range
        .resolve(&middle(chunk), 1024 * chunk, GEOMETRY)
        .map_err(|e| e.to_string())
}

struct Round<'a> {
    s: &'a Scenario,
    /// Bytes of a chunk, and pages of it in the model.
    chunk: u64,
    pages: usize,
    /// Pages behind the chunk, for what moves.
    behind: usize,
    /// The files that take part: all but witnesses.
    names: Vec<&'a str>,
    /// What makes sense for whole pages only must be of whole folios of so many bytes.
    folio: Option<u64>,
}

impl<'a> Round<'a> {
    fn of(s: &'a Scenario) -> Self {
        let chunk = s.round.chunk.bytes(GEOMETRY);
        let pages = (chunk.div_ceil(PAGE) as usize).clamp(1, CHUNK);
        let ops = || s.actors.iter().flat_map(|(_, a)| &a.ops);
        let collapses = ops().any(|op| matches!(op, Op::CollapseRange(_)));
        let inserts = ops().any(|op| matches!(op, Op::InsertRange(_)));
        // What a collapse moves up behind the chunk has to be there, where anybody looks.
        let looks_behind = ops()
            .filter_map(|op| op.operands().0)
            .any(|(_, range)| bytes(range, chunk).is_ok_and(|r| r.end > middle(chunk).end));
        let names = s
            .files
            .iter()
            .filter(|(_, f)| !f.witness)
            .map(|(name, _)| name);
        Round {
            s,
            chunk,
            pages,
            behind: usize::from(collapses || inserts) + usize::from(collapses && looks_behind),
            names: names.collect(),
            folio: None,
        }
    }

    fn file(&self, name: &str) -> Result<usize, String> {
        let found = self.names.iter().position(|n| *n == name);
        found.ok_or_else(|| format!("`{name}` takes part only as a witness"))
    }

    fn files(&self) -> Vec<SetupFile> {
        let inserts = self
            .s
            .actors
            .iter()
            .flat_map(|(_, a)| &a.ops)
            .any(|op| matches!(op, Op::InsertRange(_)));
        let file = |name: &&str| {
            let spec = self.s.files.get(name)?;
            let same_as = match &spec.content {
                Content::SameAs(other) => self.file(other).ok(),
                Content::Stamped | Content::BootOf(_) | Content::Hole => None,
                Content::Empty => return Some(SetupFile::empty(name, 1)),
            };
            let size = self.pages + self.behind;
            let grows = inserts && *name == self.s.round.on;
            Some(SetupFile {
                name: (*name).to_owned(),
                size,
                room: size + if grows { self.pages } else { 0 },
                // A pass begins with everything evicted.
                cached: false,
                same_as,
            })
        };
        self.names.iter().filter_map(file).collect()
    }

    /// The pages of the model that a range touches, and whether it covers each of them whole.
    fn range(&self, range: &RangeExpr) -> Result<(Range<usize>, bool), String> {
        let start = middle(self.chunk).start;
        let bytes = bytes(range, self.chunk)?;
        let behind = self.behind.min(1) as u64 * PAGE;
        if bytes.start < start || bytes.end > start + self.chunk + behind {
            return Err(format!("`{}` lies outside the chunk", range.text));
        }
        let real = self.chunk.div_ceil(PAGE);
        let page = |byte: u64, up: bool| {
            let byte = byte - start;
            if byte > self.chunk || real <= CHUNK as u64 {
                let pages = if up { byte.div_ceil(PAGE) } else { byte / PAGE };
                return (pages - (real.min(pages)) + real.min(pages).min(self.pages as u64))
                    as usize;
            }
            let scaled = byte * self.pages as u64;
            (if up {
                scaled.div_ceil(self.chunk)
            } else {
                scaled / self.chunk
            }) as usize
        };
        let whole = bytes.start % PAGE == 0 && bytes.end % PAGE == 0;
        Ok((page(bytes.start, false)..page(bytes.end, true), whole))
    }

    /// The same for what only makes sense for whole pages.
    fn whole(&self, range: &RangeExpr) -> Result<Range<usize>, String> {
        let (pages, whole) = self.range(range)?;
        if !whole {
            return Err(format!(
                "`{}` is not made of whole pages, and the model knows none smaller",
                range.text
            ));
        }
        let bytes = bytes(range, self.chunk)?;
        let start = middle(self.chunk).start;
        let cut = |at: u64| self.folio.is_some_and(|f| !(at - start).is_multiple_of(f));
        if cut(bytes.start) || cut(bytes.end) {
            return Err(format!("`{}` is not made of whole folios", range.text));
        }
        Ok(pages)
    }

    fn calls(&self, op: &Op, role: Role) -> Result<Vec<Call>, String> {
        let touched = |range: &RangeExpr| self.range(range).map(|(pages, _)| pages);
        let block_device =
            || Err("a block device as a file: no other file's blocks lie under it".to_owned());
        let one = |call: Call| Ok(vec![call]);
        match op {
            Op::PunchHole(a) => one(Call::PunchHole {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
            }),
            Op::ZeroRange(a) => one(Call::ZeroRange {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
            }),
            Op::CollapseRange(a) => one(Call::CollapseRange {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
            }),
            Op::InsertRange(a) => one(Call::InsertRange {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
            }),
            Op::Truncate(a) => one(Call::Truncate {
                file: self.file(&a.file)?,
                size: self.whole(&a.range)?.start,
            }),
            Op::Extend(a) => one(Call::Truncate {
                file: self.file(&a.file)?,
                size: self.pages + self.behind,
            }),
            Op::Read(a) if a.direct => one(Call::DirectRead {
                file: self.file(&a.file)?,
                pages: touched(&a.range)?,
            }),
            Op::Read(a) => one(Call::Read {
                file: self.file(&a.file)?,
                pages: touched(&a.range)?,
                nowait: a.nowait,
                readahead: a.readahead,
            }),
            Op::UringRead(a) => one(Call::Read {
                file: self.file(&a.file)?,
                pages: touched(&a.range)?,
                nowait: a.nowait,
                readahead: false,
            }),
            Op::Splice(a) => one(self.read(&a.file, &a.range)?),
            Op::Fault(a) => one(self.fault(&a.file, &a.range)?),
            Op::Fadvise(a) | Op::Readahead(a) => one(Call::Fadvise {
                file: self.file(&a.file)?,
                pages: touched(&a.range)?,
            }),
            Op::Madvise(a) => one(match a.advice {
                MadviseAdvice::Willneed => Call::Fadvise {
                    file: self.file(&a.file)?,
                    pages: touched(&a.range)?,
                },
                MadviseAdvice::PopulateRead => self.fault(&a.file, &a.range)?,
                MadviseAdvice::Collapse => Call::CollapseFile {
                    file: self.file(&a.file)?,
                    pages: touched(&a.range)?,
                },
            }),
            Op::Fiemap(_) | Op::PrecacheExtents(_) => Err(format!(
                "{} fills no page, but ext4's extent status, which the model has not",
                op.word()
            )),
            Op::Dedupe(a) => {
                let pages = self.whole(&a.range)?;
                one(Call::Dedupe {
                    file: self.file(&a.file)?,
                    into: self.file(&a.into)?,
                    into_page: pages.start,
                    pages,
                })
            }
            Op::CloneRange(a) => one(Call::CloneRange {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
                from: self.file(&a.from)?,
            }),
            Op::ExchangeRange(a) => one(Call::ExchangeRange {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
                with: self.file(&a.with)?,
            }),
            Op::SwapBoot(a) => {
                let boot = self
                    .s
                    .files
                    .iter()
                    .find(|(_, f)| matches!(&f.content, Content::BootOf(of) if *of == a.file));
                let (boot, _) = boot.ok_or("no file stands for the boot loader's inode")?;
                one(Call::SwapBoot {
                    file: self.file(&a.file)?,
                    with: self.file(boot)?,
                })
            }
            Op::JournalData(a) => one(Call::JournalData {
                file: self.file(&a.file)?,
            }),
            Op::BlkZeroout(_) | Op::BlkDiscard(_) => block_device(),
            Op::Store(a) => {
                let file = self.file(&a.file)?;
                Ok(touched(&a.range)?
                    .map(|page| Call::Store { file, page })
                    .collect())
            }
            Op::Write(a) if role == Role::Reuser => one(Call::Reuse {
                file: self.file(&a.file)?,
                page: 0,
            }),
            Op::Write(a) if a.direct => one(Call::DirectWrite {
                file: self.file(&a.file)?,
                pages: self.whole(&a.range)?,
            }),
            Op::Write(a) => {
                let file = self.file(&a.file)?;
                let call = |page| match a.fills_up {
                    true => Call::FailedWrite { file, page },
                    false => Call::Write { file, page },
                };
                Ok(touched(&a.range)?.map(call).collect())
            }
            Op::ReadInto(a) => {
                let (file, from) = (self.file(&a.file)?, self.file(&a.from)?);
                let pages = touched(&a.range)?;
                Ok(pages
                    .map(|page| Call::ReadInto {
                        file,
                        page,
                        from,
                        from_page: page,
                    })
                    .collect())
            }
            // Blocks are free at once in the model: no commit is waited for.
            Op::Fsync(_) | Op::Syncfs(_) => Ok(Vec::new()),
        }
    }

    fn read(&self, file: &str, range: &RangeExpr) -> Result<Call, String> {
        Ok(Call::Read {
            file: self.file(file)?,
            pages: self.range(range)?.0,
            nowait: false,
            readahead: false,
        })
    }

    fn fault(&self, file: &str, range: &RangeExpr) -> Result<Call, String> {
        Ok(Call::Fault {
            file: self.file(file)?,
            pages: self.range(range)?.0,
            around: false,
        })
    }
}
