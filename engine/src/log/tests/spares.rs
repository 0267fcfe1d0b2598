//! Segments in the files of deleted ones.

use super::*;
use crate::{
    EngineStats,
    rt::{OpenMode, buf::ALIGNMENT},
    segment::{Seams, segment_path, spare::wipe},
    testing::for_seeds,
};

const BATCH_BYTES: usize = 500;

fn deleting() -> LogConfig {
    let mut config = config();
    config.segment_bytes = 8000;
    config.retention_bytes = Some(16_000);
    config
}

/// Appends batches of the same length, a few at a time, until it is enough. Returns the log end.
async fn fill(
    rig: &Rig,
    engine: &Engine,
    log: &Log,
    from: i64,
    is_enough: impl Fn(EngineStats) -> bool,
) -> i64 {
    let mut next = from;
    while !is_enough(engine.stats()) {
        assert!(next < from + 100_000, "{:?}", engine.stats());
        for _ in 0..4 {
            log.append(batch_at(next, 1, BATCH_BYTES), EPOCH)
                .expect("append");
            next += 1;
        }
        counted(engine, log, Offset::new(next)).await;
        log.set_high_watermark(Offset::new(next));
        rig.rt.sleep(std::time::Duration::from_millis(1)).await;
    }
    next
}

/// Every batch is the one that was appended at its offset.
async fn check_content(log: &Log) {
    let batches = read_all(log, log.marks().log_start).await;
    assert!(!batches.is_empty());
    for (header, bytes) in batches {
        let expected = batch_at(header.base_offset.get(), 1, BATCH_BYTES);
        let (_, expected) = expected.assign(header.base_offset, EPOCH);
        assert_eq!(bytes, expected, "at {}", header.base_offset);
    }
}

#[test]
fn a_log_that_deletes_goes_on_in_the_same_files() {
    on_both("spares", |rig| async move {
        let (engine, log) = rig.start(deleting()).await;
        let end = fill(&rig, &engine, &log, 0, |stats| stats.segments_recycled >= 4).await;
        assert!(log.marks().log_start > Offset::ZERO);
        assert!(rig.names(".spare").await.len() <= 1);
        check_content(&log).await;
        engine.close().await.expect("close");
        assert!(rig.names(".spare").await.is_empty(), "gone with the log");
        let (engine, log) = rig.start(deleting()).await;
        assert_eq!(log.marks().log_end, Offset::new(end));
        assert_eq!(engine.stats().recovery_segment_bytes, 0, "exact lengths");
        check_content(&log).await;
        engine.close().await.expect("close");
    });
}

#[test]
fn without_spares_files_are_removed() {
    on_both("no-spares", |mut rig| async move {
        rig.engine.spare_segments_max = 0;
        let (engine, log) = rig.start(deleting()).await;
        fill(&rig, &engine, &log, 0, |stats| stats.segments_sealed >= 8).await;
        let stats = engine.stats();
        assert_eq!((stats.segments_recycled, stats.spare_bytes), (0, 0));
        engine.close().await.expect("close");
    });
}

#[test]
fn a_cut_gives_spares_up() {
    on_both("spares-cut", |rig| async move {
        let (engine, log) = rig.start(deleting()).await;
        let end = fill(&rig, &engine, &log, 0, |stats| stats.segments_sealed >= 6).await;
        while engine.stats().spare_bytes == 0 {
            rig.rt.sleep(std::time::Duration::from_millis(1)).await;
        }
        log.append(batch_at(end, 1, BATCH_BYTES), EPOCH)
            .expect("append");
        log.truncate_to(Offset::new(end)).await.expect("truncate");
        assert_eq!(engine.stats().spare_bytes, 0);
        assert!(rig.names(".spare").await.is_empty());
        engine.close().await.expect("close");
    });
}

/// Batches of one length stand at the same positions in every segment: the most that a torn write over an old one can mix up.
#[test]
fn what_is_left_in_a_recycled_file_never_comes_back() {
    for_seeds(40, |seed| {
        let ((next, disk), _) = sim::run(seed, Disk::default(), move |rt| async move {
            let rig = Rig::new(rt, PathBuf::from("/data"));
            rig.rt
                .create_dir_all(&rig.engine.data_dir)
                .await
                .expect("create");
            let root = std::path::Path::new("/");
            rig.rt.sync_dir(root).await.expect("sync");
            let mut config = deleting();
            if seed % 2 == 1 {
                config.durability = Durability::Replicated;
            }
            let (engine, log) = rig.start(config).await;
            let next = fill(&rig, &engine, &log, 0, |stats| {
                stats.segments_sealed >= 8 + seed % 4
            })
            .await;
            for at in 0..(seed % 23) as i64 {
                log.append(batch_at(next + at, 1, BATCH_BYTES), EPOCH)
                    .expect("append");
            }
            log.0.request_flush();
            let micros = (seed * 37) % 300;
            rig.rt.sleep(std::time::Duration::from_micros(micros)).await;
            let Rt::Sim(sim) = &rig.rt else {
                panic!("this test runs in the simulator");
            };
            (next, sim.crash())
        });
        sim::run(seed, disk, move |rt| async move {
            let rig = Rig::new(rt, PathBuf::from("/data"));
            let (engine, log) = rig.start(deleting()).await;
            assert!(seed % 2 == 1 || log.marks().log_end >= Offset::new(next));
            check_content(&log).await;
            engine.close().await.expect("close");
        });
    });
}

/// Base offset of a new batch, and all the rest of an old one of the same length: passes every check unless the seam was wiped.
#[test]
fn a_torn_header_cannot_join_a_new_offset_with_an_old_batch() {
    sim::run(1, Disk::default(), |rt| async move {
        let path = segment_path(std::path::Path::new("/"), Offset::ZERO);
        for border in 1..512_usize {
            let position = ALIGNMENT + 512 - border;
            let batch = |offset: i64| {
                batch_at(offset, 1, 2000)
                    .assign(Offset::new(offset), EPOCH)
                    .1
            };
            let (old, new) = (batch(1), batch(2));
            let mut content = rt.alloc(4 * ALIGNMENT);
            content.bytes_mut()[position..position + old.len()].copy_from_slice(&old);
            let file = rt.open(&path, OpenMode::Create).await.expect("create");
            file.write_at(content, 0).await.expect("write");
            let mut seams = Seams::none();
            seams.note(position as u64);
            wipe(&rt, &file, seams.known().expect("few"))
                .await
                .expect("wipe");
            let found = file.read_at(0, 4 * ALIGNMENT).await.expect("read");
            let mut torn = found.to_vec();
            let written = border.min(new.len());
            torn[position..position + written].copy_from_slice(&new[..written]);
            let header = BatchHeader::parse(&torn[position..]);
            let passes = header.is_ok_and(|header| {
                let end = (position + header.total_len).min(torn.len());
                header.base_offset == Offset::new(2)
                    && header.check_crc(&torn[position..end]).is_ok()
            });
            assert!(!passes, "a border {border} bytes behind the beginning");
            file.close().await.expect("close");
            rt.remove_file(&path).await.expect("remove");
        }
    });
}
