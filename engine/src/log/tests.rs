//! Tests of logs through the engine, on both back ends.

mod changes;
mod crash;
mod faults;
mod fuzz;
mod golden;
mod recovery;
mod rest;
mod scrub;
mod space;
mod spares;
mod table;
mod unsynced;

use std::{future::Future, path::PathBuf};

use super::*;
use crate::{
    Engine, EngineConfig, OpenError, SpaceConfig,
    batch::{BatchBuilder, BatchHeader, Codec, validate},
    rt::{
        Rt,
        sim::{self, Disk},
        uring,
    },
    types::{PartitionIndex, ShardId, TopicId},
};

pub fn config() -> LogConfig {
    LogConfig {
        durability: Durability::Persisted,
        segment_bytes: 1 << 30,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: true,
        space: SpaceUse::Data,
        rules: BatchRules {
            message_bytes_max: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: None,
            keys_required: false,
            codec: None,
            control_allowed: false,
        },
    }
}

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// A data directory and how an engine runs on it.
#[derive(Clone)]
struct Rig {
    rt: Rt,
    engine: EngineConfig,
}

impl Rig {
    fn new(rt: Rt, data_dir: PathBuf) -> Rig {
        let engine = EngineConfig {
            data_dir,
            shard: ShardId(0),
            journal_file_bytes: 1 << 20,
            journal_files: 4,
            bypass_bytes: 64 * 1024,
            write_chunk_bytes_max: 128 * 1024,
            tail_bytes_max: 8 << 20,
            readahead_bytes_max: 8 << 20,
            checkpoint_interval_ms: 60_000,
            retention_check_interval_ms: 60_000,
            spare_segments_max: 1,
            producer_id_expiration_ms: 86_400_000,
            syncs_together_min: 3,
            space: SpaceConfig::default(),
        };
        Rig { rt, engine }
    }

    /// Starts an engine with one log.
    async fn start(&self, config: LogConfig) -> (Engine, Log) {
        let (engine, mut logs) = self.start_logs(1, config).await;
        (engine, logs.remove(0))
    }

    async fn start_logs(&self, count: i32, config: LogConfig) -> (Engine, Vec<Log>) {
        let engine = Engine::open(self.rt.clone(), self.engine.clone())
            .await
            .expect("open");
        let mut logs = Vec::new();
        for partition in 0..count {
            let (id, name) = identity(partition);
            logs.push(
                engine
                    .open_log(id, name, config.clone())
                    .await
                    .expect("open log"),
            );
        }
        engine.sync_recovered().await.expect("sync");
        engine.start_journal().await.expect("start journal");
        (engine, logs)
    }

    fn log_dir(&self) -> PathBuf {
        self.engine.data_dir.join(identity(0).1.to_string())
    }

    async fn names(&self, extension: &str) -> Vec<String> {
        let listed = self.rt.list_dir(&self.log_dir()).await.expect("list");
        let names = listed.into_iter().map(|entry| entry.name);
        let mut names: Vec<String> = names.filter(|name| name.ends_with(extension)).collect();
        names.sort();
        names
    }
}

fn identity(partition: i32) -> (LogId, LogName) {
    let partition = PartitionIndex(partition);
    let id = LogId {
        topic_id: TopicId(*b"a topic of tests"),
        partition,
    };
    let topic = "t".to_string();
    (id, LogName { topic, partition })
}

/// Runs `test` on glommio and, with a few seeds, in the simulator.
fn on_both<Running>(name: &str, test: impl Fn(Rig) -> Running + Clone + 'static)
where
    Running: Future<Output = ()> + 'static,
{
    for seed in 0..5 {
        let test = test.clone();
        sim::run(seed, Disk::default(), move |rt| async move {
            let dir = PathBuf::from("/data");
            rt.create_dir_all(&dir)
                .await
                .expect("create the data directory");
            test(Rig::new(rt, dir)).await;
        });
    }
    let dir = std::env::temp_dir().join(format!("forebay-log-{name}-{}", std::process::id()));
    let inside = dir.clone();
    uring::run_alone(move |rt| async move {
        rt.create_dir_all(&inside)
            .await
            .expect("create the data directory");
        test(Rig::new(rt, inside)).await;
    })
    .expect("an executor");
    // Only now is nobody left who opens files in it.
    #[allow(clippy::disallowed_methods)]
    std::fs::remove_dir_all(&dir).expect("remove the data directory");
}

/// A batch of `count` records of `bytes` each; timestamps rise by one from `timestamp`. The content depends on all of these.
fn batch_at(timestamp: i64, count: usize, bytes: usize) -> ValidBatch {
    build(BatchBuilder::new(Codec::None), timestamp, count, bytes)
}

fn build(mut builder: BatchBuilder, timestamp: i64, count: usize, bytes: usize) -> ValidBatch {
    for n in 0..count {
        let at = timestamp + n as i64;
        let value: Vec<u8> = (0..bytes)
            .map(|byte| (at as usize * 31 + byte) as u8)
            .collect();
        builder.push(Timestamp(at), None, Some(&value), &[]);
    }
    validate(builder.build(), &config().rules, Timestamp(0)).expect("a valid batch")
}

fn from_producer(id: i64, sequence: i32, count: usize) -> ValidBatch {
    let builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(id), ProducerEpoch(0), sequence);
    build(builder, 1000, count, 20)
}

fn is_asleep(log: &Log) -> bool {
    log.0.state.borrow().rest == super::rest::Rest::Asleep
}

/// Waits until the log counts everything below `end`.
async fn counted(engine: &Engine, log: &Log, end: Offset) {
    while log.marks().counted_end < end {
        assert!(log.fault().is_none(), "{:?}", log.fault());
        engine.progress().await;
    }
}

fn everything(log: &Log) -> ReadLimit {
    ReadLimit {
        below: log.marks().log_end,
        bytes_max: 1 << 20,
        at_least_one: true,
    }
}

/// Waits until so many segments are complete in their files.
async fn sealed(rig: &Rig, engine: &Engine, count: u64) {
    while engine.stats().segments_sealed < count {
        rig.rt.sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// All batches from `from` to the end, checked to be whole and in order.
async fn read_all(log: &Log, from: Offset) -> Vec<(BatchHeader, Bytes)> {
    let mut batches = Vec::new();
    let mut next = from;
    while next < log.marks().log_end {
        let fetched = log.read(next, everything(log)).await.expect("read");
        let bytes: usize = fetched.slices.iter().map(Bytes::len).sum();
        assert_eq!(bytes, fetched.bytes);
        for slice in fetched.slices {
            let header = BatchHeader::parse(&slice).expect("a whole batch");
            header.check_crc(&slice).expect("a right CRC");
            assert_eq!(header.total_len, slice.len());
            assert!(header.next_offset() > next, "reads go forward");
            next = header.next_offset();
            batches.push((header, slice));
        }
        assert_eq!(fetched.next, Some(next), "the read says where to go on");
    }
    batches
}

fn offsets(batches: &[(BatchHeader, Bytes)]) -> Vec<i64> {
    batches
        .iter()
        .map(|(header, _)| header.base_offset.get())
        .collect()
}

#[test]
fn what_is_appended_is_read_back_and_survives_a_clean_restart() {
    on_both("reopen", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..20 {
            let appended = log.append(batch_at(n, 3, 100), EPOCH).expect("append");
            assert_eq!(appended.base_offset, Offset::new(3 * n));
            assert_eq!(appended.last_offset, Offset::new(3 * n + 2));
        }
        counted(&engine, &log, Offset::new(60)).await;
        let before = read_all(&log, Offset::ZERO).await;
        assert_eq!(before.len(), 20);
        assert!(engine.stats().cached_reads > 0 && engine.stats().cold_reads == 0);
        let within = read_all(&log, Offset::new(4)).await;
        assert_eq!(
            within[0].0.base_offset,
            Offset::new(3),
            "the batch that holds the offset"
        );
        engine.close().await.expect("close");
        let len = file_len(&rig, 0).await;
        let exact: usize = before.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(len, exact as u64, "a closed segment has its exact length");

        let (engine, log) = rig.start(config()).await;
        assert_eq!(log.marks().log_end, Offset::new(60));
        assert_eq!(log.marks().counted_end, Offset::new(60));
        assert_eq!(read_all(&log, Offset::ZERO).await, before);
        assert!(engine.stats().cold_reads > 0);
        assert_eq!(log.latest_epoch(), Some(EPOCH));
        let appended = log.append(batch_at(0, 1, 10), EPOCH).expect("append");
        assert_eq!(appended.base_offset, Offset::new(60));
        counted(&engine, &log, Offset::new(61)).await;
        engine.close().await.expect("close");
    });
}

async fn file_len(rig: &Rig, base: i64) -> u64 {
    let name = format!("{base:020}.log");
    let listed = rig.rt.list_dir(&rig.log_dir()).await.expect("list");
    let entry = listed.into_iter().find(|entry| entry.name == name);
    entry.expect("the segment").len
}

#[test]
fn segments_roll_and_are_sealed_to_their_exact_length() {
    on_both("roll", |rig| async move {
        let mut config = config();
        config.segment_bytes = 20_000;
        let (engine, log) = rig.start(config.clone()).await;
        for n in 0..100 {
            log.append(batch_at(n, 1, 1500), EPOCH).expect("append");
            if n % 7 == 0 {
                counted(&engine, &log, Offset::new(n + 1)).await;
            }
        }
        counted(&engine, &log, Offset::new(100)).await;
        assert_eq!(
            offsets(&read_all(&log, Offset::ZERO).await),
            Vec::from_iter(0..100)
        );
        engine.close().await.expect("close");
        let one = batch_at(0, 1, 1500).len() as u64;
        let per_segment = 20_000 / one;
        assert_eq!(file_len(&rig, 0).await, per_segment * one);
        assert_eq!(
            rig.names(".log").await.len() as u64,
            100_u64.div_ceil(per_segment)
        );
        // What the active one's would say is in the checkpoint.
        assert_eq!(
            rig.names(".fbi").await.len() + 1,
            rig.names(".log").await.len()
        );

        let (engine, log) = rig.start(config).await;
        assert_eq!(
            offsets(&read_all(&log, Offset::ZERO).await),
            Vec::from_iter(0..100)
        );
        engine.close().await.expect("close");
    });
}

#[test]
fn bulk_passes_the_journal_by_and_a_trickle_does_not_touch_the_segment() {
    on_both("ways", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..10 {
            log.append(batch_at(n, 1, 500), EPOCH).expect("append");
            counted(&engine, &log, Offset::new(n + 1)).await;
        }
        let trickle = engine.stats();
        assert_eq!(trickle.journal_commits, 10);
        assert_eq!(trickle.segment_writes, 0);
        let mut end = 10;
        for n in 0..20 {
            log.append(batch_at(n, 10, 9000), EPOCH).expect("append");
            end += 10;
        }
        counted(&engine, &log, Offset::new(end)).await;
        let bulk = engine.stats();
        assert_eq!(
            bulk.journal_bytes, trickle.journal_bytes,
            "no bulk in the journal"
        );
        assert_eq!(
            bulk.segment_bytes, bulk.appended_bytes,
            "every byte written once"
        );
        assert!(bulk.bypass_writes > 0);
        engine.close().await.expect("close");
    });
}

#[test]
fn a_replicated_log_counts_at_once_and_is_written_behind() {
    on_both("replicated", |rig| async move {
        let mut config = config();
        config.durability = Durability::Replicated;
        let (engine, log) = rig.start(config).await;
        log.append(batch_at(0, 5, 100), EPOCH).expect("append");
        assert_eq!(log.marks().counted_end, Offset::new(5));
        assert_eq!(log.marks().durable_end, Offset::ZERO);
        assert_eq!(engine.progress().await, [log.id()]);
        for n in 0..10 {
            log.append(batch_at(n, 10, 9000), EPOCH).expect("append");
        }
        while engine.stats().segment_writes == 0 {
            rig.rt.sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(engine.stats().journal_commits, 0);
        log.set_high_watermark(Offset::new(5));
        engine.close().await.expect("close");
        assert_eq!(log.marks().durable_end, Offset::new(105));
    });
}

#[test]
fn a_log_that_becomes_persisted_counts_nothing_before_the_sync_of_what_was_in_memory() {
    on_both("configure", |rig| async move {
        let mut replicated = config();
        replicated.durability = Durability::Replicated;
        let (engine, log) = rig.start(replicated).await;
        log.append(batch_at(0, 1, 100), EPOCH).expect("append");
        assert_eq!(log.marks().counted_end, Offset::new(1));
        log.configure(config());
        log.append(batch_at(1, 1, 100), EPOCH).expect("append");
        let marks = log.marks();
        assert_eq!(
            marks.counted_end,
            Offset::new(1),
            "what counted stays counted"
        );
        assert_eq!(marks.durable_end, Offset::ZERO);
        counted(&engine, &log, Offset::new(2)).await;
        assert_eq!(log.marks().durable_end, Offset::new(2));
        assert!(engine.stats().segment_syncs > 0);
        engine.close().await.expect("close");
    });
}

#[test]
fn reads_keep_their_limits() {
    on_both("limits", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..10 {
            log.append(batch_at(n, 2, 1000), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(20)).await;
        let one = batch_at(0, 2, 1000).len();
        check_limits(&log, one).await;
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config()).await;
        check_limits(&log, one).await;
        let outside = log.read(Offset::new(21), everything(&log)).await;
        assert!(matches!(outside, Err(ReadError::OutOfRange { .. })));
        engine.close().await.expect("close");
    });
}

async fn check_limits(log: &Log, one: usize) {
    let cases = [
        // from, below, bytes_max, at_least_one, first and number of batches
        (0, 20, one, true, 0, 1),
        (0, 20, one - 1, true, 0, 1),
        (0, 20, one - 1, false, 0, 0),
        (0, 20, 3 * one, true, 0, 3),
        (0, 20, 4 * one - 1, true, 0, 3),
        (5, 20, 2 * one, true, 4, 2),
        (0, 5, 100 * one, true, 0, 2),
        (3, 3, 100 * one, true, 0, 0),
        (18, 20, 100 * one, true, 18, 1),
        (20, 20, 100 * one, true, 0, 0),
    ];
    for (from, below, bytes_max, at_least_one, first, count) in cases {
        let limit = ReadLimit {
            below: Offset::new(below),
            bytes_max,
            at_least_one,
        };
        let fetched = log.read(Offset::new(from), limit).await.expect("read");
        let case = (from, below, bytes_max, at_least_one);
        assert_eq!(fetched.slices.len(), count, "{case:?}");
        if count > 0 {
            let header = BatchHeader::parse(&fetched.slices[0]).expect("a batch");
            assert_eq!(header.base_offset, Offset::new(first), "{case:?}");
            assert_eq!(
                fetched.next,
                Some(Offset::new(first + 2 * count as i64)),
                "{case:?}"
            );
        } else {
            assert_eq!(fetched.next, None, "{case:?}");
        }
    }
}

#[test]
fn a_repeated_batch_gets_the_offsets_of_its_first_time() {
    on_both("duplicates", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..8 {
            let appended = log
                .append(from_producer(7, 2 * n, 2), EPOCH)
                .expect("append");
            assert!(!appended.duplicate);
        }
        let check = |log: &Log| {
            let again = log.append(from_producer(7, 10, 2), EPOCH).expect("append");
            assert!(again.duplicate);
            assert_eq!(
                (again.base_offset, again.last_offset),
                (Offset::new(10), Offset::new(11))
            );
            let gap = log.append(from_producer(7, 18, 2), EPOCH);
            let expected = matches!(
                gap,
                Err(AppendError::OutOfOrderSequence {
                    expected: 16,
                    got: 18
                })
            );
            assert!(expected, "{gap:?}");
            assert_eq!(log.marks().log_end, Offset::new(16));
        };
        check(&log);
        counted(&engine, &log, Offset::new(16)).await;
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config()).await;
        check(&log);
        engine.close().await.expect("close");
    });
}

#[test]
fn timestamps_are_found_in_segments_and_in_the_tail() {
    on_both("timestamps", |rig| async move {
        let mut config = config();
        config.segment_bytes = 100_000;
        let (engine, log) = rig.start(config.clone()).await;
        for n in 0..200 {
            log.append(batch_at(stamp(n), 5, 500), EPOCH)
                .expect("append");
        }
        counted(&engine, &log, Offset::new(1000)).await;
        check_timestamps(&log).await;
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config).await;
        check_timestamps(&log).await;
        engine.close().await.expect("close");
    });
}

/// First timestamp of the n-th batch of five: they rise by 10, but every fourth batch is late.
fn stamp(n: i64) -> i64 {
    if n % 4 == 3 { 10 * (n - 3) } else { 10 * n }
}

async fn check_timestamps(log: &Log) {
    let all: Vec<(i64, i64)> = (0..200)
        .flat_map(|n| (0..5).map(move |record| (5 * n + record, stamp(n) + record)))
        .collect();
    for below in [1000, 333, 5, 0] {
        for timestamp in [-1, 0, 1, 4, 7, 30, 995, 1500, 1980, 1984, 1985, 5000] {
            let expected = all
                .iter()
                .find(|(offset, at)| *offset < below && *at >= timestamp);
            let below = Offset::new(below / 5 * 5);
            let found = log
                .find_timestamp(Timestamp(timestamp), below)
                .await
                .expect("find");
            let found = found.map(|found| (found.offset.get(), found.timestamp.0));
            let expected = expected
                .copied()
                .filter(|(offset, _)| *offset < below.get());
            assert_eq!(found, expected, "timestamp {timestamp} below {below}");
        }
        let below = Offset::new(below / 5 * 5);
        let max = all
            .iter()
            .filter(|(offset, _)| *offset < below.get())
            .max_by_key(|(offset, at)| (*at, -offset));
        let found = log.find_max_timestamp(below).await.expect("find");
        let found = found.map(|found| (found.offset.get(), found.timestamp.0));
        assert_eq!(found, max.copied(), "max below {below}");
    }
}

#[test]
fn appends_are_refused_while_too_much_waits_for_the_disk() {
    on_both("busy", |mut rig| async move {
        rig.engine.tail_bytes_max = 300_000;
        let (engine, log) = rig.start(config()).await;
        let mut taken = 0;
        let refused = loop {
            match log.append(batch_at(taken, 1, 20_000), EPOCH) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Busy), "{refused}");
        assert_eq!(taken, 14, "as many as the budget has room for");
        let mut appended = 0;
        while appended < 100 {
            let room = engine.room().listen();
            if log.has_room(20_100) {
                log.append(batch_at(appended, 1, 20_000), EPOCH)
                    .expect("there is room");
                appended += 1;
            } else {
                room.await;
            }
            let stats = engine.stats();
            assert!(stats.tail_unflushed_bytes <= 300_000, "{stats:?}");
        }
        counted(&engine, &log, Offset::new(taken + 100)).await;
        assert_eq!(read_all(&log, Offset::ZERO).await.len() as i64, taken + 100);
        assert!(engine.stats().tail_bytes <= 300_000 + 100_000);
        engine.close().await.expect("close");
    });
}

#[test]
fn many_logs_share_commits_and_report_together() {
    on_both("many", |rig| async move {
        let (engine, logs) = rig.start_logs(50, config()).await;
        for round in 0..4 {
            for log in &logs {
                log.append(batch_at(round, 1, 100), EPOCH).expect("append");
            }
            for log in &logs {
                counted(&engine, log, Offset::new(round + 1)).await;
            }
        }
        let stats = engine.stats();
        assert!(
            stats.journal_commits <= 12,
            "{} commits",
            stats.journal_commits
        );
        assert_eq!(stats.segment_writes, 0);
        let (id, name) = (logs[7].id(), logs[7].name());
        engine.delete_log(id, name).await.expect("delete");
        assert!(engine.log(logs[7].id()).is_none());
        // The same name again, for another topic: nothing of the old one is there.
        let id = LogId {
            topic_id: TopicId([1; 16]),
            ..logs[7].id()
        };
        let name = logs[7].name().clone();
        let again = engine.open_log(id, name, config()).await.expect("open");
        assert_eq!(again.marks().log_end, Offset::ZERO);
        again.append(batch_at(0, 1, 100), EPOCH).expect("append");
        counted(&engine, &again, Offset::new(1)).await;
        engine.delete_log(id, &identity(7).1).await.expect("delete");
        engine.close().await.expect("close");
        let listed = rig.rt.list_dir(&rig.engine.data_dir).await.expect("list");
        let dirs = listed
            .iter()
            .filter(|entry| entry.name.starts_with("t-"))
            .count();
        assert_eq!(dirs, 49);
    });
}

#[test]
fn a_cold_reader_that_does_not_come_back_gives_its_read_ahead_up() {
    for seed in 0..3 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let dir = PathBuf::from("/data");
            rt.create_dir_all(&dir).await.expect("create");
            let rig = Rig::new(rt, dir);
            let (engine, log) = rig.start(config()).await;
            for n in 0..20 {
                log.append(batch_at(n, 1, 50_000), EPOCH).expect("append");
            }
            engine.close().await.expect("close");
            drop((engine, log));

            let (engine, log) = rig.start(config()).await;
            let one = ReadLimit {
                bytes_max: 1,
                ..everything(&log)
            };
            let interval = std::time::Duration::from_millis(60_100);
            let fetched = log.read(Offset::ZERO, one).await.expect("read");
            rig.rt.sleep(interval).await;
            assert!(engine.stats().readahead_bytes > 0, "seed {seed}");
            // One that goes on keeps it.
            let next = fetched.next.expect("a batch");
            log.read(next, one).await.expect("read");
            rig.rt.sleep(interval).await;
            assert!(engine.stats().readahead_bytes > 0, "seed {seed}");
            rig.rt.sleep(interval).await;
            assert_eq!(engine.stats().readahead_bytes, 0, "seed {seed}");
            assert_eq!(read_all(&log, Offset::ZERO).await.len(), 20);
        });
    }
}
