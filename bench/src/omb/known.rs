//! The workloads that come with OpenMessaging Benchmark, by the names of their files.
//!
//! Their figures are in `workloads.csv`, as of its revision of January 2026. Where its files take payloads from
//! a file, the file is in place of the share of random bytes; all have no keys and a minute of warm-up.

use std::collections::BTreeMap;

use serde_json::Value;

use super::workload::{Imported, Workload};

const TABLE: &str = include_str!("workloads.csv");

/// In the order of the table, below its heading.
const COLUMNS: [&str; 11] = [
    "topics",
    "partitionsPerTopic",
    "messageSize",
    "subscriptionsPerTopic",
    "consumerPerSubscription",
    "producersPerTopic",
    "producerRate",
    "consumerBacklogSizeGB",
    "testDurationMinutes",
    "randomBytesRatio",
    "randomizedPayloadPoolSize",
];

/// Of all that are known, in the order of their sizes.
pub fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|(name, _)| name)
}

/// By its name, which becomes the name of the workload: those within their files are not always right.
pub fn known(name: &str) -> Option<Imported> {
    let (name, row) = rows().find(|(known, _)| *known == name)?;
    Some(Workload::from_fields(fields(row), name).expect("the table is checked by a test"))
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().skip(1).filter_map(|row| row.split_once(','))
}

fn fields(row: &str) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for (column, text) in COLUMNS.into_iter().zip(row.split(',')) {
        match text.parse() {
            Ok(number) => drop(fields.insert(column.to_owned(), Value::Number(number))),
            Err(_) if text.is_empty() => (),
            Err(_) => drop(fields.insert("payloadFile".to_owned(), text.into())),
        }
    }
    if fields.contains_key("randomizedPayloadPoolSize") {
        fields.insert("useRandomizedPayloads".to_owned(), true.into());
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::omb::workload::{Backlog, Keys, Payload};

    #[test]
    fn every_row_is_a_workload() {
        assert_eq!(names().count(), 130);
        for name in names() {
            let Imported { workload, warnings } = known(name).expect(name);
            assert_eq!(workload.name, name);
            assert_eq!((workload.keys, workload.warmup_minutes), (Keys::None, 1));
            assert_eq!(
                warnings.is_empty(),
                workload.payload.pool.is_some(),
                "{name}"
            );
        }
        let mut sorted: Vec<_> = names().collect();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 130, "no name twice");
    }

    #[test]
    fn rows_have_as_many_columns() {
        for line in TABLE.lines() {
            assert_eq!(line.split(',').count(), 1 + COLUMNS.len(), "{line}");
        }
    }

    #[test]
    fn names_tell_the_figures() {
        for name in names() {
            let workload = known(name).expect(name).workload;
            let parts: Vec<&str> = name.split('-').collect();
            let bytes = match workload.message_bytes {
                100 => "100b",
                1_024 => "1kb",
                65_536 => "64kb",
                other => panic!("{name}: {other} bytes"),
            };
            assert!(
                name == "simple-workload" || parts.contains(&bytes),
                "{name}"
            );
            assert_eq!(
                name.contains("backlog"),
                workload.backlog.is_some(),
                "{name}"
            );
            let highest = workload.rate.is_none_or(|rate| rate == 10_000_000);
            assert!(!name.starts_with("max-rate") || highest, "{name}");
        }
    }

    #[test]
    fn some_well_known_ones() {
        let check = |name: &str, expected: Workload| {
            assert_eq!(known(name).expect(name).workload, expected);
        };
        let one = Workload {
            name: "1-topic-1-partition-1kb".to_owned(),
            topics: 1,
            partitions_per_topic: 1,
            keys: Keys::None,
            message_bytes: 1024,
            payload: Payload {
                random_ratio: 1.0,
                pool: None,
            },
            subscriptions_per_topic: 1,
            consumers_per_subscription: 1,
            producers_per_topic: 1,
            rate: Some(50_000),
            backlog: None,
            test_minutes: 15,
            warmup_minutes: 1,
        };
        check("1-topic-1-partition-1kb", one.clone());
        check(
            "1-topic-16-partitions-1kb",
            Workload {
                name: "1-topic-16-partitions-1kb".to_owned(),
                partitions_per_topic: 16,
                ..one.clone()
            },
        );
        check(
            "backlog-1-topic-16-partitions-1kb",
            Workload {
                name: "backlog-1-topic-16-partitions-1kb".to_owned(),
                partitions_per_topic: 16,
                rate: Some(100_000),
                backlog: Some(Backlog {
                    bytes: 100 << 30,
                    drain_ratio: 1.0,
                }),
                test_minutes: 5,
                ..one.clone()
            },
        );
        check(
            "max-rate-10-topics-1-partition-64kb",
            Workload {
                name: "max-rate-10-topics-1-partition-64kb".to_owned(),
                topics: 10,
                message_bytes: 65_536,
                payload: Payload {
                    random_ratio: 0.5,
                    pool: Some(100),
                },
                rate: Some(10_000_000),
                test_minutes: 5,
                ..one
            },
        );
        assert_eq!(known("2-topics-of-mine"), None);
        assert_eq!(known("name"), None);
    }
}
