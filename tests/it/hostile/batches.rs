//! Record batches that break a rule: each has its error code and leaves the log as it was.

use bytes::Bytes;
use forebay_tests::{
    raw_batch::{RawBatch, put_record, put_varint},
    wire_client::{PRODUCE_VERSION, error, now_ms, only_partition, produce_request, topic_name},
};
use kafka_protocol::{
    ResponseError::{
        self, CorruptMessage, InvalidRecord, InvalidRequiredAcks, InvalidTimestamp,
        MessageTooLarge, UnknownTopicOrPartition, UnsupportedCompressionType,
    },
    messages::{
        ProduceRequest,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};

use super::{Subject, Witness, fetch_all};

const HOUR_MS: i64 = 3_600_000;

fn good() -> RawBatch {
    RawBatch::of(&[b"a", b"b", b"c"], now_ms())
}

/// What a batch of this one record, given without its length, comes to.
fn with_record(body: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    put_varint(&mut records, body.len() as i64);
    records.extend(body);
    RawBatch::of(&[b""], now_ms())
        .with(|batch| batch.records = records)
        .encode()
}

fn changed(change: impl FnOnce(&mut RawBatch)) -> Vec<u8> {
    good().with(change).encode()
}

/// Which rule, the bytes that break it, and the code for that.
type Case = (&'static str, Vec<u8>, ResponseError);

fn header_cases() -> Vec<Case> {
    let pid = |id, epoch, sequence| good().producer(id, epoch, sequence).encode();
    vec![
        ("wrong CRC", changed(|b| b.crc_error = 1), CorruptMessage),
        ("magic 0", changed(|b| b.magic = 0), InvalidRecord),
        ("magic 1", changed(|b| b.magic = 1), InvalidRecord),
        (
            "length zero",
            changed(|b| b.length_error = -(b.records.len() as i32) - 49),
            CorruptMessage,
        ),
        (
            "negative length",
            changed(|b| b.length_error = i32::MIN),
            CorruptMessage,
        ),
        (
            "count too low",
            changed(|b| b.record_count = 2),
            InvalidRecord,
        ),
        (
            "count too high",
            changed(|b| b.record_count = 4),
            InvalidRecord,
        ),
        (
            "count and delta too high",
            changed(|b| (b.record_count, b.last_offset_delta) = (4, 3)),
            InvalidRecord,
        ),
        (
            "count and delta too low",
            changed(|b| (b.record_count, b.last_offset_delta) = (2, 1)),
            InvalidRecord,
        ),
        (
            "huge count and delta",
            changed(|b| (b.record_count, b.last_offset_delta) = (i32::MAX, i32::MAX - 1)),
            InvalidRecord,
        ),
        (
            "negative count",
            changed(|b| b.record_count = -1),
            InvalidRecord,
        ),
        ("count zero", changed(|b| b.record_count = 0), InvalidRecord),
        (
            "no records at all",
            changed(|b| (b.record_count, b.last_offset_delta, b.records) = (0, -1, Vec::new())),
            InvalidRecord,
        ),
        (
            "last offset delta too low",
            changed(|b| b.last_offset_delta = 1),
            InvalidRecord,
        ),
        (
            "last offset delta too high",
            changed(|b| b.last_offset_delta = 3),
            InvalidRecord,
        ),
        (
            "negative last offset delta",
            changed(|b| b.last_offset_delta = -1),
            InvalidRecord,
        ),
        (
            "control batch",
            changed(|b| b.attributes = 1 << 5),
            InvalidRecord,
        ),
        (
            "in the future",
            changed(|b| b.base_timestamp += 2 * HOUR_MS),
            InvalidTimestamp,
        ),
        (
            "at the end of time",
            changed(|b| b.base_timestamp = i64::MAX),
            InvalidTimestamp,
        ),
        ("producer without a sequence", pid(5, 0, -1), InvalidRecord),
        (
            "producer with a negative sequence",
            pid(5, 0, i32::MIN),
            InvalidRecord,
        ),
    ]
}

fn record_cases() -> Vec<Case> {
    let trailing = changed(|b| b.records.push(0));
    let cut = changed(|b| {
        b.records.pop();
    });
    vec![
        ("bytes after the last record", trailing, InvalidRecord),
        ("last record cut short", cut, InvalidRecord),
        // Attributes, timestamp delta, offset delta; then key, value and header count.
        (
            "key longer than the record",
            with_record(b"\0\0\0\x7e\x01\0"),
            InvalidRecord,
        ),
        (
            "value longer than the record",
            with_record(b"\0\0\0\x01\x7e\0"),
            InvalidRecord,
        ),
        (
            "value of 2 GiB",
            with_record(b"\0\0\0\x01\xfe\xff\xff\xff\x0f\0"),
            InvalidRecord,
        ),
        (
            "2^31-1 headers",
            with_record(b"\0\0\0\x01\x01\xfe\xff\xff\xff\x0f"),
            InvalidRecord,
        ),
        (
            "-1 headers",
            with_record(b"\0\0\0\x01\x01\x01"),
            InvalidRecord,
        ),
        (
            "a header without a key",
            with_record(b"\0\0\0\x01\x01\x02\x01\x01"),
            InvalidRecord,
        ),
        (
            "an endless varint",
            with_record(b"\0\0\0\x01\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
            InvalidRecord,
        ),
        ("an empty record", with_record(b""), InvalidRecord),
        (
            "negative record length",
            changed(|b| b.records[0] = 0x01),
            InvalidRecord,
        ),
    ]
}

fn shape_cases() -> Vec<Case> {
    let whole = good().encode();
    let two = [whole.clone(), whole.clone()].concat();
    let large = RawBatch::of(&[&vec![7; 1_048_600]], now_ms()).encode();
    vec![
        ("two batches", two, InvalidRecord),
        ("nothing", Vec::new(), InvalidRecord),
        ("three bytes", whole[..3].to_vec(), InvalidRecord),
        ("half a header", whole[..30].to_vec(), InvalidRecord),
        ("a header alone", whole[..61].to_vec(), InvalidRecord),
        (
            "one byte too few",
            whole[..whole.len() - 1].to_vec(),
            InvalidRecord,
        ),
        ("larger than max.message.bytes", large, MessageTooLarge),
        ("only zeros", vec![0; 200], CorruptMessage),
        ("only ones", vec![0xff; 200], CorruptMessage),
    ]
}

/// Every case is refused with its code and leaves the log alone, and the next good batch of the same connection is taken. All wrong
/// codes are reported together.
#[track_caller]
fn check_cases(subject: Subject, cases: &[Case]) {
    let mut witness = Witness::new(&subject);
    let topic = subject.create("victim");
    let mut client = subject.connect();
    let mut expected = Vec::new();
    let mut wrong = Vec::new();
    for (rule, bytes, code) in cases {
        let offset = client.log_end(&topic, 0);
        let refused = client.produce(&topic, 0, bytes);
        let answer = (error(refused.error_code), refused.base_offset);
        let end = client.log_end(&topic, 0);
        if (answer, end) != ((Some(*code), -1), offset) {
            wrong.push(format!(
                "{rule}: {answer:?}, not {code:?}; log end {offset}, then {end}"
            ));
        }
        let value = format!("after {rule}").into_bytes();
        let taken = client.produce(&topic, 0, &RawBatch::of(&[&value], now_ms()).encode());
        assert_eq!(error(taken.error_code), None, "after {rule}");
        assert_eq!(taken.base_offset, end, "after {rule}");
        expected.push((end, value));
        witness.check(rule);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(fetch_all(&mut client, &topic, 0), expected);
    witness.finish();
    subject.finish();
}

#[test]
fn headers_that_contradict_are_refused() {
    check_cases(Subject::start(), &header_cases());
}

#[test]
fn records_that_do_not_parse_are_refused() {
    check_cases(Subject::start(), &record_cases());
}

#[test]
fn anything_but_one_whole_batch_is_refused() {
    check_cases(Subject::start(), &shape_cases());
}

/// Apache Kafka 4.3 takes these, trusting the header of an uncompressed batch and reading any negative length as null.
#[test]
fn what_kafka_lets_pass_is_refused() {
    let subject = Subject::start();
    if subject.broker.is_none() {
        return;
    }
    let records = |offset_deltas: [i64; 2]| {
        let mut records = Vec::new();
        for delta in offset_deltas {
            put_record(&mut records, delta, None, Some(b"a"));
        }
        changed(|b| (b.record_count, b.last_offset_delta, b.records) = (2, 1, records))
    };
    let cases = [
        ("the same offset twice", records([0, 0]), InvalidRecord),
        ("backwards", records([1, 0]), InvalidRecord),
        ("a gap", records([0, 2]), InvalidRecord),
        ("negative", records([-1, 0]), InvalidRecord),
        (
            "key length -2",
            with_record(b"\0\0\0\x03\x01\0"),
            InvalidRecord,
        ),
        (
            "stamped as by the broker",
            changed(|b| b.attributes = 1 << 3),
            InvalidTimestamp,
        ),
    ];
    check_cases(subject, &cases);
}

#[test]
fn null_records_are_refused() {
    let subject = Subject::start();
    if subject.broker.is_none() {
        // Kafka 4.3 does not answer.
        return;
    }
    let witness = Witness::new(&subject);
    let topic = subject.create("victim");
    let mut client = subject.connect();
    for version in [3, 8, PRODUCE_VERSION] {
        let request = produce_request(&topic, 0, None, -1);
        let reply = only_partition(client.call(&request, version));
        assert_eq!(error(reply.error_code), Some(InvalidRecord), "{version}");
    }
    assert_eq!(client.log_end(&topic, 0), 0);
    witness.finish();
    subject.finish();
}

/// A codec that the version of the request does not know, and one that nobody knows.
#[test]
fn codecs_are_checked() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let topic = subject.create("victim");
    let mut client = subject.connect();
    let zstd = Bytes::from(changed(|b| b.attributes = 4));
    for version in 3..7 {
        let request = produce_request(&topic, 0, Some(zstd.clone()), -1);
        let reply = only_partition(client.call(&request, version));
        assert_eq!(
            error(reply.error_code),
            Some(UnsupportedCompressionType),
            "{version}"
        );
    }
    for codec in 5..8 {
        let reply = client.produce(&topic, 0, &changed(|b| b.attributes = codec));
        assert!(error(reply.error_code).is_some(), "codec {codec}");
    }
    assert_eq!(client.log_end(&topic, 0), 0);
    witness.finish();
    subject.finish();
}

#[test]
fn unknown_acks_are_refused() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let topic = subject.create("victim");
    let mut client = subject.connect();
    for acks in [7, 2, -2, i16::MAX, i16::MIN] {
        let request = produce_request(&topic, 0, Some(Bytes::from(good().encode())), acks);
        let reply = only_partition(client.call(&request, PRODUCE_VERSION));
        assert_eq!(error(reply.error_code), Some(InvalidRequiredAcks), "{acks}");
        assert_eq!(reply.base_offset, -1);
    }
    assert_eq!(client.log_end(&topic, 0), 0);
    witness.finish();
    subject.finish();
}

/// One request to good and bad partitions: each gets its own answer, and the good ones their records.
#[test]
fn one_bad_partition_does_not_spoil_the_others() {
    let subject = Subject::start();
    let witness = Witness::new(&subject);
    let topic = subject.topic("victim");
    let mut client = subject.connect();
    client.create_topic(&topic, 3);
    let batches = [
        (0, good().encode(), None),
        (1, changed(|b| b.crc_error = 1), Some(CorruptMessage)),
        (2, good().encode(), None),
        (3, good().encode(), Some(UnknownTopicOrPartition)),
        (-1, good().encode(), Some(UnknownTopicOrPartition)),
        (i32::MAX, good().encode(), Some(UnknownTopicOrPartition)),
        (i32::MIN, good().encode(), Some(UnknownTopicOrPartition)),
    ];
    let partitions = batches.iter().map(|(index, bytes, _)| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some(Bytes::from(bytes.clone())))
    });
    let known = TopicProduceData::default()
        .with_name(topic_name(&topic))
        .with_partition_data(partitions.collect());
    let unknown = produce_request("no-such-topic", 0, Some(Bytes::from(good().encode())), -1)
        .topic_data
        .remove(0);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(20_000)
        .with_topic_data(vec![known, unknown]);
    let reply = client.call(&request, PRODUCE_VERSION);

    let answer = |name: &str| {
        let found = reply
            .responses
            .iter()
            .find(|topic| topic.name.as_str() == name);
        found.unwrap_or_else(|| panic!("no answer for {name}: {reply:?}"))
    };
    let answers = &answer(&topic).partition_responses;
    assert_eq!(answers.len(), batches.len());
    for (index, _, expected) in &batches {
        let answer = answers.iter().find(|answer| answer.index == *index);
        let answer = answer.unwrap_or_else(|| panic!("no answer for {index}: {answers:?}"));
        assert_eq!(error(answer.error_code), *expected, "partition {index}");
        let offset = if expected.is_none() { 0 } else { -1 };
        assert_eq!(answer.base_offset, offset, "partition {index}");
    }
    let unknown = &answer("no-such-topic").partition_responses[0];
    assert_eq!(error(unknown.error_code), Some(UnknownTopicOrPartition));
    let ends: Vec<i64> = (0..3).map(|index| client.log_end(&topic, index)).collect();
    assert_eq!(ends, [3, 0, 3]);
    witness.finish();
    subject.finish();
}

/// acks=0 has no reply: the client learns of an error by losing the connection.
#[test]
fn an_error_without_acks_closes_the_connection() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = subject.create("victim");
    let bad = changed(|b| b.crc_error = 1);
    for (what, topic, bytes) in [
        ("wrong CRC", topic.as_str(), bad),
        ("unknown topic", "no-such-topic", good().encode()),
    ] {
        let mut client = subject.connect();
        let request = produce_request(topic, 0, Some(Bytes::from(bytes)), 0);
        client.send(&request, PRODUCE_VERSION);
        client.expect_closed(what);
        witness.check(what);
    }
    witness.finish();
    subject.finish();
}
