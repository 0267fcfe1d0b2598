//! ListOffsets: the offset for a timestamp, and the first and last offsets of partitions.

use std::rc::Rc;

use forebay_engine::Timestamp;
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
};

use super::{
    fetch::{IsolationLevel, known_epoch},
    partitions::locate,
};
use crate::{
    partition::{FindOffset, FoundOffset, Isolation, OffsetSpec, ReadFailure},
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

impl Decode for ListOffsetsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ListOffsetsRequest::default();
        request.replica_id = reader.i32()?.into();
        if version >= 2 {
            request.isolation_level = reader.i8()?;
        }
        request.topics = reader.structures(version)?;
        if version >= 10 {
            request.timeout_ms = reader.i32()?;
        }
        Ok(request)
    }
}

impl Decode for ListOffsetsTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = ListOffsetsTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for ListOffsetsPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut partition = ListOffsetsPartition::default();
        partition.partition_index = reader.i32()?;
        if version >= 4 {
            partition.current_leader_epoch = reader.i32()?;
        }
        partition.timestamp = reader.i64()?;
        Ok(partition)
    }
}

pub async fn list_offsets(
    shard: &Rc<Shard>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let image = shard.image();
    let isolation = match IsolationLevel::from_wire(request.isolation_level) {
        Some(IsolationLevel::ReadCommitted) => Isolation::ReadCommitted,
        _ => Isolation::ReadUncommitted,
    };
    // Errors stay in their place; queries are answered into theirs.
    let mut places = Vec::new();
    let mut queries = Vec::new();
    for topic in &request.topics {
        let known = image.topics.get(topic.name.as_str());
        for partition in &topic.partitions {
            let spec = spec_of(partition.timestamp, version);
            let place = match (locate(shard, known, partition.partition_index), spec) {
                (Err(error), _) => Err(error),
                (_, None) => Err(ErrorCode::UnsupportedVersion),
                (Ok(located), Some(spec)) => {
                    let query = FindOffset {
                        log: located.log,
                        current_epoch: known_epoch(partition.current_leader_epoch),
                        spec,
                        isolation,
                    };
                    queries.push((located.owner, query));
                    Ok(queries.len() - 1)
                }
            };
            places.push(place);
        }
    }
    let mut found = shard.scatter(queries, Shard::find_offsets).await;
    let mut places = places.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let place = places.next().expect("one place per partition");
            let answer =
                place.and_then(|at| found[at].take().ok_or(ErrorCode::NotLeaderOrFollower));
            partition_reply(partition.partition_index, answer, version)
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// `None` for a negative number that this version does not give a meaning.
fn spec_of(timestamp: i64, version: i16) -> Option<OffsetSpec> {
    match timestamp {
        0.. => Some(OffsetSpec::AtOrAfter(Timestamp(timestamp))),
        -1 => Some(OffsetSpec::Latest),
        -2 => Some(OffsetSpec::Earliest),
        -3 if version >= 7 => Some(OffsetSpec::MaxTimestamp),
        -4 if version >= 8 => Some(OffsetSpec::Earliest),
        -5 if version >= 9 => Some(OffsetSpec::LatestTiered),
        _ => None,
    }
}

fn partition_reply(
    index: i32,
    answer: Result<Result<Option<FoundOffset>, ReadFailure>, ErrorCode>,
    version: i16,
) -> ListOffsetsPartitionResponse {
    // Versions before 4 have no place for the epoch.
    let epoch_of = |found: &FoundOffset| found.leader_epoch.filter(|_| version >= 4);
    let reply = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_timestamp(-1)
        .with_offset(-1)
        .with_leader_epoch(-1);
    match answer {
        Err(error) => reply.with_error_code(error.code()),
        Ok(Err(failure)) => reply.with_error_code(ErrorCode::from(&failure).code()),
        Ok(Ok(None)) => reply,
        Ok(Ok(Some(found))) => reply
            .with_offset(found.offset.get())
            .with_timestamp(found.timestamp.map_or(-1, |timestamp| timestamp.0))
            .with_leader_epoch(epoch_of(&found).map_or(-1, |epoch| epoch.0)),
    }
}
