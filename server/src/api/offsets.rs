//! OffsetCommit, OffsetFetch, OffsetDelete: how far consumer groups have come.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use futures_util::future::join_all;
use kafka_protocol::{
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
        OffsetFetchRequest, OffsetFetchResponse, TopicName,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use super::{
    convert::text,
    coordinator::{ask, shared, shared_option},
    partitions::locate,
};
use crate::{
    coord::group::{
        CommitOffset, CommitOffsets, DeleteOffsets, FetchOffsets, FetchedOffset, GroupError,
        OffsetSelection, Reply, TopicPartition, Verb,
    },
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

impl Decode for OffsetCommitRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetCommitRequest::default();
        request.group_id = reader.string()?;
        request.generation_id_or_member_epoch = reader.i32()?;
        request.member_id = reader.string()?;
        if version >= 7 {
            request.group_instance_id = reader.nullable_string()?;
        }
        if version <= 4 {
            request.retention_time_ms = reader.i64()?;
        }
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetCommitRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetCommitRequestPartition {
    const BYTES_MIN: usize = 13;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetCommitRequestPartition::default();
        partition.partition_index = reader.i32()?;
        partition.committed_offset = reader.i64()?;
        if version >= 6 {
            partition.committed_leader_epoch = reader.i32()?;
        }
        partition.committed_metadata = reader.nullable_string()?;
        Ok(partition)
    }
}

impl Decode for OffsetFetchRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetFetchRequest::default();
        match version {
            8.. => request.groups = reader.structures(version)?,
            // Null, which version 1 does not have, asks for all topics.
            2..=7 => {
                request.group_id = reader.string()?;
                request.topics = reader.nullable_structures(version)?;
            }
            _ => {
                request.group_id = reader.string()?;
                request.topics = Some(reader.structures(version)?);
            }
        }
        if version >= 7 {
            request.require_stable = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for OffsetFetchRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for OffsetFetchRequestGroup {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = reader.string()?;
        if version >= 9 {
            group.member_id = reader.nullable_string()?;
            group.member_epoch = reader.i32()?;
        }
        group.topics = reader.nullable_structures(version)?;
        Ok(group)
    }
}

impl Decode for OffsetFetchRequestTopics {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetFetchRequestTopics::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for OffsetDeleteRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetDeleteRequest::default();
        request.group_id = reader.string()?;
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetDeleteRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetDeleteRequestTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetDeleteRequestPartition {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetDeleteRequestPartition::default();
        partition.partition_index = reader.i32()?;
        Ok(partition)
    }
}

/// Offsets of partitions that do not exist are refused one by one; the rest goes to the coordinator together.
pub async fn offset_commit(
    shard: &Rc<Shard>,
    request: OffsetCommitRequest,
    _version: i16,
) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    let mut response = OffsetCommitResponse::default();
    for topic in &request.topics {
        let name = shared(&topic.name);
        let mut answers = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let error = match exists(shard, &topic.name, index) {
                true => ErrorCode::None,
                false => ErrorCode::UnknownTopicOrPartition,
            };
            if error.is_none() {
                offsets.push(offset_to_commit(name.clone(), partition));
            }
            let answer = OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error.code());
            answers.push(answer);
        }
        let answer = OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(answers);
        response.topics.push(answer);
    }
    if offsets.is_empty() {
        return response;
    }
    let count = offsets.len();
    let commit = CommitOffsets {
        group: shared(&request.group_id),
        member_id: shared(&request.member_id),
        instance_id: shared_option(request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
        offsets,
    };
    let results = match ask(shard, &request.group_id, Verb::CommitOffsets(commit)).await {
        Reply::OffsetsCommitted(results) => results,
        Reply::Refused(error) => vec![Err(error); count],
        _ => unreachable!("a request is answered in kind"),
    };
    assert_eq!(results.len(), count, "one result per offset");
    let answers = response.topics.iter_mut();
    let asked = answers
        .flat_map(|topic| &mut topic.partitions)
        .filter(|answer| answer.error_code == 0);
    for (answer, result) in asked.zip(results) {
        answer.error_code = ErrorCode::from(result).code();
    }
    response
}

/// One group up to version 7, several from version 8 on. Nothing is ever unstable: there are no transactions yet.
pub async fn offset_fetch(
    shard: &Rc<Shard>,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let asked = request.groups.iter().map(|group| {
            let topics = group.topics.as_ref().map(|topics| topics.iter());
            let named = topics.map(|topics| topics.map(|it| (&it.name, &it.partition_indexes)));
            fetch(shard, &group.group_id, selection(named))
        });
        let replies = join_all(asked).await;
        let groups = request.groups.into_iter().zip(replies);
        let groups = groups.map(|(group, reply)| group_fetched(group, reply));
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = request.topics.as_ref().map(|topics| topics.iter());
    let named = topics.map(|topics| topics.map(|it| (&it.name, &it.partition_indexes)));
    let reply = fetch(shard, &request.group_id, selection(named)).await;
    fetched(request.topics.unwrap_or_default(), reply, version)
}

pub async fn offset_delete(
    shard: &Rc<Shard>,
    request: OffsetDeleteRequest,
    _version: i16,
) -> OffsetDeleteResponse {
    let mut partitions = Vec::new();
    let mut response = OffsetDeleteResponse::default();
    for topic in &request.topics {
        let name = shared(&topic.name);
        let mut answers = Vec::new();
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let error = match exists(shard, &topic.name, index) {
                true => ErrorCode::None,
                false => ErrorCode::UnknownTopicOrPartition,
            };
            if error.is_none() {
                let topic = name.clone();
                let partition = index;
                partitions.push(TopicPartition { topic, partition });
            }
            let answer = OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error.code());
            answers.push(answer);
        }
        let answer = OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(answers);
        response.topics.push(answer);
    }
    let delete = DeleteOffsets {
        group: shared(&request.group_id),
        partitions,
    };
    let results = match ask(shard, &request.group_id, Verb::DeleteOffsets(delete)).await {
        Reply::OffsetsDeleted(results) => results,
        Reply::Refused(error) => {
            let code = ErrorCode::from(error).code();
            return OffsetDeleteResponse::default().with_error_code(code);
        }
        _ => unreachable!("a request is answered in kind"),
    };
    let answers = response.topics.iter_mut();
    let asked = answers
        .flat_map(|topic| &mut topic.partitions)
        .filter(|answer| answer.error_code == 0);
    for (answer, result) in asked.zip(results) {
        answer.error_code = ErrorCode::from(result).code();
    }
    response
}

fn exists(shard: &Shard, topic: &str, partition: i32) -> bool {
    let image = shard.image();
    let found = locate(shard, image.topics.get(topic), partition);
    !matches!(found, Err(ErrorCode::UnknownTopicOrPartition))
}

fn offset_to_commit(topic: Arc<str>, partition: &OffsetCommitRequestPartition) -> CommitOffset {
    let metadata = partition.committed_metadata.as_ref();
    CommitOffset {
        topic,
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: shared_option(metadata).unwrap_or_else(|| "".into()),
    }
}

/// `None` asks for all offsets of the group.
fn selection<'a>(
    topics: Option<impl Iterator<Item = (&'a TopicName, &'a Vec<i32>)>>,
) -> OffsetSelection {
    let Some(topics) = topics else {
        return OffsetSelection::All;
    };
    let mut partitions = Vec::new();
    for (name, indices) in topics {
        let topic = shared(name);
        partitions.extend(indices.iter().map(|partition| TopicPartition {
            topic: topic.clone(),
            partition: *partition,
        }));
    }
    OffsetSelection::Of(partitions)
}

fn fetch(
    shard: &Rc<Shard>,
    group: &StrBytes,
    selection: OffsetSelection,
) -> impl Future<Output = Result<Vec<FetchedOffset>, GroupError>> + use<> {
    let asked = FetchOffsets {
        group: shared(group),
        selection,
    };
    let reply = ask(shard, group, Verb::FetchOffsets(asked));
    async move {
        match reply.await {
            Reply::OffsetsFetched(offsets) => Ok(offsets),
            Reply::Refused(error) => Err(error),
            _ => unreachable!("a request is answered in kind"),
        }
    }
}

fn by_topic(offsets: Vec<FetchedOffset>) -> BTreeMap<Arc<str>, Vec<FetchedOffset>> {
    let mut topics: BTreeMap<Arc<str>, Vec<FetchedOffset>> = BTreeMap::new();
    for offset in offsets {
        topics.entry(offset.topic.clone()).or_default().push(offset);
    }
    topics
}

fn group_fetched(
    group: OffsetFetchRequestGroup,
    offsets: Result<Vec<FetchedOffset>, GroupError>,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
    let offsets = match offsets {
        Ok(offsets) => offsets,
        Err(error) => return response.with_error_code(ErrorCode::from(error).code()),
    };
    let partition = |offset: FetchedOffset| {
        let (position, leader_epoch, metadata) = committed(&offset);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(offset.partition)
            .with_committed_offset(position)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
    };
    let topics = by_topic(offsets).into_iter().map(|(topic, offsets)| {
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(text(&topic)))
            .with_partitions(offsets.into_iter().map(partition).collect())
    });
    response.with_topics(topics.collect())
}

/// Up to version 7. Version 1 has no place for an error of the group, so every partition carries it.
fn fetched(
    asked: Vec<OffsetFetchRequestTopic>,
    offsets: Result<Vec<FetchedOffset>, GroupError>,
    version: i16,
) -> OffsetFetchResponse {
    let offsets = match offsets {
        Ok(offsets) => offsets,
        Err(error) if version >= 2 => {
            return OffsetFetchResponse::default().with_error_code(ErrorCode::from(error).code());
        }
        Err(error) => return refused_in_partitions(asked, error),
    };
    let partition = |offset: FetchedOffset| {
        let (position, leader_epoch, metadata) = committed(&offset);
        OffsetFetchResponsePartition::default()
            .with_partition_index(offset.partition)
            .with_committed_offset(position)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
    };
    let topics = by_topic(offsets).into_iter().map(|(topic, offsets)| {
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(text(&topic)))
            .with_partitions(offsets.into_iter().map(partition).collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

fn refused_in_partitions(
    asked: Vec<OffsetFetchRequestTopic>,
    error: GroupError,
) -> OffsetFetchResponse {
    let code = ErrorCode::from(error).code();
    let partition = |index: i32| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")))
            .with_error_code(code)
    };
    let topics = asked.into_iter().map(|topic| {
        let partitions = topic.partition_indexes.into_iter().map(partition);
        OffsetFetchResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// Offset, leader epoch and metadata; what was never committed is -1 without an error.
fn committed(offset: &FetchedOffset) -> (i64, i32, StrBytes) {
    match &offset.committed {
        Some(it) => (it.offset, it.leader_epoch, text(&it.metadata)),
        None => (-1, -1, text("")),
    }
}

#[cfg(test)]
mod tests;
