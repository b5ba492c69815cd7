//! The committed schema is the current one.

use std::path::Path;

#[test]
fn schema_json_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    let current = punchbench_scenarios::schema_json();
    if std::env::var_os("PUNCHBENCH_UPDATE").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == current,
        "scenarios/schema.json is out of date; refresh it with\n    \
         PUNCHBENCH_UPDATE=1 cargo test -p punchbench-scenarios --test schema"
    );
}

#[test]
fn every_key_is_described() {
    let schema: serde_json::Value =
        serde_json::from_str(&punchbench_scenarios::schema_json()).unwrap();
    let mut bare = Vec::new();
    walk("", &schema, &mut bare);
    assert!(bare.is_empty(), "without description: {bare:?}");
}

fn walk(at: &str, value: &serde_json::Value, bare: &mut Vec<String>) {
    let Some(map) = value.as_object() else { return };
    if let Some(properties) = map.get("properties").and_then(|p| p.as_object()) {
        for (name, property) in properties {
            let described =
                property.get("description").is_some() || map.get("description").is_some();
            if !described {
                bare.push(format!("{at}/{name}"));
            }
        }
    }
    for (key, inner) in map {
        walk(&format!("{at}/{key}"), inner, bare);
    }
}
