//! The race engine: actors meet at a gate, race over one fresh range a round, and an oracle judges every
//! byte they saw. Knows nothing of filesystems: what is raced is a [`Subject`].

pub mod content;
pub mod judge;
pub mod stamp;
pub mod subject;

pub use subject::{Call, DirectIo, FileId, Look, Outcome, Stage, Subject, SubjectError, Subjects, Usage};
