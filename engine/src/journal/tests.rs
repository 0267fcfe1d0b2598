//! The journal: what was committed is found again, what was not is not found twice, leftovers are never taken for entries.
//!
//! Tests of the bytes need no disk. Those of ring, writer and replay run on both back ends, the crash test in the simulator.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;

use super::{
    format::{
        BLOCK, COMMIT_HEADER_LEN, CommitHeader, FILE_HEADER_LEN, FileHeader, Stamp, commit_len,
        encode_commit, entry_len, fuzz_commit,
    },
    ring::file_path,
    *,
};
use crate::{
    error::Fault,
    rt::{Class, OpenMode, Rt, sim, uring},
    testing::{Rng, for_seeds},
    types::{LeaderEpoch, LogId, Offset, PartitionIndex, TopicId},
};

fn log(partition: i32) -> LogId {
    LogId {
        topic_id: TopicId([7; 16]),
        partition: PartitionIndex(partition),
    }
}

/// An entry of one record whose bytes follow from log, offset and length.
fn entry(partition: i32, offset: i64, len: usize) -> Entry {
    let mut rng = Rng::new((partition as u64) << 40 | offset as u64);
    Entry {
        log: log(partition),
        log_generation: 3,
        base_offset: Offset::new(offset),
        next_offset: Offset::new(offset + 1),
        leader_epoch: LeaderEpoch(5),
        bytes: Bytes::from(rng.bytes(len)),
    }
}

mod bytes_on_disk {
    use super::*;

    const STAMP: Stamp = Stamp {
        generation: 9,
        file_sequence: 4,
        commit_sequence: 77,
    };

    fn commit(entries: &[Entry]) -> Vec<u8> {
        let body_bytes = entries.iter().map(entry_len).sum();
        let mut buffer = vec![0; commit_len(body_bytes)];
        encode_commit(&mut buffer, STAMP, entries.iter());
        buffer
    }

    #[test]
    fn commits_round_trip() {
        for_seeds(50, |seed| {
            let mut rng = Rng::new(seed);
            let entries: Vec<Entry> = (0..1 + rng.below(20))
                .map(|index| entry(rng.below(3) as i32, index as i64, 1 + rng.below(900)))
                .collect();
            let bytes = commit(&entries);
            assert!(bytes.len().is_multiple_of(BLOCK));
            let header = CommitHeader::decode(&bytes).expect("a commit");
            assert_eq!(header.stamp, STAMP);
            let found = header.entries(&bytes).expect("whole");
            assert_eq!(found.len(), entries.len());
            for (found, written) in found.iter().zip(&entries) {
                assert_eq!(found.log, written.log);
                assert_eq!(found.log_generation, written.log_generation);
                assert_eq!(found.base_offset, written.base_offset);
                assert_eq!(found.next_offset, written.next_offset);
                assert_eq!(found.leader_epoch, written.leader_epoch);
                assert_eq!(bytes[found.bytes.clone()], written.bytes);
            }
        });
    }

    #[test]
    fn any_flipped_bit_voids_a_commit() {
        let entries = [entry(0, 0, 30), entry(1, 9, 50)];
        let good = commit(&entries);
        let body_bytes: usize = entries.iter().map(entry_len).sum();
        for bit in 0..(COMMIT_HEADER_LEN + body_bytes) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = CommitHeader::decode(&bad).and_then(|header| header.entries(&bad));
            assert_eq!(found, None, "bit {bit}");
        }
    }

    #[test]
    fn any_flipped_bit_voids_a_file_header() {
        let header = FileHeader {
            generation: 3,
            file_sequence: 12,
            first_commit: 400,
            file_bytes: 1 << 20,
        };
        let mut good = vec![0; BLOCK];
        header.encode(&mut good);
        assert_eq!(FileHeader::decode(&good), Some(header));
        assert_eq!(FileHeader::decode(&vec![0; BLOCK]), None);
        for bit in 0..FILE_HEADER_LEN * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&bad), None, "bit {bit}");
        }
    }

    /// Lengths that lie, also under a CRC that is right.
    #[test]
    fn mutated_commits_are_refused_or_sound() {
        for_seeds(1000, |seed| {
            let mut rng = Rng::new(seed);
            let entries = [entry(0, 0, 1 + rng.below(60)), entry(1, 1, 40)];
            let mut bytes = commit(&entries);
            bytes.truncate(COMMIT_HEADER_LEN + entries.iter().map(entry_len).sum::<usize>());
            fuzz_commit(&bytes);
            for _ in 0..1 + rng.below(3) {
                let position = rng.below(bytes.len());
                bytes[position] = if rng.chance(50) {
                    0xff
                } else {
                    rng.next() as u8
                };
            }
            fuzz_commit(&bytes);
            fuzz_commit(&bytes[..rng.below(bytes.len())]);
        });
    }
}

const CONFIG: JournalConfig = JournalConfig {
    file_bytes: 5 * BLOCK as u64,
    files: 3,
    commit_bytes_max: 2 * BLOCK,
};

/// Runs `check` in the simulator and on glommio, each with an empty directory for the journals.
fn on_both<Running>(check: impl Fn(Rt, PathBuf) -> Running)
where
    Running: Future<Output = ()> + 'static,
{
    for_seeds(3, |seed| {
        sim::run(seed, sim::Disk::empty(1 << 30), |rt| {
            check(rt, PathBuf::from("/data/journal"))
        });
    });
    let dir = TempDir::new();
    uring::run_alone(|rt| check(rt, dir.0.join("journal"))).expect("this host runs io_uring");
}

struct TempDir(PathBuf);

impl TempDir {
    #[allow(clippy::disallowed_methods)]
    fn new() -> TempDir {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("forebay-journal-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("the temporary directory takes another");
        TempDir(path)
    }
}

impl Drop for TempDir {
    #[allow(clippy::disallowed_methods)]
    fn drop(&mut self) {
        // A test that fails already says more than this could.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn start(rt: &Rt, root: &Path, shard: u32, generation: u64) -> Journal {
    let dir = root.join(shard.to_string());
    Journal::start(rt, dir, CONFIG, generation)
        .await
        .expect("starts")
}

async fn commit_one(journal: &Journal, entry: Entry) {
    let expected = [Committed {
        log: entry.log,
        log_generation: entry.log_generation,
        next_offset: entry.next_offset,
    }];
    journal.submit(entry);
    assert_eq!(journal.commit().await.expect("commits"), expected);
}

/// What a scan finds of each log: (base offset, bytes), in order; the bytes are read back.
async fn scan(rt: &Rt, root: &Path) -> (Replay, HashMap<i32, Vec<(i64, Bytes)>>) {
    let replay = scan_all(rt, root).await;
    let found = found_in(&replay).await;
    (replay, found)
}

async fn scan_all(rt: &Rt, root: &Path) -> Replay {
    let replay = Replay::open(rt, root).await.expect("opens");
    replay.scan_all(|_| None).await.expect("scans");
    replay
}

/// As the first run on an empty journal, or the next one.
fn next_generation(replay: &Replay) -> u64 {
    replay.generation().map_or(1, |generation| generation + 1)
}

async fn found_in(replay: &Replay) -> HashMap<i32, Vec<(i64, Bytes)>> {
    let mut found = HashMap::new();
    for log in replay.logs() {
        let mut entries = Vec::new();
        for entry in replay.entries(log) {
            let bytes = replay.bytes(&entry).await.expect("readable");
            entries.push((entry.base_offset.get(), bytes));
        }
        found.insert(log.partition.0, entries);
    }
    found
}

fn offsets(found: &HashMap<i32, Vec<(i64, Bytes)>>, partition: i32) -> Vec<i64> {
    let entries = found.get(&partition).into_iter().flatten();
    entries.map(|(offset, _)| *offset).collect()
}

#[test]
fn an_empty_journal_holds_nothing() {
    on_both(|rt, root| async move {
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(next_generation(&replay), 1);
        assert!(found.is_empty());
        start(&rt, &root, 0, 1).await;
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(next_generation(&replay), 2);
        assert!(found.is_empty());
        assert!(replay.damage().is_empty());
    });
}

#[test]
fn what_gathers_is_committed_together() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        for offset in 0..20 {
            journal.submit(entry(offset as i32 % 4, offset, 100));
        }
        assert_eq!(journal.pending_bytes(), 2000);
        let committed = journal.commit().await.expect("commits");
        assert_eq!(committed.len(), 20, "20 small entries fit one commit");
        assert_eq!(journal.pending_bytes(), 0);
        // What does not fit waits for the next one; a single large entry goes alone.
        for offset in 20..23 {
            journal.submit(entry(0, offset, 3000));
        }
        journal.submit(entry(0, 23, 10_000));
        for expected in [2, 1, 1] {
            assert_eq!(journal.commit().await.expect("commits").len(), expected);
        }
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), [0, 4, 8, 12, 16, 20, 21, 22, 23]);
        assert_eq!(offsets(&found, 3), [3, 7, 11, 15, 19]);
        assert_eq!(found[&0][8].1, entry(0, 23, 10_000).bytes);
        let first = &replay.entries(log(0))[0];
        assert_eq!(first.log_generation, 3);
        assert_eq!(first.leader_epoch, LeaderEpoch(5));
        assert_eq!(first.next_offset, Offset::new(1));
    });
}

#[test]
fn a_commit_waits_for_the_first_entry() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        let committer = rt.spawn(Class::Foreground, {
            let journal = journal.clone();
            async move { journal.commit().await.expect("commits").len() }
        });
        rt.sleep(Duration::from_millis(5)).await;
        journal.submit(entry(0, 0, 10));
        assert_eq!(committer.await, 1);
    });
}

#[test]
fn the_ring_wraps_and_leftovers_are_not_entries() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        for offset in 0..50 {
            // A commit takes a block, a file takes four of them.
            commit_one(&journal, entry(0, offset, 100)).await;
            if journal.needs_checkpoint() {
                journal.release_before(journal.position());
            }
            let (replay, found) = scan(&rt, &root).await;
            assert!(replay.damage().is_empty(), "{:?}", replay.damage());
            let file = offset / 4;
            // Three files are kept: this one, and those before it that no other use has replaced.
            let oldest = (file - 2).max(0) * 4;
            let expected: Vec<i64> = (oldest..=offset).collect();
            assert_eq!(offsets(&found, 0), expected);
        }
    });
}

#[test]
fn a_full_ring_waits_for_its_release() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        let wanted = journal.checkpoint_wanted().listen();
        for offset in 0..4 {
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        assert!(!journal.needs_checkpoint());
        for offset in 4..12 {
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        assert!(journal.needs_checkpoint());
        wanted.await;

        journal.submit(entry(0, 12, 100));
        let wanted = journal.checkpoint_wanted().listen();
        let committer = rt.spawn(Class::Foreground, {
            let journal = journal.clone();
            async move { journal.commit().await.expect("commits").len() }
        });
        wanted.await;
        rt.sleep(Duration::from_millis(5)).await;
        assert_eq!(journal.pending_bytes(), 100, "nothing was overwritten");
        let (_, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), (0..12).collect::<Vec<_>>());
        journal.release_before(journal.position());
        assert_eq!(committer.await, 1);
        let (_, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), (4..13).collect::<Vec<_>>());
    });
}

#[test]
fn a_new_generation_voids_all_rings_of_older_ones() {
    on_both(|rt, root| async move {
        for shard in [0, 1] {
            let journal = start(&rt, &root, shard, 1).await;
            for offset in 0..6 {
                commit_one(&journal, entry(shard as i32, offset, 100)).await;
            }
        }
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0).len() + offsets(&found, 1).len(), 12);
        assert_eq!(next_generation(&replay), 2);

        // The leftover behind these two has the right place, file sequence and commit sequence: all but the generation.
        let journal = start(&rt, &root, 0, 2).await;
        commit_one(&journal, entry(5, 0, 100)).await;
        commit_one(&journal, entry(5, 1, 100)).await;
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 5), [0, 1]);
        assert_eq!(replay.logs().len(), 1, "nothing of the old generation");
        assert_eq!(next_generation(&replay), 3);
    });
}

/// Overwrites a block of a journal file with garbage.
async fn damage(rt: &Rt, path: &Path, block_index: u64) {
    let file = rt.open(path, OpenMode::ReadWrite).await.expect("opens");
    let mut block = rt.alloc(BLOCK);
    block.bytes_mut().fill(0xa5);
    let position = block_index * BLOCK as u64;
    file.write_at(block, position).await.expect("writes");
    file.sync().await.expect("syncs");
    file.close().await.expect("closes");
}

#[test]
fn a_torn_last_commit_is_dropped_and_a_hole_is_reported() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        for offset in 0..6 {
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        journal.submit(entry(0, 6, 5000));
        journal.commit().await.expect("commits");
        // The second block of the last commit, which takes two.
        let dir = root.join("0");
        damage(&rt, &file_path(&dir, 1), 4).await;
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), [0, 1, 2, 3, 4, 5]);
        assert!(replay.damage().is_empty(), "a torn commit was never acked");

        damage(&rt, &file_path(&dir, 0), 2).await;
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), [0, 4, 5]);
        assert_eq!(replay.damage().len(), 1);

        // Its first commit says what the header said.
        damage(&rt, &file_path(&dir, 0), 0).await;
        let (replay, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), [0, 4, 5]);
        assert_eq!(replay.damage().len(), 2);

        damage(&rt, &file_path(&dir, 0), 1).await;
        let (_, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), [4, 5]);
    });
}

/// A misdirected write, or a leftover, that differs from the expected commit in one number only.
#[test]
fn a_commit_out_of_place_is_not_accepted() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 2).await;
        for offset in 0..2 {
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        let right = Stamp {
            generation: 2,
            file_sequence: 0,
            commit_sequence: 2,
        };
        let path = file_path(&root.join("0"), 0);
        for (generation, file_sequence, commit_sequence) in [
            (1, 0, 2),
            (3, 0, 2),
            (2, 1, 2),
            (2, 0, 1),
            (2, 0, 3),
            (2, 0, 2),
        ] {
            let stamp = Stamp {
                generation,
                file_sequence,
                commit_sequence,
            };
            let mut block = rt.alloc(BLOCK);
            encode_commit(block.bytes_mut(), stamp, [entry(0, 2, 100)].iter());
            let file = rt.open(&path, OpenMode::ReadWrite).await.expect("opens");
            file.write_at(block, 3 * BLOCK as u64)
                .await
                .expect("writes");
            file.close().await.expect("closes");
            let (_, found) = scan(&rt, &root).await;
            let accepted = offsets(&found, 0) == [0, 1, 2];
            assert_eq!(accepted, stamp == right, "{stamp:?}");
        }
    });
}

#[test]
fn an_entry_that_changes_after_the_scan_is_a_fault() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        commit_one(&journal, entry(0, 0, 100)).await;
        let replay = Replay::open(&rt, &root).await.expect("opens").keeping(0);
        replay.scan_all(|_| None).await.expect("scans");
        damage(&rt, &file_path(&root.join("0"), 0), 1).await;
        let result = replay.bytes(&replay.entries(log(0))[0]).await;
        assert!(matches!(result, Err(Fault::Corrupt { .. })));
    });
}

/// From every position that the journal ever had: what was committed later is found, and what lies in other files is not read.
#[test]
fn a_scan_begins_where_the_checkpoint_says() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        let mut positions = Vec::new();
        for offset in 0..10 {
            positions.push((offset, journal.position()));
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        positions.push((10, journal.position()));
        for (next, position) in positions {
            let replay = Replay::open(&rt, &root).await.expect("opens");
            let headers = replay.read_bytes();
            assert!(headers <= 3 * BLOCK as u64);
            replay.scan(0, Some(position)).await.expect("scans");
            let found = found_in(&replay).await;
            assert_eq!(offsets(&found, 0), (next..10).collect::<Vec<_>>());
            assert!(replay.damage().is_empty(), "{:?}", replay.damage());
            let files = 3 - position.file_sequence;
            assert!(replay.read_bytes() <= headers + files * CONFIG.file_bytes);
            // Of another generation it says nothing.
            let replay = Replay::open(&rt, &root).await.expect("opens");
            let other = JournalPosition {
                generation: 2,
                ..position
            };
            replay.scan(0, Some(other)).await.expect("scans");
            assert_eq!(offsets(&found_in(&replay).await, 0).len(), 10);
        }
        let replay = Replay::open(&rt, &root).await.expect("opens");
        let gone = JournalPosition {
            file_sequence: 7,
            ..journal.position()
        };
        replay.scan(0, Some(gone)).await.expect("scans");
        assert_eq!(replay.damage().len(), 1, "a file that must be there");
    });
}

/// What is not kept in memory is read again, a run of entries with few reads.
#[test]
fn entries_are_read_again_in_runs() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        for offset in 0..60 {
            journal.submit(entry(0, offset, 200));
        }
        while journal.pending_bytes() > 0 {
            journal.commit().await.expect("commits");
        }
        let all = Replay::open(&rt, &root).await.expect("opens");
        let few = Replay::open(&rt, &root).await.expect("opens").keeping(1000);
        for replay in [&all, &few] {
            replay.scan_all(|_| None).await.expect("scans");
        }
        let scanned = [all.read_bytes(), few.read_bytes()];
        assert_eq!(found_in(&few).await, found_in(&all).await);
        assert_eq!(all.read_bytes(), scanned[0], "all of it was kept");
        let again = few.read_bytes() - scanned[1];
        assert!((55 * 200..90 * 200).contains(&again), "{again} bytes");
    });
}

#[test]
fn another_configuration_makes_the_files_anew() {
    on_both(|rt, root| async move {
        let journal = start(&rt, &root, 0, 1).await;
        commit_one(&journal, entry(0, 0, 100)).await;
        rt.sleep(Duration::from_millis(50)).await;
        let dir = root.join("0");
        let config = JournalConfig {
            file_bytes: 8 * BLOCK as u64,
            files: 2,
            ..CONFIG
        };
        let journal = Journal::start(&rt, dir.clone(), config, 2).await;
        let journal = journal.expect("starts");
        for offset in 0..14 {
            commit_one(&journal, entry(0, offset, 100)).await;
        }
        let (_, found) = scan(&rt, &root).await;
        assert_eq!(offsets(&found, 0), (0..14).collect::<Vec<_>>());
        assert!(!rt.exists(&file_path(&dir, 2)).await);
    });
}

/// The files behind the first one cannot be created, in any of the ways in which that can fail. When the disk is well again the ring is
/// whole, and what is in it survives a power failure.
#[test]
fn a_file_that_cannot_be_created_is_tried_again() {
    let no = sim::Faults::default();
    let all_faults = [
        sim::Faults {
            open_error: 1.0,
            ..no
        },
        sim::Faults {
            write_error: 1.0,
            ..no
        },
        sim::Faults {
            sync_error: 1.0,
            ..no
        },
        sim::Faults {
            sync_error: 0.5,
            ..no
        },
        sim::Faults {
            no_space: 0.3,
            name_error: 0.3,
            ..no
        },
    ];
    for (case, faults) in all_faults.into_iter().enumerate() {
        let run = move |rt: Rt| async move {
            let root = PathBuf::from("/data/journal");
            make_data_dir(&rt).await;
            let journal = start(&rt, &root, 0, 1).await;
            let Rt::Sim(sim) = &rt else {
                unreachable!("the simulator runs this")
            };
            sim.set_faults(faults);
            rt.sleep(Duration::from_secs(20)).await;
            sim.set_faults(sim::Faults::default());
            // The second file is not there yet: what does not fit the first one waits, and does not fail.
            let mut committed = 0;
            let began = rt.now();
            while rt.now().since(began) < Duration::from_secs(2) || committed < 20 {
                commit_one(&journal, entry(0, committed, 3000)).await;
                journal.release_before(journal.position());
                committed += 1;
                rt.sleep(Duration::from_millis(50)).await;
            }
            assert!(!journal.is_full() && journal.fault().is_none());
            committed
        };
        let (committed, disk) = sim::run(case as u64, sim::Disk::empty(1 << 30), run);
        sim::run(0, disk.crash(7), move |rt| async move {
            let (replay, found) = scan(&rt, "/data/journal".as_ref()).await;
            assert!(replay.damage().is_empty(), "case {case}");
            let found = offsets(&found, 0);
            assert_eq!(found.last(), Some(&(committed - 1)), "case {case}");
            assert!(found.is_sorted());
        });
    }
}

#[test]
fn after_a_fault_the_journal_refuses_everything() {
    sim::run(1, sim::Disk::empty(1 << 30), |rt| async move {
        let root = PathBuf::from("/data/journal");
        let journal = start(&rt, &root, 0, 1).await;
        commit_one(&journal, entry(0, 0, 100)).await;
        rt.sleep(Duration::from_millis(100)).await;
        let Rt::Sim(sim) = &rt else {
            unreachable!("the simulator runs this")
        };
        let faults = sim::Faults {
            write_error: 1.0,
            ..Default::default()
        };
        sim.set_faults(faults);
        journal.submit(entry(0, 1, 100));
        assert!(journal.commit().await.is_err());
        sim.set_faults(sim::Faults::default());
        journal.submit(entry(0, 2, 100));
        assert_eq!(journal.pending_bytes(), 0);
        assert!(journal.commit().await.is_err());
        assert!(journal.fault().is_some());
    });
}

/// One log as the crash test knows it. All offsets below `checkpointed` need no journal any more.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    checkpointed: i64,
    acked: i64,
    submitted: i64,
}

type Model = Rc<RefCell<HashMap<i32, Known>>>;

const SHARDS: i32 = 2;
const LOGS_PER_SHARD: i32 = 3;

#[test]
fn every_committed_entry_survives_a_crash_at_any_point() {
    for_seeds(100, |seed| {
        let mut rng = Rng::new(seed);
        let mut disk = sim::Disk::empty(1 << 30);
        let mut known: HashMap<i32, Known> = HashMap::new();
        for round in 0..10 {
            let (round_seed, power_loss) = (rng.next(), rng.chance(50));
            let model = known.clone();
            // Short runs die while they start, with files half made.
            let run_for_max = if rng.chance(50) { 3000 } else { 40_000 };
            let run_for = Duration::from_micros(rng.below(run_for_max) as u64);
            (known, disk) = sim::run(round_seed, disk, move |rt| async move {
                make_data_dir(&rt).await;
                let model = recovered(&rt, model).await;
                let writers = write_until_killed(&rt, &model, round_seed);
                let _ = rt.timeout(run_for, writers).await;
                model.take()
            });
            if power_loss {
                disk = disk.crash(round_seed ^ round);
            }
        }
    });
}

const CRASH_ROOT: &str = "/data/journal";

/// The data directory itself is the engine's.
async fn make_data_dir(rt: &Rt) {
    rt.create_dir_all(Path::new("/data"))
        .await
        .expect("creates");
    rt.sync_dir(Path::new("/")).await.expect("syncs");
}

/// Checks what the scan finds against the model, and gives back what recovery would go on with.
async fn recovered(rt: &Rt, mut model: HashMap<i32, Known>) -> Model {
    let (replay, found) = scan(rt, Path::new(CRASH_ROOT)).await;
    assert!(replay.damage().is_empty(), "{:?}", replay.damage());
    for partition in 0..SHARDS * LOGS_PER_SHARD {
        let known = model.entry(partition).or_default();
        let entries = found.get(&partition).map_or(&[][..], Vec::as_slice);
        let mut end = known.checkpointed;
        for (index, (offset, bytes)) in entries.iter().enumerate() {
            assert_eq!(
                *offset,
                entries[0].0 + index as i64,
                "neither twice nor with a gap"
            );
            assert!(*offset < known.submitted, "never submitted");
            assert_eq!(*bytes, entry(partition, *offset, bytes.len()).bytes);
            end = end.max(offset + 1);
        }
        if end > known.checkpointed {
            assert!(entries[0].0 <= known.checkpointed, "begins too late");
        }
        assert!(
            end >= known.acked,
            "log {partition} lost {known:?}, ends at {end}"
        );
        *known = Known {
            checkpointed: end,
            acked: end,
            submitted: end,
        };
    }
    Rc::new(RefCell::new(model))
}

/// Two shards that submit, commit and release as an engine does, for ever.
async fn write_until_killed(rt: &Rt, model: &Model, seed: u64) {
    let root = Path::new(CRASH_ROOT);
    let replay = Replay::open(rt, root).await.expect("opens");
    let generation = next_generation(&replay);
    let mut tasks = Vec::new();
    for shard in 0..SHARDS {
        let journal = start(rt, root, shard as u32, generation).await;
        let (committer, known) = (journal.clone(), model.clone());
        tasks.push(rt.spawn(Class::Foreground, async move {
            loop {
                for committed in committer.commit().await.expect("no faults here") {
                    let mut known = known.borrow_mut();
                    let log = known.get_mut(&committed.log.partition.0).expect("known");
                    log.acked = committed.next_offset.get();
                    assert!(log.acked <= log.submitted);
                }
            }
        }));
        let (checkpointer, known, clock) = (journal.clone(), model.clone(), rt.clone());
        tasks.push(rt.spawn(Class::Housekeeping, async move {
            let wanted = checkpointer.checkpoint_wanted();
            loop {
                let listen = wanted.listen();
                if !checkpointer.needs_checkpoint() {
                    listen.await;
                    continue;
                }
                let position = checkpointer.position();
                let covered: Vec<(i32, i64)> = logs_of(shard)
                    .map(|partition| (partition, known.borrow()[&partition].submitted))
                    .collect();
                clock.sleep(Duration::from_micros(300)).await;
                // Durable from here on.
                for (partition, submitted) in covered {
                    let mut known = known.borrow_mut();
                    known.get_mut(&partition).expect("known").checkpointed = submitted;
                }
                checkpointer.release_before(position);
            }
        }));
        let (known, clock) = (model.clone(), rt.clone());
        let mut rng = Rng::new(seed ^ shard as u64);
        tasks.push(rt.spawn(Class::Foreground, async move {
            loop {
                for _ in 0..rng.below(6) {
                    let partition = shard * LOGS_PER_SHARD + rng.below(3) as i32;
                    let offset = {
                        let mut known = known.borrow_mut();
                        let log = known.get_mut(&partition).expect("known");
                        log.submitted += 1;
                        log.submitted - 1
                    };
                    journal.submit(entry(partition, offset, 1 + rng.below(3000)));
                }
                let pause = Duration::from_micros(rng.below(1500) as u64);
                clock.sleep(pause).await;
            }
        }));
    }
    std::future::pending::<()>().await;
    drop(tasks);
}

fn logs_of(shard: i32) -> impl Iterator<Item = i32> {
    shard * LOGS_PER_SHARD..(shard + 1) * LOGS_PER_SHARD
}
