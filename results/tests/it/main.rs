//! What this crate promises to the bench and to those who read its files.

mod compare;
mod exit_codes;
mod golden;
mod history;
mod journal;
mod merge;
mod reports;
mod samples;
mod schema;
