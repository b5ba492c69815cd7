//! What the files hold when a pass begins.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use punchbench_race::subject::Extent;
use punchbench_race::{DirectIo, FileId, Stage, SubjectError};

use super::{PAGE, Shared, Window};

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
        let Some(file) = self.0.files[usize::from(file)] else {
            return Ok(());
        };
        let mut bytes = vec![0; size as usize];
        fill(0, &mut bytes);
        *self.0.bytes[file]
            .write()
            .unwrap_or_else(PoisonError::into_inner) = bytes;
        let window = || {
            Mutex::new(Window {
                state: self.0.model.first,
                words: Default::default(),
            })
        };
        let windows = self.0.layout.starts.len();
        *self
            .0
            .windows
            .write()
            .unwrap_or_else(PoisonError::into_inner) = (0..windows).map(|_| window()).collect();
        Ok(())
    }

    fn blocks(&mut self, _: FileId, _: Range<u64>) -> Result<Option<Vec<Extent>>, SubjectError> {
        Ok(None)
    }

    fn fill_up(&mut self, _: bool) -> Result<(), SubjectError> {
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
