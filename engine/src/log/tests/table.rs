//! Recovery, all rows: every combination of what can be found of checkpoint, last segment, index and journal is written byte by byte, opened
//! twice, and compared with what an oracle says that knows nothing of how recovery goes about it.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    checkpoint::{Conclusion, LogCheckpoint, Writer},
    journal::{
        Entry,
        format::{BLOCK, FileHeader, Stamp, commit_len, encode_commit, entry_len},
    },
    log::{epochs::Epochs, producers::Producers, recovery::table::*},
    rt::OpenMode,
    segment::Index,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckpointIs {
    Missing,
    /// Its recovery point is at batch 2, 4, 6.
    Older,
    Exact,
    Newer,
    Corrupt,
    /// As `Exact`, after a cut: journal entries of before it are void.
    AfterCut,
}

/// The last segment. Batches 0 to 6 were written, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SegmentIs {
    Missing,
    Empty,
    /// One batch and a half.
    Short,
    /// Batches 0 to 3.
    Exact,
    Padded,
    /// Batches 0 to 4, and half of 5.
    Torn,
    Extra,
    /// In batch 1, in batch 5.
    RottenBelow,
    RottenAbove,
    /// In the place of batch 5.
    WrongOffset,
    OlderEpoch,
    /// Zeros in the place of batch 4.
    ZerosThenData,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JournalIs {
    Nothing,
    /// Batches 4 and 5, as they are or would be in the segment.
    Same,
    /// 4, and another 5.
    Other,
    /// 4 to 7.
    Beyond,
    /// Others for 4 and 5, of an older generation of the log.
    OlderGeneration,
    /// A commit that is not whole.
    Torn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexIs {
    Missing,
    /// Of one batch.
    Older,
    Right,
    /// Of seven.
    Newer,
    Corrupt,
    Foreign,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    checkpoint: CheckpointIs,
    segment: SegmentIs,
    journal: JournalIs,
    index: IndexIs,
    /// From which batch on the checkpoint has the index.
    tail: Option<usize>,
}

const BATCHES: usize = 8;

fn original(at: usize) -> Bytes {
    let batch = batch_at(at as i64, 1, 700);
    batch.assign(Offset::new(at as i64), EPOCH).1
}

fn other(at: usize, offset: i64, epoch: i32) -> Bytes {
    let batch = batch_at(90 + at as i64, 1, 700);
    batch.assign(Offset::new(offset), LeaderEpoch(epoch)).1
}

fn batch_len() -> usize {
    original(0).len()
}

impl SegmentIs {
    /// What stands where each batch belongs, and how long the file is.
    fn content(self) -> Option<(Vec<Vec<u8>>, usize)> {
        use SegmentIs::*;
        let one = batch_len();
        let mut batches: Vec<Vec<u8>> = (0..7).map(|at| original(at).to_vec()).collect();
        let len = match self {
            Missing => return None,
            Empty => 0,
            Short => one + one / 2,
            Exact | Padded => 4 * one,
            Torn => 5 * one + one / 2,
            _ => 7 * one,
        };
        match self {
            RottenBelow => batches[1][one / 2] ^= 8,
            RottenAbove => batches[5][one / 2] ^= 8,
            WrongOffset => batches[5] = other(5, 4, EPOCH.0).to_vec(),
            OlderEpoch => batches[5] = other(5, 5, EPOCH.0 - 1).to_vec(),
            ZerosThenData => batches[4].fill(0),
            _ => {}
        }
        Some((batches, len))
    }

    /// The batch that is whole and in its place.
    fn valid(self, at: usize) -> Option<Bytes> {
        let (batches, len) = self.content()?;
        let bytes = Bytes::from(batches.get(at)?.clone());
        let right = bytes == original(at);
        (right && (at + 1) * batch_len() <= len).then_some(bytes)
    }
}

impl Row {
    /// Something else, with a right CRC or without any header, stands where synced batches were: reads say so, or find nothing, from there to
    /// the next entry of the index. Before that everything must be as it was.
    fn judged_below(self) -> usize {
        let point = self.known().map_or(0, |(point, _)| point);
        match self.segment {
            SegmentIs::WrongOffset if point > 5 => 5,
            SegmentIs::ZerosThenData if point > 4 => 4,
            _ => BATCHES,
        }
    }

    /// The recovery point and the log's generation, if a checkpoint can be read.
    fn known(self) -> Option<(usize, u64)> {
        match self.checkpoint {
            CheckpointIs::Missing | CheckpointIs::Corrupt => None,
            CheckpointIs::Older => Some((2, 1)),
            CheckpointIs::Exact => Some((4, 1)),
            CheckpointIs::Newer => Some((6, 1)),
            CheckpointIs::AfterCut => Some((4, 2)),
        }
    }

    fn written_to_journal(self) -> (u64, Vec<(usize, Bytes)>) {
        match self.journal {
            JournalIs::Nothing => (1, vec![]),
            JournalIs::Same | JournalIs::Torn => (1, vec![(4, original(4)), (5, original(5))]),
            JournalIs::Other => (1, vec![(4, original(4)), (5, other(5, 5, EPOCH.0))]),
            JournalIs::Beyond => (1, (4..BATCHES).map(|at| (at, original(at))).collect()),
            JournalIs::OlderGeneration => {
                let others = [4, 5].map(|at| (at, other(at, at as i64, EPOCH.0)));
                (0, others.to_vec())
            }
        }
    }

    /// What the journal holds that counts.
    fn in_journal(self, at: usize) -> Option<Bytes> {
        let (generation, entries) = self.written_to_journal();
        let counts = self.known().is_none_or(|(_, known)| known == generation);
        let entry = entries.into_iter().find(|(entry, _)| *entry == at);
        entry
            .filter(|_| counts && self.journal != JournalIs::Torn)
            .map(|(_, bytes)| bytes)
    }
}

/// What must be found: by offset the batch, or that reading it fails.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    log_start: usize,
    batches: BTreeMap<usize, Option<Bytes>>,
    log_end: usize,
}

/// What is durable by the promises that were made: everything below the recovery point (as far as the disk still has it), and from there on
/// what journal or segment have without a gap, the journal's word first.
fn oracle(row: Row) -> Outcome {
    let mut outcome = Outcome {
        log_start: 0,
        batches: BTreeMap::new(),
        log_end: 0,
    };
    let anywhere = |at| row.in_journal(at).or_else(|| row.segment.valid(at));
    let file_len = row.segment.content().map(|(_, len)| len);
    let mut next = 0;
    if let Some((point, _)) = row.known() {
        let is_lost = file_len.is_none_or(|len| len < point * batch_len());
        let below = (0..point).map(|at| match is_lost {
            true => anywhere(at),
            false => row.segment.valid(at),
        });
        let below: Vec<Option<Bytes>> = below.collect();
        let first_gap = below.iter().position(Option::is_none).unwrap_or(point);
        // Only the segment's own batches are kept when they do not reach the point together with the journal's.
        let in_file = (0..point)
            .position(|at| row.segment.valid(at).is_none())
            .unwrap_or(point);
        match (is_lost, file_len) {
            (true, None) => outcome.log_start = point,
            (true, Some(_)) if first_gap < point => {
                let kept = below.into_iter().take(in_file).enumerate();
                outcome.batches.extend(kept);
            }
            _ => outcome.batches.extend(below.into_iter().enumerate()),
        }
        next = point;
    } else if file_len.is_none() {
        let Some(first) = (0..BATCHES).find(|&at| row.in_journal(at).is_some()) else {
            // Nothing says that there ever was a log.
            return outcome;
        };
        (outcome.log_start, next) = (first, first);
    }
    while let Some(bytes) = anywhere(next) {
        outcome.batches.insert(next, Some(bytes));
        next += 1;
    }
    outcome.log_end = next;
    outcome
}

async fn write_file(rt: &Rt, path: &Path, content: &[u8]) {
    let file = rt.open(path, OpenMode::Create).await.expect("create");
    if !content.is_empty() {
        let mut buffer = rt.alloc(content.len());
        buffer.bytes_mut()[..content.len()].copy_from_slice(content);
        file.write_at(buffer, 0).await.expect("write");
    }
    file.truncate(content.len() as u64).await.expect("truncate");
    file.sync().await.expect("sync");
}

fn index_of(batches: usize) -> Index {
    let mut index = Index::new(Offset::ZERO, 0, Timestamp(0));
    for at in 0..batches {
        let header = BatchHeader::parse(&original(at)).expect("a batch");
        index.push(&header, index.len());
    }
    index
}

async fn arrange(rig: &Rig, row: Row) {
    let (rt, data_dir) = (&rig.rt, &rig.engine.data_dir);
    let (id, _) = identity(0);
    let (log_dir, ring) = (rig.log_dir(), data_dir.join("journal/0"));
    for dir in [&log_dir, &ring] {
        rt.create_dir_all(dir).await.expect("create");
    }
    let content = format!("version: 0\ntopic_id: {}", id.topic_id);
    write_file(rt, &log_dir.join("partition.metadata"), content.as_bytes()).await;
    if let Some((batches, len)) = row.segment.content() {
        let mut bytes = batches.concat();
        bytes.truncate(len);
        if row.segment == SegmentIs::Padded {
            bytes.resize(len.next_multiple_of(BLOCK), 0);
        }
        write_file(rt, &log_dir.join("00000000000000000000.log"), &bytes).await;
    }
    let point = row.known().map_or(4, |(point, _)| point);
    let side = match row.index {
        IndexIs::Missing => None,
        IndexIs::Older => Some(index_of(1).encode()),
        IndexIs::Right => Some(index_of(point).encode()),
        IndexIs::Newer => Some(index_of(7).encode()),
        IndexIs::Foreign => Some(Index::new(Offset::new(9), 0, Timestamp(0)).encode()),
        IndexIs::Corrupt => {
            let mut bytes = index_of(point).encode();
            bytes[20] ^= 1;
            Some(bytes)
        }
    };
    if let Some(side) = side {
        write_file(rt, &log_dir.join("00000000000000000000.fbi"), &side).await;
    }
    write_checkpoint(rig, row, id, point).await;
    write_journal(rt, &ring, row, id).await;
}

async fn write_checkpoint(rig: &Rig, row: Row, id: LogId, point: usize) {
    if row.checkpoint == CheckpointIs::Missing {
        return;
    }
    let mut epochs = Epochs::default();
    epochs.append(EPOCH, Offset::ZERO);
    let from = row.tail.map(|from| (from * batch_len()) as u64);
    let record = LogCheckpoint {
        log: id,
        log_generation: row.known().map_or(1, |(_, generation)| generation),
        log_start: Offset::ZERO,
        recovery_offset: Offset::new(point as i64),
        recovery_segment_base: Offset::ZERO,
        recovery_position: (point * batch_len()) as u64,
        high_watermark: Offset::ZERO,
        index: from.map(|from| index_of(point).tail(from)),
        epochs,
        producers: Producers::default(),
    };
    let dir = rig.engine.data_dir.join("checkpoint");
    let conclusion = Conclusion {
        generation: 1,
        journal: None,
        clean: false,
    };
    let mut writer = Writer::new(rig.rt.clone(), &dir, ShardId(0));
    let written = writer.write(conclusion, [&record].into_iter(), std::iter::empty());
    written.await.expect("write");
    if row.checkpoint == CheckpointIs::Corrupt {
        let path = dir.join("shard-0");
        let content = rig.rt.read_small(&path, 1 << 20).await;
        let mut content = content.expect("read");
        content[100] ^= 1;
        rig.rt.remove_file(&path).await.expect("remove");
        write_file(&rig.rt, &path, &content).await;
    }
}

async fn write_journal(rt: &Rt, ring: &Path, row: Row, log: LogId) {
    let (log_generation, entries) = row.written_to_journal();
    let mut file = vec![0; BLOCK];
    let header = FileHeader {
        generation: 1,
        file_sequence: 0,
        first_commit: 0,
        file_bytes: 64 * 1024,
    };
    header.encode(&mut file);
    for (commit_sequence, (at, bytes)) in (0..).zip(entries) {
        let entry = Entry {
            log,
            log_generation,
            base_offset: Offset::new(at as i64),
            next_offset: Offset::new(at as i64 + 1),
            leader_epoch: EPOCH,
            bytes,
        };
        let stamp = Stamp {
            generation: 1,
            file_sequence: 0,
            commit_sequence,
        };
        let mut commit = vec![0; commit_len(entry_len(&entry))];
        encode_commit(&mut commit, stamp, [entry].iter());
        if row.journal == JournalIs::Torn {
            commit[512..].fill(0);
        }
        file.extend_from_slice(&commit);
    }
    file.resize(64 * 1024, 0);
    write_file(rt, &ring.join("0.journal"), &file).await;
}

/// What the open log says, read batch by batch.
async fn found(log: &Log) -> Outcome {
    let marks = log.marks();
    let mut batches = BTreeMap::new();
    let mut next = marks.log_start;
    while next < marks.log_end {
        let mut limit = everything(log);
        limit.bytes_max = 1;
        match log.read(next, limit).await {
            // A hole at the end: nothing to read until something is appended.
            Ok(fetched) if fetched.slices.is_empty() => break,
            Ok(fetched) => {
                let header = BatchHeader::parse(&fetched.slices[0]).expect("a batch");
                let at = header.base_offset.get() as usize;
                batches.insert(at, Some(fetched.slices[0].clone()));
                next = header.next_offset();
            }
            Err(_) => {
                batches.insert(next.get() as usize, None);
                next = next.plus(1);
            }
        }
    }
    Outcome {
        log_start: marks.log_start.get() as usize,
        batches,
        log_end: marks.log_end.get() as usize,
    }
}

fn check(row: Row) {
    sim::run(1, Disk::default(), move |rt| async move {
        let mut rig = Rig::new(rt, PathBuf::from("/data"));
        rig.engine.journal_file_bytes = 64 * 1024;
        rig.engine.journal_files = 2;
        rig.engine.bypass_bytes = 8 * 1024;
        arrange(&rig, row).await;
        for round in 0..2 {
            let (engine, log) = rig.start(config()).await;
            let marks = log.marks();
            assert_eq!(marks.counted_end, marks.log_end, "{row:?}, round {round}");
            let (mut found, mut expected) = (found(&log).await, oracle(row));
            for outcome in [&mut found, &mut expected] {
                outcome.batches.retain(|&at, _| at < row.judged_below());
            }
            assert_eq!(found, expected, "{row:?}, round {round}");
            engine.0.stop_background().await;
        }
    });
}

/// Every combination of the values given.
fn product(mut each: impl FnMut(CheckpointIs, SegmentIs, JournalIs)) {
    use SegmentIs::*;
    let checkpoints = [
        CheckpointIs::Missing,
        CheckpointIs::Older,
        CheckpointIs::Exact,
        CheckpointIs::Newer,
        CheckpointIs::Corrupt,
        CheckpointIs::AfterCut,
    ];
    let segments = [
        Missing,
        Empty,
        Short,
        Exact,
        Padded,
        Torn,
        Extra,
        RottenBelow,
        RottenAbove,
        WrongOffset,
        OlderEpoch,
        ZerosThenData,
    ];
    let journals = [
        JournalIs::Nothing,
        JournalIs::Same,
        JournalIs::Other,
        JournalIs::Beyond,
        JournalIs::OlderGeneration,
        JournalIs::Torn,
    ];
    for checkpoint in checkpoints {
        for segment in segments {
            for journal in journals {
                each(checkpoint, segment, journal);
            }
        }
    }
}

/// With each index the part of it in the checkpoint that makes a difference.
#[test]
fn all_rows() {
    let indexes = [
        IndexIs::Missing,
        IndexIs::Older,
        IndexIs::Right,
        IndexIs::Newer,
        IndexIs::Corrupt,
        IndexIs::Foreign,
    ];
    product(|checkpoint, segment, journal| {
        for index in indexes {
            let tails = match index {
                // Without a checkpoint there is no part of an index in it.
                _ if checkpoint == CheckpointIs::Missing => &[None][..],
                IndexIs::Missing => &[None, Some(0), Some(1)][..],
                IndexIs::Right => &[None][..],
                _ => &[Some(1)][..],
            };
            for &tail in tails {
                let (checkpoint, segment, journal) = (checkpoint, segment, journal);
                check(Row {
                    checkpoint,
                    segment,
                    journal,
                    index,
                    tail,
                });
            }
        }
    });
}

/// The tables of `engine/README.md`, section 6.
#[test]
fn the_tables() {
    use Decision::{Cut, CutAndAppend, Keep, Restore};
    use InJournal::{Absent, Beyond, Last, Other, Same};
    use InSegment::{Broken, Valid};
    for (segment, journal, expected) in [
        (Valid, Absent, Keep),
        (Valid, Same, Keep),
        (Valid, Other, Restore),
        (Valid, Beyond, CutAndAppend),
        (Valid, Last, CutAndAppend),
        (Broken, Other, Restore),
        (Broken, Beyond, CutAndAppend),
        (Broken, Last, CutAndAppend),
        (Broken, Absent, Cut),
    ] {
        assert_eq!(decide(segment, journal), expected);
    }
    for (point, remains, expected) in [
        (Point::Unknown, Remains::Nothing, Start::Create),
        (Point::Unknown, Remains::OnlyJournal, Start::WalkAndBridge),
        (Point::Unknown, Remains::Segments, Start::WalkAll),
        (Point::InFile, Remains::Segments, Start::WalkFromPoint),
        (Point::AtNextFile, Remains::Segments, Start::WalkFromPoint),
        (Point::Lost, Remains::Segments, Start::WalkAndBridge),
        (Point::Lost, Remains::OnlyJournal, Start::WalkAndBridge),
        (Point::Lost, Remains::Nothing, Start::WalkAndBridge),
    ] {
        assert_eq!(start(point, remains), expected);
    }
    for (in_checkpoint, side_file, expected) in [
        (
            InCheckpoint::Everything,
            SideFile::Newer,
            IndexFrom::Checkpoint,
        ),
        (
            InCheckpoint::Rest,
            SideFile::Meets,
            IndexFrom::SideFileAndCheckpoint,
        ),
        (
            InCheckpoint::Rest,
            SideFile::Newer,
            IndexFrom::SideFileAndCheckpoint,
        ),
        (
            InCheckpoint::Rest,
            SideFile::Older,
            IndexFrom::SideFileAndBatches,
        ),
        (InCheckpoint::Rest, SideFile::Unusable, IndexFrom::Batches),
        (
            InCheckpoint::Nothing,
            SideFile::Meets,
            IndexFrom::SideFileAndBatches,
        ),
        (
            InCheckpoint::Nothing,
            SideFile::Unusable,
            IndexFrom::Batches,
        ),
    ] {
        assert_eq!(index_from(in_checkpoint, side_file), expected);
    }
}

/// Whose the directory is, against what is in it.
#[test]
fn identities() {
    const OTHER: &str = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
    for metadata in [None, Some("ours"), Some(OTHER), Some("garbage")] {
        for has_data in [false, true] {
            for leftover in [
                None,
                Some("1.log.deleted"),
                Some("0.fbi.tmp"),
                Some("notes.txt"),
            ] {
                sim::run(1, Disk::default(), move |rt| async move {
                    let rig = Rig::new(rt, PathBuf::from("/data"));
                    let (rt, dir, (id, name)) = (&rig.rt, rig.log_dir(), identity(0));
                    rt.create_dir_all(&dir).await.expect("create");
                    let ours = format!("version: 0\ntopic_id: {}", id.topic_id);
                    if let Some(content) = metadata {
                        let content = if content == "ours" { &ours } else { content };
                        write_file(rt, &dir.join("partition.metadata"), content.as_bytes()).await;
                    }
                    if has_data {
                        let path = dir.join("00000000000000000000.log");
                        write_file(rt, &path, &original(0)).await;
                    }
                    if let Some(leftover) = leftover {
                        write_file(rt, &dir.join(leftover), b"left").await;
                    }
                    let engine = Engine::open(rt.clone(), rig.engine.clone()).await;
                    let opened = engine.expect("open").open_log(id, name, config()).await;
                    let case = format!("{metadata:?}, data {has_data}, {leftover:?}");
                    match (metadata, has_data) {
                        (Some("ours"), _) | (None | Some("garbage"), false) => {
                            let end = opened.expect(&case).marks().log_end.get();
                            assert_eq!(end, i64::from(has_data), "{case}");
                            let kept = rt.read_small(&dir.join("partition.metadata"), 99).await;
                            assert_eq!(kept.expect("there"), ours.as_bytes());
                        }
                        (Some("garbage"), true) => {
                            assert!(matches!(opened, Err(OpenError::Fault(_))), "{case}");
                        }
                        _ => {
                            let refused = matches!(opened, Err(OpenError::WrongIdentity { .. }));
                            assert!(refused, "{case}");
                        }
                    }
                    if let Some(leftover) = leftover {
                        let stays = rt.exists(&dir.join(leftover)).await;
                        assert_eq!(stays, leftover == "notes.txt", "{case}");
                    }
                });
            }
        }
    }
}
