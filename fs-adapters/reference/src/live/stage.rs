//! What the files hold when a pass begins, and where they are on the device.

use std::ops::Range;
use std::sync::Arc;

use punchbench_race::subject::Extent;
use punchbench_race::{DirectIo, FileId, Stage, SubjectError};

use super::{PAGE, Shared};

/// The files of a pass.
pub(super) struct LiveStage(pub Arc<Shared>);

impl Stage for LiveStage {
    fn page(&self) -> u64 {
        PAGE
    }

    fn prepare(
        &mut self,
        file: FileId,
        size: u64,
        fill: &mut dyn FnMut(u64, &mut [u8]),
    ) -> Result<(), SubjectError> {
        let mut bytes = vec![0; size as usize];
        fill(0, &mut bytes);
        self.0.at_rest(|rest| rest.prepare(file, bytes));
        Ok(())
    }

    fn blocks(
        &mut self,
        file: FileId,
        range: Range<u64>,
    ) -> Result<Option<Vec<Extent>>, SubjectError> {
        if self.0.model.cache_is_store {
            return Ok(None);
        }
        Ok(Some(self.0.at_rest(|rest| rest.extents(file, range))))
    }

    fn fill_up(&mut self, _: bool) -> Result<(), SubjectError> {
        // A block that was freed is the lowest that is free.
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SubjectError> {
        Ok(())
    }

    fn direct(&self) -> DirectIo {
        if self.0.model.cache_is_store {
            DirectIo::Buffered
        } else {
            DirectIo::Real
        }
    }

    fn cache_is_store(&self) -> bool {
        self.0.model.cache_is_store
    }
}
