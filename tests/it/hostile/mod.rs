//! Bad input against the real binary: each kind gets Kafka's error code, or a closed connection where the frame itself is broken.
//! Meanwhile a [`Witness`] on a connection of its own produces and fetches as before, and at the end finds every acked record.
//!
//! With `FOREBAY_TESTS_BOOTSTRAP=HOST:PORT` the same cases run against whatever listens there: that is how the expected codes were
//! compared with Apache Kafka's. What is about our process (memory, metrics, restarts) is left out then.

mod batches;
mod clients;
mod frames;
mod offsets;
mod ordering;
mod producers;
mod topics;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    raw_batch::{RawBatch, read_values},
    wire_client::{WireClient, error, now_ms},
};

/// The broker under attack.
struct Subject {
    address: String,
    name: String,
    /// `None`: somebody else's. Declared before its directory, so that it ends first.
    broker: Option<Broker>,
    scratch: Option<Scratch>,
}

impl Subject {
    fn start() -> Subject {
        Subject::start_with(|options| options)
    }

    fn start_with(change: impl FnOnce(Options) -> Options) -> Subject {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}-{unique}", std::process::id());
        if let Ok(address) = std::env::var("FOREBAY_TESTS_BOOTSTRAP") {
            return Subject {
                address,
                name,
                broker: None,
                scratch: None,
            };
        }
        let scratch = Scratch::new("hostile");
        let options = Options::new(scratch.path())
            .set("forebay.memory.bytes", MEMORY_BYTES)
            .set("forebay.journal.files", 2)
            .set("auto.create.topics.enable", true);
        let broker = Broker::start(change(options));
        Subject {
            address: broker.bootstrap(),
            name,
            broker: Some(broker),
            scratch: Some(scratch),
        }
    }

    fn connect(&self) -> WireClient {
        WireClient::connect(&self.address)
    }

    /// A name that no other test uses.
    fn topic(&self, name: &str) -> String {
        format!("{name}-{}", self.name)
    }

    /// A topic with one partition.
    fn create(&self, name: &str) -> String {
        let topic = self.topic(name);
        self.connect().create_topic(&topic, 1);
        topic
    }

    /// Stops the broker; it must end with 0, and nothing may be left of the attack.
    fn finish(mut self) {
        if let Some(broker) = self.broker.take() {
            let said = broker.output();
            assert!(!said.contains("panicked"), "{said}");
            broker.stop();
        }
        drop(self.scratch.take());
    }
}

/// Small, so that a leak shows.
const MEMORY_BYTES: u64 = 256 << 20;

/// An honest client that must not notice anything.
struct Witness {
    client: WireClient,
    topic: String,
    /// Per partition the values that were acked; the index is the offset.
    acked: Vec<Vec<Vec<u8>>>,
}

impl Witness {
    /// Enough to have some on every shard.
    const PARTITIONS: i32 = 4;
    const CHECK_TIME_MAX: Duration = Duration::from_secs(5);

    fn new(subject: &Subject) -> Witness {
        let topic = subject.topic("witness");
        let mut client = subject.connect();
        client.create_topic(&topic, Witness::PARTITIONS);
        let mut witness = Witness {
            client,
            topic,
            acked: vec![Vec::new(); Witness::PARTITIONS as usize],
        };
        witness.check("before anything happened");
        witness
    }

    /// Produces to every partition and fetches it back.
    #[track_caller]
    fn check(&mut self, after: &str) {
        let began = Instant::now();
        for partition in 0..Witness::PARTITIONS {
            let acked = &mut self.acked[partition as usize];
            let offset = acked.len() as i64;
            let value = format!("{partition}/{offset}").into_bytes();
            let batch = RawBatch::of(&[&value], now_ms()).encode();
            let reply = self.client.produce(&self.topic, partition, &batch);
            assert_eq!(error(reply.error_code), None, "produce after: {after}");
            assert_eq!(reply.base_offset, offset, "produce after: {after}");
            acked.push(value.clone());
            let fetched = self.client.fetch(&self.topic, partition, offset);
            assert_eq!(error(fetched.error_code), None, "fetch after: {after}");
            let records = fetched.records.unwrap_or_default();
            assert_eq!(read_values(&records), [(offset, value)], "after: {after}");
        }
        let took = began.elapsed();
        assert!(took < Witness::CHECK_TIME_MAX, "{took:?} after: {after}");
    }

    /// Every acked record is there, at its offset, and nothing else.
    #[track_caller]
    fn finish(mut self) {
        self.check("everything");
        for (partition, acked) in (0..).zip(&self.acked) {
            let expected: Vec<_> = (0..).zip(acked.iter().cloned()).collect();
            let found = fetch_all(&mut self.client, &self.topic, partition);
            assert_eq!(found, expected, "partition {partition}");
        }
    }
}

/// Offset and value of all records of a partition.
#[track_caller]
fn fetch_all(client: &mut WireClient, topic: &str, partition: i32) -> Vec<(i64, Vec<u8>)> {
    let end = client.log_end(topic, partition);
    let mut found: Vec<(i64, Vec<u8>)> = Vec::new();
    while found.last().map_or(0, |(offset, _)| offset + 1) < end {
        let next = found.last().map_or(0, |(offset, _)| offset + 1);
        let fetched = client.fetch(topic, partition, next);
        assert_eq!(error(fetched.error_code), None);
        let values = read_values(&fetched.records.unwrap_or_default());
        assert!(!values.is_empty(), "nothing at {next} of {end}");
        found.extend(values.into_iter().filter(|(offset, _)| *offset >= next));
    }
    found
}
