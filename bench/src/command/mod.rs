//! One file a command.

pub mod check;
pub mod compare;
pub mod doctor;
pub mod explain;
pub mod explore;
pub mod kernel;
pub mod list;
pub mod run;
pub mod schema;
