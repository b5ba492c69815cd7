//! Which kernel takes the place of which: a nightly's `debian:bookworm` is another release every few weeks, and
//! must still be compared with its predecessor.

use super::KernelPair;
use crate::table::Cell;

/// A kernel of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kernel<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) release: &'a str,
}

impl<'a> Kernel<'a> {
    pub(crate) fn of(cell: &'a Cell) -> Kernel<'a> {
        Kernel {
            name: cell.kernel_name.as_deref(),
            release: &cell.kernel,
        }
    }

    /// `6.1` of `6.1.0-41-amd64`.
    fn series(self) -> &'a str {
        let mut dots = self.release.match_indices('.').map(|(at, _)| at);
        let end = dots.nth(1).unwrap_or(self.release.len());
        &self.release[..end]
    }
}

/// The kernels of a run, each once.
pub(crate) fn kernels<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<Kernel<'a>> {
    let mut found: Vec<Kernel> = Vec::new();
    for cell in cells {
        let kernel = Kernel::of(cell);
        if found.last() != Some(&kernel) && !found.contains(&kernel) {
            found.push(kernel);
        }
    }
    found
}

/// Which kernels stand in one place, whatever their release: those by one name, and, where no run has several
/// kernels without a name (as a table may), the machine's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    own_is_one: bool,
}

impl Slots {
    pub(crate) fn of<'a>(runs: impl Iterator<Item = &'a [Cell]>) -> Slots {
        let own = |cells: &'a [Cell]| {
            let all = kernels(cells.iter());
            all.iter().filter(|k| k.name.is_none()).count()
        };
        Slots {
            own_is_one: runs.map(own).all(|n| n <= 1),
        }
    }

    pub(crate) fn one_place(self, a: Kernel, b: Kernel) -> bool {
        a.name == b.name && (a.name.is_some() || self.own_is_one)
    }

    /// Of several releases in one place, the latest.
    pub(crate) fn latest<'a>(self, all: &[Kernel<'a>]) -> Vec<Kernel<'a>> {
        let superseded = |at: usize, kernel: Kernel| {
            all[at + 1..]
                .iter()
                .any(|&later| self.one_place(later, kernel))
        };
        let kept = all.iter().enumerate();
        kept.filter(|&(at, &kernel)| !superseded(at, kernel))
            .map(|(_, kernel)| *kernel)
            .collect()
    }
}

/// For each kernel after, the one before, and those before that are left over.
///
/// The same one first, then by place, by release, by series (5.10, 6.1), and at last the only two that are left.
pub(crate) fn pair<'a>(
    before: &[Kernel<'a>],
    after: &[Kernel<'a>],
    slots: Slots,
) -> Vec<(Option<Kernel<'a>>, Option<Kernel<'a>>)> {
    type Alike<'b> = &'b dyn Fn(Kernel, Kernel) -> bool;
    let rules: [Alike; 4] = [
        &|a, b| a == b,
        &|a, b| slots.one_place(a, b),
        &|a, b| a.release == b.release,
        &|a, b| a.series() == b.series(),
    ];
    let mut open: Vec<Kernel> = before.to_vec();
    let mut partner: Vec<Option<Kernel>> = vec![None; after.len()];
    for alike in rules {
        for (slot, &kernel) in partner
            .iter_mut()
            .zip(after)
            .filter(|(slot, _)| slot.is_none())
        {
            if let Some(at) = open.iter().position(|&b| alike(kernel, b)) {
                *slot = Some(open.remove(at));
            }
        }
    }
    let alone: Vec<usize> = (0..after.len()).filter(|&i| partner[i].is_none()).collect();
    if let ([last], [_]) = (alone.as_slice(), open.as_slice()) {
        partner[*last] = open.pop();
    }
    let mut pairs: Vec<_> = partner
        .into_iter()
        .zip(after)
        .map(|(b, &a)| (b, Some(a)))
        .collect();
    pairs.extend(open.into_iter().map(|b| (Some(b), None)));
    pairs
}

pub(crate) fn described((before, after): (Option<Kernel>, Option<Kernel>)) -> KernelPair {
    let release = |k: Option<Kernel>| k.map(|k| k.release.to_owned());
    let name = after.and_then(|k| k.name).or(before.and_then(|k| k.name));
    KernelPair {
        name: name.map(str::to_owned),
        before: release(before),
        after: release(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn k<'a>(name: &'a str, release: &'a str) -> Kernel<'a> {
        Kernel {
            name: (!name.is_empty()).then_some(name),
            release,
        }
    }

    const MANY: Slots = Slots { own_is_one: false };

    #[test]
    fn names_come_before_releases_and_series() {
        let before = [k("", "6.18.44"), k("debian:bookworm", "6.1.0-40-amd64")];
        let after = [
            k("debian:bookworm", "6.1.0-41-amd64"),
            k("", "6.18.45"),
            k("", "7.0.1"),
        ];
        let pairs = pair(&before, &after, MANY);
        assert_eq!(
            pairs,
            [
                (Some(before[1]), Some(after[0])),
                (Some(before[0]), Some(after[1])),
                (None, Some(after[2])),
            ]
        );
    }

    #[test]
    fn the_only_two_left_are_compared_and_three_are_not() {
        let (old, new) = (k("", "5.10.262"), k("", "6.1.158"));
        assert_eq!(pair(&[old], &[new], MANY), [(Some(old), Some(new))]);
        let other = k("", "7.3.4");
        assert_eq!(
            pair(&[old], &[new, other], MANY),
            [(None, Some(new)), (None, Some(other)), (Some(old), None)]
        );
    }

    #[test]
    fn a_machine_that_was_updated_is_the_same_place() {
        let one = Slots { own_is_one: true };
        let (old, new, newest) = (k("", "6.18.44"), k("", "7.0.1"), k("", "7.2.0"));
        assert_eq!(one.latest(&[old, new]), [new]);
        assert_eq!(pair(&[new], &[newest], one), [(Some(new), Some(newest))]);
        assert_eq!(MANY.latest(&[old, new]), [old, new]);
    }
}
