//! Metadata: brokers, topics, partitions and their leaders. Topics that are missing come into being here, where that is allowed.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use forebay_engine::TopicId;
use kafka_protocol::{
    messages::{
        BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
    protocol::StrBytes,
};
use uuid::Uuid;

use super::convert::{broker_ids, serving, text, topic_uuid};
use crate::{
    meta::{
        Image, Topic,
        controller::{Refusal, Refused, check_name},
    },
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

/// Everything that may be done to a topic, or to the cluster, as bits; without an authorizer everybody may.
const TOPIC_OPERATIONS: i32 = 0x0df8;
pub const CLUSTER_OPERATIONS: i32 = 0x1fa0;
/// What stands there when nobody asked.
pub const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

impl Decode for MetadataRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = MetadataRequest::default();
        // Null asks for all topics; in version 0, which has no null, an empty list does.
        request.topics = if version >= 1 {
            reader.nullable_structures(version)?
        } else {
            Some(reader.structures(version)?)
        };
        if version >= 4 {
            request.allow_auto_topic_creation = reader.bool()?;
        }
        if (8..=10).contains(&version) {
            request.include_cluster_authorized_operations = reader.bool()?;
        }
        if version >= 8 {
            request.include_topic_authorized_operations = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for MetadataRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = MetadataRequestTopic::default();
        if version >= 10 {
            topic.topic_id = reader.uuid()?;
            topic.name = reader.nullable_string()?;
        } else {
            topic.name = Some(reader.string()?);
        }
        Ok(topic)
    }
}

pub async fn metadata(
    shard: &Rc<Shard>,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let wanted = request.topics.unwrap_or_default();
    let may_create = request.allow_auto_topic_creation && shard.config.topics.auto_create;
    let refused = if may_create {
        create_missing(shard, &wanted).await
    } else {
        BTreeMap::new()
    };

    let image = shard.image();
    let mut topics: Vec<MetadataResponseTopic> = if all {
        image
            .topics
            .values()
            .map(|topic| found(shard, &image, topic))
            .collect()
    } else {
        answer_each(shard, &image, &wanted, &refused)
    };
    if request.include_topic_authorized_operations {
        for topic in &mut topics {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let brokers = image.active_brokers().map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(text(&broker.host))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.as_deref().map(text))
    });
    let cluster_operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(&image.cluster_id)))
        .with_controller_id(BrokerId(shard.config.node_id))
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations)
}

/// Creates the topics of these names that are not there. Gives those that could not be, each with the reason.
async fn create_missing(
    shard: &Rc<Shard>,
    wanted: &[MetadataRequestTopic],
) -> BTreeMap<String, Refusal> {
    let image = shard.image();
    let missing: BTreeSet<String> = wanted
        .iter()
        .filter_map(|topic| topic.name.as_ref())
        .filter(|name| !image.topics.contains_key(name.as_str()))
        .map(|name| name.to_string())
        .collect();
    if missing.is_empty() {
        return BTreeMap::new();
    }
    let names: Vec<String> = missing.into_iter().collect();
    let results = shard.ensure_topics(names.clone()).await;
    names
        .into_iter()
        .zip(results)
        .filter_map(|(name, result)| Some((name, result.err()?)))
        .collect()
}

/// Every topic asked for, once.
fn answer_each(
    shard: &Shard,
    image: &Image,
    wanted: &[MetadataRequestTopic],
    refused: &BTreeMap<String, Refusal>,
) -> Vec<MetadataResponseTopic> {
    let mut seen = BTreeSet::new();
    wanted
        .iter()
        .filter(|topic| seen.insert((topic.name.clone(), topic.topic_id)))
        .map(|topic| match &topic.name {
            Some(name) => match image.topics.get(name.as_str()) {
                Some(topic) => found(shard, image, topic),
                None => missing(topic, missing_by_name(name, refused)),
            },
            None => match image.topic(TopicId(topic.topic_id.into_bytes())) {
                Some(topic) => found(shard, image, topic),
                None => missing(topic, ErrorCode::UnknownTopicId),
            },
        })
        .collect()
}

fn missing_by_name(name: &StrBytes, refused: &BTreeMap<String, Refusal>) -> ErrorCode {
    let refusal = refused.get(name.as_str()).cloned();
    match refusal.or_else(|| check_name(name).err()) {
        None => ErrorCode::UnknownTopicOrPartition,
        // Clients ask again after this one.
        Some(refusal) if refusal.why == Refused::Unavailable => ErrorCode::LeaderNotAvailable,
        Some(refusal) => ErrorCode::from(refusal.why),
    }
}

fn missing(topic: &MetadataRequestTopic, error: ErrorCode) -> MetadataResponseTopic {
    // Before version 12 a name cannot be null; an unknown id has none.
    let name = topic.name.clone().unwrap_or_default();
    let id = if topic.name.is_some() {
        Uuid::nil()
    } else {
        topic.topic_id
    };
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name))
        .with_topic_id(id)
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}

fn found(shard: &Shard, image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let partitions = 0..topic.partitions.len();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&topic.name))))
        .with_topic_id(topic_uuid(topic.id))
        .with_is_internal(topic.internal)
        .with_partitions(
            partitions
                .map(|index| partition(shard, image, topic, index))
                .collect(),
        )
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}

fn partition(
    shard: &Shard,
    image: &Image,
    topic: &Topic,
    index: usize,
) -> MetadataResponsePartition {
    let state = &topic.partitions[index];
    let serving = serving(shard, image, topic, index);
    MetadataResponsePartition::default()
        .with_error_code(serving.error.code())
        .with_partition_index(index as i32)
        .with_leader_id(serving.leader)
        .with_leader_epoch(state.leader_epoch.0)
        .with_replica_nodes(broker_ids(&state.replicas))
        .with_isr_nodes(broker_ids(&state.isr))
        .with_offline_replicas(serving.offline_replicas)
}
