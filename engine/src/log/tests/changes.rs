//! What takes parts of a log away: truncation, DeleteRecords, retention; and what begins a new segment.

use super::*;
use crate::rt::{Class, sim::Faults};

#[test]
fn a_cut_takes_batches_epochs_and_producers_along() {
    on_both("truncate", |rig| async move {
        let mut config = config();
        config.segment_bytes = 4000;
        let (engine, log) = rig.start(config.clone()).await;
        for n in 0..30 {
            let batch = build_for_cut(n);
            log.append(batch, LeaderEpoch(n / 10)).expect("append");
        }
        counted(&engine, &log, Offset::new(60)).await;
        log.set_high_watermark(Offset::new(20));
        sealed(&rig, &engine, 3).await;
        // In the middle of a batch: all of it goes.
        log.truncate_to(Offset::new(27)).await.expect("truncate");
        check_cut(&log).await;
        let last = rig.names(".log").await.pop().expect("a segment");
        assert!(
            last < format!("{:020}.log", 26),
            "files above the cut are gone: {last}"
        );
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config).await;
        check_cut(&log).await;
        let appended = log
            .append(build_for_cut(13), LeaderEpoch(5))
            .expect("append");
        assert_eq!(appended.base_offset, Offset::new(26));
        counted(&engine, &log, Offset::new(28)).await;
        assert_eq!(
            offsets(&read_all(&log, Offset::ZERO).await).last(),
            Some(&26)
        );
        engine.close().await.expect("close");
    });
}

/// Two records of 200 bytes from producer 1, in sequence.
fn build_for_cut(n: i32) -> ValidBatch {
    let builder = BatchBuilder::new(Codec::None).producer(ProducerId(1), ProducerEpoch(0), 2 * n);
    build(builder, i64::from(n), 2, 200)
}

async fn check_cut(log: &Log) {
    assert_eq!(log.marks().log_end, Offset::new(26));
    assert_eq!(
        offsets(&read_all(log, Offset::ZERO).await),
        Vec::from_iter((0..13).map(|n| 2 * n))
    );
    assert_eq!(log.latest_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(
        log.end_of_epoch(LeaderEpoch(0)),
        Some((LeaderEpoch(0), Offset::new(20)))
    );
    assert_eq!(
        log.end_of_epoch(LeaderEpoch(1)),
        Some((LeaderEpoch(1), Offset::new(26)))
    );
    let producers = log.producers();
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].2, producers[0].3), (25, Offset::new(25)));
    let limit = everything(log);
    let beyond = log.read(Offset::new(27), limit).await;
    assert!(
        matches!(beyond, Err(ReadError::OutOfRange { .. })),
        "{beyond:?}"
    );
}

#[test]
fn deleting_records_moves_the_start_and_removes_whole_segments() {
    on_both("delete", |rig| async move {
        let mut config = config();
        config.segment_bytes = 4000;
        config.file_delete_delay_ms = 20;
        let (engine, log) = rig.start(config.clone()).await;
        for n in 0..30 {
            log.append(batch_at(n, 1, 500), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(30)).await;
        log.set_high_watermark(Offset::new(25));
        sealed(&rig, &engine, 4).await;
        let size = log.size_bytes().await.expect("size");
        let segments = rig.names(".log").await;
        assert_eq!(
            log.delete_to(Offset::new(12)).await.expect("delete"),
            Offset::new(12)
        );
        assert!(log.size_bytes().await.expect("size") < size);
        let left = rig.names(".log").await;
        assert!(left.len() < segments.len());
        let base: i64 = left[0]
            .trim_end_matches(".log")
            .parse()
            .expect("a base offset");
        assert!(
            (1..=12).contains(&base),
            "the segment that holds the start stays: {left:?}"
        );
        let below = log.read(Offset::new(11), everything(&log)).await;
        assert!(
            matches!(below, Err(ReadError::OutOfRange { .. })),
            "{below:?}"
        );
        assert_eq!(
            offsets(&read_all(&log, Offset::new(12)).await),
            Vec::from_iter(12..30)
        );
        // Not past the high watermark.
        assert_eq!(
            log.delete_to(Offset::new(28)).await.expect("delete"),
            Offset::new(25)
        );
        while !rig.names(".deleted").await.is_empty() {
            rig.rt.sleep(std::time::Duration::from_millis(5)).await;
        }
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config).await;
        assert_eq!(log.marks().log_start, Offset::new(25));
        assert_eq!(
            offsets(&read_all(&log, Offset::new(25)).await),
            Vec::from_iter(25..30)
        );
        engine.close().await.expect("close");
    });
}

#[test]
fn retention_rolls_what_is_over_age_and_deletes_it() {
    on_both("retention", |mut rig| async move {
        rig.engine.retention_check_interval_ms = 5;
        let mut config = config();
        config.segment_bytes = 4000;
        config.retention_ms = Some(60_000);
        let (engine, log) = rig.start(config).await;
        let now = rig.rt.wall_clock().0;
        for n in 0..30 {
            log.append(batch_at(now - 100_000 + n, 1, 500), EPOCH)
                .expect("append");
        }
        counted(&engine, &log, Offset::new(30)).await;
        log.set_high_watermark(Offset::new(30));
        while log.marks().log_start < Offset::new(30) {
            rig.rt.sleep(std::time::Duration::from_millis(5)).await;
        }
        let appended = log.append(batch_at(now, 1, 500), EPOCH).expect("append");
        assert_eq!(appended.base_offset, Offset::new(30));
        counted(&engine, &log, Offset::new(31)).await;
        log.set_high_watermark(Offset::new(31));
        rig.rt.sleep(std::time::Duration::from_millis(30)).await;
        assert_eq!(
            log.marks().log_start,
            Offset::new(30),
            "what is young stays"
        );
        assert_eq!(rig.names(".log").await, ["00000000000000000030.log"]);
        engine.close().await.expect("close");
    });
}

#[test]
fn segments_roll_by_the_time_between_batches() {
    on_both("roll-time", |rig| async move {
        let mut config = config();
        config.segment_ms = 1000;
        let (engine, log) = rig.start(config).await;
        for timestamp in [5000, 5500, 6000, 6001, 6500, 7002, 100] {
            log.append(batch_at(timestamp, 1, 10), EPOCH)
                .expect("append");
        }
        counted(&engine, &log, Offset::new(7)).await;
        engine.close().await.expect("close");
        let bases: Vec<String> = [0, 3, 5]
            .iter()
            .map(|base| format!("{base:020}.log"))
            .collect();
        assert_eq!(rig.names(".log").await, bases);
    });
}

#[test]
fn a_log_is_deleted_while_it_is_written_and_checkpointed() {
    on_both("delete-busy", |rig| async move {
        let (engine, logs) = rig.start_logs(4, config()).await;
        for round in 0..4 {
            for log in &logs {
                for n in 0..10 {
                    if log.fault().is_none() && engine.log(log.id()).is_some() {
                        log.append(batch_at(n, 1, 5000), EPOCH).expect("append");
                    }
                }
            }
            let checkpoint = logs[3].0.shared.checkpoints.complete();
            let deletion = async {
                if round < 3 {
                    rig.rt.yield_now().await;
                    let (id, name) = (logs[round].id(), logs[round].name());
                    engine.delete_log(id, name).await.expect("delete");
                }
            };
            let (checkpoint, ()) = futures_lite::future::zip(checkpoint, deletion).await;
            checkpoint.expect("checkpoint");
        }
        assert_eq!(engine.stats().faults, 0);
        counted(&engine, &logs[3], Offset::new(40)).await;
        engine.close().await.expect("close");
    });
}

#[test]
fn an_engine_closes_while_a_log_is_cut() {
    on_both("close-cut", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..10 {
            log.append(batch_at(n, 1, 500), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(10)).await;
        let cut = log.truncate_to(Offset::new(5));
        let (cut, closed) = futures_lite::future::zip(cut, engine.close()).await;
        closed.expect("close");
        cut.expect("cut");
        let (engine, log) = rig.start(config()).await;
        assert_eq!(log.marks().log_end, Offset::new(5));
        engine.close().await.expect("close");
    });
}

/// A cut between two segments, of which the first lies below the log start and goes meanwhile.
#[test]
fn a_log_is_cut_where_a_segment_begins_while_the_one_before_is_deleted() {
    for seed in 0..40 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let rig = Rig::new(rt.clone(), PathBuf::from("/"));
            let mut config = config();
            config.segment_bytes = 4000;
            let (engine, log) = rig.start(config.clone()).await;
            for n in 0..20 {
                log.append(batch_at(n, 1, 500), EPOCH).expect("append");
            }
            counted(&engine, &log, Offset::new(20)).await;
            sealed(&rig, &engine, 2).await;
            let second = rig.names(".log").await[1].clone();
            let base = second.trim_end_matches(".log").parse();
            let base = Offset::new(base.expect("a base offset"));
            log.set_high_watermark(base);
            let deleting = log.clone();
            let deletion = rt.spawn(
                Class::Foreground,
                async move { deleting.delete_to(base).await },
            );
            rt.sleep(std::time::Duration::from_micros(100 * (seed % 10)))
                .await;
            log.truncate_to(base).await.expect("truncate");
            deletion.await.expect("delete");
            assert_eq!(log.marks().log_end, base, "seed {seed}");
            for n in 0..3 {
                log.append(batch_at(n, 1, 500), EPOCH).expect("append");
            }
            let end = base.plus(3);
            counted(&engine, &log, end).await;
            engine.close().await.expect("close");
            let (engine, log) = rig.start(config).await;
            let found = offsets(&read_all(&log, base).await);
            assert_eq!(found, Vec::from_iter(base.get()..end.get()), "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

/// Its end does not count as orderly, since nobody has brought that log to rest.
#[test]
fn a_log_whose_deletion_failed_is_recovered_by_the_next_start() {
    for seed in 0..10 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let Rt::Sim(sim) = &rt else {
                panic!("this runs in the simulator");
            };
            let rig = Rig::new(rt.clone(), PathBuf::from("/"));
            let (engine, log) = rig.start(config()).await;
            let (id, name) = identity(0);
            for n in 0..10 {
                log.append(batch_at(n, 1, 500), EPOCH).expect("append");
                log.0.sync_to(Offset::new(n + 1)).await.expect("sync");
                if n == 4 {
                    let checkpoint = log.0.shared.checkpoints.complete();
                    checkpoint.await.expect("checkpoint");
                }
            }
            drop(log);
            sim.set_faults(Faults {
                name_error: 1.0,
                ..Faults::default()
            });
            let deleted = engine.delete_log(id, &name).await;
            deleted.expect_err("its directory cannot be renamed");
            sim.set_faults(Faults::default());
            engine.close().await.expect("close");
            let engine = Engine::open(rt.clone(), rig.engine.clone())
                .await
                .expect("open");
            let log = engine.open_log_when_used(id, name.clone(), config());
            let log = log.await.expect("open log");
            engine.sync_recovered().await.expect("sync");
            engine.start_journal().await.expect("start journal");
            let found = offsets(&read_all(&log, Offset::ZERO).await);
            assert_eq!(found, Vec::from_iter(0..10), "seed {seed}");
            engine.delete_log(id, &name).await.expect("delete");
            engine.close().await.expect("close");
        });
    }
}

#[test]
fn a_log_is_deleted_once_its_directory_has_another_name() {
    for seed in 0..20 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let Rt::Sim(sim) = &rt else {
                panic!("this runs in the simulator");
            };
            let rig = Rig::new(rt.clone(), PathBuf::from("/"));
            let (engine, _) = rig.start(config()).await;
            let (id, name) = identity(0);
            sim.set_faults(Faults {
                name_error: 0.5,
                ..Faults::default()
            });
            let deleted = engine.delete_log(id, &name).await;
            sim.set_faults(Faults::default());
            let is_there = rt.exists(&rig.log_dir()).await;
            assert_eq!(deleted.is_err(), is_there, "seed {seed}: {deleted:?}");
            engine.close().await.expect("close");
            let (engine, _) = rig.start_logs(0, config()).await;
            let listed = rt.list_dir(&rig.engine.data_dir).await.expect("list");
            let left = listed.iter().any(|entry| entry.name.ends_with("-delete"));
            assert!(!left, "seed {seed}: the next start removes it");
            engine.close().await.expect("close");
        });
    }
}

/// Retention reads an index, and meanwhile it is switched off.
#[test]
fn what_is_to_be_kept_by_now_does_not_go() {
    for seed in 0..20 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let rig = Rig::new(rt.clone(), PathBuf::from("/"));
            let mut limited = config();
            limited.segment_bytes = 4000;
            limited.retention_ms = Some(1000);
            let (engine, log) = rig.start(limited.clone()).await;
            for n in 0..20 {
                log.append(batch_at(n, 1, 500), EPOCH).expect("append");
            }
            counted(&engine, &log, Offset::new(20)).await;
            log.set_high_watermark(Offset::new(20));
            engine.close().await.expect("close");
            let (engine, log) = rig.start(limited.clone()).await;
            let retaining = log.clone();
            let retention = rt.spawn(
                Class::Housekeeping,
                async move { retaining.0.retain().await },
            );
            rt.sleep(std::time::Duration::from_micros(20 * seed)).await;
            let log_start = log.marks().log_start;
            log.configure(LogConfig {
                retention_ms: None,
                ..limited
            });
            retention.await.expect("retention");
            assert_eq!(log.marks().log_start, log_start, "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

/// A checkpoint still has the handle of a log that was deleted, and comes to its index when the directory is another log's.
#[test]
fn the_index_of_a_deleted_log_is_not_written() {
    on_both("index-of-deleted", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..20 {
            log.append(batch_at(n, 1, 500), EPOCH).expect("append");
        }
        let complete = log.0.shared.checkpoints.complete();
        complete.await.expect("checkpoint");
        let (id, name) = (log.id(), log.name().clone());
        engine.delete_log(id, &name).await.expect("delete");
        let next = LogId {
            topic_id: TopicId(*b"the topic behind"),
            ..id
        };
        engine
            .open_log(next, name, config())
            .await
            .expect("create its successor");
        log.0.save_index(0).await.expect("nothing to do");
        assert_eq!(rig.names(".fbi").await, Vec::<String>::new());
        drop(log);
        engine.close().await.expect("close");
    });
}
