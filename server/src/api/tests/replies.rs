//! Replies we write by hand, read by the `kafka-protocol` crate in every version.

use std::fmt::Debug;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    messages::{self, ApiKey, TopicName},
    protocol::{Decodable, Encodable, StrBytes},
};

use super::{
    generate::{Gen, Generate, Random},
    seeds,
};
use crate::{
    api::{
        fetch::{AbortedTransaction, FetchPartitionReply, FetchReply, FetchTopicReply},
        produce::{ProducePartitionReply, ProduceReply, ProduceTopicReply, RecordError},
    },
    wire::{ErrorCode, RequestHeader, api, reply},
};

const CORRELATION_ID: i32 = 0x1234_5678;

fn header(key: ApiKey, version: i16) -> RequestHeader {
    let api = api::find(key as i16).unwrap();
    assert!(api.accepts(version));
    RequestHeader {
        api,
        version,
        correlation_id: CORRELATION_ID,
        client_id: None,
    }
}

/// Checks size and header; the body must be what the crate makes of `expected`, and be read by it as that.
fn check<R>(header: &RequestHeader, mut sent: Bytes, expected: &R, seed: u64)
where
    R: Decodable + Encodable + PartialEq + Debug,
{
    let context = format!("version {}, FOREBAY_SEED={seed}", header.version);
    assert_eq!(sent.get_i32() as usize, sent.len(), "{context}");
    let header_version = header.api.key.response_header_version(header.version);
    let head = messages::ResponseHeader::decode(&mut sent, header_version).unwrap();
    assert_eq!(head.correlation_id, CORRELATION_ID, "{context}");
    let mut body = BytesMut::new();
    expected.encode(&mut body, header.version).unwrap();
    assert_eq!(sent, body, "{context}");
    let reply = R::decode(&mut sent, header.version).unwrap();
    assert_eq!(reply, *expected, "{context}");
    assert!(sent.is_empty(), "{context}");
}

fn error(random: &mut Random) -> ErrorCode {
    ErrorCode::ALL[random.below(ErrorCode::ALL.len())]
}

/// The crate leaves out a leader whose fields both have their defaults of -1; a real one has not.
fn leader(g: &mut Gen) -> Option<(i32, i32)> {
    bool::generate(g, 0).then(|| (i32::generate(g, 0) & i32::MAX, i32::generate(g, 0)))
}

fn list<T>(random: &mut Random, mut element: impl FnMut(&mut Random) -> T) -> Vec<T> {
    (0..random.below(4)).map(|_| element(random)).collect()
}

fn produce_reply(seed: u64) -> ProduceReply {
    let g = &mut Gen::new(seed, false);
    let random = &mut Random::new(seed);
    let partition = |random: &mut Random, g: &mut Gen| ProducePartitionReply {
        index: Generate::generate(g, 0),
        error: error(random),
        base_offset: Generate::generate(g, 0),
        log_append_time_ms: Generate::generate(g, 0),
        log_start_offset: Generate::generate(g, 0),
        record_errors: list(random, |_| RecordError {
            batch_index: Generate::generate(g, 0),
            message: Generate::generate(g, 0),
        }),
        error_message: Generate::generate(g, 0),
        current_leader: leader(g),
    };
    ProduceReply {
        topics: list(random, |random| ProduceTopicReply {
            name: Generate::generate(g, 0),
            partitions: list(random, |random| partition(random, g)),
        }),
        throttle_time_ms: Generate::generate(g, 0),
    }
}

#[test]
fn the_crate_reads_our_produce_replies() {
    for version in 3..=11 {
        for seed in seeds(0..80) {
            let reply = produce_reply(seed);
            let header = header(ApiKey::Produce, version);
            let sent = reply.encode(&header).unwrap();
            check(&header, sent, &expected_produce(&reply, version), seed);
        }
    }
}

fn expected_produce(reply: &ProduceReply, version: i16) -> messages::ProduceResponse {
    use messages::produce_response::*;
    let record_error = |e: &RecordError| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(e.batch_index)
            .with_batch_index_error_message(e.message.clone())
    };
    let partition = |p: &ProducePartitionReply| {
        let mut expected = PartitionProduceResponse::default()
            .with_index(p.index)
            .with_error_code(p.error.code())
            .with_base_offset(p.base_offset)
            .with_log_append_time_ms(p.log_append_time_ms);
        if version >= 5 {
            expected.log_start_offset = p.log_start_offset;
        }
        if version >= 8 {
            expected.record_errors = p.record_errors.iter().map(record_error).collect();
            expected.error_message = p.error_message.clone();
        }
        if let (Some((id, epoch)), true) = (p.current_leader, version >= 10) {
            expected.current_leader.leader_id = id.into();
            expected.current_leader.leader_epoch = epoch;
        }
        expected
    };
    let topic = |t: &ProduceTopicReply| {
        TopicProduceResponse::default()
            .with_name(t.name.clone())
            .with_partition_responses(t.partitions.iter().map(partition).collect())
    };
    messages::ProduceResponse::default()
        .with_responses(reply.topics.iter().map(topic).collect())
        .with_throttle_time_ms(reply.throttle_time_ms)
}

fn fetch_reply(seed: u64) -> FetchReply {
    let g = &mut Gen::new(seed, false);
    let random = &mut Random::new(seed);
    let partition = |random: &mut Random, g: &mut Gen| FetchPartitionReply {
        index: Generate::generate(g, 0),
        error: error(random),
        high_watermark: Generate::generate(g, 0),
        last_stable_offset: Generate::generate(g, 0),
        log_start_offset: Generate::generate(g, 0),
        diverging_epoch: leader(g).map(|(epoch, _)| (epoch, Generate::generate(g, 0))),
        current_leader: leader(g),
        aborted_transactions: bool::generate(g, 0).then(|| {
            list(random, |_| AbortedTransaction {
                producer_id: Generate::generate(g, 0),
                first_offset: Generate::generate(g, 0),
            })
        }),
        preferred_read_replica: Generate::generate(g, 0),
        records: list(random, |random| {
            Bytes::from(vec![random.next() as u8; random.below(300)])
        }),
    };
    FetchReply {
        throttle_time_ms: Generate::generate(g, 0),
        error: error(random),
        session_id: Generate::generate(g, 0),
        topics: list(random, |random| FetchTopicReply {
            topic: Generate::generate(g, 0),
            partitions: list(random, |random| partition(random, g)),
        }),
    }
}

#[test]
fn the_crate_reads_our_fetch_replies() {
    for version in 4..=12 {
        for seed in seeds(0..80) {
            let reply = fetch_reply(seed);
            let header = header(ApiKey::Fetch, version);
            let sent = reply.clone().encode(&header).unwrap().concat();
            check(&header, sent.into(), &expected_fetch(&reply, version), seed);
        }
    }
}

fn expected_fetch(reply: &FetchReply, version: i16) -> messages::FetchResponse {
    use messages::fetch_response::{FetchableTopicResponse, PartitionData};
    let aborted = |a: &AbortedTransaction| {
        messages::fetch_response::AbortedTransaction::default()
            .with_producer_id(a.producer_id.into())
            .with_first_offset(a.first_offset)
    };
    let partition = |p: &FetchPartitionReply| {
        let transactions = p.aborted_transactions.as_ref();
        let mut expected = PartitionData::default()
            .with_partition_index(p.index)
            .with_error_code(p.error.code())
            .with_high_watermark(p.high_watermark)
            .with_last_stable_offset(p.last_stable_offset)
            .with_aborted_transactions(transactions.map(|list| list.iter().map(aborted).collect()))
            .with_records(Some(p.records.concat().into()));
        if version >= 5 {
            expected.log_start_offset = p.log_start_offset;
        }
        if version >= 11 {
            expected.preferred_read_replica = p.preferred_read_replica.into();
        }
        if let (Some((epoch, end_offset)), true) = (p.diverging_epoch, version >= 12) {
            expected.diverging_epoch.epoch = epoch;
            expected.diverging_epoch.end_offset = end_offset;
        }
        if let (Some((id, epoch)), true) = (p.current_leader, version >= 12) {
            expected.current_leader.leader_id = id.into();
            expected.current_leader.leader_epoch = epoch;
        }
        expected
    };
    let topic = |t: &FetchTopicReply| {
        FetchableTopicResponse::default()
            .with_topic(t.topic.clone())
            .with_partitions(t.partitions.iter().map(partition).collect())
    };
    let mut expected = messages::FetchResponse::default()
        .with_throttle_time_ms(reply.throttle_time_ms)
        .with_responses(reply.topics.iter().map(topic).collect());
    if version >= 7 {
        expected.error_code = reply.error.code();
        expected.session_id = reply.session_id;
    }
    expected
}

#[test]
fn fetched_records_leave_as_the_slices_they_are() {
    let slices = [
        Bytes::from(vec![1; 100]),
        Bytes::new(),
        Bytes::from(vec![2; 50]),
    ];
    let mut partition = FetchPartitionReply::failed(0, ErrorCode::None);
    partition.records = slices.to_vec();
    let empty = FetchPartitionReply::failed(1, ErrorCode::OffsetOutOfRange);
    let reply = FetchReply {
        throttle_time_ms: 0,
        error: ErrorCode::None,
        session_id: 0,
        topics: vec![FetchTopicReply {
            topic: TopicName(StrBytes::from_static_str("topic")),
            partitions: vec![partition.clone(), empty, partition],
        }],
    };
    let sent = reply.encode(&header(ApiKey::Fetch, 12)).unwrap();
    let addresses: Vec<_> = sent.iter().map(|slice| slice.as_ptr()).collect();
    let (first, third) = (slices[0].as_ptr(), slices[2].as_ptr());
    // Fields, two slices, fields (of the partition without records, too), two slices, fields.
    assert_eq!(sent.len(), 7);
    assert_eq!([addresses[1], addresses[2]], [first, third]);
    assert_eq!([addresses[4], addresses[5]], [first, third]);
}

#[test]
fn replies_of_the_crate_get_the_header_of_their_version() {
    let check = |key, version, expected: &[u8], reply: &messages::HeartbeatResponse| {
        let mut header = header(key, version);
        header.correlation_id = 1;
        assert_eq!(reply::encode(&header, reply).unwrap(), expected);
    };
    let heartbeat = messages::HeartbeatResponse::default().with_error_code(27);
    check(
        ApiKey::Heartbeat,
        0,
        b"\0\0\0\x06\0\0\0\x01\0\x1b",
        &heartbeat,
    );
    check(
        ApiKey::Heartbeat,
        1,
        b"\0\0\0\x0a\0\0\0\x01\0\0\0\0\0\x1b",
        &heartbeat,
    );
    check(
        ApiKey::Heartbeat,
        4,
        b"\0\0\0\x0c\0\0\0\x01\0\0\0\0\0\0\x1b\0",
        &heartbeat,
    );

    // ApiVersions never has a flexible header, and answers what it does not know in version 0.
    let versions = messages::ApiVersionsResponse::default().with_error_code(35);
    let sent = reply::encode(&header(ApiKey::ApiVersions, 3), &versions).unwrap();
    assert_eq!(sent[8..], *b"\0\x23\x01\0\0\0\0\0");
    let sent = reply::encode(&RequestHeader::of_api_versions_0(9), &versions).unwrap();
    assert_eq!(sent, &b"\0\0\0\x0a\0\0\0\x09\0\x23\0\0\0\0"[..]);
}

#[test]
fn a_reply_that_a_version_cannot_carry_is_an_error() {
    let reply = messages::FindCoordinatorResponse::default().with_coordinators(vec![
        messages::find_coordinator_response::Coordinator::default(),
    ]);
    let error = reply::encode(&header(ApiKey::FindCoordinator, 3), &reply).unwrap_err();
    assert_eq!((error.key, error.version), (ApiKey::FindCoordinator, 3));
}
