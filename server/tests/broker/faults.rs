//! What clients see of a disk that is low on space, and of partitions that cannot be opened.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use kafka_protocol::messages::{
    MetadataRequest, MetadataResponse, ProduceResponse, TopicName,
    metadata_request::MetadataRequestTopic, metadata_response::MetadataResponsePartition,
};

use crate::{
    client::{Client, batch, fetch_request, produce_request, records_of},
    harness::TestBroker,
};

const NONE: i16 = 0;
const LEADER_NOT_AVAILABLE: i16 = 5;
const KAFKA_STORAGE_ERROR: i16 = 56;

fn produce(client: &mut Client, topic: &str) -> ProduceResponse {
    client.call(9, &produce_request(topic, &[(0, batch(&[b"more"]))], -1))
}

fn error_of(response: &ProduceResponse) -> i16 {
    response.responses[0].partition_responses[0].error_code
}

fn partition_of(client: &mut Client, topic: &str) -> MetadataResponsePartition {
    let topic = MetadataRequestTopic::default().with_name(Some(TopicName(topic.to_owned().into())));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let response: MetadataResponse = client.call(12, &request);
    response.topics[0].partitions[0].clone()
}

#[test]
fn a_disk_low_on_space_refuses_produce_and_nothing_else() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.produce("t", 0, &[b"before"]);
    broker.set("forebay.disk.reserve.bytes", "1152921504606846976");
    broker.restart();

    let mut client = broker.client();
    let began = Instant::now();
    let response = produce(&mut client, "t");
    assert!(began.elapsed() < Duration::from_millis(1000));
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, KAFKA_STORAGE_ERROR);
    let message = partition.error_message.as_ref().map(|text| text.as_str());
    assert_eq!(message, Some("the disk is low on space"));
    let found = client.fetch(&fetch_request("t", &[(0, 0)]));
    assert_eq!(records_of(&found, 0), [(0, b"before".to_vec())]);
    client.create_topic("another", 1);
    let (status, body) = broker.http("/readyz");
    assert_eq!(status, 200);
    assert!(body.contains("low on space"), "{body}");
    let (_, metrics) = broker.http("/metrics");
    assert!(metrics.contains("forebay_disk_low 1"), "{metrics}");
    client.send(9, &produce_request("t", &[(0, batch(&[b"acks 0"]))], 0));
    client.expect_close();

    broker.set("forebay.disk.reserve.bytes", "0");
    broker.restart();
    assert_eq!(broker.client().produce("t", 0, &[b"after"]), 1);
}

#[test]
fn a_log_that_cannot_be_opened_is_a_storage_error_until_it_can() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    client.create_topic("other", 1);
    client.produce("t", 0, &[b"before"]);
    broker.stop();
    let identity = broker.dir().join("t-0/partition.metadata");
    let right = fs::read(&identity).unwrap();
    fs::write(&identity, "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA").unwrap();
    broker.run();

    let mut client = broker.client();
    assert_eq!(error_of(&produce(&mut client, "t")), KAFKA_STORAGE_ERROR);
    let found = client.fetch(&fetch_request("t", &[(0, 0)]));
    let partition = &found.responses[0].partitions[0];
    assert_eq!(partition.error_code, KAFKA_STORAGE_ERROR);
    client.produce("other", 0, &[b"lives on"]);
    // No leader, as with a failed disk of Kafka: clients ask again, and find it when it is there.
    let partition = partition_of(&mut client, "t");
    assert_eq!(partition.error_code, LEADER_NOT_AVAILABLE);
    assert_eq!((partition.leader_id.0, partition.isr_nodes.len()), (-1, 1));
    assert_eq!(partition.offline_replicas, partition.replica_nodes);
    let partition = partition_of(&mut client, "other");
    assert_eq!(partition.error_code, NONE);
    assert!(partition.leader_id.0 >= 0 && partition.offline_replicas.is_empty());

    fs::write(&identity, right).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while error_of(&produce(&mut client, "t")) != NONE {
        assert!(Instant::now() < deadline, "it is not opened again");
        thread::sleep(Duration::from_millis(50));
    }
    while partition_of(&mut client, "t").error_code != NONE {
        assert!(Instant::now() < deadline, "it has no leader");
        thread::sleep(Duration::from_millis(5));
    }
    let partition = partition_of(&mut client, "t");
    assert!(partition.leader_id.0 >= 0 && partition.offline_replicas.is_empty());
    for (offset, value) in [(0, &b"before"[..]), (1, b"more")] {
        let found = client.fetch(&fetch_request("t", &[(0, offset)]));
        assert_eq!(records_of(&found, 0)[0], (offset, value.to_vec()));
    }
}

/// What a former number of cores left, and what nobody knows, is counted, and left alone.
#[test]
fn strays_are_counted_and_left_alone() {
    let mut broker = TestBroker::start();
    broker.client().create_topic("t", 1);
    let (_, metrics) = broker.http("/metrics");
    assert!(metrics.contains("forebay_stray_entries 0"), "{metrics}");
    broker.stop();
    let strays = ["journal/700", "gone-3", "checkpoint/shard-700"];
    for stray in &strays[..2] {
        fs::create_dir(broker.dir().join(stray)).unwrap();
    }
    fs::write(broker.dir().join(strays[2]), "").unwrap();
    broker.run();
    let (_, metrics) = broker.http("/metrics");
    assert!(metrics.contains("forebay_stray_entries 3"), "{metrics}");
    for stray in strays {
        assert!(broker.dir().join(stray).exists());
    }
}

#[test]
fn a_start_that_fails_on_one_shard_leaves_none_behind() {
    let mut broker = TestBroker::start();
    broker.stop();
    let checkpoints = broker.dir().join("checkpoint");
    let aside = broker.dir().join("aside");
    fs::rename(&checkpoints, &aside).unwrap();
    fs::write(&checkpoints, "not a directory").unwrap();
    // It waits for the threads of all shards: one that is left behind would hang it.
    assert!(broker.try_run().is_err());
    fs::remove_file(&checkpoints).unwrap();
    fs::rename(&aside, &checkpoints).unwrap();
    broker.run();
    broker.client().create_topic("t", 1);
}
