//! Producers on a schedule.
//!
//! A few drivers (threads) have the producers among them. A driver takes over what is due, gives it to its producers in turns, and polls
//! them for what was acknowledged. Which partition a record goes to is decided here, so that each producer knows the order of its records
//! in each partition: records without a key fill one batch after another, as Kafka's sticky partitioner does; keys are spread evenly.

use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};

use super::super::{
    load::{Load, Pacer, Produce, Produced, Shared, count_error},
    options::ProducerOptions,
};
use crate::{
    payload::{Acknowledged, Keys, PayloadWriter, Sizes, Stamp},
    run::{Direction, Recorder, recorder::Times},
    schedule::Share,
};

/// Drivers at most: more would take the cores that the broker needs.
const DRIVERS_MAX: u32 = 4;

/// Longest sleep while answers are awaited.
const POLL_EVERY: Duration = Duration::from_micros(500);

/// Records sent before the clock is looked at again.
const SENT_TOGETHER_MAX: usize = 256;

/// A record on its way.
struct Sent {
    times: Times,
    stream: u32,
    sequence: u64,
    bytes: u64,
}

/// What became of one.
struct Delivery {
    sent: Sent,
    error: Option<String>,
}

/// Deliveries of one producer since they were last taken. Called from its driver's poll only, so nobody waits for the lock.
#[derive(Default)]
struct Deliveries(Mutex<Vec<Delivery>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let error = result.as_ref().err().map(|(error, _)| match error {
            KafkaError::MessageProduction(code) => code.to_string(),
            other => other.to_string(),
        });
        let delivery = Delivery { sent: *sent, error };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(delivery);
    }
}

/// One producer, with where its next record goes.
struct Lane {
    producer: BaseProducer<Deliveries>,
    number: u32,
    in_flight: u32,
    /// Next sequence number by partition.
    sequences: Vec<u64>,
    sticky: usize,
    in_batch: usize,
}

pub fn start(
    cluster: &ClientConfig,
    produce: &Produce,
    load: &Load,
    shared: &Shared,
) -> Result<Vec<JoinHandle<Result<Produced, String>>>, String> {
    let Produce { options, offer } = produce;
    let config = config(cluster, options);
    let of = options.producers.min(DRIVERS_MAX);
    let mut drivers = Vec::new();
    for index in 0..of {
        let share = Share { index, of };
        let mut lanes = Vec::new();
        for number in (index..options.producers).step_by(of as usize) {
            lanes.push(Lane::new(&config, number, shared)?);
        }
        let pacer = Pacer::new(&offer.schedule, load.seed, share, load.warm_up, load.ends())?;
        let driver = Driver::new(lanes, pacer, produce, load, shared);
        let name = format!("producers-{index}");
        let spawned = thread::Builder::new()
            .name(name)
            .spawn(move || driver.run());
        drivers.push(spawned.map_err(|error| format!("a thread for producers: {error}"))?);
    }
    Ok(drivers)
}

fn config(cluster: &ClientConfig, options: &ProducerOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("batch.size", options.batch_bytes.to_string())
        .set("batch.num.messages", "1000000")
        .set("linger.ms", options.linger_ms.to_string())
        .set("queue.buffering.max.kbytes", "1048576")
        .set("queue.buffering.max.messages", "0")
        .set("compression.codec", &options.compression)
        .set("acks", &options.acks)
        .set("enable.idempotence", options.idempotent.to_string());
    // What the caller asks for comes last.
    for (name, value) in cluster.config_map() {
        config.set(name, value);
    }
    config
}

impl Lane {
    fn new(config: &ClientConfig, number: u32, shared: &Shared) -> Result<Lane, String> {
        let producer: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries::default())
            .map_err(|error| error.to_string())?;
        // Before the clock starts: connecting is not what is measured.
        let topic = &shared.partitions[0].topic;
        let metadata = producer
            .client()
            .fetch_metadata(Some(topic), Duration::from_secs(30));
        metadata.map_err(|error| format!("producer {number}: {error}"))?;
        Ok(Lane {
            producer,
            number,
            in_flight: 0,
            sequences: vec![0; shared.partitions.len()],
            sticky: number as usize % shared.partitions.len(),
            in_batch: 0,
        })
    }

    /// Sticks to a partition until a batch is full.
    fn next_partition(&mut self, bytes: usize, batch_bytes: usize) -> usize {
        self.in_batch += bytes;
        if self.in_batch > batch_bytes {
            self.in_batch = bytes;
            self.sticky = (self.sticky + 1) % self.sequences.len();
        }
        self.sticky
    }

    fn stream(&self, partition: usize) -> u32 {
        let streams = self.sequences.len();
        u32::try_from(self.number as usize * streams + partition).expect("checked with the plan")
    }
}

struct Driver {
    lanes: Vec<Lane>,
    /// Whose turn it is.
    turn: usize,
    pacer: Pacer,
    recorder: Recorder,
    writer: PayloadWriter,
    sizes: Sizes,
    keys: Keys,
    /// Size and key of the record whose turn it is, drawn once however often it is tried.
    drawn: Option<(usize, Option<u64>)>,
    value: Vec<u8>,
    in_flight_max: u32,
    batch_bytes: usize,
    bytes_left: u64,
    ends: Duration,
    /// For answers after the end.
    patience: Duration,
    shared: Shared,
    acknowledged: Acknowledged,
    errors: Vec<(String, u64)>,
}

impl Driver {
    fn new(
        lanes: Vec<Lane>,
        pacer: Pacer,
        produce: &Produce,
        load: &Load,
        shared: &Shared,
    ) -> Driver {
        let Produce { options, offer } = produce;
        let seed = load.seed ^ u64::from(lanes[0].number) << 32;
        let drivers = u64::from(options.producers.min(DRIVERS_MAX));
        let in_flight_max = match offer.schedule.is_closed() {
            Some(in_flight) => in_flight,
            None => options.in_flight_max,
        };
        let megabytes = offer.megabytes.unwrap_or(u64::MAX / 1_000_000);
        Driver {
            lanes,
            turn: 0,
            pacer,
            recorder: Recorder::new(
                Direction::Produce,
                shared.clock,
                &shared.phases,
                shared.told.clone(),
            ),
            writer: PayloadWriter::new(options.compressible),
            sizes: options.record_bytes.sizes(seed),
            keys: options.keys.keys(seed),
            drawn: None,
            value: Vec::new(),
            in_flight_max,
            batch_bytes: options.batch_bytes as usize,
            bytes_left: megabytes * 1_000_000 / drivers,
            ends: load.ends(),
            patience: load.drain_max,
            shared: shared.clone(),
            acknowledged: Acknowledged::default(),
            errors: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Produced, String> {
        let zero = self.shared.clock.zero();
        thread::sleep(zero.saturating_duration_since(std::time::Instant::now()));
        loop {
            let now = self.shared.clock.elapsed();
            if self.shared.stop.is_asked() || self.bytes_left == 0 || now >= self.ends {
                self.pacer.cut(now, &mut self.recorder);
                break;
            }
            self.pacer.turn_to(now, &mut self.recorder);
            let sent = self.send_some()?;
            let heard = self.poll();
            if self.pacer.is_done(now) {
                break;
            }
            if sent == 0 && heard == 0 {
                self.rest();
            }
        }
        self.wait_for_answers();
        Ok(Produced {
            totals: self.recorder.finish(),
            acknowledged: self.acknowledged,
            errors: self.errors,
        })
    }

    /// Until something is due, or an answer may be there.
    fn rest(&mut self) {
        let now = self.shared.clock.elapsed();
        let next = self.pacer.next_arrival().unwrap_or(Duration::MAX);
        let in_flight = self.lanes.iter().any(|lane| lane.in_flight > 0);
        let longest = if in_flight {
            POLL_EVERY
        } else {
            20 * POLL_EVERY
        };
        thread::sleep(next.saturating_sub(now).min(longest));
        self.recorder.tick();
    }

    /// What waits and has a producer that takes it.
    fn send_some(&mut self) -> Result<usize, String> {
        for sent in 0..SENT_TOGETHER_MAX {
            let now = self.shared.clock.elapsed();
            let Some(planned) = self.pacer.first_waiting(now) else {
                return Ok(sent);
            };
            if self.bytes_left == 0 || !self.find_free_lane() {
                return Ok(sent);
            }
            if !self.send(Times { planned, sent: now })? {
                return Ok(sent);
            }
            self.pacer.sent(planned, &mut self.recorder);
            self.turn = (self.turn + 1) % self.lanes.len();
        }
        Ok(SENT_TOGETHER_MAX)
    }

    fn find_free_lane(&mut self) -> bool {
        let lanes = self.lanes.len();
        let free = (0..lanes)
            .map(|step| (self.turn + step) % lanes)
            .find(|lane| self.lanes[*lane].in_flight < self.in_flight_max);
        self.turn = free.unwrap_or(self.turn);
        free.is_some()
    }

    /// False when librdkafka's queue is full.
    fn send(&mut self, times: Times) -> Result<bool, String> {
        let (bytes, key) = *self
            .drawn
            .get_or_insert_with(|| (self.sizes.next_bytes(), self.keys.next_key()));
        let lane = &mut self.lanes[self.turn];
        let partition = match key {
            Some(key) => {
                usize::try_from(key % lane.sequences.len() as u64).expect("below a length")
            }
            None => lane.next_partition(bytes, self.batch_bytes),
        };
        let stamp = Stamp {
            run_id: self.shared.run_id,
            stream: lane.stream(partition),
            sequence: lane.sequences[partition],
            planned: self.shared.clock.host_nanos_at(times.planned),
            sent: self.shared.clock.host_nanos_at(times.sent),
        };
        self.writer.write(&mut self.value, bytes, &stamp);
        let key = key.map(u64::to_be_bytes);
        let to = &self.shared.partitions[partition];
        let sent = Box::new(Sent {
            times,
            stream: stamp.stream,
            sequence: stamp.sequence,
            bytes: (bytes + key.map_or(0, |key| key.len())) as u64,
        });
        let mut record = BaseRecord::with_opaque_to(&to.topic, sent)
            .partition(to.partition)
            .payload(&self.value[..]);
        if let Some(key) = &key {
            record = record.key(&key[..]);
        }
        match lane.producer.send(record) {
            Ok(()) => {
                lane.in_flight += 1;
                lane.sequences[partition] += 1;
                self.bytes_left = self.bytes_left.saturating_sub(bytes as u64);
                self.drawn = None;
                Ok(true)
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error.to_string()),
        }
    }

    /// How many answers came.
    fn poll(&mut self) -> usize {
        let mut heard = 0;
        for lane in &mut self.lanes {
            if lane.in_flight == 0 {
                continue;
            }
            lane.producer.poll(Duration::ZERO);
            let deliveries = &lane.producer.context().0;
            let deliveries =
                std::mem::take(&mut *deliveries.lock().unwrap_or_else(PoisonError::into_inner));
            heard += deliveries.len();
            for Delivery { sent, error } in deliveries {
                lane.in_flight -= 1;
                match error {
                    None => {
                        self.recorder.completed(sent.times, 1, sent.bytes);
                        self.acknowledged.record(sent.stream, sent.sequence);
                    }
                    Some(error) => {
                        self.recorder.failed(sent.times.planned, 1);
                        count_error(&mut self.errors, &error, 1);
                    }
                }
            }
        }
        heard
    }

    /// Of all that was sent, or until librdkafka's own time (message.timeout.ms) or ours is up.
    fn wait_for_answers(&mut self) {
        let started = self.shared.clock.elapsed();
        while self.lanes.iter().any(|lane| lane.in_flight > 0) {
            if self.shared.clock.elapsed() > started + self.patience {
                let missing = self
                    .lanes
                    .iter()
                    .map(|lane| u64::from(lane.in_flight))
                    .sum();
                let waited = self.patience.as_secs();
                let error = format!("no answer within {waited} s of the end");
                count_error(&mut self.errors, &error, missing);
                break;
            }
            if self.poll() == 0 {
                thread::sleep(POLL_EVERY);
                self.recorder.tick();
            }
        }
    }
}
