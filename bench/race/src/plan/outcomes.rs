//! What a round may leave behind: every set of its mutators in every order, and where to look for it.

use super::*;

impl Plan {
    /// Calls `found(applied, content)` for every set of mutators that may have taken effect on `file`, in
    /// every order. `content` covers `range` and whatever the changes touch.
    pub(super) fn orders(
        &self,
        content: &Content,
        file: FileId,
        range: &Range<u64>,
        changes: &[(usize, FileId, Change)],
        found: &mut dyn FnMut(u8, &Content),
    ) {
        let mine: Vec<(usize, Change)> = changes
            .iter()
            .filter(|c| c.1 == file)
            .map(|c| (c.0, c.2))
            .collect();
        let part = content.part(self.reach(range, &mine, content.size()));
        fn go(
            content: &Content,
            mask: u8,
            mine: &[(usize, Change)],
            found: &mut dyn FnMut(u8, &Content),
        ) {
            found(mask, content);
            for &(slot, change) in mine.iter().filter(|(slot, _)| mask & 1 << slot == 0) {
                let mut next = content.clone();
                next.apply(change);
                go(&next, mask | 1 << slot, mine, found);
            }
        }
        go(&part, 0, &mine, found);
    }

    /// The range that must be looked at to know what `range` may hold.
    fn reach(&self, range: &Range<u64>, changes: &[(usize, Change)], size: u64) -> Range<u64> {
        changes.iter().fold(range.clone(), |reach, (_, change)| {
            let (at, end) = match *change {
                Change::Zero { at, len } | Change::Overwrite { at, len, .. } => (at, at + len),
                Change::Collapse { at, .. } | Change::Insert { at, .. } => (at, size),
            };
            reach.start.min(at)..reach.end.max(end)
        })
    }

    /// Moves the contents on to what they may be after a round.
    pub fn settle(&self, pass: u64, round: u64, contents: &mut [Content]) {
        let changes = self.changes(pass, round);
        for (file, content) in contents.iter_mut().enumerate() {
            let file = file as FileId;
            let mine: Vec<(usize, Change)> = changes
                .iter()
                .filter(|c| c.1 == file)
                .map(|c| (c.0, c.2))
                .collect();
            match mine[..] {
                [] => {}
                [(_, change)] => content.apply(change),
                _ => {
                    let all = mine.iter().fold(0u8, |mask, c| mask | 1 << c.0);
                    let chunk = self.chunk(round);
                    let reach = self.reach(&chunk, &mine, content.size());
                    let mut united: Option<Content> = None;
                    let only: Vec<_> = changes.iter().filter(|c| c.1 == file).copied().collect();
                    self.orders(content, file, &reach, &only, &mut |mask, after| {
                        if mask == all {
                            match &mut united {
                                Some(united) => united.unite(after),
                                None => united = Some(after.clone()),
                            }
                        }
                    });
                    if let Some(after) = united {
                        content.put_back(reach, &after);
                    }
                }
            }
        }
    }

    /// What the probes after a batch of rounds look at: each file's range that the batch touched.
    pub fn scope(&self, from: u64, to: u64, contents: &[Content]) -> Vec<(FileId, Range<u64>)> {
        let mut scope: Vec<(FileId, Range<u64>)> = Vec::new();
        for round in [from, to - 1] {
            let chunk = self.chunk(round);
            for op in self.actors.iter().flat_map(|a| &a.ops) {
                let (Some((name, range)), second) = op.operands() else {
                    continue;
                };
                let range = range
                    .resolve(&chunk, self.size(name), self.geometry)
                    .expect("checked by lay_out");
                for file in std::iter::once(self.file(name)).chain(second.map(|n| self.file(n))) {
                    let range = range.start..range.end.min(contents[usize::from(file)].size());
                    if range.is_empty() {
                        continue;
                    }
                    match scope.iter_mut().find(|(f, _)| *f == file) {
                        Some((_, r)) => *r = r.start.min(range.start)..r.end.max(range.end),
                        None => scope.push((file, range)),
                    }
                }
            }
        }
        scope
    }
}
