//! One writer of one partition, who remembers what was acknowledged.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_tests::{
    payload,
    raw_batch::RawBatch,
    wire_client::{
        PRODUCE_VERSION, WireClient, error, now_ms, only_partition, produce_request_within,
    },
};
use kafka_protocol::ResponseError;

pub struct Ledger {
    topic: String,
    partition: i32,
    record_bytes: usize,
    sent: u64,
    /// Index of the record at each offset that was acknowledged.
    acknowledged: BTreeMap<i64, u64>,
}

impl Ledger {
    /// Batches of one record with a value of this size.
    pub fn new(topic: &str, partition: i32, record_bytes: usize) -> Ledger {
        Ledger {
            topic: topic.to_owned(),
            partition,
            record_bytes,
            sent: 0,
            acknowledged: BTreeMap::new(),
        }
    }

    pub fn set_record_bytes(&mut self, bytes: usize) {
        self.record_bytes = bytes;
    }

    /// One batch with acks=all; why it was refused.
    #[track_caller]
    pub fn try_produce(&mut self, client: &mut WireClient) -> Option<ResponseError> {
        self.try_produce_within(client, Duration::from_secs(20))
    }

    /// As `try_produce`; the broker shall answer within this time.
    #[track_caller]
    pub fn try_produce_within(
        &mut self,
        client: &mut WireClient,
        time: Duration,
    ) -> Option<ResponseError> {
        let value = self.value(self.sent);
        self.sent += 1;
        let batch = Bytes::from(RawBatch::of(&[&value], now_ms()).encode());
        let request = produce_request_within(&self.topic, self.partition, Some(batch), -1, time);
        let produced = only_partition(client.call(&request, PRODUCE_VERSION));
        let refused = error(produced.error_code);
        if refused.is_none() {
            let earlier = self
                .acknowledged
                .insert(produced.base_offset, self.sent - 1);
            assert_eq!(earlier, None, "two records at {}", produced.base_offset);
        }
        refused
    }

    #[track_caller]
    pub fn produce(&mut self, client: &mut WireClient, records: u64) {
        for _ in 0..records {
            let refused = self.try_produce(client);
            assert_eq!(refused, None, "{}-{}", self.topic, self.partition);
        }
    }

    /// Tries until a batch is taken.
    #[track_caller]
    pub fn produce_again_within(&mut self, client: &mut WireClient, time: Duration) {
        let deadline = Instant::now() + time;
        while let Some(refused) = self.try_produce(client) {
            assert!(
                Instant::now() < deadline,
                "{}-{} still refuses after {time:?}: {refused:?}",
                self.topic,
                self.partition
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes the older half of what is there.
    #[track_caller]
    pub fn delete_half(&mut self, client: &mut WireClient) {
        let start = client.log_start(&self.topic, self.partition);
        let end = client.log_end(&self.topic, self.partition);
        let start = start + (end - start) / 2;
        client.delete_records(&self.topic, self.partition, start);
        self.acknowledged = self.acknowledged.split_off(&start);
    }

    /// Everything acknowledged is at its offset, as it was sent. What else is there was sent too: an answer may get lost.
    #[track_caller]
    pub fn check(&self, client: &mut WireClient) {
        let mut missing = self.acknowledged.clone();
        for (offset, value) in client.read_all(&self.topic, self.partition) {
            let name = value.first_chunk().expect("a record begins with its index");
            let index = u64::from_le_bytes(*name);
            assert!(index < self.sent, "nobody sent {index}");
            assert!(
                value == value_of(index, value.len()),
                "record {index} at {offset} is damaged"
            );
            if let Some(expected) = missing.remove(&offset) {
                assert_eq!(index, expected, "at {offset}");
            }
        }
        let first = missing.first_key_value();
        assert_eq!(
            first,
            None,
            "{} acknowledged records are lost",
            missing.len()
        );
    }

    fn value(&self, index: u64) -> Vec<u8> {
        value_of(index, self.record_bytes)
    }
}

/// The index, then noise.
pub fn value_of(index: u64, bytes: usize) -> Vec<u8> {
    let mut value = index.to_le_bytes().to_vec();
    let mut at = index << 32;
    while value.len() < bytes {
        value.extend(payload::mix(at).to_le_bytes());
        at += 1;
    }
    value.truncate(bytes.max(8));
    value
}
