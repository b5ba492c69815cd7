//! Transcripts of the command line: what users see when they list, explain, and make mistakes.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .case("tests/cli/*.trycmd")
        .case("../fs-adapters/reference/STORY.md");
}
