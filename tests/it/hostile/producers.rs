//! Idempotent producers that repeat, skip, or come from another epoch.

use bytes::Bytes;
use forebay_tests::{
    broker::Broker,
    raw_batch::RawBatch,
    wire_client::{PRODUCE_VERSION, WireClient, error, now_ms, only_partition, produce_request},
};
use kafka_protocol::{
    ResponseError::{
        self, DuplicateSequenceNumber, InvalidProducerEpoch, OutOfOrderSequenceNumber,
    },
    messages::ProduceRequest,
};

use super::{Subject, Witness, fetch_all};

/// One producer on one partition, and what of it must be in the log.
struct Producer {
    client: WireClient,
    topic: String,
    id: i64,
    expected: Vec<(i64, Vec<u8>)>,
}

impl Producer {
    fn new(subject: &Subject, name: &str) -> Producer {
        let topic = subject.create(name);
        let mut client = subject.connect();
        let id = client.init_producer_id();
        Producer {
            client,
            topic,
            id,
            expected: Vec::new(),
        }
    }

    fn batch(&self, epoch: i16, sequence: i32, count: i32) -> (Vec<Vec<u8>>, Vec<u8>) {
        let value = |index| format!("{epoch}/{}", sequence.wrapping_add(index)).into_bytes();
        let values: Vec<Vec<u8>> = (0..count).map(value).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let batch = RawBatch::of(&slices, now_ms()).producer(self.id, epoch, sequence);
        (values, batch.encode())
    }

    /// Produces records with sequences from `sequence` on, which must be appended.
    #[track_caller]
    fn takes(&mut self, epoch: i16, sequence: i32, count: i32) {
        let (values, batch) = self.batch(epoch, sequence, count);
        let offset = self.expected.len() as i64;
        let reply = self.client.produce(&self.topic, 0, &batch);
        assert_eq!(error(reply.error_code), None, "{epoch}/{sequence}");
        assert_eq!(reply.base_offset, offset, "{epoch}/{sequence}");
        self.expected.extend((offset..).zip(values));
    }

    /// Sends a batch that was taken before: answered as the first time, appended no second time.
    #[track_caller]
    fn repeats(&mut self, epoch: i16, sequence: i32, count: i32, offset: i64) {
        let (_, batch) = self.batch(epoch, sequence, count);
        let reply = self.client.produce(&self.topic, 0, &batch);
        assert_eq!(error(reply.error_code), None, "{epoch}/{sequence}");
        assert_eq!(reply.base_offset, offset, "{epoch}/{sequence}");
        self.check_end();
    }

    #[track_caller]
    fn refuses(&mut self, epoch: i16, sequence: i32, count: i32, expected: ResponseError) {
        let (_, batch) = self.batch(epoch, sequence, count);
        let reply = self.client.produce(&self.topic, 0, &batch);
        assert_eq!(
            error(reply.error_code),
            Some(expected),
            "{epoch}/{sequence}"
        );
        assert_eq!(reply.base_offset, -1, "{epoch}/{sequence}");
        self.check_end();
    }

    #[track_caller]
    fn check_end(&mut self) {
        let end = self.client.log_end(&self.topic, 0);
        assert_eq!(end, self.expected.len() as i64);
    }

    #[track_caller]
    fn finish(&mut self) {
        assert_eq!(fetch_all(&mut self.client, &self.topic, 0), self.expected);
    }
}

#[test]
fn repeats_gaps_and_old_epochs_have_their_codes() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let mut producer = Producer::new(&subject, "sequences");
    producer.takes(0, 0, 1);
    producer.repeats(0, 0, 1, 0);
    producer.takes(0, 1, 3);
    producer.repeats(0, 1, 3, 1);
    producer.repeats(0, 0, 1, 0);
    // The first sequence of a batch is not enough to be a repetition.
    producer.refuses(0, 1, 2, OutOfOrderSequenceNumber);
    producer.refuses(0, 5, 1, OutOfOrderSequenceNumber);
    producer.refuses(0, i32::MAX, 1, OutOfOrderSequenceNumber);
    witness.check("gaps");
    for sequence in 4..8 {
        producer.takes(0, sequence, 1);
    }
    // The last five are 1..=3, 4, 5, 6 and 7: all are known, and the one before them is not any more.
    for (sequence, count, offset) in [(1, 3, 1), (4, 1, 4), (5, 1, 5), (6, 1, 6), (7, 1, 7)] {
        producer.repeats(0, sequence, count, offset);
    }
    // A client takes this for success, as it is; Kafka 4.3 says "out of order", upon which clients send it again as new.
    let forgotten = match subject.broker {
        Some(_) => DuplicateSequenceNumber,
        None => OutOfOrderSequenceNumber,
    };
    producer.refuses(0, 0, 1, forgotten);
    witness.check("six batches back");

    producer.refuses(1, 8, 1, OutOfOrderSequenceNumber);
    producer.refuses(1, 1, 1, OutOfOrderSequenceNumber);
    producer.takes(1, 0, 2);
    producer.refuses(0, 8, 1, InvalidProducerEpoch);
    producer.refuses(0, 7, 1, InvalidProducerEpoch);
    producer.repeats(1, 0, 2, 8);
    producer.takes(1, 2, 1);
    producer.takes(7, 0, 1);
    producer.refuses(6, 0, 1, InvalidProducerEpoch);
    witness.check("epochs");
    producer.finish();
    witness.finish();
    subject.finish();
}

#[test]
fn a_producer_that_is_not_known_may_begin_anywhere() {
    let subject = Subject::start();
    let mut producer = Producer::new(&subject, "begin");
    producer.takes(0, 1234, 2);
    producer.refuses(0, 1234, 1, OutOfOrderSequenceNumber);
    producer.takes(0, 1236, 1);
    producer.finish();
    subject.finish();
}

#[test]
fn sequences_go_around() {
    let subject = Subject::start();
    let mut producer = Producer::new(&subject, "around");
    producer.takes(0, i32::MAX - 1, 1);
    // The last record of this batch has sequence 1.
    producer.takes(0, i32::MAX, 3);
    producer.refuses(0, 3, 1, OutOfOrderSequenceNumber);
    producer.takes(0, 2, 1);
    producer.repeats(0, i32::MAX, 3, 1);
    producer.finish();
    subject.finish();
}

/// What is known of a producer survives a clean stop and a kill.
#[test]
fn producers_are_known_after_a_restart() {
    let mut subject = Subject::start();
    if subject.broker.is_none() {
        return;
    }
    let mut witness = Witness::new(&subject);
    let mut producer = Producer::new(&subject, "restart");
    producer.takes(0, 0, 1);
    producer.takes(1, 0, 1);
    for (next, end) in [
        (1, Broker::stop as fn(_) -> _),
        (3, Broker::kill),
        (5, Broker::kill),
    ] {
        producer.takes(1, next, 1);
        let broker = subject.broker.take().expect("it runs between restarts");
        subject.broker = Some(Broker::start(end(broker)));
        producer.client = subject.connect();
        witness.client = subject.connect();
        producer.repeats(1, next, 1, producer.expected.len() as i64 - 1);
        producer.refuses(1, next + 2, 1, OutOfOrderSequenceNumber);
        producer.refuses(0, 1, 1, InvalidProducerEpoch);
        producer.takes(1, next + 1, 1);
        witness.check("a restart");
    }
    producer.finish();
    witness.finish();
    subject.finish();
}

/// As many in flight as a connection takes: appended in the order in which they were sent.
#[test]
fn pipelined_batches_keep_their_order() {
    const BATCHES: i32 = 300;
    let subject = Subject::start();
    let mut producer = Producer::new(&subject, "pipeline");
    let mut ids = Vec::new();
    for sequence in 0..BATCHES {
        let (values, batch) = producer.batch(0, sequence, 1);
        let request = produce_request(&producer.topic, 0, Some(Bytes::from(batch)), -1);
        ids.push(producer.client.send(&request, PRODUCE_VERSION));
        let offset = i64::from(sequence);
        producer.expected.extend((offset..).zip(values));
    }
    for (offset, id) in (0..).zip(ids) {
        let reply = producer
            .client
            .receive::<ProduceRequest>(PRODUCE_VERSION, id);
        let answer = only_partition(reply);
        assert_eq!(error(answer.error_code), None, "batch {offset}");
        assert_eq!(answer.base_offset, offset);
    }
    producer.finish();
    subject.finish();
}
