//! A disk that stalls, and one that is slow: producers wait or are told, memory stays bounded, nothing is lost, and all is well
//! afterwards.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_tests::{
    broker::{Broker, Options},
    disk::{Disk, FileSystem, Throttle},
    http::Metrics,
    raw_batch::RawBatch,
    wire_client::{PRODUCE_VERSION, WireClient, frame, now_ms, produce_request},
};
use kafka_protocol::ResponseError;

use super::ledger::Ledger;

const DISK_BYTES: u64 = 512 << 20;
const TAIL_BYTES: u64 = 16 << 20;
const REQUEST_BYTES: u64 = 32 << 20;

fn start(disk: &Disk) -> Broker {
    let options = Options::new(&disk.path().join("data"))
        .set("forebay.tail.cache.bytes", TAIL_BYTES)
        .set("queued.max.request.bytes", REQUEST_BYTES);
    Broker::start(options)
}

#[test]
fn a_stalled_disk_is_told_and_survived() {
    let disk = Disk::new("stalled", FileSystem::Ext4, DISK_BYTES);
    let broker = start(&disk);
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", 2);
    let mut ledgers = [0, 1].map(|partition| Ledger::new("t", partition, 1000));
    for ledger in &mut ledgers {
        ledger.produce(&mut client, 10);
    }
    let frozen = disk.freeze();
    // acks=all is not given before the disk has it; the client says how long it waits for that.
    let time = Duration::from_millis(300);
    for ledger in &mut ledgers {
        let began = Instant::now();
        let refused = ledger.try_produce_within(&mut client, time);
        assert_eq!(refused, Some(ResponseError::RequestTimedOut));
        assert!(began.elapsed() >= time, "answered before its time");
    }
    // What is durable can be read all the while, and the broker answers.
    for ledger in &ledgers {
        ledger.check(&mut client);
    }
    assert_eq!(Metrics::scrape(&broker).get("forebay_faults_total"), 0.0);
    drop(frozen);
    for ledger in &mut ledgers {
        ledger.produce_again_within(&mut client, Duration::from_secs(30));
        ledger.check(&mut client);
    }
    broker.stop();
}

/// Producers that send without waiting are stopped by TCP, not by the end of the memory.
#[test]
fn producers_of_a_stalled_disk_are_held_back() {
    const CONNECTIONS: u64 = 4;
    const REQUESTS: u64 = 160;
    const VALUE_BYTES: usize = 1_000_000;
    /// Far more than what the broker's bounds, its connections and its allocator need; far less than what is sent.
    const GROWTH_MAX: u64 = 256 << 20;

    let disk = Disk::new("held-back", FileSystem::Ext4, 2 * DISK_BYTES);
    let broker = start(&disk);
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", CONNECTIONS as i32);
    let before = resident_bytes(&broker);
    let frozen = disk.freeze();
    let server = broker.bootstrap();
    let producers: Vec<_> = (0..CONNECTIONS as i32)
        .map(|partition| {
            let mut client = WireClient::connect(&server);
            thread::spawn(move || {
                let value = vec![partition as u8; VALUE_BYTES];
                let batch = Bytes::from(RawBatch::of(&[&value], now_ms()).encode());
                let request = produce_request("t", partition, Some(batch), 1);
                client.give_up_sending_after(Duration::from_secs(1));
                // A frame that was sent in part is the last one.
                (0..REQUESTS as i32)
                    .take_while(|id| {
                        let bytes = frame(&request, PRODUCE_VERSION, *id);
                        client.send_bytes(&bytes).is_ok()
                    })
                    .count() as u64
            })
        })
        .collect();
    let sent = producers
        .into_iter()
        .map(|one| one.join().expect("it does not panic"));
    let sent: Vec<u64> = sent.collect();
    let grown = resident_bytes(&broker).saturating_sub(before);
    for sent in &sent {
        assert!(*sent < REQUESTS, "a producer was never held back: {sent:?}");
    }
    assert!(
        grown <= GROWTH_MAX,
        "the broker grew by {grown} bytes, {sent:?} sent"
    );
    drop(frozen);
    let mut ledger = Ledger::new("after", 0, 1000);
    client.create_topic("after", 1);
    ledger.produce(&mut client, 10);
    ledger.check(&mut client);
    broker.stop();
}

#[test]
fn a_slow_disk_slows_producers_down() {
    const BYTES_PER_SECOND: u64 = 4 << 20;
    const RECORD_BYTES: usize = 64 << 10;
    const RECORDS: u64 = 128;

    let disk = Disk::new("slow", FileSystem::Ext4, DISK_BYTES);
    let broker = start(&disk);
    let mut client = WireClient::connect(&broker.bootstrap());
    client.create_topic("t", 1);
    let mut ledger = Ledger::new("t", 0, RECORD_BYTES);
    ledger.produce(&mut client, 2);
    let throttle = Throttle::writes(&disk, broker.pid(), BYTES_PER_SECOND);
    let began = Instant::now();
    ledger.produce(&mut client, RECORDS);
    let slow = began.elapsed();
    let fastest = Duration::from_secs(RECORDS * RECORD_BYTES as u64 / BYTES_PER_SECOND);
    // The limit lets a burst through at first.
    assert!(slow >= fastest / 2, "the limit did nothing: {slow:?}");
    ledger.check(&mut client);
    drop(throttle);
    let began = Instant::now();
    ledger.produce(&mut client, RECORDS);
    let fast = began.elapsed();
    assert!(
        fast < slow,
        "as slow as before without the limit: {fast:?}, {slow:?}"
    );
    ledger.check(&mut client);
    assert_eq!(Metrics::scrape(&broker).get("forebay_faults_total"), 0.0);
    broker.stop();
}

fn resident_bytes(broker: &Broker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("the broker runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .and_then(|kib| kib.trim().parse().ok())
        .expect("a size in kB");
    kib << 10
}
