//! No finished record is ever lost, and no foreign file is ever harmed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use punchbench_results::{
    Journal, JournalError, Record, Verdict, journal::FILE_NAME, read_records,
};

use crate::samples::record;

fn records() -> Vec<Record> {
    [Verdict::Safe, Verdict::Stale, Verdict::Skipped]
        .map(|v| Record {
            reason: format!("umlauts ä€ and \"quotes\"\n{v}"),
            ..record("punch-while-read", "ext4", v)
        })
        .to_vec()
}

fn write_all(dir: &Path, records: &[Record]) {
    let (mut journal, before) = Journal::create_or_resume(dir).unwrap();
    assert_eq!(before, []);
    records.iter().for_each(|r| journal.append(r).unwrap());
}

fn journal_with(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, content).unwrap();
    (dir, path)
}

#[test]
fn what_was_appended_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/out");
    write_all(&out, &records());
    assert_eq!(read_records(&out.join(FILE_NAME)).unwrap(), records());
    let (journal, again) = Journal::create_or_resume(&out).unwrap();
    assert_eq!(again, records());
    assert_eq!(journal.note(), None);
}

#[test]
fn a_crash_at_any_byte_loses_no_complete_record() {
    let dir = tempfile::tempdir().unwrap();
    write_all(dir.path(), &records());
    let whole = fs::read(dir.path().join(FILE_NAME)).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').collect();
    let path = dir.path().join(FILE_NAME);
    for cut in 0..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        // A record is complete from its closing brace on, newline or not.
        let complete = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(
            read_records(&path).unwrap(),
            records()[..complete],
            "cut at {cut}"
        );
        assert_eq!(
            fs::read(&path).unwrap(),
            &whole[..cut],
            "reading changed the file"
        );
        // Opening syncs, so only about each cut that matters and some others.
        let near_an_end = ends.iter().any(|&end| end.abs_diff(cut) <= 2);
        if !near_an_end && cut > 12 && cut % 97 != 0 {
            continue;
        }
        let (mut journal, kept) = Journal::create_or_resume(dir.path()).unwrap();
        assert_eq!(kept, records()[..complete], "cut at {cut}");
        let good = if complete == 0 {
            0
        } else {
            ends[complete - 1] + 1
        };
        assert_eq!(journal.note().is_some(), cut > good, "cut at {cut}");
        journal.append(&records()[0]).unwrap();
        drop(journal);
        let mut expected = records()[..complete].to_vec();
        expected.push(records()[0].clone());
        assert_eq!(read_records(&path).unwrap(), expected, "cut at {cut}");
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Journal::create_or_resume(dir.path()).unwrap();
    assert!(matches!(
        Journal::create_or_resume(dir.path()),
        Err(JournalError::Locked { .. })
    ));
    drop(first);
    Journal::create_or_resume(dir.path()).unwrap();
}

/// Opens and reads `content`, expects an error both times and the file unharmed; returns the message.
fn refused(content: &[u8]) -> String {
    let (dir, path) = journal_with(content);
    let message = read_records(&path).unwrap_err().to_string();
    let opened = Journal::create_or_resume(dir.path())
        .unwrap_err()
        .to_string();
    assert_eq!(message, opened);
    assert_eq!(fs::read(&path).unwrap(), content, "the file was changed");
    message
}

#[test]
fn a_newer_schema_is_refused_by_line() {
    let good = serde_json::to_string(&records()[0]).unwrap();
    let message = refused(format!("{good}\n{{\"schema\":7,\"new\":true}}\n").as_bytes());
    assert!(message.contains("line 2: schema version 7"), "{message}");
    refused(format!("{good}\n{{\"schema\":7,\"ne").as_bytes());
}

#[test]
fn foreign_content_is_refused_by_line() {
    let good = serde_json::to_string(&records()[0]).unwrap();
    for foreign in [
        "not json\n",
        "{\"schema\":1}\n",
        "{\"schema\":1}",
        "\n",
        "shopping list",
        "{\"a\"",
        "[]",
        "\0\0\0",
    ] {
        let message = refused(format!("{good}\n{foreign}").as_bytes());
        assert!(
            message.contains("line 2: not a punchbench record"),
            "{foreign:?}: {message}"
        );
    }
    // A torn line is only forgiven at the end.
    let message = refused(format!("{}\n{good}\n", &good[..30]).as_bytes());
    assert!(message.contains("line 1"), "{message}");
}

#[test]
fn a_directory_or_a_pipe_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FILE_NAME)).unwrap();
    assert!(matches!(
        Journal::create_or_resume(dir.path()),
        Err(JournalError::NotAFile { .. })
    ));
    assert!(matches!(
        read_records(Path::new("/dev/null")),
        Err(JournalError::NotAFile { .. })
    ));
}

#[test]
fn a_record_that_would_not_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::create_or_resume(dir.path()).unwrap();
    let bad = Record {
        seconds: f64::NAN,
        ..records()[0].clone()
    };
    assert!(matches!(
        journal.append(&bad),
        Err(JournalError::Unwritable { .. })
    ));
    journal.append(&records()[0]).unwrap();
    assert_eq!(read_records(journal.path()).unwrap(), records()[..1]);
}

#[test]
fn fields_of_a_newer_writer_are_ignored_at_every_depth() {
    let stale = &records()[1];
    let mut value = serde_json::to_value(stale).unwrap();
    let places = [
        "",
        "/evidence",
        "/evidence/fillers/0",
        "/evidence/fillers/0/contact",
        "/floor",
        "/placement/0",
    ];
    for place in places
        .into_iter()
        .chain(["/violations/0", "/violations/0/confirmation"])
    {
        let object = value
            .pointer_mut(place)
            .unwrap_or_else(|| panic!("no {place}"));
        object
            .as_object_mut()
            .unwrap()
            .insert("from_the_future".into(), 1.into());
    }
    let (_dir, path) = journal_with(format!("{value}\n").as_bytes());
    assert_eq!(read_records(&path).unwrap(), std::slice::from_ref(stale));
}

/// This file is never regenerated: it is what schema version 1 looked like.
#[test]
fn records_of_schema_1_stay_readable() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old/v1.jsonl");
    let old = read_records(&path).unwrap();
    let verdicts: Vec<Verdict> = old.iter().map(|r| r.verdict).collect();
    assert_eq!(
        verdicts,
        [Verdict::Safe, Verdict::StaleMapping, Verdict::Skipped]
    );
    assert_eq!(
        (old[1].schema, old[1].seed, old[1].violations.len()),
        (1, 42, 1)
    );
    assert_eq!(old[1].evidence.fillers[0].contact.straddle, 12_490);
}

proptest! {
    #[test]
    fn bytes_of_any_kind_never_panic_and_are_never_cut_off(content: Vec<u8>) {
        let (dir, path) = journal_with(&content);
        match Journal::create_or_resume(dir.path()) {
            // Nothing but the first bytes of a record passes for one.
            Ok((_, records)) => {
                let torn = br#"{"schema":1"#.starts_with(&content);
                prop_assert!(records.is_empty() && torn);
            }
            Err(_) => prop_assert_eq!(fs::read(&path).unwrap(), content),
        }
    }

    #[test]
    fn a_flipped_byte_is_noticed_or_harmless(at: prop::sample::Index, bit in 0u8..8) {
        let mut content = Vec::new();
        for r in records() {
            serde_json::to_writer(&mut content, &r).unwrap();
            content.write_all(b"\n").unwrap();
        }
        let at = at.index(content.len());
        content[at] ^= 1 << bit;
        let (_dir, path) = journal_with(&content);
        match read_records(&path) {
            Ok(read) => prop_assert!(read.len() >= records().len() - 1),
            Err(e) => prop_assert!(e.to_string().contains("line "), "{}", e),
        }
    }
}
