//! One workload of OpenMessaging Benchmark: how many topics, producers and consumers, and how much they do.
//!
//! A file is taken as its authors' tool takes it, with these differences. Bounds are checked before anything
//! runs. A name of a field or of a key distributor that we do not know is said: theirs passes over the one and
//! takes no keys for the other. An endless test (`testDurationMinutes: 0`) is refused. What we cannot honour
//! comes back as warnings, to be shown to whoever started the run and kept in its result.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use serde::Serialize;
use serde_json::Value;

use super::fields::{Fields, WorkloadError, refused};
use crate::schedule::Schedule;

/// Theirs have some twenty lines.
const FILE_BYTES_MAX: u64 = 64 << 10;

const TOPICS_MAX: u64 = 1_000_000;
const PER_TOPIC_MAX: u64 = 10_000;
const PARTITIONS_MAX: u64 = 1_000_000;
const MESSAGE_BYTES_MAX: u64 = 16 << 20;
const RATE_MAX: u64 = 100_000_000;
const PAYLOADS_MAX: u64 = 1_000_000;
const BACKLOG_GIB_MAX: u64 = 1 << 20;
const WEEK_MINUTES: u64 = 7 * 24 * 60;

/// Different keys that their generator has.
pub const KEYS: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Workload {
    pub name: String,
    pub topics: u32,
    pub partitions_per_topic: u32,
    pub keys: Keys,
    pub message_bytes: u32,
    pub payload: Payload,
    /// Consumer groups that each get everything.
    pub subscriptions_per_topic: u32,
    pub consumers_per_subscription: u32,
    pub producers_per_topic: u32,
    /// Of all producers together, in messages per second. `None`: the highest that the consumers keep up with
    /// is to be found.
    pub rate: Option<u32>,
    pub backlog: Option<Backlog>,
    pub test_minutes: u32,
    pub warmup_minutes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    None,
    /// `KEYS` of them, one after the other.
    RoundRobin,
    /// `KEYS` of them, in no order.
    Random,
}

/// The first `random_ratio` of a message is random bytes, the rest zeros. The random part is one of `pool`
/// that were made beforehand, or new in each message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Payload {
    pub random_ratio: f64,
    pub pool: Option<u32>,
}

/// Consumers stop until this much waits for them, and then drain it while producers go on. The minutes of the
/// test begin anew when it is drained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Backlog {
    /// Of payload, counted once for each subscription.
    pub bytes: u64,
    /// 1 for all of it, 0 for no matter how much.
    pub drain_ratio: f64,
}

/// A workload, and what about it will not be as in its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub workload: Workload,
    pub warnings: Vec<String>,
}

impl Workload {
    /// A file that gives no name has the one of the file.
    pub fn read(path: &Path) -> Result<Imported, WorkloadError> {
        let refused = |error: std::io::Error| WorkloadError::Read {
            path: path.to_owned(),
            error: error.to_string(),
        };
        let file = File::open(path).map_err(refused)?;
        let mut text = String::new();
        let mut file = file.take(FILE_BYTES_MAX + 1);
        file.read_to_string(&mut text).map_err(refused)?;
        let name = path.file_stem().unwrap_or_default();
        Workload::parse(&text, &name.to_string_lossy())
    }

    /// From YAML.
    pub fn parse(text: &str, default_name: &str) -> Result<Imported, WorkloadError> {
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(WorkloadError::TooLong);
        }
        let options = serde_saphyr::options! { with_snippet: false };
        let fields = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| WorkloadError::Yaml(error.to_string()))?;
        Workload::from_fields(fields, default_name)
    }

    /// From fields with the names of theirs.
    pub(super) fn from_fields(
        values: BTreeMap<String, Value>,
        default_name: &str,
    ) -> Result<Imported, WorkloadError> {
        let mut fields = Fields::new(values);
        let name = fields.text("name")?;
        let workload = Workload {
            name: name.unwrap_or_else(|| default_name.to_owned()),
            topics: fields.whole("topics", 1..=TOPICS_MAX, None)? as u32,
            partitions_per_topic: fields.whole("partitionsPerTopic", 1..=PARTITIONS_MAX, None)?
                as u32,
            keys: keys(&mut fields)?,
            message_bytes: fields.whole("messageSize", 1..=MESSAGE_BYTES_MAX, None)? as u32,
            payload: payload(&mut fields)?,
            subscriptions_per_topic: per_topic(&mut fields, "subscriptionsPerTopic", 0)?,
            consumers_per_subscription: per_topic(&mut fields, "consumerPerSubscription", 0)?,
            producers_per_topic: per_topic(&mut fields, "producersPerTopic", 1)?,
            rate: match fields.whole("producerRate", 0..=RATE_MAX, None)? {
                0 => None,
                rate => Some(rate as u32),
            },
            backlog: backlog(&mut fields)?,
            test_minutes: fields.whole("testDurationMinutes", 1..=WEEK_MINUTES, None)? as u32,
            warmup_minutes: fields.whole("warmupDurationMinutes", 0..=WEEK_MINUTES, Some(1))?
                as u32,
        };
        workload.check()?;
        let warnings = fields.finish();
        Ok(Imported { workload, warnings })
    }

    fn check(&self) -> Result<(), WorkloadError> {
        let together = |right, why| match right {
            true => Ok(()),
            false => Err(WorkloadError::Together(why)),
        };
        together(
            self.partitions() <= PARTITIONS_MAX,
            "topics x partitionsPerTopic must not be more than 1000000",
        )?;
        together(
            self.backlog.is_none() || self.consumers() > 0,
            "consumerBacklogSizeGB needs consumers that drain it",
        )?;
        together(
            self.backlog.is_none() || self.rate.is_some(),
            "consumerBacklogSizeGB needs a producerRate: the highest cannot be found while a backlog grows",
        )
    }

    /// Of all topics.
    pub fn partitions(&self) -> u64 {
        u64::from(self.topics) * u64::from(self.partitions_per_topic)
    }

    /// Of all topics.
    pub fn producers(&self) -> u64 {
        u64::from(self.topics) * u64::from(self.producers_per_topic)
    }

    /// Of all subscriptions of all topics.
    pub fn consumers(&self) -> u64 {
        let per_topic =
            u64::from(self.subscriptions_per_topic) * u64::from(self.consumers_per_subscription);
        u64::from(self.topics) * per_topic
    }

    /// Their producers send evenly. `None` when the rate is to be found.
    pub fn schedule(&self) -> Option<Schedule> {
        let schedule = format!("constant:{}", self.rate?).parse();
        Some(schedule.expect("a rate within the bounds of a schedule"))
    }
}

impl Backlog {
    #[cfg_attr(not(test), expect(dead_code, reason = "backlogs are refused"))]
    /// Of so many messages in all subscriptions or less it is drained, as theirs counts.
    pub fn drained_messages(&self, message_bytes: u32) -> u64 {
        let all = self.bytes / u64::from(message_bytes);
        (((1.0 - self.drain_ratio) * all as f64) as u64).max(1_000)
    }
}

fn per_topic(fields: &mut Fields, field: &'static str, least: u64) -> Result<u32, WorkloadError> {
    Ok(fields.whole(field, least..=PER_TOPIC_MAX, None)? as u32)
}

fn keys(fields: &mut Fields) -> Result<Keys, WorkloadError> {
    let field = "keyDistributor";
    match fields.text(field)?.as_deref() {
        None | Some("NO_KEY") => Ok(Keys::None),
        Some("KEY_ROUND_ROBIN") => Ok(Keys::RoundRobin),
        Some("RANDOM_NANO") => Ok(Keys::Random),
        Some(other) => {
            let expected = "NO_KEY, KEY_ROUND_ROBIN or RANDOM_NANO";
            Err(refused(field, expected, &other.into()))
        }
    }
}

fn payload(fields: &mut Fields) -> Result<Payload, WorkloadError> {
    if !fields.flag("useRandomizedPayloads")? {
        for field in ["randomBytesRatio", "randomizedPayloadPoolSize"] {
            if fields.take(field).is_some() {
                let warning = format!("{field} has no effect without useRandomizedPayloads");
                fields.warn(warning);
            }
        }
        if let Some(file) = fields.text("payloadFile")? {
            let instead = "every payload is random bytes, which do not compress";
            let warning = format!("payloadFile {file:?} is not read: {instead}");
            fields.warn(warning);
        }
        return Ok(Payload {
            random_ratio: 1.0,
            pool: None,
        });
    }
    if let Some(file) = fields.text("payloadFile")? {
        let warning = format!("payloadFile {file:?} has no effect with useRandomizedPayloads");
        fields.warn(warning);
    }
    let pool = fields.whole("randomizedPayloadPoolSize", 1..=PAYLOADS_MAX, None)?;
    Ok(Payload {
        random_ratio: fields.ratio("randomBytesRatio", 0.0)?,
        pool: Some(pool as u32),
    })
}

fn backlog(fields: &mut Fields) -> Result<Option<Backlog>, WorkloadError> {
    let gib = fields.whole("consumerBacklogSizeGB", 0..=BACKLOG_GIB_MAX, Some(0))?;
    let drain_ratio = fields.ratio("backlogDrainRatio", 1.0)?;
    let backlog = Backlog {
        bytes: gib << 30,
        drain_ratio,
    };
    Ok((gib > 0).then_some(backlog))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "
topics: 1
partitionsPerTopic: 1
messageSize: 100
subscriptionsPerTopic: 1
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: 1000
testDurationMinutes: 1
";

    fn parse(text: &str) -> Result<Imported, WorkloadError> {
        Workload::parse(text, "a file")
    }

    /// `LEAST` with fields changed or added.
    fn with(line: &str) -> Result<Imported, WorkloadError> {
        let changed: Vec<_> = line.lines().map(|line| line.split(':').next()).collect();
        let stays = |line: &&str| !changed.contains(&line.split(':').next());
        let lines = LEAST.lines().filter(stays).chain([line]);
        parse(&lines.collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn every_field_has_its_place() {
        let text = "
# By hand, with everything a file can say.
name: \"Orders, replayed\"
topics: 20
partitionsPerTopic: 8
keyDistributor: \"KEY_ROUND_ROBIN\"
messageSize: 2048

useRandomizedPayloads: true
randomBytesRatio: 0.25
randomizedPayloadPoolSize: 500

subscriptionsPerTopic: 3
consumerPerSubscription: 2
producersPerTopic: 4
producerRate: 120000     # of all producers

consumerBacklogSizeGB: 16
backlogDrainRatio: 0.99
testDurationMinutes: 30
warmupDurationMinutes: 5
";
        let workload = Workload {
            name: "Orders, replayed".to_owned(),
            topics: 20,
            partitions_per_topic: 8,
            keys: Keys::RoundRobin,
            message_bytes: 2048,
            payload: Payload {
                random_ratio: 0.25,
                pool: Some(500),
            },
            subscriptions_per_topic: 3,
            consumers_per_subscription: 2,
            producers_per_topic: 4,
            rate: Some(120_000),
            backlog: Some(Backlog {
                bytes: 16 << 30,
                drain_ratio: 0.99,
            }),
            test_minutes: 30,
            warmup_minutes: 5,
        };
        let imported = parse(text).expect("a workload");
        assert_eq!(imported.workload, workload);
        assert_eq!(imported.warnings, [] as [&str; 0]);
        assert_eq!(workload.partitions(), 160);
        assert_eq!(workload.producers(), 80);
        assert_eq!(workload.consumers(), 120);
        let schedule = workload.schedule().expect("a rate");
        assert_eq!(schedule.to_string(), "constant:120000");
    }

    #[test]
    fn what_a_file_leaves_out() {
        let Imported { workload, warnings } = parse(LEAST).expect("a workload");
        assert_eq!(workload.name, "a file");
        assert_eq!(workload.keys, Keys::None);
        assert_eq!((workload.warmup_minutes, workload.backlog), (1, None));
        let payload = Payload {
            random_ratio: 1.0,
            pool: None,
        };
        assert_eq!(workload.payload, payload);
        assert_eq!(warnings, [] as [&str; 0]);
    }

    #[test]
    fn a_rate_of_zero_is_to_be_found() {
        let imported = with("producerRate: 0").expect("a workload");
        assert_eq!(imported.workload.rate, None);
        assert_eq!(imported.workload.schedule(), None);
    }

    #[test]
    fn what_will_be_otherwise_is_said() {
        let check = |line: &str, expected: &[&str]| {
            assert_eq!(with(line).expect(line).warnings, expected, "{line}");
        };
        check("keyDistributor: RANDOM_NANO", &[]);
        check("payloadFile:", &[]);
        check(
            "payloadFile: payload/one.data",
            &[
                "payloadFile \"payload/one.data\" is not read: every payload is random bytes, which do not compress",
            ],
        );
        check(
            "payloadFile: one.data\nuseRandomizedPayloads: true\nrandomizedPayloadPoolSize: 5",
            &["payloadFile \"one.data\" has no effect with useRandomizedPayloads"],
        );
        check(
            "randomBytesRatio: 0.5",
            &["randomBytesRatio has no effect without useRandomizedPayloads"],
        );
        check(
            "producerRates: 5\nkeys: 7",
            &[
                "keys is no field of a workload and is passed over",
                "producerRates is no field of a workload and is passed over",
            ],
        );
    }

    #[test]
    fn wrong_fields_are_refused() {
        let check = |line: &str, expected: &str| {
            let refused = with(line).expect_err(line).to_string();
            assert_eq!(refused, expected, "{line}");
        };
        check(
            "topics: 0",
            "topics must be a whole number from 1 to 1000000, and is 0",
        );
        check(
            "topics: 1.5",
            "topics must be a whole number from 1 to 1000000, and is 1.5",
        );
        check(
            "topics: many",
            "topics must be a whole number from 1 to 1000000, and is \"many\"",
        );
        check(
            "topics: [1, 2]",
            "topics must be a whole number from 1 to 1000000, and is [1,2]",
        );
        check("topics: ", "topics is missing");
        check(
            "messageSize: 0",
            "messageSize must be a whole number from 1 to 16777216, and is 0",
        );
        check(
            "producerRate: -1",
            "producerRate must be a whole number from 0 to 100000000, and is -1",
        );
        check(
            "producersPerTopic: 0",
            "producersPerTopic must be a whole number from 1 to 10000, and is 0",
        );
        check(
            "testDurationMinutes: 0",
            "testDurationMinutes must be a whole number from 1 to 10080, and is 0",
        );
        check(
            "backlogDrainRatio: 1.1",
            "backlogDrainRatio must be a number from 0 to 1, and is 1.1",
        );
        check(
            "backlogDrainRatio: .nan",
            "no YAML of a workload: non-finite float `.nan` rejected by the configured policy at line 10, column 20",
        );
        check(
            "useRandomizedPayloads: 1",
            "useRandomizedPayloads must be true or false, and is 1",
        );
        check(
            "useRandomizedPayloads: true",
            "randomizedPayloadPoolSize is missing",
        );
        check(
            "keyDistributor: ZIPF",
            "keyDistributor must be NO_KEY, KEY_ROUND_ROBIN or RANDOM_NANO, and is \"ZIPF\"",
        );
        check("name: 5", "name must be text, and is 5");
        check(
            "topics: 1000\npartitionsPerTopic: 1001",
            "topics x partitionsPerTopic must not be more than 1000000",
        );
    }

    #[test]
    fn a_backlog_needs_a_rate_and_consumers() {
        let check = |text: &str, expected: &str| {
            let refused = parse(text).expect_err(text).to_string();
            assert_eq!(refused, expected);
        };
        let backlog = format!("{LEAST}consumerBacklogSizeGB: 5\n");
        check(
            &backlog.replace("producerRate: 1000", "producerRate: 0"),
            "consumerBacklogSizeGB needs a producerRate: the highest cannot be found while a backlog grows",
        );
        check(
            &backlog.replace("subscriptionsPerTopic: 1", "subscriptionsPerTopic: 0"),
            "consumerBacklogSizeGB needs consumers that drain it",
        );
    }

    #[test]
    fn when_a_backlog_counts_as_drained() {
        let check = |drain_ratio, expected| {
            let bytes = 1 << 30;
            let backlog = Backlog { bytes, drain_ratio };
            assert_eq!(backlog.drained_messages(1 << 10), expected);
        };
        check(1.0, 1_000);
        check(0.75, 1 << 18);
        check(0.0, 1 << 20);
    }

    #[test]
    fn what_is_no_workload_at_all() {
        let check = |text: &str| {
            let refused = parse(text).expect_err(text);
            assert!(
                matches!(&refused, WorkloadError::Yaml(_) | WorkloadError::Missing(_)),
                "{text}: {refused}"
            );
        };
        check("");
        check("5");
        check("- topics");
        check("topics: 1\ntopics: 2\n");
        check("{{{{");
        check("name: \"open");
        check("\0\u{1}\u{2}");
        let deep = "[".repeat(10_000);
        check(&format!("topics: {deep}"));
        let long = format!("{LEAST}# {}", "x".repeat(1 << 16));
        assert_eq!(parse(&long), Err(WorkloadError::TooLong));
    }

    #[test]
    fn a_file_gives_its_name() {
        let name = format!("forebay-workload-{}", std::process::id());
        let path = std::env::temp_dir().join(&name).with_extension("yaml");
        std::fs::write(&path, LEAST).expect("a file");
        let imported = Workload::read(&path);
        std::fs::remove_file(&path).expect("the file");
        assert_eq!(imported.expect("a workload").workload.name, name);
        let refused = Workload::read(&path).expect_err("no file").to_string();
        assert!(refused.contains("cannot be read"), "{refused}");
    }
}
