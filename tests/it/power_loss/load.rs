//! The two loads: idempotent librdkafka producers that outlive every restart, and a writer without them for the replicated topic.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use forebay_tests::{
    payload,
    raw_batch::RawBatch,
    wire_client::{PRODUCE_VERSION, WireClient, error, now_ms, only_partition, produce_request},
};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use super::{
    PARTITIONS, PERSISTED, REPLICATED,
    model::{Acknowledged, Acknowledgements, Identity, Model, PRODUCERS},
};

/// Small records one by one, and large ones in bursts that go past the journal: (records at once, pause after them).
const BURSTS: [(u32, Duration); PRODUCERS] = [
    (1, Duration::from_micros(500)),
    (40, Duration::from_millis(30)),
];
/// Records waiting in a producer while the broker is away.
const QUEUED_MAX: &str = "100";
const FLUSH_TIME_MAX: Duration = Duration::from_secs(300);

/// The producers of the persisted topic.
pub struct Persisted {
    stop: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    producers: Vec<JoinHandle<()>>,
}

struct Oracle {
    acknowledged: Acknowledgements,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Oracle {}

impl ProducerContext for Oracle {
    type DeliveryOpaque = Box<Identity>;

    fn delivery(&self, result: &DeliveryResult<'_>, identity: Box<Identity>) {
        match result {
            Ok(message) => {
                let acknowledged = Acknowledged {
                    partition: message.partition(),
                    offset: u64::try_from(message.offset())
                        .ok()
                        .map(|_| message.offset()),
                    identity: *identity,
                };
                let mut inbox = self.acknowledged.lock().expect("no holder panics");
                inbox.push(acknowledged);
            }
            Err((error, _)) => {
                eprintln!("{identity:?} failed: {error}");
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Persisted {
    pub fn start(server: &str, model: &Model) -> Persisted {
        let stop = Arc::new(AtomicBool::new(false));
        let paused = Arc::new(AtomicBool::new(false));
        let failed = Arc::new(AtomicU64::new(0));
        let producers = (0..PRODUCERS).map(|producer| {
            let oracle = Oracle {
                acknowledged: model.inbox(),
                failed: failed.clone(),
            };
            let server = server.to_string();
            let (stop, paused) = (stop.clone(), paused.clone());
            thread::spawn(move || produce(&server, producer, oracle, &stop, &paused))
        });
        Persisted {
            producers: producers.collect(),
            stop,
            paused,
            failed,
        }
    }

    /// While the logs are read nothing new is sent, or reading them would take longer each time.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Every record that was sent is acknowledged in the end.
    pub fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for producer in self.producers.drain(..) {
            producer.join().expect("the producer does not panic");
        }
        let failed = self.failed.load(Ordering::Relaxed);
        assert_eq!(failed, 0, "records that were given up");
    }
}

impl Drop for Persisted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn produce(server: &str, index: usize, oracle: Oracle, stop: &AtomicBool, paused: &AtomicBool) {
    let producer: ThreadedProducer<Oracle> = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("enable.idempotence", "true")
        .set("linger.ms", if index == 0 { "0" } else { "10" })
        .set("queue.buffering.max.messages", QUEUED_MAX)
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.ms", "5")
        .set("reconnect.backoff.max.ms", "20")
        .set("retry.backoff.ms", "5")
        .set("retry.backoff.max.ms", "20")
        .set("socket.connection.setup.timeout.ms", "2000")
        .set("log_level", "2")
        .create_with_context(oracle)
        .expect("the producer's settings are right");
    let mut numbers = [0; PARTITIONS as usize];
    let mut partition = 0;
    let (records, pause) = BURSTS[index];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..records {
            let number = &mut numbers[partition as usize];
            let identity = Identity {
                producer: index as u8,
                number: *number,
            };
            if paused.load(Ordering::Relaxed) || !send(&producer, partition, identity) {
                break;
            }
            *number += 1;
        }
        partition = (partition + 1) % PARTITIONS;
        thread::sleep(pause);
    }
    // A failed test does not wait for a broker that is gone.
    if thread::panicking() {
        return;
    }
    producer
        .flush(FLUSH_TIME_MAX)
        .expect("everything is acknowledged in time");
}

/// False when the queue is full.
fn send(producer: &ThreadedProducer<Oracle>, partition: i32, identity: Identity) -> bool {
    let value = identity.value(partition);
    let record: BaseRecord<'_, (), Vec<u8>, _> =
        BaseRecord::with_opaque_to(PERSISTED, Box::new(identity))
            .partition(partition)
            .payload(&value);
    let Err((error, _)) = producer.send(record) else {
        return true;
    };
    let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
    assert_eq!(error, full, "only a full queue keeps a record");
    false
}

/// The writer of the replicated topic: one batch after the other, each record a function of its partition and offset. After a power loss
/// it goes on where the log ends.
pub struct Replicated {
    partitions: Vec<Progress>,
    writer: Option<JoinHandle<Vec<Progress>>>,
    pub acknowledged: u64,
    pub lost: u64,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    start: i64,
    /// The end of what was acknowledged, and of what was sent.
    acknowledged: i64,
    sent: i64,
}

const BATCH_RECORDS: i64 = 20;

impl Replicated {
    pub fn new(partitions: i32) -> Replicated {
        Replicated {
            partitions: vec![Progress::default(); partitions as usize],
            writer: None,
            acknowledged: 0,
            lost: 0,
        }
    }

    /// Writes until the connection ends.
    pub fn start(&mut self, server: &str) {
        let mut partitions = self.partitions.clone();
        let mut client = WireClient::connect(server);
        self.writer = Some(thread::spawn(move || {
            while (0..partitions.len())
                .all(|index| write_batch(&mut client, index as i32, &mut partitions[index]))
            {
                thread::sleep(Duration::from_millis(1));
            }
            partitions
        }));
    }

    /// After a restart: each log is what was written, up to some offset. Nothing is missing after an orderly end.
    pub fn check(&mut self, client: &mut WireClient, orderly: bool) {
        let writer = self.writer.take().expect("it was started");
        let written = writer.join().expect("the writer does not panic");
        for (index, mut progress) in written.into_iter().enumerate() {
            let before = self.partitions[index].acknowledged;
            self.acknowledged += (progress.acknowledged - before) as u64;
            let partition = index as i32;
            assert_eq!(client.log_start(REPLICATED, partition), progress.start);
            let end = client.log_end(REPLICATED, partition);
            assert!(
                (progress.start..=progress.sent).contains(&end),
                "{REPLICATED}-{index} ends at {end}, sent until {}",
                progress.sent
            );
            for (offset, value) in client.read_all(REPLICATED, partition) {
                assert!(value == replicated_value(partition, offset), "{offset}");
            }
            let lost = progress.acknowledged - end;
            assert!(
                !orderly || lost <= 0,
                "{REPLICATED}-{index}: an orderly end lost {lost} records"
            );
            self.lost += lost.max(0) as u64;
            (progress.acknowledged, progress.sent) = (end, end);
            self.partitions[index] = progress;
        }
    }

    pub fn delete_some(&mut self, client: &mut WireClient) {
        for (index, progress) in self.partitions.iter_mut().enumerate() {
            if progress.acknowledged > progress.start {
                client.delete_records(REPLICATED, index as i32, progress.acknowledged);
                progress.start = progress.acknowledged;
            }
        }
    }
}

fn replicated_value(partition: i32, offset: i64) -> Vec<u8> {
    let name = (partition as u64) << 48 | offset as u64;
    payload::mix(name)
        .to_le_bytes()
        .repeat(1 + (name % 40) as usize)
}

/// False when the broker is gone, or its disk.
fn write_batch(client: &mut WireClient, partition: i32, progress: &mut Progress) -> bool {
    let base = progress.sent;
    progress.sent += BATCH_RECORDS;
    let values: Vec<Vec<u8>> = (base..progress.sent)
        .map(|offset| replicated_value(partition, offset))
        .collect();
    let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let records = Bytes::from(RawBatch::of(&slices, now_ms()).encode());
    let request = produce_request(REPLICATED, partition, Some(records), -1);
    let Some(reply) = client.try_call(&request, PRODUCE_VERSION) else {
        return false;
    };
    let produced = only_partition(reply);
    if error(produced.error_code).is_some() {
        return false;
    }
    assert_eq!(produced.base_offset, base, "one writer, no gaps");
    progress.acknowledged = progress.sent;
    true
}
