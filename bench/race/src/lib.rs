//! The race engine: actors meet at a gate, race over one fresh range a round, and an oracle judges every
//! byte they saw. Knows nothing of filesystems: what is raced is a [`Subject`].

pub mod actor;
pub mod asleep;
pub mod board;
pub mod confirm;
pub mod content;
pub mod grip;
pub mod host;
pub mod judge;
pub mod message;
pub mod plan;
pub mod stamp;
pub mod subject;
pub mod trial;
pub mod verdict;
pub mod verify;

pub use grip::{Asleep, Grip, GripError, Hold, HoldId};
pub use host::Host;
pub use subject::{
    Call, DirectIo, FileId, Look, Outcome, Stage, Subject, SubjectError, Subjects, Usage,
};
pub use trial::{
    Event, Limits, RaceError, RaceReport, TrialSpec, prepare, race, remounted, staged,
};
pub use verdict::verdict;
