//! What a trial leaves behind: verdicts, evidence, records, the journal they are
//! written to and the tables made of them.
//!
//! Depends on none of punchbench's other crates, so that old records stay readable
//! whatever happens to the runner.

pub mod evidence;
pub mod record;
pub mod verdict;

pub use evidence::{Contact, Evidence, FillerEvidence, Floor, Placement};
pub use record::{Answer, Confirmation, Phase, Record, Via, Violation, SCHEMA_VERSION};
pub use verdict::{Expectation, Verdict, Where};
