//! The types of `result.json`. Names carry their units; times are seconds of the run unless a name says otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::turns::Rounds;
use crate::{environment::Environment, exit::Exit, latency::Latency};

/// Bumped when a field changes its meaning or goes away. Other versions are refused, not guessed at.
pub const SCHEMA_VERSION: u32 = 2;

/// One run of one command.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunResult {
    pub schema_version: u32,
    pub tool: Tool,
    /// As it was typed, without options: `kafka produce`.
    pub command: String,
    /// Which side of a comparison this is, in words: `Apache Kafka 4.3, defaults`.
    pub label: Option<String>,
    pub run_id: String,
    /// UTC, RFC 3339.
    pub started_at: String,
    pub seconds: f64,
    /// What was asked for, as far as it decides what is measured. Runs with other plans do not compare.
    pub plan: Value,
    pub environment: Environment,
    pub target: Target,
    pub phases: Vec<Phase>,
    pub series: Vec<Second>,
    /// Latencies over the measured phases, from the planned time and of service.
    pub curves: Vec<Curve>,
    /// The figures that are compared between runs.
    pub metrics: Vec<Metric>,
    /// Of a command whose sides take turns: what each turn found, and how far the rounds lie apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<Rounds>,
    pub verdict: Verdict,
    /// What only this command reports.
    pub details: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    pub name: String,
    pub version: String,
    /// Of git, with `-dirty` when there were changes; none when built outside a repository.
    pub revision: Option<String>,
    /// `debug` builds measure nothing worth knowing.
    pub profile: String,
}

impl Tool {
    pub fn this() -> Tool {
        Tool {
            name: env!("CARGO_PKG_NAME").to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            revision: option_env!("FOREBAY_REVISION").map(str::to_string),
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_string(),
        }
    }
}

/// What was driven, and with which effective settings on both sides.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// `kafka` or `storage`.
    pub kind: String,
    pub address: Option<String>,
    /// `native` or `librdkafka`, with its version.
    pub client: Option<String>,
    pub client_config: Vec<Setting>,
    /// Read through the API of the broker.
    pub broker_config: Vec<Setting>,
    pub topic_config: Vec<Setting>,
    /// What its start script said of a peer: version, command line, settings.
    pub peer: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Setting {
    pub name: String,
    pub value: String,
    /// Of the broker's settings: where the value comes from, in Kafka's words (`DEFAULT_CONFIG`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A part of the run, reported by itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    pub name: String,
    pub start_s: f64,
    pub end_s: f64,
    /// False of a warm-up: nothing of it is in the metrics.
    pub measured: bool,
    pub produced: Option<Flow>,
    pub consumed: Option<Flow>,
}

/// Records that went one way, by the time they were planned for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flow {
    /// Records that the schedule asked for; in a closed loop those that were sent.
    pub offered: u64,
    pub completed: u64,
    pub failed: u64,
    /// Of the completed: keys and values.
    pub bytes: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    /// From the planned time. Of a consumer: until the record was received (end to end).
    pub latency_planned: Option<Latency>,
    /// From the time of sending.
    pub latency_service: Option<Latency>,
    /// How far sending lay behind the plan.
    pub lateness: Option<Latency>,
}

/// One second of the run, by the time things happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Second {
    pub second: u64,
    pub produced: FlowSecond,
    pub consumed: FlowSecond,
    pub backlog: Option<Backlog>,
    pub machine: Sample,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct FlowSecond {
    pub offered: u64,
    pub completed: u64,
    pub failed: u64,
    pub bytes: u64,
    pub planned: Option<Latency>,
    pub service: Option<Latency>,
    pub lateness: Option<Latency>,
    /// Planned latencies for the heat map: upper bound of each bucket in microseconds, and how many fell into it. Empty buckets are left out.
    pub heat: Vec<(u64, u64)>,
}

/// Which latency so many operations stay within.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    pub name: String,
    /// Part of the operations, 0 to 1, and microseconds.
    pub points: Vec<(f64, u64)>,
}

/// What consumers have still to read, from the broker's offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Backlog {
    pub records: u64,
    pub bytes: u64,
    /// Age of the oldest record that was not consumed.
    pub seconds_behind: f64,
}

/// The machine and the two sides during one second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// Cores that each kept busy: 1.0 is one core for the whole second.
    pub client_cores: f64,
    pub broker_cores: Option<f64>,
    pub broker_memory_bytes: Option<u64>,
    /// The most that it was since the broker began.
    #[serde(default)]
    pub broker_memory_peak_bytes: Option<u64>,
    /// Busy part of each core, 0 to 1, whoever used it; a hypervisor that took it away too.
    pub cores_busy: Vec<f64>,
    pub disk: Option<DiskSample>,
}

/// /proc/diskstats (kernel documentation: admin-guide/iostats) over one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DiskSample {
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Part of the second with requests in flight, 0 to 1.
    pub busy: f64,
    /// Mean time of the reads and writes that ended.
    pub await_ms: f64,
    /// Mean time of the flushes that ended.
    #[serde(default)]
    pub flush_await_ms: f64,
}

/// A figure that is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metric {
    /// `produce_bytes_per_second`, `produce_latency_planned_p99_us`, ...
    pub name: String,
    pub unit: String,
    pub better: Better,
    /// One of each round of the run; most commands have one.
    pub values: Vec<f64>,
    /// Decides whether a side is worse; the others are there to explain it.
    #[serde(default)]
    pub headline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// Whether the figures mean what they say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// False when the generator could not keep to its plan, or the run broke off.
    pub valid: bool,
    /// A signal ended the run: what is there is partial.
    pub interrupted: bool,
    /// Why it is not valid, and what else a reader must know.
    pub reasons: Vec<String>,
    /// What became of the records, when they were checked.
    pub safety: Option<Safety>,
}

impl Verdict {
    pub fn exit(&self) -> Exit {
        let safe = self.safety.is_none_or(|safety| safety.is_clean());
        match (self.interrupted, safe, self.valid) {
            (true, _, _) => Exit::Interrupted,
            (_, false, _) => Exit::Unsafe,
            (_, _, false) => Exit::Invalid,
            (false, true, true) => Exit::Done,
        }
    }

    pub fn print(&self) {
        println!("{}", if self.valid { "valid" } else { "NOT VALID" });
        for reason in &self.reasons {
            println!("  {reason}");
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Safety {
    /// Records whose fate was checked.
    pub checked: u64,
    /// Acknowledged and not found.
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupt: u64,
}

impl Safety {
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.corrupt == 0
    }
}

/// A small whole result, for tests.
#[cfg(test)]
pub fn sample() -> RunResult {
    let flow = Flow {
        offered: 1_000,
        completed: 1_000,
        failed: 0,
        bytes: 1_000_000,
        records_per_second: 100.0,
        bytes_per_second: 100_000.0,
        latency_planned: None,
        latency_service: None,
        lateness: None,
    };
    RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        command: "kafka produce".to_string(),
        label: None,
        run_id: "00000001".to_string(),
        started_at: "2026-01-01T00:00:00Z".to_string(),
        seconds: 10.0,
        plan: serde_json::json!({ "producers": { "acks": "all" } }),
        environment: Environment::machine().with_disk(Some(&std::env::temp_dir())),
        target: Target::default(),
        phases: vec![Phase {
            name: "run".to_string(),
            start_s: 0.0,
            end_s: 10.0,
            measured: true,
            produced: Some(flow),
            consumed: None,
        }],
        series: Vec::new(),
        curves: Vec::new(),
        metrics: Vec::new(),
        rounds: None,
        verdict: Verdict {
            valid: true,
            ..Verdict::default()
        },
        details: Value::Null,
    }
}
