//! Slow, stuck, greedy and vanishing clients: what they hold is bounded, and others go on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use forebay_tests::{
    broker::Broker,
    http::wait_for,
    raw_batch::RawBatch,
    wire_client::{
        FETCH_VERSION, PRODUCE_VERSION, WireClient, error, fetch_request, frame, now_ms,
        only_fetched, only_partition, produce_request,
    },
};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};

use super::{MEMORY_BYTES, Subject, Witness, fetch_all};

/// Physical memory of the broker.
fn resident_bytes(broker: &Broker) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.pid()))
        .expect("the broker is running");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a process has a resident set");
    let kibibytes = line.trim().trim_end_matches("kB").trim();
    kibibytes.parse::<u64>().expect("a number of kB") * 1024
}

/// Follows the memory of a broker while something goes on.
struct MemoryWatch<'a> {
    broker: Option<&'a Broker>,
    before: u64,
}

impl<'a> MemoryWatch<'a> {
    fn begin(subject: &'a Subject) -> MemoryWatch<'a> {
        let broker = subject.broker.as_ref();
        let before = broker.map_or(0, resident_bytes);
        MemoryWatch { broker, before }
    }

    #[track_caller]
    fn check(&self, growth_max: u64, what: &str) {
        if let Some(broker) = self.broker {
            let growth = resident_bytes(broker).saturating_sub(self.before);
            let (growth_mib, max_mib) = (growth >> 20, growth_max >> 20);
            eprintln!("{what}: the broker grew by {growth_mib} MiB");
            assert!(
                growth <= growth_max,
                "{what}: {growth_mib} MiB, allowed are {max_mib}"
            );
        }
    }
}

/// The start of a produce frame of 90 MiB, for as long as is asked for.
fn large_claim(topic: &str, len: usize) -> Vec<u8> {
    let batch = RawBatch::of(&[&vec![0x5a; len]], now_ms()).encode();
    let request = produce_request(topic, 0, Some(Bytes::from(batch)), -1);
    let mut bytes = frame(&request, PRODUCE_VERSION, 1);
    bytes[..4].copy_from_slice(&(90i32 << 20).to_be_bytes());
    bytes.truncate(len);
    bytes
}

#[test]
fn claimed_frames_take_no_memory() {
    const CLIENTS: usize = 300;
    const CLAIMED_MIB: u64 = 90;
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = subject.create("claims");
    let watch = MemoryWatch::begin(&subject);
    for sent in [100, 40_000] {
        let bytes = large_claim(&topic, sent);
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| subject.connect()).collect();
        for client in &mut clients {
            client.send_bytes(&bytes).expect("the broker reads");
        }
        let what =
            format!("{CLIENTS} clients claimed {CLAIMED_MIB} MiB each and sent {sent} bytes");
        witness.check(&what);
        watch.check(64 << 20, &what);
        if let Some(broker) = &subject.broker {
            // Until the broker has seen all of it; then once more.
            wait_for(broker, Duration::from_secs(10), |metrics| {
                metrics.get("forebay_connections") as usize == CLIENTS + 1
                    && metrics.get("forebay_request_memory_bytes") > 0.0
            });
        }
        witness.check(&what);
        watch.check(64 << 20, &what);
        drop(clients);
        if let Some(broker) = &subject.broker {
            wait_for(broker, Duration::from_secs(10), |metrics| {
                metrics.get("forebay_connections") == 1.0
                    && metrics.get("forebay_request_memory_bytes") == 0.0
            });
        }
    }
    let mut client = subject.connect();
    assert_eq!(client.log_end(&topic, 0), 0, "no frame was whole");
    drop(client);
    witness.finish();
    subject.finish();
}

/// Half a frame each, until the memory for requests is used up: the clients wait, and when they leave there is room again.
#[test]
fn half_sent_frames_are_bounded_by_the_budget() {
    const CLIENTS: usize = 60;
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = subject.create("half");
    let watch = MemoryWatch::begin(&subject);
    let bytes = large_claim(&topic, 4 << 20);
    let address = subject.address.clone();
    let senders: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = WireClient::connect(&address);
            let bytes = bytes.clone();
            thread::spawn(move || {
                client.give_up_sending_after(Duration::from_secs(2));
                // What the broker does not read stays on our side of the socket.
                let _ = client.send_bytes(&bytes);
                client
            })
        })
        .collect();
    let clients: Vec<_> = senders
        .into_iter()
        .map(|sender| sender.join().expect("a sender does not panic"))
        .collect();
    // 240 MiB were offered, an eighth of the memory is for requests; doubling buffers may take twice what they hold.
    watch.check(MEMORY_BYTES / 8 * 2 + (64 << 20), "half-sent frames");
    clients.into_iter().for_each(WireClient::vanish);
    if let Some(broker) = &subject.broker {
        wait_for(broker, Duration::from_secs(10), |metrics| {
            metrics.get("forebay_request_memory_bytes") == 0.0
        });
    }
    witness.check("half-sent frames");
    witness.finish();
    subject.finish();
}

#[test]
fn a_byte_a_second_is_served_in_its_time() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let request = frame(&ApiVersionsRequest::default(), 0, 1);
    let mut clients: Vec<_> = (0..50).map(|_| subject.connect()).collect();
    for byte in &request {
        for client in &mut clients {
            client.send_bytes(&[*byte]).expect("the broker waits");
        }
        witness.check("a byte each");
        thread::sleep(Duration::from_millis(900));
    }
    for client in &mut clients {
        assert!(client.read_frame().is_some(), "slow is not wrong");
    }
    witness.finish();
    subject.finish();
}

#[test]
fn idle_and_stuck_clients_are_closed() {
    const IDLE: Duration = Duration::from_secs(2);
    let subject =
        Subject::start_with(|options| options.set("connections.max.idle.ms", IDLE.as_millis()));
    if subject.broker.is_none() {
        return;
    }
    let began = Instant::now();
    let mut idle = subject.connect();
    let mut stuck = subject.connect();
    stuck
        .send_bytes(&[0, 0, 1, 0, 0])
        .expect("the broker reads");
    let mut busy = subject.connect();
    while began.elapsed() < IDLE + Duration::from_secs(3) {
        busy.call(&ApiVersionsRequest::default(), 0);
        thread::sleep(Duration::from_millis(100));
    }
    idle.expect_closed("an idle client");
    stuck.expect_closed("a client stuck in a frame");
    busy.call(&ApiVersionsRequest::default(), 0);
    drop(busy);
    subject.finish();
}

/// A topic of large batches, more of them than any one reply takes.
fn large_topic(subject: &Subject, batches: i64) -> String {
    let topic = subject.create("large");
    let mut client = subject.connect();
    let batch = RawBatch::of(&[&vec![0x5a; 1_000_000]], now_ms()).encode();
    for offset in 0..batches {
        let reply = client.produce(&topic, 0, &batch);
        assert_eq!(error(reply.error_code), None);
        assert_eq!(reply.base_offset, offset);
    }
    topic
}

#[test]
fn clients_that_never_read_hold_little() {
    const CLIENTS: usize = 20;
    const FETCHES: usize = 200;
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = large_topic(&subject, 48);
    let watch = MemoryWatch::begin(&subject);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| subject.connect()).collect();
    for client in &mut clients {
        for _ in 0..FETCHES {
            client.send(&fetch_request(&topic, 0, 0), FETCH_VERSION);
        }
    }
    let what = "clients that never read asked for 192 GB";
    for _ in 0..20 {
        witness.check(what);
        watch.check(MEMORY_BYTES, what);
        thread::sleep(Duration::from_millis(100));
    }
    // One of them reads after all, and nothing is missing or out of order.
    let mut reader = clients.swap_remove(0);
    for id in 1..=20 {
        let fetched = only_fetched(reader.receive::<FetchRequest>(FETCH_VERSION, id));
        assert_eq!(error(fetched.error_code), None);
        assert!(!fetched.records.unwrap_or_default().is_empty());
    }
    witness.check("one reads");
    clients.into_iter().for_each(WireClient::vanish);
    reader.vanish();
    witness.check("all are gone");
    witness.finish();
    subject.finish();
}

#[test]
fn clients_that_vanish_within_a_frame_append_nothing() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = subject.create("vanish");
    let batch = RawBatch::of(&[&vec![0x5a; 500_000]], now_ms()).encode();
    let request = produce_request(&topic, 0, Some(Bytes::from(batch)), -1);
    let whole = frame(&request, PRODUCE_VERSION, 1);
    for round in 0..60 {
        let mut client = subject.connect();
        let sent = 1 + (whole.len() - 2) * round / 59;
        client.send_bytes(&whole[..sent]).expect("the broker reads");
        match round % 2 {
            0 => client.vanish(),
            _ => drop(client),
        }
        if round % 10 == 0 {
            witness.check("a client that vanished");
        }
    }
    let mut client = subject.connect();
    assert_eq!(client.log_end(&topic, 0), 0);
    // A whole one now, which shows that the frame was good.
    client.send_bytes(&whole).expect("the broker reads");
    let reply = only_partition(client.receive::<ProduceRequest>(PRODUCE_VERSION, 1));
    assert_eq!((error(reply.error_code), reply.base_offset), (None, 0));
    witness.finish();
    subject.finish();
}

/// Gone after the last byte of a request, before its reply: each record is there once, or not at all.
#[test]
fn clients_that_vanish_before_the_reply_leave_whole_records() {
    const CLIENTS: usize = 100;
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let topic = subject.create("gone");
    for index in 0..CLIENTS {
        let value = format!("client {index}");
        let batch = RawBatch::of(&[value.as_bytes()], now_ms()).encode();
        let request = produce_request(&topic, 0, Some(Bytes::from(batch)), -1);
        let mut client = subject.connect();
        client.send(&request, PRODUCE_VERSION);
        match index % 2 {
            0 => client.vanish(),
            _ => drop(client),
        }
    }
    witness.check("clients that did not wait");
    let mut client = subject.connect();
    let mut values: Vec<_> = fetch_all(&mut client, &topic, 0)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    let found = values.len();
    values.sort();
    values.dedup();
    assert_eq!(values.len(), found, "a record is there twice");
    assert!(values.iter().all(|value| value.starts_with(b"client ")));
    witness.finish();
    subject.finish();
}
