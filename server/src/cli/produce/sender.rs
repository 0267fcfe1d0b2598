//! Batches records per partition and delivers them to the leaders.
//!
//! One request per partition is under way at a time, and a batch is repeated with the very same bytes: with an
//! idempotent producer a retry can therefore neither duplicate nor reorder. A batch whose fate stays unknown is
//! reported as failed, and everything after it is sent under a new producer id.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use forebay_engine::{
    ProducerEpoch, ProducerId, Timestamp,
    batch::{BatchBuilder, Codec},
};
use kafka_protocol::{
    ResponseError,
    messages::{
        InitProducerIdRequest, ProduceRequest, ProducerId as WireProducerId,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};

use super::reader::LineRecord;
use crate::cli::{
    client::{AutoCreate, Client, ClientError, Metadata, Target, topic_name},
    murmur2::partition_of,
    outcome::CliError,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct ProducerConfig {
    pub topic: String,
    pub acks: Acks,
    pub codec: Codec,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub retries: u32,
    pub retry_backoff: Duration,
    pub max_block: Duration,
    pub idempotent: bool,
}

pub struct Producer {
    client: Client,
    config: ProducerConfig,
    metadata: Option<Metadata>,
    identity: Option<(ProducerId, ProducerEpoch)>,
    queues: BTreeMap<i32, Queue>,
    sticky: Sticky,
    records_failed: u64,
}

/// What waits for one partition.
#[derive(Default)]
struct Queue {
    open: Option<OpenBatch>,
    next_sequence: i32,
}

struct OpenBatch {
    builder: BatchBuilder,
    since: Instant,
}

/// A batch on its way; its bytes never change.
struct Sealed {
    partition: i32,
    bytes: Bytes,
    record_count: usize,
    attempts: u32,
}

enum Delivery {
    Done,
    Again(ClientError),
    Failed(ClientError),
}

impl Producer {
    pub fn new(client: Client, config: ProducerConfig) -> Producer {
        Producer {
            client,
            config,
            metadata: None,
            identity: None,
            queues: BTreeMap::new(),
            sticky: Sticky::default(),
            records_failed: 0,
        }
    }

    pub fn records_failed(&self) -> u64 {
        self.records_failed
    }

    /// Time until the oldest batch has waited long enough; `None` if nothing waits.
    pub fn due_in(&self) -> Option<Duration> {
        let open = self.queues.values().filter_map(|queue| queue.open.as_ref());
        let oldest = open.map(|batch| batch.since).min()?;
        Some(self.config.linger.saturating_sub(oldest.elapsed()))
    }

    /// Adds a record; sends the batch that it fills.
    pub fn push(&mut self, record: LineRecord) -> Result<(), CliError> {
        let partition_count = self.partition_count()?;
        let bytes =
            record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
        let index = match &record.key {
            Some(key) => partition_of(key, partition_count),
            None => self
                .sticky
                .next(partition_count, bytes, self.config.batch_bytes),
        };
        let partition = i32::try_from(index).expect("Kafka counts partitions in 31 bits");
        // A record that does not fit beside the others starts a batch of its own.
        let is_crowded = |batch: &OpenBatch| {
            !batch.builder.is_empty() && batch.builder.len() + bytes > self.config.batch_bytes
        };
        let queue = self.queues.entry(partition).or_default();
        if queue.open.as_ref().is_some_and(is_crowded) {
            self.send_partitions(&[partition])?;
        }
        let queue = self.queues.entry(partition).or_default();
        let batch = queue.open.get_or_insert_with(|| OpenBatch {
            builder: BatchBuilder::new(self.config.codec),
            since: Instant::now(),
        });
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        batch.builder.push(now(), key, value, &headers);
        if batch.builder.len() >= self.config.batch_bytes {
            self.send_partitions(&[partition])?;
        }
        Ok(())
    }

    /// Sends everything that waits, and waits for the answers.
    pub fn flush(&mut self) -> Result<(), CliError> {
        let waiting = self.queues.iter().filter(|(_, queue)| queue.open.is_some());
        let partitions: Vec<i32> = waiting.map(|(partition, _)| *partition).collect();
        self.send_partitions(&partitions)
    }

    fn send_partitions(&mut self, partitions: &[i32]) -> Result<(), CliError> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.ensure_identity()?;
        let mut batches = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let queue = self.queues.entry(*partition).or_default();
            let Some(OpenBatch { mut builder, .. }) = queue.open.take() else {
                continue;
            };
            let record_count = builder.record_count();
            if let Some((id, epoch)) = self.identity {
                builder = builder.producer(id, epoch, queue.next_sequence);
                queue.next_sequence = sequence_after(queue.next_sequence, record_count);
            }
            batches.push(Sealed {
                partition: *partition,
                bytes: builder.build().freeze(),
                record_count,
                attempts: 0,
            });
        }
        self.deliver(batches);
        Ok(())
    }

    /// Repeats until every batch is done or given up.
    fn deliver(&mut self, mut batches: Vec<Sealed>) {
        let deadline = Instant::now() + self.config.max_block;
        while !batches.is_empty() {
            let mut again = Vec::new();
            for (mut batch, delivery) in self.attempt(batches) {
                match delivery {
                    Delivery::Done => {}
                    Delivery::Failed(error) => self.give_up(&batch, &error),
                    Delivery::Again(error) => {
                        // Not being able to connect is no attempt: nothing was sent.
                        let sent = !matches!(error, ClientError::Connect { .. });
                        batch.attempts += u32::from(sent);
                        if batch.attempts > self.config.retries || Instant::now() > deadline {
                            self.give_up(&batch, &error);
                        } else {
                            again.push(batch);
                        }
                    }
                }
            }
            if !again.is_empty() {
                sleep(self.config.retry_backoff);
                // Where this fails too, the next attempt says so.
                if let Ok(metadata) = self.fetch_metadata() {
                    self.metadata = Some(metadata);
                }
            }
            batches = again;
        }
    }

    /// One request to each leader, all on their way before the first answer is awaited.
    fn attempt(&mut self, batches: Vec<Sealed>) -> Vec<(Sealed, Delivery)> {
        let mut results = Vec::with_capacity(batches.len());
        let mut by_leader: BTreeMap<i32, Vec<Sealed>> = BTreeMap::new();
        for batch in batches {
            let metadata = self.metadata.as_ref();
            match metadata.and_then(|m| m.leader(&self.config.topic, batch.partition)) {
                Some(leader) => by_leader.entry(leader).or_default().push(batch),
                None => {
                    let error = ClientError::Broker {
                        error: ResponseError::LeaderNotAvailable,
                        what: format!("{}-{}", self.config.topic, batch.partition),
                        message: None,
                    };
                    results.push((batch, Delivery::Again(error)));
                }
            }
        }
        let mut pending = Vec::new();
        for (leader, batches) in by_leader {
            let request = self.request(&batches);
            match self.client.send(Target::Broker(leader), 12, |_| request) {
                Ok(_) if self.config.acks == Acks::None => {
                    results.extend(batches.into_iter().map(|batch| (batch, Delivery::Done)));
                }
                Ok(reply) => pending.push((reply, batches)),
                Err(error) => results.extend(all_failed(batches, &error)),
            }
        }
        let timeout = self.client.request_timeout();
        for (reply, batches) in pending {
            match self.client.receive(reply, timeout) {
                Ok(response) => {
                    let partitions: BTreeMap<i32, _> = response
                        .responses
                        .iter()
                        .flat_map(|topic| &topic.partition_responses)
                        .map(|partition| (partition.index, partition))
                        .collect();
                    for batch in batches {
                        let delivery = match partitions.get(&batch.partition) {
                            None => Delivery::Failed(ClientError::Malformed(
                                "the partition is missing from the answer".to_string(),
                            )),
                            Some(partition) => {
                                let message = partition.error_message.as_deref();
                                judge(partition.error_code, message.map(AsRef::as_ref))
                            }
                        };
                        results.push((batch, delivery));
                    }
                }
                Err(error) => results.extend(all_failed(batches, &error)),
            }
        }
        results
    }

    fn request(&self, batches: &[Sealed]) -> ProduceRequest {
        let partitions = batches.iter().map(|batch| {
            PartitionProduceData::default()
                .with_index(batch.partition)
                .with_records(Some(batch.bytes.clone()))
        });
        let topic = TopicProduceData::default()
            .with_name(topic_name(&self.config.topic))
            .with_partition_data(partitions.collect());
        let timeout_ms = self.client.request_timeout().as_millis();
        ProduceRequest::default()
            .with_acks(self.config.acks.wire())
            .with_timeout_ms(i32::try_from(timeout_ms).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic])
    }

    fn give_up(&mut self, batch: &Sealed, error: &ClientError) {
        self.records_failed += batch.record_count as u64;
        // Its sequence numbers may or may not have been used: nothing may follow them.
        self.identity = None;
        eprintln!(
            "Error when sending {} records ({} bytes) to {}-{}: {error}",
            batch.record_count,
            batch.bytes.len(),
            self.config.topic,
            batch.partition
        );
    }

    fn ensure_identity(&mut self) -> Result<(), CliError> {
        if !self.config.idempotent || self.identity.is_some() {
            return Ok(());
        }
        let response = self.client.retry(|client| {
            let response = client.call(Target::Any, 5, |_| {
                InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_transaction_timeout_ms(i32::MAX)
                    .with_producer_id(WireProducerId(-1))
                    .with_producer_epoch(-1)
            })?;
            ClientError::check(response.error_code, || "producer id".to_string())?;
            Ok(response)
        })?;
        self.identity = Some((
            ProducerId(response.producer_id.0),
            ProducerEpoch(response.producer_epoch),
        ));
        for queue in self.queues.values_mut() {
            queue.next_sequence = 0;
        }
        Ok(())
    }

    /// Waits for the topic, which the broker may have to create first.
    fn partition_count(&mut self) -> Result<usize, CliError> {
        let deadline = Instant::now() + self.config.max_block;
        loop {
            if let Some(metadata) = &self.metadata
                && let Some(topic) = metadata.topics.get(&self.config.topic)
            {
                match ClientError::check(topic.error_code, || format!("topic '{}'", topic.name)) {
                    Ok(()) if !topic.partitions.is_empty() => return Ok(topic.partitions.len()),
                    Err(error) if !error.is_retriable() => return Err(error.into()),
                    _ => {}
                }
            }
            if Instant::now() > deadline {
                return Err(CliError::failed(format!(
                    "Topic {} not present in metadata after {} ms.",
                    self.config.topic,
                    self.config.max_block.as_millis()
                )));
            }
            if self.metadata.is_some() {
                sleep(self.config.retry_backoff);
            }
            self.metadata = Some(self.fetch_metadata()?);
        }
    }

    fn fetch_metadata(&mut self) -> Result<Metadata, ClientError> {
        let topics = [self.config.topic.clone()];
        self.client.metadata(Some(&topics), AutoCreate::Allow)
    }
}

/// The same fate for all batches of a request.
fn all_failed(batches: Vec<Sealed>, error: &ClientError) -> Vec<(Sealed, Delivery)> {
    let judge = |batch| {
        let copy = match error {
            ClientError::Connect { address, error } => ClientError::Connect {
                address: address.clone(),
                error: std::io::Error::new(error.kind(), error.to_string()),
            },
            other => ClientError::Disconnected(other.to_string()),
        };
        let delivery = if error.is_retriable() {
            Delivery::Again(copy)
        } else {
            Delivery::Failed(copy)
        };
        (batch, delivery)
    };
    batches.into_iter().map(judge).collect()
}

fn judge(code: i16, message: Option<&str>) -> Delivery {
    match ClientError::check_with(code, message, || "produce".to_string()) {
        Ok(()) => Delivery::Done,
        // An earlier attempt arrived, only its answer did not.
        Err(error) if error.code() == Some(ResponseError::DuplicateSequenceNumber) => {
            Delivery::Done
        }
        Err(error) if error.is_retriable() => Delivery::Again(error),
        Err(error) => Delivery::Failed(error),
    }
}

/// Sequence numbers use 31 bits and start again at 0.
fn sequence_after(first: i32, record_count: usize) -> i32 {
    let sum = i64::from(first) + record_count as i64;
    (sum & 0x7fff_ffff) as i32
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    Timestamp(i64::try_from(millis).expect("milliseconds fit 63 bits for a long time"))
}

/// Records without a key stay with one partition for a batch's worth of bytes, then move to another by chance.
#[derive(Default)]
struct Sticky {
    current: Option<usize>,
    bytes: usize,
}

impl Sticky {
    fn next(&mut self, partition_count: usize, bytes: usize, batch_bytes: usize) -> usize {
        let current = match self.current {
            Some(current) if current < partition_count && self.bytes < batch_bytes => current,
            previous => {
                self.bytes = 0;
                other_partition(
                    previous,
                    partition_count,
                    RandomState::new().build_hasher().finish(),
                )
            }
        };
        self.bytes += bytes;
        self.current = Some(current);
        current
    }
}

/// Any partition but the previous one, if there is a choice.
fn other_partition(previous: Option<usize>, partition_count: usize, random: u64) -> usize {
    assert!(partition_count > 0, "a topic has partitions");
    match previous {
        Some(previous) if partition_count > 1 && previous < partition_count => {
            let step = 1 + (random % (partition_count as u64 - 1)) as usize;
            (previous + step) % partition_count
        }
        _ => (random % partition_count as u64) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(0, 5), 5);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }

    #[test]
    fn the_next_sticky_partition_is_another_one() {
        for random in 0..20 {
            for previous in 0..3 {
                let next = other_partition(Some(previous), 3, random);
                assert!(next < 3);
                assert_ne!(next, previous);
            }
        }
        assert_eq!(other_partition(Some(0), 1, 7), 0);
        assert_eq!(
            other_partition(Some(9), 2, 7),
            1,
            "the topic was re-created smaller"
        );
    }

    #[test]
    fn records_without_key_stay_for_a_batch() {
        let mut sticky = Sticky::default();
        let first = sticky.next(8, 60, 100);
        assert_eq!(sticky.next(8, 60, 100), first);
        assert_ne!(sticky.next(8, 60, 100), first);
    }

    #[test]
    fn answers_are_judged() {
        assert!(matches!(judge(0, None), Delivery::Done));
        assert!(matches!(judge(46, None), Delivery::Done), "duplicate");
        assert!(matches!(judge(6, None), Delivery::Again(_)), "leader moved");
        assert!(
            matches!(judge(45, None), Delivery::Failed(_)),
            "out of order"
        );
        assert!(matches!(judge(10, None), Delivery::Failed(_)), "too large");
    }
}
