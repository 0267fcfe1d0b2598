//! The series of a run for other programs: CSV, and the logs and curves of HdrHistogram that its own tools read.

use std::fmt::Write;

use hdrhistogram::{
    Histogram,
    serialization::{V2DeflateSerializer, interval_log::IntervalLogWriterBuilder},
};

use super::run::{FlowSecond, Second};
use crate::{latency::Latencies, run::collector::Collected};

/// One line a second; what was not measured is empty. Latencies in microseconds.
pub fn csv(series: &[Second]) -> String {
    let mut csv = String::from("second");
    for way in ["produced", "consumed"] {
        for column in [
            "offered",
            "completed",
            "failed",
            "bytes",
            "planned_p50_us",
            "planned_p99_us",
            "planned_p999_us",
            "planned_max_us",
            "service_p50_us",
            "service_p99_us",
            "service_p999_us",
            "service_max_us",
            "lateness_p99_us",
            "lateness_max_us",
        ] {
            let _ = write!(csv, ",{way}_{column}");
        }
    }
    csv.push_str(",backlog_records,backlog_bytes,backlog_seconds_behind,client_cores,broker_cores,broker_memory_bytes,disk_read_bytes,disk_written_bytes,disk_busy,disk_await_ms\n");
    for second in series {
        let _ = write!(csv, "{}", second.second);
        flow(&mut csv, &second.produced);
        flow(&mut csv, &second.consumed);
        let backlog = second.backlog;
        some(&mut csv, backlog.map(|it| it.records));
        some(&mut csv, backlog.map(|it| it.bytes));
        some(&mut csv, backlog.map(|it| it.seconds_behind));
        let machine = &second.machine;
        some(&mut csv, Some(machine.client_cores));
        some(&mut csv, machine.broker_cores);
        some(&mut csv, machine.broker_memory_bytes);
        some(&mut csv, machine.disk.map(|it| it.read_bytes));
        some(&mut csv, machine.disk.map(|it| it.written_bytes));
        some(&mut csv, machine.disk.map(|it| it.busy));
        some(&mut csv, machine.disk.map(|it| it.await_ms));
        csv.push('\n');
    }
    csv
}

fn some(csv: &mut String, value: Option<impl std::fmt::Display>) {
    csv.push(',');
    if let Some(value) = value {
        let _ = write!(csv, "{value}");
    }
}

fn flow(csv: &mut String, flow: &FlowSecond) {
    for count in [flow.offered, flow.completed, flow.failed, flow.bytes] {
        some(csv, Some(count));
    }
    for latency in [flow.planned, flow.service] {
        some(csv, latency.map(|it| it.p50_us));
        some(csv, latency.map(|it| it.p99_us));
        some(csv, latency.map(|it| it.p999_us));
        some(csv, latency.map(|it| it.max_us));
    }
    some(csv, flow.lateness.map(|it| it.p99_us));
    some(csv, flow.lateness.map(|it| it.max_us));
}

/// Name and content of each file of histograms that a run has: a log of every second, warm-up and all, from the planned time; and a curve
/// over the measured phases for each of `measured`.
pub fn histograms(
    collected: &Collected,
    measured: &[(String, Latencies)],
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = Vec::new();
    for (way, seconds) in [
        ("produced", &collected.produced),
        ("consumed", &collected.consumed),
    ] {
        if seconds.iter().any(|(_, latencies)| latencies.count() > 0) {
            files.push((format!("latency-{way}.hlog"), hlog(seconds)?));
        }
    }
    for (name, latencies) in measured
        .iter()
        .filter(|(_, latencies)| latencies.count() > 0)
    {
        let name = format!("latency-{}.hgrm", name.replace(", ", "-").replace(' ', "-"));
        files.push((name, hgrm(latencies.histogram()).into_bytes()));
    }
    Ok(files)
}

/// HdrHistogram's interval log, version 2: planned latencies in microseconds, one histogram a second.
fn hlog(seconds: &[(u64, Latencies)]) -> Result<Vec<u8>, String> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("latency from the planned time, in microseconds");
    let mut writer = builder
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| error.to_string())?;
    let second = std::time::Duration::from_secs(1);
    for (number, latencies) in seconds
        .iter()
        .filter(|(_, latencies)| latencies.count() > 0)
    {
        let start = std::time::Duration::from_secs(*number);
        let written = writer.write_histogram(latencies.histogram(), start, second, None);
        written.map_err(|error| format!("{error:?}"))?;
    }
    Ok(log)
}

/// The text that HdrHistogram's plotter reads: value in milliseconds, part, count up to it, one over the rest.
fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut count = 0;
    let mut last_part = -1.0;
    for value in histogram.iter_quantiles(5) {
        count += value.count_since_last_iteration();
        let part = value.quantile_iterated_to();
        if part <= last_part {
            continue;
        }
        last_part = part;
        let millis = value.value_iterated_to() as f64 / 1e3;
        let _ = match part < 1.0 {
            true => writeln!(
                text,
                "{millis:12.3} {part:2.12} {count:10} {:14.2}",
                1.0 / (1.0 - part)
            ),
            false => writeln!(text, "{millis:12.3} {part:2.12} {count:10}"),
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3
    );
    let _ = writeln!(
        text,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        histogram.max() as f64 / 1e3,
        histogram.len()
    );
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_line_has_every_column() {
        let csv = csv(&[
            Second::default(),
            Second {
                second: 1,
                ..Second::default()
            },
        ]);
        let mut lines = csv.lines();
        let columns = lines.next().expect("a header").split(',').count();
        assert_eq!(lines.clone().count(), 2);
        for line in lines {
            assert_eq!(line.split(',').count(), columns, "{line}");
        }
    }

    #[test]
    fn histograms_are_logged_and_summed() {
        let mut latencies = Latencies::new();
        for millis in 1..=1_000 {
            latencies.record(Duration::from_millis(millis));
        }
        let collected = Collected {
            produced: vec![
                (0, latencies.clone()),
                (1, Latencies::new()),
                (2, latencies.clone()),
            ],
            ..Collected::default()
        };
        let files = histograms(&collected, &[("produced, planned".to_string(), latencies)])
            .expect("written");
        let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["latency-produced.hlog", "latency-produced-planned.hgrm"]
        );
        let log = String::from_utf8(files[0].1.clone()).expect("text");
        let intervals = log.lines().filter(|line| line.contains("HISTF"));
        assert_eq!(intervals.count(), 2, "{log}");
        let curve = String::from_utf8(files[1].1.clone()).expect("text");
        assert!(curve.contains("Total count    =         1000"), "{curve}");
        let last = curve
            .lines()
            .rfind(|line| line.starts_with(' '))
            .expect("a line");
        let count: u64 = last
            .split_whitespace()
            .nth(2)
            .expect("a count")
            .parse()
            .expect("a number");
        assert_eq!(count, 1_000);
    }
}
