//! The committed schema is the one that the types give.

use crate::golden::assert_golden;

#[test]
fn schema_json_is_fresh() {
    assert_golden("schema.json", &punchbench_results::record_schema_json());
}
