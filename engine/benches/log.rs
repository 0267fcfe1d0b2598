//! Appends to a log, and reads of one, on a real directory: below cargo's directory for the temporary files of benchmarks.
//!
//! One writer or reader on one shard. `storage append` and `storage read` of `forebay-bench` hold the same against the raw disk; these
//! are for seeing what a change did to one path.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forebay_engine::{
    Durability, Engine, EngineConfig, Fetched, LeaderEpoch, Log, LogConfig, LogId, LogName, Offset,
    PartitionIndex, SYNCS_TOGETHER_MIN, ShardId, SpaceConfig, SpaceUse, TopicId,
    batch::{ValidBatch, validate},
    log::ReadLimit,
    rt::Rt,
};

use support::{NOW, Rounds, Workers, batch_of, rules};

const SEGMENT_BYTES: u64 = 64 << 20;
/// What a log keeps of what is appended, so that a long run does not fill the disk.
const RETENTION_BYTES: u64 = 4 * SEGMENT_BYTES;
/// Batches that are made ready, outside the clock, to be appended one after the other.
const READY_BATCHES_MAX: u64 = 64;

/// What is read: so many batches of 64 KiB, some of them at a time.
const LOG_BATCHES: u64 = 1024;
const READ_BATCHES: usize = 16;

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log append");
    for (durability, name) in [
        // Into memory; waits only while the disk is behind by more than the engine may hold.
        (Durability::Replicated, "replicated"),
        // Each batch is waited for until it is durable.
        (Durability::Persisted, "persisted"),
    ] {
        for (size, records) in [("1 KiB", 1), ("64 KiB", 64), ("1 MiB", 1024)] {
            let batch = batch_of(records, 1024);
            group.throughput(Throughput::Bytes(batch.len() as u64));
            let mut place = None;
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let place = place.get_or_insert_with(|| {
                    let batch = batch.clone();
                    Place::start(move |rt, dir, rounds| {
                        appender(rt, dir, rounds, durability, batch)
                    })
                });
                bencher.iter_custom(|iterations| place.workers.round(iterations));
            });
        }
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let batch = batch_of(64, 1024);
    let mut group = criterion.benchmark_group("log read");
    group.throughput(Throughput::Bytes((READ_BATCHES * batch.len()) as u64));
    for (from, name) in [(From::Tail, "tail"), (From::Disk, "disk, in sequence")] {
        let mut place = None;
        group.bench_function(BenchmarkId::new(name, "1 MiB"), |bencher| {
            let place = place.get_or_insert_with(|| {
                let batch = batch.clone();
                Place::start(move |rt, dir, rounds| reader(rt, dir, rounds, from, batch))
            });
            bencher.iter_custom(|iterations| place.workers.round(iterations));
        });
    }
    group.finish();
}

/// A directory and the shard that works in it; ends with the shard, and then the directory goes.
struct Place {
    workers: Workers,
    _dir: Dir,
}

struct Dir(PathBuf);

impl Place {
    fn start<Running>(main: impl FnOnce(Rt, PathBuf, Rounds) -> Running + Send + 'static) -> Place
    where
        Running: Future<Output = ()> + 'static,
    {
        let name = format!("log-benchmark-{}", std::process::id());
        let dir = Dir(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::create_dir(&dir.0).expect("the directory of the benchmark is new");
        let path = dir.0.clone();
        let workers = Workers::start(|rounds| vec![move |rt, _: ShardId| main(rt, path, rounds)]);
        Place { workers, _dir: dir }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

async fn appender(
    rt: Rt,
    dir: PathBuf,
    mut rounds: Rounds,
    durability: Durability,
    batch: BytesMut,
) {
    let (engine, log) = open(&rt, &dir, durability).await;
    while let Some(iterations) = rounds.next(&rt).await {
        let mut took = Duration::ZERO;
        let mut left = iterations;
        while left > 0 {
            let ready: Vec<ValidBatch> = (0..left.min(READY_BATCHES_MAX))
                .map(|_| valid(&batch))
                .collect();
            left -= ready.len() as u64;
            let began = rt.now();
            for batch in ready {
                append_one(&engine, &log, batch).await;
            }
            took += rt.now().since(began);
        }
        rounds.took(took);
    }
    engine.close().await.expect("the engine ends in order");
}

/// Where the batches that are read are.
#[derive(Clone, Copy)]
enum From {
    Tail,
    Disk,
}

async fn reader(rt: Rt, dir: PathBuf, mut rounds: Rounds, from: From, batch: BytesMut) {
    let (mut engine, mut log) = open(&rt, &dir, Durability::Replicated).await;
    for _ in 0..LOG_BATCHES {
        append_one(&engine, &log, valid(&batch)).await;
    }
    if matches!(from, From::Disk) {
        // What a new engine knows of the log is on disk.
        engine.close().await.expect("the engine ends in order");
        (engine, log) = open(&rt, &dir, Durability::Replicated).await;
    }
    let below = log.marks().log_end;
    let limit = ReadLimit {
        below,
        bytes_max: READ_BATCHES * batch.len(),
        at_least_one: true,
    };
    let mut next = Offset::ZERO;
    while let Some(iterations) = rounds.next(&rt).await {
        let began = rt.now();
        for _ in 0..iterations {
            let fetched = match from {
                From::Tail => log.read_cached(next, limit).expect("all is in the tail"),
                From::Disk => log.read(next, limit).await,
            };
            next = behind(fetched.expect("the log can be read"), limit);
        }
        rounds.took(rt.now().since(began));
    }
    engine.close().await.expect("the engine ends in order");
}

/// Where the next read goes on, from the start again behind the end.
fn behind(fetched: Fetched, limit: ReadLimit) -> Offset {
    assert_eq!(fetched.bytes, limit.bytes_max, "as much as was asked for");
    let next = fetched.next.expect("something was read");
    match next < limit.below {
        true => next,
        false => Offset::ZERO,
    }
}

fn valid(batch: &BytesMut) -> ValidBatch {
    validate(batch.clone(), &rules(), NOW).expect("the batch is valid")
}

/// Appends, and waits until the batch counts, which under `replicated` it does at once.
async fn append_one(engine: &Engine, log: &Log, batch: ValidBatch) {
    while !log.has_room(batch.len()) {
        let more = engine.room().listen();
        if !log.has_room(batch.len()) {
            more.await;
        }
    }
    let appended = log.append(batch, LeaderEpoch(0)).expect("there is room");
    while log.marks().counted_end <= appended.last_offset {
        engine.progress().await;
        assert!(log.fault().is_none(), "the disk fails");
    }
    log.set_high_watermark(log.marks().counted_end);
}

async fn open(rt: &Rt, dir: &Path, durability: Durability) -> (Engine, Log) {
    let config = EngineConfig {
        data_dir: dir.to_path_buf(),
        shard: ShardId(0),
        journal_file_bytes: 16 << 20,
        journal_files: 4,
        bypass_bytes: 256 << 10,
        write_chunk_bytes_max: 4 << 20,
        tail_bytes_max: 128 << 20,
        readahead_bytes_max: 64 << 20,
        checkpoint_interval_ms: 60_000,
        retention_check_interval_ms: 100,
        spare_segments_max: 2,
        producer_id_expiration_ms: 86_400_000,
        syncs_together_min: SYNCS_TOGETHER_MIN,
        space: SpaceConfig::default(),
    };
    let log_config = LogConfig {
        durability,
        segment_bytes: SEGMENT_BYTES,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: Some(RETENTION_BYTES),
        retention_ms: None,
        file_delete_delay_ms: 0,
        delete: true,
        space: SpaceUse::Data,
        rules: rules(),
    };
    let partition = PartitionIndex(0);
    let id = LogId {
        topic_id: TopicId(*b"forebay-bench-01"),
        partition,
    };
    let name = LogName {
        topic: "bench".to_owned(),
        partition,
    };
    let engine = Engine::open(rt.clone(), config).await;
    let engine = engine.expect("the directory is fit for an engine");
    let log = engine.open_log(id, name, log_config).await;
    let log = log.expect("the log can be opened");
    let recovered = engine.sync_recovered().await;
    recovered.expect("what was recovered can be synced");
    let started = engine.start_journal().await;
    started.expect("the journal can be started");
    (engine, log)
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = append, read
}
criterion_main!(benches);
