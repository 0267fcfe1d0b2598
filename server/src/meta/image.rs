//! The immutable picture of the cluster that every shard reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use forebay_engine::{LeaderEpoch, Offset, TopicId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
    /// Grows with every start of the broker: the metadata offset of its registration.
    pub epoch: i64,
    pub fenced: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Which lane, and so which core of each host, the partition belongs to. Fixed at creation.
    pub lane: u16,
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this state.
    pub version: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    /// `__consumer_offsets` and the like.
    pub internal: bool,
    pub partitions: Vec<PartitionState>,
    /// Only what was set on the topic itself, under Kafka's names.
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub cluster_id: String,
    /// The metadata offset this image includes everything below of.
    pub end: Option<Offset>,
    pub brokers: BTreeMap<i32, Broker>,
    pub topics: BTreeMap<String, Arc<Topic>>,
    pub topics_by_id: HashMap<TopicId, Arc<Topic>>,
    /// Dynamic broker configuration: `None` is the cluster-wide default.
    pub broker_configs: BTreeMap<Option<i32>, BTreeMap<String, String>>,
    /// The first producer id not yet given to any broker as part of a block.
    pub next_producer_id: i64,
}
