//! The entry for fuzzers: any bytes at all, taken for the files of a data directory with two logs.
//!
//! `cargo test` drives it with seeded mutations of the golden directories, `tests/fuzz` with whatever a fuzzer thinks of.

use std::path::{Path, PathBuf};

use super::{Durability, Log, LogConfig, ReadLimit, SpaceUse, TimestampType};
use crate::{
    Engine, EngineConfig, SpaceConfig,
    batch::{self, BatchHeader, BatchRules},
    checkpoint, journal,
    rt::{
        OpenMode, Rt,
        sim::{self, Disk},
    },
    segment::index,
    types::{LogId, LogName, Offset, PartitionIndex, ShardId, TopicId},
};

/// What the files may be, below the data directory.
pub const FILES: [&str; 17] = [
    "t-0/partition.metadata",
    "t-0/00000000000000000000.log",
    "t-0/00000000000000000000.fbi",
    "t-0/00000000000000000005.log",
    "t-0/00000000000000000005.fbi",
    "t-0/00000000000000000010.log",
    "t-0/00000000000000000010.fbi",
    "t-1/partition.metadata",
    "t-1/00000000000000000000.log",
    "t-1/00000000000000000000.fbi",
    "t-1/00000000000000000004.log",
    "t-1/00000000000000000004.fbi",
    "t-1/00000000000000000008.log",
    "t-1/00000000000000000008.fbi",
    "checkpoint/shard-0",
    "journal/0/0.journal",
    "journal/0/1.journal",
];

const LOGS: i32 = 2;
const FILE_BYTES_MAX: usize = 1 << 20;

/// The first byte says whether CRCs are made right (bit 0), so that the checks behind them are reached, and how the first start ends (bits 1
/// and 2). Then one file after the other: place in [`FILES`], length (u24), content.
///
/// Panics if a start does, if something is served that does not check, or if the next start does not find the same.
pub fn fuzz_recovery(data: &[u8]) {
    let Some((&choice, files)) = data.split_first() else {
        return;
    };
    let files = unpack(files, choice & 1 != 0);
    let (first, disk) = sim::run(1, Disk::default(), move |rt| async move {
        for (name, content) in &files {
            place(&rt, &Path::new("/data").join(name), content).await;
        }
        rt.create_dir_all(Path::new("/data")).await.expect("create");
        rt.sync_dir(Path::new("/")).await.expect("sync");
        start(rt, choice & 2 != 0).await
    });
    let disk = match choice & 4 != 0 {
        true => disk.crash(u64::from(choice)),
        false => disk,
    };
    let (second, _) = sim::run(2, disk, |rt| start(rt, true));
    assert!(
        first.as_ref().ok() == second.as_ref().ok(),
        "the first start found {first:?}, the second one {second:?}"
    );
}

/// What [`fuzz_recovery`] takes apart.
pub fn pack<'a>(choice: u8, files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut packed = vec![choice];
    for (name, content) in files {
        let Some(at) = FILES.iter().position(|file| *file == name) else {
            continue;
        };
        packed.push(at as u8);
        packed.extend_from_slice(&(content.len() as u32).to_le_bytes()[..3]);
        packed.extend_from_slice(content);
    }
    packed
}

fn unpack(mut packed: &[u8], repair: bool) -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<(&str, Vec<u8>)> = Vec::new();
    while let Some((&[at, low, middle, high], rest)) = packed.split_first_chunk() {
        let len = u32::from_le_bytes([low, middle, high, 0]) as usize;
        let (content, rest) = rest.split_at(len.min(rest.len()).min(FILE_BYTES_MAX));
        packed = rest;
        let name = FILES[usize::from(at) % FILES.len()];
        let mut content = content.to_vec();
        if repair {
            match name.rsplit_once(['.', '/']).map_or("", |(_, kind)| kind) {
                "log" => batch::fuzz::repair_all(&mut content),
                "fbi" => index::repair(&mut content),
                "journal" => journal::format::repair(&mut content),
                "shard-0" => checkpoint::format::repair(&mut content),
                _ => {}
            }
        }
        files.retain(|(known, _)| *known != name);
        files.push((name, content));
    }
    files
}

/// Writes a file of the simulated disk, durably.
pub async fn place(rt: &Rt, path: &Path, content: &[u8]) {
    let parent = path.parent().expect("a parent");
    rt.create_dir_all(parent).await.expect("create");
    let file = rt.open(path, OpenMode::Create).await.expect("create");
    if !content.is_empty() {
        let mut buffer = rt.alloc(content.len());
        buffer.bytes_mut()[..content.len()].copy_from_slice(content);
        file.write_at(buffer, 0).await.expect("write");
        file.truncate(content.len() as u64).await.expect("cut");
    }
    file.sync().await.expect("sync");
    file.close().await.expect("close");
    for dir in parent.ancestors() {
        rt.sync_dir(dir).await.expect("sync");
    }
}

/// What a start found, or why it was refused.
type Found = Result<Vec<FoundLog>, String>;

#[derive(Debug, PartialEq, Eq)]
struct FoundLog {
    start: Offset,
    end: Offset,
    /// Offset and CRC of each batch that is served, up to the first one that is damaged.
    batches: Vec<(Offset, u32)>,
}

async fn start(rt: Rt, ends_in_order: bool) -> Found {
    let refused = |why: &dyn std::fmt::Debug| format!("{why:?}");
    let engine = Engine::open(rt, engine_config()).await;
    let engine = engine.map_err(|fault| refused(&fault))?;
    let mut logs = Vec::new();
    for partition in 0..LOGS {
        let (id, name) = identity(partition);
        logs.push(engine.open_log(id, name, log_config()).await);
    }
    let synced = engine.sync_recovered().await;
    synced.map_err(|fault| refused(&fault))?;
    engine.start_journal().await.expect("the disk is well");
    let mut found = Vec::new();
    for log in logs.into_iter().flatten() {
        found.push(read(&log).await);
    }
    if ends_in_order {
        engine.close().await.expect("the disk is well");
    }
    Ok(found)
}

async fn read(log: &Log) -> FoundLog {
    let marks = log.marks();
    let mut batches = Vec::new();
    let mut next = marks.log_start;
    while next < marks.log_end {
        let limit = ReadLimit {
            below: marks.log_end,
            bytes_max: 4096,
            at_least_one: true,
        };
        let from = next;
        let Ok(fetched) = log.read(from, limit).await else {
            break;
        };
        for slice in fetched.slices {
            let header = BatchHeader::parse(&slice).expect("a whole batch is served");
            assert!(header.total_len == slice.len());
            assert!(
                header.check_crc(&slice).is_ok(),
                "a damaged batch is served"
            );
            assert!(header.next_offset() > next && header.next_offset() <= marks.log_end);
            next = header.next_offset();
            batches.push((header.base_offset, header.crc));
        }
        match fetched.next {
            Some(further) => {
                assert!(further >= next && further > from, "a read goes forward");
                next = further;
            }
            None => break,
        }
    }
    FoundLog {
        start: marks.log_start,
        end: marks.log_end,
        batches,
    }
}

/// Those of the golden directories.
pub fn identity(partition: i32) -> (LogId, LogName) {
    let partition = PartitionIndex(partition);
    let id = LogId {
        topic_id: TopicId(*b"a topic of tests"),
        partition,
    };
    let topic = "t".to_owned();
    (id, LogName { topic, partition })
}

fn engine_config() -> EngineConfig {
    EngineConfig {
        data_dir: PathBuf::from("/data"),
        shard: ShardId(0),
        journal_file_bytes: 64 * 1024,
        journal_files: 2,
        bypass_bytes: 8 * 1024,
        write_chunk_bytes_max: 128 * 1024,
        tail_bytes_max: 8 << 20,
        readahead_bytes_max: 8 << 20,
        checkpoint_interval_ms: 60_000,
        retention_check_interval_ms: 60_000,
        spare_segments_max: 1,
        producer_id_expiration_ms: 86_400_000,
        space: SpaceConfig::default(),
        syncs_together_min: 3,
    }
}

fn log_config() -> LogConfig {
    LogConfig {
        durability: Durability::Persisted,
        segment_bytes: 2000,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: false,
        space: SpaceUse::Data,
        rules: BatchRules {
            message_bytes_max: 1 << 20,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: None,
            keys_required: false,
            codec: None,
            control_allowed: false,
        },
    }
}
