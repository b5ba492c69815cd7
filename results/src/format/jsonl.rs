//! The records themselves, one a line, as in `records.jsonl`: several runs in one stream, for jq and the like.

use crate::Record;
use crate::export::Exporter;

/// The JSON Lines format.
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

impl Exporter for JsonLines {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn file_name(&self) -> &'static str {
        "all.jsonl"
    }

    fn render(&self, records: &[Record]) -> String {
        let mut out = String::new();
        for record in records {
            // It was read from JSON, or will be written to it: nothing in it can fail to serialise.
            out.push_str(&serde_json::to_string(record).expect("a record is plain data"));
            out.push('\n');
        }
        out
    }
}
