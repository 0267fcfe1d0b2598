//! SIGKILL under load: what was acknowledged is there, at its offset, once; every restart succeeds.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    payload,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};

use crate::clients::create_topics;

const KILLS: u32 = 50;
const PARTITIONS: i32 = 8;

/// (partition, offset) of every record that was acknowledged, by its index.
type Acked = Arc<Mutex<HashMap<u64, (i32, i64)>>>;

struct Oracle {
    acked: Acked,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Oracle {}

impl ProducerContext for Oracle {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<u64>) {
        match result {
            Ok(message) => {
                let place = (message.partition(), message.offset());
                self.acked
                    .lock()
                    .expect("no holder panics")
                    .insert(*index, place);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn fifty_kills_lose_and_duplicate_nothing() {
    let seed = std::env::var("FOREBAY_SEED").map_or_else(
        |_| rand::random::<u32>().into(),
        |text| text.parse::<u64>().expect("FOREBAY_SEED is a number"),
    );
    eprintln!("FOREBAY_SEED={seed} replays the timing of the kills");
    let mut random = StdRng::seed_from_u64(seed);
    let scratch = Scratch::new("crash");
    let options = Options::new(scratch.path()).set("log.segment.bytes", 4 << 20);
    let mut broker = Broker::start(options);
    let server = broker.bootstrap();
    create_topics(
        &server,
        [NewTopic::new(
            "crash",
            PARTITIONS,
            TopicReplication::Fixed(1),
        )],
    );

    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let acked: Acked = Arc::default();
    let failed = Arc::new(AtomicU64::new(0));
    // One producer sends many small batches, the other large ones: the journal and the way past it.
    let producers: Vec<_> = [("1", "1000"), ("1000000", "100000")]
        .map(|(batch, queue)| {
            let (server, stop, sent) = (server.clone(), stop.clone(), sent.clone());
            let oracle = Oracle {
                acked: acked.clone(),
                failed: failed.clone(),
            };
            let (batch, queue) = (batch.to_string(), queue.to_string());
            thread::spawn(move || produce(&server, &batch, &queue, oracle, &stop, &sent))
        })
        .into();

    let mut slowest_start = Duration::ZERO;
    for kill in 1..=KILLS {
        let before = acked.lock().expect("no holder panics").len();
        // At least one acknowledgement between two kills, so that each of them can lose something.
        let deadline = Instant::now() + Duration::from_secs(60);
        while acked.lock().expect("no holder panics").len() == before {
            assert!(
                Instant::now() < deadline,
                "kill {kill}: nothing is acknowledged any more"
            );
            thread::sleep(Duration::from_millis(2));
        }
        thread::sleep(Duration::from_millis(random.random_range(0..400)));
        let options = broker.kill();
        let started = Instant::now();
        broker = Broker::start(options);
        slowest_start = slowest_start.max(started.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.join().expect("the producer does not panic");
    }
    let acked = acked.lock().expect("no holder panics");
    let sent = sent.load(Ordering::Relaxed);
    eprintln!(
        "{sent} sent, {} acknowledged, slowest start {slowest_start:?}",
        acked.len()
    );
    assert_eq!(
        failed.load(Ordering::Relaxed),
        0,
        "every record is acknowledged in the end"
    );
    assert_eq!(acked.len() as u64, sent);
    check(&server, &acked);
    broker.stop();
}

fn produce(
    server: &str,
    batch_records: &str,
    queue: &str,
    oracle: Oracle,
    stop: &AtomicBool,
    sent: &AtomicU64,
) {
    let producer: ThreadedProducer<Oracle> = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("enable.idempotence", "true")
        .set("batch.num.messages", batch_records)
        .set("linger.ms", if batch_records == "1" { "0" } else { "20" })
        .set("queue.buffering.max.messages", queue)
        .set("queue.buffering.max.kbytes", "16384")
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50")
        .set("retry.backoff.ms", "10")
        .set("socket.connection.setup.timeout.ms", "2000")
        .create_with_context(oracle)
        .expect("the producer's settings are right");
    while !stop.load(Ordering::Relaxed) {
        let index = sent.fetch_add(1, Ordering::Relaxed);
        let (key, value) = (index.to_be_bytes(), value(index));
        let mut record = BaseRecord::with_opaque_to("crash", Box::new(index))
            .partition(i32::try_from(index % PARTITIONS as u64).expect("few"))
            .key(&key[..])
            .payload(&value[..]);
        while let Err((error, back)) = producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(
                error, full,
                "only a full queue keeps a record from being sent"
            );
            record = back;
            thread::sleep(Duration::from_millis(1));
        }
    }
    producer
        .flush(Duration::from_secs(300))
        .expect("everything is acknowledged in time");
}

fn value(index: u64) -> Vec<u8> {
    payload::mix(index)
        .to_le_bytes()
        .repeat(1 + (index % 100) as usize)
}

/// Reads everything there is: each acknowledged record at its offset, no record twice, no gap.
fn check(server: &str, acked: &HashMap<u64, (i32, i64)>) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .create()
        .expect("the consumer's settings are right");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment
            .add_partition_offset("crash", partition, Offset::Beginning)
            .expect("beginning is an offset");
    }
    consumer
        .assign(&assignment)
        .expect("partitions can be assigned");
    let mut seen: HashMap<u64, (i32, i64)> = HashMap::with_capacity(acked.len());
    let mut next = vec![0; PARTITIONS as usize];
    let mut ended = 0;
    while ended < PARTITIONS {
        let message = match consumer.poll(Duration::from_secs(30)) {
            None => panic!("no record within 30 s"),
            Some(Err(KafkaError::PartitionEOF(_))) => {
                ended += 1;
                continue;
            }
            Some(Err(error)) => panic!("{error}"),
            Some(Ok(message)) => message,
        };
        let place = (message.partition(), message.offset());
        let next = &mut next[message.partition() as usize];
        assert_eq!(
            message.offset(),
            *next,
            "partition {} has no gaps",
            message.partition()
        );
        *next += 1;
        let key = message.key().expect("every record has a key");
        let index = u64::from_be_bytes(key.try_into().expect("of eight bytes"));
        assert!(
            message.payload() == Some(&value(index)[..]),
            "record {index} is as it was sent"
        );
        let earlier = seen.insert(index, place);
        assert_eq!(
            earlier, None,
            "record {index} is there twice: {earlier:?} and {place:?}"
        );
    }
    for (index, place) in acked {
        assert_eq!(seen.get(index), Some(place), "acknowledged record {index}");
    }
}
