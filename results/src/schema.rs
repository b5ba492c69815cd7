//! The JSON schema of a record, made from the types themselves, so that readers in other languages can check.

/// The schema of one line of `records.jsonl`, as committed in `results/schema.json`.
pub fn record_schema_json() -> String {
    let schema = schemars::schema_for!(crate::Record);
    let mut text = format!("{:#}", schema.as_value());
    text.push('\n');
    text
}
