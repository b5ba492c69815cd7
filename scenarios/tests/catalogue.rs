//! CATALOGUE.md speaks of the scenarios that there are: of all of them, and of no others.

use std::collections::BTreeSet;

use punchbench_scenarios::catalog;

/// The table under a heading: its rows, cell by cell, without the head.
fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = text
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no section `{heading}`"));
    let section = section.split("\n## ").next().expect("there is a first");
    // A section may hold smaller tables first; the one that counts is its last.
    let last = section.trim_end().rsplit("\n\n").next().expect("a last");
    let rows = last.lines().skip(2);
    rows.map(|row| row.trim_matches('|').split(" | ").collect())
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn catalogue() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CATALOGUE.md");
    std::fs::read_to_string(path).unwrap()
}

fn names() -> BTreeSet<String> {
    catalog().into_iter().map(|s| s.scenario).collect()
}

#[test]
fn hunks_name_scenarios_that_exist() {
    let (text, names) = (catalogue(), names());
    let rows = table(&text, "Hunks");
    assert!(rows.len() > 100, "{} hunks", rows.len());
    for row in rows {
        assert_eq!(row.len(), 6, "{row:?}");
        let scenarios = row[5];
        for name in quoted(scenarios) {
            assert!(names.contains(name), "no scenario `{name}`: {row:?}");
        }
        let excused = scenarios.contains("none: ") || scenarios.contains("every scenario");
        assert!(excused || quoted(scenarios).next().is_some(), "{row:?}");
    }
}

#[test]
fn every_scenario_is_in_the_table_of_what_was_seen_red() {
    let text = catalogue();
    let mut listed = BTreeSet::new();
    for row in table(&text, "Seen red") {
        assert_eq!(row.len(), 4, "{row:?}");
        let name = quoted(row[0]).next().expect("a scenario's name");
        assert!(listed.insert(name.to_owned()), "`{name}` twice");
        assert!(row[1..].iter().all(|cell| !cell.trim().is_empty()));
    }
    assert_eq!(listed, names());
}
