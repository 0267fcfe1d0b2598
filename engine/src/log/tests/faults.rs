//! Disks that fail: what it strikes goes offline, says so, and loses nothing that was counted.

use super::*;
use std::time::Duration;

use crate::{
    log::tail::Eviction,
    rt::{OpenMode, durable, sim::Faults},
    segment::{segment_path, writer::patch},
};

/// Runs `test` in the simulator with a few seeds, then opens what the disk has after a power failure: everything counted is there.
fn check(test: impl Fn(Rig, Engine, Vec<Log>, sim::Sim) -> BoxFuture + Copy + 'static) {
    for seed in 0..8 {
        let ((disk, promised), _) = sim::run(seed, Disk::default(), move |rt| async move {
            let rig = in_root(&rt).await;
            let Rt::Sim(sim) = &rt else {
                panic!("this test runs in the simulator");
            };
            let (engine, logs) = rig.start_logs(3, config()).await;
            test(rig, engine, logs.clone(), sim.clone()).await;
            let promised: Vec<Offset> = logs.iter().map(|log| log.marks().counted_end).collect();
            (sim.crash(), promised)
        });
        sim::run(seed, disk, move |rt| async move {
            let rig = in_root(&rt).await;
            let (engine, logs) = rig.start_logs(3, config()).await;
            for (log, promised) in logs.iter().zip(promised) {
                assert!(log.fault().is_none());
                assert!(log.marks().log_end >= promised, "seed {seed}");
                let found = read_all(log, Offset::ZERO).await;
                assert_eq!(
                    offsets(&found),
                    Vec::from_iter(0..log.marks().log_end.get())
                );
            }
            engine.close().await.expect("close");
        });
    }
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()>>>;

async fn in_root(rt: &Rt) -> Rig {
    let dir = PathBuf::from("/data");
    rt.create_dir_all(&dir)
        .await
        .expect("create the data directory");
    rt.sync_dir(std::path::Path::new("/")).await.expect("sync");
    Rig::new(rt.clone(), dir)
}

fn failing_writes() -> Faults {
    Faults {
        write_error: 1.0,
        ..Faults::default()
    }
}

#[test]
fn a_failed_journal_takes_all_persisted_logs_offline() {
    check(|_, engine, logs, sim| {
        Box::pin(async move {
            for log in &logs {
                log.append(batch_at(0, 1, 100), EPOCH).expect("append");
                counted(&engine, log, Offset::new(1)).await;
            }
            sim.set_faults(failing_writes());
            logs[0].append(batch_at(1, 1, 100), EPOCH).expect("append");
            let mut offline = Vec::new();
            while offline.len() < 3 {
                offline.extend(engine.progress().await);
            }
            sim.set_faults(Faults::default());
            for log in &logs {
                assert!(offline.contains(&log.id()));
                let refused = log.append(batch_at(2, 1, 100), EPOCH);
                assert!(matches!(refused, Err(AppendError::Fault(_))), "{refused:?}");
                assert_eq!(log.marks().counted_end, Offset::new(1));
                assert_eq!(
                    read_all(log, Offset::ZERO).await[0].0.base_offset,
                    Offset::ZERO
                );
            }
            assert_eq!(engine.stats().faults, 3);
            assert!(engine.close().await.is_err(), "not an orderly end");
        })
    });
}

#[test]
fn a_failed_segment_write_takes_one_log_offline_and_keeps_its_journal() {
    check(|_, engine, logs, sim| {
        Box::pin(async move {
            for n in 0..3 {
                logs[1].append(batch_at(n, 1, 100), EPOCH).expect("append");
            }
            counted(&engine, &logs[1], Offset::new(3)).await;
            // Write-behind of log 1 fails; the journal is not being written now.
            sim.set_faults(failing_writes());
            logs[1].0.request_flush();
            while logs[1].fault().is_none() {
                engine.progress().await;
            }
            sim.set_faults(Faults::default());
            let before = engine.stats().journal_commits;
            for n in 0..50 {
                logs[0]
                    .append(batch_at(n, 1, 5000), EPOCH)
                    .expect("the others go on");
                counted(&engine, &logs[0], Offset::new(n + 1)).await;
            }
            assert!(engine.stats().journal_commits > before);
            logs[0]
                .0
                .shared
                .checkpoints
                .complete()
                .await
                .expect("checkpoint");
            assert_eq!(
                read_all(&logs[1], Offset::ZERO).await.len(),
                3,
                "still readable"
            );
        })
    });
}

#[test]
fn a_failed_sync_is_not_tried_again() {
    check(|_, engine, logs, sim| {
        Box::pin(async move {
            logs[2].append(batch_at(0, 1, 100), EPOCH).expect("append");
            counted(&engine, &logs[2], Offset::new(1)).await;
            sim.set_faults(Faults {
                sync_error: 1.0,
                ..Faults::default()
            });
            let _ = logs[2].0.shared.checkpoints.complete().await;
            sim.set_faults(Faults::default());
            assert!(logs[2].fault().is_some());
            let refused = logs[2].append(batch_at(1, 1, 100), EPOCH);
            assert!(matches!(refused, Err(AppendError::Fault(_))), "{refused:?}");
            assert!(engine.close().await.is_err(), "not an orderly end");
        })
    });
}

#[test]
fn an_offline_log_comes_back_by_itself_and_has_lost_nothing() {
    let failing_syncs = Faults {
        sync_error: 1.0,
        ..Faults::default()
    };
    for (faults, durability) in [
        (failing_writes(), Durability::Persisted),
        (failing_syncs, Durability::Persisted),
        (failing_syncs, Durability::Replicated),
    ] {
        check(move |rig, engine, logs, sim| {
            Box::pin(async move {
                let log = &logs[1];
                log.configure(LogConfig {
                    durability,
                    ..config()
                });
                for n in 0..3 {
                    log.append(batch_at(n, 1, 5000), EPOCH).expect("append");
                }
                counted(&engine, log, Offset::new(3)).await;
                sim.set_faults(faults);
                log.0.shared.checkpoints.request();
                while log.fault().is_none() {
                    engine.progress().await;
                }
                assert_eq!(engine.stats().logs_offline, 1);
                rig.rt.sleep(Duration::from_secs(10)).await;
                assert!(log.fault().is_some(), "the disk still fails");
                sim.set_faults(Faults::default());
                rig.rt.sleep(Duration::from_secs(60)).await;
                assert!(log.fault().is_none(), "{:?}", log.fault());
                assert_eq!(engine.stats().logs_offline, 0);
                assert_eq!(engine.stats().logs_reopened, 1);
                for n in 3..6 {
                    log.append(batch_at(n, 1, 5000), EPOCH).expect("append");
                    counted(&engine, log, Offset::new(n + 1)).await;
                }
                log.0
                    .shared
                    .checkpoints
                    .complete()
                    .await
                    .expect("checkpoint");
                assert_eq!(
                    offsets(&read_all(log, Offset::ZERO).await),
                    Vec::from_iter(0..6)
                );
            })
        });
    }
}

#[test]
fn logs_go_on_past_a_full_journal_while_one_is_offline() {
    check(|rig, engine, logs, sim| {
        Box::pin(async move {
            // Until the journal's files are there.
            rig.rt.sleep(Duration::from_secs(1)).await;
            for n in 0..3 {
                logs[1].append(batch_at(n, 1, 100), EPOCH).expect("append");
            }
            counted(&engine, &logs[1], Offset::new(3)).await;
            sim.set_faults(failing_writes());
            logs[1].0.request_flush();
            while logs[1].fault().is_none() {
                engine.progress().await;
            }
            sim.set_faults(Faults::default());
            // As after a cut that failed halfway: it is not mended.
            logs[1].0.state.borrow_mut().write.paused = true;
            let began = rig.rt.now();
            // More than the ring of 4 MiB takes.
            for n in 0..150 {
                for log in [&logs[0], &logs[2]] {
                    log.append(batch_at(n, 1, 30_000), EPOCH).expect("append");
                }
                for log in [&logs[0], &logs[2]] {
                    counted(&engine, log, Offset::new(n + 1)).await;
                }
            }
            let passed = rig.rt.now().since(began);
            assert!(passed < Duration::from_secs(5), "{passed:?}");
            assert!(engine.stats().bypass_writes > 10);
            assert!(logs[1].fault().is_some());
        })
    });
}

#[test]
fn after_a_failed_journal_logs_go_on_without_it() {
    check(|rig, engine, logs, sim| {
        Box::pin(async move {
            sim.set_faults(failing_writes());
            for log in &logs {
                log.append(batch_at(0, 1, 100), EPOCH).expect("append");
            }
            while logs.iter().any(|log| log.fault().is_none()) {
                engine.progress().await;
            }
            sim.set_faults(Faults::default());
            rig.rt.sleep(Duration::from_secs(60)).await;
            let commits = engine.stats().journal_commits;
            for n in 1..20 {
                for log in &logs {
                    log.append(batch_at(n, 1, 100), EPOCH).expect("append");
                    counted(&engine, log, Offset::new(n + 1)).await;
                }
            }
            assert_eq!(engine.stats().journal_commits, commits);
        })
    });
}

#[test]
fn what_only_the_journal_has_waits_for_a_restart() {
    check(|rig, engine, logs, sim| {
        Box::pin(async move {
            let log = &logs[0];
            for n in 0..3 {
                log.append(batch_at(n, 1, 5000), EPOCH).expect("append");
            }
            counted(&engine, log, Offset::new(3)).await;
            log.0.flush_to(Offset::new(3)).await.expect("flush");
            while matches!(log.0.evict_front(), Eviction::Evicted(_)) {}
            sim.set_faults(Faults {
                sync_error: 1.0,
                ..Faults::default()
            });
            log.0.shared.checkpoints.request();
            while log.fault().is_none() {
                engine.progress().await;
            }
            sim.set_faults(Faults::default());
            let path = segment_path(&rig.log_dir(), Offset::ZERO);
            let file = rig.rt.open(&path, OpenMode::ReadWrite).await.expect("open");
            patch(&rig.rt, &file, 300, b"lost").await.expect("write");
            rig.rt.sleep(Duration::from_secs(60)).await;
            assert!(log.fault().is_some());
            assert_eq!(engine.stats().logs_reopened, 0);
        })
    });
}

/// One log has failed to be mended for so long that it is rarely tried; another one that goes offline is tried soon all the same.
#[test]
fn a_log_that_cannot_be_mended_makes_no_other_wait() {
    check(|rig, engine, logs, _| {
        Box::pin(async move {
            for log in &logs[..2] {
                log.append(batch_at(0, 1, 5000), EPOCH).expect("append");
                counted(&engine, log, Offset::new(1)).await;
            }
            let (lost, well) = (&logs[0], &logs[1]);
            lost.0.flush_to(Offset::new(1)).await.expect("flush");
            while matches!(lost.0.evict_front(), Eviction::Evicted(_)) {}
            let path = segment_path(&rig.log_dir(), Offset::ZERO);
            let file = rig.rt.open(&path, OpenMode::ReadWrite).await.expect("open");
            patch(&rig.rt, &file, 300, b"lost").await.expect("write");
            lost.0.poison(Fault::corrupt("a test", "nowhere"));
            for round in 0..10 {
                // Longer than a log must be well before it is tried soon again.
                rig.rt.sleep(Duration::from_secs(150)).await;
                assert!(lost.fault().is_some());
                well.0.poison(Fault::corrupt("a test", "nowhere"));
                rig.rt.sleep(Duration::from_millis(1500)).await;
                assert!(well.fault().is_none(), "round {round}");
            }
            assert_eq!(engine.stats().logs_reopened, 10);
        })
    });
}

async fn set_identity(rig: &Rig, topic_id: TopicId) {
    let content = format!("version: 0\ntopic_id: {topic_id}");
    let path = rig.log_dir().join("partition.metadata");
    durable::replace_file(&rig.rt, &path, content.as_bytes())
        .await
        .expect("write the identity");
}

/// Opens the engine, and a log whose directory says that it is another's.
async fn open_refused(rig: &Rig) -> Engine {
    let engine = Engine::open(rig.rt.clone(), rig.engine.clone());
    let engine = engine.await.expect("open");
    let (id, name) = identity(0);
    let refused = engine.open_log(id, name, config()).await;
    assert!(matches!(refused, Err(OpenError::WrongIdentity { .. })));
    engine
}

/// Three batches in a log whose directory is then damaged; what is left after `then` and a power failure is mended and returned.
fn damaged<Running>(
    seed: u64,
    then: impl Fn(Rig, Engine, Log) -> Running + 'static,
) -> (Disk, TopicId)
where
    Running: Future<Output = ()> + 'static,
{
    let right = identity(0).0.topic_id;
    let (disk, _) = sim::run(seed, Disk::default(), move |rt| async move {
        let rig = in_root(&rt).await;
        let (engine, log) = rig.start(config()).await;
        for n in 0..3 {
            log.append(batch_at(n, 1, 100), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(3)).await;
        then(rig.clone(), engine, log).await;
        set_identity(&rig, TopicId(*b"another of tests")).await;
        crash_of(&rt)
    });
    (disk, right)
}

fn crash_of(rt: &Rt) -> Disk {
    let Rt::Sim(sim) = rt else {
        panic!("this test runs in the simulator");
    };
    sim.crash()
}

#[test]
fn the_journal_is_kept_while_a_log_in_it_cannot_be_opened() {
    for seed in 0..8 {
        let (disk, right) = damaged(seed, |_, _, _| async {});
        let (disk, _) = sim::run(seed, disk, move |rt| async move {
            let rig = in_root(&rt).await;
            let engine = open_refused(&rig).await;
            let refused = engine.sync_recovered().await;
            assert!(matches!(refused, Err(Fault::Corrupt { .. })), "{refused:?}");
            set_identity(&rig, right).await;
            crash_of(&rt)
        });
        sim::run(seed, disk, move |rt| async move {
            let rig = in_root(&rt).await;
            let (_, log) = rig.start(config()).await;
            let found = read_all(&log, Offset::ZERO).await;
            assert_eq!(offsets(&found), [0, 1, 2], "seed {seed}");
        });
    }
}

#[test]
fn checkpoints_repeat_what_is_known_of_a_log_that_cannot_be_opened() {
    for seed in 0..8 {
        let (disk, right) = damaged(seed, |_, engine, log| async move {
            log.set_high_watermark(Offset::new(3));
            log.delete_to(Offset::new(2)).await.expect("delete");
            engine.close().await.expect("close");
        });
        let (disk, _) = sim::run(seed, disk, move |rt| async move {
            let rig = in_root(&rt).await;
            let engine = open_refused(&rig).await;
            engine.sync_recovered().await.expect("sync");
            engine.start_journal().await.expect("start journal");
            set_identity(&rig, right).await;
            let disk = crash_of(&rt);
            let (id, name) = identity(0);
            let log = engine.open_log(id, name, config()).await.expect("open log");
            assert_eq!(log.marks().log_start, Offset::new(2), "seed {seed}");
            disk
        });
        sim::run(seed, disk, move |rt| async move {
            let rig = in_root(&rt).await;
            let (_, log) = rig.start(config()).await;
            assert_eq!(log.marks().log_start, Offset::new(2), "seed {seed}");
            assert_eq!(log.marks().log_end, Offset::new(3), "seed {seed}");
        });
    }
}
