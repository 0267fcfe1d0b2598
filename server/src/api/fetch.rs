//! Fetch: read records from partitions, waiting for them if there are none yet.
//!
//! Records leave as the slices they are in the log: nothing is copied between log and socket.

use bytes::Bytes;
use forebay_engine::LeaderEpoch;
use kafka_protocol::{messages::TopicName, protocol::StrBytes};

use crate::wire::{
    Decode, DecodeError, ErrorCode, Reader, RequestHeader,
    reply::{Frame, FrameTooLarge},
};

#[derive(Clone, Debug, PartialEq)]
pub struct FetchRequest {
    /// -1 for a consumer.
    pub replica_id: i32,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub isolation_level: IsolationLevel,
    /// 0: none yet.
    pub session_id: i32,
    /// 0 opens a session, -1 closes it or does without, others count its requests.
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    /// No longer part of the session.
    pub forgotten_topics: Vec<ForgottenTopic>,
    pub rack_id: StrBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopic {
    pub topic: TopicName,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    pub index: i32,
    /// `None`: the client does not know, and is not fenced.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Not checked: may be negative.
    pub fetch_offset: i64,
    /// The epoch of the last record the client has, if it wants to hear of a divergence.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Of the follower; -1 for a consumer.
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ForgottenTopic {
    pub topic: TopicName,
    pub partitions: Vec<i32>,
}

impl IsolationLevel {
    pub fn from_wire(level: i8) -> Option<IsolationLevel> {
        match level {
            0 => Some(IsolationLevel::ReadUncommitted),
            1 => Some(IsolationLevel::ReadCommitted),
            _ => None,
        }
    }
}

/// Negative epochs on the wire stand for "not known".
pub fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

impl Decode for FetchRequest {
    /// The cluster id, a tagged field of version 12, is skipped: only the controllers' own fetches use it.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(FetchRequest {
            replica_id: reader.i32()?,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation_level: IsolationLevel::from_wire(reader.i8()?)
                .ok_or_else(|| reader.unknown("isolation level"))?,
            session_id: if version >= 7 { reader.i32()? } else { 0 },
            session_epoch: if version >= 7 { reader.i32()? } else { -1 },
            topics: reader.structures(version)?,
            forgotten_topics: if version >= 7 {
                reader.structures(version)?
            } else {
                Vec::new()
            },
            rack_id: if version >= 11 {
                reader.string()?
            } else {
                StrBytes::new()
            },
        })
    }
}

impl Decode for FetchTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(FetchTopic {
            topic: reader.string()?,
            partitions: reader.structures(version)?,
        })
    }
}

impl Decode for FetchPartition {
    const BYTES_MIN: usize = 16;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let index = reader.i32()?;
        let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let fetch_offset = reader.i64()?;
        let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
        let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
        Ok(FetchPartition {
            index,
            current_leader_epoch: known_epoch(current_leader_epoch),
            fetch_offset,
            last_fetched_epoch: known_epoch(last_fetched_epoch),
            log_start_offset,
            partition_max_bytes: reader.i32()?,
        })
    }
}

impl Decode for ForgottenTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        Ok(ForgottenTopic {
            topic: reader.string()?,
            partitions: reader.i32s()?,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchReply {
    pub throttle_time_ms: i32,
    /// Of the request as a whole: told from version 7 on.
    pub error: ErrorCode,
    /// 0: no session.
    pub session_id: i32,
    pub topics: Vec<FetchTopicReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopicReply {
    pub topic: TopicName,
    pub partitions: Vec<FetchPartitionReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartitionReply {
    pub index: i32,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Epoch and end offset at which the client's log leaves ours.
    pub diverging_epoch: Option<(i32, i64)>,
    /// With NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH, where the leader is: broker and leader epoch.
    pub current_leader: Option<(i32, i32)>,
    /// `None` (null on the wire) for consumers that read uncommitted records.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1: stay here.
    pub preferred_read_replica: i32,
    /// Whole batches, one after the other.
    pub records: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl FetchPartitionReply {
    /// Without records and marks.
    pub fn failed(index: i32, error: ErrorCode) -> FetchPartitionReply {
        FetchPartitionReply {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

impl FetchReply {
    /// The reply as slices, to be sent one after the other: the records are those given, not copies.
    pub fn encode(self, header: &RequestHeader) -> Result<Vec<Bytes>, FrameTooLarge> {
        let version = header.version;
        let partitions: usize = self.topics.iter().map(|t| t.partitions.len()).sum();
        let mut frame = Frame::new(header, 32 + 64 * partitions + 64 * self.topics.len());
        frame.i32(self.throttle_time_ms);
        if version >= 7 {
            frame.i16(self.error.code());
            frame.i32(self.session_id);
        }
        frame.count(self.topics.len());
        for topic in self.topics {
            frame.string(&topic.topic);
            frame.count(topic.partitions.len());
            for partition in topic.partitions {
                partition.encode(&mut frame, version);
            }
            frame.tagged_fields(0);
        }
        frame.tagged_fields(0);
        frame.finish()
    }
}

impl FetchPartitionReply {
    fn encode(self, frame: &mut Frame, version: i16) {
        frame.i32(self.index);
        frame.i16(self.error.code());
        frame.i64(self.high_watermark);
        frame.i64(self.last_stable_offset);
        if version >= 5 {
            frame.i64(self.log_start_offset);
        }
        match &self.aborted_transactions {
            None => frame.null_array(),
            Some(aborted) => {
                frame.count(aborted.len());
                for transaction in aborted {
                    frame.i64(transaction.producer_id);
                    frame.i64(transaction.first_offset);
                    frame.tagged_fields(0);
                }
            }
        }
        if version >= 11 {
            frame.i32(self.preferred_read_replica);
        }
        frame.records(self.records);
        if version < 12 {
            return;
        }
        let diverging = self.diverging_epoch;
        let leader = self.current_leader;
        frame.tagged_fields(u32::from(diverging.is_some()) + u32::from(leader.is_some()));
        if let Some((epoch, end_offset)) = diverging {
            frame.tagged_field(0, |frame| {
                frame.i32(epoch);
                frame.i64(end_offset);
                frame.tagged_fields(0);
            });
        }
        if let Some((leader_id, leader_epoch)) = leader {
            frame.tagged_field(1, |frame| {
                frame.i32(leader_id);
                frame.i32(leader_epoch);
                frame.tagged_fields(0);
            });
        }
    }
}
