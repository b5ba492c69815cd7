//! What people read: diagnostics of bad files and explanations, compared with committed texts.

use std::path::{Path, PathBuf};

use punchbench_scenarios::{explain, find, load_bytes, load_issue, one_line};

fn here(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(dir)
}

/// Holds a text against its committed copy, or refreshes that if asked.
fn golden(path: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os("PUNCHBENCH_UPDATE").is_some() {
        std::fs::write(path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "{}\n--- expected\n{expected}\n--- actual\n{actual}",
        path.display()
    ))
}

fn each_bad_file(dir: &str, load: impl Fn(&[u8], &str) -> Result<(), String>) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(here(dir))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() > 3, "no bad files found");
    let mut wrong = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        match load(&bytes, name) {
            Ok(()) => wrong.push(format!("{name} was accepted")),
            Err(text) => {
                wrong.extend(golden(&path.with_extension("txt"), &format!("{text}\n")).err())
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nif these are right, refresh them with\n    \
         PUNCHBENCH_UPDATE=1 cargo test -p punchbench-scenarios --test golden",
        wrong.join("\n\n")
    );
}

#[test]
fn bad_scenarios() {
    each_bad_file("bad", |bytes, name| {
        load_bytes(bytes, name).map(drop).map_err(|e| e.to_string())
    });
}

#[test]
fn bad_issues() {
    each_bad_file("bad-issues", |bytes, name| {
        let text = std::str::from_utf8(bytes).unwrap();
        load_issue(text, name).map(drop).map_err(|e| e.to_string())
    });
}

#[test]
fn explanations() {
    for name in [
        "punch-while-read-and-fault",
        "punch-and-reuse",
        "dedupe-while-store",
        "staged-insert-behind-leaf",
    ] {
        let scenario = &find(name)[0];
        golden(
            &here("expected").join(format!("explain-{name}.txt")),
            &explain(scenario),
        )
        .unwrap();
    }
    let lines: Vec<String> = find("*").iter().map(one_line).collect();
    golden(
        &here("expected").join("one-lines.txt"),
        &format!("{}\n", lines.join("\n")),
    )
    .unwrap();
}
