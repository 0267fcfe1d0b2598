//! Checkpoints: what is written is read, whatever is damaged is reported, of several records the newest counts.

use std::path::PathBuf;

use super::{
    format::{decode_record, encode_part, encode_record, fuzz_part, part_len},
    *,
};
use crate::{
    batch::{BatchBuilder, BatchHeader, Codec},
    rt::{OpenMode, sim},
    testing::{Rng, for_seeds},
    types::{LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicId},
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
        index: None,
        epochs,
        producers,
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

/// A checkpoint of all logs, in a new file.
async fn write(
    rt: &Rt,
    dir: &Path,
    shard: u16,
    generation: u64,
    ending: Ending,
    logs: &[LogCheckpoint],
) -> Writer {
    let mut writer = Writer::new(rt.clone(), dir, ShardId(shard));
    assert!(writer.wants_all());
    add(&mut writer, generation, ending, logs).await;
    writer
}

async fn add(writer: &mut Writer, generation: u64, ending: Ending, logs: &[LogCheckpoint]) {
    let conclusion = Conclusion {
        generation,
        journal: Some(at(generation)),
        clean: ending == Ending::EndsRun,
    };
    let written = writer.write(conclusion, logs.iter(), std::iter::empty());
    written.await.expect("writes");
}

fn at(generation: u64) -> JournalPosition {
    JournalPosition {
        generation,
        file_sequence: 4,
        commit_sequence: 44,
        file_position: 8192,
    }
}

async fn load_all(rt: &Rt, dir: &Path) -> Checkpoints {
    let mut all = Checkpoints::open(rt, dir).await.expect("opens");
    all.load_all(rt).await.expect("read");
    all
}

/// Found by fuzzing: recovery, which adds the epochs of what it walks behind the recovery point, stopped at an assert.
#[test]
fn a_record_of_what_comes_after_it_contradicts_itself() {
    let check = |last_epoch_start: i64, is_taken: bool| {
        let mut record = record(0, 100);
        record
            .epochs
            .append(LeaderEpoch(5), Offset::new(last_epoch_start));
        let mut bytes = Vec::new();
        encode_record(&mut bytes, &record);
        assert_eq!(decode_record(&mut bytes.as_slice()).is_some(), is_taken);
    };
    check(100, true);
    check(101, false);
}

fn found(all: &Checkpoints, partition: i32) -> &LogCheckpoint {
    &all.log(log(partition)).expect("there").record
}

#[test]
fn what_is_written_is_read() {
    in_simulator(|rt, dir| async move {
        let all = load_all(&rt, &dir).await;
        assert_eq!(all.generation(), None);
        assert!(all.log(log(0)).is_none());

        let written = [record(0, 100), record(1, 200)];
        write(&rt, &dir, 0, 5, Ending::EndsRun, &written).await;
        let other = [record(2, 300)];
        write(&rt, &dir, 1, 5, Ending::EndsHere, &other).await;
        let all = load_all(&rt, &dir).await;
        assert_eq!(all.generation(), Some(5));
        assert!(all.damage().is_empty());
        for written in written.iter().chain(&other) {
            assert_same(found(&all, written.log.partition.0), written);
        }
        assert!(all.is_clean(log(0)) && all.is_clean(log(1)));
        assert!(!all.is_clean(log(2)), "its shard was not closed");
        assert!(!all.is_clean(log(3)), "not there");
        assert_eq!(all.journal(ShardId(1)), Some(at(5)));

        let mut own = Checkpoints::open(&rt, &dir).await.expect("opens");
        own.load(&rt, ShardId(1)).await.expect("read");
        assert_eq!(own.logs().count(), 1, "what is not asked for is not read");
        assert_eq!(own.generation(), Some(5));
    });
}

#[test]
fn additions_count_from_their_place_on_until_the_file_is_made_anew() {
    in_simulator(|rt, dir| async move {
        let logs: Vec<_> = (0..50).map(|partition| record(partition, 10)).collect();
        let mut writer = write(&rt, &dir, 0, 5, Ending::EndsHere, &logs).await;
        let mut offset = 10;
        while !writer.wants_all() {
            offset += 1;
            let mut changed = record(7, offset);
            changed.log_start = Offset::new(offset);
            add(&mut writer, 5, Ending::EndsHere, &[changed]).await;
        }
        assert!(
            offset > 100,
            "many additions to a file of {} logs",
            logs.len()
        );
        // The same recovery offset, another log start: the later one counts.
        let mut last = record(7, offset);
        last.log_start = Offset::new(3);
        let all: Vec<_> = logs
            .iter()
            .map(|log| if log.log == last.log { &last } else { log })
            .cloned()
            .collect();
        let before = load_all(&rt, &dir).await;
        add(&mut writer, 5, Ending::EndsHere, &all).await;
        assert!(!writer.wants_all());
        let after = load_all(&rt, &dir).await;
        assert!(after.read_bytes() < before.read_bytes() / 4);
        for known in [&before, &after] {
            assert!(known.damage().is_empty(), "{:?}", known.damage());
            assert_eq!(found(known, 7).recovery_offset, Offset::new(offset));
            assert_eq!(found(known, 8).recovery_offset, Offset::new(10));
        }
        assert_eq!(found(&before, 7).log_start, Offset::new(offset));
        assert_eq!(found(&after, 7).log_start, Offset::new(3));
    });
}

/// A part that is not whole is nothing where it is the last one, and damage where others follow it.
#[test]
fn a_torn_addition_is_nothing_and_a_broken_part_is_damage() {
    in_simulator(|rt, dir| async move {
        let first: Vec<_> = (0..40).map(|partition| record(partition, 10)).collect();
        let mut writer = write(&rt, &dir, 0, 5, Ending::EndsHere, &first).await;
        for offset in [20, 30] {
            let changed: Vec<_> = (0..40).map(|partition| record(partition, offset)).collect();
            add(&mut writer, 5, Ending::EndsRun, &changed).await;
        }
        let path = file_path(&dir, ShardId(0));
        let file = rt.open(&path, OpenMode::ReadWrite).await.expect("opens");
        let len = file.len().await.expect("length");
        let part = len / 3;
        assert!(part > 2 * BLOCK as u64 && part.is_multiple_of(BLOCK as u64));
        // (the block that is lost, what is known of a log then)
        for (block_at, expected) in [
            (len - BLOCK as u64, Some(20)),
            (2 * part, Some(20)),
            (part + BLOCK as u64, None),
            (part, None),
            (0, None),
        ] {
            let whole = file.read_at(0, len as usize).await.expect("reads");
            let zeros = rt.alloc(BLOCK);
            file.write_at(zeros, block_at).await.expect("writes");
            let all = load_all(&rt, &dir).await;
            let known = all
                .log(log(3))
                .map(|known| known.record.recovery_offset.get());
            assert_eq!(known, expected, "block at {block_at}");
            assert_eq!(all.damage().is_empty(), expected.is_some());
            let mut again = rt.alloc(len as usize);
            again.bytes_mut().copy_from_slice(&whole);
            file.write_at(again, 0).await.expect("writes");
        }
        for cut in (part..len).step_by(BLOCK) {
            file.truncate(len - cut).await.expect("cuts");
            let all = load_all(&rt, &dir).await;
            assert_eq!(all.damage().is_empty(), len - cut >= part);
        }
    });
}

#[test]
fn of_several_records_the_newest_counts() {
    in_simulator(|rt, dir| async move {
        // Shard 1 is gone since generation 6: its log moved to shard 0, whose offsets are lower after a cut.
        write(&rt, &dir, 1, 5, Ending::EndsRun, &[record(0, 900)]).await;
        let new = [record(0, 100)];
        write(&rt, &dir, 0, 6, Ending::EndsHere, &new).await;
        let all = load_all(&rt, &dir).await;
        assert_same(found(&all, 0), &new[0]);
        assert!(!all.is_clean(log(0)));
    });
}

/// What a run says of logs that it does not have is as old as it was, in the newest file too.
#[test]
fn repeated_records_stay_as_old_as_they_are() {
    in_simulator(|rt, dir| async move {
        let mut writer = Writer::new(rt.clone(), &dir, ShardId(0));
        let conclusion = Conclusion {
            generation: 7,
            journal: None,
            clean: false,
        };
        let (own, old, older) = (record(0, 10), record(1, 500), record(2, 600));
        let repeated = [(5, &older), (6, &old)];
        let written = writer.write(conclusion, [&own].into_iter(), repeated.into_iter());
        written.await.expect("writes");
        write(&rt, &dir, 1, 7, Ending::EndsHere, &[record(1, 20)]).await;
        let all = load_all(&rt, &dir).await;
        assert_eq!(found(&all, 1).recovery_offset, Offset::new(20));
        let known = all.log(log(2)).expect("there");
        assert_eq!((known.generation, known.shard), (5, ShardId(0)));
        assert_eq!(all.generation(), Some(7));
    });
}

#[test]
fn beside_a_damaged_file_older_records_do_not_count() {
    in_simulator(|rt, dir| async move {
        write(&rt, &dir, 2, 5, Ending::EndsRun, &[record(0, 900)]).await;
        for shard in [0, 1] {
            let new = [record(i32::from(shard) * 10, 100)];
            write(&rt, &dir, shard, 6, Ending::EndsRun, &new).await;
        }
        let path = file_path(&dir, ShardId(0));
        let file = rt.open(&path, OpenMode::ReadWrite).await.expect("opens");
        file.truncate(100).await.expect("cuts");
        let all = load_all(&rt, &dir).await;
        assert_eq!(all.damage().len(), 1);
        assert!(
            all.log(log(0)).is_none(),
            "walk rather than trust generation 5"
        );
        assert!(all.log(log(10)).is_some());
        assert!(!all.is_clean(log(10)));
    });
}

fn part(logs: &[LogCheckpoint]) -> Vec<u8> {
    let mut records = Vec::new();
    for log in logs {
        encode_record(&mut records, log);
    }
    let mut bytes = vec![0; part_len(records.len())];
    encode_part(&mut bytes, 1, 0, Ending::EndsHere, Some(at(1)), &records);
    bytes.truncate(PART_HEADER_LEN + records.len());
    bytes
}

#[test]
fn any_flipped_bit_is_noticed() {
    let good = part(&[record(0, 10)]);
    let whole = |bytes: &[u8]| {
        PartHeader::decode(bytes).is_some_and(|header| header.records(bytes).is_some())
    };
    assert!(whole(&good));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!whole(&bad), "bit {bit}");
    }
    for len in 0..good.len() {
        assert!(!whole(&good[..len]), "length {len}");
    }
}

/// Records that are wrong under a CRC that is right must not get past rkyv's validation and ours, nor panic.
#[test]
fn mutated_parts_are_refused_or_sound() {
    let good = part(&[record(0, 10), record(1, 7)]);
    for_seeds(2000, |seed| {
        let mut rng = Rng::new(seed);
        let mut bad = good.clone();
        for _ in 0..1 + rng.below(3) {
            let position = rng.below(good.len());
            bad[position] = if rng.chance(30) {
                0xff
            } else {
                rng.next() as u8
            };
        }
        fuzz_part(&bad);
        fuzz_part(&bad[..rng.below(bad.len())]);
    });
}
