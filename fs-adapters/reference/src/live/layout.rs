//! Which part of the files each small state of the model stands for.

use punchbench_race::plan::Plan;

use super::PAGE;

/// Which pages of the files are one chunk: rounds keep guard pages between them, which are alone.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of each page: its window, and which page of that it is.
    pub pages: Vec<(usize, usize)>,
    /// Of each window: its first byte.
    pub starts: Vec<u64>,
}

impl Layout {
    pub fn of(plan: &Plan, size: u64) -> Layout {
        let pages = (size / PAGE) as usize;
        let mut layout = Layout {
            pages: vec![(usize::MAX, 0); pages],
            starts: Vec::new(),
        };
        for chunk in (0..plan.rounds).map(|round| plan.chunk(round)) {
            let window = layout.starts.len();
            layout.starts.push(chunk.start);
            for (n, page) in (chunk.start / PAGE..chunk.end / PAGE).enumerate() {
                layout.pages[page as usize] = (window, n);
            }
        }
        for page in (0..pages)
            .filter(|p| layout.pages[*p].0 == usize::MAX)
            .collect::<Vec<_>>()
        {
            layout.pages[page] = (layout.starts.len(), 0);
            layout.starts.push(page as u64 * PAGE);
        }
        layout
    }
}
