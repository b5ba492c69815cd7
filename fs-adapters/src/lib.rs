//! placeholder

pub mod subject;
