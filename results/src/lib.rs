//! What a trial leaves behind: verdicts, evidence, records, the journal they are
//! written to and the tables made of them.
//!
//! Depends on none of punchbench's other crates, so that old records stay readable
//! whatever happens to the runner.

mod across;
pub mod compare;
pub mod diagram;
pub mod evidence;
pub mod exit_code;
pub mod explain_failure;
pub mod export;
pub mod format;
pub mod history;
pub mod journal;
pub mod json;
pub mod markdown;
pub mod merge;
pub mod notes;
pub mod rate;
pub mod record;
pub mod report;
pub mod run_info;
pub mod schema;
pub mod source;
pub mod staged;
pub mod table;
mod table_file;
pub mod terminal;
mod text;
pub mod verdict;

pub use compare::Comparison;
pub use diagram::{Diagram, Row};
pub use evidence::{Contact, Evidence, FillerEvidence, Floor, Placement};
pub use explain_failure::explain_failure;
pub use export::{Exporter, Style, exporter, exporters};
pub use history::History;
pub use journal::{Journal, JournalError, read_records, salvage_records};
pub use merge::Merged;
pub use record::{Answer, Confirmation, Phase, Record, SCHEMA_VERSION, Via, Violation};
pub use run_info::{RunInfo, Shard};
pub use schema::record_schema_json;
pub use source::{Source, SourceError};
pub use staged::{Did, Meanwhile, Moment, Parked, Staged};
pub use table::{Summary, is_control};
pub use verdict::{Expectation, Verdict, Where};
