//! What a shard knows to be durable in segments, so that recovery reads only what came after.
//!
//! One file per shard, `<data>/checkpoint/shard-<n>`: `format` holds the bytes, `writer` writes it. A shard reads its own file at the start,
//! and those of the others only when that does not say all of a log, since a log moves when the number of cores changes. Of several records
//! of one log that of the newest ring generation counts. A file that is missing or damaged is reported and not fatal: recovery of its logs
//! then walks their segments.
//!
//! Offsets here are promises about files that were synced before the checkpoint was written; the caller keeps that order.

pub mod format;
#[cfg(test)]
mod tests;
pub mod writer;

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::{
    error::Fault,
    journal::JournalPosition,
    log::{epochs::Epochs, producers::Producers},
    rt::{OpenMode, Rt, window::Window},
    segment::IndexTail,
    types::{LogId, Offset, ShardId},
};
use format::{BLOCK, Ending, PART_HEADER_LEN, PartHeader, decode_record};

pub use writer::{Conclusion, Writer};

/// A larger file is not read, and not written.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

/// What one shard says of a log.
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
    /// Of that segment up to that position, as far as its side file does not say it; `None` once it is sealed.
    pub index: Option<IndexTail>,
    pub epochs: Epochs,
    /// As of `recovery_offset`.
    pub producers: Producers,
}

/// A record and where it comes from.
#[derive(Clone, Debug)]
pub struct Known {
    /// Of the journal rings in the run that found this to be true.
    pub generation: u64,
    pub shard: ShardId,
    pub clean: bool,
    pub record: Rc<LogCheckpoint>,
}

/// The checkpoint files of a data directory, as far as they were read.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    files: Vec<CheckpointFile>,
    loaded: HashSet<ShardId>,
    logs: HashMap<LogId, Known>,
    /// Newest one in any file.
    generation: Option<u64>,
    journals: HashMap<ShardId, JournalPosition>,
    /// Shards whose file ends with an orderly end.
    closed: HashSet<ShardId>,
    damage: Vec<Fault>,
    read_bytes: u64,
}

#[derive(Clone, Debug)]
struct CheckpointFile {
    shard: ShardId,
    path: PathBuf,
}

/// One file, read.
struct Content {
    records: Vec<(u64, LogCheckpoint)>,
    clean: bool,
    journal: Option<JournalPosition>,
}

impl Checkpoints {
    /// Looks at the files in `dir`, which need not exist, and reads no more of them than whose they are.
    pub async fn open(rt: &Rt, dir: &Path) -> Result<Checkpoints, Fault> {
        let mut all = Checkpoints::default();
        if !rt.exists(dir).await {
            return Ok(all);
        }
        let listed = rt.list_dir(dir).await;
        let listed = listed.map_err(|error| Fault::io("list the directory", dir, error))?;
        for entry in listed {
            let Some(shard) = shard_of(&entry.name) else {
                continue;
            };
            let path = dir.join(&entry.name);
            match all.head(rt, &path).await {
                Ok(head) => all.generation = all.generation.max(Some(head.generation)),
                // A damaged one is reported when it is asked for. How new it is need not be known: had it been written by a later run than
                // this shard's own file, and had that run appended anything, then the rings would be of that run too.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(Fault::io("read the checkpoint", path, error)),
            }
            all.files.push(CheckpointFile { shard, path });
        }
        Ok(all)
    }

    /// Reads the file of a shard, unless that was done. A damaged one is noted; one that the disk does not give out now may be whole, and
    /// is an error: who goes on without it forgets log starts, and overwrites it.
    pub async fn load(&mut self, rt: &Rt, shard: ShardId) -> Result<(), Fault> {
        let file = self.files.iter().find(|file| file.shard == shard);
        let path = file.map(|file| file.path.clone());
        let Some(path) = path.filter(|_| !self.loaded.contains(&shard)) else {
            return Ok(());
        };
        match self.read(rt, &path).await {
            Ok(content) => self.merge(shard, content),
            Err(fault @ Fault::Io { .. }) => return Err(fault),
            Err(fault) => self.damage.push(fault),
        }
        self.loaded.insert(shard);
        Ok(())
    }

    /// Reads the files of all shards.
    pub async fn load_all(&mut self, rt: &Rt) -> Result<(), Fault> {
        let shards: Vec<ShardId> = self.files.iter().map(|file| file.shard).collect();
        for shard in shards {
            self.load(rt, shard).await?;
        }
        Ok(())
    }

    /// What is known of a log. With a damaged file only records of the newest generation are trusted: an older one may have been
    /// superseded by what is lost, even by a cut.
    pub fn log(&self, log: LogId) -> Option<&Known> {
        let known = self.logs.get(&log)?;
        let trusted = self.damage.is_empty() || Some(known.generation) == self.generation;
        trusted.then_some(known)
    }

    /// Everything that is known, in no order.
    pub fn logs(&self) -> impl Iterator<Item = &Known> {
        self.logs.values()
    }

    /// Whether the last run closed this log in order, so that nothing need be scanned.
    pub fn is_clean(&self, log: LogId) -> bool {
        let known = self.log(log).filter(|_| self.damage.is_empty());
        known.is_some_and(|known| known.clean && Some(known.generation) == self.generation)
    }

    /// Whether the last run of this shard was closed, with all of its logs.
    pub fn ended_in_order(&self, shard: ShardId) -> bool {
        self.damage.is_empty() && self.closed.contains(&shard)
    }

    /// Newest ring generation in any file.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// What the ring of this shard holds before this position is covered.
    pub fn journal(&self, shard: ShardId) -> Option<JournalPosition> {
        self.journals.get(&shard).copied()
    }

    /// Files that could not be read.
    pub fn damage(&self) -> &[Fault] {
        &self.damage
    }

    /// Bytes read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The header of the first part, as it was written.
    async fn head(&mut self, rt: &Rt, path: &Path) -> io::Result<PartHeader> {
        let file = rt.open(path, OpenMode::Read).await?;
        let block = file.read_at(0, BLOCK).await?;
        self.read_bytes += block.len() as u64;
        let mut head = PartHeader::decode(&block);
        if let Some(unchecked) = head.filter(|head| !head.is_checked()) {
            let part = file.read_at(0, unchecked.bytes()).await?;
            self.read_bytes += part.len() as u64;
            head = unchecked.records(&part).map(|_| unchecked);
        }
        file.close().await?;
        head.ok_or(io::ErrorKind::InvalidData.into())
    }

    async fn read(&mut self, rt: &Rt, path: &Path) -> Result<Content, Fault> {
        let fault = |error| Fault::io("read the checkpoint", path, error);
        let file = rt.open(path, OpenMode::Read).await.map_err(fault)?;
        let len = file.len().await.map_err(fault)?;
        if len > CHECKPOINT_BYTES_MAX {
            return Err(Fault::corrupt("too large for a checkpoint", path));
        }
        let mut window = Window::new(&file, len);
        let content = Content::read(&mut window).await.map_err(fault)?;
        self.read_bytes += window.read_bytes();
        file.close().await.map_err(fault)?;
        content.map_err(|what| Fault::corrupt(what, path))
    }

    fn merge(&mut self, shard: ShardId, from: Content) {
        if let Some(journal) = from.journal {
            self.journals.insert(shard, journal);
        }
        if from.clean {
            self.closed.insert(shard);
        }
        for (generation, record) in from.records {
            self.generation = self.generation.max(Some(generation));
            let rank = |generation: u64, record: &LogCheckpoint| {
                (generation, record.log_generation, record.recovery_offset)
            };
            // Of two that are equal in all of these the later one in a file counts: its log start may be higher.
            let newer = self.logs.get(&record.log).is_none_or(|known| {
                rank(known.generation, &known.record) <= rank(generation, &record)
            });
            if newer {
                let known = Known {
                    generation,
                    shard,
                    clean: from.clean,
                    record: Rc::new(record),
                };
                self.logs.insert(known.record.log, known);
            }
        }
    }
}

impl Content {
    /// Reads part after part. What is torn at the end was never told to anybody; what is broken before the end is damage.
    async fn read(window: &mut Window<'_>) -> io::Result<Result<Content, &'static str>> {
        let mut content = Content {
            records: Vec::new(),
            clean: false,
            journal: None,
        };
        let (mut position, mut sequence) = (0, 0);
        while position < window.end() {
            let Some((header, part)) = whole_part(window, position).await? else {
                break;
            };
            if header.sequence != sequence {
                return Ok(Err("a part is out of order"));
            }
            let mut records = header.records(&part).expect("checked");
            while !records.is_empty() {
                let Some(record) = decode_record(&mut records) else {
                    return Ok(Err("a log's record contradicts itself"));
                };
                content.records.push((header.generation, record));
            }
            if header.ending != Ending::GoesOn {
                content.clean = header.ending == Ending::EndsRun;
                content.journal = header.journal;
            }
            position += header.len_in_file() as u64;
            sequence += 1;
        }
        if sequence == 0 {
            return Ok(Err("it does not begin with a whole part"));
        }
        // Behind a torn addition there is nothing.
        let mut after = position + BLOCK as u64;
        while after < window.end() {
            if let Some((header, _)) = whole_part(window, after).await?
                && header.sequence > sequence
            {
                return Ok(Err("a part in the middle is broken"));
            }
            after += BLOCK as u64;
        }
        Ok(Ok(content))
    }
}

/// The part at `position` with its bytes, if it is there and as it was written.
async fn whole_part(
    window: &mut Window<'_>,
    position: u64,
) -> io::Result<Option<(PartHeader, bytes::Bytes)>> {
    let start = window.get(position, PART_HEADER_LEN).await?;
    let Some(header) = PartHeader::decode(&start) else {
        return Ok(None);
    };
    let part = window.get(position, header.bytes()).await?;
    Ok(header.records(&part).map(|_| (header, part.clone())))
}

fn file_path(dir: &Path, shard: ShardId) -> PathBuf {
    dir.join(format!("shard-{}", shard.0))
}

/// Whose file has this name, if it is one of these.
pub fn shard_of(name: &str) -> Option<ShardId> {
    let shard = name.strip_prefix("shard-")?.parse().ok()?;
    (name == format!("shard-{shard}")).then_some(ShardId(shard))
}
