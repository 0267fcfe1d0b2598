//! What a request costs before its handler runs: reading and decoding a frame, alone and through a connection.
//!
//! The frame reader belongs to a connection, so it is measured through one, to a whole broker in this process: frames go over loopback,
//! are read and decoded, and are answered at once, since the topic that they name does not exist.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use forebay_engine::{
    Timestamp,
    batch::{BatchBuilder, Codec},
};
use forebay_server::{
    api::{fetch, produce},
    boot::Broker,
    config::{Config, Host, Origin, RawConfig},
    wire::{Decode, header},
};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader,
        TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Encodable, Request, StrBytes},
};

/// The broker's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZE_BYTES: usize = 4;
const PRODUCE_VERSION: i16 = 11;
const FETCH_VERSION: i16 = 12;
const METADATA_VERSION: i16 = 12;
const API_VERSIONS_VERSION: i16 = 4;
/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Header and body of a frame that has been read. Records are split off it, not looked at: so bytes say nothing about Produce.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request decode");
    let mut case = |name, partitions: u64, frame: BytesMut, decode: fn(BytesMut)| {
        group.throughput(Throughput::Elements(partitions));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| frame.clone(), decode, BatchSize::LargeInput);
        });
    };
    case(
        "Produce, 1 partition",
        1,
        frame(PRODUCE_VERSION, &produce_request(1, 64)).split_off(SIZE_BYTES),
        decode_as::<produce::ProduceRequest>,
    );
    case(
        "Produce, 100 partitions",
        100,
        frame(PRODUCE_VERSION, &produce_request(100, 1)).split_off(SIZE_BYTES),
        decode_as::<produce::ProduceRequest>,
    );
    case(
        "Fetch, 100 partitions",
        100,
        frame(FETCH_VERSION, &fetch_request(100)).split_off(SIZE_BYTES),
        decode_as::<fetch::FetchRequest>,
    );
    case(
        "Metadata, 100 topics",
        100,
        frame(METADATA_VERSION, &metadata_request(100)).split_off(SIZE_BYTES),
        decode_as::<MetadataRequest>,
    );
    group.finish();
}

fn decode_as<T: Decode>(frame: BytesMut) {
    let (header, body) = header::read(frame).expect("the header is well formed");
    let request = body.request::<T>(header.version);
    std::hint::black_box(request.expect("the request is well formed"));
}

/// From the first byte that the client writes until it has read the reply.
fn connection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request over loopback");
    group.sampling_mode(SamplingMode::Flat);
    let frames = [
        (
            "ApiVersions",
            frame(API_VERSIONS_VERSION, &api_versions_request()),
        ),
        (
            "Produce, 64 KiB",
            frame(PRODUCE_VERSION, &produce_request(1, 64)),
        ),
        (
            "Produce, 1 MiB",
            frame(PRODUCE_VERSION, &produce_request(1, 1023)),
        ),
    ];
    let mut place = None;
    for (name, frame) in frames {
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            let place = place.get_or_insert_with(Place::start);
            let mut reply = Vec::new();
            bencher.iter(|| place.ask(&frame, &mut reply));
        });
    }
    group.finish();
}

/// A broker of one shard with a directory of its own, and a connection to it.
struct Place {
    broker: Option<Broker>,
    client: TcpStream,
    dir: PathBuf,
}

impl Place {
    fn start() -> Place {
        let name = format!("request-benchmark-{}", process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut raw = RawConfig::default();
        for (key, text) in [
            ("log.dirs", dir.to_string_lossy().as_ref()),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("auto.create.topics.enable", "false"),
            ("forebay.shards", "1"),
            ("forebay.http.port", "0"),
            ("forebay.memory.bytes", "268435456"),
            ("forebay.journal.file.bytes", "4194304"),
        ] {
            let origin = Origin::Flag("benchmark".to_owned());
            raw.set(key.to_owned(), text.to_owned(), origin);
        }
        let host = Host {
            memory_bytes: 1 << 30,
        };
        let config = Config::check(raw, &host).expect("the settings of the benchmark are valid");
        let broker = Broker::start(config, Arc::new(AtomicBool::new(false)));
        let broker = broker.expect("the broker starts");
        let client = TcpStream::connect(broker.address).expect("the broker listens");
        client.set_nodelay(true).expect("a fresh socket");
        client
            .set_read_timeout(Some(PATIENCE))
            .expect("a fresh socket");
        Place {
            broker: Some(broker),
            client,
            dir,
        }
    }

    fn ask(&mut self, frame: &[u8], reply: &mut Vec<u8>) {
        self.client.write_all(frame).expect("the broker reads");
        let mut size = [0; SIZE_BYTES];
        let read = self.client.read_exact(&mut size);
        read.expect("the broker replies");
        reply.resize(u32::from_be_bytes(size) as usize, 0);
        let read = self.client.read_exact(reply);
        read.expect("the broker sends the whole reply");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop();
            let ended = broker.join();
            if !std::thread::panicking() {
                ended.expect("the broker ends in order");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("{} is left: {error}", self.dir.display());
        }
    }
}

/// With its size.
fn frame<R: Request>(version: i16, request: &R) -> BytesMut {
    let key = ApiKey::try_from(R::KEY).expect("a key of the protocol");
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("benchmark")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header
        .encode(&mut frame, key.request_header_version(version))
        .expect("the header can be encoded");
    request
        .encode(&mut frame, version)
        .expect("the request can be encoded");
    let len = (frame.len() - SIZE_BYTES) as u32;
    frame[..SIZE_BYTES].copy_from_slice(&len.to_be_bytes());
    frame
}

fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("benchmark"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn topic(number: usize) -> TopicName {
    TopicName(StrBytes::from_string(format!("no-such-topic-{number}")))
}

/// One batch for each partition, of so many records of 1 KiB.
fn produce_request(partitions: usize, records: usize) -> ProduceRequest {
    let mut builder = BatchBuilder::new(Codec::None);
    for _ in 0..records {
        builder.push(Timestamp(1_700_000_000_000), None, Some(&[7; 1024]), &[]);
    }
    let batch = builder.build().freeze();
    let partition = |index| {
        PartitionProduceData::default()
            .with_index(index as i32)
            .with_records(Some(batch.clone()))
    };
    let topic = TopicProduceData::default()
        .with_name(topic(0))
        .with_partition_data((0..partitions).map(partition).collect());
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![topic])
}

fn fetch_request(partitions: usize) -> FetchRequest {
    let partition = |index| {
        FetchPartition::default()
            .with_partition(index as i32)
            .with_fetch_offset(1 << 40)
            .with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default()
        .with_topic(topic(0))
        .with_partitions((0..partitions).map(partition).collect());
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic])
}

fn metadata_request(topics: usize) -> MetadataRequest {
    let named = |number| MetadataRequestTopic::default().with_name(Some(topic(number)));
    MetadataRequest::default().with_topics(Some((0..topics).map(named).collect()))
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = decode, connection
}
criterion_main!(benches);
