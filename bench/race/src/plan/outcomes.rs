//! What a round may leave behind: every set of its mutators in every order, and where to look for it.

use super::*;
use crate::content::{Legal, Origin};

/// One way in which mutators of a round may have taken effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Which of them, as bits.
    pub applied: u8,
    /// What would have to be known for this to be impossible: each pair the other way round.
    pub contrary: Known,
    /// Mutators that must be under way for it, as bits: a state that does not outlast the call.
    pub fleeting: u8,
}

impl Way {
    /// Whether it may have come about, if `known` is known of the order.
    pub fn may_be(&self, known: Known) -> bool {
        !self.contrary.shares(known) && known.closed(self.applied)
    }
}

impl Plan {
    /// Calls `found(way, content)` for every set of mutators that may have taken effect on `file`, in every
    /// order. `content` covers `range` and whatever the changes touch.
    pub(super) fn orders(
        &self,
        content: &Content,
        file: FileId,
        range: &Range<u64>,
        changes: &[(usize, FileId, Change)],
        found: &mut dyn FnMut(Way, &Content),
    ) {
        let mine: Vec<(usize, Change)> = changes
            .iter()
            .filter(|c| c.1 == file)
            .map(|c| (c.0, c.2))
            .collect();
        let part = content.part(self.reach(range, &mine, content.size()));
        fn go(
            content: &Content,
            way: &Way,
            mine: &[(usize, Change)],
            found: &mut dyn FnMut(Way, &Content),
        ) {
            found(way.clone(), content);
            for &(slot, change) in mine.iter().filter(|m| way.applied & 1 << m.0 == 0) {
                let mut next = content.clone();
                next.apply(change);
                let mut contrary = way.contrary;
                for before in (0..MOST_MUTATORS).filter(|b| way.applied >> b & 1 != 0) {
                    contrary.say(slot, before);
                }
                let way = Way {
                    applied: way.applied | 1 << slot,
                    contrary,
                    fleeting: 0,
                };
                go(&next, &way, mine, found);
            }
        }
        let none = Way {
            applied: 0,
            contrary: Known::default(),
            fleeting: 0,
        };
        go(&part, &none, &mine, found);
    }

    /// What a call on `range` of `file` may show, and when.
    pub(super) fn candidates(
        &self,
        content: &Content,
        file: FileId,
        range: &Range<u64>,
        changes: &[(usize, FileId, Change)],
    ) -> Vec<(Way, Vec<Piece>)> {
        let mut all: Vec<(Way, Vec<Piece>)> = Vec::new();
        let mut add = |way, window| {
            let candidate = (way, window);
            if !all.contains(&candidate) {
                all.push(candidate);
            }
        };
        // While the size changes, bytes past the end may still be copied, as zeros: filemap_read looks at
        // the size after it has the folio, and copies then. So may those that a write has yet to reach.
        let size = content.size();
        let extends = |change: &Change| matches!(change, Change::Overwrite { at, len, .. } if at + len > size);
        let which = |kind: &dyn Fn(&Change) -> bool| {
            let slots = changes
                .iter()
                .filter(|(_, f, change)| *f == file && kind(change));
            slots.fold(0u8, |mask, (slot, ..)| mask | 1 << slot)
        };
        let cuts = which(&|change| matches!(change, Change::Truncate { .. }));
        let extends = which(&extends);
        self.orders(content, file, range, changes, &mut |way, content| {
            let window: Vec<Piece> = content.window(range.clone()).collect();
            let mut end = window.last().map_or(range.start, Piece::end);
            if way.applied & extends != 0 {
                end = end.min(size).max(range.start);
            }
            let fleeting = way.applied & (cuts | extends);
            if fleeting != 0 && end < range.end {
                let known = content.window(range.start..end);
                let zeros = Piece {
                    start: end,
                    len: range.end - end,
                    legal: Legal::one(Origin::Zero),
                };
                let window = known.chain([zeros]).collect();
                add(
                    Way {
                        fleeting,
                        ..way.clone()
                    },
                    window,
                );
            }
            add(way, window);
        });
        all
    }

    /// The range that must be looked at to know what `range` may hold.
    fn reach(&self, range: &Range<u64>, changes: &[(usize, Change)], size: u64) -> Range<u64> {
        changes.iter().fold(range.clone(), |reach, (_, change)| {
            let (at, end) = match *change {
                Change::Zero { at, len } | Change::Overwrite { at, len, .. } => (at, at + len),
                Change::Collapse { at, .. } | Change::Insert { at, .. } => (at, size),
                // With the byte before it: an empty part would not know where it begins.
                Change::Truncate { at } => (at.saturating_sub(1), size),
                Change::Extend { at } => (size.saturating_sub(1), size.max(at)),
            };
            reach.start.min(at)..reach.end.max(end)
        })
    }

    /// Moves the contents on to what they may be after a round, if `known` is known of the order of its
    /// mutators.
    pub fn settle(&self, pass: u64, round: u64, known: Known, contents: &mut [Content]) {
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
                [(slot, change)] if self.partial >> slot & 1 == 0 => content.apply(change),
                _ => {
                    let all = mine.iter().fold(0u8, |mask, c| mask | 1 << c.0);
                    let known = known.without(!all);
                    let bare = known.without(self.partial);
                    let chunk = self.chunk(round);
                    let reach = self.reach(&chunk, &mine, content.size());
                    let mut united: Option<Content> = None;
                    let only: Vec<_> = changes.iter().filter(|c| c.1 == file).copied().collect();
                    self.orders(content, file, &reach, &only, &mut |way, after| {
                        let known = if way.applied == all { known } else { bare };
                        if way.applied | self.partial & all == all && way.may_be(known) {
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
                    let guard = if file == self.on { self.guard } else { 0 };
                    let size = contents[usize::from(file)].size();
                    let range = range.start..(range.end + guard).min(size);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A punch beside a write of the same page.
    fn plan() -> Plan {
        let text = "
scenario: punch-while-write
claim: c
source: s
needs: [punch_hole]
files: {victim: {size: 1MiB}}
round: {on: victim, chunk: 1 page}
actors:
  puncher: {role: invalidator, do: [punch_hole: {file: victim, range: chunk}]}
  writer: {role: dirtier, do: [write: {file: victim, range: chunk}]}
  reader: {role: filler, cold: true, do: [read: {file: victim, range: chunk}]}
expect: {range: chunk, is: written}
";
        let geometry = Geometry {
            page: 4096,
            block: 4096,
        };
        let scenario = punchbench_scenarios::load(text, "punch-while-write.yaml").unwrap();
        Plan::new(&scenario, geometry).unwrap()
    }

    fn settled(known: Known) -> Vec<Origin> {
        let plan = plan();
        let mut contents = plan.contents(0);
        plan.settle(0, 3, known, &mut contents);
        let window: Vec<Piece> = contents[0].window(plan.chunk(3)).collect();
        window
            .iter()
            .flat_map(|p| p.legal.origins().to_vec())
            .collect()
    }

    #[test]
    fn a_known_order_leaves_one_outcome_and_an_unknown_one_both() {
        let (mut punch_first, mut write_first) = (Known::default(), Known::default());
        punch_first.say(0, 1);
        write_first.say(1, 0);
        assert!(matches!(
            settled(punch_first)[..],
            [Origin::Stamp {
                generation: 2..,
                ..
            }]
        ));
        assert_eq!(settled(write_first), [Origin::Zero]);
        assert_eq!(settled(Known::default()).len(), 2);
    }

    #[test]
    fn an_order_with_what_does_not_touch_the_file_says_nothing() {
        let mut known = Known::default();
        known.say(2, 0);
        known.say(2, 1);
        known.say(0, 1);
        assert_eq!(settled(known).len(), 1);
    }

    #[test]
    fn a_chunk_and_the_guard_behind_its_batch_overlap_no_other() {
        let plan = plan();
        let size = plan.files[0].size;
        for round in 1..plan.rounds {
            let (last, this) = (plan.chunk(round - 1), plan.chunk(round));
            let gap = if round % plan.batch == 0 { 4096 } else { 0 };
            assert_eq!(last.end + gap, this.start);
            assert!(this.end <= size);
        }
        let scope = plan.scope(0, plan.batch, &plan.contents(0));
        assert_eq!(scope, [(0, 0..plan.chunk(plan.batch - 1).end + 4096)]);
    }
}
