//! Whether a rate has changed, or chance and a busy machine made it look so.
//!
//! The rounds of a trial are not independent: what else the machine does moves the rate of all of them. Measured:
//! repeats of one trial on one kernel differ by far more than binomial chance (bench/docs/RESULTS.md), so
//! a plain test of two proportions would raise a false alarm every night. Here a logarithm of a rate has two
//! variances: that of counting (one over the violations), and the spread between runs, which is never taken for
//! smaller than [`SPREAD_LEAST`] and is raised to what the runs at hand show. The significance of all compared
//! cells together is held by Holm's procedure (Holm 1979, Scand. J. Statist. 6: 65-70).

use crate::rate::Rate;

/// The chance of any false alarm by rates in a comparison of unchanged runs, whatever the number of cells.
pub const FAMILY: f64 = 0.005;

/// The least spread of a rate between runs, as the standard deviation of its natural logarithm.
pub const SPREAD_LEAST: f64 = 0.8;

/// Cells needed before their own spread is believed.
const CELLS_FOR_SPREAD: usize = 8;

/// Violations on both sides that make a cell count for the spread.
const HITS_FOR_SPREAD: u64 = 5;

/// The median of the absolute value of a standard normal variable.
const MEDIAN_ABS_NORMAL: f64 = 0.674_489_750_196_081_7;

/// Two rates of a cell, and of how many runs the earlier one is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) before: Rate,
    pub(crate) runs_before: usize,
    pub(crate) after: Rate,
}

impl Pair {
    /// The logarithm of how many times as frequent it has become. Half a violation is added to each, so that
    /// none at all has a logarithm, too.
    fn log_ratio(self) -> f64 {
        let log = |r: Rate| ((r.violated as f64 + 0.5) / (r.overlapped.max(1) as f64 + 1.0)).ln();
        log(self.after) - log(self.before)
    }

    /// Its variance by counting alone.
    fn counting(self) -> f64 {
        1.0 / (self.before.violated as f64 + 0.5) + 1.0 / (self.after.violated as f64 + 0.5)
    }

    /// The chance of a rise as large if nothing had changed.
    pub(crate) fn p_up(self, spread: f64) -> f64 {
        let runs = 1.0 + 1.0 / self.runs_before.max(1) as f64;
        let deviation = (self.counting() + spread * spread * runs).sqrt();
        above(self.log_ratio() / deviation)
    }
}

/// The spread between runs that these cells show, by the median, which a few real changes do not move.
pub(crate) fn spread(pairs: &[Pair]) -> f64 {
    let both =
        |p: &&Pair| p.before.violated >= HITS_FOR_SPREAD && p.after.violated >= HITS_FOR_SPREAD;
    let usable: Vec<&Pair> = pairs.iter().filter(both).collect();
    if usable.len() < CELLS_FOR_SPREAD {
        return SPREAD_LEAST;
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let deviation =
        median(usable.iter().map(|p| p.log_ratio().abs()).collect()) / MEDIAN_ABS_NORMAL;
    let counting = median(usable.iter().map(|p| p.counting()).collect());
    let runs = median(
        usable
            .iter()
            .map(|p| 1.0 + 1.0 / p.runs_before.max(1) as f64)
            .collect(),
    );
    let estimate = ((deviation * deviation - counting).max(0.0) / runs).sqrt();
    // Few cells may show less than there is: the upper end of the estimate's own 95 % interval, whose standard
    // error is 1.17 / sqrt(n) of it for a median deviation.
    let upper = estimate * (1.0 + 1.645 * 1.17 / (usable.len() as f64).sqrt());
    upper.max(SPREAD_LEAST)
}

/// Which of these chances are significant together: the i-th smallest of n must be below [`FAMILY`] / (n - i).
pub(crate) fn holm(chances: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let mut significant = vec![false; chances.len()];
    for (rank, &at) in order.iter().enumerate() {
        if chances[at] >= FAMILY / (chances.len() - rank) as f64 {
            break;
        }
        significant[at] = true;
    }
    significant
}

/// The chance that `n` rounds at `rate` show nothing, at the low end of the rate's interval.
pub(crate) fn chance_of_missing(rate: Rate, n: u64) -> f64 {
    let low = crate::rate::wilson_95(rate.violated, rate.overlapped).map_or(0.0, |(low, _)| low);
    (-low * n as f64).exp()
}

/// The chance that a standard normal variable is above `z`.
fn above(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(violated: u64, overlapped: u64) -> Rate {
        Rate {
            violated,
            overlapped,
        }
    }

    #[test]
    fn the_normal_tail_is_the_tabulated_one() {
        for (z, p) in [
            (0.0, 0.5),
            (1.644_853_6, 0.05),
            (2.326_347_9, 0.01),
            (4.264_890_8, 1e-5),
        ] {
            assert!((above(z) / p - 1.0).abs() < 1e-6, "{z}: {}", above(z));
        }
    }

    #[test]
    fn holm_steps_down_and_stops() {
        // FAMILY / 4, / 3, / 2: the third fails, so the fourth, smaller than FAMILY, does not count.
        let f = FAMILY;
        let chances = [f * 0.9, f / 4.1, f / 1.9, f / 3.1];
        assert_eq!(holm(&chances), [false, true, false, true]);
        assert_eq!(holm(&[]), Vec::<bool>::new());
    }

    #[test]
    fn a_machine_that_is_busier_everywhere_is_no_rise_anywhere() {
        let shifted = Pair {
            before: rate(100, 20_000),
            runs_before: 1,
            after: rate(2_000, 20_000),
        };
        let quiet = Pair {
            before: rate(100, 20_000),
            runs_before: 1,
            after: rate(110, 20_000),
        };
        let everywhere = spread(&[shifted; 20]);
        assert!(everywhere > 2.0, "{everywhere}");
        let mut one_of_many = vec![quiet; 19];
        one_of_many.push(shifted);
        let usual = spread(&one_of_many);
        assert_eq!(usual, SPREAD_LEAST);
        assert!(shifted.p_up(usual) < shifted.p_up(everywhere));
    }

    #[test]
    fn what_would_have_shown_is_told_from_what_might_not_have() {
        assert!(chance_of_missing(rate(1, 25_000), 25_000) > 0.5);
        assert!(chance_of_missing(rate(100, 25_000), 25_000) < 1e-30);
    }
}
