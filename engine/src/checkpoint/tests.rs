//! Checkpoints: what is written is read, whatever is damaged is reported, of several records the newest counts.

use std::path::PathBuf;

use super::*;
use crate::{
    batch::{BatchBuilder, BatchHeader, Codec},
    rt::{OpenMode, sim},
    testing::{Rng, for_seeds},
    types::{LeaderEpoch, ProducerEpoch, ProducerId, Timestamp},
};

fn log(partition: i32) -> LogId {
    LogId {
        topic_id: TopicId([3; 16]),
        partition: PartitionIndex(partition),
    }
}

fn record(partition: i32, recovery_offset: i64) -> LogCheckpoint {
    let mut epochs = Epochs::default();
    epochs.append(LeaderEpoch(0), Offset::ZERO);
    epochs.append(LeaderEpoch(4), Offset::new(recovery_offset));
    let mut builder = BatchBuilder::new(Codec::None).producer(ProducerId(9), ProducerEpoch(1), 5);
    builder.push(Timestamp(77), None, Some(b"value"), &[]);
    let header = BatchHeader::parse(&builder.build()).expect("just built");
    let mut producers = Producers::default();
    producers.update(&header, Offset::new(recovery_offset - 1), Timestamp(78));
    LogCheckpoint {
        log: log(partition),
        log_generation: 2,
        log_start: Offset::ZERO,
        recovery_offset: Offset::new(recovery_offset),
        recovery_segment_base: Offset::ZERO,
        recovery_position: 4242,
        high_watermark: Offset::new(recovery_offset),
        epochs,
        producers,
    }
}

fn checkpoint(generation: u64, clean: bool, logs: Vec<LogCheckpoint>) -> Checkpoint {
    Checkpoint {
        generation,
        clean,
        logs,
    }
}

fn assert_same(found: &LogCheckpoint, written: &LogCheckpoint) {
    assert_eq!(found.log, written.log);
    assert_eq!(found.log_generation, written.log_generation);
    assert_eq!(found.log_start, written.log_start);
    assert_eq!(found.recovery_offset, written.recovery_offset);
    assert_eq!(found.recovery_segment_base, written.recovery_segment_base);
    assert_eq!(found.recovery_position, written.recovery_position);
    assert_eq!(found.high_watermark, written.high_watermark);
    assert_eq!(found.epochs, written.epochs);
    assert_eq!(found.producers.snapshot(), written.producers.snapshot());
}

/// Runs `check` in the simulator with a directory for the checkpoints.
fn in_simulator<Running>(check: impl FnOnce(Rt, PathBuf) -> Running)
where
    Running: Future<Output = ()> + 'static,
{
    sim::run(1, sim::Disk::empty(1 << 30), |rt| {
        check(rt, PathBuf::from("/data/checkpoint"))
    });
}

#[test]
fn what_is_written_is_read() {
    in_simulator(|rt, dir| async move {
        let all = load_all(&rt, &dir).await.expect("nothing there");
        assert_eq!(all.generation(), None);
        assert!(all.log(log(0)).is_none());

        let written = checkpoint(5, true, vec![record(0, 100), record(1, 200)]);
        write(&rt, &dir, ShardId(0), &written)
            .await
            .expect("writes");
        let other = checkpoint(5, false, vec![record(2, 300)]);
        write(&rt, &dir, ShardId(1), &other).await.expect("writes");
        let all = load_all(&rt, &dir).await.expect("reads");
        assert_eq!(all.generation(), Some(5));
        assert!(all.damage().is_empty());
        for written in written.logs.iter().chain(&other.logs) {
            assert_same(all.log(written.log).expect("there"), written);
        }
        assert!(all.is_clean(log(0)) && all.is_clean(log(1)));
        assert!(!all.is_clean(log(2)), "its shard was not closed");
        assert!(!all.is_clean(log(3)), "not there");
        assert_eq!(all.stray_files(1).count(), 1);
    });
}

#[test]
fn of_several_records_the_newest_counts() {
    in_simulator(|rt, dir| async move {
        // Shard 1 is gone since generation 6: its log moved to shard 0, whose offsets are lower after a cut.
        let old = checkpoint(5, true, vec![record(0, 900)]);
        write(&rt, &dir, ShardId(1), &old).await.expect("writes");
        let new = checkpoint(6, false, vec![record(0, 100)]);
        write(&rt, &dir, ShardId(0), &new).await.expect("writes");
        let all = load_all(&rt, &dir).await.expect("reads");
        assert_same(all.log(log(0)).expect("there"), &new.logs[0]);
        assert!(!all.is_clean(log(0)));
    });
}

#[test]
fn beside_a_damaged_file_older_records_do_not_count() {
    in_simulator(|rt, dir| async move {
        let old = checkpoint(5, true, vec![record(0, 900)]);
        write(&rt, &dir, ShardId(2), &old).await.expect("writes");
        for shard in [0, 1] {
            let new = checkpoint(6, true, vec![record(i32::from(shard) * 10, 100)]);
            write(&rt, &dir, ShardId(shard), &new)
                .await
                .expect("writes");
        }
        let path = file_path(&dir, ShardId(0));
        let file = rt.open(&path, OpenMode::ReadWrite).await.expect("opens");
        file.truncate(100).await.expect("cuts");
        let all = load_all(&rt, &dir).await.expect("reads");
        assert_eq!(all.damage().len(), 1);
        assert!(
            all.log(log(0)).is_none(),
            "scan rather than trust generation 5"
        );
        assert!(all.log(log(10)).is_some());
        assert!(!all.is_clean(log(10)));
    });
}

#[test]
fn any_flipped_bit_is_noticed() {
    let good = encode(&checkpoint(1, true, vec![record(0, 10)]));
    assert!(decode(&good).is_ok());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(decode(&good[..len]).is_err(), "length {len}");
    }
}

/// Bodies that are wrong under a CRC that is right must not get past rkyv's validation and ours, nor panic.
#[test]
fn mutated_bodies_are_refused_or_sound() {
    let good = encode(&checkpoint(1, true, vec![record(0, 10), record(1, 7)]));
    for_seeds(2000, |seed| {
        let mut rng = Rng::new(seed);
        let mut bad = good.clone();
        for _ in 0..1 + rng.below(3) {
            let position = HEADER_LEN + rng.below(good.len() - HEADER_LEN);
            bad[position] = if rng.chance(30) {
                0xff
            } else {
                rng.next() as u8
            };
        }
        let crc = crc32fast::hash(&bad[HEADER_LEN..]);
        bad[12..16].copy_from_slice(&crc.to_le_bytes());
        for record in decode(&bad).into_iter().flat_map(|found| found.logs) {
            assert!(record.recovery_segment_base <= record.recovery_offset);
        }
    });
}
