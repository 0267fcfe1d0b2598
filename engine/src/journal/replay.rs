//! Reads what the last run left in the journal.
//!
//! Opening looks at the headers of the files of all rings and keeps those of the newest ring generation found in any of them. A scan walks
//! the commits of one ring in order of file sequence, from where the shard's last checkpoint says that its entries may still be
//! needed. Within a file it stops at the first commit that does not carry the generation and file sequence of
//! the file's header and the next commit sequence, or is not whole: what lies behind is of an earlier use. If the commits of the next
//! file do not go on where these ended, something durable was damaged; the scan says so in [`Replay::damage`] and still
//! takes the rest, since generation, sequence and CRC prove what it is, and logs check that offsets follow.
//!
//! Keeps an index of the entries, and the bytes of the first [`KEPT_BYTES_MAX`] of them. The others are read again, and checked again, when
//! asked for; entries that follow one another in the file are read in runs then.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;

use super::{
    format::{BLOCK, COMMIT_HEADER_LEN, CommitHeader, FileHeader, FoundEntry, Stamp, commit_len},
    ring::{JournalPosition, file_index},
};
use crate::{
    error::Fault,
    rt::{File, OpenMode, Rt, window::Window},
    types::{LeaderEpoch, LogId, Offset},
};

/// Memory for the bytes of entries: the scan has them in hand, and to read them one by one again would take far longer.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// A run of entries that were not kept is read in pieces up to this size.
const RUN_BYTES_MAX: usize = 1 << 20;

/// What the journals of all shards held when somebody looked.
pub struct Replay {
    rt: Rt,
    /// Ordered by shard.
    rings: Vec<Ring>,
    /// Newest ring generation in any header.
    generation: Option<u64>,
    /// Those that were walked.
    files: RefCell<Vec<Rc<File>>>,
    entries: RefCell<HashMap<LogId, Vec<EntryAt>>>,
    kept_bytes: Cell<usize>,
    kept_bytes_max: usize,
    run: RefCell<Run>,
    damage: RefCell<Vec<Fault>>,
    read_bytes: Cell<u64>,
}

struct Ring {
    shard: u32,
    dir: PathBuf,
    /// Of the newest generation, in order of file sequence.
    files: Vec<FoundFile>,
    scanned: Cell<bool>,
}

struct FoundFile {
    path: PathBuf,
    header: FileHeader,
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
    kept: Option<Bytes>,
}

/// The last piece that was read for an entry, in the hope that the next entry lies in it.
#[derive(Default)]
struct Run {
    file: usize,
    position: u64,
    bytes: Bytes,
}

impl Replay {
    /// Looks at the headers in all rings below `journal_root` and changes nothing. A root that does not exist is an empty journal.
    pub async fn open(rt: &Rt, journal_root: &Path) -> Result<Replay, Fault> {
        let mut replay = Replay {
            rt: rt.clone(),
            rings: Vec::new(),
            generation: None,
            files: RefCell::default(),
            entries: RefCell::default(),
            kept_bytes: Cell::new(0),
            kept_bytes_max: KEPT_BYTES_MAX,
            run: RefCell::default(),
            damage: RefCell::default(),
            read_bytes: Cell::new(0),
        };
        for (shard, dir) in find_rings(rt, journal_root).await? {
            let files = replay.find_files(&dir).await?;
            replay.rings.push(Ring {
                shard,
                dir,
                files,
                scanned: Cell::new(false),
            });
        }
        let files = replay.rings.iter().flat_map(|ring| &ring.files);
        replay.generation = files.map(|file| file.header.generation).max();
        for ring in &mut replay.rings {
            ring.files
                .retain(|file| Some(file.header.generation) == replay.generation);
            ring.files.sort_by_key(|file| file.header.file_sequence);
        }
        Ok(replay)
    }

    #[cfg(test)]
    pub fn keeping(self, kept_bytes_max: usize) -> Replay {
        Replay {
            kept_bytes_max,
            ..self
        }
    }

    /// Walks the ring of a shard, unless that was done. What is before `from` is not looked at, if `from` speaks of this ring generation.
    pub async fn scan(&self, shard: u32, from: Option<JournalPosition>) -> Result<(), Fault> {
        let ring = self.rings.iter().find(|ring| ring.shard == shard);
        let Some(ring) = ring.filter(|ring| !ring.scanned.get()) else {
            return Ok(());
        };
        let from = from.filter(|from| Some(from.generation) == self.generation);
        let needed = |file: &&FoundFile| {
            from.is_none_or(|from| file.header.file_sequence >= from.file_sequence)
        };
        let files: Vec<&FoundFile> = ring.files.iter().filter(needed).collect();
        // Where the next commit is expected: (file sequence, commit sequence) and what to call the place.
        let mut expected = None;
        if let Some(from) = from {
            let is_there = files.first().is_some_and(|file| from.is_in(&file.header));
            if !is_there {
                let what = format!("file sequence {} is not there", from.file_sequence);
                self.damaged(what, &ring.dir);
            }
        }
        for file in files {
            let header = file.header;
            if let Some((file_sequence, next_commit)) = expected
                && (header.file_sequence, header.first_commit) != (file_sequence + 1, next_commit)
            {
                let what = format!(
                    "file sequence {} begins with commit {}, but file {file_sequence} before it ends at {next_commit}",
                    header.file_sequence, header.first_commit
                );
                self.damaged(what, &file.path);
            }
            let from = from.filter(|from| from.is_in(&header));
            let next_commit = self.walk(file, from).await?;
            expected = Some((header.file_sequence, next_commit));
        }
        ring.scanned.set(true);
        Ok(())
    }

    /// Walks the rings of all shards that were not walked yet.
    pub async fn scan_all(
        &self,
        from: impl Fn(u32) -> Option<JournalPosition>,
    ) -> Result<(), Fault> {
        for ring in &self.rings {
            self.scan(ring.shard, from(ring.shard)).await?;
        }
        Ok(())
    }

    /// Newest ring generation that any journal has used.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// The entries of a log that were found so far, in the order they were written.
    pub fn entries(&self, log: LogId) -> Vec<EntryAt> {
        let entries = self.entries.borrow();
        entries.get(&log).cloned().unwrap_or_default()
    }

    /// Logs that have entries, in no order.
    pub fn logs(&self) -> Vec<LogId> {
        self.entries.borrow().keys().copied().collect()
    }

    /// The batches of an entry.
    pub async fn bytes(&self, entry: &EntryAt) -> Result<Bytes, Fault> {
        if let Some(kept) = &entry.kept {
            return Ok(kept.clone());
        }
        let file = Rc::clone(&self.files.borrow()[entry.file]);
        let bytes = self.read_in_runs(&file, entry).await?;
        if bytes.len() != entry.len || crc32fast::hash(&bytes) != entry.crc {
            let what = format!("entry at {} changed since the scan", entry.position);
            return Err(Fault::corrupt(what, file.path()));
        }
        Ok(bytes)
    }

    /// Places where durable commits are missing.
    pub fn damage(&self) -> Vec<Fault> {
        self.damage.borrow().clone()
    }

    /// Bytes read from journal files so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.get()
    }

    /// Closes the files, when nothing is read any more.
    pub async fn close(self) -> Result<(), Fault> {
        for file in self.files.take() {
            let path = file.path().to_path_buf();
            let file = Rc::into_inner(file).expect("nobody reads any more");
            file.close()
                .await
                .map_err(|error| Fault::io("close", path, error))?;
        }
        Ok(())
    }

    fn damaged(&self, what: String, path: &Path) {
        self.damage.borrow_mut().push(Fault::corrupt(what, path));
    }

    fn count(&self, bytes: u64) {
        self.read_bytes.set(self.read_bytes.get() + bytes);
    }

    /// Takes all commits of one file. Returns the sequence of the commit that would come next.
    async fn walk(&self, found: &FoundFile, from: Option<JournalPosition>) -> Result<u64, Fault> {
        let path = &found.path;
        let file = open_file(&self.rt, path).await?;
        let file_index = self.files.borrow().len();
        self.files.borrow_mut().push(Rc::clone(&file));
        let header = found.header;
        let mut expected = Stamp {
            generation: header.generation,
            file_sequence: header.file_sequence,
            commit_sequence: from.map_or(header.first_commit, |from| from.commit_sequence),
        };
        let mut position = from.map_or(BLOCK as u64, |from| from.file_position);
        let len = file.len().await;
        let len = len.map_err(|error| Fault::io("read the length of", path, error))?;
        let mut window = Window::new(&file, header.file_bytes.min(len));
        loop {
            let commit = next_commit(&mut window, position, expected).await;
            let commit = commit.map_err(|error| read_fault(path, error))?;
            let Some((entries, commit)) = commit else {
                break;
            };
            for entry in entries {
                let at = self.entry_at(&entry, file_index, position, &commit);
                self.entries
                    .borrow_mut()
                    .entry(entry.log)
                    .or_default()
                    .push(at);
            }
            position += commit.len().next_multiple_of(BLOCK) as u64;
            expected.commit_sequence += 1;
        }
        self.count(window.read_bytes());
        Ok(expected.commit_sequence)
    }

    fn entry_at(
        &self,
        entry: &FoundEntry,
        file: usize,
        commit_position: u64,
        commit: &Bytes,
    ) -> EntryAt {
        let bytes = &commit[entry.bytes.clone()];
        let kept_bytes = self.kept_bytes.get() + bytes.len();
        // Copied: a slice would keep all of the piece that it is in.
        let kept = (kept_bytes <= self.kept_bytes_max).then(|| Bytes::copy_from_slice(bytes));
        if kept.is_some() {
            self.kept_bytes.set(kept_bytes);
        }
        EntryAt {
            log_generation: entry.log_generation,
            base_offset: entry.base_offset,
            next_offset: entry.next_offset,
            leader_epoch: entry.leader_epoch,
            len: bytes.len(),
            file,
            position: commit_position + entry.bytes.start as u64,
            crc: crc32fast::hash(bytes),
            kept,
        }
    }

    /// A read that goes on near the end of the last one is the beginning of a run, and takes twice as much as that.
    async fn read_in_runs(&self, file: &File, entry: &EntryAt) -> Result<Bytes, Fault> {
        let len = {
            let run = self.run.borrow();
            let (start, held) = (run.position, run.bytes.len() as u64);
            let same_file = run.file == entry.file && held > 0;
            let end = entry.position + entry.len as u64;
            if same_file && entry.position >= start && end <= start + held {
                let at = (entry.position - start) as usize;
                return Ok(run.bytes.slice(at..at + entry.len));
            }
            let near = start..=start + 2 * held;
            match same_file && near.contains(&entry.position) {
                true => entry.len.max((2 * run.bytes.len()).min(RUN_BYTES_MAX)),
                false => entry.len,
            }
        };
        let bytes = file.read_at(entry.position, len).await;
        let bytes = bytes.map_err(|error| read_fault(file.path(), error))?;
        self.count(bytes.len() as u64);
        let found = bytes.slice(..entry.len.min(bytes.len()));
        *self.run.borrow_mut() = Run {
            file: entry.file,
            position: entry.position,
            bytes,
        };
        Ok(found)
    }

    /// The files of one ring that have a header of ours.
    async fn find_files(&self, dir: &Path) -> Result<Vec<FoundFile>, Fault> {
        let mut found = Vec::new();
        for entry in list(&self.rt, dir).await? {
            if entry.is_dir || file_index(&entry.name).is_none() {
                continue;
            }
            let path = dir.join(&entry.name);
            let file = open_file(&self.rt, &path).await?;
            let block = file.read_at(0, BLOCK).await;
            let block = block.map_err(|error| read_fault(&path, error))?;
            self.count(block.len() as u64);
            let mut header = FileHeader::decode(&block);
            if header.is_none() {
                header = self.borne_out(&file).await?;
            }
            if let Some(header) = header {
                let path = path.clone();
                found.push(FoundFile { path, header });
            }
            let file = Rc::into_inner(file).expect("nobody else has it");
            let closed = file.close().await;
            closed.map_err(|error| Fault::io("close", &path, error))?;
        }
        Ok(found)
    }

    /// The header of a file that has none to be read, as its first commit has it. Else one rotten block would take all of the file's
    /// commits away, and the next run might use their generation once more and take what lies behind its own commits for them.
    async fn borne_out(&self, file: &Rc<File>) -> Result<Option<FileHeader>, Fault> {
        let fault = |error| read_fault(file.path(), error);
        let file_bytes = file.len().await.map_err(fault)?;
        let at = BLOCK as u64;
        let mut window = Window::new(file, file_bytes);
        let start = window.get(at, COMMIT_HEADER_LEN).await.map_err(fault)?;
        let mut header = None;
        if let Some(CommitHeader { stamp, .. }) = CommitHeader::decode(&start)
            && let Some(_) = next_commit(&mut window, at, stamp).await.map_err(fault)?
        {
            let what = format!(
                "its header is not one; taken from its first commit: generation {}, file sequence {}, commit {}",
                stamp.generation, stamp.file_sequence, stamp.commit_sequence
            );
            self.damaged(what, file.path());
            header = Some(FileHeader {
                generation: stamp.generation,
                file_sequence: stamp.file_sequence,
                first_commit: stamp.commit_sequence,
                file_bytes,
            });
        }
        self.count(window.read_bytes());
        Ok(header)
    }
}

impl JournalPosition {
    /// Whether the file with this header is the one, and goes as far.
    fn is_in(&self, header: &FileHeader) -> bool {
        self.generation == header.generation
            && self.file_sequence == header.file_sequence
            && self.commit_sequence >= header.first_commit
            && (BLOCK as u64..=header.file_bytes).contains(&self.file_position)
            && self.file_position.is_multiple_of(BLOCK as u64)
    }
}

impl EntryAt {
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
) -> io::Result<Option<(Vec<FoundEntry>, Bytes)>> {
    let start = window.get(position, COMMIT_HEADER_LEN).await?;
    let Some(header) = CommitHeader::decode(&start) else {
        return Ok(None);
    };
    let fits = commit_len(header.body_bytes) as u64 <= window.end().saturating_sub(position);
    if header.stamp != expected || !fits {
        return Ok(None);
    }
    let bytes = window
        .get(position, COMMIT_HEADER_LEN + header.body_bytes)
        .await?;
    Ok(header.entries(&bytes).map(|entries| (entries, bytes)))
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

async fn open_file(rt: &Rt, path: &Path) -> Result<Rc<File>, Fault> {
    let opened = rt.open(path, OpenMode::Read).await;
    let file = opened.map_err(|error| Fault::io("open the journal file", path, error))?;
    Ok(Rc::new(file))
}

async fn list(rt: &Rt, dir: &Path) -> Result<Vec<crate::rt::DirEntry>, Fault> {
    rt.list_dir(dir)
        .await
        .map_err(|error: io::Error| Fault::io("list the directory", dir, error))
}

fn read_fault(path: &Path, error: io::Error) -> Fault {
    Fault::io("read the journal file", path, error)
}
