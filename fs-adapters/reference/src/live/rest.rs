//! The files between rounds: what is cached, which blocks they have, and what the device holds. A round's window
//! is taken out of here and put back.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use punchbench_race::subject::Extent;
use punchbench_race::{FileId, Look};

use super::PAGE;

/// The bytes of a page or a folio: part of a buffer that others have parts of.
#[derive(Debug, Clone)]
pub(super) struct Bytes {
    of: Arc<Vec<u8>>,
    at: usize,
}

impl Bytes {
    pub fn new(of: Vec<u8>) -> Bytes {
        let (of, at) = (Arc::new(of), 0);
        Bytes { of, at }
    }

    pub fn zeros(len: u64) -> Bytes {
        Bytes::new(vec![0; len as usize])
    }

    /// The pages of a folio as one.
    pub fn joined(pages: &[Bytes]) -> Bytes {
        let first = &pages[0];
        let follows = |(n, page): (usize, &Bytes)| {
            Arc::ptr_eq(&page.of, &first.of) && page.at == first.at + n * PAGE as usize
        };
        match pages.iter().enumerate().all(follows) {
            true => first.clone(),
            false => Bytes::new(pages.iter().flat_map(|p| p.page()).copied().collect()),
        }
    }

    /// Its `n`th page.
    pub fn nth(&self, n: usize) -> Bytes {
        Bytes {
            of: Arc::clone(&self.of),
            at: self.at + n * PAGE as usize,
        }
    }

    fn page(&self) -> &[u8] {
        &self.from(0)[..PAGE as usize]
    }

    /// From `offset` on, to the end of the buffer.
    pub fn from(&self, offset: usize) -> &[u8] {
        &self.of[self.at + offset..]
    }
}

/// A page of a file.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    /// In the page cache, and whether it is dirty.
    pub cached: Option<(Bytes, bool)>,
    /// Its block; none for a hole.
    pub block: Option<Mapped>,
}

/// A block of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapped {
    pub number: u32,
    /// Otherwise it reads as zeros.
    pub written: bool,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    /// Pages that map it.
    maps: u32,
}

/// All files, and the device.
#[derive(Debug)]
pub(super) struct Rest {
    /// By the scenario's number of a file.
    files: Vec<Vec<Page>>,
    blocks: Vec<Block>,
    free: BTreeSet<u32>,
    cache_is_store: bool,
    zeros: Bytes,
}

impl Rest {
    pub fn new(files: usize, cache_is_store: bool) -> Rest {
        Rest {
            files: vec![Vec::new(); files],
            blocks: Vec::new(),
            free: BTreeSet::new(),
            cache_is_store,
            zeros: Bytes::zeros(PAGE),
        }
    }

    /// A file anew, with this content.
    pub fn prepare(&mut self, file: FileId, bytes: Vec<u8>) {
        let pages = bytes.len().div_ceil(PAGE as usize);
        self.resize(file, 0);
        let all = Bytes::new(bytes);
        for page in (0..pages).map(|n| all.nth(n)) {
            let page = match self.cache_is_store {
                true => Page {
                    cached: Some((page, true)),
                    block: None,
                },
                false => Page {
                    cached: None,
                    block: Some(self.written(page)),
                },
            };
            self.files[usize::from(file)].push(page);
        }
    }

    /// A file of so many pages: what is cut off is given back, what is new is a hole.
    pub fn resize(&mut self, file: FileId, pages: usize) {
        let file = usize::from(file);
        let cut = pages.min(self.files[file].len());
        for page in self.files[file].split_off(cut) {
            self.unmap(page.block);
        }
        self.files[file].resize(pages, Page::default());
    }

    /// Other pages in the place of some that have been taken out.
    pub fn splice(&mut self, file: FileId, range: Range<usize>, pages: Vec<Page>) {
        self.files[usize::from(file)].splice(range, pages);
    }

    /// This block if it is free, or else the lowest that is; for a window, until it is given back.
    pub fn take_free(&mut self, wanted: Option<u32>) -> u32 {
        match wanted {
            Some(number) if self.free.remove(&number) => number,
            _ => self.allocate(),
        }
    }

    /// A window's block; one in use that no page has is lost, which is the model's affair.
    pub fn give_back(&mut self, number: u32, used: bool) {
        if !used || self.blocks[number as usize].maps == 0 {
            self.free.insert(number);
        }
    }

    /// The lowest block that is free.
    fn allocate(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.blocks.push(Block {
                bytes: self.zeros.clone(),
                maps: 0,
            });
            self.blocks.len() as u32 - 1
        })
    }

    /// A new block that holds these bytes.
    fn written(&mut self, bytes: Bytes) -> Mapped {
        let number = self.allocate();
        self.fill(number, bytes);
        self.map(number, true)
    }

    pub fn fill(&mut self, number: u32, bytes: Bytes) {
        self.blocks[number as usize].bytes = bytes;
    }

    /// The block as one more page has it.
    pub fn map(&mut self, number: u32, written: bool) -> Mapped {
        self.blocks[number as usize].maps += 1;
        Mapped { number, written }
    }

    pub fn unmap(&mut self, block: Option<Mapped>) {
        if let Some(Mapped { number, .. }) = block {
            self.blocks[number as usize].maps -= 1;
            if self.blocks[number as usize].maps == 0 {
                self.free.insert(number);
            }
        }
    }

    /// What a read of the page shows.
    fn content(&self, page: &Page) -> Bytes {
        match (&page.cached, page.block) {
            (Some((bytes, _)), _) => bytes.clone(),
            (None, Some(block)) if block.written => {
                self.blocks[block.number as usize].bytes.clone()
            }
            (None, _) => self.zeros.clone(),
        }
    }

    /// A page leaves the file: what it holds on the device (or would, written back), and its block.
    pub fn take(&mut self, file: FileId, page: usize) -> (Bytes, Option<Mapped>) {
        if !self.cache_is_store {
            self.drop_cached(file, page);
        }
        let page = std::mem::take(&mut self.files[usize::from(file)][page]);
        (self.content(&page), page.block)
    }

    /// Writes a page back and drops it; a block that another page has as well is left to that.
    pub fn drop_cached(&mut self, file: FileId, at: usize) {
        let Some(page) = self.files[usize::from(file)].get_mut(at) else {
            return;
        };
        let (cached, block) = (page.cached.take(), page.block);
        let Some((bytes, true)) = cached else {
            return;
        };
        let block = match block {
            Some(mine) if self.blocks[mine.number as usize].maps == 1 => {
                self.fill(mine.number, bytes);
                Mapped {
                    written: true,
                    ..mine
                }
            }
            other => {
                self.unmap(other);
                self.written(bytes)
            }
        };
        self.files[usize::from(file)][at].block = Some(block);
    }

    /// Looks at a file; how many bytes there are.
    pub fn look(&mut self, how: Look, file: FileId, at: u64, buf: &mut [u8]) -> u64 {
        let size = self.files[usize::from(file)].len() as u64 * PAGE;
        let end = (at + buf.len() as u64).min(size).max(at);
        let mut from = at;
        while from < end {
            let to = (from / PAGE * PAGE + PAGE).min(end);
            let index = (from / PAGE) as usize;
            if how == Look::Direct && !self.cache_is_store {
                // A direct read writes back first.
                self.drop_cached(file, index);
            }
            let bytes = self.content(&self.files[usize::from(file)][index]);
            let part = &mut buf[(from - at) as usize..(to - at) as usize];
            part.copy_from_slice(&bytes.from((from % PAGE) as usize)[..part.len()]);
            if how != Look::Direct {
                let page = &mut self.files[usize::from(file)][index];
                page.cached.get_or_insert((bytes, false));
            }
            from = to;
        }
        end - at
    }

    /// Whether a page is in the page cache.
    pub fn is_cached(&self, file: FileId, page: usize) -> bool {
        let page = self.files[usize::from(file)].get(page);
        page.is_some_and(|p| p.cached.is_some())
    }

    /// Two files hold each other's data from now on.
    pub fn swap(&mut self, file: FileId, with: FileId) {
        self.files.swap(file.into(), with.into());
    }

    /// A write of whole pages past the page cache, into the lowest free blocks.
    pub fn write(&mut self, file: FileId, at: u64, data: &[u8]) {
        let all = Bytes::new(data.to_vec());
        let first = (at / PAGE) as usize;
        let pages = data.len() / PAGE as usize;
        let size = self.files[usize::from(file)].len().max(first + pages);
        self.resize(file, size);
        for n in 0..pages {
            let old = std::mem::take(&mut self.files[usize::from(file)][first + n]);
            self.unmap(old.block);
            let block = Some(self.written(all.nth(n)));
            self.files[usize::from(file)][first + n].block = block;
        }
    }

    /// Where a file's pages are on the device.
    pub fn extents(&self, file: FileId, range: Range<u64>) -> Vec<Extent> {
        let pages = (0..).zip(&self.files[usize::from(file)]);
        let mapped = pages.filter_map(|(n, page)| Some((n * PAGE, page.block?.number)));
        mapped
            .filter(|(at, _)| range.contains(at))
            .map(|(at, number)| (at, u64::from(number) * PAGE, PAGE))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(values: &[u8]) -> Vec<u8> {
        let page = |v: &u8| vec![*v; PAGE as usize];
        values.iter().flat_map(page).collect()
    }

    fn shown(rest: &mut Rest, how: Look) -> Vec<u8> {
        let mut buf = vec![9; 4 * PAGE as usize];
        let bytes = rest.look(how, 0, 0, &mut buf);
        let at = (0..bytes as usize).step_by(PAGE as usize);
        at.map(|at| buf[at]).collect()
    }

    #[test]
    fn blocks_that_are_given_back_go_to_who_writes_next() {
        let mut rest = Rest::new(2, false);
        rest.prepare(0, pages(&[1, 2, 3]));
        let before = rest.extents(0, 0..3 * PAGE);
        rest.resize(0, 1);
        rest.write(1, 0, &pages(&[7, 8]));
        assert_eq!(shown(&mut rest, Look::Read), [1]);
        let got: Vec<u64> = rest
            .extents(1, 0..2 * PAGE)
            .into_iter()
            .map(|e| e.1)
            .collect();
        assert_eq!(got, [before[1].1, before[2].1]);
    }

    #[test]
    fn what_is_dirty_is_written_back_and_never_into_a_shared_block() {
        let mut rest = Rest::new(2, false);
        rest.prepare(0, pages(&[1]));
        let mine = rest.files[0][0].block.unwrap();
        let shared = rest.map(mine.number, true);
        rest.files[1].push(Page {
            cached: Some((Bytes::new(pages(&[5])), true)),
            block: Some(shared),
        });
        rest.drop_cached(1, 0);
        assert_eq!(shown(&mut rest, Look::Direct), [1]);
        assert_ne!(rest.files[1][0].block.unwrap().number, mine.number);
    }

    #[test]
    fn a_direct_look_sees_what_a_stale_page_hides() {
        let mut rest = Rest::new(1, false);
        rest.prepare(0, pages(&[1, 2]));
        rest.files[0][1].cached = Some((Bytes::new(pages(&[6])), false));
        assert_eq!(shown(&mut rest, Look::Read), [1, 6]);
        assert_eq!(shown(&mut rest, Look::Direct), [1, 2]);
    }
}
