//! The controller's decisions: a request and the image become records and a reply. Pure: no I/O, no clock, no await.
//!
//! Items of one request are decided one after the other, each on what the ones before it would make of the image, so that a batch
//! cannot contain two topics of one name. Records are applied while they are gathered: a decision that the image would refuse
//! stops here, as the bug it is, and not after it was written.

mod brokers;
mod configs;
mod names;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use forebay_engine::{Offset, TopicId};

pub use brokers::{Registration, first_records};
pub use configs::{AlterConfigs, AlterOperation, ResourceName};
pub use names::{INTERNAL_TOPICS, METADATA_TOPIC, check_name};
pub use topics::{CreatedTopic, NewPartitions, NewTopic, TopicRef};

use names::plain_name;

use super::{
    image::Image,
    records::{GROUP_BYTES_MAX, Record, encode},
};
use crate::config::Config;

/// Producer ids given to a broker at a time.
pub const PRODUCER_IDS_PER_BLOCK: i64 = 1000;

#[derive(Clone, Debug)]
pub enum Request {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        resources: Vec<AlterConfigs>,
        validate_only: bool,
    },
    RegisterBroker(Registration),
    AllocateProducerIds {
        broker: i32,
    },
}

/// One result per item, in the order of the request.
#[derive(Clone, Debug)]
pub enum Reply {
    CreateTopics(Vec<Result<CreatedTopic, Refusal>>),
    DeleteTopics(Vec<Result<DeletedTopic, Refusal>>),
    CreatePartitions(Vec<Result<(), Refusal>>),
    AlterConfigs(Vec<Result<(), Refusal>>),
    /// The broker's epoch.
    RegisterBroker(i64),
    /// The first id of the block.
    AllocateProducerIds(i64),
    /// The request as a whole.
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    pub name: String,
    pub id: TopicId,
}

/// Why something was not done. The API layer gives it Kafka's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    InvalidTopicName,
    TopicExists,
    UnknownTopic,
    UnknownTopicId,
    TopicDeletionDisabled,
    InvalidPartitions,
    InvalidReplicationFactor,
    InvalidReplicaAssignment,
    InvalidConfig,
    InvalidRequest,
    /// A limit of the operator.
    Policy,
    UnknownBroker,
    /// The metadata cannot be changed now: the broker is starting or stopping, or has no majority.
    Unavailable,
    /// The metadata log is offline.
    Storage,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: Refused,
    /// For the person at the client.
    pub message: String,
}

impl Refusal {
    pub fn new(why: Refused, message: impl Into<String>) -> Refusal {
        Refusal {
            why,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub struct Decision {
    /// One group; empty when nothing changes.
    pub records: Vec<Record>,
    /// Valid once the records are committed.
    pub reply: Reply,
}

/// Decides a request on the newest image. `random` makes topic ids.
pub fn decide(
    image: &Image,
    config: &Config,
    random: &mut dyn FnMut() -> u64,
    request: &Request,
) -> Decision {
    let mut draft = Draft {
        image: image.clone(),
        config,
        random,
        records: Vec::new(),
        partitions: image.partition_count(),
        plain_names: None,
    };
    let (reply, dry) = match request {
        Request::CreateTopics {
            topics,
            validate_only,
        } => (
            Reply::CreateTopics(topics::create(&mut draft, topics)),
            *validate_only,
        ),
        Request::DeleteTopics { topics } => (
            Reply::DeleteTopics(topics::delete(&mut draft, topics)),
            false,
        ),
        Request::CreatePartitions {
            topics,
            validate_only,
        } => (
            Reply::CreatePartitions(topics::grow(&mut draft, topics)),
            *validate_only,
        ),
        Request::AlterConfigs {
            resources,
            validate_only,
        } => (
            Reply::AlterConfigs(configs::alter(&mut draft, resources)),
            *validate_only,
        ),
        Request::RegisterBroker(registration) => {
            (brokers::register(&mut draft, registration), false)
        }
        Request::AllocateProducerIds { broker } => {
            (allocate_producer_ids(&mut draft, *broker), false)
        }
    };
    let records = if dry { Vec::new() } else { draft.records };
    if encode(&records).len() > GROUP_BYTES_MAX {
        return Decision {
            records: Vec::new(),
            reply: Reply::Refused(Refusal::new(
                Refused::Policy,
                "the request changes too much at once, split it",
            )),
        };
    }
    Decision { records, reply }
}

fn allocate_producer_ids(draft: &mut Draft, broker: i32) -> Reply {
    if !draft.image.brokers.contains_key(&broker) {
        return Reply::Refused(unknown_broker(broker));
    }
    let first = draft.image.next_producer_id;
    let Some(next) = first.checked_add(PRODUCER_IDS_PER_BLOCK) else {
        return Reply::Refused(Refusal::new(Refused::Policy, "producer ids are used up"));
    };
    draft.push(vec![Record::ProducerIds { next }]);
    Reply::AllocateProducerIds(first)
}

fn unknown_broker(broker: i32) -> Refusal {
    Refusal::new(
        Refused::UnknownBroker,
        format!("There is no broker {broker}."),
    )
}

/// Records gathered so far, and the image they make.
struct Draft<'a> {
    image: Image,
    config: &'a Config,
    random: &'a mut dyn FnMut() -> u64,
    records: Vec<Record>,
    /// Of the image and the items so far; topics deleted in this request still count.
    partitions: usize,
    /// Topics by their names as metrics write them, made on first need: a batch must not compare each new name with each old one.
    plain_names: Option<HashMap<String, String>>,
}

impl Draft<'_> {
    /// Takes the records of one item.
    fn push(&mut self, records: Vec<Record>) {
        // The group has one offset, and its items are applied here one by one: they all get the offset they will have.
        let end = self.image.end;
        self.image
            .apply(end.unwrap_or(Offset::ZERO), &records)
            .expect("the controller's records fit the image it decided on");
        self.image.end = end;
        let added = |record: &&Record| matches!(record, Record::Partition { .. });
        self.partitions += records.iter().filter(added).count();
        self.records.extend(records);
    }

    /// The topic that metrics cannot tell from `name`, if there is one.
    fn colliding(&mut self, name: &str) -> Option<&str> {
        let topics = &self.image.topics;
        let names = self.plain_names.get_or_insert_with(|| {
            let names = topics.keys();
            names.map(|name| (plain_name(name), name.clone())).collect()
        });
        names.get(&plain_name(name)).map(String::as_str)
    }

    /// A random UUID of version 4 that no topic has.
    fn new_topic_id(&mut self) -> TopicId {
        loop {
            let (high, low) = ((self.random)(), (self.random)());
            let mut bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            let id = TopicId(bytes);
            // Kafka's notation of such an id may begin with a dash, which command lines take for a flag.
            if !id.to_string().starts_with('-') && self.image.topic(id).is_none() {
                return id;
            }
        }
    }
}

/// Names that occur more than once.
fn duplicates<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_insert(0) += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts.into_keys().collect()
}
