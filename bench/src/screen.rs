//! Standard output, for commands that print reports: how wide it is, and what to do when nobody reads on.

use std::io::{ErrorKind, Write, stdout};

/// Columns of standard output, as far as they can be told without asking the terminal itself.
pub fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|c| c.parse().ok())
        .filter(|w| (40..=500).contains(w))
        .unwrap_or(100)
}

/// Prints all of `text`. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
