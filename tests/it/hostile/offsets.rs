//! Offsets, partitions, epochs and limits out of range.

use std::time::{Duration, Instant};

use forebay_tests::{
    raw_batch::{RawBatch, read_values},
    wire_client::{
        FETCH_VERSION, WireClient, error, fetch_request, now_ms, only_fetched, topic_name,
    },
};
use kafka_protocol::{
    ResponseError::{
        FetchSessionIdNotFound, InvalidFetchSessionEpoch, OffsetOutOfRange, UnknownLeaderEpoch,
        UnknownTopicOrPartition,
    },
    messages::{
        BrokerId, DeleteRecordsRequest, OffsetForLeaderEpochRequest,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
};

use super::{Subject, Witness};

/// A topic with records at the offsets 0, 1 and 2 of its only partition, each in a batch of its own.
fn three_records(subject: &Subject, client: &mut WireClient) -> String {
    let topic = subject.create("three");
    for value in [b"0", b"1", b"2"] {
        let reply = client.produce(&topic, 0, &RawBatch::of(&[value], now_ms()).encode());
        assert_eq!(error(reply.error_code), None);
    }
    topic
}

#[test]
fn fetching_out_of_range_has_its_codes() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    for offset in [4, 1000, i64::MAX, -1, -2, i64::MIN] {
        let reply = client.fetch(&topic, 0, offset);
        assert_eq!(error(reply.error_code), Some(OffsetOutOfRange), "{offset}");
        assert!(reply.records.unwrap_or_default().is_empty(), "{offset}");
        witness.check("a fetch out of range");
    }
    let at_end = client.fetch(&topic, 0, 3);
    assert_eq!(error(at_end.error_code), None);
    assert_eq!((at_end.high_watermark, at_end.log_start_offset), (3, 0));
    for partition in [1, -1, i32::MAX, i32::MIN] {
        let reply = client.fetch(&topic, partition, 0);
        assert_eq!(
            error(reply.error_code),
            Some(UnknownTopicOrPartition),
            "{partition}"
        );
    }
    let reply = client.fetch("no-such-topic", 0, 0);
    assert_eq!(error(reply.error_code), Some(UnknownTopicOrPartition));
    witness.finish();
    subject.finish();
}

/// Whatever the limits, the first batch comes, whole; and what is asked for is not waited for beyond `max_wait`.
#[test]
fn fetch_limits_are_taken_as_they_come() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    for (bytes_max, partition_bytes_max) in [(1, 1), (0, 1), (i32::MAX, 1), (i32::MAX, i32::MAX)] {
        let mut request = fetch_request(&topic, 0, 0).with_max_bytes(bytes_max);
        request.topics[0].partitions[0].partition_max_bytes = partition_bytes_max;
        let fetched = only_fetched(client.call(&request, FETCH_VERSION));
        assert_eq!(
            error(fetched.error_code),
            None,
            "{bytes_max} {partition_bytes_max}"
        );
        let values = read_values(&fetched.records.unwrap_or_default());
        let count = if partition_bytes_max == 1 { 1 } else { 3 };
        assert_eq!(values.len(), count, "{bytes_max} {partition_bytes_max}");
    }
    for bytes_max in [-1, i32::MIN] {
        let mut request = fetch_request(&topic, 0, 0).with_max_bytes(bytes_max);
        request.topics[0].partitions[0].partition_max_bytes = bytes_max;
        // No promise what comes, but something does.
        only_fetched(client.call(&request, FETCH_VERSION));
    }
    let began = Instant::now();
    let request = fetch_request(&topic, 0, 3)
        .with_min_bytes(i32::MAX)
        .with_max_wait_ms(300);
    let fetched = only_fetched(client.call(&request, FETCH_VERSION));
    assert!(fetched.records.unwrap_or_default().is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(began.elapsed() < Duration::from_secs(5));
    let request = fetch_request(&topic, 0, 3)
        .with_min_bytes(1)
        .with_max_wait_ms(-5);
    only_fetched(client.call(&request, FETCH_VERSION));
    witness.finish();
    subject.finish();
}

#[test]
fn leader_epochs_from_the_future_are_unknown() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    let mut request = fetch_request(&topic, 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = 99;
    let fetched = only_fetched(client.call(&request, FETCH_VERSION));
    assert_eq!(error(fetched.error_code), Some(UnknownLeaderEpoch));

    for (partition, epoch, expected) in [
        (0, 99, Some(UnknownLeaderEpoch)),
        (0, -1, None),
        (7, -1, Some(UnknownTopicOrPartition)),
        (-7, -1, Some(UnknownTopicOrPartition)),
    ] {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(epoch)
            .with_leader_epoch(0);
        let wanted = OffsetForLeaderTopic::default()
            .with_topic(topic_name(&topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![wanted]);
        let reply = client.call(&request, 4);
        let answer = &reply.topics[0].partitions[0];
        assert_eq!(error(answer.error_code), expected, "{answer:?}");
    }
    subject.finish();
}

#[test]
fn fetch_sessions_that_are_not_ours_are_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    let unknown = fetch_request(&topic, 0, 0)
        .with_session_id(12345)
        .with_session_epoch(1);
    let reply = client.call(&unknown, FETCH_VERSION);
    assert_eq!(error(reply.error_code), Some(FetchSessionIdNotFound));

    let open = fetch_request(&topic, 0, 0).with_session_epoch(0);
    let opened = client.call(&open, FETCH_VERSION);
    assert_eq!(error(opened.error_code), None);
    // A broker need not keep sessions.
    if opened.session_id != 0 {
        let skipped = fetch_request(&topic, 0, 0)
            .with_session_id(opened.session_id)
            .with_session_epoch(17);
        let reply = client.call(&skipped, FETCH_VERSION);
        assert_eq!(error(reply.error_code), Some(InvalidFetchSessionEpoch));
    }
    subject.finish();
}

#[test]
fn listing_offsets_of_what_is_not_there_is_refused() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    assert_eq!(client.latest_offset(&topic, 0), Ok(3));
    for partition in [1, -1, i32::MAX, i32::MIN] {
        let answer = client.latest_offset(&topic, partition);
        assert_eq!(answer, Err(UnknownTopicOrPartition), "{partition}");
    }
    let answer = client.latest_offset("no-such-topic", 0);
    assert_eq!(answer, Err(UnknownTopicOrPartition));
    subject.finish();
}

#[test]
fn records_are_deleted_only_up_to_what_is_there() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let mut client = subject.connect();
    let topic = three_records(&subject, &mut client);
    let mut delete = |partition, offset| {
        let wanted = DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(offset);
        let wanted = DeleteRecordsTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(vec![wanted]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(20_000);
        let reply = client.call(&request, 2);
        let answer = &reply.topics[0].partitions[0];
        (error(answer.error_code), answer.low_watermark)
    };
    for offset in [4, i64::MAX, -2, i64::MIN] {
        assert_eq!(delete(0, offset), (Some(OffsetOutOfRange), -1), "{offset}");
    }
    for partition in [1, -1, i32::MAX] {
        assert_eq!(
            delete(partition, 0).0,
            Some(UnknownTopicOrPartition),
            "{partition}"
        );
    }
    assert_eq!(delete(0, 2), (None, 2));
    let below = client.fetch(&topic, 0, 1);
    assert_eq!(error(below.error_code), Some(OffsetOutOfRange));
    let there = client.fetch(&topic, 0, 2);
    assert_eq!(read_values(&there.records.unwrap_or_default()).len(), 1);
    witness.finish();
    subject.finish();
}
