//! Reads batches of many partitions from their leaders, with long poll, from the positions it keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::Duration,
};

use bytes::{Buf, Bytes};
use forebay_engine::{
    ProducerId,
    batch::{BatchError, BatchHeader, Record, Records, records::DECOMPRESSED_BYTES_MAX},
};
use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
};

use crate::cli::client::{
    AutoCreate, Client, ClientError, Metadata, Target, TopicPartition, offsets::OffsetSpec,
    topic_name,
};

const FETCH_BYTES_MAX: i32 = 50 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// Also bounds how long a heartbeat or Ctrl-C waits.
const LONG_POLL: Duration = Duration::from_millis(500);
const ERROR_BACKOFF: Duration = Duration::from_millis(100);

/// Where to go when there is no position, or none that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    Earliest,
    Latest,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

pub struct Fetcher {
    isolation: Isolation,
    reset: OffsetReset,
    positions: BTreeMap<TopicPartition, i64>,
    metadata: Metadata,
    /// Turns with every poll, so that no partition is always asked first.
    turn: usize,
}

/// A batch as it came, checked against its CRC.
pub struct FetchedBatch {
    pub partition: TopicPartition,
    pub header: BatchHeader,
    bytes: Bytes,
    /// False for control batches and, when reading committed, for aborted ones.
    pub is_visible: bool,
}

impl FetchedBatch {
    pub fn records(&self) -> Result<Records, BatchError> {
        Records::new(&self.bytes, DECOMPRESSED_BYTES_MAX)
    }

    /// Whether a record lies before the position that was asked for: brokers send whole batches.
    pub fn is_before(record: &Record, position: i64) -> bool {
        record.offset.get() < position
    }
}

impl Fetcher {
    pub fn new(isolation: Isolation, reset: OffsetReset, metadata: Metadata) -> Fetcher {
        Fetcher {
            isolation,
            reset,
            positions: BTreeMap::new(),
            metadata,
            turn: 0,
        }
    }

    pub fn positions(&self) -> &BTreeMap<TopicPartition, i64> {
        &self.positions
    }

    /// `None` for a partition that is not (or no longer) ours.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition).copied()
    }

    pub fn advance(&mut self, partition: &TopicPartition, position: i64) {
        if let Some(current) = self.positions.get_mut(partition) {
            assert!(position >= *current, "a reader never goes back by itself");
            *current = position;
        }
    }

    pub fn add(&mut self, partition: TopicPartition, position: i64) {
        self.positions.insert(partition, position);
    }

    pub fn clear(&mut self) {
        self.positions.clear();
    }

    pub fn set_metadata(&mut self, metadata: Metadata) {
        self.metadata = metadata;
    }

    /// Adds partitions at a named place.
    pub fn add_at(
        &mut self,
        client: &mut Client,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
    ) -> Result<(), ClientError> {
        let wanted: Vec<(TopicPartition, OffsetSpec)> = partitions
            .iter()
            .map(|partition| (partition.clone(), spec))
            .collect();
        let committed = self.isolation == Isolation::ReadCommitted;
        let topics: BTreeSet<&String> = partitions.iter().map(|(topic, _)| topic).collect();
        let topics: Vec<String> = topics.into_iter().cloned().collect();
        let found = client.retry(|client| {
            match client.list_offsets(&self.metadata, &wanted, committed) {
                Err(error) if error.is_retriable() => {
                    self.metadata = client.metadata(Some(&topics), AutoCreate::Forbid)?;
                    Err(error)
                }
                outcome => outcome,
            }
        })?;
        for (partition, offset) in found {
            self.positions.insert(partition, offset.unwrap_or(0));
        }
        Ok(())
    }

    /// Adds partitions where the reset policy says.
    pub fn add_by_reset(
        &mut self,
        client: &mut Client,
        partitions: &[TopicPartition],
    ) -> Result<(), ClientError> {
        if partitions.is_empty() {
            return Ok(());
        }
        match self.reset {
            OffsetReset::Earliest => self.add_at(client, partitions, OffsetSpec::Earliest),
            OffsetReset::Latest => self.add_at(client, partitions, OffsetSpec::Latest),
            OffsetReset::Error => {
                let (topic, partition) = &partitions[0];
                Err(ClientError::Broker {
                    error: ResponseError::OffsetOutOfRange,
                    what: format!("{topic}-{partition}"),
                    message: Some(format!(
                        "{topic}-{partition} has no valid offset and auto.offset.reset is none"
                    )),
                })
            }
        }
    }

    /// One fetch from every leader. Comes back with what there is, or empty after the long poll.
    pub fn poll(&mut self, client: &mut Client) -> Result<Vec<FetchedBatch>, ClientError> {
        let by_leader = self.partitions_by_leader();
        let mut trouble = by_leader.values().map(Vec::len).sum::<usize>() < self.positions.len();
        if by_leader.is_empty() {
            sleep(ERROR_BACKOFF);
        }
        let mut pending = Vec::new();
        for (leader, partitions) in by_leader {
            let request = self.request(&partitions);
            match client.send(Target::Broker(leader), 12, |_| request) {
                Ok(reply) => pending.push(reply),
                Err(error) if error.is_retriable() => trouble = true,
                Err(error) => return Err(error),
            }
        }
        let mut batches = Vec::new();
        let timeout = LONG_POLL + client.request_timeout();
        for reply in pending {
            match client.receive(reply, timeout) {
                Ok(response) => trouble |= self.take(client, response, &mut batches)?,
                Err(error) if error.is_retriable() => trouble = true,
                Err(error) => return Err(error),
            }
        }
        if trouble && !self.positions.is_empty() {
            sleep(ERROR_BACKOFF);
            let topics: BTreeSet<String> = self.positions.keys().map(|(t, _)| t.clone()).collect();
            let topics: Vec<String> = topics.into_iter().collect();
            self.metadata = client.metadata(Some(&topics), AutoCreate::Forbid)?;
        }
        Ok(batches)
    }

    fn partitions_by_leader(&mut self) -> BTreeMap<i32, Vec<(TopicPartition, i64)>> {
        let mut all: Vec<(TopicPartition, i64)> = self
            .positions
            .iter()
            .map(|(partition, position)| (partition.clone(), *position))
            .collect();
        if !all.is_empty() {
            self.turn = (self.turn + 1) % all.len();
            all.rotate_left(self.turn);
        }
        let mut by_leader: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for (partition, position) in all {
            if let Some(leader) = self.metadata.leader(&partition.0, partition.1) {
                by_leader
                    .entry(leader)
                    .or_default()
                    .push((partition, position));
            }
        }
        by_leader
    }

    fn request(&self, partitions: &[(TopicPartition, i64)]) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((topic, partition), position) in partitions {
            let entry = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*position)
                .with_partition_max_bytes(PARTITION_BYTES_MAX);
            match topics.iter_mut().find(|t| **t.topic == **topic) {
                Some(found) => found.partitions.push(entry),
                None => topics.push(
                    FetchTopic::default()
                        .with_topic(topic_name(topic))
                        .with_partitions(vec![entry]),
                ),
            }
        }
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(LONG_POLL.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES_MAX)
            .with_isolation_level(i8::from(self.isolation == Isolation::ReadCommitted))
            .with_session_epoch(-1)
            .with_topics(topics)
    }

    /// Collects the batches of one answer. True if the metadata should be asked again.
    fn take(
        &mut self,
        client: &mut Client,
        response: FetchResponse,
        batches: &mut Vec<FetchedBatch>,
    ) -> Result<bool, ClientError> {
        ClientError::check(response.error_code, || "fetch".to_string())?;
        let mut trouble = false;
        for topic in &response.responses {
            for data in &topic.partitions {
                let partition = (topic.topic.to_string(), data.partition_index);
                let what = || format!("fetching {}-{}", partition.0, partition.1);
                match ClientError::check(data.error_code, what) {
                    Ok(()) => split(&partition, data, self.isolation, batches)?,
                    Err(error) if error.code() == Some(ResponseError::OffsetOutOfRange) => {
                        eprintln!(
                            "offset {} of {}-{} does not exist (any more)",
                            self.positions.get(&partition).copied().unwrap_or(-1),
                            partition.0,
                            partition.1
                        );
                        self.add_by_reset(client, &[partition])?;
                    }
                    Err(error) if error.is_retriable() => trouble = true,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(trouble)
    }
}

/// Cuts the bytes of a partition into batches. A part of a batch at the end is normal: it comes whole next time.
fn split(
    partition: &TopicPartition,
    data: &PartitionData,
    isolation: Isolation,
    batches: &mut Vec<FetchedBatch>,
) -> Result<(), ClientError> {
    let corrupt = |error: BatchError| {
        ClientError::Malformed(format!("batch of {}-{}: {error}", partition.0, partition.1))
    };
    let mut aborted = Aborted::new(data, isolation);
    let mut rest = data.records.clone().unwrap_or_default();
    while !rest.is_empty() {
        let header = match BatchHeader::parse(&rest) {
            Ok(header) => header,
            Err(BatchError::Truncated) => break,
            Err(error) => return Err(corrupt(error)),
        };
        if header.total_len > rest.len() {
            break;
        }
        let bytes = rest.split_to(header.total_len);
        header.check_crc(&bytes).map_err(corrupt)?;
        let is_visible = aborted.is_visible(&header, &bytes);
        batches.push(FetchedBatch {
            partition: partition.clone(),
            header,
            bytes,
            is_visible,
        });
    }
    Ok(())
}

/// Which producers' transactions are aborted at the place we are reading.
struct Aborted {
    isolation: Isolation,
    /// (first offset, producer), the next one last.
    upcoming: Vec<(i64, ProducerId)>,
    current: BTreeSet<ProducerId>,
}

impl Aborted {
    fn new(data: &PartitionData, isolation: Isolation) -> Aborted {
        let listed = data.aborted_transactions.iter().flatten();
        let mut upcoming: Vec<(i64, ProducerId)> = listed
            .map(|transaction| {
                (
                    transaction.first_offset,
                    ProducerId(transaction.producer_id.0),
                )
            })
            .collect();
        upcoming.sort_unstable_by(|a, b| b.cmp(a));
        Aborted {
            isolation,
            upcoming,
            current: BTreeSet::new(),
        }
    }

    fn is_visible(&mut self, header: &BatchHeader, bytes: &Bytes) -> bool {
        if self.isolation == Isolation::ReadUncommitted {
            return !header.is_control();
        }
        while let Some((_, producer)) = self
            .upcoming
            .pop_if(|(first, _)| *first <= header.last_offset().get())
        {
            self.current.insert(producer);
        }
        let Some((producer, _)) = header.producer else {
            return !header.is_control();
        };
        if header.is_control() {
            if is_abort_marker(bytes) {
                self.current.remove(&producer);
            }
            return false;
        }
        !(header.is_transactional() && self.current.contains(&producer))
    }
}

/// The key of a control record is a version and a type, of which 0 is ABORT.
fn is_abort_marker(batch: &Bytes) -> bool {
    let first = Records::new(batch, DECOMPRESSED_BYTES_MAX)
        .ok()
        .and_then(|mut records| records.next()?.ok());
    let Some(mut key) = first.and_then(|record| record.key) else {
        return false;
    };
    let _version = key.try_get_i16();
    key.try_get_i16() == Ok(0)
}

#[cfg(test)]
mod tests {
    use forebay_engine::{
        ProducerEpoch, Timestamp,
        batch::{BatchBuilder, Codec},
    };
    use kafka_protocol::messages::{
        ProducerId as WireProducerId, fetch_response::AbortedTransaction,
    };

    use super::*;

    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;

    fn batch(offset: i64, producer: i64, attributes: u16, key: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None)
            .producer(ProducerId(producer), ProducerEpoch(0), 0)
            .attributes(attributes);
        builder.push(Timestamp(0), Some(key), Some(b"v"), &[]);
        let mut bytes = builder.build();
        // The base offset lies outside of the CRC.
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes.to_vec()
    }

    fn visible(bytes: Vec<u8>, aborted: &[(i64, i64)], isolation: Isolation) -> Vec<(i64, bool)> {
        let aborted = aborted.iter().map(|(producer, first)| {
            AbortedTransaction::default()
                .with_producer_id(WireProducerId(*producer))
                .with_first_offset(*first)
        });
        let data = PartitionData::default()
            .with_records(Some(Bytes::from(bytes)))
            .with_aborted_transactions(Some(aborted.collect()));
        let mut batches = Vec::new();
        split(&("t".to_string(), 0), &data, isolation, &mut batches).unwrap();
        let visible = batches
            .iter()
            .map(|batch| (batch.header.base_offset.get(), batch.is_visible));
        visible.collect()
    }

    #[test]
    fn aborted_transactions_are_hidden_from_readers_of_committed_data() {
        let abort = [0, 0, 0, 0];
        let commit = [0, 0, 0, 1];
        let log = [
            batch(0, 1, TRANSACTIONAL, b"k"),
            batch(1, 2, TRANSACTIONAL, b"k"),
            batch(2, 1, TRANSACTIONAL | CONTROL, &abort),
            batch(3, 2, TRANSACTIONAL | CONTROL, &commit),
            batch(4, 1, TRANSACTIONAL, b"k"),
            batch(5, 3, 0, b"k"),
        ]
        .concat();
        let committed = visible(log.clone(), &[(1, 0)], Isolation::ReadCommitted);
        let want = [
            (0, false),
            (1, true),
            (2, false),
            (3, false),
            (4, true),
            (5, true),
        ];
        assert_eq!(committed, want);
        let uncommitted = visible(log, &[], Isolation::ReadUncommitted);
        let want = [
            (0, true),
            (1, true),
            (2, false),
            (3, false),
            (4, true),
            (5, true),
        ];
        assert_eq!(uncommitted, want);
    }

    #[test]
    fn a_partial_batch_at_the_end_is_left_for_later() {
        let whole = batch(0, 1, 0, b"k");
        for cut in 0..whole.len() {
            let bytes = [&whole[..], &whole[..cut]].concat();
            let found = visible(bytes, &[], Isolation::ReadUncommitted);
            assert_eq!(found, [(0, true)], "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = batch(0, 1, 0, b"k");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let data = PartitionData::default().with_records(Some(Bytes::from(bytes)));
        let partition = ("t".to_string(), 0);
        let outcome = split(
            &partition,
            &data,
            Isolation::ReadUncommitted,
            &mut Vec::new(),
        );
        assert!(matches!(outcome, Err(ClientError::Malformed(_))));
    }
}
