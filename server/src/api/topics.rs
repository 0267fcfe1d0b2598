//! CreateTopics, DeleteTopics, CreatePartitions, DescribeTopicPartitions.

use std::{collections::BTreeSet, rc::Rc, sync::Arc};

use forebay_engine::TopicId;
use kafka_protocol::{
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
        CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
        create_topics_response::CreatableTopicResult,
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
        describe_topic_partitions_request::{Cursor, TopicRequest},
        describe_topic_partitions_response::{
            Cursor as NextCursor, DescribeTopicPartitionsResponsePartition,
            DescribeTopicPartitionsResponseTopic,
        },
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::{
    configs::created_configs,
    convert::{broker_ids, outcome, serving, text, topic_uuid},
    metadata::OPERATIONS_NOT_ASKED,
};
use crate::{
    meta::{
        Image, Topic,
        controller::{
            CreatedTopic, DeletedTopic, NewPartitions, NewTopic, Refusal, Refused, Reply, Request,
            TopicRef, check_name,
        },
        refusal_of,
    },
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

/// Partitions in one reply to DescribeTopicPartitions, whatever the client allows.
const DESCRIBED_PARTITIONS_MAX: i32 = 2000;

impl Decode for CreateTopicsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = CreateTopicsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for CreatableTopic {
    const BYTES_MIN: usize = 9;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = CreatableTopic::default();
        topic.name = reader.string()?;
        topic.num_partitions = reader.i32()?;
        topic.replication_factor = reader.i16()?;
        topic.assignments = reader.structures(version)?;
        topic.configs = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for CreatableReplicaAssignment {
    const BYTES_MIN: usize = 5;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut assignment = CreatableReplicaAssignment::default();
        assignment.partition_index = reader.i32()?;
        assignment.broker_ids = reader.i32s()?;
        Ok(assignment)
    }
}

impl Decode for CreatableTopicConfig {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = CreatableTopicConfig::default();
        config.name = reader.string()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}

impl Decode for DeleteTopicsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DeleteTopicsRequest::default();
        if version >= 6 {
            request.topics = reader.structures(version)?;
        }
        if version <= 5 {
            request.topic_names = reader.strings()?;
        }
        request.timeout_ms = reader.i32()?;
        Ok(request)
    }
}

impl Decode for DeleteTopicState {
    const BYTES_MIN: usize = 17;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = DeleteTopicState::default();
        topic.name = reader.nullable_string()?;
        topic.topic_id = reader.uuid()?;
        Ok(topic)
    }
}

impl Decode for CreatePartitionsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = CreatePartitionsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for CreatePartitionsTopic {
    const BYTES_MIN: usize = 6;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = CreatePartitionsTopic::default();
        topic.name = reader.string()?;
        topic.count = reader.i32()?;
        topic.assignments = reader.nullable_structures(version)?;
        Ok(topic)
    }
}

impl Decode for CreatePartitionsAssignment {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut assignment = CreatePartitionsAssignment::default();
        assignment.broker_ids = reader.i32s()?;
        Ok(assignment)
    }
}

impl Decode for DescribeTopicPartitionsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeTopicPartitionsRequest::default();
        request.topics = reader.structures(version)?;
        request.response_partition_limit = reader.i32()?;
        request.cursor = reader.nullable_structure(version)?;
        Ok(request)
    }
}

impl Decode for TopicRequest {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = TopicRequest::default();
        topic.name = reader.string()?;
        Ok(topic)
    }
}

impl Decode for Cursor {
    const BYTES_MIN: usize = 5;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::default();
        cursor.topic_name = reader.string()?;
        cursor.partition_index = reader.i32()?;
        Ok(cursor)
    }
}

pub async fn create_topics(
    shard: &Rc<Shard>,
    request: CreateTopicsRequest,
    _version: i16,
) -> CreateTopicsResponse {
    let topics: Vec<NewTopic> = request.topics.iter().map(new_topic).collect();
    let count = topics.len();
    let validate_only = request.validate_only;
    let reply = shard
        .control(Request::CreateTopics {
            topics,
            validate_only,
        })
        .await;
    let results = match reply {
        Some(Reply::CreateTopics(results)) => results,
        other => vec![Err(refusal_of(other)); count],
    };
    let results = request.topics.iter().zip(results);
    let topics = results.map(|(topic, result)| {
        let (code, message) = outcome(&result);
        let reply = CreatableTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code)
            .with_error_message(message)
            .with_num_partitions(-1)
            .with_replication_factor(-1);
        match result {
            Ok(created) => describe_created(shard, reply, &created, validate_only),
            Err(_) => reply,
        }
    });
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    let assignments = topic.assignments.iter().map(|assignment| {
        let brokers = assignment.broker_ids.iter().map(|broker| broker.0);
        (assignment.partition_index, brokers.collect())
    });
    let configs = topic.configs.iter().map(|config| {
        let value = config.value.as_ref().map(StrBytes::to_string);
        (config.name.to_string(), value)
    });
    NewTopic {
        name: topic.name.to_string(),
        partitions: Some(topic.num_partitions).filter(|count| *count != -1),
        replication_factor: Some(topic.replication_factor).filter(|factor| *factor != -1),
        assignments: assignments.collect(),
        configs: configs.collect(),
    }
}

fn describe_created(
    shard: &Shard,
    reply: CreatableTopicResult,
    created: &CreatedTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let id = if validate_only {
        Uuid::nil()
    } else {
        topic_uuid(created.id)
    };
    reply
        .with_topic_id(id)
        .with_num_partitions(created.partitions)
        .with_replication_factor(created.replication_factor)
        .with_configs(Some(created_configs(shard, &created.configs)))
}

pub async fn delete_topics(
    shard: &Rc<Shard>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let wanted: Vec<(Option<TopicName>, Uuid)> = if version >= 6 {
        let topics = request.topics.into_iter();
        topics.map(|topic| (topic.name, topic.topic_id)).collect()
    } else {
        let names = request.topic_names.into_iter();
        names.map(|name| (Some(name), Uuid::nil())).collect()
    };
    let refs: Vec<Option<TopicRef>> = wanted.iter().map(topic_ref).collect();
    let topics: Vec<TopicRef> = refs.iter().flatten().cloned().collect();
    let count = topics.len();
    let results = match shard.control(Request::DeleteTopics { topics }).await {
        Some(Reply::DeleteTopics(results)) => results,
        other => vec![Err(refusal_of(other)); count],
    };
    let mut results = results.into_iter();
    let responses = wanted.into_iter().zip(refs).map(|(wanted, topic)| {
        let result = match topic {
            Some(_) => results.next().expect("one result per topic"),
            None => Err(Refusal::new(
                Refused::InvalidRequest,
                "A topic is named by its name or by its ID, and not by both.",
            )),
        };
        deleted(wanted, result, version)
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

/// `None` for a topic that is named in no way or in both.
fn topic_ref((name, id): &(Option<TopicName>, Uuid)) -> Option<TopicRef> {
    match name {
        Some(name) if id.is_nil() => Some(TopicRef::Name(name.to_string())),
        None if !id.is_nil() => Some(TopicRef::Id(TopicId(id.into_bytes()))),
        _ => None,
    }
}

fn deleted(
    (name, id): (Option<TopicName>, Uuid),
    result: Result<DeletedTopic, Refusal>,
    version: i16,
) -> DeletableTopicResult {
    let (mut code, message) = outcome(&result);
    if version < 3 && code == ErrorCode::TopicDeletionDisabled.code() {
        code = ErrorCode::InvalidRequest.code();
    }
    let reply = DeletableTopicResult::default()
        .with_error_code(code)
        .with_error_message(message);
    match result {
        Ok(topic) => reply
            .with_name(Some(TopicName(text(&topic.name))))
            .with_topic_id(topic_uuid(topic.id)),
        Err(_) => reply.with_name(name).with_topic_id(id),
    }
}

pub async fn create_partitions(
    shard: &Rc<Shard>,
    request: CreatePartitionsRequest,
    _version: i16,
) -> CreatePartitionsResponse {
    let topics: Vec<NewPartitions> = request.topics.iter().map(new_partitions).collect();
    let count = topics.len();
    let reply = shard
        .control(Request::CreatePartitions {
            topics,
            validate_only: request.validate_only,
        })
        .await;
    let results = match reply {
        Some(Reply::CreatePartitions(results)) => results,
        other => vec![Err(refusal_of(other)); count],
    };
    let results = request.topics.iter().zip(results).map(|(topic, result)| {
        let (code, message) = outcome(&result);
        CreatePartitionsTopicResult::default()
            .with_name(topic.name.clone())
            .with_error_code(code)
            .with_error_message(message)
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn new_partitions(topic: &CreatePartitionsTopic) -> NewPartitions {
    let of_one = |assignment: &CreatePartitionsAssignment| {
        let brokers = assignment.broker_ids.iter();
        brokers.map(|broker| broker.0).collect()
    };
    NewPartitions {
        topic: topic.name.to_string(),
        count: topic.count,
        assignments: topic
            .assignments
            .as_ref()
            .map(|assignments| assignments.iter().map(of_one).collect()),
    }
}

pub async fn describe_topic_partitions(
    shard: &Rc<Shard>,
    request: DescribeTopicPartitionsRequest,
    _version: i16,
) -> DescribeTopicPartitionsResponse {
    let image = shard.image();
    let names: BTreeSet<String> = if request.topics.is_empty() {
        image.topics.keys().cloned().collect()
    } else {
        let topics = request.topics.iter();
        topics.map(|topic| topic.name.to_string()).collect()
    };
    let limit = request
        .response_partition_limit
        .clamp(1, DESCRIBED_PARTITIONS_MAX);
    let from = request.cursor.map_or((String::new(), 0), |cursor| {
        let index = usize::try_from(cursor.partition_index).unwrap_or(0);
        (cursor.topic_name.to_string(), index)
    });
    describe_from(shard, &image, names, from, limit as usize)
}

/// Topics in order of their names from the cursor on, up to `room` partitions.
fn describe_from(
    shard: &Shard,
    image: &Image,
    names: BTreeSet<String>,
    (from_name, from_index): (String, usize),
    mut room: usize,
) -> DescribeTopicPartitionsResponse {
    let mut reply = DescribeTopicPartitionsResponse::default();
    for name in names.range(from_name.clone()..) {
        let first = if *name == from_name { from_index } else { 0 };
        let Some(topic) = image.topics.get(name) else {
            reply.topics.push(not_described(name));
            continue;
        };
        if room == 0 {
            reply.next_cursor = Some(cursor(name, first));
            break;
        }
        let described = describe_topic(shard, image, topic, first, room);
        let next = first + described.partitions.len();
        room -= described.partitions.len();
        reply.topics.push(described);
        if next < topic.partitions.len() {
            reply.next_cursor = Some(cursor(name, next));
            break;
        }
    }
    reply
}

fn cursor(topic: &str, index: usize) -> NextCursor {
    NextCursor::default()
        .with_topic_name(TopicName(text(topic)))
        .with_partition_index(index as i32)
}

fn not_described(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match check_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(refusal) => ErrorCode::from(refusal.why),
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(TopicName(text(name))))
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}

fn describe_topic(
    shard: &Shard,
    image: &Image,
    topic: &Arc<Topic>,
    first: usize,
    room: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = (0..topic.partitions.len()).skip(first).take(room);
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(topic_uuid(topic.id))
        .with_is_internal(topic.internal)
        .with_partitions(
            partitions
                .map(|index| described(shard, image, topic, index))
                .collect(),
        )
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}

fn described(
    shard: &Shard,
    image: &Image,
    topic: &Topic,
    index: usize,
) -> DescribeTopicPartitionsResponsePartition {
    let state = &topic.partitions[index];
    let serving = serving(shard, image, topic, index);
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(serving.error.code())
        .with_partition_index(index as i32)
        .with_leader_id(serving.leader)
        .with_leader_epoch(state.leader_epoch.0)
        .with_replica_nodes(broker_ids(&state.replicas))
        .with_isr_nodes(broker_ids(&state.isr))
        .with_eligible_leader_replicas(Some(broker_ids(&state.elr)))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(serving.offline_replicas)
}
