//! The JSON schema that editors complete and check a scenario with; `schema.json` is its committed copy.

use crate::Scenario;

/// The schema of a scenario's YAML file, as pretty-printed JSON.
pub fn schema_json() -> String {
    let schema = schemars::schema_for!(Scenario);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}
