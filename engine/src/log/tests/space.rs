//! A disk that fills: client data is refused in time, everything else goes on, and writing resumes by itself.

use std::time::Duration;

use super::*;
use crate::rt::durable;

const MIB: u64 = 1 << 20;

/// Runs `test` in the simulator with an engine on a disk of 24 MiB, 4 of them reserve, and a log of client data, an internal one, and
/// one of metadata.
fn check<Running>(test: impl Fn(Rig, Engine, [Log; 3]) -> Running + Clone + 'static)
where
    Running: Future<Output = ()> + 'static,
{
    for seed in 0..4 {
        let test = test.clone();
        sim::run(seed, Disk::empty(24 * MIB), move |rt| async move {
            let dir = PathBuf::from("/data");
            rt.create_dir_all(&dir).await.expect("create");
            let mut rig = Rig::new(rt, dir);
            rig.engine.space.reserve_bytes = Some(4 * MIB);
            let (engine, logs) = rig.start_logs(3, config()).await;
            for (log, space) in [(1, SpaceUse::Internal), (2, SpaceUse::Metadata)] {
                logs[log].configure(LogConfig { space, ..config() });
            }
            // The journal is written once in advance.
            rig.rt.sleep(Duration::from_secs(1)).await;
            let logs = logs.try_into().ok().expect("three logs");
            test(rig, engine, logs).await;
        });
    }
}

async fn available(rig: &Rig) -> u64 {
    let space = rig.rt.disk_space(&rig.engine.data_dir).await;
    space.expect("space").available_bytes
}

/// A file of somebody else that leaves so much of the disk.
async fn fill(rig: &Rig, left: u64) -> PathBuf {
    let path = rig.engine.data_dir.join("not ours");
    let bytes = available(rig).await - left;
    durable::replace_file(&rig.rt, &path, &vec![1; bytes as usize])
        .await
        .expect("fill");
    path
}

#[test]
fn a_producer_that_fills_the_disk_is_refused_before_it_is_full() {
    check(|rig, engine, [data, internal, metadata]| async move {
        let mut acked = Offset::ZERO;
        let refused = loop {
            match data.append(batch_at(acked.get(), 1, 100_000), EPOCH) {
                Ok(appended) => acked = appended.last_offset.plus(1),
                Err(AppendError::Busy) => {
                    engine.room().listen().await;
                    continue;
                }
                Err(refused) => break refused,
            }
            rig.rt.sleep(Duration::from_micros(300)).await;
        };
        assert!(matches!(refused, AppendError::DiskLow), "{refused:?}");
        assert!(engine.stats().disk_low);
        // What was taken is kept, and leaves the reserve alone.
        counted(&engine, &data, acked).await;
        data.0
            .shared
            .checkpoints
            .complete()
            .await
            .expect("checkpoint");
        let left = available(&rig).await;
        assert!((7 * MIB / 2..8 * MIB).contains(&left), "{left} bytes left");
        for log in [&internal, &metadata] {
            log.append(batch_at(0, 1, 100), EPOCH).expect("goes on");
            counted(&engine, log, Offset::new(1)).await;
        }
        assert_eq!(
            read_all(&data, Offset::ZERO).await.len() as i64,
            acked.get()
        );
        engine.close().await.expect("close");
    });
}

#[test]
fn deleting_records_makes_room_at_once_and_writing_resumes() {
    check(|rig, engine, [data, ..]| async move {
        data.configure(LogConfig {
            segment_bytes: MIB,
            ..config()
        });
        let mut end = Offset::ZERO;
        while end < Offset::new(50) {
            end = data
                .append(batch_at(end.get(), 1, 100_000), EPOCH)
                .expect("append")
                .last_offset
                .plus(1);
            counted(&engine, &data, end).await;
        }
        data.set_high_watermark(end);
        let theirs = fill(&rig, 4 * MIB + 1000).await;
        let began = rig.rt.now();
        while data.append(batch_at(0, 1, 900), EPOCH).is_ok() {
            rig.rt.sleep(Duration::from_millis(1)).await;
        }
        let passed = rig.rt.now().since(began);
        assert!(
            passed < Duration::from_millis(100),
            "refused after {passed:?}"
        );
        assert_eq!(data.delete_to(end).await.expect("delete"), end);
        let began = rig.rt.now();
        while data.append(batch_at(0, 1, 900), EPOCH).is_err() {
            rig.rt.sleep(Duration::from_millis(1)).await;
        }
        let passed = rig.rt.now().since(began);
        assert!(passed < Duration::from_secs(1), "resumed after {passed:?}");
        assert!(rig.rt.exists(&theirs).await);
        assert!(!engine.stats().disk_low);
        engine.close().await.expect("close");
    });
}

#[test]
fn what_others_take_is_seen_and_internal_logs_have_a_reserve_of_their_own() {
    check(|rig, engine, [data, internal, metadata]| async move {
        let theirs = fill(&rig, 3 * MIB / 2).await;
        // Nothing was appended for a long time.
        rig.rt.sleep(Duration::from_secs(30)).await;
        assert!(engine.stats().disk_low);
        let refused = data.append(batch_at(0, 1, 100), EPOCH);
        assert!(matches!(refused, Err(AppendError::DiskLow)), "{refused:?}");
        internal
            .append(batch_at(0, 1, 100_000), EPOCH)
            .expect("goes on");
        assert!(internal.has_space() && metadata.has_space() && !data.has_space());
        internal
            .append(batch_at(0, 20, 49_000), EPOCH)
            .expect("what was decided is written");
        assert!(metadata.has_space() && !internal.has_space());
        metadata
            .append(batch_at(0, 20, 49_000), EPOCH)
            .expect("goes on");
        rig.rt.remove_file(&theirs).await.expect("remove");
        // Nobody tries, and yet the operator learns of it.
        rig.rt.sleep(Duration::from_secs(1)).await;
        assert!(!engine.stats().disk_low);
        data.append(batch_at(0, 1, 100), EPOCH).expect("resumed");
        engine.close().await.expect("close");
    });
}
