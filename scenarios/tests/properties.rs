//! What must hold of any input: texts round-trip, and the loader answers everything without a panic,
//! in bounded time.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use punchbench_scenarios::{
    Anchor, Diagnostics, Geometry, Position, RangeExpr, Scenario, Size, Unit, load, load_bytes,
    load_file, load_issue,
};

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        (0..=i64::MAX as u64).prop_map(|count| Size {
            count,
            unit: Unit::Byte
        }),
        (0..4096_u64, 0..4_u32).prop_map(|(n, k)| Size {
            count: n << (10 * k),
            unit: Unit::Byte
        }),
        (0..=1_u64 << 40).prop_map(|count| Size {
            count,
            unit: Unit::Page
        }),
        (0..=1_u64 << 40).prop_map(|count| Size {
            count,
            unit: Unit::Block
        }),
    ]
}

fn position() -> impl Strategy<Value = Position> {
    let anchor = prop_oneof![
        Just(Anchor::ChunkStart),
        Just(Anchor::ChunkEnd),
        Just(Anchor::FileStart),
        Just(Anchor::FileEnd),
    ];
    let terms = || prop::collection::vec((any::<bool>(), size()), 0..4);
    prop_oneof![
        (anchor, terms()).prop_map(|(anchor, terms)| Position { anchor, terms }),
        // A bare size is a first term that is added.
        (size(), terms()).prop_map(|(first, mut terms)| {
            terms.insert(0, (true, first));
            Position {
                anchor: Anchor::Zero,
                terms,
            }
        }),
    ]
}

/// Spaces that the grammar must not care about.
fn respaced(text: &str, wide: bool) -> String {
    let signs = |t: &str, space: &str| {
        t.replace(" + ", &format!("{space}+{space}"))
            .replace(" - ", &format!("{space}-{space}"))
    };
    if wide {
        format!("  {}  ", signs(text, "   "))
    } else {
        signs(text, "").replace(" .. ", "..")
    }
}

fn catalogue_texts() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for dir in ["catalog", "known-issues", "tests/bad"] {
        for entry in std::fs::read_dir(root.join(dir)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            all.extend(String::from_utf8(bytes));
        }
    }
    all.sort();
    all
}

/// Every answer can be shown, and points into the file.
fn answered<T>(text: &str, answer: Result<T, Diagnostics>) {
    if let Err(e) = answer {
        assert!(!e.items().is_empty());
        assert!(e.to_string().starts_with("error"), "{e}");
        for item in e.items() {
            let span = item.span.clone().unwrap_or(0..0);
            assert!(
                span.start <= span.end && span.end <= text.len(),
                "{span:?} of {}",
                text.len()
            );
            e.line_column(span.start);
        }
    }
}

proptest! {
    #[test]
    fn sizes_round_trip(size in size()) {
        let g = Geometry { page: 65536, block: 1 << 20 };
        let read: Size = size.to_string().parse().unwrap();
        prop_assert_eq!(read, size);
        // No size that can be read overflows when it is multiplied out.
        prop_assert!(read.bytes(g) <= i64::MAX as u64);
    }

    #[test]
    fn ranges_round_trip(start in position(), end in position(), wide in any::<bool>()) {
        let text = format!("{start} .. {end}");
        let respaced = respaced(&text, wide);
        prop_assume!(respaced.len() <= 200);
        for text in [text, respaced] {
            let range: RangeExpr = text.parse().unwrap();
            prop_assert_eq!(&range.start, &start);
            prop_assert_eq!(&range.end, &end);
            prop_assert_eq!(&range.text, text.trim());
            let again: RangeExpr = range.to_string().parse().unwrap();
            prop_assert_eq!(again, range);
        }
    }

    #[test]
    fn whole_ranges_move_by_their_terms(
        chunk in any::<bool>(), plus in any::<bool>(), size in size(),
    ) {
        let anchor = if chunk { "chunk" } else { "file" };
        let sign = if plus { '+' } else { '-' };
        let short: RangeExpr = format!("{anchor} {sign} {size}").parse().unwrap();
        let long: RangeExpr =
            format!("{anchor}.start {sign} {size} .. {anchor}.end {sign} {size}").parse().unwrap();
        prop_assert_eq!(short.start, long.start);
        prop_assert_eq!(short.end, long.end);
    }

    #[test]
    fn range_parser_answers_anything(text in "[a-z0-9+. KMiB_\\-é]{0,40}|\\PC{0,40}") {
        if let Err(e) = text.parse::<RangeExpr>() {
            prop_assert!(e.at <= text.len());
        }
        _ = text.parse::<Size>();
    }

    #[test]
    fn loader_answers_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Err(e) = load_bytes(&bytes, "any.yaml") {
            prop_assert!(e.to_string().starts_with("error"));
        }
        answered(&text, load(&text, "any.yaml"));
    }

    #[test]
    fn loader_answers_yaml_like_text(text in "([a-z]{1,3}|[\\[\\]{}:,\\-?&*!|>'\"#%@` \n]|: |- |\n  ){0,60}") {
        answered(&text, load(&text, "any.yaml"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn loader_answers_mutated_files(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..12_usize, "[\\[\\]{}:,\\-?&*!|>'\"#%0-9a-z \n]{0,6}"), 1..4),
    ) {
        let texts = catalogue_texts();
        let mut chars: Vec<char> = texts[which.index(texts.len())].chars().collect();
        for (at, cut, insert) in edits {
            let at = at.index(chars.len() + 1);
            let to = (at + cut).min(chars.len());
            chars.splice(at..to, insert.chars());
        }
        let text: String = chars.into_iter().collect();
        answered(&text, load(&text, "mutated.yaml"));
        answered(&text, load_issue(&text, "mutated.yaml"));
    }
}

#[test]
fn hostile_sizes_are_answered_at_once() {
    let mib = 1 << 20;
    for (what, text) in [
        ("too large", "x".repeat(mib + 1)),
        ("one long line", format!("claim: {}", "x".repeat(mib - 10))),
        ("brackets", "[".repeat(mib)),
        ("braces", "{".repeat(mib)),
        ("dashes", "- ".repeat(mib / 2)),
        ("question marks", "? ".repeat(mib / 2)),
        ("quotes", format!("a: \"{}", "\n".repeat(mib - 10))),
        (
            "many keys",
            (0..mib / 10).map(|i| format!("k{i}: 1\n")).collect(),
        ),
        ("many items", format!("a: [{}]", "1,".repeat(mib / 2 - 10))),
        ("newlines", "\n".repeat(mib)),
        ("comments", "#\n".repeat(mib / 2)),
        ("exclamation marks", "!".repeat(mib)),
        ("colons", ":".repeat(mib)),
        (
            "block text",
            format!("a: |\n{}", " x\n".repeat(mib / 3 - 10)),
        ),
    ] {
        let begun = Instant::now();
        let error = load(&text, "hostile.yaml").expect_err(what).to_string();
        let took = begun.elapsed();
        assert!(
            error.len() < 10_000,
            "{what}: {} bytes of message",
            error.len()
        );
        assert!(took < Duration::from_secs(5), "{what}: {took:?}");
        println!("{what}: {took:?}: {}", error.lines().next().unwrap());
    }
}

#[test]
fn line_ends_and_letters_do_not_matter() {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog/punch-while-read.yaml");
    let plain = std::fs::read_to_string(path).unwrap();
    let crlf = load(&plain.replace('\n', "\r\n"), "x").unwrap();
    assert_eq!(crlf, load(&plain, "x").unwrap());
    // Places are counted in characters and found in bytes.
    let accented = plain
        .replace("claim: A read", "claim: Ä rëäd")
        .replace("victim, range", "vïctim, range");
    let e = load(&accented, "x").unwrap_err();
    let span = e.items()[0].span.clone().unwrap();
    assert_eq!(&accented[span], "vïctim");
}

#[test]
fn a_scenario_survives_yaml() {
    for scenario in punchbench_scenarios::catalog() {
        let mut value = serde_yaml::to_value(&scenario).unwrap();
        if scenario.is_staged() {
            // The loader has worked it out.
            value.as_mapping_mut().unwrap().remove("round");
        }
        let text = serde_yaml::to_string(&value).unwrap();
        let again: Scenario = load(&text, "x").unwrap_or_else(|e| panic!("{text}\n{e}"));
        assert_eq!(again, scenario);
    }
}

#[test]
fn files_that_are_no_text_are_answered() {
    for (path, says) in [
        ("/no/such/file.yaml", "cannot read it"),
        ("/", "cannot read it"),
        ("/dev/zero", "more than the 1048576 bytes"),
        ("/dev/null", "the file is empty"),
    ] {
        let error = load_file(path.as_ref()).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(path), "{error}");
    }
}
