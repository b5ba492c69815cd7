//! What this crate promises to the bench and to those who read its files.

mod browser;
mod compare;
mod exit_codes;
mod formats;
mod golden;
mod history;
mod journal;
mod merge;
mod report;
mod reports;
mod samples;
mod schema;
