//! Logs at rest: what they know without their segments, what wakes them, and when they go back.

use std::time::Duration;

use super::*;

const LOGS: i32 = 3;

/// Starts an engine whose logs are opened when they are used.
async fn start(rig: &Rig, config: LogConfig) -> (Engine, Vec<Log>) {
    let engine = Engine::open(rig.rt.clone(), rig.engine.clone())
        .await
        .expect("open");
    let mut logs = Vec::new();
    for partition in 0..LOGS {
        let (id, name) = identity(partition);
        let log = engine.open_log_when_used(id, name, config.clone()).await;
        logs.push(log.expect("open log"));
    }
    engine.sync_recovered().await.expect("sync");
    engine.start_journal().await.expect("start journal");
    (engine, logs)
}

/// Appends as a broker does, which waits for room.
async fn append(engine: &Engine, log: &Log, batch: ValidBatch) -> Appended {
    loop {
        let room = engine.room();
        let more = room.listen();
        if log.has_room(batch.len()) {
            return log.append(batch, EPOCH).expect("append");
        }
        more.await;
    }
}

/// Three logs with a batch of `1 + partition` records each, closed in order.
async fn closed_logs(rig: &Rig) {
    let (engine, logs) = start(rig, config()).await;
    for (n, log) in logs.iter().enumerate() {
        assert!(!is_asleep(log), "a new log is awake");
        append(&engine, log, batch_at(7, 1 + n, 100)).await;
        counted(&engine, log, Offset::new(1 + n as i64)).await;
        log.set_high_watermark(Offset::new(1 + n as i64));
    }
    engine.close().await.expect("close");
}

/// The engine is gone without an orderly end, as after SIGKILL: the disk keeps all that was written.
async fn kill(engine: Engine, logs: Vec<Log>) {
    engine.0.stop_background().await;
    drop((engine, logs));
}

#[test]
fn after_an_orderly_end_all_logs_rest_and_know_their_marks() {
    on_both("rest-clean", |rig| async move {
        closed_logs(&rig).await;
        let (engine, logs) = start(&rig, config()).await;
        for (n, log) in logs.iter().enumerate() {
            let end = Offset::new(1 + n as i64);
            let marks = log.marks();
            assert_eq!((marks.log_start, marks.log_end), (Offset::ZERO, end));
            assert_eq!((marks.counted_end, marks.high_watermark), (end, end));
            assert_eq!(log.latest_epoch(), Some(EPOCH));
            assert_eq!(log.end_of_epoch(EPOCH), Some((EPOCH, end)));
            let at_end = log.read(end, everything(log)).await.expect("read");
            assert_eq!(at_end.next, None);
            assert!(log.size_bytes().await.expect("size") > 0);
            assert!(is_asleep(log), "none of this needs the segments");
        }
        assert_eq!(offsets(&read_all(&logs[0], Offset::ZERO).await), [0]);
        assert!(!is_asleep(&logs[0]) && is_asleep(&logs[1]));
        assert!(matches!(
            logs[1].append(batch_at(9, 1, 10), EPOCH),
            Err(AppendError::Busy)
        ));
        let appended = append(&engine, &logs[1], batch_at(9, 1, 10)).await;
        assert_eq!(appended.base_offset, Offset::new(2));
        counted(&engine, &logs[1], Offset::new(3)).await;
        assert_eq!(offsets(&read_all(&logs[1], Offset::ZERO).await), [0, 2]);
        engine.close().await.expect("close");
    });
}

#[test]
fn after_a_kill_what_was_not_appended_to_rests_and_the_rest_is_recovered() {
    on_both("rest-kill", |rig| async move {
        closed_logs(&rig).await;
        let (engine, logs) = start(&rig, config()).await;
        append(&engine, &logs[1], batch_at(9, 4, 10)).await;
        counted(&engine, &logs[1], Offset::new(6)).await;
        kill(engine, logs).await;
        let (engine, logs) = start(&rig, config()).await;
        let asleep: Vec<bool> = logs.iter().map(is_asleep).collect();
        assert_eq!(asleep, [true, false, true]);
        assert_eq!(offsets(&read_all(&logs[1], Offset::ZERO).await), [0, 2]);
        assert_eq!(logs[1].marks().log_end, Offset::new(6));
        assert_eq!(offsets(&read_all(&logs[2], Offset::ZERO).await), [0]);
        engine.close().await.expect("close");
    });
}

#[test]
fn an_idle_log_goes_to_rest_and_takes_appends_again() {
    on_both("rest-idle", |mut rig| async move {
        rig.engine.checkpoint_interval_ms = 20;
        rig.engine.retention_check_interval_ms = 50;
        closed_logs(&rig).await;
        let (engine, logs) = start(&rig, config()).await;
        let log = &logs[0];
        for end in [11, 21] {
            for _ in 0..10 {
                append(&engine, log, batch_at(end, 1, 700)).await;
            }
            counted(&engine, log, Offset::new(end)).await;
            while !is_asleep(log) {
                rig.rt.sleep(Duration::from_millis(5)).await;
            }
            let bytes: usize = read_all_len(&rig).await;
            let known = log.0.state.borrow().checkpoint.clone().expect("a record");
            assert_eq!(known.recovery_offset, Offset::new(end));
            assert_eq!(bytes as u64, known.recovery_position, "cut to its length");
        }
        kill(engine, logs).await;
        let (engine, logs) = start(&rig, config()).await;
        assert!(logs.iter().all(is_asleep), "nothing happened since");
        assert_eq!(
            offsets(&read_all(&logs[0], Offset::ZERO).await),
            Vec::from_iter(0..21)
        );
        engine.close().await.expect("close");
    });
}

async fn read_all_len(rig: &Rig) -> usize {
    usize::try_from(file_len(rig, 0).await).expect("small")
}

#[test]
fn a_log_at_rest_is_configured_deleted_from_and_deleted() {
    on_both("rest-change", |rig| async move {
        closed_logs(&rig).await;
        let mut changed = config();
        changed.durability = Durability::Replicated;
        let (engine, logs) = start(&rig, config()).await;
        logs[0].configure(changed.clone());
        assert!(is_asleep(&logs[0]));
        let log_start = logs[2].delete_to(Offset::new(3)).await.expect("delete");
        assert_eq!(log_start, Offset::new(3));
        let (id, name) = (logs[1].id(), logs[1].name());
        engine.delete_log(id, name).await.expect("delete");
        let dir = rig.engine.data_dir.join(logs[1].name().to_string());
        assert!(!rig.rt.exists(&dir).await, "its directory is gone");
        assert!(
            logs[1]
                .read(Offset::ZERO, everything(&logs[1]))
                .await
                .is_err()
        );
        append(&engine, &logs[0], batch_at(9, 1, 10)).await;
        assert_eq!(
            logs[0].marks().counted_end,
            Offset::new(2),
            "not journalled"
        );
        engine.close().await.expect("close");

        let (engine, logs) = start(&rig, config()).await;
        assert_eq!(logs[0].marks().log_end, Offset::new(2));
        assert_eq!(logs[2].marks().log_start, Offset::new(3));
        engine.close().await.expect("close");
    });
}

#[test]
fn a_segment_that_changed_takes_the_log_offline_until_it_is_right_again() {
    on_both("rest-changed", |rig| async move {
        closed_logs(&rig).await;
        let (_engine, logs) = start(&rig, config()).await;
        let path = rig.log_dir().join("00000000000000000000.log");
        let file = rig.rt.open(&path, crate::rt::OpenMode::ReadWrite).await;
        let file = file.expect("open");
        let len = file.len().await.expect("len");
        file.truncate(len + 1).await.expect("change it");
        file.sync().await.expect("sync");
        let read = logs[0].read(Offset::ZERO, everything(&logs[0])).await;
        assert!(matches!(read, Err(ReadError::Fault(_))), "{read:?}");
        assert!(logs[0].fault().is_some());
        assert_eq!(file_len(&rig, 0).await, len + 1, "left as it was found");
        file.truncate(len).await.expect("put it right");
        while logs[0].fault().is_some() {
            rig.rt.sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(offsets(&read_all(&logs[0], Offset::ZERO).await), [0]);
        assert_eq!(offsets(&read_all(&logs[1], Offset::ZERO).await), [0]);
    });
}

#[test]
fn a_log_that_was_not_opened_is_deleted_if_its_directory_is_its_own() {
    on_both("rest-unopened", |rig| async move {
        closed_logs(&rig).await;
        let engine = Engine::open(rig.rt.clone(), rig.engine.clone())
            .await
            .expect("open");
        let (id, name) = identity(0);
        let other = LogId {
            topic_id: TopicId([9; 16]),
            ..id
        };
        let dir = rig.engine.data_dir.join(name.to_string());
        engine
            .delete_log(other, &name)
            .await
            .expect("nothing to do");
        assert!(rig.rt.exists(&dir).await, "it belongs to another");
        engine.delete_log(id, &name).await.expect("delete");
        assert!(!rig.rt.exists(&dir).await);
        engine.delete_log(id, &name).await.expect("nothing is left");
    });
}

#[test]
fn a_log_at_rest_is_small() {
    on_both("rest-small", |rig| async move {
        closed_logs(&rig).await;
        let (_engine, logs) = start(&rig, config()).await;
        let log = &logs[0].0;
        let state = log.state.borrow();
        assert_eq!(state.segments.len(), 1);
        assert!(state.segments[0].live_index().is_none());
        let fixed = size_of_val(&**log) + size_of::<crate::checkpoint::LogCheckpoint>();
        assert!(fixed < 2048, "{fixed} bytes");
    });
}

#[test]
fn a_log_whose_last_segment_is_empty_rests_and_is_found_again() {
    on_both("rest-rolled", |mut rig| async move {
        rig.engine.checkpoint_interval_ms = 20;
        rig.engine.retention_check_interval_ms = 50;
        closed_logs(&rig).await;
        let aged = LogConfig {
            retention_ms: Some(1000),
            ..config()
        };
        // The first look rolls what is over age, the next one deletes it: an end in order may come between the two, and after them.
        let new = "00000000000000000001.log";
        for expected in [vec!["00000000000000000000.log", new], vec![new]] {
            let (engine, logs) = start(&rig, aged.clone()).await;
            for log in &logs {
                log.set_high_watermark(log.marks().log_end);
            }
            while rig.names(".log").await.len() > expected.len()
                || rig.names(".log").await.last().map(String::as_str) != Some(new)
            {
                rig.rt.sleep(Duration::from_millis(5)).await;
            }
            engine.close().await.expect("close");
            let (engine, logs) = start(&rig, config()).await;
            assert!(logs.iter().all(is_asleep), "{expected:?}");
            append(&engine, &logs[1], batch_at(9, 1, 10)).await;
            engine.close().await.expect("close");
        }
        let (engine, logs) = start(&rig, aged).await;
        logs[0].delete_to(Offset::ZERO).await.expect("wakes it");
        while !is_asleep(&logs[0]) {
            rig.rt.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs[0].marks().log_start, Offset::new(1));
        assert!(
            rig.names(".deleted").await.is_empty(),
            "an end in order leaves none"
        );
        append(&engine, &logs[0], batch_at(9, 1, 10)).await;
        counted(&engine, &logs[0], Offset::new(2)).await;
        engine.close().await.expect("close");
    });
}

#[test]
fn retention_reaches_logs_at_rest_and_wakes_only_those_it_has_to() {
    on_both("rest-retention", |mut rig| async move {
        rig.engine.retention_check_interval_ms = 50;
        // Only size rolls.
        let large = LogConfig {
            segment_ms: u64::MAX,
            ..config()
        };
        let small = LogConfig {
            segment_bytes: 2000,
            ..large.clone()
        };
        // Of the same size: one in a single segment, two in several, of which the last is younger.
        let (engine, logs) = start(&rig, large).await;
        logs[1].configure(small.clone());
        logs[2].configure(small.clone());
        let now = rig.rt.wall_clock().0;
        for (n, log) in logs.iter().enumerate() {
            let first = if n == 2 { now } else { 1000 };
            for at in [first, first, now, now] {
                append(&engine, log, batch_at(at, 1, 1500)).await;
            }
            counted(&engine, log, Offset::new(4)).await;
            log.set_high_watermark(Offset::new(4));
        }
        engine.close().await.expect("close");

        let aged = LogConfig {
            retention_ms: Some(3_600_000),
            ..small.clone()
        };
        let (engine, logs) = start(&rig, aged).await;
        while logs[1].marks().log_start < Offset::new(2) {
            rig.rt.sleep(Duration::from_millis(5)).await;
        }
        while !is_asleep(&logs[1]) {
            rig.rt.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs[1].marks().log_start, Offset::new(2));
        for n in [0, 2] {
            assert!(is_asleep(&logs[n]));
            assert!(!logs[n].0.state.borrow().used, "it was not woken");
            assert_eq!(logs[n].marks().log_start, Offset::ZERO);
        }
        let size = logs[0].size_bytes().await.expect("size");
        assert_eq!(logs[1].size_bytes().await.expect("size"), size / 2);

        let shrunk = LogConfig {
            retention_bytes: Some(size / 4),
            ..small
        };
        logs.iter().for_each(|log| log.configure(shrunk.clone()));
        while logs[2].marks().log_start < Offset::new(3) {
            rig.rt.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs[1].marks().log_start, Offset::new(3));
        assert!(is_asleep(&logs[0]), "its only segment does not go by size");
        engine.close().await.expect("close");
    });
}

#[test]
fn a_log_that_cannot_be_woken_is_recovered_by_the_next_start() {
    on_both("rest-restart", |rig| async move {
        closed_logs(&rig).await;
        let (engine, logs) = start(&rig, config()).await;
        let path = rig.log_dir().join("00000000000000000000.log");
        let file = rig.rt.open(&path, crate::rt::OpenMode::ReadWrite).await;
        let file = file.expect("open");
        file.truncate(100).await.expect("tear it");
        file.sync().await.expect("sync");
        let read = logs[0].read(Offset::ZERO, everything(&logs[0])).await;
        assert!(matches!(read, Err(ReadError::Fault(_))), "{read:?}");
        engine.close().await.expect("close");
        let (engine, logs) = start(&rig, config()).await;
        assert_eq!(
            logs[0].marks().log_end,
            Offset::new(1),
            "nothing comes twice"
        );
        let appended = append(&engine, &logs[0], batch_at(9, 1, 10)).await;
        assert_eq!(appended.base_offset, Offset::new(1));
        engine.close().await.expect("close");
    });
}

/// Between the record of a new log start and the removal of what lies below it, the log is idle and as its record says.
#[test]
fn a_log_does_not_go_to_rest_before_what_was_deleted_is_removed() {
    for seed in 0..40 {
        sim::run(seed, Disk::default(), move |rt| async move {
            let rig = Rig::new(rt.clone(), PathBuf::from("/"));
            let mut config = config();
            config.segment_bytes = 4000;
            let (engine, logs) = start(&rig, config).await;
            let log = &logs[0];
            for n in 0..20 {
                append(&engine, log, batch_at(n, 1, 500)).await;
            }
            counted(&engine, log, Offset::new(20)).await;
            sealed(&rig, &engine, 2).await;
            log.set_high_watermark(Offset::new(20));
            let deleting = log.clone();
            let deletion = rt.spawn(crate::rt::Class::Foreground, async move {
                deleting.delete_to(Offset::new(20)).await
            });
            for _ in 0..2000 {
                log.0.rest_again().await.expect("rest");
                rt.yield_now().await;
            }
            deletion.await.expect("delete");
            assert_eq!(rig.names(".log").await.len(), 1, "seed {seed}");
            engine.close().await.expect("close");
        });
    }
}
