//! Replies leave in the order of their requests, whatever each of them takes.

use std::time::Duration;

use bytes::Bytes;
use forebay_tests::{
    raw_batch::RawBatch,
    wire_client::{
        CREATE_TOPICS_VERSION, FETCH_VERSION, INIT_PRODUCER_ID_VERSION, PRODUCE_VERSION,
        decode_reply, error, fetch_request, init_producer_id_request, now_ms, only_fetched,
        only_partition, produce_request, topic_name,
    },
};
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FetchRequest, FindCoordinatorRequest,
    InitProducerIdRequest, MetadataRequest, ProduceRequest, create_topics_request::CreatableTopic,
};

use super::{Subject, fetch_all};

/// Slow and fast requests, sent together before the first reply is read.
#[test]
fn mixed_requests_are_answered_in_order() {
    let subject = Subject::start();
    let topic = subject.create("mixed");
    let mut client = subject.connect();
    let mut sent = Vec::new();
    for round in 0..4 {
        // Waits for its whole time, while those behind it could be answered at once.
        let wait = fetch_request(&topic, 0, 0)
            .with_min_bytes(i32::MAX)
            .with_max_wait_ms(200);
        sent.push(('w', client.send(&wait, FETCH_VERSION)));
        let versions = ApiVersionsRequest::default();
        sent.push(('v', client.send(&versions, 0)));
        let value = format!("round {round}");
        let batch = RawBatch::of(&[value.as_bytes()], now_ms()).encode();
        let produce = produce_request(&topic, 0, Some(Bytes::from(batch)), -1);
        sent.push(('p', client.send(&produce, PRODUCE_VERSION)));
        let name = topic_name(&format!("{topic}-{round}"));
        let new = CreatableTopic::default()
            .with_name(name)
            .with_num_partitions(2)
            .with_replication_factor(1);
        let create = CreateTopicsRequest::default()
            .with_topics(vec![new])
            .with_timeout_ms(20_000);
        sent.push(('c', client.send(&create, CREATE_TOPICS_VERSION)));
        let metadata = MetadataRequest::default().with_topics(Some(Vec::new()));
        sent.push(('m', client.send(&metadata, 9)));
        let find = FindCoordinatorRequest::default().with_key("group".to_string().into());
        sent.push(('f', client.send(&find, 3)));
        sent.push((
            'i',
            client.send(&init_producer_id_request(), INIT_PRODUCER_ID_VERSION),
        ));
    }
    assert!(sent.len() >= 20);
    let mut round = 0;
    for (kind, id) in sent {
        let mut frame = client.read_frame().expect("every request is answered");
        let frame = &mut frame;
        match kind {
            'w' => {
                only_fetched(decode_reply::<FetchRequest>(frame, FETCH_VERSION, id));
            }
            'v' => assert_eq!(
                decode_reply::<ApiVersionsRequest>(frame, 0, id).error_code,
                0
            ),
            'p' => {
                let reply = decode_reply::<ProduceRequest>(frame, PRODUCE_VERSION, id);
                assert_eq!(only_partition(reply).base_offset, round);
                round += 1;
            }
            'c' => {
                let reply = decode_reply::<CreateTopicsRequest>(frame, CREATE_TOPICS_VERSION, id);
                assert_eq!(error(reply.topics[0].error_code), None);
            }
            'm' => assert!(
                !decode_reply::<MetadataRequest>(frame, 9, id)
                    .brokers
                    .is_empty()
            ),
            'f' => {
                decode_reply::<FindCoordinatorRequest>(frame, 3, id);
            }
            'i' => {
                let version = INIT_PRODUCER_ID_VERSION;
                let reply = decode_reply::<InitProducerIdRequest>(frame, version, id);
                assert_eq!(error(reply.error_code), None);
            }
            other => unreachable!("{other}"),
        }
    }
    client.expect_silence(Duration::from_millis(100));
    subject.finish();
}

/// acks=0 has no reply, and those around it keep their order and offsets.
#[test]
fn silent_requests_leave_no_gap() {
    let subject = Subject::start();
    let topic = subject.create("silent");
    let mut client = subject.connect();
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for index in 0..30i64 {
        let value = index.to_string().into_bytes();
        let batch = Bytes::from(RawBatch::of(&[&value], now_ms()).encode());
        let acks = match index % 3 {
            0 => 0,
            1 => 1,
            _ => -1,
        };
        let id = client.send(
            &produce_request(&topic, 0, Some(batch), acks),
            PRODUCE_VERSION,
        );
        if acks != 0 {
            sent.push((index, id));
        }
        expected.push((index, value));
    }
    for (index, id) in sent {
        let reply = only_partition(client.receive::<ProduceRequest>(PRODUCE_VERSION, id));
        assert_eq!(error(reply.error_code), None, "{index}");
        assert_eq!(reply.base_offset, index);
    }
    client.expect_silence(Duration::from_millis(100));
    assert_eq!(fetch_all(&mut client, &topic, 0), expected);
    subject.finish();
}

/// More requests than a connection may have in flight, sent at once: the broker reads on as it answers.
#[test]
fn a_long_pipeline_goes_through() {
    const REQUESTS: usize = 2000;
    let subject = Subject::start();
    let mut client = subject.connect();
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let ids: Vec<i32> = (0..REQUESTS).map(|_| client.send(&request, 9)).collect();
    for id in ids {
        client.receive::<MetadataRequest>(9, id);
    }
    client.expect_silence(Duration::from_millis(100));
    subject.finish();
}
