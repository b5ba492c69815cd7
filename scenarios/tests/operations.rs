//! Each invalidator that needs more than a range of one file: what its scenario may expect, and that a
//! wrong expectation is told the right one.

use punchbench_scenarios::{explain, load};

/// A scenario in which `does` races a reader, and expects something of `file`.
fn scenario(needs: &str, does: &str, file: &str, is: &str) -> String {
    format!(
        "scenario: made-up
claim: What is expected follows from what is done.
source: made up
needs: [{needs}]
files:
  victim: {{size: 1MiB}}
  other: {{size: 1MiB}}
round: {{on: victim, chunk: 1 page}}
actors:
  changer: {{role: invalidator, do: [{does}]}}
  reader: {{role: filler, do: [{{read: {{file: victim, range: chunk, readahead: true}}}}]}}
expect: {{file: {file}, range: chunk, is: {is}}}
"
    )
}

#[test]
fn what_is_expected_follows_from_what_is_done() {
    const VICTIM: &str = "file: victim, range: chunk";
    let truncate = format!("{{truncate: {{{VICTIM}}}}}, {{extend: {{file: victim}}}}");
    let clone = format!("{{clone_range: {{{VICTIM}, from: other}}}}");
    let exchange = format!("{{exchange_range: {{{VICTIM}, with: other}}}}");
    let swap = "{swap_boot: {file: victim}}".to_owned();
    let journal = "{journal_data: {file: victim}}".to_owned();
    let direct = format!("{{write: {{{VICTIM}, direct: true}}}}");
    let zeroout = format!("{{blk_zeroout: {{{VICTIM}}}}}");
    let discard = format!("{{blk_discard: {{{VICTIM}}}}}");
    for (needs, does, file, is) in [
        ("resize", &truncate, "victim", "zeros"),
        ("resize", &truncate, "other", "unchanged"),
        ("clone", &clone, "victim", "copied"),
        ("clone", &clone, "other", "unchanged"),
        ("exchange_range", &exchange, "victim", "exchanged"),
        ("exchange_range", &exchange, "other", "exchanged"),
        ("swap_boot", &swap, "victim", "exchanged"),
        ("swap_boot", &swap, "other", "unchanged"),
        ("journal_data", &journal, "victim", "unchanged"),
        ("direct_write", &direct, "victim", "written"),
        ("blk_zeroout", &zeroout, "victim", "zeros"),
        ("blk_discard", &discard, "victim", "zeros"),
    ] {
        let text = scenario(needs, does, file, is);
        let loaded = load(&text, "made-up").unwrap_or_else(|error| panic!("{error}"));
        let word = loaded.operation().word();
        assert!(explain(&loaded).contains(word), "{word}");
        let wrong = load(&scenario(needs, does, file, "shifted"), "made-up").unwrap_err();
        let told = format!("write `is: {is}`");
        assert!(wrong.to_string().contains(&told), "{does}: {wrong}");
    }
}
