//! The page around the charts.

use std::fmt::Write;

use serde_json::Value;

use super::{
    chart::{Unit, escape},
    panels, rounds,
};
use crate::{
    latency::Latency,
    result::run::{Flow, Metric, Phase, RunResult, Setting},
};

const STYLE: &str = include_str!("page.css");

/// Changes between light and dark, and nothing else.
const SCRIPT: &str = "document.getElementById('theme').onclick=()=>{const r=document.documentElement,\
d=r.dataset.theme?r.dataset.theme=='dark':matchMedia('(prefers-color-scheme: dark)').matches;r.dataset.theme=d?'light':'dark'}";

pub fn render(result: &RunResult) -> String {
    let title = match &result.label {
        Some(label) => format!("{}: {label}", result.command),
        None => result.command.clone(),
    };
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
<title>{0}</title><style>{STYLE}</style></head><body><main><header><div><h1>{0}</h1>{1}</div><button id=\"theme\" type=\"button\">Light or dark</button></header>",
        escape(&title),
        subtitle(result),
    );
    page.push_str(&verdict(result));
    page.push_str(&tiles(result));
    let _ = write!(
        page,
        "<div class=\"charts\">{}{}</div><p></p>",
        result
            .rounds
            .as_ref()
            .map_or(String::new(), |it| rounds::charts(result, it)),
        panels::all(result)
    );
    if let Some(it) = &result.rounds {
        page.push_str(&rounds::tables(it));
    }
    page.push_str(&phases(&result.phases));
    page.push_str(&metrics(&result.metrics));
    page.push_str(&details(result));
    let _ = write!(page, "</main><script>{SCRIPT}</script></body></html>");
    page
}

fn subtitle(result: &RunResult) -> String {
    let target = &result.target;
    let address = target.address.as_deref().unwrap_or("this machine");
    let client = target.client.as_deref().unwrap_or("no client");
    format!(
        "<p class=\"soft\">{} &middot; {} &middot; {} s &middot; {} &middot; {} {}</p>",
        escape(address),
        escape(client),
        result.seconds.round(),
        escape(&result.started_at),
        escape(&result.tool.name),
        escape(&result.tool.version),
    )
}

fn verdict(result: &RunResult) -> String {
    let verdict = &result.verdict;
    let safety = verdict.safety.map(|safety| {
        format!(
            "<p>Of {} acknowledged records {} were lost, {} duplicated, {} reordered, {} damaged.</p>",
            safety.checked, safety.lost, safety.duplicated, safety.reordered, safety.corrupt
        )
    });
    let unsafe_records = verdict.safety.is_some_and(|safety| !safety.is_clean());
    let states = [
        (unsafe_records, "Records were not safe."),
        (
            verdict.interrupted,
            "Interrupted: the figures are those until then.",
        ),
        (
            !verdict.valid && !verdict.interrupted,
            "Not valid: the figures do not mean what they say.",
        ),
    ];
    let bad: Vec<&str> = states
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, word)| *word)
        .collect();
    let (class, word) = match bad.is_empty() {
        true => ("", "Valid.".to_string()),
        false => ("bad", bad.join(" ")),
    };
    let reasons = verdict
        .reasons
        .iter()
        .map(|reason| format!("<p>{}</p>", escape(reason)));
    format!(
        "<div class=\"verdict {class}\"><strong>{word}</strong>{}{}</div>",
        safety.unwrap_or_default(),
        reasons.collect::<String>()
    )
}

/// The few figures that a reader looks for first.
fn tiles(result: &RunResult) -> String {
    let value = |name: &str| {
        let metric = result.metrics.iter().find(|metric| metric.name == name)?;
        metric.values.first().copied()
    };
    let shown = [
        ("produce_bytes_per_second", Unit::Bytes, "produced a second"),
        (
            "produce_records_per_second",
            Unit::Count,
            "records produced a second",
        ),
        ("consume_bytes_per_second", Unit::Bytes, "consumed a second"),
        (
            "produce_latency_planned_p50_us",
            Unit::Micros,
            "median, from the planned time",
        ),
        (
            "produce_latency_planned_p99_us",
            Unit::Micros,
            "p99, from the planned time",
        ),
        (
            "produce_latency_planned_p999_us",
            Unit::Micros,
            "p99.9, from the planned time",
        ),
        (
            "produce_latency_service_p99_us",
            Unit::Micros,
            "p99, service time",
        ),
        (
            "consume_latency_planned_p99_us",
            Unit::Micros,
            "p99, end to end",
        ),
        (
            "broker_cpu_seconds_per_gb",
            Unit::Seconds,
            "CPU of the broker per GB",
        ),
        (
            "broker_memory_bytes_max",
            Unit::Bytes,
            "memory of the broker, highest",
        ),
    ];
    let shown = shown.into_iter().filter_map(|(name, unit, text)| {
        let value = value(name)?;
        Some((unit.text(value), text.to_string()))
    });
    let tiles = shown.chain(rounds::tiles(result)).map(|(value, text)| {
        let text = escape(&text);
        format!("<div class=\"tile\"><b>{value}</b><span>{text}</span></div>")
    });
    format!("<div class=\"tiles\">{}</div>", tiles.collect::<String>())
}

fn phases(phases: &[Phase]) -> String {
    let mut rows = String::new();
    for phase in phases {
        for (way, flow) in [("produced", &phase.produced), ("consumed", &phase.consumed)] {
            if let Some(flow) = flow {
                let _ = write!(
                    rows,
                    "<tr><td>{}, {way}</td>{}</tr>",
                    escape(&phase.name),
                    flow_cells(phase, flow)
                );
            }
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section><h2>Phases</h2><div class=\"scroll\"><table><thead><tr><th>phase</th><th>from</th><th>to</th><th>offered</th><th>completed</th><th>failed</th><th>records/s</th><th>bytes/s</th>\
<th>p50</th><th>p99</th><th>p99.9</th><th>max</th><th>service p99</th><th>late p99</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn flow_cells(phase: &Phase, flow: &Flow) -> String {
    let micros = |latency: &Option<Latency>, of: fn(&Latency) -> u64| {
        latency.as_ref().map_or(String::new(), |latency| {
            Unit::Micros.text(of(latency) as f64)
        })
    };
    let cells = [
        Unit::Seconds.text(phase.start_s),
        Unit::Seconds.text(phase.end_s),
        flow.offered.to_string(),
        flow.completed.to_string(),
        flow.failed.to_string(),
        Unit::Count.text(flow.records_per_second),
        Unit::Bytes.text(flow.bytes_per_second),
        micros(&flow.latency_planned, |it| it.p50_us),
        micros(&flow.latency_planned, |it| it.p99_us),
        micros(&flow.latency_planned, |it| it.p999_us),
        micros(&flow.latency_planned, |it| it.max_us),
        micros(&flow.latency_service, |it| it.p99_us),
        micros(&flow.lateness, |it| it.p99_us),
    ];
    cells
        .iter()
        .map(|cell| format!("<td>{cell}</td>"))
        .collect()
}

fn metrics(metrics: &[Metric]) -> String {
    let rows = metrics.iter().map(|metric| {
        let values: Vec<String> = metric.values.iter().map(|value| short(*value)).collect();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&metric.name),
            escape(&values.join(", ")),
            escape(&metric.unit)
        )
    });
    format!(
        "<section><h2>Figures that are compared</h2><div class=\"scroll\"><table><thead><tr><th>name</th><th>value</th><th>unit</th></tr></thead><tbody>{}</tbody></table></div></section>",
        rows.collect::<String>()
    )
}

/// As many digits as a figure can have.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// What was asked for and where it ran, folded.
fn details(result: &RunResult) -> String {
    let json = |value: &Value| escape(&serde_json::to_string_pretty(value).unwrap_or_default());
    let environment = serde_json::to_value(&result.environment).unwrap_or_default();
    let mut folded = vec![
        (
            "Plan".to_string(),
            format!("<pre>{}</pre>", json(&result.plan)),
        ),
        (
            "Environment".to_string(),
            format!("<pre>{}</pre>", json(&environment)),
        ),
    ];
    let target = &result.target;
    let engine_config = result.rounds.as_ref().map(|it| &it.engine_config);
    for (name, settings) in engine_config
        .into_iter()
        .map(|it| ("Settings of the engine", it))
        .chain([
            ("Settings of the client", &target.client_config),
            ("Settings of the topic", &target.topic_config),
            ("Settings of the broker", &target.broker_config),
        ])
    {
        if !settings.is_empty() {
            folded.push((format!("{name} ({})", settings.len()), table_of(settings)));
        }
    }
    if let Some(peer) = &target.peer {
        folded.push((
            "How the broker was started".to_string(),
            format!("<pre>{}</pre>", json(peer)),
        ));
    }
    if !result.details.is_null() {
        folded.push((
            "Details of this command".to_string(),
            format!("<pre>{}</pre>", json(&result.details)),
        ));
    }
    let cards = folded.into_iter().map(|(name, content)| {
        format!(
            "<details class=\"card\"><summary>{}</summary>{content}</details>",
            escape(&name)
        )
    });
    cards.collect()
}

fn table_of(settings: &[Setting]) -> String {
    let rows = settings.iter().map(|setting| {
        format!(
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>",
            escape(&setting.name),
            escape(&setting.value),
            escape(setting.source.as_deref().unwrap_or("")),
        )
    });
    format!(
        "<div class=\"scroll\"><table><tbody>{}</tbody></table></div>",
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::run::{Backlog, Curve, FlowSecond, Sample, Second, sample};

    /// A run with a stall, a backlog and its drain.
    fn whole() -> RunResult {
        let latency = |p99_us: u64| Latency {
            p50_us: p99_us / 3,
            p95_us: p99_us / 2,
            p99_us,
            p999_us: p99_us * 2,
            p9999_us: p99_us * 3,
            max_us: p99_us * 4,
        };
        let second = |second: u64| {
            let slow = if second == 12 {
                500_000
            } else {
                4_000 + second * 10
            };
            Second {
                second,
                produced: FlowSecond {
                    offered: 5_000,
                    completed: if second == 12 { 2_500 } else { 5_000 },
                    failed: 0,
                    bytes: 5_000_000,
                    planned: Some(latency(slow)),
                    service: Some(latency(4_000)),
                    lateness: Some(latency(80)),
                    heat: vec![(1_280, 4_000), (4_096, 900), (slow, 100)],
                },
                consumed: FlowSecond {
                    completed: 4_000,
                    bytes: 4_000_000,
                    ..FlowSecond::default()
                },
                backlog: Some(Backlog {
                    records: second * 1_000,
                    bytes: second * 1_000_000,
                    seconds_behind: second as f64 / 5.0,
                }),
                machine: Sample {
                    client_cores: 0.4,
                    broker_cores: Some(0.8),
                    broker_memory_bytes: Some(300_000_000),
                    broker_memory_peak_bytes: None,
                    cores_busy: vec![0.5, 0.9],
                    disk: None,
                },
            }
        };
        let curve = |name: &str, factor: u64| Curve {
            name: name.to_string(),
            points: vec![
                (0.0, 500),
                (0.5, 1_000),
                (0.99, 4_000 * factor),
                (0.9999, 90_000 * factor),
            ],
        };
        RunResult {
            label: Some("<script>alert(1)</script>".to_string()),
            series: (0..30).map(second).collect(),
            curves: vec![curve("produced, planned", 2), curve("produced, service", 1)],
            ..sample()
        }
    }

    /// Every chart that has data is there, and nothing that a stranger wrote is markup.
    #[test]
    fn a_whole_run_is_shown() {
        let page = render(&whole());
        if let Ok(path) = std::env::var("FOREBAY_SAMPLE_REPORT") {
            std::fs::write(path, &page).expect("the sample report");
        }
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("&lt;script&gt;alert(1)"));
        for chart in [
            "Offered and achieved",
            "Latency over time",
            "Percentiles",
            "Backlog",
            "Processor",
            "Memory",
        ] {
            assert!(page.contains(&format!("<title>{chart}")), "{chart}");
        }
        assert!(
            !page.contains("http://") && !page.contains("https://") && !page.contains("src="),
            "nothing is loaded"
        );
        assert_eq!(page, render(&whole()), "the same run has the same report");
        for tag in ["svg", "table", "section", "details", "div"] {
            let (opened, closed) = (
                page.matches(&format!("<{tag}")).count(),
                page.matches(&format!("</{tag}>")).count(),
            );
            assert_eq!(opened, closed, "{tag}");
        }
    }

    #[test]
    fn a_run_without_a_series_says_so() {
        let page = render(&sample());
        assert!(page.contains("no series"));
        assert!(!page.contains("<svg"));
    }
}
