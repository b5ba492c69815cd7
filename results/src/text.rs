//! Small helpers for plain text: records may come from other machines, so nothing in them reaches a
//! terminal raw, and long sentences are wrapped.

/// `text` in one line, with control characters (an escape sequence, a newline) made harmless.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Appends `text` wrapped at `width` columns; the first line begins with `head`, the others are indented as deep.
pub(crate) fn push_wrapped(out: &mut String, head: &str, text: &str, width: usize) {
    let indent = head.chars().count();
    let mut column = indent;
    out.push_str(head);
    for (i, word) in clean(text).split_whitespace().enumerate() {
        let len = word.chars().count();
        if i > 0 && column + 1 + len > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out.push('\n');
}

/// `1 trial`, `2 trials`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_get_through() {
        assert_eq!(clean("a\x1b[31mb\nc"), "a [31mb c");
    }

    #[test]
    fn long_text_wraps_under_its_head() {
        let mut out = String::new();
        push_wrapped(&mut out, "- ", "aaa bbb ccc", 9);
        assert_eq!(out, "- aaa bbb\n  ccc\n");
    }
}
