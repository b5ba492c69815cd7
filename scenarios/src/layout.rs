//! What a scenario's ranges come to, chunk by chunk.

use crate::{Effect, Geometry, Op, RangeExpr, Scenario};

/// A place in a scenario that names a range of a file.
pub(crate) struct Site<'a> {
    /// Keys and indices down to the map that holds `file` and `range`.
    pub path: Vec<String>,
    pub file: &'a str,
    pub range: &'a RangeExpr,
    /// The range must end before the end of the file: collapse and insert refuse to reach it.
    pub inside: bool,
    /// The operation takes whole blocks only.
    pub whole_blocks: bool,
}

impl Scenario {
    /// Every range with its file: those of the operations, then the expectation.
    pub(crate) fn sites(&self) -> Vec<Site<'_>> {
        let ops = self.actors.iter().flat_map(|(name, actor)| {
            actor.ops.iter().enumerate().filter_map(move |(i, op)| {
                let path = ["actors", name, "do", &i.to_string(), op.word()].map(str::to_owned);
                let (file, range) = op.operands().0?;
                let inside = matches!(op.effect(), Effect::Collapse(_) | Effect::Insert(_));
                Some(Site {
                    path: path.to_vec(),
                    file,
                    range,
                    inside,
                    whole_blocks: op.takes_whole_blocks(),
                })
            })
        });
        let expect = Site {
            path: vec!["expect".to_owned()],
            file: self.expected_file(),
            range: &self.expect.range,
            inside: false,
            whole_blocks: false,
        };
        let steps = self.stage.iter().enumerate().filter_map(|(i, step)| {
            let (below, on) = step.on_range()?;
            let path = ["stage", &i.to_string(), step.word()].map(str::to_owned);
            let below = below.iter().map(|key| (*key).to_owned());
            Some(Site {
                path: path.into_iter().chain(below).collect(),
                file: &on.file,
                range: &on.range,
                inside: false,
                whole_blocks: false,
            })
        });
        ops.chain(steps).chain([expect]).collect()
    }

    /// The file that the expectation is about.
    pub fn expected_file(&self) -> &str {
        self.expect.file.as_deref().unwrap_or(&self.round.on)
    }

    /// The operation that the race is about: the invalidator's first that removes, moves or shares
    /// blocks. The loader refuses a scenario without one.
    pub fn operation(&self) -> &Op {
        let (_, actor) = self.invalidator();
        actor
            .ops
            .iter()
            .find(|op| op.invalidates())
            .expect("the loader checked that there is one")
    }

    /// The bytes of a round's chunk. Where an operation moves blocks, whole allocation units, as the kernel
    /// refuses less: a page becomes a cluster on bigalloc.
    pub fn chunk(&self, g: Geometry) -> u64 {
        let written = self.round.chunk.bytes(g);
        let moves = |op: &Op| matches!(op.effect(), Effect::Collapse(_) | Effect::Insert(_));
        if self
            .actors
            .iter()
            .any(|(_, actor)| actor.ops.iter().any(moves))
        {
            written.next_multiple_of(g.block)
        } else {
            written
        }
    }

    /// How many chunks every range must stay inside its file for: all, or all but the last, which is
    /// left out if a range would run past the end there (a collapse may not even reach it).
    pub(crate) fn chunks(&self, g: Geometry) -> u64 {
        let size = self
            .files
            .get(&self.round.on)
            .map_or(0, |f| f.size.bytes(g));
        let all = size.checked_div(self.chunk(g)).unwrap_or(0);
        let fits = |n: u64| self.sites().iter().all(|s| self.resolve(s, n, g).is_ok());
        if all > 0 && !self.round.fixed && !fits(all - 1) {
            all - 1
        } else {
            all
        }
    }

    /// The first chunk that is raced.
    pub(crate) fn first_chunk(&self, g: Geometry) -> u64 {
        if self.round.fixed {
            self.chunks(g).saturating_sub(1)
        } else {
            0
        }
    }

    /// What a site's range comes to in a chunk, or why it does not fit.
    pub(crate) fn resolve(
        &self,
        site: &Site<'_>,
        chunk: u64,
        g: Geometry,
    ) -> Result<std::ops::Range<u64>, String> {
        let size = self.files.get(site.file).map_or(0, |f| f.size.bytes(g));
        let len = self.chunk(g);
        let start = chunk.saturating_mul(len);
        let range = site
            .range
            .resolve(&(start..start.saturating_add(len)), size, g)
            .map_err(|e| e.to_string())?;
        let file = site.file;
        if range.end > size {
            return Err(format!(
                "`{}` ends at byte {}, `{file}` at {size}",
                site.range, range.end
            ));
        }
        if site.inside && range.end == size {
            return Err(format!(
                "`{}` reaches the end of `{file}`, which the kernel refuses",
                site.range
            ));
        }
        Ok(range)
    }
}

impl Op {
    /// Whether it removes, moves or shares blocks under cached pages, or as the journal flag changes how
    /// they are written.
    pub fn invalidates(&self) -> bool {
        match self.effect() {
            Effect::Zero(_)
            | Effect::Collapse(_)
            | Effect::Insert(_)
            | Effect::Truncate(_)
            | Effect::Exchange { .. }
            | Effect::SwapBoot(_) => true,
            // A read into a mapping stores.
            Effect::CopyOf { .. } => matches!(self, Op::CloneRange(_)),
            // A direct write drops the pages of its range (`kiocb_invalidate_pages`).
            Effect::None | Effect::Overwrite(_) | Effect::Extend(_) => {
                matches!(self, Op::Dedupe(_) | Op::JournalData(_))
                    || matches!(self, Op::Write(a) if a.direct)
            }
        }
    }

    /// Whether it may bring pages into the page cache: what fills, and what dirties through it.
    pub fn brings_in(&self) -> bool {
        let beside = matches!(self, Op::Write(a) if a.direct);
        self.fills() || self.dirties() && !beside
    }

    /// Whether it can instantiate pages in the page cache, or as FIEMAP the filesystem's cached mapping,
    /// without changing content.
    pub fn fills(&self) -> bool {
        match self {
            Op::Read(_)
            | Op::UringRead(_)
            | Op::Splice(_)
            | Op::Fault(_)
            | Op::Fadvise(_)
            | Op::Readahead(_)
            | Op::Madvise(_)
            // vfs_dedupe_file_range_compare() reads both files.
            | Op::Dedupe(_)
            | Op::Fiemap(_)
            | Op::PrecacheExtents(_) => true,
            Op::PunchHole(_)
            | Op::ZeroRange(_)
            | Op::CollapseRange(_)
            | Op::InsertRange(_)
            | Op::Truncate(_)
            | Op::Extend(_)
            | Op::CloneRange(_)
            | Op::ExchangeRange(_)
            | Op::SwapBoot(_)
            | Op::JournalData(_)
            | Op::BlkZeroout(_)
            | Op::BlkDiscard(_)
            | Op::Store(_)
            | Op::Write(_)
            | Op::ReadInto(_)
            | Op::Fsync(_)
            | Op::Syncfs(_) => false,
        }
    }

    /// Whether it writes or stores into pages: what a dirtier is for.
    pub fn dirties(&self) -> bool {
        matches!(self, Op::Store(_) | Op::Write(_) | Op::ReadInto(_))
    }

    /// Whether the kernel refuses ranges that are not made of whole blocks.
    fn takes_whole_blocks(&self) -> bool {
        match self {
            Op::CollapseRange(_)
            | Op::InsertRange(_)
            | Op::Dedupe(_)
            | Op::CloneRange(_)
            | Op::ExchangeRange(_)
            | Op::BlkZeroout(_)
            | Op::BlkDiscard(_) => true,
            Op::Write(a) => a.direct,
            Op::PunchHole(_)
            | Op::ZeroRange(_)
            | Op::Truncate(_)
            | Op::Extend(_)
            | Op::Read(_)
            | Op::UringRead(_)
            | Op::Splice(_)
            | Op::Fault(_)
            | Op::Fadvise(_)
            | Op::Readahead(_)
            | Op::Madvise(_)
            | Op::Fiemap(_)
            | Op::PrecacheExtents(_)
            | Op::SwapBoot(_)
            | Op::JournalData(_)
            | Op::Store(_)
            | Op::ReadInto(_)
            | Op::Fsync(_)
            | Op::Syncfs(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Geometry, catalog};

    #[test]
    fn only_what_moves_blocks_takes_whole_clusters() {
        let chunk = |name: &str, block| {
            let all = catalog();
            let scenario = all.iter().find(|s| s.scenario == name).unwrap();
            scenario.chunk(Geometry { page: 4096, block })
        };
        assert_eq!(chunk("collapse-while-fault", 65536), 65536);
        assert_eq!(chunk("collapse-while-fault", 1024), 4096);
        assert_eq!(chunk("punch-while-read", 65536), 4096);
    }
}
