//! One figure of several rounds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Median of several rounds with their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Panics on no values: a run has at least one round.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "a spread of nothing");
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Spread {
            median,
            min: values[0],
            max: values[values.len() - 1],
        }
    }

    /// Of ours over theirs, round by round: what drifts from one round to the next is in both.
    pub fn of_ratios(ours: &[f64], theirs: &[f64]) -> Spread {
        assert_eq!(ours.len(), theirs.len(), "both sides ran in each round");
        Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

/// As `median (min to max)`, with the digits that are asked for, or two.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let Spread { median, min, max } = self;
        write!(f, "{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_takes_the_middle() {
        let check = |values: &[f64], median, min, max| {
            let expected = Spread { median, min, max };
            assert_eq!(Spread::of(values.iter().copied()), expected, "{values:?}");
        };
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[5.0, 1.0, 3.0], 3.0, 1.0, 5.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5, 1.0, 4.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine became four times as fast between the rounds, and we half as good: the ratio of medians would be 0.7.
        let ratios = Spread::of_ratios(&[100.0, 200.0], &[100.0, 400.0]);
        assert_eq!(ratios.to_string(), "0.75 (0.50 to 1.00)");
        assert_eq!(format!("{ratios:.1}"), "0.8 (0.5 to 1.0)");
    }

    #[test]
    #[should_panic(expected = "both sides ran in each round")]
    fn a_side_with_a_round_less_has_no_ratio() {
        Spread::of_ratios(&[1.0, 2.0], &[1.0]);
    }
}
