//! The background scrub finds what is damaged, keeps its pace, and minds its own business.

use std::time::Duration;

use super::*;
use crate::{
    rt::{OpenMode, durable},
    segment::{Index, Next, SegmentReader, index_path, segment_path, writer::patch},
};

/// Segments of two batches each.
fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 70_000,
        ..config()
    }
}

/// Runs `test` in the simulator with a log of six sealed segments and one active.
fn check<Running>(test: impl Fn(Rig, Engine, Log) -> Running + Clone + 'static)
where
    Running: Future<Output = ()> + 'static,
{
    for seed in 0..4 {
        let test = test.clone();
        sim::run(seed, Disk::default(), move |rt| async move {
            let dir = PathBuf::from("/data");
            rt.create_dir_all(&dir).await.expect("create");
            let rig = Rig::new(rt, dir);
            let (engine, log) = rig.start(small_segments()).await;
            for n in 0..14 {
                log.append(batch_at(n, 1, 30_000), EPOCH).expect("append");
                counted(&engine, &log, Offset::new(n + 1)).await;
            }
            log.set_high_watermark(Offset::new(14));
            log.0
                .shared
                .checkpoints
                .complete()
                .await
                .expect("checkpoint");
            sealed(&rig, &engine, 6).await;
            test(rig, engine, log).await;
        });
    }
}

fn batch_bytes() -> u64 {
    batch_at(0, 1, 30_000).len() as u64
}

async fn rounds(rig: &Rig, engine: &Engine, count: u64) {
    while engine.stats().scrub_rounds < count {
        rig.rt.sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn every_sealed_segment_is_read_at_the_pace_and_damage_is_counted_once() {
    check(|rig, engine, log| async move {
        let path = segment_path(&rig.log_dir(), Offset::new(4));
        let file = rig.rt.open(&path, OpenMode::ReadWrite).await.expect("open");
        let len = file.len().await.expect("length");
        patch(&rig.rt, &file, 100, b"rot").await.expect("write");
        file.truncate(len).await.expect("truncate");
        let began = rig.rt.now();
        engine.start_scrub(10_000);
        rounds(&rig, &engine, 1).await;
        let stats = engine.stats();
        assert_eq!(stats.scrubbed_bytes, 12 * batch_bytes());
        let wanted = Duration::from_secs(12 * batch_bytes() / 10_000);
        let passed = rig.rt.now().since(began);
        assert!(passed >= wanted && passed < wanted * 11 / 10, "{passed:?}");
        assert_eq!((stats.corrupt_batches, stats.scrub_errors), (1, 0));
        rounds(&rig, &engine, 2).await;
        assert_eq!(engine.stats().corrupt_batches, 1);
        assert!(log.fault().is_none());
        engine.close().await.expect("close");
    });
}

#[test]
fn an_index_that_disagrees_is_removed_and_built_again() {
    check(|rig, engine, log| async move {
        let base = Offset::new(6);
        let path = segment_path(&rig.log_dir(), base);
        let file = Rc::new(rig.rt.open(&path, OpenMode::Read).await.expect("open"));
        let mut wrong = Index::new(base, 0, Timestamp(0));
        let mut reader = SegmentReader::new(file, 0, 2 * batch_bytes());
        while let Next::Batch(mut header, _) = reader.peek().await.expect("read") {
            reader.advance(&header);
            header.max_timestamp = Timestamp(header.max_timestamp.0 + 1000);
            wrong.push(&header, wrong.len());
        }
        let path = index_path(&rig.log_dir(), base);
        durable::replace_file(&rig.rt, &path, &wrong.encode())
            .await
            .expect("replace");
        engine.start_scrub(1 << 20);
        rounds(&rig, &engine, 1).await;
        let stats = engine.stats();
        assert_eq!((stats.corrupt_batches, stats.scrub_errors), (0, 1));
        let found = log.find_timestamp(Timestamp(7), Offset::new(14)).await;
        assert_eq!(
            found.expect("find").map(|found| found.offset),
            Some(Offset::new(7))
        );
        rounds(&rig, &engine, 2).await;
        assert_eq!(engine.stats().scrub_errors, 1);
        engine.close().await.expect("close");
    });
}

#[test]
fn segments_that_go_meanwhile_are_no_errors() {
    check(|rig, engine, log| async move {
        engine.start_scrub(10_000);
        for end in [4, 9, 12] {
            rig.rt.sleep(Duration::from_millis(4_567)).await;
            log.delete_to(Offset::new(end)).await.expect("delete");
        }
        rounds(&rig, &engine, 1).await;
        let stats = engine.stats();
        assert_eq!((stats.corrupt_batches, stats.scrub_errors), (0, 0));
        let (id, _) = identity(0);
        let name = identity(0).1;
        engine.delete_log(id, &name).await.expect("delete");
        rounds(&rig, &engine, 2).await;
        assert_eq!(engine.stats().scrub_errors, 0);
    });
}

#[test]
fn a_round_goes_on_after_a_restart() {
    check(|rig, engine, _| async move {
        // Two minutes for a segment.
        let pace = 2 * batch_bytes() / 120;
        engine.start_scrub(pace);
        rig.rt.sleep(Duration::from_secs(3 * 120 + 60)).await;
        engine.close().await.expect("close");
        let (engine, _) = rig.start(small_segments()).await;
        engine.start_scrub(1 << 20);
        rounds(&rig, &engine, 1).await;
        assert_eq!(engine.stats().scrubbed_bytes, 3 * 2 * batch_bytes());
        rounds(&rig, &engine, 2).await;
        assert_eq!(engine.stats().scrubbed_bytes, (3 + 6) * 2 * batch_bytes());
        engine.close().await.expect("close");
    });
}

#[test]
fn logs_at_rest_are_scrubbed_and_rest_again() {
    check(|rig, engine, _| async move {
        engine.close().await.expect("close");
        let engine = Engine::open(rig.rt.clone(), rig.engine.clone())
            .await
            .expect("open");
        let (id, name) = identity(0);
        let log = engine.open_log_when_used(id, name, small_segments()).await;
        let log = log.expect("open log");
        engine.sync_recovered().await.expect("sync");
        engine.start_journal().await.expect("start journal");
        assert!(is_asleep(&log));
        let path = segment_path(&rig.log_dir(), Offset::new(4));
        let file = rig.rt.open(&path, OpenMode::ReadWrite).await.expect("open");
        let len = file.len().await.expect("length");
        patch(&rig.rt, &file, 100, b"rot").await.expect("write");
        file.truncate(len).await.expect("truncate");
        engine.start_scrub(1 << 20);
        for round in 1..3 {
            rounds(&rig, &engine, round).await;
            let stats = engine.stats();
            assert_eq!(stats.scrubbed_bytes, round * 12 * batch_bytes());
            assert_eq!((stats.corrupt_batches, stats.scrub_errors), (1, 0));
            assert!(is_asleep(&log), "nobody else uses it");
        }
        engine.close().await.expect("close");
    });
}
