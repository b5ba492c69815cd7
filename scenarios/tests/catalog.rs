//! The built-in scenarios load, and say what the first set must say.

use punchbench_scenarios::{catalog, find};

#[test]
fn all_load_and_are_sorted() {
    let all = catalog();
    let names: Vec<&str> = all.iter().map(|s| s.scenario.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
    for first in [
        "punch-while-read",
        "punch-and-reuse",
        "collapse-while-fault",
        "dedupe-while-store",
    ] {
        assert!(names.contains(&first), "{first} is missing in {names:?}");
    }
}

#[test]
fn every_file_points_editors_at_the_schema() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# yaml-language-server: $schema=../schema.json\n"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn found_by_glob() {
    assert_eq!(find("punch-while-read").len(), 1);
    assert!(find("punch-*").len() >= 9);
    assert!(find("no-such-*").is_empty());
}
