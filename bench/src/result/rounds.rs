//! What the `storage` commands leave behind: figures round by round, and `result.json`.

use std::{fs, io, path::Path, time::Duration};

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
