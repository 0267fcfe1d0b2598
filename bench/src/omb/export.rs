//! A run in the result format of OpenMessaging Benchmark, which its own tools draw charts from.
//!
//! What a figure means there and here:
//!
//! - `publishLatency*` is from the moment a message was really sent until its acknowledgement, in milliseconds:
//!   our service time. A producer that is held up sends later, and this figure does not show it.
//! - `publishDelayLatency*` is by how much it was sent later than planned: our lateness. It is in
//!   **microseconds** in their files, and so it is here.
//! - Our own latency, from the planned time to the acknowledgement, has no place in this format; a sum of
//!   percentiles would be none. It is in `result.json`.
//! - `endToEndLatency*` is in milliseconds. Theirs leaves out what is not above zero, and has a clock of
//!   milliseconds in many drivers; ours keeps everything, in microseconds.
//! - Theirs cuts publish latencies off at 60 seconds; ours are as they were.
//! - `publishRate` counts acknowledged messages, `partitions` and the producers and consumers are those of one
//!   topic, the consumers those of one subscription, as in theirs.
//! - Their windows are of ten seconds, and so are these: what is added in shorter ones is put together.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::workload::Workload;

const WINDOW: Duration = Duration::from_secs(10);

const QUANTILES: [(&str, f64); 6] = [
    ("50pct", 0.5),
    ("75pct", 0.75),
    ("95pct", 0.95),
    ("99pct", 0.99),
    ("999pct", 0.999),
    ("9999pct", 0.9999),
];

/// Of the distribution of a whole run, theirs has so many steps to each half of what is left.
const QUANTILE_STEPS: u32 = 100;

/// What came in a part of a run. Warm-up is left out. Histograms are in microseconds.
#[derive(Clone, Debug)]
pub struct Window {
    pub length: Duration,
    pub acknowledged: u64,
    pub failed: u64,
    /// By all subscriptions together.
    pub consumed: u64,
    /// Messages at its end that subscriptions have still to get.
    pub backlog: u64,
    /// From sending to acknowledgement.
    pub service: Histogram<u64>,
    /// From the planned time to sending.
    pub lateness: Histogram<u64>,
    /// From sending to the consumer.
    pub end_to_end: Histogram<u64>,
}

/// Puts windows together until an export is whole.
#[derive(Clone, Debug)]
pub struct Exporter {
    export: Export,
    /// Not ten seconds yet.
    open: Option<Window>,
}

/// Serializes to the JSON of theirs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    workload: String,
    driver: String,
    message_size: u32,
    topics: u32,
    partitions: u32,
    producers_per_topic: u32,
    consumers_per_topic: u32,
    publish_rate: Vec<f64>,
    publish_error_rate: Vec<f64>,
    consume_rate: Vec<f64>,
    backlog: Vec<u64>,
    #[serde(flatten)]
    publish: Latencies,
    #[serde(flatten)]
    publish_delay: Latencies,
    #[serde(flatten)]
    end_to_end: Latencies,
}

/// One kind of latency.
#[derive(Clone, Debug)]
struct Latencies {
    /// As in the names of the fields.
    name: &'static str,
    unit: Unit,
    windows: Vec<Figures>,
    all: Histogram<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Milliseconds,
    Microseconds,
}

/// In microseconds.
#[derive(Clone, Copy, Debug)]
struct Figures {
    mean: f64,
    quantiles: [u64; QUANTILES.len()],
    max: u64,
}

impl Exporter {
    /// `driver` is what their charts call the system that was measured.
    pub fn new(workload: &Workload, driver: &str) -> Exporter {
        let export = Export {
            workload: workload.name.clone(),
            driver: driver.to_owned(),
            message_size: workload.message_bytes,
            topics: workload.topics,
            partitions: workload.partitions_per_topic,
            producers_per_topic: workload.producers_per_topic,
            consumers_per_topic: workload.consumers_per_subscription,
            publish_rate: Vec::new(),
            publish_error_rate: Vec::new(),
            consume_rate: Vec::new(),
            backlog: Vec::new(),
            publish: Latencies::new("PublishLatency", Unit::Milliseconds),
            publish_delay: Latencies::new("PublishDelayLatency", Unit::Microseconds),
            end_to_end: Latencies::new("EndToEndLatency", Unit::Milliseconds),
        };
        Exporter { export, open: None }
    }

    /// The next window, in the order of time.
    pub fn push(&mut self, window: Window) {
        let open = match self.open.take() {
            None => window,
            Some(open) => open.then(window),
        };
        if open.length < WINDOW {
            self.open = Some(open);
        } else {
            self.export.push(&open);
        }
    }

    /// What is left over at the end is a window too, of its own length.
    pub fn finish(mut self) -> Export {
        if let Some(open) = self.open.filter(|open| !open.length.is_zero()) {
            self.export.push(&open);
        }
        self.export
    }
}

impl Export {
    fn push(&mut self, window: &Window) {
        let rate = |count: u64| count as f64 / window.length.as_secs_f64();
        self.publish_rate.push(rate(window.acknowledged));
        self.publish_error_rate.push(rate(window.failed));
        self.consume_rate.push(rate(window.consumed));
        self.backlog.push(window.backlog);
        self.publish.push(&window.service);
        self.publish_delay.push(&window.lateness);
        self.end_to_end.push(&window.end_to_end);
    }
}

impl Window {
    /// With the one right after it.
    fn then(mut self, next: Window) -> Window {
        self.length += next.length;
        self.acknowledged += next.acknowledged;
        self.failed += next.failed;
        self.consumed += next.consumed;
        self.backlog = next.backlog;
        add(&mut self.service, &next.service);
        add(&mut self.lateness, &next.lateness);
        add(&mut self.end_to_end, &next.end_to_end);
        self
    }
}

fn add(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    sum.auto(true);
    sum.add(other)
        .expect("a resizing histogram takes any other");
}

impl Latencies {
    fn new(name: &'static str, unit: Unit) -> Latencies {
        Latencies {
            name,
            unit,
            windows: Vec::new(),
            all: Histogram::new(3).expect("three digits are allowed"),
        }
    }

    fn push(&mut self, window: &Histogram<u64>) {
        self.windows.push(Figures::of(window));
        add(&mut self.all, window);
    }

    /// `publishLatency` and so on, with a list of all windows each.
    fn serialize_windows<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let (first, rest) = self.name.split_at(1);
        let name = format!("{}{rest}", first.to_lowercase());
        let means = self.windows.iter().map(|window| window.mean);
        let means: Vec<f64> = means.map(|mean| self.unit.of_mean(mean)).collect();
        map.serialize_entry(&format!("{name}Avg"), &means)?;
        for (index, (suffix, _)) in QUANTILES.iter().enumerate() {
            let values = self.windows.iter().map(|window| window.quantiles[index]);
            let values: Vec<_> = values.map(|value| self.unit.of(value)).collect();
            map.serialize_entry(&format!("{name}{suffix}"), &values)?;
        }
        let values = self.windows.iter().map(|window| self.unit.of(window.max));
        map.serialize_entry(&format!("{name}Max"), &values.collect::<Vec<_>>())
    }

    /// `aggregatedPublishLatency` and so on, with one value each, and the whole distribution.
    fn serialize_all<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let name = format!("aggregated{}", self.name);
        let all = Figures::of(&self.all);
        map.serialize_entry(&format!("{name}Avg"), &self.unit.of_mean(all.mean))?;
        for ((suffix, _), value) in QUANTILES.iter().zip(all.quantiles) {
            map.serialize_entry(&format!("{name}{suffix}"), &self.unit.of(value))?;
        }
        map.serialize_entry(&format!("{name}Max"), &self.unit.of(all.max))?;
        map.serialize_entry(&format!("{name}Quantiles"), &self.distribution())
    }

    /// By percentile, from 0 to 100.
    fn distribution(&self) -> Distribution {
        let mut points: Vec<(f64, Value)> = Vec::new();
        for value in self.all.iter_quantiles(QUANTILE_STEPS) {
            let percentile = value.quantile() * 100.0;
            let latency = self.unit.of(value.value_iterated_to());
            match points.last_mut() {
                Some((last, at)) if *last == percentile => *at = latency,
                _ => points.push((percentile, latency)),
            }
        }
        Distribution(points)
    }
}

impl Unit {
    fn of_mean(self, micros: f64) -> f64 {
        match self {
            Unit::Milliseconds => micros / 1e3,
            Unit::Microseconds => micros,
        }
    }

    /// Theirs has whole numbers of microseconds, and milliseconds with a fraction.
    fn of(self, micros: u64) -> Value {
        match self {
            Unit::Milliseconds => (micros as f64 / 1e3).into(),
            Unit::Microseconds => micros.into(),
        }
    }
}

impl Figures {
    fn of(histogram: &Histogram<u64>) -> Figures {
        Figures {
            mean: histogram.mean(),
            quantiles: QUANTILES.map(|(_, quantile)| histogram.value_at_quantile(quantile)),
            max: histogram.max(),
        }
    }
}

struct Distribution(Vec<(f64, Value)>);

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text =
            |(percentile, latency): &(f64, Value)| (format!("{percentile:?}"), latency.clone());
        serializer.collect_map(self.0.iter().map(text))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.serialize_windows(&mut map)?;
        self.serialize_all(&mut map)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WORKLOAD: &str = "
name: Eight partitions
topics: 3
partitionsPerTopic: 8
messageSize: 512
subscriptionsPerTopic: 2
consumerPerSubscription: 5
producersPerTopic: 4
producerRate: 1000
testDurationMinutes: 1
";

    /// Of the class that theirs serializes: each with the shape of its value.
    const FIELDS: [(&str, &str); 62] = [
        ("workload", "text"),
        ("driver", "text"),
        ("messageSize", "whole"),
        ("topics", "whole"),
        ("partitions", "whole"),
        ("producersPerTopic", "whole"),
        ("consumersPerTopic", "whole"),
        ("publishRate", "numbers"),
        ("publishErrorRate", "numbers"),
        ("consumeRate", "numbers"),
        ("backlog", "wholes"),
        ("publishLatencyAvg", "numbers"),
        ("publishLatency50pct", "numbers"),
        ("publishLatency75pct", "numbers"),
        ("publishLatency95pct", "numbers"),
        ("publishLatency99pct", "numbers"),
        ("publishLatency999pct", "numbers"),
        ("publishLatency9999pct", "numbers"),
        ("publishLatencyMax", "numbers"),
        ("publishDelayLatencyAvg", "numbers"),
        ("publishDelayLatency50pct", "wholes"),
        ("publishDelayLatency75pct", "wholes"),
        ("publishDelayLatency95pct", "wholes"),
        ("publishDelayLatency99pct", "wholes"),
        ("publishDelayLatency999pct", "wholes"),
        ("publishDelayLatency9999pct", "wholes"),
        ("publishDelayLatencyMax", "wholes"),
        ("aggregatedPublishLatencyAvg", "number"),
        ("aggregatedPublishLatency50pct", "number"),
        ("aggregatedPublishLatency75pct", "number"),
        ("aggregatedPublishLatency95pct", "number"),
        ("aggregatedPublishLatency99pct", "number"),
        ("aggregatedPublishLatency999pct", "number"),
        ("aggregatedPublishLatency9999pct", "number"),
        ("aggregatedPublishLatencyMax", "number"),
        ("aggregatedPublishDelayLatencyAvg", "number"),
        ("aggregatedPublishDelayLatency50pct", "whole"),
        ("aggregatedPublishDelayLatency75pct", "whole"),
        ("aggregatedPublishDelayLatency95pct", "whole"),
        ("aggregatedPublishDelayLatency99pct", "whole"),
        ("aggregatedPublishDelayLatency999pct", "whole"),
        ("aggregatedPublishDelayLatency9999pct", "whole"),
        ("aggregatedPublishDelayLatencyMax", "whole"),
        ("aggregatedPublishLatencyQuantiles", "by percentile"),
        ("aggregatedPublishDelayLatencyQuantiles", "by percentile"),
        ("endToEndLatencyAvg", "numbers"),
        ("endToEndLatency50pct", "numbers"),
        ("endToEndLatency75pct", "numbers"),
        ("endToEndLatency95pct", "numbers"),
        ("endToEndLatency99pct", "numbers"),
        ("endToEndLatency999pct", "numbers"),
        ("endToEndLatency9999pct", "numbers"),
        ("endToEndLatencyMax", "numbers"),
        ("aggregatedEndToEndLatencyQuantiles", "by percentile"),
        ("aggregatedEndToEndLatencyAvg", "number"),
        ("aggregatedEndToEndLatency50pct", "number"),
        ("aggregatedEndToEndLatency75pct", "number"),
        ("aggregatedEndToEndLatency95pct", "number"),
        ("aggregatedEndToEndLatency99pct", "number"),
        ("aggregatedEndToEndLatency999pct", "number"),
        ("aggregatedEndToEndLatency9999pct", "number"),
        ("aggregatedEndToEndLatencyMax", "number"),
    ];

    fn micros(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits");
        values.into_iter().for_each(|value| histogram += value);
        histogram
    }

    fn window(seconds: u64, count: u64, service_us: u64) -> Window {
        Window {
            length: Duration::from_secs(seconds),
            acknowledged: count,
            failed: 1,
            consumed: 2 * count,
            backlog: count / 10,
            service: micros((0..count).map(|_| service_us)),
            lateness: micros([3, 5]),
            end_to_end: micros([1_500]),
        }
    }

    fn exported(windows: impl IntoIterator<Item = Window>) -> Value {
        let imported = Workload::parse(WORKLOAD, "").expect("a workload");
        let mut exporter = Exporter::new(&imported.workload, "Forebay");
        windows.into_iter().for_each(|window| exporter.push(window));
        serde_json::to_value(exporter.finish()).expect("plain JSON")
    }

    fn has_shape(value: &Value, shape: &str) -> bool {
        let all = |shape| {
            value
                .as_array()
                .is_some_and(|all| all.iter().all(|one| has_shape(one, shape)))
        };
        match shape {
            "text" => value.is_string(),
            "whole" => value.is_u64(),
            "number" => value.is_f64(),
            "wholes" => all("whole"),
            "numbers" => all("number"),
            "by percentile" => value.as_object().is_some_and(|map| {
                let right =
                    |key: &String| key.parse().is_ok_and(|at: f64| (0.0..=100.0).contains(&at));
                !map.is_empty() && map.keys().all(right)
            }),
            other => panic!("no shape: {other}"),
        }
    }

    #[test]
    fn the_fields_are_theirs_and_no_others() {
        let json = exported([window(10, 1_000, 700), window(10, 900, 800)]);
        let mut found: Vec<&String> = json.as_object().expect("an object").keys().collect();
        let mut expected = FIELDS.map(|(field, _)| field);
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        for (field, shape) in FIELDS {
            let value = &json[field];
            assert!(has_shape(value, shape), "{field}: {value}");
            let windows = value.as_array().map_or(2, Vec::len);
            assert_eq!(windows, 2, "{field}: {value}");
        }
    }

    #[test]
    fn the_head_says_what_ran() {
        let json = exported([]);
        let check = |field: &str, expected: Value| assert_eq!(json[field], expected, "{field}");
        check("workload", json!("Eight partitions"));
        check("driver", json!("Forebay"));
        check("messageSize", json!(512));
        check("topics", json!(3));
        check("partitions", json!(8));
        check("producersPerTopic", json!(4));
        check("consumersPerTopic", json!(5));
        check("publishRate", json!([]));
        check("aggregatedPublishLatencyMax", json!(0.0));
    }

    #[test]
    fn figures_of_windows_and_of_all() {
        let json = exported([window(10, 1_000, 700), window(10, 3_000, 900)]);
        let check = |field: &str, expected: Value| assert_eq!(json[field], expected, "{field}");
        check("publishRate", json!([100.0, 300.0]));
        check("publishErrorRate", json!([0.1, 0.1]));
        check("consumeRate", json!([200.0, 600.0]));
        check("backlog", json!([100, 300]));
        check("publishLatencyAvg", json!([0.7, 0.9]));
        check("publishLatency99pct", json!([0.7, 0.9]));
        check("publishLatencyMax", json!([0.7, 0.9]));
        check("publishDelayLatencyAvg", json!([4.0, 4.0]));
        check("publishDelayLatency50pct", json!([3, 3]));
        check("publishDelayLatencyMax", json!([5, 5]));
        check("endToEndLatency9999pct", json!([1.5, 1.5]));
        check("aggregatedPublishLatencyAvg", json!(0.85));
        check("aggregatedPublishLatency50pct", json!(0.9));
        check("aggregatedPublishDelayLatency75pct", json!(5));
        check(
            "aggregatedPublishLatencyQuantiles",
            json!({"25.0": 0.7, "100.0": 0.9}),
        );
        check(
            "aggregatedPublishDelayLatencyQuantiles",
            json!({"50.0": 3, "100.0": 5}),
        );
    }

    #[test]
    fn a_distribution_rises_to_a_hundred() {
        let mut one = window(10, 0, 0);
        one.service = micros((1..=100_000).map(|value| value * 7));
        let json = exported([one]);
        let points = json["aggregatedPublishLatencyQuantiles"].as_object();
        let point = |(key, value): (&String, &Value)| {
            let percentile: f64 = key.parse().expect("a percentile");
            (percentile, value.as_f64().expect("milliseconds"))
        };
        let mut points: Vec<(f64, f64)> = points.expect("an object").iter().map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(points.len() > 200, "{} points", points.len());
        assert!(points.is_sorted_by(|a, b| a.1 <= b.1));
        let (percentile, latency) = *points.last().expect("points");
        assert_eq!(percentile, 100.0);
        assert_eq!(json["aggregatedPublishLatencyMax"], json!(latency));
    }

    #[test]
    fn short_windows_are_put_together() {
        let seconds = (0..25).map(|at| window(1, 100 + at, 700));
        let json = exported(seconds);
        let rate = |from: u64, to: u64| {
            let sum: u64 = (from..to).map(|at| 100 + at).sum();
            sum as f64 / (to - from) as f64
        };
        let rates = json!([rate(0, 10), rate(10, 20), rate(20, 25)]);
        assert_eq!(json["publishRate"], rates);
        assert_eq!(json["backlog"], json!([10, 11, 12]));
        assert_eq!(json["publishErrorRate"], json!([1.0, 1.0, 1.0]));
    }

    #[test]
    fn a_window_without_a_message_and_one_without_length() {
        let json = exported([window(10, 0, 0), window(0, 0, 0)]);
        assert_eq!(json["publishRate"], json!([0.0]));
        assert_eq!(json["publishLatencyAvg"], json!([0.0]));
    }

    #[test]
    fn latencies_above_a_minute_are_not_cut_off() {
        let json = exported([window(10, 1, 90_000_000)]);
        let max = json["aggregatedPublishLatencyMax"]
            .as_f64()
            .expect("a number");
        assert!((90_000.0..90_100.0).contains(&max), "{max}");
    }
}
