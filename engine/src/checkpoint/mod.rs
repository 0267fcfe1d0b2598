//! What a shard knows to be durable in segments, so that recovery reads only what came after.
//!
//! One file per shard, `<data>/checkpoint/shard-<n>`, replaced as a whole. Loading merges the files of all shards, since a log moves
//! when the number of cores changes: of several records of one log that of the newest ring generation counts. A file that is missing or
//! damaged is reported and not fatal: recovery of its logs then scans their segments.
//!
//! ```text
//! 0        8         12           16           24       32
//! +--------+---------+------------+------------+--------+----------------------------------------+
//! | magic  | version | CRC-32 of  | body bytes | zero   | body: rkyv (little-endian, bytecheck)  |
//! | 8 bytes| u32 LE  | body u32 LE| u64 LE     | u64    |                                        |
//! +--------+---------+------------+------------+--------+----------------------------------------+
//! ```
//!
//! Offsets here are promises about files that were synced before the checkpoint was written; the caller keeps that order.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use crate::{
    error::Fault,
    log::{
        epochs::{Epochs, EpochsSnapshot},
        producers::{Producers, ProducersSnapshot},
    },
    rt::{Rt, durable},
    types::{LogId, Offset, PartitionIndex, ShardId, TopicId},
};

/// A larger file is not read, and not written.
pub const CHECKPOINT_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 8] = *b"fbcheckp";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 32;

/// All that one shard keeps about its logs.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Of the shard's journal in the run that wrote this.
    pub generation: u64,
    /// Written at an orderly end: nothing followed.
    pub clean: bool,
    pub logs: Vec<LogCheckpoint>,
}

#[derive(Clone, Debug)]
pub struct LogCheckpoint {
    pub log: LogId,
    pub log_generation: u64,
    pub log_start: Offset,
    /// Everything below is durable in segments.
    pub recovery_offset: Offset,
    /// The segment that `recovery_offset` falls into, and where in its file.
    pub recovery_segment_base: Offset,
    pub recovery_position: u64,
    /// A hint; it may have been higher.
    pub high_watermark: Offset,
    pub epochs: Epochs,
    /// As of `recovery_offset`.
    pub producers: Producers,
}

/// The checkpoints of all shards.
#[derive(Debug, Default)]
pub struct Checkpoints {
    logs: HashMap<LogId, Merged>,
    generation: Option<u64>,
    damage: Vec<Fault>,
    files: Vec<(u16, PathBuf)>,
}

#[derive(Debug)]
struct Merged {
    generation: u64,
    clean: bool,
    checkpoint: LogCheckpoint,
}

/// Writes the checkpoint of `shard`; durable when it returns.
pub async fn write(
    rt: &Rt,
    dir: &Path,
    shard: ShardId,
    checkpoint: &Checkpoint,
) -> Result<(), Fault> {
    let path = file_path(dir, shard);
    let content = encode(checkpoint);
    if content.len() > CHECKPOINT_BYTES_MAX {
        let what = format!("a checkpoint of {} bytes is too large", content.len());
        return Err(Fault::corrupt(what, path));
    }
    // Also when it is there: a run that was killed may have made it and not got as far as the sync.
    rt.create_dir_all(dir)
        .await
        .map_err(|error| Fault::io("create the directory", dir, error))?;
    let parent = dir.parent().unwrap_or(Path::new("."));
    durable::sync_dir(rt, parent).await?;
    durable::replace_file(rt, &path, &content).await
}

/// Reads the checkpoints of all shards in `dir`, which need not exist.
pub async fn load_all(rt: &Rt, dir: &Path) -> Result<Checkpoints, Fault> {
    let mut all = Checkpoints::default();
    if !rt.exists(dir).await {
        return Ok(all);
    }
    let listed = rt
        .list_dir(dir)
        .await
        .map_err(|error| Fault::io("list the directory", dir, error))?;
    for entry in listed {
        let Some(shard) = shard_of(&entry.name) else {
            continue;
        };
        let path = dir.join(&entry.name);
        match load(rt, &path).await {
            Ok(checkpoint) => all.merge(checkpoint),
            Err(fault) => all.damage.push(fault),
        }
        all.files.push((shard, path));
    }
    Ok(all)
}

impl Checkpoints {
    /// What is known of a log. With a damaged file only records of the newest generation are trusted: an older one may have been
    /// superseded by what is lost, even by a cut.
    pub fn log(&self, log: LogId) -> Option<&LogCheckpoint> {
        self.trusted(log).map(|merged| &merged.checkpoint)
    }

    /// Whether the last run closed this log in order, so that nothing need be scanned.
    pub fn is_clean(&self, log: LogId) -> bool {
        self.damage.is_empty()
            && self
                .trusted(log)
                .is_some_and(|merged| merged.clean && Some(merged.generation) == self.generation)
    }

    /// Newest ring generation in any file.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Files that could not be read.
    pub fn damage(&self) -> &[Fault] {
        &self.damage
    }

    /// Files of shards that do not exist any more. They may be removed once the logs in them are in another shard's checkpoint.
    pub fn stray_files(&self, shards: u16) -> impl Iterator<Item = &Path> + '_ {
        self.files
            .iter()
            .filter(move |(shard, _)| *shard >= shards)
            .map(|(_, path)| path.as_path())
    }

    fn trusted(&self, log: LogId) -> Option<&Merged> {
        self.logs
            .get(&log)
            .filter(|merged| self.damage.is_empty() || Some(merged.generation) == self.generation)
    }

    fn merge(&mut self, from: Checkpoint) {
        let (generation, clean) = (from.generation, from.clean);
        self.generation = self.generation.max(Some(generation));
        for checkpoint in from.logs {
            let rank = |generation: u64, checkpoint: &LogCheckpoint| {
                let log_generation = checkpoint.log_generation;
                (generation, log_generation, checkpoint.recovery_offset)
            };
            let newer = self.logs.get(&checkpoint.log).is_none_or(|known| {
                rank(known.generation, &known.checkpoint) < rank(generation, &checkpoint)
            });
            if newer {
                let merged = Merged {
                    generation,
                    clean,
                    checkpoint,
                };
                self.logs.insert(merged.checkpoint.log, merged);
            }
        }
    }
}

/// The body of a file.
#[derive(Archive, Serialize, Deserialize)]
struct Body {
    generation: u64,
    clean: bool,
    logs: Vec<LogBody>,
}

#[derive(Archive, Serialize, Deserialize)]
struct LogBody {
    topic_id: [u8; 16],
    partition: i32,
    log_generation: u64,
    log_start: i64,
    recovery_offset: i64,
    recovery_segment_base: i64,
    recovery_position: u64,
    high_watermark: i64,
    epochs: EpochsSnapshot,
    producers: ProducersSnapshot,
}

fn file_path(dir: &Path, shard: ShardId) -> PathBuf {
    dir.join(format!("shard-{}", shard.0))
}

fn shard_of(name: &str) -> Option<u16> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (name == format!("shard-{shard}")).then_some(shard)
}

fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let body = Body {
        generation: checkpoint.generation,
        clean: checkpoint.clean,
        logs: checkpoint.logs.iter().map(LogBody::of).collect(),
    };
    let body = rkyv::to_bytes::<rancor::Error>(&body).expect("memory takes plain data");
    let mut content = Vec::with_capacity(HEADER_LEN + body.len());
    content.extend_from_slice(&MAGIC);
    content.extend_from_slice(&VERSION.to_le_bytes());
    content.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    content.extend_from_slice(&(body.len() as u64).to_le_bytes());
    content.extend_from_slice(&[0; 8]);
    assert!(content.len() == HEADER_LEN);
    content.extend_from_slice(&body);
    content
}

async fn load(rt: &Rt, path: &Path) -> Result<Checkpoint, Fault> {
    let content = rt
        .read_small(path, CHECKPOINT_BYTES_MAX)
        .await
        .map_err(|error| Fault::io("read the checkpoint", path, error))?;
    decode(&content).map_err(|what| Fault::corrupt(what, path))
}

fn decode(content: &[u8]) -> Result<Checkpoint, &'static str> {
    let (header, body) = content
        .split_at_checked(HEADER_LEN)
        .ok_or("shorter than its header")?;
    let mut expected = [0; HEADER_LEN];
    expected[..8].copy_from_slice(&MAGIC);
    expected[8..12].copy_from_slice(&VERSION.to_le_bytes());
    expected[12..16].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    expected[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    if header != expected {
        return Err("magic, version, length or CRC is wrong");
    }
    // rkyv reads in place and wants its alignment.
    let mut aligned = AlignedVec::<16>::with_capacity(body.len());
    aligned.extend_from_slice(body);
    let body = rkyv::from_bytes::<Body, rancor::Error>(&aligned)
        .map_err(|_| "body is not a checkpoint")?;
    let logs: Option<Vec<_>> = body.logs.iter().map(LogBody::to_checkpoint).collect();
    Ok(Checkpoint {
        generation: body.generation,
        clean: body.clean,
        logs: logs.ok_or("a log's record contradicts itself")?,
    })
}

impl LogBody {
    fn of(checkpoint: &LogCheckpoint) -> LogBody {
        LogBody {
            topic_id: checkpoint.log.topic_id.0,
            partition: checkpoint.log.partition.0,
            log_generation: checkpoint.log_generation,
            log_start: checkpoint.log_start.get(),
            recovery_offset: checkpoint.recovery_offset.get(),
            recovery_segment_base: checkpoint.recovery_segment_base.get(),
            recovery_position: checkpoint.recovery_position,
            high_watermark: checkpoint.high_watermark.get(),
            epochs: checkpoint.epochs.snapshot(),
            producers: checkpoint.producers.snapshot(),
        }
    }

    fn to_checkpoint(&self) -> Option<LogCheckpoint> {
        let checkpoint = LogCheckpoint {
            log: LogId {
                topic_id: TopicId(self.topic_id),
                partition: PartitionIndex(self.partition),
            },
            log_generation: self.log_generation,
            log_start: Offset::from_wire(self.log_start)?,
            recovery_offset: Offset::from_wire(self.recovery_offset)?,
            recovery_segment_base: Offset::from_wire(self.recovery_segment_base)?,
            recovery_position: self.recovery_position,
            high_watermark: Offset::from_wire(self.high_watermark)?,
            epochs: Epochs::restore(&self.epochs)?,
            producers: Producers::restore(&self.producers)?,
        };
        let ordered = checkpoint.recovery_segment_base <= checkpoint.recovery_offset;
        ordered.then_some(checkpoint)
    }
}
