//! What a result has besides when several sides took turns in it, round by round, as those of the `storage` commands do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Spread, run::Setting};

/// Sides that took turns, and what follows from all rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Rounds {
    /// Effective settings of the engine under test, and of its logs.
    pub engine_config: Vec<Setting>,
    pub sides: Vec<Side>,
    /// What `metrics` has round by round, with its spread.
    pub figures: Vec<Figure>,
}

/// All turns of one side.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    /// What was measured one after the other within a round: `16384 bytes`, `100 partitions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// `engine`, `device`, ...
    pub name: String,
    pub turns: Vec<Turn>,
}

/// One side of one round. Its latencies are over all of them, in `curves`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// From 1.
    pub round: u32,
    pub start_s: f64,
    pub end_s: f64,
    /// Batches, blocks or reads.
    pub operations: u64,
    pub bytes: u64,
    pub operations_per_second: f64,
    pub bytes_per_second: f64,
    /// From the planned time, when there was a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<crate::latency::Latency>,
    /// From the time of sending, when there was a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_service: Option<crate::latency::Latency>,
    /// What it took besides time: CPU, copies, system calls, ...
    pub costs: Vec<Cost>,
}

/// Something that was counted in one turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// `cpu_seconds_per_gb`, `allocations_per_batch`, ...
    pub name: String,
    pub unit: String,
    pub value: f64,
}

impl Cost {
    pub fn new(name: &str, unit: &str, value: f64) -> Cost {
        Cost {
            name: name.to_string(),
            unit: unit.to_string(),
            value,
        }
    }
}

/// A figure of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figure {
    /// The same in all cases: `device_ratio`.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Its name in `metrics`: `device_ratio_16384_bytes`.
    pub metric: String,
    pub unit: String,
    pub spread: Spread,
}
