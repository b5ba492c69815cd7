//! How often a race was lost, and how rare it must be where it never was: counts with honest margins.

use std::collections::BTreeSet;

use crate::{Record, Verdict};

/// Violated rounds among exercised ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Rate {
    /// Rounds with a violation.
    pub violated: u64,
    /// Rounds in which the race was on: overlapped by the filler that overlapped least.
    pub overlapped: u64,
}

impl Rate {
    /// The rate of one trial; several observations of one round count once.
    pub fn of(record: &Record) -> Rate {
        let told = record.violations.iter().map(|v| (v.pass, v.round));
        let told = told.collect::<BTreeSet<_>>().len() as u64;
        let violated = record.evidence.violated_rounds.max(told);
        Rate {
            violated,
            overlapped: record.evidence.overlapped.max(violated),
        }
    }

    /// Both counts summed, for repeats.
    pub fn plus(self, other: Rate) -> Rate {
        Rate {
            violated: self.violated + other.violated,
            overlapped: self.overlapped + other.overlapped,
        }
    }

    /// The rate and its 95 % Wilson interval, or for `safe` the rate excluded at 95 %.
    ///
    /// `None` where neither can be said: no round was on, or the verdict rests on something else.
    pub fn in_words(self, verdict: Verdict) -> Option<String> {
        if self.overlapped == 0 {
            return None;
        }
        if self.violated == 0 {
            if verdict != Verdict::Safe {
                return None;
            }
            let excluded = excluded_at_95(self.overlapped)?;
            return Some(format!("< {} (95 %)", percent(excluded)));
        }
        let (low, high) = wilson_95(self.violated, self.overlapped)?;
        let rate = self.violated as f64 / self.overlapped as f64;
        Some(format!(
            "{} (95 %: {} to {})",
            percent(rate),
            percent(low),
            percent(high)
        ))
    }
}

/// The 95 % Wilson score interval of `hits` in `n`; `None` if that is no proportion.
pub fn wilson_95(hits: u64, n: u64) -> Option<(f64, f64)> {
    if n == 0 || hits > n {
        return None;
    }
    const Z: f64 = 1.959_963_984_540_054;
    let (n, p) = (n as f64, hits as f64 / n as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(((centre - half).max(0.0), (centre + half).min(1.0)))
}

/// The rule of three: `n` rounds without a violation exclude any rate above this at 95 %.
pub fn excluded_at_95(n: u64) -> Option<f64> {
    (n > 0).then(|| (3.0 / n as f64).min(1.0))
}

/// Two significant digits are all that such a rate is worth.
fn percent(rate: f64) -> String {
    let percent = rate * 100.0;
    if percent <= 0.0 {
        return "0 %".into();
    }
    // A rate of one in 10^18 rounds is still told; no run is longer.
    let digits = (1.0 - percent.log10().floor()).clamp(0.0, 18.0) as usize;
    format!("{percent:.digits$} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, table I: 81/263, 15/148, 1/29.
        for (hits, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (l, h) = wilson_95(hits, n).unwrap();
            assert!(
                (l - low).abs() < 6e-5 && (h - high).abs() < 6e-5,
                "{hits}/{n}: {l} {h}"
            );
        }
        assert_eq!(wilson_95(1, 0), None);
        assert_eq!(wilson_95(2, 1), None);
    }

    #[test]
    fn three_thousand_clean_rounds_exclude_a_thousandth() {
        assert_eq!(excluded_at_95(3000), Some(0.001));
        assert_eq!(excluded_at_95(1), Some(1.0));
        assert_eq!(excluded_at_95(0), None);
        let clean = Rate {
            violated: 0,
            overlapped: 3000,
        };
        assert_eq!(
            clean.in_words(Verdict::Safe).as_deref(),
            Some("< 0.10 % (95 %)")
        );
        assert_eq!(clean.in_words(Verdict::Inconclusive), None);
    }

    #[test]
    fn a_rate_is_told_with_its_interval() {
        let told = Rate {
            violated: 15,
            overlapped: 148,
        }
        .in_words(Verdict::Stale);
        assert_eq!(told.as_deref(), Some("10 % (95 %: 6.2 % to 16 %)"));
        let rare = Rate {
            violated: 1,
            overlapped: 25_000,
        }
        .in_words(Verdict::Stale);
        assert_eq!(
            rare.as_deref(),
            Some("0.0040 % (95 %: 0.00071 % to 0.023 %)")
        );
        assert_eq!(Rate::default().in_words(Verdict::Safe), None);
    }

    proptest::proptest! {
        #[test]
        fn the_interval_holds_the_rate(n in 1u64..1_000_000, part in 0.0f64..=1.0) {
            let hits = (n as f64 * part) as u64;
            let (low, high) = wilson_95(hits, n).unwrap();
            let rate = hits as f64 / n as f64;
            proptest::prop_assert!(0.0 <= low && low <= rate + 1e-12 && rate <= high + 1e-12 && high <= 1.0);
        }
    }
}
