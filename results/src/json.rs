//! The summary as JSON: the tables' content for programs, where the journal has every trial in full.

use serde::Serialize;

use crate::Record;
use crate::export::Exporter;
use crate::table::Summary;

/// Raised when a field of the summary changes meaning or goes away.
const SUMMARY_SCHEMA: u32 = 1;

/// The JSON format.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Exporter for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn render(&self, records: &[Record]) -> String {
        let summary = &Summary::new(records);
        #[derive(Serialize)]
        struct Versioned<'a> {
            summary_schema: u32,
            #[serde(flatten)]
            summary: &'a Summary,
        }
        let versioned = Versioned {
            summary_schema: SUMMARY_SCHEMA,
            summary,
        };
        // Strings, numbers and maps with string keys only: nothing in it can fail to serialise.
        let mut text = serde_json::to_string_pretty(&versioned).expect("a summary is plain data");
        text.push('\n');
        text
    }
}
