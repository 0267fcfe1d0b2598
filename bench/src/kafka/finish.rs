//! The end of a run: its result, in a folder and for the eye.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use serde_json::Value;

use super::{
    drive::Findings,
    load::{Load, Outcome},
    options::{Cluster, RunOptions},
    topics::Topics,
};
use crate::{
    environment::Environment,
    exit::Exit,
    result::{
        folder::{REPORT_FILE, ResultFolder},
        report,
        run::{Flow, RunResult, SCHEMA_VERSION, Setting, Target, Tool},
        series,
    },
};

/// A clock that was set by more than this while the run went on is worth a line.
const JUMP: Duration = Duration::from_millis(200);

/// When the run began, by both clocks, and on which machine: its own load is not part of what that was doing.
pub struct Started {
    environment: Environment,
    wall: SystemTime,
    monotonic: Instant,
}

impl Started {
    pub fn now() -> Started {
        Started {
            environment: Environment::machine(),
            wall: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }

    /// How far the wall clock went apart from the monotonic one since then.
    fn jump(&self) -> Duration {
        let monotonic = self.monotonic.elapsed();
        match self.wall.elapsed() {
            Ok(wall) => wall.abs_diff(monotonic),
            Err(behind) => behind.duration() + monotonic,
        }
    }
}

/// What was driven.
pub struct Side {
    target: Target,
    /// Where the broker writes, when that is on this host.
    disk: Option<PathBuf>,
}

impl Side {
    pub fn of(cluster: &Cluster, load: &Load, peer: Option<Value>, topics: &Topics) -> Side {
        let (broker_config, topic_config) = topics.settings();
        let (_, version) = rdkafka::util::get_rdkafka_version();
        let mut client_config = Vec::new();
        let mut set = |name: &str, value: String| {
            client_config.push(Setting {
                name: name.to_string(),
                value,
                source: None,
            });
        };
        if let Some(produce) = &load.produce {
            set("batch.size", produce.options.batch_bytes.to_string());
            set("linger.ms", produce.options.linger_ms.to_string());
            set("compression.type", produce.options.compression.clone());
            set("acks", produce.options.acks.clone());
            set("enable.idempotence", produce.options.idempotent.to_string());
        }
        if let Some(consume) = &load.consume {
            set(
                "max.partition.fetch.bytes",
                consume.options.fetch_bytes.to_string(),
            );
            set(
                "fetch.max.wait.ms",
                consume.options.fetch_wait_ms.to_string(),
            );
        }
        for (name, value) in cluster.properties().unwrap_or_default() {
            let value = if is_shown(name) { value } else { "(hidden)" };
            set(name, value.to_string());
        }
        Side {
            target: Target {
                kind: "kafka".to_string(),
                address: Some(cluster.bootstrap_server.clone()),
                client: Some(format!("librdkafka {version}")),
                client_config,
                broker_config,
                topic_config,
                peer,
            },
            disk: cluster.disk(),
        }
    }
}

/// Keys, passwords and tokens do not belong in a result, and new names for them come up: of what is about security only this is shown.
fn is_shown(property: &str) -> bool {
    let about_security = property.starts_with("ssl.") || property.starts_with("sasl.");
    let harmless = matches!(property, "sasl.mechanism" | "sasl.mechanisms");
    let names_a_secret = ["password", "secret", "token", "key"]
        .iter()
        .any(|word| property.contains(word));
    harmless || !about_security && !names_a_secret
}

/// Told apart from other runs in the records it writes; never 0.
pub fn run_id() -> u32 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = nanos.map_or(0, |since| since.as_nanos() as u64);
    let mixed = (nanos ^ u64::from(std::process::id()) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) as u32).max(1)
}

/// All that a result is made of.
pub struct Ended {
    pub started: Started,
    pub side: Side,
    pub outcome: Outcome,
    pub findings: Findings,
}

pub fn finish(
    command: &str,
    plan: &impl Serialize,
    run: &RunOptions,
    folder: Option<&ResultFolder>,
    ended: Ended,
) -> Result<Exit, String> {
    let Ended {
        started,
        side,
        mut outcome,
        findings,
    } = ended;
    let jump = started.jump();
    if jump > JUMP {
        let millis = jump.as_millis();
        outcome.verdict.reasons.push(format!(
            "the wall clock was set by {millis} ms during the run; latencies are from the monotonic clock and not touched by it"
        ));
    }
    let exit = outcome.exit();
    let mut metrics = outcome.metrics();
    metrics.extend(findings.metrics);
    let environment = started.environment.with_disk(side.disk.as_deref());
    let caveats = environment.caveats();
    let caveats = caveats.iter().map(|caveat| format!("note: {caveat}"));
    outcome.verdict.reasons.extend(caveats);
    let histograms = series::histograms(&outcome.collected, &outcome.latencies)?;
    let result = RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        command: command.to_string(),
        label: run.label.clone(),
        run_id: format!("{:08x}", run_id()),
        started_at: jiff::Timestamp::try_from(started.wall)
            .map_or_else(|_| String::new(), |at| format!("{at:.3}")),
        seconds: outcome.seconds,
        plan: serde_json::to_value(plan).map_err(|error| error.to_string())?,
        environment,
        target: side.target,
        phases: outcome.phases,
        series: outcome.collected.series,
        curves: outcome.curves,
        metrics,
        verdict: outcome.verdict,
        details: findings.details,
    };
    if let Some(folder) = folder {
        for (name, content) in histograms {
            folder.write(&name, &content)?;
        }
        folder.write("series.csv", series::csv(&result.series).as_bytes())?;
        folder.write(REPORT_FILE, report::render(&result).as_bytes())?;
        // Last: a folder with a result has all of it.
        folder.write_result(&result)?;
        eprintln!("written: {}", folder.path().join(REPORT_FILE).display());
    }
    if run.json {
        let line = serde_json::to_string(&result).map_err(|error| error.to_string())?;
        println!("{line}");
    } else {
        print(
            &result,
            outcome.produced.as_ref(),
            outcome.consumed.as_ref(),
        );
        for line in findings.lines {
            println!("{line}");
        }
    }
    Ok(exit)
}

fn print(result: &RunResult, produced: Option<&Flow>, consumed: Option<&Flow>) {
    for (way, flow) in [("produced", produced), ("consumed", consumed)] {
        let Some(flow) = flow else { continue };
        println!(
            "{way}  {:>9.1} MB/s  {:>10.0} records/s  {} records, {} failed",
            flow.bytes_per_second / 1e6,
            flow.records_per_second,
            flow.completed,
            flow.failed
        );
        let rows = [
            ("latency from the planned time", flow.latency_planned),
            ("service time", flow.latency_service),
            ("lateness of the generator", flow.lateness),
        ];
        for (name, latency) in rows {
            if let Some(it) = latency {
                println!(
                    "  {name:<30} p50 {:>8} us  p99 {:>8} us  p99.9 {:>8} us  max {:>8} us",
                    it.p50_us, it.p99_us, it.p999_us, it.max_us
                );
            }
        }
    }
    for metric in result
        .metrics
        .iter()
        .filter(|metric| metric.name.contains("cpu") || metric.name.contains("memory"))
    {
        println!("{}  {:.3} {}", metric.name, metric.values[0], metric.unit);
    }
    if let Some(safety) = &result.verdict.safety {
        println!(
            "of {} acknowledged records: {} lost, {} duplicated, {} reordered, {} damaged",
            safety.checked, safety.lost, safety.duplicated, safety.reordered, safety.corrupt
        );
    }
    let verdict = if result.verdict.valid {
        "valid"
    } else {
        "NOT VALID"
    };
    println!("{verdict}");
    for reason in &result.verdict.reasons {
        println!("  {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let check =
            |property: &str, expected: bool| assert_eq!(is_shown(property), expected, "{property}");
        check("security.protocol", true);
        check("sasl.mechanism", true);
        check("queue.buffering.max.ms", true);
        check("sasl.password", false);
        check("sasl.jaas.config", false);
        check("sasl.oauthbearer.config", false);
        check("ssl.key.pem", false);
        check("ssl.keystore.location", false);
        check("some.api.key", false);
    }
}
