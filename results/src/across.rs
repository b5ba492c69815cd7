//! The same trials on several kernels, side by side: what a maintainer looks for first, which the blocks of
//! single kernels do not show. Rows that say the same on every kernel are left to those.

use crate::table::{Cell, Summary, Words};
use crate::text::count;

/// The rows in which kernels differ.
#[derive(Debug)]
pub(crate) struct Across<'a> {
    /// Columns, by release; with the version where two builds have one release.
    pub(crate) kernels: Vec<String>,
    pub(crate) rows: Vec<AcrossRow<'a>>,
    /// How many others there are.
    pub(crate) alike: usize,
}

/// One scenario on one target.
#[derive(Debug)]
pub(crate) struct AcrossRow<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) target: &'a str,
    /// One entry for every kernel; `None` where nothing was recorded.
    pub(crate) cells: Vec<Option<&'a Cell>>,
}

impl<'a> Across<'a> {
    /// `None` for fewer than two kernels.
    pub(crate) fn of(summary: &'a Summary) -> Option<Across<'a>> {
        let blocks = &summary.blocks;
        if blocks.len() < 2 {
            return None;
        }
        let builds = |release: &str| blocks.iter().filter(|b| b.kernel == release).count();
        let kernels = blocks
            .iter()
            .map(|block| match builds(&block.kernel) {
                1 => block.kernel.clone(),
                _ => format!("{} {}", block.kernel, block.kernel_version),
            })
            .collect();
        let mut places: Vec<(&str, &str)> = Vec::new();
        for cell in summary.cells() {
            let place = (cell.target.as_str(), cell.scenario.as_str());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let all = places.into_iter().map(|(target, scenario)| AcrossRow {
            scenario,
            target,
            cells: blocks
                .iter()
                .map(|block| {
                    let mut cells = block.cells();
                    cells.find(|cell| cell.target == target && cell.scenario == scenario)
                })
                .collect(),
        });
        let (alike, rows): (Vec<_>, Vec<_>) = all.partition(AcrossRow::is_alike);
        Some(Across {
            kernels,
            rows,
            alike: alike.len(),
        })
    }

    /// What is left out, in words.
    pub(crate) fn remainder(&self) -> String {
        if self.rows.is_empty() {
            "nowhere: every row says the same on each kernel it was run on".to_owned()
        } else {
            format!(
                "the same on each kernel they were run on: {}",
                count(self.alike, "other row")
            )
        }
    }
}

impl AcrossRow<'_> {
    /// By verdict: how often a repeat showed it, and whether an issue is known, is in the blocks. Where
    /// nothing was recorded, nothing differs.
    fn is_alike(&self) -> bool {
        let mut verdicts = self.cells.iter().flatten().map(|cell| cell.verdict());
        let first = verdicts.next();
        verdicts.all(|verdict| Some(verdict) == first)
    }

    /// The row's name.
    pub(crate) fn title(&self) -> String {
        format!("{} on {}", self.scenario, self.target)
    }

    /// The row as a sentence, where a table does not fit.
    pub(crate) fn sentence(&self, kernels: &[String], nothing: &str) -> String {
        let words: Vec<String> = kernels
            .iter()
            .zip(&self.cells)
            .map(|(kernel, cell)| {
                let label = cell.map_or_else(|| nothing.to_owned(), |c| c.label(Words::Full));
                format!("{label} on {kernel}")
            })
            .collect();
        format!("{}: {}", self.title(), words.join(", "))
    }
}
