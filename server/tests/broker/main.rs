//! A whole broker in this process, spoken to by a raw client: what real clients rely on, and what hostile ones try.

// A test ends at the first thing that is not as it should be.
#![allow(clippy::unwrap_used)]

mod client;
mod faults;
mod harness;
mod hostile;
mod versions;

use std::{
    thread,
    time::{Duration, Instant},
};

use client::{batch, fetch_request, offset_of, produce_request, records_of};
use harness::TestBroker;
use kafka_protocol::messages::{
    ApiVersionsRequest, DeleteRecordsRequest, InitProducerIdRequest, ListOffsetsRequest,
    OffsetForLeaderEpochRequest, ProduceRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use crate::client::{Client, topic_name};

#[test]
fn what_was_produced_is_fetched_from_every_partition_and_after_a_restart() {
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 4);
    for partition in 0..4 {
        let value = format!("first of {partition}");
        assert_eq!(client.produce("t", partition, &[value.as_bytes()]), 0);
        assert_eq!(client.produce("t", partition, &[b"second", b"third"]), 1);
    }
    let check = |client: &mut Client| {
        let wanted: Vec<(i32, i64)> = (0..4).map(|partition| (partition, 0)).collect();
        let response = client.fetch(&fetch_request("t", &wanted));
        for partition in 0..4 {
            let first = format!("first of {partition}").into_bytes();
            let expected = vec![(0, first), (1, b"second".to_vec()), (2, b"third".to_vec())];
            assert_eq!(records_of(&response, partition), expected);
        }
    };
    check(&mut client);
    broker.restart();
    let mut client = broker.client();
    check(&mut client);
    assert_eq!(client.produce("t", 0, &[b"fourth"]), 3);
}

#[test]
fn pipelined_requests_take_effect_and_are_answered_in_order() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    let mut sent = Vec::new();
    for round in 0..50 {
        for partition in 0..2 {
            let value = format!("{round}");
            let request = produce_request("t", &[(partition, batch(&[value.as_bytes()]))], -1);
            sent.push((client.send(9, &request), round));
        }
    }
    for (id, round) in sent {
        let (received, response) = client.receive::<ProduceRequest>(9);
        assert_eq!(received, id);
        assert_eq!(offset_of(&response), round);
    }
    // A long poll in front holds back the replies behind it, not their effects.
    let waiting = fetch_request("t", &[(0, 50)]).with_max_wait_ms(20_000);
    let began = Instant::now();
    let poll = client.send(11, &waiting);
    let produced = client.send(9, &produce_request("t", &[(0, batch(&[b"wake"]))], -1));
    let (first, fetched) = client.receive::<kafka_protocol::messages::FetchRequest>(11);
    assert_eq!(
        (first, records_of(&fetched, 0)),
        (poll, vec![(50, b"wake".to_vec())])
    );
    assert_eq!(client.receive::<ProduceRequest>(9).0, produced);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "woken, not timed out"
    );
}

#[test]
fn a_long_poll_waits_for_records_of_another_connection_and_no_longer_than_told() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    for partition in 0..2 {
        let mut consumer = broker.client();
        let waiting = fetch_request("t", &[(0, 0), (1, 0)]).with_max_wait_ms(20_000);
        if partition == 1 {
            // Only the second partition is new.
            let wanted = fetch_request("t", &[(0, 1), (1, 0)]).with_max_wait_ms(20_000);
            consumer.send(11, &wanted);
        } else {
            consumer.send(11, &waiting);
        }
        client.produce("t", partition, &[b"x"]);
        let (_, fetched) = consumer.receive::<kafka_protocol::messages::FetchRequest>(11);
        assert_eq!(records_of(&fetched, partition), vec![(0, b"x".to_vec())]);
    }
    let began = Instant::now();
    let empty = client.fetch(&fetch_request("t", &[(0, 1)]).with_max_wait_ms(300));
    assert_eq!(records_of(&empty, 0), vec![]);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn fetch_limits_and_errors() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let large = vec![7; 100_000];
    for _ in 0..5 {
        client.produce("t", 0, &[&large]);
    }
    let mut one = fetch_request("t", &[(0, 2)]);
    one.topics[0].partitions[0].partition_max_bytes = 1;
    let response = client.fetch(&one);
    assert_eq!(
        records_of(&response, 0),
        vec![(2, large.clone())],
        "at least one batch"
    );
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.high_watermark, 5);
    assert_eq!(
        (partition.last_stable_offset, partition.log_start_offset),
        (5, 0)
    );

    let error = |client: &mut Client, request| {
        let response = client.fetch(&request);
        response.responses[0].partitions[0].error_code
    };
    assert_eq!(
        error(&mut client, fetch_request("t", &[(0, 6)])),
        1,
        "above the end"
    );
    assert_eq!(error(&mut client, fetch_request("t", &[(0, -1)])), 1);
    assert_eq!(
        error(&mut client, fetch_request("t", &[(1, 0)])),
        3,
        "no such partition"
    );
    assert_eq!(
        error(&mut client, fetch_request("u", &[(0, 0)])),
        3,
        "no such topic"
    );
    let mut fenced = fetch_request("t", &[(0, 0)]);
    fenced.topics[0].partitions[0].current_leader_epoch = 1000;
    assert_eq!(error(&mut client, fenced), 75, "an epoch we do not know");
}

#[test]
fn fetch_sessions_tell_only_news() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 4);
    let wanted: Vec<(i32, i64)> = (0..4).map(|partition| (partition, 0)).collect();
    let opened = client.fetch(&fetch_request("t", &wanted).with_session_epoch(0));
    assert_ne!(opened.session_id, 0);
    assert_eq!(opened.responses[0].partitions.len(), 4);
    let next = |epoch| {
        fetch_request("t", &[])
            .with_topics(vec![])
            .with_session_id(opened.session_id)
            .with_session_epoch(epoch)
    };
    assert!(client.fetch(&next(1)).responses.is_empty());
    client.produce("t", 2, &[b"x"]);
    let news = client.fetch(&next(2));
    assert_eq!(news.responses[0].partitions.len(), 1);
    assert_eq!(records_of(&news, 2), vec![(0, b"x".to_vec())]);
    assert_eq!(
        client.fetch(&next(2)).error_code,
        71,
        "an epoch that was used"
    );
    let unknown = next(1).with_session_id(opened.session_id ^ 1);
    assert_eq!(client.fetch(&unknown).error_code, 70);
}

#[test]
fn refused_batches_get_kafkas_errors_and_harm_nothing() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let good = batch(&[b"x"]);
    let mut check = |what: &str, records: bytes::Bytes, expected: i16| {
        let response = client.call(9, &produce_request("t", &[(0, records)], -1));
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, expected, "{what}: {partition:?}");
    };
    let edited = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes::Bytes::from(bytes)
    };
    check("flipped byte", edited(good.len() - 1, 0x55), 2);
    check("old magic", edited(16, 1), 87);
    check(
        "two batches",
        [good.clone(), good.clone()].concat().into(),
        87,
    );
    check("nothing", bytes::Bytes::new(), 87);
    let large = vec![1; 2 << 20];
    check("too large", batch(&[&large]), 10);
    let response = client.call(9, &produce_request("t", &[(9, good.clone())], -1));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 3);
    let response = client.call(9, &produce_request("t", &[(0, good)], 2));
    assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
    assert_eq!(client.produce("t", 0, &[b"the first that counts"]), 0);
}

#[test]
fn acks_0_is_silent_and_ordered() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    for _ in 0..10 {
        client.send(9, &produce_request("t", &[(0, batch(&[b"silent"]))], 0));
    }
    assert_eq!(
        client.produce("t", 0, &[b"heard"]),
        10,
        "the next reply is of the next request"
    );
}

#[test]
fn idempotent_producers_are_deduplicated() {
    use forebay_engine::{
        ProducerEpoch, ProducerId, Timestamp,
        batch::{BatchBuilder, Codec},
    };
    let mut broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let id = |client: &mut Client| {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1);
        let response = client.call(4, &request);
        assert_eq!((response.error_code, response.producer_epoch), (0, 0));
        response.producer_id.0
    };
    let producer = id(&mut client);
    let other = broker.client();
    assert_ne!(id(&mut { other }), producer);
    let sequenced = |sequence: i32| {
        let mut builder = BatchBuilder::new(Codec::None).producer(
            ProducerId(producer),
            ProducerEpoch(0),
            sequence,
        );
        builder.push(Timestamp(1_700_000_000_000), None, Some(b"x"), &[]);
        builder.build().freeze()
    };
    let send = |client: &mut Client, sequence: i32| {
        let request = produce_request("t", &[(0, sequenced(sequence))], -1);
        let response = client.call(9, &request);
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    };
    assert_eq!(send(&mut client, 0), (0, 0));
    assert_eq!(send(&mut client, 1), (0, 1));
    assert_eq!(
        send(&mut client, 0),
        (0, 0),
        "a duplicate gets its old offset"
    );
    assert_eq!(send(&mut client, 5), (45, -1));
    broker.restart();
    let mut client = broker.client();
    assert_eq!(send(&mut client, 1), (0, 1), "also after a restart");
    assert_eq!(send(&mut client, 2), (0, 2));
    assert_ne!(id(&mut client), producer, "ids are never given twice");
}

#[test]
fn offsets_are_listed_and_records_deleted() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    for _ in 0..3 {
        client.produce("t", 0, &[b"a", b"b"]);
    }
    let list = |client: &mut Client, timestamp| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = client.call(9, &request);
        let partition = &response.topics[0].partitions[0];
        (partition.error_code, partition.offset)
    };
    assert_eq!(list(&mut client, -1), (0, 6));
    assert_eq!(list(&mut client, -2), (0, 0));
    assert_eq!(list(&mut client, -4), (0, 0));
    assert_eq!(list(&mut client, -5), (0, -1));
    assert_eq!(list(&mut client, 0), (0, 0));
    assert_eq!(list(&mut client, i64::MAX), (0, -1));
    assert_eq!(list(&mut client, -9), (35, -1));

    let delete = |client: &mut Client, offset| {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(10_000);
        let response = client.call(2, &request);
        let partition = &response.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    };
    assert_eq!(delete(&mut client, 3), (0, 3));
    assert_eq!(delete(&mut client, 7), (1, -1));
    assert_eq!(list(&mut client, -2), (0, 3));
    assert_eq!(delete(&mut client, -1), (0, 6));
    assert_eq!(list(&mut client, -2), (0, 6));

    let partition = OffsetForLeaderPartition::default()
        .with_current_leader_epoch(-1)
        .with_leader_epoch(0);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name("t"))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    let response = client.call(3, &request);
    let end = &response.topics[0].partitions[0];
    assert_eq!((end.error_code, end.end_offset), (0, 6));
}

#[test]
fn every_api_is_listed_once() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let response = client.call(3, &ApiVersionsRequest::default());
    assert_eq!(response.error_code, 0);
    let mut keys: Vec<i16> = response.api_keys.iter().map(|api| api.api_key).collect();
    let listed = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), listed);
    let produce = &response.api_keys[0];
    assert_eq!((produce.api_key, produce.min_version), (0, 0));
}

#[test]
fn many_connections_at_once_spread_over_the_shards() {
    let broker = TestBroker::start();
    broker.client().create_topic("t", 8);
    thread::scope(|scope| {
        for worker in 0..8 {
            let mut client = broker.client();
            scope.spawn(move || {
                for round in 0..50 {
                    let value = format!("{worker} {round}");
                    assert_eq!(client.produce("t", worker, &[value.as_bytes()]), round);
                }
                let found = client.fetch(&fetch_request("t", &[(worker, 0)]));
                let expected: Vec<(i64, Vec<u8>)> = (0..50)
                    .map(|round| (round, format!("{worker} {round}").into_bytes()))
                    .collect();
                assert_eq!(records_of(&found, worker), expected);
            });
        }
    });
}

#[test]
fn producers_that_outrun_the_disk_wait_in_order() {
    // 4 MiB of tail for each shard; every round brings twice that before the first reply is read.
    let broker = TestBroker::with(&[("forebay.tail.cache.bytes", "8388608")]);
    let mut client = broker.client();
    client.create_topic("t", 2);
    let value = vec![3; 400_000];
    let mut next = 0;
    for _ in 0..5 {
        let request = produce_request("t", &[(0, batch(&[&value])), (1, batch(&[&value]))], -1);
        for _ in 0..20 {
            client.send(9, &request);
        }
        for _ in 0..20 {
            let (_, response) = client.receive::<ProduceRequest>(9);
            for partition in &response.responses[0].partition_responses {
                let outcome = (partition.error_code, partition.base_offset);
                assert_eq!(outcome, (0, next), "{partition:?}");
            }
            next += 1;
        }
    }
}

#[test]
fn metrics_and_health_are_served() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 2);
    client.produce("t", 0, &[b"a", b"b", b"c"]);
    client.produce("t", 1, &[b"d"]);
    let (status, body) = broker.http("/metrics");
    assert_eq!(status, 200);
    let value = |name: &str| {
        let line = body.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{body}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(value("forebay_shards "), 2);
    assert_eq!(value("forebay_produced_records_total "), 4);
    assert_eq!(value("forebay_requests_total{api=\"Produce\"} "), 2);
    assert_eq!(value("forebay_connections "), 1);
    assert_eq!(broker.http("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(broker.http("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(broker.http("/").0, 404);
}
