//! `punchbench schema`: for editors that complete and check YAML, and for readers of records.

use punchbench_results::{exit_code, record_schema_json};
use punchbench_scenarios::schema_json;

use crate::cli::SchemaOf;

/// Prints it.
pub fn run(of: SchemaOf) -> u8 {
    match of {
        SchemaOf::Scenario => print!("{}", schema_json()),
        SchemaOf::Record => print!("{}", record_schema_json()),
    }
    exit_code::EXPECTED
}
