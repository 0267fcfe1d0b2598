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

/// Six digits are more than a figure of a benchmark has.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        0.0..1.0 => format!("{value:.4}"),
        1.0..1_000.0 => format!("{value:.2}"),
        1_000.0..1e6 => format!("{value:.0}"),
        1e6..1e9 => format!("{:.2}M", value / 1e6),
        _ => format!("{:.2}G", value / 1e9),
    }
}

/// As `median (min to max)`.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, min, max] = [self.median, self.min, self.max].map(short);
        write!(f, "{median} ({min} to {max})")
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
    fn it_is_written_short() {
        let check = |values: [f64; 2], expected: &str| {
            assert_eq!(Spread::of(values).to_string(), expected);
        };
        check([0.5, 1.0], "0.7500 (0.5000 to 1.00)");
        check([4.5e8, 4.6e8], "455.00M (450.00M to 460.00M)");
        check([0.0, 0.0], "0 (0 to 0)");
    }
}
