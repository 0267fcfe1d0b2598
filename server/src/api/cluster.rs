//! DescribeCluster, DescribeLogDirs, ListPartitionReassignments, DescribeProducers.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use forebay_engine::LogId;
use futures_util::future::join_all;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, ProducerId, TopicName,
    describe_cluster_response::DescribeClusterBroker,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    },
    describe_producers_request::TopicRequest,
    describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
};

use super::{
    convert::text,
    metadata::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED},
    partitions::locate,
};
use crate::{
    meta::Image,
    partition,
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

/// Whose addresses DescribeCluster is asked for.
const ENDPOINTS_OF_BROKERS: i8 = 1;
const ENDPOINTS_OF_CONTROLLERS: i8 = 2;

impl Decode for DescribeClusterRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeClusterRequest::default();
        request.include_cluster_authorized_operations = reader.bool()?;
        if version >= 1 {
            request.endpoint_type = reader.i8()?;
        }
        if version >= 2 {
            request.include_fenced_brokers = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for DescribeLogDirsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeLogDirsRequest::default();
        request.topics = reader.nullable_structures(version)?;
        Ok(request)
    }
}

impl Decode for DescribableLogDirTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = DescribableLogDirTopic::default();
        topic.topic = reader.string()?;
        topic.partitions = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for ListPartitionReassignmentsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ListPartitionReassignmentsRequest::default();
        request.timeout_ms = reader.i32()?;
        request.topics = reader.nullable_structures(version)?;
        Ok(request)
    }
}

impl Decode for ListPartitionReassignmentsTopics {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = ListPartitionReassignmentsTopics::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for DescribeProducersRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeProducersRequest::default();
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for TopicRequest {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = TopicRequest::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

pub async fn describe_cluster(
    shard: &Rc<Shard>,
    request: DescribeClusterRequest,
    _version: i16,
) -> DescribeClusterResponse {
    let refuse = |error: ErrorCode, message: &str| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(message)))
    };
    match request.endpoint_type {
        ENDPOINTS_OF_BROKERS => {}
        ENDPOINTS_OF_CONTROLLERS => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refuse(ErrorCode::MismatchedEndpointType, message);
        }
        _ => {
            return refuse(
                ErrorCode::UnsupportedEndpointType,
                "Unsupported endpoint type",
            );
        }
    }
    let image = shard.image();
    let shown = |fenced: bool| !fenced || request.include_fenced_brokers;
    let brokers = image.brokers.values().filter(|broker| shown(broker.fenced));
    let brokers = brokers.map(|broker| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(text(&broker.host))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.as_deref().map(text))
            .with_is_fenced(broker.fenced)
    });
    let operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    DescribeClusterResponse::default()
        .with_cluster_id(text(&image.cluster_id))
        .with_controller_id(BrokerId(shard.config.node_id))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}

pub async fn describe_log_dirs(
    shard: &Rc<Shard>,
    request: DescribeLogDirsRequest,
    _version: i16,
) -> DescribeLogDirsResponse {
    let asked = shard.shards().map(|owner| shard.log_sizes(owner, ()));
    let sizes: HashMap<LogId, u64> = join_all(asked)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .map(|size| (size.log, size.bytes))
        .collect();
    let image = shard.image();
    let topics = wanted_partitions(&image, request.topics)
        .into_iter()
        .map(|(name, indexes)| topic_sizes(&image, name, &indexes, &sizes))
        .filter(|topic| !topic.partitions.is_empty());
    let directory = &shard.config.data_dir;
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(text(&absolute.to_string_lossy()))
        .with_topics(topics.collect());
    match shard.rt.disk_space(directory).await {
        Ok(space) => {
            result.total_bytes = space.total_bytes as i64;
            result.usable_bytes = space.available_bytes as i64;
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell the space of the data directory");
            result.error_code = ErrorCode::KafkaStorageError.code();
        }
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// Topics and their partitions that are asked for; null asks for all.
fn wanted_partitions(
    image: &Image,
    topics: Option<Vec<DescribableLogDirTopic>>,
) -> BTreeMap<String, Vec<i32>> {
    match topics {
        None => {
            let all = image.topics.values();
            all.map(|topic| {
                (
                    topic.name.clone(),
                    (0..topic.partitions.len() as i32).collect(),
                )
            })
            .collect()
        }
        Some(topics) => {
            let some = topics.into_iter();
            some.map(|topic| (topic.topic.to_string(), topic.partitions))
                .collect()
        }
    }
}

fn topic_sizes(
    image: &Image,
    name: String,
    indexes: &[i32],
    sizes: &HashMap<LogId, u64>,
) -> DescribeLogDirsTopic {
    let id = image.topics.get(&name).map(|topic| topic.id);
    let partitions = indexes.iter().filter_map(|index| {
        let log = LogId {
            topic_id: id?,
            partition: forebay_engine::PartitionIndex(*index),
        };
        let bytes = *sizes.get(&log)?;
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(*index)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
        Some(partition)
    });
    DescribeLogDirsTopic::default()
        .with_partitions(partitions.collect())
        .with_name(TopicName(text(&name)))
}

/// Replicas do not move on a single host.
pub async fn list_partition_reassignments(
    _shard: &Rc<Shard>,
    _request: ListPartitionReassignmentsRequest,
    _version: i16,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}

pub async fn describe_producers(
    shard: &Rc<Shard>,
    request: DescribeProducersRequest,
    _version: i16,
) -> DescribeProducersResponse {
    let image = shard.image();
    let topics = request.topics.iter().map(async |topic| {
        let known = image.topics.get(topic.name.as_str());
        let partitions = topic.partition_indexes.iter().map(async |index| {
            let reply = PartitionResponse::default().with_partition_index(*index);
            let located = match locate(shard, known, *index) {
                Ok(located) => located,
                Err(error) => return reply.with_error_code(error.code()),
            };
            let asked = shard.describe_producers(located.owner, located.log).await;
            match asked.flatten() {
                Some(producers) => {
                    reply.with_active_producers(producers.iter().map(producer).collect())
                }
                None => reply.with_error_code(ErrorCode::NotLeaderOrFollower.code()),
            }
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(join_all(partitions).await)
    });
    DescribeProducersResponse::default().with_topics(join_all(topics).await)
}

fn producer(state: &partition::ProducerState) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(state.id.0))
        .with_producer_epoch(i32::from(state.epoch.0))
        .with_last_sequence(state.last_sequence)
        .with_last_timestamp(state.last_timestamp.0)
        // No transactions: no coordinator, none open.
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}
