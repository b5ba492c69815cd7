//! A policy that makes no sense is refused at the line that makes none.

use punchbench_reference::hazards::crowd;
use punchbench_reference::{CompileError, Policy, compile};

use crate::policy;

const HEAD: &str = "policy: p\nabout: x\nsource: y\nlocks: {i_rwsem: rwsem, m: rwsem}\n";

fn refused(rest: &str) -> String {
    let error = Policy::load(&format!("{HEAD}{rest}"), "p.yaml").unwrap_err();
    let at = error.items()[0].span.clone().expect("a place");
    let (line, column) = error.line_column(at.start);
    format!("{line}:{column} {error}")
}

#[test]
fn unknown_words_are_named_with_the_nearest_one() {
    for (rest, place, says) in [
        (
            "hooks: {punch_hold: [m shared]}\n",
            "5:9",
            "did you mean `punch_hole`",
        ),
        (
            "hooks: {read: [i_rwsen shared]}\n",
            "5:16",
            "did you mean `i_rwsem`",
        ),
        (
            "hooks: {read: [m read]}\n",
            "5:16",
            "`read` is no way to take a lock",
        ),
        ("hooks: {read: [m]}\n", "5:16", "LOCK shared"),
        (
            "hooks: {read: [m shared, m exclusive]}\n",
            "5:26",
            "taken twice",
        ),
        (
            "order: [i_rwsem -> folio_luck]\n",
            "5:9",
            "did you mean `folio_lock`",
        ),
        ("order: [i_rwsem]\n", "5:9", "OUTER -> INNER"),
        ("hook: {}\n", "5:1", "did you mean `hooks`"),
        ("data: disk\n", "5:7", "`disk`"),
    ] {
        let error = refused(rest);
        assert!(
            error.starts_with(&format!("{place} ")) && error.contains(says),
            "{rest}{error}"
        );
    }
}

#[test]
fn a_cyclic_order_is_refused_with_its_circle() {
    let error =
        refused("order:\n  - i_rwsem -> m\n  - m -> folio_lock\n  - folio_lock -> i_rwsem\n");
    assert!(error.starts_with("8:5 "), "{error}");
    assert!(
        error.contains("cyclic: folio_lock -> i_rwsem -> m -> folio_lock"),
        "{error}"
    );
}

#[test]
fn a_file_must_be_named_like_its_policy() {
    let error = Policy::load(HEAD, "q.yaml").unwrap_err().to_string();
    assert!(error.contains("not the name of the file"), "{error}");
}

#[test]
fn what_is_too_large_or_makes_no_sense_is_said() {
    let error = compile(&crowd(7), &policy("none")).unwrap_err();
    assert!(matches!(error, CompileError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("9 actors, at most 7"), "{error}");
    let error = compile(&crowd(1), &policy("tmpfs")).unwrap_err();
    assert!(
        error.to_string().contains("the reuse of a block"),
        "{error}"
    );
}
