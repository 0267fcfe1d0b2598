//! One figure of several rounds.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Median of several rounds with their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    fn it_has_as_many_digits_as_are_asked_for() {
        let spread = Spread::of([0.5, 1.0]);
        assert_eq!(spread.to_string(), "0.75 (0.50 to 1.00)");
        assert_eq!(format!("{spread:.1}"), "0.8 (0.5 to 1.0)");
    }
}
