//! Requests of every API in every version: what the `kafka-protocol` crate encodes, we decode equally; what nobody
//! would send, we refuse without harm.

mod generate;
mod replies;

use std::{env, fmt::Debug, fs, ops::Range, panic};

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{self, ApiKey},
    protocol::Encodable,
};

use self::generate::{Gen, Generate, Random};
use super::{
    fetch::{self, IsolationLevel, known_epoch},
    fuzz::{decode_any, fuzz_request, with_request},
    produce,
};
use crate::wire::{
    Api, Decode, DecodeError, HeaderError, Reader,
    api::{self, APIS},
    header,
    reader::Malformed,
};

/// `FOREBAY_SEED` replays one seed instead of a test's own.
fn seeds(own: Range<u64>) -> Range<u64> {
    match env::var("FOREBAY_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("FOREBAY_SEED is a number");
            seed..seed + 1
        }
        Err(_) => own,
    }
}

fn for_every_version(mut check: impl FnMut(&'static Api, i16)) {
    for api in APIS {
        for version in api.min..=api.max {
            check(api, version);
        }
    }
}

/// A frame without its size prefix, encoded by the crate.
fn frame<T: Encodable>(api: &Api, version: i16, request: &T, g: &mut Gen) -> BytesMut {
    let header_version = api.request_header_version(version);
    let mut header = messages::RequestHeader::generate(g, header_version);
    if header_version < 2 {
        header.unknown_tagged_fields.clear();
    }
    header.request_api_key = api.key as i16;
    header.request_api_version = version;
    let mut frame = BytesMut::new();
    header.encode(&mut frame, header_version).unwrap();
    request.encode(&mut frame, version).unwrap();
    frame
}

/// A random frame of any API.
fn any_frame(api: &Api, version: i16, seed: u64) -> BytesMut {
    let g = &mut Gen::new(seed, api.is_flexible(version));
    with_request!(
        api.key,
        Request => {
            let request = Request::generate(g, version);
            frame(api, version, &request, g)
        },
        key => match key {
            ApiKey::Produce => {
                let request = messages::ProduceRequest::generate(g, version);
                frame(api, version, &request, g)
            }
            ApiKey::Fetch => {
                let request = messages::FetchRequest::generate(g, version);
                frame(api, version, &request, g)
            }
            _ => panic!("{key:?} is in the table but has no generator"),
        }
    )
}

/// The crate encodes a random request; we must decode what `expected` makes of it.
fn check<C: Generate + Encodable, T: Decode + PartialEq + Debug>(
    api: &Api,
    version: i16,
    seed: u64,
    expected: impl Fn(C) -> T,
) {
    for tagged in [false, api.is_flexible(version)] {
        let context = || format!("{} version {version}, FOREBAY_SEED={seed}", api.name);
        let g = &mut Gen::new(seed, tagged);
        let frame = frame(api, version, &C::generate(g, version), g);
        let (header, reader) = header::read(frame).unwrap_or_else(|e| panic!("{}: {e}", context()));
        assert_eq!((header.api.key, header.version), (api.key, version));
        let request = reader.body::<T>(version);

        let g = &mut Gen::new(seed, false);
        assert_eq!(
            request,
            Ok(expected(C::generate(g, version))),
            "{}",
            context()
        );
        let sent = messages::RequestHeader::generate(g, 1);
        assert_eq!(header.correlation_id, sent.correlation_id, "{}", context());
        assert_eq!(header.client_id, sent.client_id, "{}", context());
    }
}

fn expected_produce(request: messages::ProduceRequest) -> produce::ProduceRequest {
    let partition =
        |p: messages::produce_request::PartitionProduceData| produce::ProducePartition {
            index: p.index,
            records: p.records.map(BytesMut::from),
        };
    let topic = |t: messages::produce_request::TopicProduceData| produce::ProduceTopic {
        name: t.name,
        partitions: t.partition_data.into_iter().map(partition).collect(),
    };
    produce::ProduceRequest {
        transactional_id: request.transactional_id,
        acks: request.acks,
        timeout_ms: request.timeout_ms,
        topics: request.topic_data.into_iter().map(topic).collect(),
    }
}

fn expected_fetch(request: messages::FetchRequest) -> fetch::FetchRequest {
    let partition = |p: messages::fetch_request::FetchPartition| fetch::FetchPartition {
        index: p.partition,
        current_leader_epoch: known_epoch(p.current_leader_epoch),
        fetch_offset: p.fetch_offset,
        last_fetched_epoch: known_epoch(p.last_fetched_epoch),
        log_start_offset: p.log_start_offset,
        partition_max_bytes: p.partition_max_bytes,
    };
    let topic = |t: messages::fetch_request::FetchTopic| fetch::FetchTopic {
        topic: t.topic,
        partitions: t.partitions.into_iter().map(partition).collect(),
    };
    let forgotten = |t: messages::fetch_request::ForgottenTopic| fetch::ForgottenTopic {
        topic: t.topic,
        partitions: t.partitions,
    };
    fetch::FetchRequest {
        replica_id: request.replica_id.0,
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        isolation_level: IsolationLevel::ReadUncommitted,
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        topics: request.topics.into_iter().map(topic).collect(),
        forgotten_topics: request
            .forgotten_topics_data
            .into_iter()
            .map(forgotten)
            .collect(),
        rack_id: request.rack_id,
    }
}

#[test]
fn decodes_what_the_crate_encodes() {
    for_every_version(|api, version| {
        for seed in seeds(0..60) {
            with_request!(
                api.key,
                Request => check(api, version, seed, |request: Request| request),
                key => match key {
                    ApiKey::Produce => check(api, version, seed, expected_produce),
                    ApiKey::Fetch => check(api, version, seed, expected_fetch),
                    _ => panic!("{key:?} is in the table but is not checked"),
                }
            );
        }
    });
}

#[test]
fn produce_takes_records_out_of_the_frame_without_a_copy() {
    let g = &mut Gen::new(0, false);
    let records = Bytes::from(vec![7; 1000]);
    let partition = messages::produce_request::PartitionProduceData::default()
        .with_records(Some(records.clone()));
    let topic = messages::produce_request::TopicProduceData::default()
        .with_partition_data(vec![partition.clone(), partition]);
    let request = messages::ProduceRequest::default().with_topic_data(vec![topic]);
    let frame = frame(api::find(0).unwrap(), 9, &request, g);
    let frame_addresses = frame.as_ptr_range();
    let (_, reader) = header::read(frame).unwrap();
    let mut request: produce::ProduceRequest = reader.body(9).unwrap();
    let partitions = &mut request.topics[0].partitions;
    for partition in partitions.iter_mut() {
        let batch = partition.records.as_mut().unwrap();
        assert!(frame_addresses.contains(&batch.as_ptr()));
        // Writable in place, and not seen by the neighbour.
        batch[0] += 1;
        assert_eq!(batch[..2], [8, 7]);
    }
}

#[test]
fn fetch_tells_isolation_levels_apart() {
    let decode = |level: i8| {
        let request = messages::FetchRequest::default().with_isolation_level(level);
        let frame = frame(api::find(1).unwrap(), 4, &request, &mut Gen::new(0, false));
        let (_, reader) = header::read(frame).unwrap();
        reader
            .body::<fetch::FetchRequest>(4)
            .map(|r| r.isolation_level)
            .map_err(|e| e.what)
    };
    assert_eq!(decode(0), Ok(IsolationLevel::ReadUncommitted));
    assert_eq!(decode(1), Ok(IsolationLevel::ReadCommitted));
    assert_eq!(decode(2), Err(Malformed::Value("isolation level")));
}

/// The crate reads null in some old versions in which Kafka has none.
#[test]
fn null_is_refused_where_kafka_has_none() {
    fn check<T: Encodable + Decode + Debug>(key: ApiKey, version: i16, request: T, null: bool) {
        let api = api::find(key as i16).unwrap();
        let frame = frame(api, version, &request, &mut Gen::new(0, false));
        let (_, reader) = header::read(frame).unwrap();
        let outcome = reader.body::<T>(version).map(drop).map_err(|e| e.what);
        let expected = if null { Ok(()) } else { Err(Malformed::Null) };
        assert_eq!(outcome, expected, "{key:?} version {version}");
    }
    use messages::metadata_request::MetadataRequestTopic;
    let unnamed = MetadataRequestTopic::default().with_name(None);
    let metadata = messages::MetadataRequest::default();
    for version in 0..=12 {
        let all = metadata.clone().with_topics(None);
        check(ApiKey::Metadata, version, all, version >= 1);
        let by_id = metadata.clone().with_topics(Some(vec![unnamed.clone()]));
        check(ApiKey::Metadata, version, by_id, version >= 10);
    }
    for version in 1..=7 {
        let all = messages::OffsetFetchRequest::default().with_topics(None);
        check(ApiKey::OffsetFetch, version, all, version >= 2);
    }
}

#[test]
fn every_truncation_and_every_extension_is_an_error() {
    for_every_version(|api, version| {
        for seed in seeds(0..8) {
            let frame = any_frame(api, version, seed);
            assert_eq!(decode_any(&frame), Ok(()));
            // Long strings make long frames: look at both ends of those.
            let ends = (0..frame.len()).filter(|at| *at < 400 || frame.len() - at < 400);
            for end in ends {
                let outcome = decode_any(&frame[..end]);
                assert!(
                    matches!(outcome, Err(HeaderError::Malformed(_))),
                    "{} version {version} cut at {end} of {}, FOREBAY_SEED={seed}: {outcome:?}",
                    api.name,
                    frame.len(),
                );
            }
            let mut longer = frame.clone();
            longer.extend_from_slice(&[0]);
            let trailing = DecodeError {
                what: Malformed::Trailing(1),
                at: frame.len(),
            };
            assert_eq!(decode_any(&longer), Err(HeaderError::Malformed(trailing)));
        }
    });
}

/// The most address space this process had so far.
fn peak_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmPeak:"))
        .unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn huge_counts_anywhere_take_no_memory() {
    // As an i32, as a compact length of an array of 2^31-1, and as the largest compact length.
    let counts: [&[u8]; 3] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x80, 0x08],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
    ];
    let before = peak_bytes();
    for_every_version(|api, version| {
        for seed in seeds(0..2) {
            let frame = any_frame(api, version, seed);
            for at in (8..frame.len()).filter(|at| *at < 300 || frame.len() - at < 300) {
                for count in counts {
                    let mut over = frame.to_vec();
                    let end = over.len().min(at + count.len());
                    over[at..end].copy_from_slice(&count[..end - at]);
                    fuzz_request(&over);
                    let spliced = [&frame[..at], count, &frame[at + 1..]].concat();
                    fuzz_request(&spliced);
                }
            }
        }
    });
    // Two billion of the smallest elements would take 8 GiB; threads of other tests reserve some of this.
    let grown = peak_bytes() - before;
    assert!(grown < 1 << 30, "address space grew by {grown} bytes");
}

#[test]
fn the_count_that_kills_others_is_an_error() {
    let hostile = b"\x00\x03\x00\x04\x00\x00\x00\x01\x00\x02me\x7f\xff\xff\xff\x00\x00";
    let error = DecodeError {
        what: Malformed::Count(i32::MAX as u32),
        at: 16,
    };
    assert_eq!(decode_any(hostile), Err(HeaderError::Malformed(error)));
}

#[test]
fn random_mutations_do_no_harm() {
    for seed in seeds(0..30_000) {
        let random = &mut Random::new(seed);
        let api = &APIS[random.below(APIS.len())];
        let version = api.min + random.below((api.max - api.min + 1) as usize) as i16;
        let mut data = any_frame(api, version, random.next()).to_vec();
        for _ in 0..1 + random.below(6) {
            mutate(&mut data, random);
        }
        let outcome = panic::catch_unwind(|| fuzz_request(&data));
        assert!(outcome.is_ok(), "FOREBAY_SEED={seed}: {data:02x?}");
    }
}

fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    // Mostly behind the API key and version, or else most frames would be refused for those.
    let first = if random.below(10) == 0 { 0 } else { 4 };
    let at = first + random.below(data.len().saturating_sub(first).max(1));
    if at >= data.len() {
        return data.push(random.next() as u8);
    }
    match random.below(6) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][random.below(5)],
        2 => data.truncate(at),
        3 => data.insert(at, random.next() as u8),
        4 => drop(data.remove(at)),
        _ => {
            let end = data.len().min(at + 1 + random.below(8));
            let part = data[at..end].to_vec();
            data.splice(at..at, part);
        }
    }
}

#[test]
fn short_frames_of_anything_do_no_harm() {
    for seed in seeds(0..5_000) {
        let random = &mut Random::new(seed);
        let data: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        fuzz_request(&data);
        let flexible = Reader::new(BytesMut::from(&data[..]), true);
        let _ = flexible.body::<messages::MetadataRequest>(12);
    }
}
