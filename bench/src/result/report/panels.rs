//! Which charts a run has, each with its numbers beside it.

use std::fmt::Write;

use super::chart::{self, Line, Span, Unit, escape};
use crate::result::run::{Curve, RunResult, Second};

/// Rows of a table under a chart: the seconds of a long run are in series.csv.
const ROWS_MAX: usize = 120;

pub fn all(result: &RunResult) -> String {
    let series = &result.series;
    if series.is_empty() {
        return "<p class=\"soft\">This run has no series: its figures are in the tables.</p>"
            .to_string();
    }
    let spans: Vec<Span> = result
        .phases
        .iter()
        .map(|phase| Span {
            name: phase.name.clone(),
            start: phase.start_s,
            end: phase.end_s,
        })
        .collect();
    let words = Words::of(result);
    let panels = [
        rates(series, &spans, &words),
        heat(series, &words),
        percentiles(&result.curves),
        latencies(series, &spans, &words),
        backlog(series, &spans),
        processor(series, &spans, &words),
        disk(series, &spans),
        memory(series, &spans),
    ];
    panels.into_iter().flatten().collect()
}

/// What things are called: a broker has producers and consumers, a disk is written and read.
struct Words {
    /// Rates are in bytes.
    is_storage: bool,
    produced: &'static str,
    consumed: &'static str,
    consumed_p99: &'static str,
    client: &'static str,
}

impl Words {
    fn of(result: &RunResult) -> Words {
        match result.target.kind.as_str() {
            "storage" => Words {
                is_storage: true,
                produced: "writes",
                consumed: "reads",
                consumed_p99: "reads p99",
                client: "this process",
            },
            _ => Words {
                is_storage: false,
                produced: "produced records",
                consumed: "consumed records",
                consumed_p99: "end to end p99",
                client: "client",
            },
        }
    }
}

fn line(
    name: &'static str,
    colour: u8,
    series: &[Second],
    of: impl Fn(&Second) -> Option<f64>,
) -> Line {
    // A figure of a second is drawn in its middle.
    let points = series
        .iter()
        .map(|second| (second.second as f64 + 0.5, of(second)));
    Line {
        name: name.to_string(),
        colour,
        points: points.collect(),
    }
}

fn panel(title: &str, caption: &str, chart: &str, unit: Unit, lines: &[Line]) -> String {
    format!(
        "<section><h2>{}</h2><p class=\"soft\">{}</p>{chart}{}</section>",
        escape(title),
        escape(caption),
        numbers(unit, lines)
    )
}

fn has_any(lines: &[Line]) -> bool {
    lines.iter().any(|line| {
        line.points
            .iter()
            .any(|(_, value)| value.is_some_and(|value| value > 0.0))
    })
}

fn plotted(
    title: &str,
    caption: &str,
    unit: Unit,
    log: bool,
    mut lines: Vec<Line>,
    spans: &[Span],
) -> Option<String> {
    lines.retain(|line| has_any(std::slice::from_ref(line)));
    if lines.is_empty() {
        return None;
    }
    let svg = chart::lines(title, unit, log, &lines, spans);
    Some(panel(title, caption, &svg, unit, &lines))
}

fn numbers(unit: Unit, lines: &[Line]) -> String {
    let Some(first) = lines.first() else {
        return String::new();
    };
    let mut rows = String::new();
    let step = first.points.len().div_ceil(ROWS_MAX).max(1);
    for index in (0..first.points.len()).step_by(step) {
        let _ = write!(rows, "<tr><td>{}</td>", first.points[index].0.floor());
        for line in lines {
            let value = line.points[index]
                .1
                .map_or(String::new(), |value| unit.text(value));
            let _ = write!(rows, "<td>{value}</td>");
        }
        rows.push_str("</tr>");
    }
    let names: String = lines
        .iter()
        .map(|line| format!("<th>{}</th>", escape(&line.name)))
        .collect();
    let each = if step > 1 {
        format!(", one second of {step}")
    } else {
        String::new()
    };
    format!(
        "<details><summary>Numbers{each}</summary><div class=\"scroll\"><table><thead><tr><th>second</th>{names}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )
}

fn rates(series: &[Second], spans: &[Span], words: &Words) -> Option<String> {
    if words.is_storage {
        let lines = vec![
            line(words.produced, 1, series, |it| {
                Some(it.produced.bytes as f64)
            }),
            line(words.consumed, 3, series, |it| {
                Some(it.consumed.bytes as f64)
            }),
        ];
        let caption = "Bytes a second of whichever side had its turn. Shaded: every other turn.";
        return plotted("Throughput", caption, Unit::Bytes, false, lines, spans);
    }
    let lines = vec![
        line("offered", 2, series, |it| Some(it.produced.offered as f64)),
        line("acknowledged", 1, series, |it| {
            Some(it.produced.completed as f64)
        }),
        line("consumed", 3, series, |it| {
            Some(it.consumed.completed as f64)
        }),
        line("failed", 4, series, |it| Some(it.produced.failed as f64)),
    ];
    let caption = "Records a second. Where the lines part, the system does not keep up. Shaded: every other phase.";
    plotted(
        "Offered and achieved",
        caption,
        Unit::Count,
        false,
        lines,
        spans,
    )
}

fn heat(series: &[Second], words: &Words) -> Option<String> {
    let side = |of: fn(&Second) -> &Vec<(u64, u64)>| {
        let columns: Vec<chart::HeatColumn> = series
            .iter()
            .map(|it| (it.second as f64, of(it).clone()))
            .collect();
        columns
            .iter()
            .any(|(_, cells)| !cells.is_empty())
            .then_some(columns)
    };
    let (columns, of) = match side(|it| &it.produced.heat) {
        Some(columns) => (columns, words.produced),
        None => (side(|it| &it.consumed.heat)?, words.consumed),
    };
    let title = "Latency over time";
    let caption = format!(
        "Of {of}, from the planned time. Darker is more of them; each shade is a power of the one before."
    );
    Some(format!(
        "<section><h2>{title}</h2><p class=\"soft\">{}</p>{}<p class=\"soft\">Its numbers are in result.json (heat) and in the HDR logs.</p></section>",
        escape(&caption),
        chart::heat(title, &columns)
    ))
}

fn percentiles(curves: &[Curve]) -> Option<String> {
    let drawn = [
        ("produced, planned", 1),
        ("produced, service", 2),
        ("consumed, planned", 3),
    ];
    let curves: Vec<(&str, u8, &[chart::Quantile])> = drawn
        .into_iter()
        .filter_map(|(name, colour)| {
            let curve = curves
                .iter()
                .find(|curve| curve.name == name && !curve.points.is_empty())?;
            Some((name, colour, curve.points.as_slice()))
        })
        .collect();
    let caption = "From the planned time, a wait behind a stalled system counts; service time does not see it.";
    (!curves.is_empty()).then(|| percentile_panel("Percentiles", caption, &curves))
}

/// The longest curve has all parts; those of a shorter one are the first of them.
pub fn percentile_panel(
    title: &str,
    caption: &str,
    curves: &[(&str, u8, &[chart::Quantile])],
) -> String {
    let longest = curves
        .iter()
        .map(|(_, _, points)| points)
        .max_by_key(|it| it.len());
    let mut rows = String::new();
    for (index, (part, _)) in longest.into_iter().flat_map(|it| it.iter()).enumerate() {
        let _ = write!(rows, "<tr><td>{}%</td>", part * 100.0);
        for (_, _, points) in curves {
            let micros = points.get(index).map_or(String::new(), |(_, micros)| {
                Unit::Micros.text(*micros as f64)
            });
            let _ = write!(rows, "<td>{micros}</td>");
        }
        rows.push_str("</tr>");
    }
    let names: String = curves
        .iter()
        .map(|(name, _, _)| format!("<th>{}</th>", escape(name)))
        .collect();
    format!(
        "<section><h2>{}</h2><p class=\"soft\">{}</p>{}\
<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th>part</th>{names}</tr></thead><tbody>{rows}</tbody></table></div></details></section>",
        escape(title),
        escape(caption),
        chart::percentiles(title, curves)
    )
}

fn latencies(series: &[Second], spans: &[Span], words: &Words) -> Option<String> {
    let lines = vec![
        line("p50", 3, series, |it| {
            it.produced.planned.map(|it| it.p50_us as f64)
        }),
        line("p99", 1, series, |it| {
            it.produced.planned.map(|it| it.p99_us as f64)
        }),
        line("service p99", 2, series, |it| {
            it.produced.service.map(|it| it.p99_us as f64)
        }),
        line(words.consumed_p99, 4, series, |it| {
            it.consumed.planned.map(|it| it.p99_us as f64)
        }),
        line("lateness of the generator p99", 5, series, |it| {
            it.produced.lateness.map(|it| it.p99_us as f64)
        }),
    ];
    let caption = "Of each second. Lateness is the bench's own: far below the others, or the run says nothing.";
    plotted(
        "Latency and lateness",
        caption,
        Unit::Micros,
        true,
        lines,
        spans,
    )
}

fn backlog(series: &[Second], spans: &[Span]) -> Option<String> {
    let lines = vec![line(
        "records that consumers have not read",
        2,
        series,
        |it| it.backlog.map(|it| it.records as f64),
    )];
    let most = series
        .iter()
        .filter_map(|it| it.backlog)
        .map(|it| it.seconds_behind)
        .fold(0.0, f64::max);
    let caption = format!("From the broker's offsets. At most {most:.1} s behind.");
    plotted("Backlog", &caption, Unit::Count, false, lines, spans)
}

fn processor(series: &[Second], spans: &[Span], words: &Words) -> Option<String> {
    let core = |index: usize| move |it: &Second| it.machine.cores_busy.get(index).copied();
    let lines = vec![
        line("broker", 1, series, |it| it.machine.broker_cores),
        line(words.client, 2, series, |it| Some(it.machine.client_cores)),
        line("core 0", 3, series, core(0)),
        line("core 1", 4, series, core(1)),
    ];
    let caption = "Cores kept busy: 100% is one core. Of the single cores, whoever used them; the first two of this machine.";
    plotted("Processor", caption, Unit::Part, false, lines, spans)
}

fn disk(series: &[Second], spans: &[Span]) -> Option<String> {
    let lines = vec![
        line("written", 1, series, |it| {
            it.machine.disk.map(|it| it.written_bytes as f64)
        }),
        line("read", 3, series, |it| {
            it.machine.disk.map(|it| it.read_bytes as f64)
        }),
    ];
    plotted(
        "Disk",
        "Bytes a second, whoever moved them.",
        Unit::Bytes,
        false,
        lines,
        spans,
    )
}

fn memory(series: &[Second], spans: &[Span]) -> Option<String> {
    let lines = vec![line("resident memory of the broker", 1, series, |it| {
        it.machine.broker_memory_bytes.map(|it| it as f64)
    })];
    plotted(
        "Memory",
        "Without the page cache.",
        Unit::Bytes,
        false,
        lines,
        spans,
    )
}
