//! What is no request, or none that we serve: the connection ends, and nothing else does.

use std::time::Duration;

use bytes::BytesMut;
use forebay_tests::{
    http::{Metrics, wait_for},
    wire_client::{WireClient, frame, with_size},
};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, RequestHeader},
    protocol::{Encodable, StrBytes},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Subject, Witness};

/// A request header and the given body, with the size in front.
fn request(key: i16, version: i16, header_version: i16, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(StrBytes::from_static_str("hostile")));
    let mut bytes = BytesMut::new();
    header
        .encode(&mut bytes, header_version)
        .expect("a header can be encoded");
    bytes.extend_from_slice(body);
    with_size(&bytes)
}

fn request_of(api: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    request(
        api as i16,
        version,
        api.request_header_version(version),
        body,
    )
}

fn sized(size: i32, body: &[u8]) -> Vec<u8> {
    [&size.to_be_bytes(), body].concat()
}

#[track_caller]
fn check_closed(subject: &Subject, witness: &mut Witness, what: &str, bytes: &[u8]) {
    let mut client = subject.connect();
    // The broker may have closed before it was told all of it.
    let _ = client.send_bytes(bytes);
    client.expect_closed(what);
    witness.check(what);
}

#[test]
fn what_is_not_kafka_is_closed() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let tls_hello = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
        &[0x5a; 500],
    ]
    .concat();
    let cases: [(&str, Vec<u8>); 16] = [
        ("a frame of 2 GiB", sized(i32::MAX, &[0; 100])),
        ("a frame of 200 MiB", sized(200 << 20, &[0; 100])),
        ("one byte more than is allowed", sized((100 << 20) + 1, &[])),
        ("a frame of -1 bytes", sized(-1, &[0; 100])),
        ("the most negative frame", sized(i32::MIN, &[])),
        ("an empty frame", sized(0, &[])),
        ("a frame with half an API key", sized(1, &[0])),
        ("a frame without a correlation id", sized(4, &[0, 18, 0, 0])),
        (
            "a header without a client id",
            sized(8, &[0, 18, 0, 0, 0, 0, 0, 1]),
        ),
        (
            "a client id longer than the frame",
            sized(10, &[0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff]),
        ),
        (
            "tagged fields longer than the frame",
            sized(13, &[0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 0x7f]),
        ),
        (
            "endless tagged fields",
            sized(
                15,
                &[
                    0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f,
                ],
            ),
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", tls_hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.7\r\n".to_vec()),
    ];
    for (what, bytes) in &cases {
        check_closed(&subject, &mut witness, what, bytes);
    }
    witness.finish();
    subject.finish();
}

#[test]
fn a_stream_that_ends_within_a_frame_is_closed() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let whole = frame(&ApiVersionsRequest::default(), 0, 1);
    for len in 0..whole.len() {
        let mut client = subject.connect();
        client.send_bytes(&whole[..len]).expect("the broker reads");
        client.finish_sending();
        client.expect_closed(&format!("{len} bytes of a request"));
    }
    witness.check("all lengths of a request");
    // And the same stream once more, but whole: an end after it is no error, and it is answered.
    let mut client = subject.connect();
    client.send_bytes(&whole).expect("the broker reads");
    client.finish_sending();
    assert!(client.read_frame().is_some(), "a whole request is answered");
    client.expect_closed("after the only reply");
    witness.finish();
    subject.finish();
}

/// What comes before the first count of a request, and which count that is.
const COUNTS: &[(ApiKey, i16, &str, &[u8])] = &[
    (ApiKey::Produce, 3, "topics", b"\xff\xff\0\x01\0\0\x75\x30"),
    (
        ApiKey::Produce,
        3,
        "partitions",
        b"\xff\xff\0\x01\0\0\x75\x30\0\0\0\x01\0\x01t",
    ),
    (
        ApiKey::Produce,
        3,
        "record bytes",
        b"\xff\xff\0\x01\0\0\x75\x30\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0",
    ),
    (ApiKey::Produce, 9, "topics", b"\0\0\x01\0\0\x75\x30"),
    (
        ApiKey::Produce,
        9,
        "partitions",
        b"\0\0\x01\0\0\x75\x30\x02\x02t",
    ),
    (
        ApiKey::Produce,
        9,
        "record bytes",
        b"\0\0\x01\0\0\x75\x30\x02\x02t\x02\0\0\0\0",
    ),
    (ApiKey::Fetch, 4, "topics", &[0; 17]),
    (
        ApiKey::Fetch,
        4,
        "partitions",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01t",
    ),
    (ApiKey::Fetch, 11, "topics", &[0; 25]),
    (ApiKey::Fetch, 11, "forgotten topics", &[0; 29]),
    (ApiKey::Fetch, 12, "topics", &[0; 25]),
    (ApiKey::ListOffsets, 1, "topics", &[0; 4]),
    (ApiKey::ListOffsets, 7, "topics", &[0; 5]),
    (ApiKey::Metadata, 1, "topics", b""),
    (ApiKey::Metadata, 12, "topics", b""),
    (
        ApiKey::OffsetCommit,
        2,
        "topics",
        b"\0\x01g\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    ),
    (ApiKey::OffsetCommit, 8, "topics", b"\x02g\0\0\0\0\x01\0"),
    (ApiKey::OffsetFetch, 1, "topics", b"\0\x01g"),
    (ApiKey::OffsetFetch, 8, "groups", b""),
    (ApiKey::FindCoordinator, 4, "keys", b"\0"),
    (
        ApiKey::JoinGroup,
        0,
        "protocols",
        b"\0\x01g\0\0\x75\x30\0\0\0\x08consumer",
    ),
    (ApiKey::SyncGroup, 0, "assignments", b"\0\x01g\0\0\0\0\0\0"),
    (ApiKey::LeaveGroup, 3, "members", b"\0\x01g"),
    (ApiKey::DescribeGroups, 0, "groups", b""),
    (ApiKey::ListGroups, 4, "states", b""),
    (ApiKey::CreateTopics, 2, "topics", b""),
    (
        ApiKey::CreateTopics,
        2,
        "assignments",
        b"\0\0\0\x01\0\x01t\0\0\0\x01\0\x01",
    ),
    (
        ApiKey::CreateTopics,
        2,
        "configs",
        b"\0\0\0\x01\0\x01t\0\0\0\x01\0\x01\0\0\0\0",
    ),
    (ApiKey::CreateTopics, 7, "topics", b""),
    (ApiKey::DeleteTopics, 1, "names", b""),
    (ApiKey::DeleteTopics, 6, "topics", b""),
    (ApiKey::DeleteRecords, 0, "topics", b""),
    (ApiKey::CreatePartitions, 0, "topics", b""),
    (ApiKey::DescribeConfigs, 1, "resources", b""),
    (ApiKey::AlterConfigs, 0, "resources", b""),
    (ApiKey::IncrementalAlterConfigs, 0, "resources", b""),
    (ApiKey::DeleteGroups, 0, "groups", b""),
    (ApiKey::OffsetForLeaderEpoch, 2, "topics", b""),
    (ApiKey::OffsetDelete, 0, "topics", b"\0\x01g"),
    (ApiKey::DescribeLogDirs, 1, "topics", b""),
    (ApiKey::DescribeTopicPartitions, 0, "topics", b""),
    (ApiKey::ListPartitionReassignments, 0, "topics", &[0; 4]),
    (ApiKey::DescribeProducers, 0, "topics", b""),
];

#[test]
fn counts_larger_than_the_frame_are_closed() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    for (api, version, what, before) in COUNTS {
        let compact = api.request_header_version(*version) == 2;
        let counts: [&[u8]; 3] = match compact {
            // About 2^31, 2^30 and a million, with the one that compact counts have on top.
            true => [
                b"\xff\xff\xff\xff\x07",
                b"\xff\xff\xff\xff\x03",
                b"\xc1\x84\x3d",
            ],
            false => [b"\x7f\xff\xff\xff", b"\x40\0\0\0", b"\0\x0f\x42\x40"],
        };
        for count in counts {
            let what = format!("{api:?} {version}: {count:02x?} {what}");
            // Some bytes follow, far fewer than claimed.
            let body = [before, count, &[0; 16]].concat();
            let mut client = subject.connect();
            client
                .send_bytes(&request_of(*api, *version, &body))
                .expect("the broker reads");
            client.expect_closed(&what);
        }
        witness.check(what);
    }
    witness.finish();
    subject.finish();
}

#[test]
fn strings_longer_than_the_frame_are_closed() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let cases: [(ApiKey, i16, &[u8]); 7] = [
        (ApiKey::Metadata, 1, b"\0\0\0\x01\x7f\xffabc"),
        (ApiKey::Metadata, 9, b"\x02\xff\xff\x03abc"),
        (ApiKey::Metadata, 1, b"\0\0\0\x01\xff\xfeabc"),
        (ApiKey::FindCoordinator, 0, b"\x7f\xffg"),
        (ApiKey::FindCoordinator, 0, b"\xff\xff"),
        (ApiKey::ApiVersions, 3, b"\xff\xff\xff\xff\x0fabc"),
        (ApiKey::Heartbeat, 0, b"\0\x01g\0\0\0\0\0\x09m"),
    ];
    for (api, version, body) in cases {
        let what = format!("{api:?} {version} {body:02x?}");
        check_closed(
            &subject,
            &mut witness,
            &what,
            &request_of(api, version, body),
        );
    }
    witness.finish();
    subject.finish();
}

/// What ApiVersions lists: key, lowest and highest version.
fn listed(client: &mut WireClient) -> Vec<(i16, i16, i16)> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("wire-client"))
        .with_client_software_version(StrBytes::from_static_str("1"));
    let reply = client.call(&request, 3);
    assert_eq!(reply.error_code, 0);
    let listed = reply.api_keys.iter();
    listed
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect()
}

#[test]
fn what_is_not_listed_is_closed() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let listed = listed(&mut subject.connect());
    assert!(listed.len() >= 25, "only {listed:?}");
    for key in [-1, i16::MIN, i16::MAX, 4, 5, 6, 7, 999] {
        assert!(listed.iter().all(|(known, ..)| *known != key));
        let what = format!("API key {key}");
        check_closed(&subject, &mut witness, &what, &request(key, 0, 1, &[0; 8]));
    }
    for (key, min, max) in listed {
        if key == ApiKey::ApiVersions as i16 {
            continue;
        }
        for version in [min - 1, max + 1, i16::MAX, i16::MIN] {
            let what = format!("API key {key} version {version}");
            let mut client = subject.connect();
            let bytes = request(key, version, 2, &[0; 16]);
            client.send_bytes(&bytes).expect("the broker reads");
            client.expect_closed(&what);
        }
    }
    // Listed for the sake of old clients, refused like any other old version.
    for version in 0..3 {
        let what = format!("Produce {version}");
        check_closed(
            &subject,
            &mut witness,
            &what,
            &request(0, version, 1, &[0; 16]),
        );
    }
    witness.finish();
    subject.finish();
}

#[test]
fn an_api_versions_request_from_the_future_is_answered() {
    let subject = Subject::start();
    let mut client = subject.connect();
    let (_, min, max) = listed(&mut client)
        .into_iter()
        .find(|(key, ..)| *key == ApiKey::ApiVersions as i16)
        .expect("ApiVersions lists itself");
    for version in [max + 1, 99, i16::MAX] {
        // Nobody knows what a future request looks like.
        let body = [0x5a; 30];
        client
            .send_bytes(&request(18, version, 2, &body))
            .expect("the broker reads");
        let reply = client.read_frame().expect("the broker answers");
        let expected = [
            &77i32.to_be_bytes()[..],
            &35i16.to_be_bytes(),
            &1i32.to_be_bytes(),
            &18i16.to_be_bytes(),
            &min.to_be_bytes(),
            &max.to_be_bytes(),
        ];
        assert_eq!(reply[..], expected.concat()[..], "version {version}");
    }
    // The connection is as good as before.
    assert_eq!(client.call(&ApiVersionsRequest::default(), 0).error_code, 0);
    subject.finish();
}

/// Well-formed headers, then bytes of which many are small numbers, so that decoding gets deep.
#[test]
fn random_bodies_harm_nobody() {
    const BODIES: usize = 1500;
    let seed = std::env::var("FOREBAY_SEED").map_or_else(
        |_| rand::random::<u32>().into(),
        |text| text.parse::<u64>().expect("FOREBAY_SEED is a number"),
    );
    eprintln!("FOREBAY_SEED={seed} replays these bodies");
    let mut random = StdRng::seed_from_u64(seed);
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    let listed = listed(&mut subject.connect());
    for index in 0..BODIES {
        let (key, min, max) = listed[random.random_range(0..listed.len())];
        let version = random.random_range(min..=max);
        let body: Vec<u8> = (0..random.random_range(0..200))
            .map(|_| match random.random_range(0..8) {
                0..4 => 0,
                4..6 => random.random_range(1..4),
                6 => 0xff,
                _ => random.random(),
            })
            .collect();
        // Kafka's newest APIs are not known to the crate.
        let Ok(api) = ApiKey::try_from(key) else {
            continue;
        };
        let mut client = subject.connect();
        client
            .send_bytes(&request_of(api, version, &body))
            .expect("the broker reads");
        // Answered, closed, or waiting for records that do not come: gone after this in any case.
        client.finish_sending();
        if index % 100 == 0 {
            while client.read_frame().is_some() {}
            witness.check("random bodies");
        } else if index % 3 == 0 {
            client.vanish();
        }
    }
    witness.finish();
    subject.finish();
}

#[test]
fn many_broken_connections_leave_nothing_behind() {
    let subject = Subject::start();
    let mut witness = Witness::new(&subject);
    for round in 0..20 {
        let mut clients: Vec<_> = (0..50).map(|_| subject.connect()).collect();
        for client in &mut clients {
            client
                .send_bytes(&sized(1000, &[0; 10]))
                .expect("the broker reads");
        }
        clients.into_iter().for_each(WireClient::vanish);
        witness.check(&format!("round {round} of vanished clients"));
    }
    if let Some(broker) = &subject.broker {
        // Ours: only the witness is left, and nothing holds memory.
        let gone = |metrics: &Metrics| {
            metrics.get("forebay_connections") == 1.0
                && metrics.get("forebay_request_memory_bytes") == 0.0
        };
        wait_for(broker, Duration::from_secs(10), gone);
    }
    witness.finish();
    subject.finish();
}
