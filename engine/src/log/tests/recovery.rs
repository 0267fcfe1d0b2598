//! Recovery, row by row: what segment and journal hold is arranged byte by byte, then the log is opened.

use std::{path::Path, time::Duration};

use super::*;
use crate::{
    checkpoint::{Conclusion, Writer, format::PART_HEADER_LEN},
    log::shared::CHECKPOINT_BYTES_MIN,
    rt::{File, OpenMode, buf::ALIGNMENT},
    segment::{FileKind, writer::patch},
};

/// A stopped run: six batches of one record, the first two synced by a checkpoint, all of them committed to the journal. The
/// segment's file holds as many as were written behind.
async fn stopped(rig: &Rig) -> Vec<Bytes> {
    let (engine, log) = rig.start(config()).await;
    for n in 0..2 {
        log.append(batch_at(n, 1, 700), EPOCH).expect("append");
    }
    counted(&engine, &log, Offset::new(2)).await;
    log.0
        .shared
        .checkpoints
        .complete()
        .await
        .expect("checkpoint");
    for n in 2..6 {
        log.append(batch_at(n, 1, 700), EPOCH).expect("append");
    }
    counted(&engine, &log, Offset::new(6)).await;
    let batches = read_all(&log, Offset::ZERO).await;
    engine.0.stop_background().await;
    batches.into_iter().map(|(_, bytes)| bytes).collect()
}

/// What stands in the segment's file where batches 2 to 5 belong.
#[derive(Clone, Copy, Debug)]
enum Part {
    Nothing,
    Right,
    /// One bit is wrong.
    Rotten,
    /// Another batch with the right offset and CRC.
    Different,
    /// Another batch with the offset before.
    WrongOffset,
    OlderEpoch,
}

async fn segment_file(rig: &Rig) -> File {
    let path = rig.log_dir().join("00000000000000000000.log");
    rig.rt
        .open(&path, OpenMode::ReadWrite)
        .await
        .expect("open the segment")
}

async fn arrange(rig: &Rig, batches: &[Bytes], parts: [Part; 4]) {
    let file = segment_file(rig).await;
    let one = batches[0].len();
    file.truncate((2 * one) as u64).await.expect("truncate");
    for (at, part) in (2..).zip(parts) {
        let offset = Offset::new(at as i64);
        let bytes = match part {
            Part::Nothing => continue,
            Part::Right => batches[at].to_vec(),
            Part::Rotten => {
                let mut bytes = batches[at].to_vec();
                bytes[one / 2] ^= 4;
                bytes
            }
            Part::Different => batch_at(99, 1, 700).assign(offset, EPOCH).1.to_vec(),
            Part::WrongOffset => {
                let before = Offset::new(at as i64 - 1);
                batch_at(99, 1, 700).assign(before, EPOCH).1.to_vec()
            }
            Part::OlderEpoch => {
                let older = LeaderEpoch(EPOCH.0 - 1);
                batch_at(99, 1, 700).assign(offset, older).1.to_vec()
            }
        };
        let position = (at * one) as u64;
        patch(&rig.rt, &file, position, &bytes)
            .await
            .expect("write");
    }
    file.sync().await.expect("sync");
}

/// Whether the journal of the run is there when the log is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalIs {
    There,
    Gone,
}

async fn check(rig: &Rig, parts: [Part; 4], journal: JournalIs, end: i64, kept: &[i64]) {
    let case = format!("{parts:?}, journal {journal:?}");
    let mut rig = rig.clone();
    let unique = rig.rt.random_u64();
    rig.engine.data_dir = rig.engine.data_dir.join(format!("{unique:x}"));
    let created = rig.rt.create_dir_all(&rig.engine.data_dir).await;
    created.expect("create a data directory");
    let rig = &rig;
    let batches = stopped(rig).await;
    arrange(rig, &batches, parts).await;
    if journal == JournalIs::Gone {
        // Its other files have not been used yet.
        let path = rig.engine.data_dir.join("journal/0/0.journal");
        let file = rig.rt.open(&path, OpenMode::ReadWrite).await;
        let file = file.expect("open the journal");
        file.truncate(0).await.expect("empty the journal");
    }
    // Twice: what recovery makes of it is found as such by the next one.
    for round in 0..2 {
        let (engine, log) = rig.start(config()).await;
        assert_eq!(log.marks().log_end.get(), end, "{case}, round {round}");
        assert_eq!(log.marks().counted_end.get(), end, "{case}, round {round}");
        let found = read_all(&log, Offset::ZERO).await;
        assert_eq!(found.len() as i64, end, "{case}");
        for (at, (_, bytes)) in found.iter().enumerate() {
            let is_original = *bytes == batches[at];
            assert_eq!(
                is_original,
                kept.contains(&(at as i64)),
                "{case}: batch {at}"
            );
        }
        engine.0.stop_background().await;
    }
}

#[test]
fn every_row_on_a_real_file() {
    use JournalIs::{Gone, There};
    use Part::{Different, Nothing, OlderEpoch, Right, Rotten, WrongOffset};
    on_both("rows", |rig| async move {
        const ALL: [i64; 6] = [0, 1, 2, 3, 4, 5];
        // The segment has all, and the journal the same.
        check(&rig, [Right, Right, Right, Right], There, 6, &ALL).await;
        // The segment has all, and the journal nothing.
        check(&rig, [Right, Right, Right, Right], Gone, 6, &ALL).await;
        // The journal has what is missing, at the end and in the middle.
        check(&rig, [Nothing, Nothing, Nothing, Nothing], There, 6, &ALL).await;
        check(&rig, [Right, Right, Nothing, Nothing], There, 6, &ALL).await;
        check(&rig, [Nothing, Right, Right, Right], There, 6, &ALL).await;
        check(&rig, [Right, Rotten, Right, Right], There, 6, &ALL).await;
        check(&rig, [Right, Right, Right, Rotten], There, 6, &ALL).await;
        // The journal wins over another batch in the segment.
        check(&rig, [Right, Different, Right, Right], There, 6, &ALL).await;
        check(&rig, [Right, Right, WrongOffset, Right], There, 6, &ALL).await;
        check(&rig, [Right, OlderEpoch, Right, Nothing], There, 6, &ALL).await;
        // Without a journal the first gap ends the log.
        check(&rig, [Nothing, Nothing, Nothing, Nothing], Gone, 2, &[0, 1]).await;
        check(&rig, [Right, Nothing, Right, Right], Gone, 3, &[0, 1, 2]).await;
        check(&rig, [Rotten, Right, Right, Right], Gone, 2, &[0, 1]).await;
        check(
            &rig,
            [Right, Right, WrongOffset, Right],
            Gone,
            4,
            &[0, 1, 2, 3],
        )
        .await;
        check(&rig, [Right, OlderEpoch, Right, Right], Gone, 3, &[0, 1, 2]).await;
        // What is whole and fits is kept, whoever wrote it.
        check(
            &rig,
            [Right, Different, Right, Nothing],
            Gone,
            5,
            &[0, 1, 2, 4],
        )
        .await;
    });
}

#[test]
fn without_a_checkpoint_everything_is_walked_and_nothing_lost() {
    on_both("no-checkpoint", |rig| async move {
        let mut config = config();
        config.segment_bytes = 4000;
        let (engine, log) = rig.start(config.clone()).await;
        for n in 0..30 {
            log.append(from_producer(5, 2 * n, 2), LeaderEpoch(n / 7))
                .expect("append");
        }
        counted(&engine, &log, Offset::new(60)).await;
        engine.close().await.expect("close");
        let before = read_all(&log, Offset::ZERO).await;
        let path = rig.engine.data_dir.join("checkpoint").join("shard-0");
        rig.rt
            .remove_file(&path)
            .await
            .expect("remove the checkpoint");
        for name in rig.names(".fbi").await {
            let path = rig.log_dir().join(name);
            rig.rt.remove_file(&path).await.expect("remove an index");
        }
        let (engine, log) = rig.start(config).await;
        assert_eq!(read_all(&log, Offset::ZERO).await, before);
        assert_eq!(
            log.end_of_epoch(LeaderEpoch(2)),
            Some((LeaderEpoch(2), Offset::new(42)))
        );
        let producers = log.producers();
        assert_eq!((producers[0].2, producers[0].3), (59, Offset::new(59)));
        engine.close().await.expect("close");
    });
}

/// Found by fuzzing: the first start made an empty log, and the next one put the journal's batches into it.
#[test]
fn a_log_of_which_only_the_journal_is_left_is_put_back_at_once() {
    on_both("only-journal", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..6 {
            log.append(batch_at(n, 1, 700), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(6)).await;
        let before = read_all(&log, Offset::ZERO).await;
        engine.0.stop_background().await;
        drop((engine, log));
        for name in rig.names(".log").await {
            let path = rig.log_dir().join(name);
            rig.rt.remove_file(&path).await.expect("remove a segment");
        }
        let path = rig.engine.data_dir.join("checkpoint").join("shard-0");
        if rig.rt.exists(&path).await {
            rig.rt.remove_file(&path).await.expect("remove");
        }
        let (engine, log) = rig.start(config()).await;
        assert_eq!(read_all(&log, Offset::ZERO).await, before);
        engine.close().await.expect("close");
    });
}

#[test]
fn a_directory_of_another_topic_is_refused_and_leftovers_go() {
    on_both("identity", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        log.append(batch_at(0, 1, 10), EPOCH).expect("append");
        counted(&engine, &log, Offset::new(1)).await;
        engine.close().await.expect("close");
        for name in [
            "00000000000000000007.log.deleted",
            "00000000000000000000.fbi.tmp",
            "notes.txt",
        ] {
            let path = rig.log_dir().join(name);
            let file = rig.rt.open(&path, OpenMode::Create).await.expect("create");
            file.write_at(rig.rt.alloc(ALIGNMENT), 0)
                .await
                .expect("write");
        }
        let engine = Engine::open(rig.rt.clone(), rig.engine.clone())
            .await
            .expect("open");
        let (id, name) = identity(0);
        let other = LogId {
            topic_id: TopicId([9; 16]),
            ..id
        };
        let refused = engine.open_log(other, name.clone(), config()).await;
        let expected = id.topic_id.to_string();
        assert!(
            matches!(&refused, Err(OpenError::WrongIdentity { found, .. }) if *found == expected)
        );
        let log = engine.open_log(id, name, config()).await.expect("open");
        assert_eq!(log.marks().log_end, Offset::new(1));
        let listed = rig.rt.list_dir(&rig.log_dir()).await.expect("list");
        let kinds = listed.iter().map(|entry| FileKind::of(&entry.name));
        let leftover = |kind: &FileKind| matches!(kind, FileKind::Deleted | FileKind::Temporary);
        assert_eq!(kinds.filter(leftover).count(), 0);
        assert!(
            listed.iter().any(|entry| entry.name == "notes.txt"),
            "not ours, not touched"
        );
    });
}

#[test]
fn a_rotten_batch_is_reported_and_the_rest_stays_readable() {
    // In its records, its epoch and its offset; the CRC covers the first of these only.
    for (at, byte) in [(100, 0xaa), (15, 7), (7, 9)] {
        rotten_batch(at, byte);
    }
}

fn rotten_batch(at: u64, byte: u8) {
    on_both("rotten", move |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..6 {
            log.append(batch_at(n, 1, 700), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(6)).await;
        engine.close().await.expect("close");
        let one = batch_at(0, 1, 700).len() as u64;
        let file = segment_file(&rig).await;
        let exact = file.len().await.expect("length");
        patch(&rig.rt, &file, 3 * one + at, &[byte])
            .await
            .expect("write");
        file.truncate(exact).await.expect("truncate");
        let (engine, log) = rig.start(config()).await;
        assert_eq!(
            log.marks().log_end,
            Offset::new(6),
            "what was acked is not cut"
        );
        let before = log
            .read(Offset::ZERO, everything(&log))
            .await
            .expect("read");
        assert_eq!(before.next, Some(Offset::new(3)));
        let at = log.read(Offset::new(3), everything(&log)).await;
        assert!(
            matches!(at, Err(ReadError::Corrupt(Fault::Corrupt { .. }))),
            "{at:?}"
        );
        let behind = read_all(&log, Offset::new(4)).await;
        assert_eq!(offsets(&behind), [4, 5], "a consumer can go on behind it");
        assert_eq!(engine.stats().corrupt_batches, 1, "reported once");
        assert!(log.fault().is_none(), "the log stays online");
        log.append(batch_at(0, 1, 10), EPOCH).expect("append");
        engine.close().await.expect("close");
    });
}

#[test]
fn behind_a_lost_header_the_next_entry_of_the_index_is_where_reading_goes_on() {
    on_both("headerless", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..10 {
            log.append(batch_at(n, 1, 30_000), EPOCH).expect("append");
        }
        counted(&engine, &log, Offset::new(10)).await;
        engine.close().await.expect("close");
        let one = batch_at(0, 1, 30_000).len() as u64;
        let file = segment_file(&rig).await;
        let exact = file.len().await.expect("length");
        // Magic and length of batch 3; there are entries for 3 and 6.
        patch(&rig.rt, &file, 3 * one + 8, &[0xff; 9])
            .await
            .expect("write");
        file.truncate(exact).await.expect("truncate");
        let (engine, log) = rig.start(config()).await;
        for lost in 3..6 {
            let at = log.read(Offset::new(lost), everything(&log)).await;
            assert!(matches!(at, Err(ReadError::Corrupt(_))), "{lost}: {at:?}");
        }
        assert_eq!(offsets(&read_all(&log, Offset::new(6)).await), [6, 7, 8, 9]);
        assert_eq!(engine.stats().corrupt_batches, 1, "reported once");
        engine.close().await.expect("close");
    });
}

/// Much is appended, by journal and past it, and the process is killed: the next start reads what the last checkpoint may not have covered, and
/// no more. Two shards, so that neither reads what is the other's.
#[test]
fn a_start_reads_only_what_may_be_dirty() {
    const ROUNDS: i64 = 48;
    let ((logged, bound), disk) = sim::run(7, Disk::default(), |rt| async move {
        let rigs = two_shards(&rt).await;
        let engines = start_shards(&rigs).await;
        let mut logged = 0;
        for round in 0..ROUNDS {
            for (engine, log) in &engines {
                // A burst goes past the journal, the rest through it.
                for n in 0..16 {
                    while !log.has_room(70_000) {
                        rt.sleep(Duration::from_millis(1)).await;
                    }
                    log.append(batch_at(n, 1, 60_000), EPOCH).expect("append");
                    logged += 60_000;
                }
                counted(engine, log, log.marks().log_end).await;
                for _ in 0..8 {
                    log.append(batch_at(round, 1, 30_000), EPOCH)
                        .expect("append");
                    counted(engine, log, log.marks().log_end).await;
                    logged += 30_000;
                }
            }
        }
        let stats = engines.iter().map(|(engine, _)| engine.stats());
        assert!(stats.clone().all(|stats| stats.checkpoints > 1));
        assert!(stats.clone().all(|stats| stats.bypass_bytes > 1 << 20));
        assert!(stats.clone().all(|stats| stats.journal_bytes > 1 << 20));
        // What came after the last checkpoint is read twice at most: in the journal and in the segment.
        (logged, 2 * (CHECKPOINT_BYTES_MIN + (1 << 20)))
    });
    let (read, _) = sim::run(8, disk, |rt| async move {
        let rigs = two_shards(&rt).await;
        let engines = start_shards(&rigs).await;
        let stats = engines.iter().map(|(engine, _)| engine.stats());
        let read = stats.map(|stats| {
            stats.recovery_segment_bytes
                + stats.recovery_journal_bytes
                + stats.recovery_checkpoint_bytes
        });
        let read: Vec<u64> = read.collect();
        for (_, log) in &engines {
            assert_eq!(log.marks().log_end.get(), ROUNDS * 24);
        }
        read
    });
    assert!(logged > 3 * bound, "{logged} bytes were logged");
    for read in read {
        assert!(
            read > 0 && read < bound,
            "{read} of {logged} bytes were read"
        );
    }
}

/// After an orderly end there is nothing to read but where things are.
#[test]
fn after_an_orderly_end_next_to_nothing_is_read() {
    on_both("orderly", |rig| async move {
        let (engine, log) = rig.start(config()).await;
        for n in 0..400 {
            log.append(batch_at(n, 1, 10_000), EPOCH).expect("append");
            counted(&engine, &log, Offset::new(n + 1)).await;
        }
        engine.close().await.expect("close");
        let (engine, log) = rig.start(config()).await;
        assert_eq!(log.marks().log_end, Offset::new(400));
        let stats = engine.stats();
        assert_eq!(
            stats.recovery_segment_bytes, 0,
            "the checkpoint has the index"
        );
        assert!(stats.recovery_checkpoint_bytes < 32 * 1024);
        // Four headers, and a look at what comes next.
        assert!(stats.recovery_journal_bytes <= (16 + 64) * 1024);
        engine.close().await.expect("close");
    });
}

async fn two_shards(rt: &crate::rt::Rt) -> Vec<Rig> {
    let dir = PathBuf::from("/data");
    rt.create_dir_all(&dir).await.expect("create");
    let of_shard = |shard| {
        let mut rig = Rig::new(rt.clone(), dir.clone());
        rig.engine.shard = ShardId(shard);
        rig.engine.journal_file_bytes = 32 << 20;
        rig
    };
    vec![of_shard(0), of_shard(1)]
}

/// Whatever happens to the header of another shard's checkpoint, a shard trusts its own and reads next to nothing.
#[test]
fn damage_in_the_header_of_another_shards_checkpoint_makes_no_start_longer() {
    let rigs = async |rt: &crate::rt::Rt| {
        let mut rigs = two_shards(rt).await;
        for rig in &mut rigs {
            rig.engine.journal_file_bytes = 1 << 20;
        }
        rigs
    };
    let (_, disk) = sim::run(1, Disk::default(), move |rt| async move {
        let started = start_shards(&rigs(&rt).await).await;
        for (engine, log) in started {
            for n in 0..40 {
                log.append(batch_at(n, 1, 10_000), EPOCH).expect("append");
                counted(&engine, &log, Offset::new(n + 1)).await;
            }
            engine.close().await.expect("close");
        }
    });
    for bit in (0..PART_HEADER_LEN * 8).step_by(5) {
        sim::run(1, disk.crash(1), move |rt| async move {
            let rigs = rigs(&rt).await;
            let path = Path::new("/data/checkpoint/shard-1");
            let file = rt.open(path, OpenMode::ReadWrite).await.expect("open");
            let block = file.read_at(0, 4096).await.expect("read");
            let mut damaged = rt.alloc(4096);
            damaged.bytes_mut().copy_from_slice(&block);
            damaged.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            file.write_at(damaged, 0).await.expect("write");
            let engine = Engine::open(rt.clone(), rigs[0].engine.clone()).await;
            let engine = engine.expect("open");
            let (id, name) = identity(0);
            let log = engine.open_log(id, name, config()).await.expect("open log");
            assert_eq!(log.marks().log_end, Offset::new(40));
            engine.sync_recovered().await.expect("sync");
            engine.start_journal().await.expect("start journal");
            let stats = engine.stats();
            assert_eq!(stats.recovery_segment_bytes, 0, "bit {bit}");
            assert!(stats.recovery_checkpoint_bytes < 32 * 1024, "bit {bit}");
        });
    }
}

/// No run can come after the last generation there is: it is refused, and not taken for the first one.
#[test]
fn a_generation_after_which_none_can_come_is_refused() {
    sim::run(1, Disk::default(), |rt| async move {
        let rig = two_shards(&rt).await.remove(0);
        let dir = Path::new("/data/checkpoint");
        let mut writer = Writer::new(rt.clone(), dir, ShardId(1));
        let conclusion = Conclusion {
            generation: u64::MAX,
            journal: None,
            clean: true,
        };
        let written = writer.write(conclusion, std::iter::empty(), std::iter::empty());
        written.await.expect("writes");
        let refused = Engine::open(rt, rig.engine).await;
        assert!(refused.is_err());
    });
}

/// As a broker starts its shards, with a log each.
async fn start_shards(rigs: &[Rig]) -> Vec<(Engine, Log)> {
    let mut started = Vec::new();
    for (partition, rig) in rigs.iter().enumerate() {
        let engine = Engine::open(rig.rt.clone(), rig.engine.clone()).await;
        let engine = engine.expect("open");
        let (id, name) = identity(partition as i32);
        let log = engine.open_log(id, name, config()).await.expect("open log");
        started.push((engine, log));
    }
    for (engine, _) in &started {
        engine.sync_recovered().await.expect("sync");
    }
    for (engine, _) in &started {
        engine.start_journal().await.expect("start");
    }
    started
}
