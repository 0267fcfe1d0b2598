//! DeleteRecords and OffsetForLeaderEpoch: where a partition's records begin, and where an epoch of them ends.

use std::rc::Rc;

use forebay_engine::{LeaderEpoch, Offset};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
};

use super::{fetch::known_epoch, partitions::locate};
use crate::{
    partition::{DeleteRecords, EpochEndQuery},
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

impl Decode for DeleteRecordsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DeleteRecordsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        Ok(request)
    }
}

impl Decode for DeleteRecordsTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = DeleteRecordsTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for DeleteRecordsPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = DeleteRecordsPartition::default();
        partition.partition_index = reader.i32()?;
        partition.offset = reader.i64()?;
        Ok(partition)
    }
}

impl Decode for OffsetForLeaderEpochRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetForLeaderEpochRequest::default();
        if version >= 3 {
            request.replica_id = reader.i32()?.into();
        }
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetForLeaderTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetForLeaderTopic::default();
        topic.topic = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetForLeaderPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetForLeaderPartition::default();
        partition.partition = reader.i32()?;
        partition.current_leader_epoch = reader.i32()?;
        partition.leader_epoch = reader.i32()?;
        Ok(partition)
    }
}

pub async fn delete_records(
    shard: &Rc<Shard>,
    request: DeleteRecordsRequest,
    _version: i16,
) -> DeleteRecordsResponse {
    let image = shard.image();
    let mut places = Vec::new();
    let mut calls = Vec::new();
    for topic in &request.topics {
        let known = image.topics.get(topic.name.as_str());
        for partition in &topic.partitions {
            let below = match partition.offset {
                -1 => Ok(None),
                offset => Offset::from_wire(offset)
                    .map(Some)
                    .ok_or(ErrorCode::OffsetOutOfRange),
            };
            let internal = known.is_some_and(|topic| topic.internal);
            let place = locate(shard, known, partition.partition_index).and_then(|located| {
                if internal {
                    return Err(ErrorCode::PolicyViolation);
                }
                let log = located.log;
                calls.push((located.owner, DeleteRecords { log, below: below? }));
                Ok(calls.len() - 1)
            });
            places.push(place);
        }
    }
    let mut starts = shard.scatter(calls, Shard::delete_records).await;
    let mut places = places.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = places.next().expect("one place per partition");
            let start = place.and_then(|at| match starts[at].take() {
                None => Err(ErrorCode::NotLeaderOrFollower),
                Some(start) => start.map_err(|failure| ErrorCode::from(&failure)),
            });
            DeleteRecordsPartitionResult::default()
                .with_partition_index(partition.partition_index)
                .with_low_watermark(start.map_or(-1, Offset::get))
                .with_error_code(start.err().unwrap_or(ErrorCode::None).code())
        });
        DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

pub async fn offset_for_leader_epoch(
    shard: &Rc<Shard>,
    request: OffsetForLeaderEpochRequest,
    _version: i16,
) -> OffsetForLeaderEpochResponse {
    let image = shard.image();
    let mut places = Vec::new();
    let mut queries = Vec::new();
    for topic in &request.topics {
        let known = image.topics.get(topic.topic.as_str());
        for partition in &topic.partitions {
            let place = locate(shard, known, partition.partition).map(|located| {
                let query = EpochEndQuery {
                    log: located.log,
                    current_epoch: known_epoch(partition.current_leader_epoch),
                    epoch: LeaderEpoch(partition.leader_epoch),
                };
                queries.push((located.owner, query));
                queries.len() - 1
            });
            places.push(place);
        }
    }
    let mut ends = shard.scatter(queries, Shard::end_of_epochs).await;
    let mut places = places.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = places.next().expect("one place per partition");
            let end = place.and_then(|at| match ends[at].take() {
                None => Err(ErrorCode::NotLeaderOrFollower),
                Some(end) => end.map_err(|failure| ErrorCode::from(&failure)),
            });
            // An epoch we do not know is not an error: -1 tells the client so.
            let known = end.ok().flatten();
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(end.err().unwrap_or(ErrorCode::None).code())
                .with_leader_epoch(known.map_or(-1, |(epoch, _)| epoch.0))
                .with_end_offset(known.map_or(-1, |(_, end)| end.get()))
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
