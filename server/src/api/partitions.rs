//! From the names of the wire to a partition and the shard that owns it. Shared by the handlers that ask partitions something.

use std::sync::Arc;

use forebay_engine::{LogId, PartitionIndex, ShardId};

use crate::{
    meta::{Image, PartitionState, Topic},
    shard::Shard,
    wire::ErrorCode,
};

/// A partition that exists, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct Located {
    pub log: LogId,
    pub owner: ShardId,
}

/// Finds a partition of a topic; the error is the one clients refresh their metadata on.
pub fn locate(shard: &Shard, topic: Option<&Arc<Topic>>, index: i32) -> Result<Located, ErrorCode> {
    let topic = topic.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let state = state_of(topic, index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if state.leader != Some(shard.config.node_id) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    Ok(Located {
        log: LogId {
            topic_id: topic.id,
            partition: PartitionIndex(index),
        },
        owner: shard.shard_of_lane(state.lane),
    })
}

/// Broker and epoch of a partition's leader, for errors that tell the client where to go.
pub fn leader_of(image: &Image, topic: &str, index: i32) -> Option<(i32, i32)> {
    let state = state_of(image.topics.get(topic)?, index)?;
    Some((state.leader?, state.leader_epoch.0))
}

fn state_of(topic: &Topic, index: i32) -> Option<&PartitionState> {
    topic.partitions.get(usize::try_from(index).ok()?)
}
