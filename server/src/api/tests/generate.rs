//! Random requests, in every version, from a seed: edge values, nulls, empty and long fields, unknown tagged fields.

use std::{collections::BTreeMap, ops::RangeBounds};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        alter_configs_request, create_partitions_request::*, create_topics_request::*,
        delete_records_request::*, delete_topics_request::*, describe_configs_request::*,
        describe_log_dirs_request::*, describe_producers_request,
        describe_topic_partitions_request, fetch_request::*, incremental_alter_configs_request,
        join_group_request::*, leave_group_request::*, list_offsets_request::*,
        list_partition_reassignments_request::*, metadata_request::*, offset_commit_request::*,
        offset_delete_request::*, offset_fetch_request::*, offset_for_leader_epoch_request::*,
        produce_request::*, sync_group_request::*, *,
    },
    protocol::StrBytes,
};
use uuid::Uuid;

/// SplitMix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Two generators of one seed make the same request but for its unknown tagged fields.
pub struct Gen {
    values: Random,
    /// `None`: no unknown tagged fields.
    tags: Option<Random>,
    /// Every element as small as can be, to find lower bounds that are too high.
    smallest: bool,
    /// Whether the field that comes next can be null in this version.
    nullable: bool,
}

impl Gen {
    pub fn new(seed: u64, tagged: bool) -> Gen {
        let mut values = Random::new(seed);
        Gen {
            smallest: values.below(3) == 0,
            values,
            tags: tagged.then(|| Random::new(!seed)),
            nullable: true,
        }
    }

    pub fn tagged_fields(&mut self) -> BTreeMap<i32, Bytes> {
        let Some(random) = &mut self.tags else {
            return BTreeMap::new();
        };
        (0..random.below(3))
            .map(|_| {
                let tag = 100 + random.below(1 << 20) as i32;
                (tag, Bytes::from(vec![0xaa; random.below(20)]))
            })
            .collect()
    }

    fn number(&mut self, min: i64, max: i64) -> i64 {
        match self.values.below(6) {
            0 => 0,
            1 => 1,
            2 => -1,
            3 => min,
            4 => max,
            _ => (self.values.next() as i64).clamp(min, max),
        }
    }

    fn text(&mut self) -> String {
        if self.smallest {
            return String::new();
        }
        match self.values.below(6) {
            0 => String::new(),
            1 => "\u{17c}\u{f3}\u{142}w-\u{1f980}".into(),
            2 => "long".repeat(1 + self.values.below(100)),
            _ => format!("name-{}", self.values.below(1000)),
        }
    }
}

pub trait Generate: Sized {
    fn generate(g: &mut Gen, version: i16) -> Self;
}

macro_rules! generate_as {
    ($($type:ty: |$g:ident| $value:expr;)*) => {$(
        impl Generate for $type {
            fn generate($g: &mut Gen, _version: i16) -> Self {
                $value
            }
        }
    )*};
}

generate_as! {
    bool: |g| g.values.below(2) == 0;
    i8: |g| g.number(i8::MIN.into(), i8::MAX.into()) as i8;
    i16: |g| g.number(i16::MIN.into(), i16::MAX.into()) as i16;
    i32: |g| g.number(i32::MIN.into(), i32::MAX.into()) as i32;
    i64: |g| g.number(i64::MIN, i64::MAX);
    Uuid: |g| Uuid::from_u64_pair(g.values.next(), g.values.next());
    StrBytes: |g| g.text().into();
    TopicName: |g| StrBytes::from(g.text()).into();
    GroupId: |g| StrBytes::from(g.text()).into();
    TransactionalId: |g| StrBytes::from(g.text()).into();
    BrokerId: |g| (g.number(i32::MIN.into(), i32::MAX.into()) as i32).into();
    ProducerId: |g| g.number(i64::MIN, i64::MAX).into();
    Bytes: |g| g.text().into();
}

impl<T: Generate> Generate for Option<T> {
    fn generate(g: &mut Gen, version: i16) -> Self {
        let null =
            std::mem::replace(&mut g.nullable, true) && (g.smallest || g.values.below(4) == 0);
        (!null).then(|| T::generate(g, version))
    }
}

impl<T: Generate> Generate for Vec<T> {
    fn generate(g: &mut Gen, version: i16) -> Self {
        let count = if g.smallest {
            7 * g.values.below(2)
        } else {
            g.values.below(4)
        };
        (0..count).map(|_| T::generate(g, version)).collect()
    }
}

/// Each field with the versions that have it and, if not all of those, the versions in which it can be null.
macro_rules! generate {
    ($($structure:ty {
        $($field:ident: $versions:expr $(; null $nullable:expr)?),* $(,)?
    })*) => {$(
        impl Generate for $structure {
            fn generate(g: &mut Gen, version: i16) -> Self {
                let mut value = <$structure>::default();
                $(if RangeBounds::contains(&($versions), &version) {
                    g.nullable = true $(&& RangeBounds::contains(&($nullable), &version))?;
                    value.$field = Generate::generate(g, version);
                })*
                value.unknown_tagged_fields = g.tagged_fields();
                value
            }
        }
    )*};
}

generate! {
    RequestHeader { request_api_key: .., request_api_version: .., correlation_id: .., client_id: .. }
    ApiVersionsRequest { client_software_name: 3.., client_software_version: 3.. }
    MetadataRequest {
        topics: ..; null 1..,
        allow_auto_topic_creation: 4..,
        include_cluster_authorized_operations: 8..=10,
        include_topic_authorized_operations: 8..,
    }
    MetadataRequestTopic { topic_id: 10.., name: ..; null 10.. }
    ProduceRequest { transactional_id: .., acks: .., timeout_ms: .., topic_data: .. }
    TopicProduceData { name: .., partition_data: .. }
    PartitionProduceData { index: .., records: .. }
    FetchRequest {
        cluster_id: 12..,
        replica_id: ..,
        max_wait_ms: ..,
        min_bytes: ..,
        max_bytes: ..,
        session_id: 7..,
        session_epoch: 7..,
        topics: ..,
        forgotten_topics_data: 7..,
        rack_id: 11..,
    }
    FetchTopic { topic: .., partitions: .. }
    FetchPartition {
        partition: ..,
        current_leader_epoch: 9..,
        fetch_offset: ..,
        last_fetched_epoch: 12..,
        log_start_offset: 5..,
        partition_max_bytes: ..,
    }
    ForgottenTopic { topic: .., partitions: .. }
    ListOffsetsRequest { replica_id: .., isolation_level: 2.., topics: .., timeout_ms: 10.. }
    ListOffsetsTopic { name: .., partitions: .. }
    ListOffsetsPartition { partition_index: .., current_leader_epoch: 4.., timestamp: .. }
    InitProducerIdRequest {
        transactional_id: ..,
        transaction_timeout_ms: ..,
        producer_id: 3..,
        producer_epoch: 3..,
    }
    DeleteRecordsRequest { topics: .., timeout_ms: .. }
    DeleteRecordsTopic { name: .., partitions: .. }
    DeleteRecordsPartition { partition_index: .., offset: .. }
    OffsetForLeaderEpochRequest { replica_id: 3.., topics: .. }
    OffsetForLeaderTopic { topic: .., partitions: .. }
    OffsetForLeaderPartition { partition: .., current_leader_epoch: .., leader_epoch: .. }
    CreateTopicsRequest { topics: .., timeout_ms: .., validate_only: .. }
    CreatableTopic {
        name: ..,
        num_partitions: ..,
        replication_factor: ..,
        assignments: ..,
        configs: ..,
    }
    CreatableReplicaAssignment { partition_index: .., broker_ids: .. }
    CreatableTopicConfig { name: .., value: .. }
    DeleteTopicsRequest { topics: 6.., topic_names: ..=5, timeout_ms: .. }
    DeleteTopicState { name: .., topic_id: .. }
    CreatePartitionsRequest { topics: .., timeout_ms: .., validate_only: .. }
    CreatePartitionsTopic { name: .., count: .., assignments: .. }
    CreatePartitionsAssignment { broker_ids: .. }
    DescribeTopicPartitionsRequest { topics: .., response_partition_limit: .., cursor: .. }
    describe_topic_partitions_request::TopicRequest { name: .. }
    describe_topic_partitions_request::Cursor { topic_name: .., partition_index: .. }
    DescribeConfigsRequest { resources: .., include_synonyms: .., include_documentation: 3.. }
    DescribeConfigsResource { resource_type: .., resource_name: .., configuration_keys: .. }
    AlterConfigsRequest { resources: .., validate_only: .. }
    alter_configs_request::AlterConfigsResource {
        resource_type: ..,
        resource_name: ..,
        configs: ..,
    }
    alter_configs_request::AlterableConfig { name: .., value: .. }
    IncrementalAlterConfigsRequest { resources: .., validate_only: .. }
    incremental_alter_configs_request::AlterConfigsResource {
        resource_type: ..,
        resource_name: ..,
        configs: ..,
    }
    incremental_alter_configs_request::AlterableConfig {
        name: ..,
        config_operation: ..,
        value: ..,
    }
    DescribeClusterRequest {
        include_cluster_authorized_operations: ..,
        endpoint_type: 1..,
        include_fenced_brokers: 2..,
    }
    DescribeLogDirsRequest { topics: .. }
    DescribableLogDirTopic { topic: .., partitions: .. }
    ListPartitionReassignmentsRequest { timeout_ms: .., topics: .. }
    ListPartitionReassignmentsTopics { name: .., partition_indexes: .. }
    DescribeProducersRequest { topics: .. }
    describe_producers_request::TopicRequest { name: .., partition_indexes: .. }
    FindCoordinatorRequest { key: ..=3, key_type: 1.., coordinator_keys: 4.. }
    JoinGroupRequest {
        group_id: ..,
        session_timeout_ms: ..,
        rebalance_timeout_ms: 1..,
        member_id: ..,
        group_instance_id: 5..,
        protocol_type: ..,
        protocols: ..,
        reason: 8..,
    }
    JoinGroupRequestProtocol { name: .., metadata: .. }
    SyncGroupRequest {
        group_id: ..,
        generation_id: ..,
        member_id: ..,
        group_instance_id: 3..,
        protocol_type: 5..,
        protocol_name: 5..,
        assignments: ..,
    }
    SyncGroupRequestAssignment { member_id: .., assignment: .. }
    HeartbeatRequest { group_id: .., generation_id: .., member_id: .., group_instance_id: 3.. }
    LeaveGroupRequest { group_id: .., member_id: ..=2, members: 3.. }
    MemberIdentity { member_id: .., group_instance_id: .., reason: 5.. }
    ListGroupsRequest { states_filter: 4.., types_filter: 5.. }
    DescribeGroupsRequest { groups: .., include_authorized_operations: 3.. }
    DeleteGroupsRequest { groups_names: .. }
    OffsetCommitRequest {
        group_id: ..,
        generation_id_or_member_epoch: ..,
        member_id: ..,
        group_instance_id: 7..,
        retention_time_ms: ..=4,
        topics: ..,
    }
    OffsetCommitRequestTopic { name: .., partitions: .. }
    OffsetCommitRequestPartition {
        partition_index: ..,
        committed_offset: ..,
        committed_leader_epoch: 6..,
        committed_metadata: ..,
    }
    OffsetFetchRequest {
        group_id: ..=7,
        topics: ..=7; null 2..,
        groups: 8..,
        require_stable: 7..,
    }
    OffsetFetchRequestTopic { name: .., partition_indexes: .. }
    OffsetFetchRequestGroup { group_id: .., member_id: 9.., member_epoch: 9.., topics: .. }
    OffsetFetchRequestTopics { name: .., partition_indexes: .. }
}

/// Never flexible, and so without tagged fields.
macro_rules! generate_untagged {
    ($($structure:ty { $($field:ident),* })*) => {$(
        impl Generate for $structure {
            fn generate(g: &mut Gen, version: i16) -> Self {
                let mut value = <$structure>::default();
                $(value.$field = Generate::generate(g, version);)*
                value
            }
        }
    )*};
}

generate_untagged! {
    OffsetDeleteRequest { group_id, topics }
    OffsetDeleteRequestTopic { name, partitions }
    OffsetDeleteRequestPartition { partition_index }
}
