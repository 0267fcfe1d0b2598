//! A million records of mixed sizes, with each codec, written by one client and read by the other, byte for byte.

use std::time::{Duration, Instant};

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    payload,
    tools::{java, run},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::NewTopic,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use crate::clients::create_topics;

const PARTITIONS: u64 = 6;
/// Per codec and direction: five codecs and two directions make a million.
const RECORDS: u64 = 100_000;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[test]
fn a_million_records_byte_for_byte_across_clients_and_a_restart() {
    let scratch = Scratch::new("roundtrip");
    // Small segments, so that rolls happen on the way.
    let options = Options::new(scratch.path()).set("log.segment.bytes", 8 << 20);
    let broker = Broker::start(options);
    let server = broker.bootstrap();
    let partitions = i32::try_from(PARTITIONS).expect("few");
    let topics: Vec<String> = CODECS
        .iter()
        .flat_map(|codec| [format!("librdkafka-{codec}"), format!("java-{codec}")])
        .collect();
    create_topics(
        &server,
        topics
            .iter()
            .map(|t| NewTopic::new(t, partitions, FIXED_ONE)),
    );

    for codec in CODECS {
        produce_with_librdkafka(&server, &format!("librdkafka-{codec}"), codec);
        produce_with_java(&server, &format!("java-{codec}"), codec);
    }
    for codec in CODECS {
        consume_with_java(&server, &format!("librdkafka-{codec}"));
        consume_with_librdkafka(&server, &format!("java-{codec}"));
    }
    let broker = Broker::start(broker.stop());
    for codec in CODECS {
        consume_with_librdkafka(&server, &format!("librdkafka-{codec}"));
        consume_with_java(&server, &format!("java-{codec}"));
    }
    broker.stop();
}

const FIXED_ONE: rdkafka::admin::TopicReplication<'static> =
    rdkafka::admin::TopicReplication::Fixed(1);

fn produce_with_librdkafka(server: &str, topic: &str, codec: &str) {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("enable.idempotence", "true")
        .set("compression.type", codec)
        .set("message.max.bytes", "1048000")
        .set("linger.ms", "5")
        .create()
        .expect("the producer's settings are right");
    for index in 0..RECORDS {
        let (value, key, header) = (
            payload::value(index),
            payload::key(index),
            payload::header(index),
        );
        let partition = i32::try_from(index % PARTITIONS).expect("few");
        loop {
            let headers = OwnedHeaders::new().insert(Header {
                key: "index",
                value: Some(&header[..]),
            });
            let mut record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(partition)
                .payload(&value)
                .headers(headers);
            if let Some(key) = &key {
                record = record.key(key);
            }
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.flush(Duration::from_millis(50)).ok();
                }
                Err((error, _)) => panic!("{topic}: record {index}: {error}"),
            }
        }
    }
    producer
        .flush(Duration::from_secs(120))
        .expect("everything is acknowledged in time");
}

fn consume_with_librdkafka(server: &str, topic: &str) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .expect("the consumer's settings are right");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let partition = i32::try_from(partition).expect("few");
        assignment
            .add_partition_offset(topic, partition, Offset::Beginning)
            .expect("beginning is an offset");
    }
    consumer
        .assign(&assignment)
        .expect("partitions can be assigned");
    let mut next: Vec<u64> = (0..PARTITIONS).collect();
    let mut at_end = 0;
    let deadline = Instant::now() + Duration::from_secs(240);
    while at_end < PARTITIONS {
        assert!(Instant::now() < deadline, "{topic}: next records {next:?}");
        let message = match consumer.poll(Duration::from_secs(1)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                at_end += 1;
                continue;
            }
            Some(Err(error)) => panic!("{topic}: {error}"),
            Some(Ok(message)) => message,
        };
        let expected = &mut next[usize::try_from(message.partition()).expect("not negative")];
        let header = message.headers().expect("every record has a header").get(0);
        let index = u64::from_be_bytes(
            header
                .value
                .expect("the header has a value")
                .try_into()
                .expect("of eight bytes"),
        );
        assert_eq!(index, *expected, "{topic}: offset {}", message.offset());
        assert!(
            message.payload().unwrap_or_default() == payload::value(index),
            "{topic}: {index}"
        );
        assert_eq!(
            message.key().map(<[u8]>::to_vec),
            payload::key(index),
            "{topic}: {index}"
        );
        *expected += PARTITIONS;
    }
    let seen: u64 = next
        .iter()
        .enumerate()
        .map(|(p, n)| (n - p as u64) / PARTITIONS)
        .sum();
    assert_eq!(seen, RECORDS, "{topic}");
}

fn produce_with_java(server: &str, topic: &str, codec: &str) {
    let (partitions, to) = (PARTITIONS.to_string(), RECORDS.to_string());
    run(
        &mut java(
            "forebay.Produce",
            &[server, topic, &partitions, "0", &to, codec],
        ),
        b"",
    )
    .ok();
}

fn consume_with_java(server: &str, topic: &str) {
    let (partitions, count) = (PARTITIONS.to_string(), RECORDS.to_string());
    run(
        &mut java("forebay.Consume", &[server, topic, &partitions, &count]),
        b"",
    )
    .ok();
}
