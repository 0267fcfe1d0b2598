//! Clients that lie, stall and vanish. Others must not notice.

use std::{io::Write, time::Duration};

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use crate::{
    client::{Client, batch, fetch_request, frame, produce_request, records_of},
    harness::TestBroker,
};

/// The broker closes the connection, and goes on serving another that was there before.
fn check_closes(broker: &TestBroker, bystander: &mut Client, what: &str, bytes: &[u8]) {
    let mut hostile = broker.client();
    // The broker may close before all is sent.
    let _ = hostile.stream.write_all(bytes);
    hostile.expect_close();
    let response = bystander.call(3, &ApiVersionsRequest::default());
    assert_eq!(response.error_code, 0, "{what}");
}

#[test]
fn broken_frames_close_their_connection_only() {
    let broker = TestBroker::start();
    let mut bystander = broker.client();
    let mut check = |what: &str, bytes: &[u8]| check_closes(&broker, &mut bystander, what, bytes);
    check("a negative size", &(-1i32).to_be_bytes());
    check("a huge size", &i32::MAX.to_be_bytes());
    check("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    check("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    check("an empty frame", &[0, 0, 0, 0]);

    let request = |key: i16, version: i16, body: &[u8]| {
        let mut bytes = BytesMut::new();
        bytes.put_i32(10 + body.len() as i32);
        bytes.put_i16(key);
        bytes.put_i16(version);
        bytes.put_i32(1);
        bytes.put_i16(-1);
        bytes.put_slice(body);
        bytes
    };
    check("an unknown API", &request(12345, 0, b""));
    check("a version of Produce that is gone", &request(0, 2, b""));
    check("a version from the future", &request(3, 99, b""));
    check(
        "an array of 2^31-1 topics",
        &request(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
    );
    check("a truncated body", &request(1, 4, &[0, 0, 0]));
}

/// As Kafka does; librdkafka 2.12 sends such requests.
#[test]
fn bytes_behind_the_last_field_are_ignored() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let request = MetadataRequest::default().with_topics(Some(vec![]));
    let mut trailing = frame(7, 1, &request);
    trailing.put_slice(b"\0\xff\x7f");
    let size = (trailing.len() - 4) as u32;
    trailing[..4].copy_from_slice(&size.to_be_bytes());
    client.stream.write_all(&trailing).unwrap();
    let (correlation_id, response) = client.receive::<MetadataRequest>(7);
    assert_eq!(correlation_id, 1);
    assert_eq!(response.brokers.len(), 1);
    assert_eq!(client.call(7, &request).brokers.len(), 1);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    let mut bytes = BytesMut::new();
    bytes.put_i32(11);
    bytes.put_i16(18);
    bytes.put_i16(99);
    bytes.put_i32(7);
    bytes.put_i16(-1);
    bytes.put_u8(0);
    client.stream.write_all(&bytes).unwrap();
    let reply = client.receive_frame().unwrap();
    assert_eq!(&reply[..], b"\0\0\0\x07\0\x23\0\0\0\x01\0\x12\0\0\0\x04");
    assert_eq!(client.call(3, &ApiVersionsRequest::default()).error_code, 0);
}

#[test]
fn a_frame_may_come_in_any_pieces() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    // Two requests, byte by byte.
    let small = frame(3, 100, &ApiVersionsRequest::default());
    for byte in [&small[..], &small[..]].concat() {
        client.stream.write_all(&[byte]).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(client.receive::<ApiVersionsRequest>(3).0, 100);
    }
    // Large frames in one write with what follows them: the buffer's end falls anywhere.
    for size in [8 << 10, 60_000, 70_000, 300_000, 900_000] {
        let value = vec![size as u8; size];
        let mut bytes = frame(9, 1, &produce_request("t", &[(0, batch(&[&value]))], -1));
        bytes.extend_from_slice(&small);
        client.stream.write_all(&bytes).unwrap();
        let (_, response) = client.receive::<kafka_protocol::messages::ProduceRequest>(9);
        let offset = crate::client::offset_of(&response);
        assert_eq!(client.receive::<ApiVersionsRequest>(3).0, 100);
        let found = client.fetch(&fetch_request("t", &[(0, offset)]));
        assert_eq!(records_of(&found, 0), vec![(offset, value)]);
    }
}

#[test]
fn claims_reserve_no_memory() {
    // Half a MiB for requests on each shard: one claim of 100 MiB is far more than that.
    let broker = TestBroker::with(&[("queued.max.request.bytes", "1048576")]);
    let mut bystander = broker.client();
    bystander.create_topic("t", 1);
    let mut claimants: Vec<Client> = (0..50).map(|_| broker.client()).collect();
    for claimant in &mut claimants {
        claimant
            .stream
            .write_all(&(100i32 << 20).to_be_bytes())
            .unwrap();
        claimant.stream.write_all(&[0; 100]).unwrap();
    }
    let response = broker.client().call(3, &ApiVersionsRequest::default());
    assert_eq!(response.error_code, 0);
    for _ in 0..10 {
        bystander.produce("t", 0, &[b"served"]);
    }
}

#[test]
fn a_request_larger_than_the_budget_is_served() {
    let broker = TestBroker::with(&[
        ("queued.max.request.bytes", "131072"),
        ("message.max.bytes", "4000000"),
    ]);
    broker.client().create_topic("t", 2);
    std::thread::scope(|scope| {
        for partition in 0..2 {
            let mut client = broker.client();
            scope.spawn(move || {
                let value = vec![partition as u8; 3_000_000];
                for offset in 0..4 {
                    assert_eq!(client.produce("t", partition, &[&value]), offset);
                }
            });
        }
    });
}

#[test]
fn a_client_that_reads_no_replies_is_not_read_from_for_ever() {
    let broker = TestBroker::start();
    let mut client = broker.client();
    client.create_topic("t", 1);
    let value = vec![1; 500_000];
    for _ in 0..10 {
        client.produce("t", 0, &[&value]);
    }
    let mut slow = broker.client();
    slow.stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    // Each asks for 5 MB. Were all of them read, nothing would stop this loop.
    let request = frame(11, 1, &fetch_request("t", &[(0, 0)]));
    let mut asked = 0;
    let stopped = (0..1_000_000).any(|_| {
        asked += 1;
        slow.stream.write_all(&request).is_err()
    });
    assert!(stopped, "the broker stopped reading after {asked} requests");
    // Others are served meanwhile, with records.
    let found = client.fetch(&fetch_request("t", &[(0, 9)]));
    assert_eq!(records_of(&found, 0), vec![(9, value)]);
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let broker = TestBroker::with(&[("max.connections.per.ip", "10")]);
    let mut client = broker.client();
    client.create_topic("t", 1);
    for round in 0..30 {
        let mut vanishing = broker.client();
        match round % 3 {
            0 => drop(vanishing.send(11, &fetch_request("t", &[(0, 0)]).with_max_wait_ms(30_000))),
            1 => vanishing.stream.write_all(&[0, 0, 1]).unwrap(),
            _ => drop(vanishing.send(9, &produce_request("t", &[(0, batch(&[b"x"]))], -1))),
        }
        drop(vanishing);
        // Were one of them still counted, the limit would be reached.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let mut probe = broker.client();
            probe.send(3, &ApiVersionsRequest::default());
            if probe.receive_frame().is_ok() {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "connections are not given back"
            );
        }
    }
}
