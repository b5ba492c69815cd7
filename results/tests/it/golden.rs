//! Comparison with a committed file; `PUNCHBENCH_UPDATE=1` writes it anew.

use std::path::Path;

/// Fails unless `actual` is what `results/<path>` holds.
pub fn assert_golden(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PUNCHBENCH_UPDATE").is_some_and(|v| v == "1") {
        std::fs::write(&file, actual).expect("cannot write the golden file");
        return;
    }
    let expected = std::fs::read_to_string(&file)
        .unwrap_or_else(|e| panic!("{}: {e}; run with PUNCHBENCH_UPDATE=1", file.display()));
    for (n, (want, got)) in expected.lines().zip(actual.lines()).enumerate() {
        assert_eq!(
            want,
            got,
            "{path}, line {}; PUNCHBENCH_UPDATE=1 accepts it",
            n + 1
        );
    }
    assert_eq!(
        expected, actual,
        "{path} differs in length; PUNCHBENCH_UPDATE=1 accepts it"
    );
}
