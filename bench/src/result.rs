//! What a run leaves behind: its figures, round by round and over all rounds, and `result.json`.

use std::{fmt, fs, io, path::Path, time::Duration};

use serde::Serialize;

use crate::{
    environment::Environment,
    latency::{Latencies, Latency},
};

/// Bumped when a field changes its meaning or goes away.
const SCHEMA_VERSION: u32 = 1;

/// One measurement of either side.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    pub operations: u64,
    pub bytes_per_second: f64,
    pub operations_per_second: f64,
    pub latency: Latency,
}

impl Round {
    pub fn new(bytes: u64, elapsed: Duration, latencies: &Latencies) -> Round {
        let (operations, seconds) = (latencies.count(), elapsed.as_secs_f64());
        Round {
            operations,
            bytes_per_second: bytes as f64 / seconds,
            operations_per_second: operations as f64 / seconds,
            latency: latencies.percentiles(),
        }
    }
}

/// Median of several rounds with their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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

/// What every `result.json` says, whatever was measured, and beside it what was `found`.
#[derive(Debug, Serialize)]
pub struct Report<'a, Plan, Found> {
    schema_version: u32,
    command: &'static str,
    plan: &'a Plan,
    environment: Environment,
    #[serde(flatten)]
    found: &'a Found,
}

impl<'a, Plan: Serialize, Found: Serialize> Report<'a, Plan, Found> {
    /// Of a run in `dir`, on which disk it depends.
    pub fn new(
        command: &'static str,
        dir: &Path,
        plan: &'a Plan,
        found: &'a Found,
    ) -> Report<'a, Plan, Found> {
        Report {
            schema_version: SCHEMA_VERSION,
            command,
            plan,
            environment: Environment::capture(dir),
            found,
        }
    }

    /// Writes `result.json` into `dir`.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(dir.join("result.json"), text + "\n")
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

    #[test]
    fn rates_are_per_second() {
        let mut latencies = Latencies::new();
        for _ in 0..10 {
            latencies.record(Duration::from_millis(1));
        }
        let round = Round::new(4_000, Duration::from_secs(2), &latencies);
        assert_eq!(round.operations, 10);
        assert_eq!(round.operations_per_second, 5.0);
        assert_eq!(round.bytes_per_second, 2_000.0);
        assert_eq!(round.latency.p50_us, 1_000);
    }

    #[test]
    fn what_was_found_stands_beside_what_every_result_says() {
        #[derive(Serialize)]
        struct Found {
            gain: f64,
        }
        let dir = std::env::temp_dir();
        let report = Report::new("storage test", &dir, &["a plan"], &Found { gain: 2.0 });
        let json = serde_json::to_value(&report).expect("JSON");
        let mut fields: Vec<_> = json.as_object().expect("an object").keys().collect();
        fields.sort();
        let expected = ["command", "environment", "gain", "plan", "schema_version"];
        assert_eq!(fields, expected);
        assert_eq!(
            (&json["schema_version"], &json["gain"]),
            (&1.into(), &2.0.into())
        );
    }
}
