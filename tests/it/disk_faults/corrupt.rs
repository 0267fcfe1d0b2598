//! Bits that rot in a segment: the batch they are in is reported and never served, everything else can be read.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use forebay_tests::{
    broker::{Broker, Options, Scratch},
    raw_batch::read_values,
    tools::{java, run},
    wire_client::{WireClient, error},
};
use kafka_protocol::ResponseError;

use super::{
    ledger::{Ledger, value_of},
    logged,
};

const RECORD_BYTES: usize = 100_000;
const RECORDS: i64 = 140;
/// In the first segment, so neither in memory nor in the segment that is being written.
const ROTTEN: i64 = 4;

/// Small enough that old records are read from the disk.
fn options(scratch: &Scratch) -> Options {
    Options::new(scratch.path())
        .set("log.segment.bytes", 1 << 20)
        .set("forebay.tail.cache.bytes", 8 << 20)
        .set("forebay.shards", 1)
}

fn fill(broker: &Broker) -> Ledger {
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", 1);
    let mut ledger = Ledger::new("t", 0, RECORD_BYTES);
    ledger.produce(&mut client, RECORDS as u64);
    ledger
}

fn first_segment(data_dir: &Path) -> PathBuf {
    data_dir.join("t-0/00000000000000000000.log")
}

/// Flips one bit in the middle of the batch with this offset.
fn rot(segment: &Path, offset: i64) {
    let file = OpenOptions::new().read(true).write(true).open(segment);
    let file = file.expect("the segment is there");
    let length = file.metadata().expect("it has a length").len();
    let mut position = 0;
    loop {
        assert!(position < length, "no batch with offset {offset}");
        let mut head = [0; 12];
        file.read_exact_at(&mut head, position).expect("a batch");
        let (base, bytes) = head.split_at(8);
        let base = i64::from_be_bytes(base.try_into().expect("eight bytes"));
        let bytes = i32::from_be_bytes(bytes.try_into().expect("four bytes"));
        if base == offset {
            let middle = position + bytes as u64 / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).expect("in the batch");
            file.write_all_at(&[byte[0] ^ 0x10], middle)
                .expect("written");
            file.sync_all().expect("synced");
            return;
        }
        position += 12 + bytes as u64;
    }
}

/// What a consumer sees: all of it but the rotten batch.
#[track_caller]
fn check(broker: &Broker) {
    let mut client = WireClient::connect(&broker.bootstrap());
    let mut seen = Vec::new();
    let mut next = 0;
    while next < RECORDS {
        let fetched = client.fetch("t", 0, next);
        let records = fetched.records.unwrap_or_default();
        match error(fetched.error_code) {
            Some(refused) => {
                assert_eq!(next, ROTTEN, "{refused:?}");
                assert_eq!(refused, ResponseError::CorruptMessage);
                assert!(records.is_empty(), "nothing of it is served");
                next += 1;
            }
            None => {
                // Checks every batch's CRC.
                let values = read_values(&records);
                assert!(!values.is_empty(), "nothing at {next}");
                for (offset, value) in values {
                    assert!(value == value_of(offset as u64, RECORD_BYTES));
                    if offset >= next {
                        seen.push(offset);
                        next = offset + 1;
                    }
                }
            }
        }
    }
    let expected: Vec<i64> = (0..RECORDS).filter(|offset| *offset != ROTTEN).collect();
    assert_eq!(seen, expected);
    let told = logged(broker, "ERROR", "damaged");
    assert!(
        !told.is_empty(),
        "the operator is told:\n{}",
        broker.output()
    );
    assert!(told.iter().all(|line| line.contains("t-0")), "{told:?}");
}

#[test]
fn a_batch_that_rots_under_a_stopped_broker_is_reported_and_skipped() {
    let scratch = Scratch::new("rotten-stopped");
    let broker = Broker::start(options(&scratch));
    fill(&broker);
    let options = broker.stop();
    rot(&first_segment(scratch.path()), ROTTEN);
    let broker = Broker::start(options);
    check(&broker);

    // Kafka's consumer stops in front of it and says where; when told to seek past it, it goes on.
    let end = RECORDS.to_string();
    let arguments = [broker.bootstrap(), "t".to_owned(), end];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let consumed = run(&mut java("forebay.ConsumePastErrors", &arguments), b"").ok();
    let lines: Vec<&str> = consumed.stdout.lines().collect();
    assert_eq!(lines.len(), RECORDS as usize, "{lines:?}");
    for (offset, line) in lines.into_iter().enumerate() {
        match offset as i64 {
            ROTTEN => {
                assert!(line.starts_with(&format!("failed {ROTTEN}: ")), "{line}");
                assert!(line.contains("corrupt message"), "{line}");
            }
            _ => assert_eq!(line, format!("record {offset}")),
        }
    }
    broker.stop();
}

#[test]
fn a_batch_that_rots_under_a_running_broker_is_reported_and_skipped() {
    let scratch = Scratch::new("rotten-running");
    let broker = Broker::start(options(&scratch));
    let mut ledger = fill(&broker);
    rot(&first_segment(scratch.path()), ROTTEN);
    check(&broker);
    // The log is not offline.
    let mut client = WireClient::connect(&broker.bootstrap());
    ledger.produce(&mut client, 3);
    broker.stop();
}
