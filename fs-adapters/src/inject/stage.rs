//! A file that is written anew is no longer shown stale.

use std::ops::Range;
use std::sync::Arc;

use punchbench_race::{DirectIo, FileId, Stage, SubjectError};

use super::board::Board;

pub(super) struct InjectedStage {
    pub(super) inner: Box<dyn Stage>,
    pub(super) board: Arc<Board>,
}

impl Stage for InjectedStage {
    fn page(&self) -> u64 {
        self.inner.page()
    }

    fn prepare(
        &mut self,
        file: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError> {
        self.board.clear(file, &(0..u64::MAX));
        self.inner.prepare(file, size, fill)
    }

    fn hole(&mut self, file: FileId, size: u64) -> Result<(), SubjectError> {
        self.board.clear(file, &(0..u64::MAX));
        self.inner.hole(file, size)
    }

    fn blocks(
        &mut self,
        file: FileId,
        range: Range<u64>,
    ) -> Result<Option<Vec<(u64, u64, u64)>>, SubjectError> {
        self.inner.blocks(file, range)
    }

    fn fill_up(&mut self, full: bool) -> Result<(), SubjectError> {
        self.inner.fill_up(full)
    }

    fn commit(&mut self) -> Result<(), SubjectError> {
        self.inner.commit()
    }

    fn direct(&self) -> DirectIo {
        self.inner.direct()
    }

    fn cache_is_store(&self) -> bool {
        self.inner.cache_is_store()
    }
}
