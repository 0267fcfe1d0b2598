//! What a run saw on the disk and no sync has made durable: the next one must not take it for true without making it so.

use super::*;
use std::time::Duration;

use crate::{
    log::open::Opened,
    rt::sim::{Faults, Sim},
};

fn failing_syncs() -> Faults {
    Faults {
        sync_error: 1.0,
        ..Faults::default()
    }
}

fn flips() -> Faults {
    Faults {
        flip_in_read: 0.3,
        ..Faults::default()
    }
}

async fn in_root(rt: &Rt) -> (Rig, Sim) {
    let Rt::Sim(sim) = rt else {
        panic!("this runs in the simulator");
    };
    let dir = PathBuf::from("/data");
    rt.create_dir_all(&dir).await.expect("create");
    rt.sync_dir(std::path::Path::new("/")).await.expect("sync");
    (Rig::new(rt.clone(), dir), sim.clone())
}

fn replicated() -> LogConfig {
    LogConfig {
        durability: Durability::Replicated,
        ..config()
    }
}

async fn append_and_write(log: &Log, count: i64) {
    for n in 0..count {
        log.append(batch_at(n, 1, 700), EPOCH).expect("append");
    }
    let end = log.marks().log_end;
    log.0.flush_to(end).await.expect("write behind");
}

/// A sync failed, and the process was killed: its batches can still be read, but are not on the disk, and no further sync brings them there.
#[test]
fn what_a_failed_sync_struck_is_written_again_by_the_next_run() {
    for seed in 0..20 {
        let ((), disk) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 20).await;
            sim.set_faults(failing_syncs());
            while log.fault().is_none() {
                log.0.shared.checkpoints.request();
                engine.progress().await;
            }
        });
        let ((disk, durable_end), _) = sim::run(seed, disk, |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (_engine, log) = rig.start(replicated()).await;
            (sim.crash(), log.marks().durable_end)
        });
        assert_eq!(durable_end, Offset::new(20), "seed {seed}: found and kept");
        sim::run(seed, disk, |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            let found = read_all(&log, Offset::ZERO).await;
            assert_eq!(offsets(&found), Vec::from_iter(0..20), "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

/// Two syncs of one file at once; one fails and takes with it what the other was to make durable.
#[test]
fn a_sync_that_ends_well_beside_a_failed_one_is_not_believed() {
    for seed in 0..20 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 5).await;
            let syncs = [0, 1].map(|_| {
                let log = log.clone();
                rt.spawn(crate::rt::Class::Foreground, async move {
                    log.0.sync_to(Offset::new(5)).await
                })
            });
            sim.set_faults(failing_syncs());
            while log.fault().is_none() {
                engine.progress().await;
            }
            sim.set_faults(Faults::default());
            for sync in syncs {
                assert!(sync.await.is_err(), "seed {seed}");
            }
            assert_eq!(log.marks().durable_end, Offset::ZERO, "seed {seed}");
        });
    }
}

/// The process was killed after a truncation had cut the file, and before it had synced that.
#[test]
fn a_cut_that_was_seen_stays_cut() {
    for seed in 0..20 {
        let ((), disk) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 20).await;
            log.0.shared.checkpoints.complete().await.expect("record");
            let path = crate::segment::segment_path(&rig.log_dir(), Offset::ZERO);
            let file = rt.open(&path, crate::rt::OpenMode::Read).await;
            let file = file.expect("open");
            let long = file.len().await.expect("length");
            let cut = {
                let log = log.clone();
                rt.spawn(crate::rt::Class::Foreground, async move {
                    log.truncate_to(Offset::new(10)).await
                })
            };
            while file.len().await.expect("length") == long {}
            drop((engine, cut));
        });
        let (disk, _) = sim::run(seed, disk, |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (_engine, log) = rig.start(replicated()).await;
            assert_eq!(log.marks().log_end, Offset::new(10));
            sim.crash()
        });
        sim::run(seed, disk, |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            assert_eq!(log.marks().log_end, Offset::new(10), "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

/// A truncation had cut the file, and the sync of that failed. The next run finds the file as long as it should be, but that is not on the disk,
/// nor will another sync bring it there.
#[test]
fn a_cut_whose_sync_failed_is_made_again_by_the_next_run() {
    let mut failed = 0;
    for (seed, opened) in (0..20).flat_map(|seed| OPENED.map(|opened| (seed, opened))) {
        let (result, disk) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (_engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 20).await;
            log.0.shared.checkpoints.complete().await.expect("record");
            let path = crate::segment::segment_path(&rig.log_dir(), Offset::ZERO);
            let file = rt.open(&path, crate::rt::OpenMode::Read).await;
            let file = file.expect("open");
            let long = file.len().await.expect("length");
            let cut = {
                let log = log.clone();
                rt.spawn(crate::rt::Class::Foreground, async move {
                    log.truncate_to(Offset::new(10)).await
                })
            };
            while file.len().await.expect("length") == long {}
            sim.set_faults(failing_syncs());
            cut.await
        });
        if result.is_ok() {
            // The sync was faster than we are.
            continue;
        }
        failed += 1;
        let (disk, _) = sim::run(seed, disk, move |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (_engine, log) = start_as(&rig, opened).await;
            assert_eq!(log.marks().log_end, Offset::new(10));
            sim.crash()
        });
        sim::run(seed, disk, move |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = start_as(&rig, opened).await;
            let end = log.marks().log_end;
            assert_eq!(end, Offset::new(10), "seed {seed}, opened {opened:?}");
            engine.close().await.expect("close");
        });
    }
    assert!(failed > 20, "only {failed} of 40");
}

const OPENED: [Opened; 2] = [Opened::Now, Opened::WhenUsed];

async fn start_as(rig: &Rig, opened: Opened) -> (Engine, Log) {
    let engine = Engine::open(rig.rt.clone(), rig.engine.clone()).await;
    let engine = engine.expect("open");
    let (id, name) = identity(0);
    let log = match opened {
        Opened::Now => engine.open_log(id, name, replicated()).await,
        Opened::WhenUsed => engine.open_log_when_used(id, name, replicated()).await,
    };
    engine.sync_recovered().await.expect("sync");
    engine.start_journal().await.expect("start journal");
    (engine, log.expect("open log"))
}

/// The first write of a run begins with bytes that it has read: what the read got wrong must not become true.
#[test]
fn what_a_read_got_wrong_is_not_written_back() {
    for seed in 0..40 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 7).await;
            engine.close().await.expect("close");
            let (engine, log) = rig.start(replicated()).await;
            sim.set_faults(flips());
            log.append(batch_at(7, 1, 700), EPOCH).expect("append");
            log.0.request_flush();
            while !log.0.state.borrow().is_flushed_to(Offset::new(8)) && log.fault().is_none() {
                rt.sleep(Duration::from_micros(100)).await;
            }
            sim.set_faults(Faults::default());
            let found = read_all(&log, Offset::ZERO).await;
            assert_eq!(offsets(&found), Vec::from_iter(0..8), "seed {seed}");
            drop(engine);
        });
    }
}

/// A truncation reads where the batches are: it cuts there and nowhere else, or it fails and changes nothing.
#[test]
fn what_a_read_got_wrong_moves_no_cut() {
    for seed in 0..60 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(replicated()).await;
            append_and_write(&log, 12).await;
            engine.close().await.expect("close");
            let (_engine, log) = rig.start(replicated()).await;
            sim.set_faults(flips());
            let cut = log.truncate_to(Offset::new(9)).await;
            sim.set_faults(Faults::default());
            // An offline log is mended.
            rt.sleep(Duration::from_secs(10)).await;
            assert!(log.fault().is_none(), "seed {seed}: {:?}", log.fault());
            let end = if cut.is_ok() { 9 } else { 12 };
            let found = read_all(&log, Offset::ZERO).await;
            assert_eq!(offsets(&found), Vec::from_iter(0..end), "seed {seed}");
        });
    }
}

/// An orderly end does not leave behind what a deletion was about to remove.
#[test]
fn an_orderly_end_finishes_what_a_deletion_began() {
    for seed in 0..20 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let small = LogConfig {
                segment_bytes: 4096,
                ..replicated()
            };
            let (engine, log) = rig.start(small).await;
            append_and_write(&log, 40).await;
            sealed(&rig, &engine, 7).await;
            log.set_high_watermark(Offset::new(40));
            let deletion = {
                let log = log.clone();
                rt.spawn(crate::rt::Class::Housekeeping, async move {
                    log.delete_to(Offset::new(33)).await
                })
            };
            while log.0.state.borrow().segments.len() == 8 {
                rt.sleep(Duration::from_micros(50)).await;
            }
            rt.sleep(Duration::from_micros(100 * seed)).await;
            drop(deletion);
            engine.close().await.expect("close");
            let kept = rig.names(".log").await;
            assert_eq!(kept.len(), 2, "seed {seed}: {kept:?}");
        });
    }
}

/// The sync of a new log's `partition.metadata` failed, and the process was killed: the next run can read it, and must not rely on that.
#[test]
fn an_identity_whose_sync_failed_is_written_again_by_the_next_run() {
    for seed in 0..20 {
        let ((), disk) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, _) = rig.start_logs(0, config()).await;
            sim.set_faults(failing_syncs());
            let (id, name) = identity(0);
            let opened = engine.open_log(id, name, config()).await;
            assert!(opened.is_err(), "seed {seed}: it cannot be created");
        });
        let (disk, _) = sim::run(seed, disk, |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(config()).await;
            log.append(batch_at(0, 1, 700), EPOCH).expect("append");
            counted(&engine, &log, Offset::new(1)).await;
            log.0.flush_to(Offset::new(1)).await.expect("write behind");
            sim.crash()
        });
        sim::run(seed, disk, |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = rig.start(config()).await;
            assert_eq!(log.marks().log_end, Offset::new(1), "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

/// The sync of a new log's names failed, and the log is opened again in the same run, in which no start syncs what it sees.
#[test]
fn names_whose_sync_failed_are_synced_when_the_log_is_opened_again() {
    for seed in 0..20 {
        let (disk, _) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, _) = rig.start_logs(0, config()).await;
            let (id, name) = identity(0);
            sim.set_faults(failing_syncs());
            let opened = engine.open_log(id, name.clone(), config()).await;
            assert!(opened.is_err(), "seed {seed}: it cannot be created");
            sim.set_faults(Faults::default());
            let log = engine.open_log(id, name, config()).await;
            let log = log.expect("finish its creation");
            append_and_write(&log, 1).await;
            counted(&engine, &log, Offset::new(1)).await;
            let complete = log.0.shared.checkpoints.complete();
            complete.await.expect("checkpoint");
            sim.crash()
        });
        sim::run(seed, disk, move |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let (engine, log) = rig.start(config()).await;
            let found = offsets(&read_all(&log, Offset::ZERO).await);
            assert_eq!(found, [0], "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}

fn failing_names() -> Faults {
    Faults {
        name_error: 1.0,
        ..Faults::default()
    }
}

/// Its segments have other names, and nobody has made that durable: a power failure would bring them back.
#[test]
fn an_orderly_end_makes_a_deletion_durable_whose_last_sync_failed() {
    for seed in 0..20 {
        let ((disk, base), _) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let mut config = config();
            config.segment_bytes = 4000;
            let (engine, log) = rig.start(config).await;
            for n in 0..20 {
                log.append(batch_at(n, 1, 500), EPOCH).expect("append");
            }
            counted(&engine, &log, Offset::new(20)).await;
            sealed(&rig, &engine, 2).await;
            let second = rig.names(".log").await[1].clone();
            let base = second.trim_end_matches(".log").parse();
            let base = Offset::new(base.expect("a base offset"));
            log.set_high_watermark(base);
            sim.set_faults(failing_names());
            let deleted = log.delete_to(base).await;
            deleted.expect_err("the files cannot be renamed");
            sim.set_faults(failing_syncs());
            let deleted = log.delete_to(base).await;
            deleted.expect_err("their directory cannot be synced");
            sim.set_faults(Faults::default());
            engine.close().await.expect("close");
            (sim.crash(), base)
        });
        sim::run(seed, disk, move |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let first = rig.names(".log").await[0].clone();
            assert_eq!(first, format!("{base:020}.log"), "seed {seed}");
        });
    }
}

/// The power failed between the record of the log start and the first rename, and the next run has no use for the log.
#[test]
fn segments_below_the_log_start_go_though_the_log_rests() {
    for seed in 0..5 {
        let (disk, _) = sim::run(seed, Disk::default(), |rt| async move {
            let (rig, sim) = in_root(&rt).await;
            let (engine, log) = rig.start(config()).await;
            append_and_write(&log, 8).await;
            let end = Offset::new(8);
            counted(&engine, &log, end).await;
            log.set_high_watermark(end);
            log.0.state.borrow_mut().roll(end, rt.wall_clock());
            log.0.start_writer();
            sealed(&rig, &engine, 1).await;
            sim.set_faults(failing_names());
            let deleted = log.delete_to(end).await;
            deleted.expect_err("the files cannot be renamed");
            sim.crash()
        });
        sim::run(seed, disk, move |rt| async move {
            let (rig, _) = in_root(&rt).await;
            let engine = Engine::open(rt.clone(), rig.engine.clone()).await;
            let engine = engine.expect("open");
            let (id, name) = identity(0);
            let log = engine.open_log_when_used(id, name, config()).await;
            assert_eq!(log.expect("open log").marks().log_start, Offset::new(8));
            engine.sync_recovered().await.expect("sync");
            engine.start_journal().await.expect("start journal");
            engine.close().await.expect("close");
            let left = rig.names(".log").await;
            assert_eq!(left, [format!("{:020}.log", 8)], "seed {seed}");
        });
    }
}
