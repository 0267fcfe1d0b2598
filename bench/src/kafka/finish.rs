//! The end of a run: its result, in a folder and for the eye.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::{
    drive::Findings,
    load::{Load, Outcome},
    options::{Cluster, RunOptions},
    topics::Topics,
};
use crate::{
    exit::Exit,
    result::{
        folder::ResultFolder,
        run::{Flow, RunResult, SCHEMA_VERSION, Setting, Target, Tool},
        series,
    },
    run::started::{self, Started},
};

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
    outcome.verdict.reasons.extend(started.jump());
    let exit = outcome.exit();
    let mut metrics = outcome.metrics();
    metrics.extend(findings.metrics);
    let started_at = started.at();
    let environment = started.environment(side.disk.as_deref());
    outcome.verdict.reasons.extend(environment.notes());
    let histograms = series::histograms(&outcome.collected, &outcome.latencies)?;
    let result = RunResult {
        schema_version: SCHEMA_VERSION,
        tool: Tool::this(),
        command: command.to_string(),
        label: run.label.clone(),
        run_id: format!("{:08x}", started::run_id()),
        started_at,
        seconds: outcome.seconds,
        plan: serde_json::to_value(plan).map_err(|error| error.to_string())?,
        environment,
        target: side.target,
        phases: outcome.phases,
        series: outcome.collected.series,
        curves: outcome.curves,
        metrics,
        rounds: None,
        verdict: outcome.verdict,
        details: findings.details,
    };
    if let Some(folder) = folder {
        folder.write_run(&result, histograms)?;
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
    result.verdict.print();
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
