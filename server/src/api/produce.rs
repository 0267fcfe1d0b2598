//! Produce: append batches of records to partitions.
//!
//! The records are split off the frame, not copied: each partition's batch is a `BytesMut` of its own, so that the log
//! can write offset and epoch into it in place.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{TopicName, TransactionalId},
    protocol::StrBytes,
};

use crate::wire::{
    Decode, DecodeError, ErrorCode, Reader, RequestHeader,
    reply::{Frame, FrameTooLarge},
};

#[derive(Debug, PartialEq)]
pub struct ProduceRequest {
    pub transactional_id: Option<TransactionalId>,
    /// See [`Acks::from_wire`].
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<ProduceTopic>,
}

#[derive(Debug, PartialEq)]
pub struct ProduceTopic {
    pub name: TopicName,
    pub partitions: Vec<ProducePartition>,
}

#[derive(Debug, PartialEq)]
pub struct ProducePartition {
    pub index: i32,
    /// What should be exactly one batch; not looked at yet.
    pub records: Option<BytesMut>,
}

/// When the producer wants to hear of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Never: there is no reply.
    None,
    /// When the leader counts them.
    Leader,
    /// When all in-sync replicas count them.
    All,
}

impl Acks {
    /// `None` is answered with INVALID_REQUIRED_ACKS.
    pub fn from_wire(acks: i16) -> Option<Acks> {
        match acks {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        }
    }
}

impl Decode for ProduceRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(ProduceRequest {
            transactional_id: reader.nullable_string()?,
            acks: reader.i16()?,
            timeout_ms: reader.i32()?,
            topics: reader.structures(version)?,
        })
    }
}

impl Decode for ProduceTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(ProduceTopic {
            name: reader.string()?,
            partitions: reader.structures(version)?,
        })
    }
}

impl Decode for ProducePartition {
    const BYTES_MIN: usize = 5;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        Ok(ProducePartition {
            index: reader.i32()?,
            records: reader.bytes_mut()?,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProduceReply {
    pub topics: Vec<ProduceTopicReply>,
    pub throttle_time_ms: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProduceTopicReply {
    pub name: TopicName,
    pub partitions: Vec<ProducePartitionReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ProducePartitionReply {
    pub index: i32,
    pub error: ErrorCode,
    /// -1 on an error.
    pub base_offset: i64,
    /// -1 unless the topic stamps records with the time of the append.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// Which records of the batch are at fault, if not the batch as a whole.
    pub record_errors: Vec<RecordError>,
    pub error_message: Option<StrBytes>,
    /// With NOT_LEADER_OR_FOLLOWER, where the leader is: broker and leader epoch.
    pub current_leader: Option<(i32, i32)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RecordError {
    pub batch_index: i32,
    pub message: Option<StrBytes>,
}

impl ProducePartitionReply {
    pub fn failed(index: i32, error: ErrorCode) -> ProducePartitionReply {
        ProducePartitionReply {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

impl ProduceReply {
    pub fn encode(&self, header: &RequestHeader) -> Result<Bytes, FrameTooLarge> {
        let partitions: usize = self.topics.iter().map(|t| t.partitions.len()).sum();
        let mut frame = Frame::new(header, 32 + 48 * partitions + 64 * self.topics.len());
        frame.count(self.topics.len());
        for topic in &self.topics {
            frame.string(&topic.name);
            frame.count(topic.partitions.len());
            for partition in &topic.partitions {
                partition.encode(&mut frame, header.version);
            }
            frame.tagged_fields(0);
        }
        frame.i32(self.throttle_time_ms);
        frame.tagged_fields(0);
        frame.finish_contiguous()
    }
}

impl ProducePartitionReply {
    fn encode(&self, frame: &mut Frame, version: i16) {
        frame.i32(self.index);
        frame.i16(self.error.code());
        frame.i64(self.base_offset);
        frame.i64(self.log_append_time_ms);
        if version >= 5 {
            frame.i64(self.log_start_offset);
        }
        if version >= 8 {
            frame.count(self.record_errors.len());
            for error in &self.record_errors {
                frame.i32(error.batch_index);
                frame.nullable_string(error.message.as_deref());
                frame.tagged_fields(0);
            }
            frame.nullable_string(self.error_message.as_deref());
        }
        match self.current_leader {
            Some((leader_id, leader_epoch)) if version >= 10 => {
                frame.tagged_fields(1);
                frame.tagged_field(0, |frame| {
                    frame.i32(leader_id);
                    frame.i32(leader_epoch);
                    frame.tagged_fields(0);
                });
            }
            _ => frame.tagged_fields(0),
        }
    }
}
