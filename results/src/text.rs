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

/// Year, month and day so many days after 1 January 1970.
///
/// Howard Hinnant's `civil_from_days`: years are counted from March, so that the leap day is their last.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    let from_year_0 = days + 719_468;
    let (era, of_era) = (from_year_0 / 146_097, from_year_0 % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_get_through() {
        assert_eq!(clean("a\x1b[31mb\nc"), "a [31mb c");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn long_text_wraps_under_its_head() {
        let mut out = String::new();
        push_wrapped(&mut out, "- ", "aaa bbb ccc", 9);
        assert_eq!(out, "- aaa bbb\n  ccc\n");
    }
}
