//! Produce: append batches of records to partitions.
//!
//! The records are split off the frame, not copied: each partition's batch is a `BytesMut` of its own, so that the log
//! can write offset and epoch into it in place.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{TopicName, TransactionalId},
    protocol::StrBytes,
};

use std::{rc::Rc, sync::Arc, time::Duration};

use forebay_engine::{
    AppendError, LogId, ShardId,
    batch::{BatchError, Codec, ValidBatch, validate},
};

use super::{
    Outcome,
    partitions::{leader_of, locate},
    reply_or_close,
};
use crate::{
    meta::{Image, Topic},
    partition::{Append, AppendFailure, AppendOutcome, Appends},
    shard::Shard,
    wire::{
        Decode, DecodeError, ErrorCode, Reader, RequestHeader,
        reply::{Frame, FrameTooLarge},
    },
};

/// From this version on clients may send zstd.
const ZSTD_FROM_VERSION: i16 = 7;

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

/// How long a produce with acks=1 may wait for the disk, whatever its own timeout says.
const LEADER_TIMEOUT_MIN: Duration = Duration::from_secs(30);

/// Validates every batch here, on the connection's core, appends all of them at once where they belong, and replies when they are
/// committed. All effects are queued before the first await.
pub async fn produce(
    shard: Rc<Shard>,
    request: ProduceRequest,
    header: RequestHeader,
    frame_bytes: usize,
) -> Outcome {
    let acks = Acks::from_wire(request.acks);
    if acks.is_none() || request.transactional_id.is_some() {
        let error = match acks {
            None => ErrorCode::InvalidRequiredAcks,
            // Nobody waits for a reply, so one would be taken for the reply to the next request.
            Some(Acks::None) => return Outcome::Close,
            Some(_) => ErrorCode::InvalidTxnState,
        };
        let reply = reply_to_all(request, error);
        return reply_or_close(&header, reply.encode(&header).map(|bytes| vec![bytes]));
    }
    let wait = acks != Some(Acks::None);
    let mut timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    if acks == Some(Acks::Leader) {
        // Kafka has no timeout for acks=1: its leader does not wait. Ours waits for its disk, and a client that gave a
        // short one must not be told to send again what is there.
        timeout = timeout.max(LEADER_TIMEOUT_MIN);
    }
    let image = shard.image();
    let mut appends = Vec::new();
    let topics: Vec<TopicInFlight> = request
        .topics
        .into_iter()
        .map(|topic| {
            let known = image.topics.get(topic.name.as_str());
            let partitions = topic.partitions.into_iter().map(|partition| {
                let index = partition.index;
                let place = match prepare(&shard, known, partition, header.version) {
                    Ok((owner, log, batch)) => {
                        let append = Append {
                            log,
                            batch,
                            frame_bytes,
                        };
                        appends.push((owner, append));
                        Ok(appends.len() - 1)
                    }
                    Err(refused) => Err(refused),
                };
                (index, place)
            });
            TopicInFlight {
                partitions: partitions.collect(),
                name: topic.name,
            }
        })
        .collect();
    let ask = move |shard: &Rc<Shard>, owner, appends| {
        let request = Appends {
            appends,
            wait,
            timeout,
        };
        shard.append(owner, request)
    };
    let mut outcomes = shard.scatter(appends, ask).await;
    let partition_reply = |name: &TopicName, index, place: Result<usize, Refused>| match place {
        Err(refused) => refused.reply(&image, name, index),
        Ok(at) => match outcomes[at].take() {
            Some(outcome) => reply_to(&image, name, index, outcome),
            None => ProducePartitionReply::failed(index, ErrorCode::NotLeaderOrFollower),
        },
    };
    let reply = in_flight_to_reply(topics, partition_reply);
    if !wait {
        // Nobody hears of an error: the client learns of it by losing the connection.
        let failed = |topic: &ProduceTopicReply| {
            let failed = |partition: &ProducePartitionReply| !partition.error.is_none();
            topic.partitions.iter().any(failed)
        };
        let any_failed = reply.topics.iter().any(failed);
        return if any_failed {
            Outcome::Close
        } else {
            Outcome::Silent
        };
    }
    reply_or_close(&header, reply.encode(&header).map(|bytes| vec![bytes]))
}

/// A topic of the request while its batches are on their way: for each partition the place of its outcome.
struct TopicInFlight {
    name: TopicName,
    partitions: Vec<(i32, Result<usize, Refused>)>,
}

/// A batch that does not get to a log.
enum Refused {
    Partition(ErrorCode),
    Batch(BatchError),
}

fn prepare(
    shard: &Shard,
    topic: Option<&Arc<Topic>>,
    partition: ProducePartition,
    version: i16,
) -> Result<(ShardId, LogId, ValidBatch), Refused> {
    let located = locate(shard, topic, partition.index).map_err(Refused::Partition)?;
    let topic = topic.expect("a partition that was located has a topic");
    // Only its coordinator may write there: it could not read what others write.
    if topic.internal {
        return Err(Refused::Partition(ErrorCode::InvalidTopicException));
    }
    let records = partition
        .records
        .ok_or(Refused::Partition(ErrorCode::InvalidRecord))?;
    let batch = validate(records, &shard.batch_rules(topic), shard.rt.wall_clock())
        .map_err(Refused::Batch)?;
    if version < ZSTD_FROM_VERSION && batch.header().codec() == Ok(Codec::Zstd) {
        return Err(Refused::Partition(ErrorCode::UnsupportedCompressionType));
    }
    Ok((located.owner, located.log, batch))
}

impl Refused {
    fn reply(self, image: &Image, topic: &str, index: i32) -> ProducePartitionReply {
        match self {
            Refused::Partition(error) => failed(image, topic, index, error),
            Refused::Batch(error) => {
                let mut reply = ProducePartitionReply::failed(index, ErrorCode::from(&error));
                reply.error_message = Some(StrBytes::from_string(error.to_string()));
                let at_fault = match &error {
                    BatchError::KeyMissing { indices } => indices.as_slice(),
                    BatchError::Timestamp { index, .. } => std::slice::from_ref(index),
                    _ => &[],
                };
                let record_error = |batch_index: &i32| RecordError {
                    batch_index: *batch_index,
                    message: None,
                };
                reply.record_errors = at_fault.iter().map(record_error).collect();
                reply
            }
        }
    }
}

fn reply_to(
    image: &Image,
    topic: &str,
    index: i32,
    outcome: AppendOutcome,
) -> ProducePartitionReply {
    match outcome {
        Ok(appended) => ProducePartitionReply {
            index,
            error: ErrorCode::None,
            base_offset: appended.base_offset.get(),
            log_append_time_ms: appended.append_time.map_or(-1, |time| time.0),
            log_start_offset: appended.log_start.get(),
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        },
        Err(failure) => {
            let mut reply = failed(image, topic, index, ErrorCode::from(&failure));
            if let AppendFailure::Log(error @ AppendError::DiskLow) = &failure {
                reply.error_message = Some(StrBytes::from_string(error.to_string()));
            }
            reply
        }
    }
}

fn failed(image: &Image, topic: &str, index: i32, error: ErrorCode) -> ProducePartitionReply {
    let mut reply = ProducePartitionReply::failed(index, error);
    if error == ErrorCode::NotLeaderOrFollower {
        reply.current_leader = leader_of(image, topic, index);
    }
    reply
}

fn reply_to_all(request: ProduceRequest, error: ErrorCode) -> ProduceReply {
    let topics = request.topics.into_iter().map(|topic| TopicInFlight {
        name: topic.name,
        partitions: topic
            .partitions
            .into_iter()
            .map(|partition| (partition.index, Err(Refused::Partition(error))))
            .collect(),
    });
    in_flight_to_reply(topics.collect(), |_, index, _| {
        ProducePartitionReply::failed(index, error)
    })
}

fn in_flight_to_reply(
    topics: Vec<TopicInFlight>,
    mut partition_reply: impl FnMut(&TopicName, i32, Result<usize, Refused>) -> ProducePartitionReply,
) -> ProduceReply {
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic
            .partitions
            .into_iter()
            .map(|(index, place)| partition_reply(&topic.name, index, place));
        ProduceTopicReply {
            partitions: partitions.collect(),
            name: topic.name.clone(),
        }
    });
    ProduceReply {
        topics: topics.collect(),
        throttle_time_ms: 0,
    }
}
