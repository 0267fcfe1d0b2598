//! Reads what the last run left in the journal.
//!
//! The scan takes the rings of all shards, keeps the files of the newest ring generation found in any of them, and walks their commits
//! in order of file sequence. Within a file it stops at the first commit that does not carry the generation and file sequence of
//! the file's header and the next commit sequence, or is not whole: what lies behind is of an earlier use. If the commits of the next
//! file do not go on where these ended, something durable was damaged; the scan says so in [`Replay::damage`] and still
//! takes the rest, since generation, sequence and CRC prove what it is, and logs check that offsets follow.
//!
//! Keeps an index of the entries, not their bytes: those are read again, and checked again, when asked for.

use std::{
    collections::HashMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    format::{BLOCK, COMMIT_HEADER_LEN, CommitHeader, FileHeader, FoundEntry, Stamp, commit_len},
    ring::file_index,
};
use crate::{
    error::Fault,
    rt::{File, OpenMode, Rt},
    types::{LeaderEpoch, LogId, Offset},
};

/// The scan reads files in pieces of this size; a larger commit is read on its own.
const SCAN_BYTES: usize = 1 << 20;

/// What the journals of all shards held when the scan looked.
pub struct Replay {
    files: Vec<File>,
    entries: HashMap<LogId, Vec<EntryAt>>,
    damage: Vec<Fault>,
    /// Newest ring generation in any header.
    generation: Option<u64>,
    /// (shard, directory) of every ring that was found.
    rings: Vec<(u32, PathBuf)>,
}

/// One entry and where its batches are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryAt {
    pub log_generation: u64,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub len: usize,
    file: usize,
    position: u64,
    /// CRC-32 of the batches when they were scanned.
    crc: u32,
}

struct FoundFile {
    path: PathBuf,
    shard: u32,
    file: File,
    header: FileHeader,
}

impl Replay {
    /// Reads all rings below `journal_root` and changes nothing. A root that does not exist is an empty journal.
    pub async fn scan(rt: &Rt, journal_root: &Path) -> Result<Replay, Fault> {
        let mut replay = Replay {
            files: Vec::new(),
            entries: HashMap::new(),
            damage: Vec::new(),
            generation: None,
            rings: find_rings(rt, journal_root).await?,
        };
        let mut found = Vec::new();
        for (shard, dir) in &replay.rings {
            find_files(rt, *shard, dir, &mut found).await?;
        }
        replay.generation = found.iter().map(|file| file.header.generation).max();
        found.retain(|file| Some(file.header.generation) == replay.generation);
        found.sort_by_key(|file| (file.shard, file.header.file_sequence));
        let mut previous: Option<(u32, u64, u64)> = None;
        for file in found {
            let (shard, header) = (file.shard, file.header);
            if let Some((previous_shard, file_sequence, next_commit)) = previous
                && previous_shard == shard
                && (header.file_sequence, header.first_commit) != (file_sequence + 1, next_commit)
            {
                let what = format!(
                    "file sequence {} begins with commit {}, but file {file_sequence} before it ends at {next_commit}",
                    header.file_sequence, header.first_commit
                );
                replay.damage.push(Fault::corrupt(what, &file.path));
            }
            let next_commit = replay.walk(file).await?;
            previous = Some((shard, header.file_sequence, next_commit));
        }
        Ok(replay)
    }

    /// A ring generation that no journal has used. All shards of a run use the same.
    pub fn next_generation(&self) -> u64 {
        self.generation.map_or(1, |generation| generation + 1)
    }

    /// The entries of a log, in the order they were written.
    pub fn entries(&self, log: LogId) -> &[EntryAt] {
        self.entries.get(&log).map_or(&[], Vec::as_slice)
    }

    /// Logs that have entries, in no order.
    pub fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.entries.keys().copied()
    }

    /// The batches of an entry.
    pub async fn bytes(&self, entry: &EntryAt) -> Result<Bytes, Fault> {
        let file = &self.files[entry.file];
        let bytes = read(file, entry.position, entry.len).await?;
        if bytes.len() != entry.len || crc32fast::hash(&bytes) != entry.crc {
            let what = format!("entry at {} changed since the scan", entry.position);
            return Err(Fault::corrupt(what, file.path()));
        }
        Ok(bytes)
    }

    /// Places where durable commits are missing.
    pub fn damage(&self) -> &[Fault] {
        &self.damage
    }

    /// Rings of shards that do not exist any more. They may be removed once the journals of this run have started.
    pub fn stray_dirs(&self, shards: u32) -> impl Iterator<Item = &Path> + '_ {
        self.rings
            .iter()
            .filter(move |(shard, _)| *shard >= shards)
            .map(|(_, dir)| dir.as_path())
    }

    /// Closes the files, when nothing is read any more.
    pub async fn close(self) -> Result<(), Fault> {
        for file in self.files {
            let path = file.path().to_path_buf();
            file.close()
                .await
                .map_err(|error| Fault::io("close", path, error))?;
        }
        Ok(())
    }

    /// Takes all commits of one file. Returns the sequence of the commit that would come next.
    async fn walk(&mut self, found: FoundFile) -> Result<u64, Fault> {
        let file_index = self.files.len();
        let header = found.header;
        let mut expected = Stamp {
            generation: header.generation,
            file_sequence: header.file_sequence,
            commit_sequence: header.first_commit,
        };
        let len = found.file.len().await;
        let len = len.map_err(|error| Fault::io("read the length of", &found.path, error))?;
        let mut window = Window::new(&found.file, header.file_bytes.min(len));
        let mut position = BLOCK as u64;
        while let Some((entries, commit)) = next_commit(&mut window, position, expected).await? {
            for entry in entries {
                let at = EntryAt::new(&entry, file_index, position, &commit);
                self.entries.entry(entry.log).or_default().push(at);
            }
            position += commit.len().next_multiple_of(BLOCK) as u64;
            expected.commit_sequence += 1;
        }
        self.files.push(found.file);
        Ok(expected.commit_sequence)
    }
}

impl EntryAt {
    fn new(entry: &FoundEntry, file: usize, commit_position: u64, commit: &Bytes) -> EntryAt {
        EntryAt {
            log_generation: entry.log_generation,
            base_offset: entry.base_offset,
            next_offset: entry.next_offset,
            leader_epoch: entry.leader_epoch,
            len: entry.bytes.len(),
            file,
            position: commit_position + entry.bytes.start as u64,
            crc: crc32fast::hash(&commit[entry.bytes.clone()]),
        }
    }

    /// Whether these are the bytes of the entry, without reading them again.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.len == bytes.len() && self.crc == crc32fast::hash(bytes)
    }
}

/// The commit at `position` with its bytes (without padding), if it is the expected one and whole.
async fn next_commit(
    window: &mut Window<'_>,
    position: u64,
    expected: Stamp,
) -> Result<Option<(Vec<FoundEntry>, Bytes)>, Fault> {
    let start = window.get(position, COMMIT_HEADER_LEN).await?;
    let Some(header) = CommitHeader::decode(&start) else {
        return Ok(None);
    };
    let fits = commit_len(header.body_bytes) as u64 <= window.file_bytes.saturating_sub(position);
    if header.stamp != expected || !fits {
        return Ok(None);
    }
    let bytes = window
        .get(position, COMMIT_HEADER_LEN + header.body_bytes)
        .await?;
    Ok(header.entries(&bytes).map(|entries| (entries, bytes)))
}

/// Reads a file forwards in large pieces.
struct Window<'a> {
    file: &'a File,
    file_bytes: u64,
    held: Range<u64>,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, file_bytes: u64) -> Window<'a> {
        Window {
            file,
            file_bytes,
            held: 0..0,
            bytes: Bytes::new(),
        }
    }

    /// The bytes at `position`; fewer than `len` only at the end of the file.
    async fn get(&mut self, position: u64, len: usize) -> Result<Bytes, Fault> {
        let end = position + len as u64;
        if position < self.held.start || end > self.held.end {
            self.bytes = read(self.file, position, len.max(SCAN_BYTES)).await?;
            self.held = position..position + self.bytes.len() as u64;
        }
        let start = (position - self.held.start) as usize;
        let end = (start + len).min(self.bytes.len());
        Ok(self.bytes.slice(start..end))
    }
}

async fn find_rings(rt: &Rt, root: &Path) -> Result<Vec<(u32, PathBuf)>, Fault> {
    if !rt.exists(root).await {
        return Ok(Vec::new());
    }
    let mut rings = Vec::new();
    for entry in list(rt, root).await? {
        if entry.is_dir
            && let Ok(shard) = entry.name.parse::<u32>()
            && entry.name == shard.to_string()
        {
            rings.push((shard, root.join(&entry.name)));
        }
    }
    rings.sort();
    Ok(rings)
}

/// Opens the files of one ring that have a header of ours.
async fn find_files(
    rt: &Rt,
    shard: u32,
    dir: &Path,
    found: &mut Vec<FoundFile>,
) -> Result<(), Fault> {
    for entry in list(rt, dir).await? {
        if entry.is_dir || file_index(&entry.name).is_none() {
            continue;
        }
        let path = dir.join(&entry.name);
        let file = rt
            .open(&path, OpenMode::Read)
            .await
            .map_err(|error| Fault::io("open the journal file", &path, error))?;
        let block = read(&file, 0, BLOCK).await?;
        match FileHeader::decode(&block) {
            Some(header) => found.push(FoundFile {
                path,
                shard,
                file,
                header,
            }),
            None => file
                .close()
                .await
                .map_err(|error| Fault::io("close", &path, error))?,
        }
    }
    Ok(())
}

async fn list(rt: &Rt, dir: &Path) -> Result<Vec<crate::rt::DirEntry>, Fault> {
    rt.list_dir(dir)
        .await
        .map_err(|error: io::Error| Fault::io("list the directory", dir, error))
}

async fn read(file: &File, position: u64, len: usize) -> Result<Bytes, Fault> {
    file.read_at(position, len)
        .await
        .map_err(|error| Fault::io("read the journal file", file.path(), error))
}
