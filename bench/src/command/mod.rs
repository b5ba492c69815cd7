//! One file a command.

pub mod check;
pub mod compare;
pub mod doctor;
pub mod explain;
pub mod explore;
pub mod export;
pub mod history;
pub mod kernel;
pub mod list;
pub mod man;
pub mod merge;
pub mod nightly;
pub mod report;
pub mod run;
pub mod schema;
