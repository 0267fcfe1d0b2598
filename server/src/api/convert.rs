//! Our words in the `kafka-protocol` crate's types, for the handlers of the control plane.

use forebay_engine::{LogId, PartitionIndex, TopicId};
use kafka_protocol::{messages::BrokerId, protocol::StrBytes};
use uuid::Uuid;

use crate::{
    meta::{Image, Topic, controller::Refusal},
    shard::Shard,
    wire::ErrorCode,
};

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

pub fn broker_ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

/// Who serves a partition.
pub struct Serving {
    /// -1 for nobody.
    pub leader: BrokerId,
    pub error: ErrorCode,
    /// Replicas on brokers that are not there, or that could not open the log.
    pub offline_replicas: Vec<BrokerId>,
}

/// As Kafka has it with a failed disk: no leader, and clients ask again. A partition whose log failed later keeps its leader, since
/// it still serves what is durable.
pub fn serving(shard: &Shard, image: &Image, topic: &Topic, index: usize) -> Serving {
    let state = &topic.partitions[index];
    let log = LogId {
        topic_id: topic.id,
        partition: PartitionIndex(index as i32),
    };
    let this_broker = shard.config.node_id;
    let fails_here = state.replicas.contains(&this_broker) && shard.is_offline_anywhere(log);
    let serves = |id: &i32| {
        let is_there = image.brokers.get(id).is_some_and(|broker| !broker.fenced);
        is_there && !(*id == this_broker && fails_here)
    };
    let leader = state
        .leader
        .filter(|leader| *leader != this_broker || !fails_here);
    let gone = state.replicas.iter().filter(|id| !serves(id));
    Serving {
        leader: BrokerId(leader.unwrap_or(-1)),
        error: match leader {
            Some(_) => ErrorCode::None,
            None => ErrorCode::LeaderNotAvailable,
        },
        offline_replicas: gone.copied().map(BrokerId).collect(),
    }
}

/// Error code and message of one item of a reply.
pub fn outcome<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(refusal) => (
            ErrorCode::from(refusal.why).code(),
            Some(text(&refusal.message)),
        ),
    }
}
