//! Every API in every version we list: the reply must come, and the crate must be able to read it.

use kafka_protocol::{
    messages::*,
    protocol::{Request, StrBytes, VersionRange},
};

use crate::{
    client::{Client, batch, fetch_request, produce_request, topic_name},
    harness::TestBroker,
};

fn check<R: Request>(
    client: &mut Client,
    listed: &ApiVersionsResponse,
    request: impl Fn(i16) -> R,
) {
    let api = listed.api_keys.iter().find(|api| api.api_key == R::KEY);
    let api = api.expect("the API is listed");
    let known: VersionRange = ApiKey::try_from(R::KEY).unwrap().valid_versions();
    for version in api.min_version.max(known.min)..=api.max_version {
        client.call(version, &request(version));
    }
}

#[test]
fn every_listed_version_of_the_data_path_is_answered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, &[b"a", b"b"]);
    let listed = client.call(3, &ApiVersionsRequest::default());
    let client = &mut client;
    check(client, &listed, |_| ApiVersionsRequest::default());
    check(client, &listed, |_| {
        produce_request("t", &[(0, batch(&[b"x"])), (7, batch(&[b"x"]))], -1)
    });
    check(client, &listed, |version| {
        let session_epoch = if version >= 7 { 0 } else { -1 };
        fetch_request("t", &[(0, 0), (7, 0)]).with_session_epoch(session_epoch)
    });
    for timestamp in [-1, -2, 0, i64::MAX] {
        check(client, &listed, |_| {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = |index| {
                ListOffsetsPartition::default()
                    .with_partition_index(index)
                    .with_timestamp(timestamp)
            };
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition(0), partition(7)]);
            ListOffsetsRequest::default()
                .with_replica_id((-1).into())
                .with_topics(vec![topic])
        });
    }
    check(client, &listed, |_| {
        use offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
        let partition = |index| {
            OffsetForLeaderPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(-1)
        };
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name("t"))
            .with_partitions(vec![partition(0), partition(7)]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    });
    check(client, &listed, |_| {
        use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partition = |index, offset| {
            DeleteRecordsPartition::default()
                .with_partition_index(index)
                .with_offset(offset)
        };
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition(0, 1), partition(7, 1)]);
        DeleteRecordsRequest::default().with_topics(vec![topic])
    });
    check(client, &listed, |_| {
        InitProducerIdRequest::default().with_transactional_id(None)
    });
    check(client, &listed, |_| {
        let id = TransactionalId(StrBytes::from_static_str("transactional"));
        InitProducerIdRequest::default().with_transactional_id(Some(id))
    });
}

#[test]
fn every_listed_version_of_the_control_path_is_answered() {
    let broker = TestBroker::with(&[("group.initial.rebalance.delay.ms", "0")]);
    let mut client = broker.client();
    client.create_topic("t", 2);
    let listed = client.call(3, &ApiVersionsRequest::default());
    let client = &mut client;
    let group = GroupId(StrBytes::from_static_str("g"));
    let topic_of_metadata = |version| {
        metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(
            if version % 2 == 0 { "t" } else { "none" },
        )))
    };
    check(client, &listed, |version| {
        MetadataRequest::default()
            .with_topics(Some(vec![topic_of_metadata(version)]))
            .with_allow_auto_topic_creation(version < 4)
    });
    check(client, &listed, |version| {
        use create_topics_request::CreatableTopic;
        let topic = |name: &str| {
            CreatableTopic::default()
                .with_name(topic_name(name))
                .with_num_partitions(1)
                .with_replication_factor(1)
        };
        CreateTopicsRequest::default().with_topics(vec![topic(&format!("c{version}")), topic("t")])
    });
    check(client, &listed, |version| {
        let names = [topic_name("none"), topic_name(&format!("c{version}"))];
        if version >= 6 {
            use delete_topics_request::DeleteTopicState;
            let state = |name: TopicName| DeleteTopicState::default().with_name(Some(name));
            DeleteTopicsRequest::default().with_topics(names.map(state).to_vec())
        } else {
            DeleteTopicsRequest::default().with_topic_names(names.to_vec())
        }
    });
    check(client, &listed, |version| {
        use create_partitions_request::CreatePartitionsTopic;
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name("t"))
            .with_count(i32::from(version) + 3)
            .with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    });
    for kind in [2, 4] {
        let name = StrBytes::from_static_str(if kind == 2 { "t" } else { "1" });
        check(client, &listed, |_| {
            use describe_configs_request::DescribeConfigsResource;
            let resource = DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(name.clone())
                .with_configuration_keys(None);
            DescribeConfigsRequest::default()
                .with_resources(vec![resource])
                .with_include_synonyms(true)
        });
    }
    check(client, &listed, |_| AlterConfigsRequest::default());
    check(client, &listed, |_| {
        IncrementalAlterConfigsRequest::default()
    });
    check(client, &listed, |_| DescribeClusterRequest::default());
    check(client, &listed, |_| {
        DescribeLogDirsRequest::default().with_topics(None)
    });
    check(client, &listed, |_| {
        ListPartitionReassignmentsRequest::default().with_topics(None)
    });
    check(client, &listed, |_| DescribeProducersRequest::default());
    check(client, &listed, |_| {
        use describe_topic_partitions_request::TopicRequest;
        let topics = ["none", "t"].map(|name| TopicRequest::default().with_name(topic_name(name)));
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.to_vec())
            .with_response_partition_limit(100)
    });
    check(client, &listed, |version| {
        let key = group.0.clone();
        if version >= 4 {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![key])
        } else {
            FindCoordinatorRequest::default().with_key(key)
        }
    });
    check(client, &listed, |_| {
        JoinGroupRequest::default().with_group_id(group.clone())
    });
    check(client, &listed, |_| {
        SyncGroupRequest::default().with_group_id(group.clone())
    });
    check(client, &listed, |_| {
        HeartbeatRequest::default().with_group_id(group.clone())
    });
    check(client, &listed, |_| {
        LeaveGroupRequest::default().with_group_id(group.clone())
    });
    check(client, &listed, |_| ListGroupsRequest::default());
    check(client, &listed, |_| {
        DescribeGroupsRequest::default().with_groups(vec![group.clone()])
    });
    check(client, &listed, |_| {
        DeleteGroupsRequest::default().with_groups_names(vec![group.clone()])
    });
    check(client, &listed, |_| {
        use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(group.clone())
            .with_topics(vec![topic])
    });
    check(client, &listed, |version| {
        use offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic};
        let request = OffsetFetchRequest::default();
        if version >= 8 {
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(group.clone())
                .with_topics(None);
            request.with_groups(vec![group])
        } else {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(topic_name("t"))
                .with_partition_indexes(vec![0, 1]);
            request
                .with_group_id(group.clone())
                .with_topics(Some(vec![topic]))
        }
    });
    check(client, &listed, |_| {
        OffsetDeleteRequest::default().with_group_id(group.clone())
    });
}
