//! The bytes of journal files.
//!
//! A file is a block with its header, then commits, each aligned to [`BLOCK`] (4096 bytes). All integers are little-endian.
//!
//! ```text
//! file     0          4096             4096 + n * 4096
//!          +----------+----------------+----------------+-----+---------------------------------------
//!          | header   | commit         | commit         | ... | what an earlier use left, or zeros
//!          +----------+----------------+----------------+-----+---------------------------------------
//!
//! header   0         8         12          16           24          32         40           48     52      4096
//!          +---------+---------+-----------+------------+-----------+----------+------------+------+-------+
//!          | magic   | version | zero      | ring       | file      | first    | file bytes | CRC- | zeros |
//!          | 8 bytes | u32     | u32       | generation | sequence  | commit   | u64        | 32   |       |
//!          +---------+---------+-----------+-u64--------+-u64-------+-u64------+------------+------+-------+
//!          The CRC covers 0..48. `first commit` is the sequence of the first commit in the file.
//!
//! commit   0       4         8            16         24         32       36     40
//!          +-------+---------+------------+----------+----------+--------+------+------------------+-------+
//!          | magic | entries | ring       | file     | commit   | body   | CRC- | body: entries    | zeros |
//!          | u32   | u32     | generation | sequence | sequence | bytes  | 32   | one after another| to 4k |
//!          +-------+---------+-u64--------+-u64------+-u64------+-u32----+------+------------------+-------+
//!          The CRC covers 0..36 and the body.
//!
//! entry    0          16          20       24           32       40       48      52
//!          +----------+-----------+--------+------------+--------+--------+-------+--------------------+
//!          | topic id | partition | leader | log        | base   | next   | bytes | one or more whole  |
//!          | 16 bytes | i32       | epoch  | generation | offset | offset | u32   | record batches     |
//!          +----------+-----------+-i32----+-u64--------+-i64----+-i64----+-------+--------------------+
//! ```
//!
//! Parsing accepts bytes of any origin: every length is checked against what is there before it is used.

use std::ops::Range;

use super::Entry;
use crate::{
    rt::buf::ALIGNMENT,
    types::{LeaderEpoch, LogId, Offset, PartitionIndex, TopicId},
};

/// Commits begin at multiples of this.
pub const BLOCK: usize = ALIGNMENT;
pub const FILE_HEADER_LEN: usize = 52;
pub const COMMIT_HEADER_LEN: usize = 40;
pub const ENTRY_HEADER_LEN: usize = 52;

const FILE_MAGIC: [u8; 8] = *b"fbjournl";
const FILE_VERSION: u32 = 1;
const COMMIT_MAGIC: u32 = u32::from_le_bytes(*b"fbcm");

/// The file header must not be torn: it fits the smallest sector there is.
const _: () = assert!(FILE_HEADER_LEN <= 512);
const _: () = assert!(BLOCK == 4096);
const _: () = assert!(COMMIT_HEADER_LEN + ENTRY_HEADER_LEN < BLOCK);

mod file_at {
    use std::ops::Range;
    pub const MAGIC: Range<usize> = 0..8;
    pub const VERSION: Range<usize> = 8..12;
    pub const GENERATION: Range<usize> = 16..24;
    pub const FILE_SEQUENCE: Range<usize> = 24..32;
    pub const FIRST_COMMIT: Range<usize> = 32..40;
    pub const FILE_BYTES: Range<usize> = 40..48;
    pub const CRC: Range<usize> = 48..52;
    const _: () = assert!(CRC.end == super::FILE_HEADER_LEN);
}

mod commit_at {
    use std::ops::Range;
    pub const MAGIC: Range<usize> = 0..4;
    pub const ENTRY_COUNT: Range<usize> = 4..8;
    pub const GENERATION: Range<usize> = 8..16;
    pub const FILE_SEQUENCE: Range<usize> = 16..24;
    pub const COMMIT_SEQUENCE: Range<usize> = 24..32;
    pub const BODY_BYTES: Range<usize> = 32..36;
    pub const CRC: Range<usize> = 36..40;
    const _: () = assert!(CRC.end == super::COMMIT_HEADER_LEN);
}

mod entry_at {
    use std::ops::Range;
    pub const TOPIC_ID: Range<usize> = 0..16;
    pub const PARTITION: Range<usize> = 16..20;
    pub const LEADER_EPOCH: Range<usize> = 20..24;
    pub const LOG_GENERATION: Range<usize> = 24..32;
    pub const BASE_OFFSET: Range<usize> = 32..40;
    pub const NEXT_OFFSET: Range<usize> = 40..48;
    pub const BYTES: Range<usize> = 48..52;
    const _: () = assert!(BYTES.end == super::ENTRY_HEADER_LEN);
}

/// First block of a file: which use of it this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    pub generation: u64,
    pub file_sequence: u64,
    pub first_commit: u64,
    pub file_bytes: u64,
}

impl FileHeader {
    pub fn encode(&self, block: &mut [u8]) {
        assert!(block.len() == BLOCK);
        block.fill(0);
        block[file_at::MAGIC].copy_from_slice(&FILE_MAGIC);
        block[file_at::VERSION].copy_from_slice(&FILE_VERSION.to_le_bytes());
        block[file_at::GENERATION].copy_from_slice(&self.generation.to_le_bytes());
        block[file_at::FILE_SEQUENCE].copy_from_slice(&self.file_sequence.to_le_bytes());
        block[file_at::FIRST_COMMIT].copy_from_slice(&self.first_commit.to_le_bytes());
        block[file_at::FILE_BYTES].copy_from_slice(&self.file_bytes.to_le_bytes());
        let crc = crc32fast::hash(&block[..file_at::CRC.start]);
        block[file_at::CRC].copy_from_slice(&crc.to_le_bytes());
        assert!(FileHeader::decode(block) == Some(*self));
    }

    /// `None` for anything that is not a header of ours.
    pub fn decode(bytes: &[u8]) -> Option<FileHeader> {
        let bytes = bytes.get(..FILE_HEADER_LEN)?;
        let whole = bytes[file_at::MAGIC] == FILE_MAGIC
            && u32_at(bytes, file_at::VERSION) == FILE_VERSION
            && u32_at(bytes, file_at::CRC) == crc32fast::hash(&bytes[..file_at::CRC.start]);
        whole.then(|| FileHeader {
            generation: u64_at(bytes, file_at::GENERATION),
            file_sequence: u64_at(bytes, file_at::FILE_SEQUENCE),
            first_commit: u64_at(bytes, file_at::FIRST_COMMIT),
            file_bytes: u64_at(bytes, file_at::FILE_BYTES),
        })
    }
}

/// What makes a commit the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub generation: u64,
    pub file_sequence: u64,
    pub commit_sequence: u64,
}

/// Bytes a commit takes in the file, for entries with `body_bytes` in all.
pub fn commit_len(body_bytes: usize) -> usize {
    (COMMIT_HEADER_LEN + body_bytes).next_multiple_of(BLOCK)
}

/// Bytes an entry takes in the body of a commit.
pub fn entry_len(entry: &Entry) -> usize {
    ENTRY_HEADER_LEN + entry.bytes.len()
}

/// Fills `buffer`, which is zeroed and exactly as long as the commit, with `entries`.
pub fn encode_commit<'a>(
    buffer: &mut [u8],
    stamp: Stamp,
    entries: impl Iterator<Item = &'a Entry>,
) {
    let mut position = COMMIT_HEADER_LEN;
    let mut entry_count = 0u32;
    for entry in entries {
        let len = entry_len(entry);
        encode_entry(&mut buffer[position..position + len], entry);
        position += len;
        entry_count += 1;
    }
    assert!(entry_count > 0, "a commit has entries");
    assert!(buffer.len() == commit_len(position - COMMIT_HEADER_LEN));
    let body_bytes = (position - COMMIT_HEADER_LEN) as u32;
    buffer[commit_at::MAGIC].copy_from_slice(&COMMIT_MAGIC.to_le_bytes());
    buffer[commit_at::ENTRY_COUNT].copy_from_slice(&entry_count.to_le_bytes());
    buffer[commit_at::GENERATION].copy_from_slice(&stamp.generation.to_le_bytes());
    buffer[commit_at::FILE_SEQUENCE].copy_from_slice(&stamp.file_sequence.to_le_bytes());
    buffer[commit_at::COMMIT_SEQUENCE].copy_from_slice(&stamp.commit_sequence.to_le_bytes());
    buffer[commit_at::BODY_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = commit_crc(&buffer[..position]);
    buffer[commit_at::CRC].copy_from_slice(&crc.to_le_bytes());
}

fn encode_entry(out: &mut [u8], entry: &Entry) {
    assert!(entry.base_offset < entry.next_offset);
    let (header, bytes) = out.split_at_mut(ENTRY_HEADER_LEN);
    let len = u32::try_from(entry.bytes.len()).expect("an entry fits a journal file");
    header[entry_at::TOPIC_ID].copy_from_slice(&entry.log.topic_id.0);
    header[entry_at::PARTITION].copy_from_slice(&entry.log.partition.0.to_le_bytes());
    header[entry_at::LEADER_EPOCH].copy_from_slice(&entry.leader_epoch.0.to_le_bytes());
    header[entry_at::LOG_GENERATION].copy_from_slice(&entry.log_generation.to_le_bytes());
    header[entry_at::BASE_OFFSET].copy_from_slice(&entry.base_offset.get().to_le_bytes());
    header[entry_at::NEXT_OFFSET].copy_from_slice(&entry.next_offset.get().to_le_bytes());
    header[entry_at::BYTES].copy_from_slice(&len.to_le_bytes());
    bytes.copy_from_slice(&entry.bytes);
}

/// Fixed part of a commit. The CRC is checked with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeader {
    pub stamp: Stamp,
    pub entry_count: u32,
    pub body_bytes: usize,
    crc: u32,
}

impl CommitHeader {
    /// `None` for anything that does not begin like a commit. The lengths in it may still be lies.
    pub fn decode(bytes: &[u8]) -> Option<CommitHeader> {
        let bytes = bytes.get(..COMMIT_HEADER_LEN)?;
        (u32_at(bytes, commit_at::MAGIC) == COMMIT_MAGIC).then(|| CommitHeader {
            stamp: Stamp {
                generation: u64_at(bytes, commit_at::GENERATION),
                file_sequence: u64_at(bytes, commit_at::FILE_SEQUENCE),
                commit_sequence: u64_at(bytes, commit_at::COMMIT_SEQUENCE),
            },
            entry_count: u32_at(bytes, commit_at::ENTRY_COUNT),
            body_bytes: u32_at(bytes, commit_at::BODY_BYTES) as usize,
            crc: u32_at(bytes, commit_at::CRC),
        })
    }

    /// The entries of this commit, which `bytes` begins with. `None` unless all of it is there and as it was written.
    pub fn entries(&self, bytes: &[u8]) -> Option<Vec<FoundEntry>> {
        let end = COMMIT_HEADER_LEN.checked_add(self.body_bytes)?;
        let commit = bytes.get(..end)?;
        if commit_crc(commit) != self.crc {
            return None;
        }
        // No allocation by the count: the body ends the loop. The count must agree all the same.
        let mut entries = Vec::new();
        let mut position = COMMIT_HEADER_LEN;
        while position < end {
            let entry = FoundEntry::decode(commit, position)?;
            position = entry.bytes.end;
            entries.push(entry);
        }
        let counted = u32::try_from(entries.len()).ok()?;
        (counted == self.entry_count && counted > 0).then_some(entries)
    }
}

/// An entry within the bytes of its commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEntry {
    pub log: LogId,
    pub log_generation: u64,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    /// Of the batches, counted from the start of the commit.
    pub bytes: Range<usize>,
}

impl FoundEntry {
    fn decode(commit: &[u8], position: usize) -> Option<FoundEntry> {
        let header = commit.get(position..position.checked_add(ENTRY_HEADER_LEN)?)?;
        let start = position + ENTRY_HEADER_LEN;
        let end = start.checked_add(u32_at(header, entry_at::BYTES) as usize)?;
        if end > commit.len() {
            return None;
        }
        let base_offset = Offset::from_wire(u64_at(header, entry_at::BASE_OFFSET) as i64)?;
        let next_offset = Offset::from_wire(u64_at(header, entry_at::NEXT_OFFSET) as i64)?;
        if base_offset >= next_offset {
            return None;
        }
        let mut topic_id = [0; 16];
        topic_id.copy_from_slice(&header[entry_at::TOPIC_ID]);
        Some(FoundEntry {
            log: LogId {
                topic_id: TopicId(topic_id),
                partition: PartitionIndex(u32_at(header, entry_at::PARTITION) as i32),
            },
            log_generation: u64_at(header, entry_at::LOG_GENERATION),
            base_offset,
            next_offset,
            leader_epoch: LeaderEpoch(u32_at(header, entry_at::LEADER_EPOCH) as i32),
            bytes: start..end,
        })
    }
}

/// The entry for fuzzers: any bytes, taken for a commit as they are and with length and CRC made right. Panics if what is
/// accepted is unsound.
pub fn fuzz_commit(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some(body_bytes) = data.len().checked_sub(COMMIT_HEADER_LEN) {
        repaired[commit_at::MAGIC].copy_from_slice(&COMMIT_MAGIC.to_le_bytes());
        repaired[commit_at::BODY_BYTES].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        let crc = commit_crc(&repaired);
        repaired[commit_at::CRC].copy_from_slice(&crc.to_le_bytes());
    }
    for bytes in [data, &repaired] {
        let entries = CommitHeader::decode(bytes).and_then(|header| header.entries(bytes));
        let mut position = COMMIT_HEADER_LEN;
        for entry in entries.into_iter().flatten() {
            assert!(entry.bytes.start == position + ENTRY_HEADER_LEN);
            assert!(entry.bytes.end <= bytes.len());
            assert!(entry.base_offset < entry.next_offset);
            position = entry.bytes.end;
        }
    }
}

/// For fuzzers: makes the CRCs of a file's header and of its commits right, as far as their lengths lead. A commit of a later run than the
/// header's goes: no file comes to hold one, for the header of a run is durable before its commits are written, and the next run, which
/// takes the generation after the header's, could not tell it from its own.
pub fn repair(file: &mut [u8]) {
    if file.len() < BLOCK {
        return;
    }
    let crc = crc32fast::hash(&file[..file_at::CRC.start]);
    file[file_at::CRC].copy_from_slice(&crc.to_le_bytes());
    let generation = u64_at(file, file_at::GENERATION);
    let mut position = BLOCK;
    while let Some(rest) = file
        .get_mut(position..)
        .filter(|rest| rest.len() >= COMMIT_HEADER_LEN)
    {
        if u64_at(rest, commit_at::GENERATION) > generation {
            rest.fill(0);
            return;
        }
        let body_bytes = u32_at(rest, commit_at::BODY_BYTES) as usize;
        let Some(commit) = rest.get_mut(..COMMIT_HEADER_LEN.saturating_add(body_bytes)) else {
            return;
        };
        let crc = commit_crc(commit);
        commit[commit_at::CRC].copy_from_slice(&crc.to_le_bytes());
        position += commit_len(body_bytes);
    }
}

/// `commit` is header and body, without padding.
fn commit_crc(commit: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&commit[..commit_at::CRC.start]);
    hasher.update(&commit[COMMIT_HEADER_LEN..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], range: Range<usize>) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[range]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], range: Range<usize>) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[range]);
    u64::from_le_bytes(value)
}
