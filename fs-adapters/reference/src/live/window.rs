//! One round's part of the files as a state of the model: taken out of the files at rest when the round begins, and
//! put back when somebody looks at them. The model's pages are the round's chunk, and what it needs behind it; what
//! lies further on goes up and down with the end of the model's file.

use punchbench_race::FileId;

use super::rest::{Bytes, Page, Rest};
use super::{PAGE, Shared};
use crate::state::{State, UNWRITTEN, USED, flag};
use crate::value::{BODIES, Value, WORDS};

/// A chunk.
#[derive(Debug)]
pub(super) struct Window {
    /// Its first byte.
    pub start: u64,
    pub state: State,
    /// How many steps were taken in it.
    pub steps: u32,
    /// Of each word, where in its folio it stands and what it is.
    pub words: [(usize, Vec<u8>); WORDS],
    pub bodies: [Bytes; BODIES],
    /// Of each block of the model, the device's.
    blocks: Vec<Vec<u32>>,
    /// A file that was cut off or extended: the fewest bytes it had, and how many it has now.
    resized: Option<(FileId, u64, u64)>,
}

impl Window {
    /// The window at `start`, in the model's first state.
    pub fn take(shared: &Shared, rest: &mut Rest, start: u64) -> Window {
        let (model, first) = (&shared.model, &shared.model.first);
        let per_folio = (shared.folio / PAGE) as usize;
        let mut window = Window {
            start,
            state: *first,
            steps: 0,
            words: Default::default(),
            bodies: std::array::from_fn(|_| shared.zeros.clone()),
            blocks: vec![Vec::new(); model.extent.blocks],
            resized: None,
        };
        for (m, of) in model.files.iter().enumerate() {
            let file = shared.real[m];
            let slots = of.first..of.first + usize::from(first.sizes[m]);
            for (n, slot) in slots.enumerate() {
                let at = (start / PAGE) as usize + n * per_folio;
                let (bytes, blocks): (Vec<Bytes>, Vec<_>) = (at..at + per_folio)
                    .map(|page| rest.take(file, page))
                    .unzip();
                let body = (1..BODIES as u8).find(|b| first.allowed[slot].has_body(Value(*b)));
                if let Some(body) = body {
                    window.bodies[usize::from(body)] = Bytes::joined(&bytes);
                }
                let numbers = blocks.into_iter().map(|block| {
                    // Where it can, it stays where it was.
                    rest.unmap(block);
                    rest.take_free(block.map(|b| b.number))
                });
                if let Some(block) = first.map[slot].checked_sub(1) {
                    window.blocks[usize::from(block)] = numbers.collect();
                }
            }
        }
        for numbers in window.blocks.iter_mut().filter(|n| n.is_empty()) {
            numbers.extend((0..per_folio).map(|_| rest.take_free(None)));
        }
        window
    }

    /// Puts it back.
    pub fn put_back(&mut self, shared: &Shared, rest: &mut Rest) {
        let (model, first) = (&shared.model, &shared.model.first);
        let per_folio = (shared.folio / PAGE) as usize;
        for (block, numbers) in self.blocks.iter().enumerate() {
            let content = self.content(self.state.on_block(block as u8), shared.folio);
            for (n, number) in numbers.iter().enumerate() {
                rest.fill(*number, content.nth(n));
            }
        }
        for (m, of) in model.files.iter().enumerate() {
            if first.sizes[m] == 0 {
                continue;
            }
            let mut pages = Vec::new();
            for slot in of.first..of.first + usize::from(self.state.sizes[m]) {
                self.folio(shared, rest, slot, &mut pages);
            }
            let file = shared.real[m];
            let start = (self.start / PAGE) as usize;
            let end = start + usize::from(first.sizes[m]) * per_folio;
            let resized = self.resized.filter(|(f, ..)| *f == file);
            if let Some((_, least, _)) = resized {
                // What lies behind the window; the window itself knows what is left of it.
                rest.resize(file, end.max((least / PAGE) as usize));
            }
            rest.splice(file, start..end, pages);
            if let Some((_, _, now)) = resized {
                rest.resize(file, (now / PAGE) as usize);
            }
        }
        for (block, numbers) in self.blocks.iter().enumerate() {
            let used = self.state.blocks[block] & USED != 0;
            numbers.iter().for_each(|n| rest.give_back(*n, used));
        }
    }

    /// The pages of a folio of the model.
    fn folio(&self, shared: &Shared, rest: &mut Rest, slot: usize, pages: &mut Vec<Page>) {
        let page = self.state.pages[slot];
        let cached = page
            .is(flag::PRESENT | flag::UPTODATE)
            .then(|| (self.content(page.value, shared.folio), page.is(flag::DIRTY)));
        let map = self.state.map[slot];
        let numbers = (map & !UNWRITTEN)
            .checked_sub(1)
            .map(|block| &self.blocks[usize::from(block)]);
        for n in 0..(shared.folio / PAGE) as usize {
            pages.push(Page {
                cached: cached.as_ref().map(|(bytes, dirty)| (bytes.nth(n), *dirty)),
                block: numbers.map(|of| rest.map(of[n], map & UNWRITTEN == 0)),
            });
        }
    }

    /// What a value of the model stands for.
    fn content(&self, value: Value, folio: u64) -> Bytes {
        let body = &self.bodies[usize::from(value.body())];
        match value.word() {
            0 => body.clone(),
            _ => {
                let mut bytes = vec![0; folio as usize];
                self.fill(value, 0, &mut bytes);
                Bytes::new(bytes)
            }
        }
    }

    /// The same, from `offset` in the folio on.
    pub fn fill(&self, value: Value, offset: usize, buf: &mut [u8]) {
        let body = &self.bodies[usize::from(value.body())];
        buf.copy_from_slice(&body.from(offset)[..buf.len()]);
        let (at, word) = &self.words[usize::from(value.word())];
        let (from, to) = ((*at).max(offset), (at + word.len()).min(offset + buf.len()));
        if from < to {
            buf[from - offset..to - offset].copy_from_slice(&word[from - at..to - at]);
        }
    }

    /// A file has been cut off or extended to `size`.
    pub fn resize(&mut self, file: FileId, size: u64) {
        let least = self.resized.map_or(u64::MAX, |(_, least, _)| least);
        self.resized = Some((file, least.min(size), size));
    }

    /// Whether the window at `start` would have bytes of this one; `span` is the bytes of each.
    pub fn overlaps(&self, start: u64, span: u64) -> bool {
        self.start.abs_diff(start) < span
    }
}

#[cfg(test)]
mod tests {
    use punchbench_race::{Call, Look, Subjects};
    use punchbench_scenarios::find;

    use super::*;
    use crate::live::Live;
    use crate::policy::policies;

    const START: u64 = 2 * PAGE;

    /// Six pages, each full of its number from 1 on, and one call on the third.
    fn after(scenario: &str, calls: &[Call]) -> Vec<u8> {
        let policy = policies().into_iter().find(|p| p.policy == "none");
        let live = Live::new(&find(scenario)[0], &policy.unwrap(), 1).unwrap();
        let mut stage = live.stage().unwrap();
        for file in [0, 1] {
            let fill = &mut |_: u64, buf: &mut [u8]| {
                for (page, bytes) in (1..).zip(buf.chunks_mut(PAGE as usize)) {
                    bytes.fill(page + 10 * file as u8);
                }
            };
            if usize::from(file) < live.0.real.len() {
                stage.prepare(file, 6 * PAGE, fill).unwrap();
            }
        }
        let mut actor = live.actor(0).unwrap();
        actor.round(&(START..START + PAGE));
        for call in calls {
            actor.approach(call);
            assert_eq!(actor.perform(call, &mut []).errno, 0);
        }
        let mut buf = vec![99; 9 * PAGE as usize];
        let bytes = actor.look(Look::Read, 0, 0, &mut buf).bytes as usize;
        (0..bytes)
            .step_by(PAGE as usize)
            .map(|at| buf[at])
            .collect()
    }

    #[test]
    fn what_lies_behind_the_window_goes_up_and_down_with_it() {
        let (file, at, len) = (0, START, PAGE);
        let collapse = Call::CollapseRange { file, at, len };
        assert_eq!(after("collapse-while-read", &[collapse]), [1, 2, 4, 5, 6]);
        let insert = Call::InsertRange { file, at, len };
        let inserted = [1, 2, 0, 3, 4, 5, 6];
        assert_eq!(after("insert-while-read", &[insert]), inserted);
    }

    #[test]
    fn what_is_cut_off_is_gone_and_comes_back_as_zeros() {
        let cut = |size| Call::Truncate { file: 0, size };
        assert_eq!(after("truncate-while-read", &[cut(START)]), [1, 2]);
        let both = [cut(START), cut(5 * PAGE)];
        assert_eq!(after("truncate-while-read", &both), [1, 2, 0, 0, 0]);
    }

    #[test]
    fn other_files_give_what_is_theirs() {
        let (file, at, len) = (0, START, PAGE);
        let clone = Call::CloneRange {
            file,
            at,
            len,
            from: 1,
        };
        assert_eq!(after("clone-while-read", &[clone]), [1, 2, 13, 4, 5, 6]);
        let exchange = Call::ExchangeRange {
            file,
            at,
            len,
            with: 1,
        };
        assert_eq!(
            after("exchange-while-read", &[exchange]),
            [1, 2, 13, 4, 5, 6]
        );
    }
}
