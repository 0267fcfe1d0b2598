//! The bytes of checkpoint files.
//!
//! A file is a sequence of *parts*, each aligned to [`BLOCK`]. A part holds records of logs; several parts make one checkpoint, the
//! last of which says so. The first checkpoint in a file has a record of every log, later ones of the logs that changed.
//!
//! ```text
//! file     0                  n * 4096           m * 4096
//!          +------------------+------------------+------------------+---
//!          | part             | part             | part             | ...
//!          +------------------+------------------+------------------+---
//!
//! part     0         8         12      16      20       24           32         40                   72      76     80
//!          +---------+---------+-------+-------+--------+------------+----------+--------------------+-------+------+---------+-------+
//!          | magic   | version | CRC-  | body  | ending | generation | sequence | journal position:  | CRC-  | zero | records | zeros |
//!          | 8 bytes | u32     | 32    | bytes | u32    | u64        | u64      | generation, file,  | 32    | u32  |         | to 4k |
//!          +---------+---------+-u32---+-u32---+--------+------------+----------+-commit, place: u64-+-------+------+---------+-------+
//!          The first CRC covers the records, the second one 0..72: a header can be believed without the records, so that a start learns
//!          from one block of another shard's file how new it is. `generation` is that of the run that found the records to be true.
//!          `sequence` counts the parts of the file from 0.
//!          `ending`: 0 the checkpoint goes on in the next part, 1 it ends here, 2 so does the run, in order.
//!          The journal position counts where a checkpoint ends: what the shard's ring holds before it is covered. All zero: none.
//!
//! record   0       4
//!          +-------+------------------------------------------+
//!          | bytes | rkyv archive (little-endian, bytecheck)   |
//!          | u32   | of one log: [`LogRecord`]                 |
//!          +-------+------------------------------------------+
//! ```
//!
//! Version 2, which is still read, has no second CRC: its records begin at 72, and its CRC covers 16..72 and the records.
//!
//! All integers are little-endian. Parsing accepts bytes of any origin: every length is checked against what is there before it is used.

use rkyv::{Archive, Deserialize, Serialize, rancor, util::AlignedVec};

use super::LogCheckpoint;
use crate::{
    journal::JournalPosition,
    log::{
        epochs::{Epochs, EpochsSnapshot},
        producers::{Producers, ProducersSnapshot},
    },
    rt::buf::ALIGNMENT,
    segment::{IndexTail, SEGMENT_BYTES_MAX},
    types::{LogId, Offset, PartitionIndex, TopicId},
};

pub const BLOCK: usize = ALIGNMENT;
pub const PART_HEADER_LEN: usize = 80;

/// A larger part is not ours: producers, epochs and index of one log take a few MiB at most.
pub const PART_BYTES_MAX: usize = 64 << 20;

const MAGIC: [u8; 8] = *b"fbcheckp";
const VERSION: u32 = 3;
const BODY_CRC_AT: usize = 12;
const HEADER_CRC_AT: usize = 72;

/// Of version 2.
const PART_HEADER_LEN_2: usize = 72;
const CRC_2_FROM: usize = 16;

/// What a part is to the checkpoint that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    GoesOn,
    EndsHere,
    /// Written at an orderly end: nothing followed.
    EndsRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    pub generation: u64,
    pub sequence: u64,
    pub ending: Ending,
    pub journal: Option<JournalPosition>,
    pub body_bytes: usize,
    version: u32,
    crc: u32,
}

/// Bytes a part takes in the file.
pub fn part_len(body_bytes: usize) -> usize {
    (PART_HEADER_LEN + body_bytes).next_multiple_of(BLOCK)
}

/// Fills `out`, which is as long as the part, with header and records.
pub fn encode_part(
    out: &mut [u8],
    generation: u64,
    sequence: u64,
    ending: Ending,
    journal: Option<JournalPosition>,
    records: &[u8],
) {
    assert!(out.len() == part_len(records.len()) && out.len() <= PART_BYTES_MAX);
    let mut header = Vec::with_capacity(PART_HEADER_LEN);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(records).to_le_bytes());
    header.extend_from_slice(&(records.len() as u32).to_le_bytes());
    header.extend_from_slice(&(ending as u32).to_le_bytes());
    header.extend_from_slice(&generation.to_le_bytes());
    header.extend_from_slice(&sequence.to_le_bytes());
    let place = journal.map_or([0; 4], |at| {
        [
            at.generation,
            at.file_sequence,
            at.commit_sequence,
            at.file_position,
        ]
    });
    for number in place {
        header.extend_from_slice(&number.to_le_bytes());
    }
    assert!(header.len() == HEADER_CRC_AT);
    let header_crc = crc32fast::hash(&header);
    header.extend_from_slice(&header_crc.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    assert!(header.len() == PART_HEADER_LEN);
    let (head, rest) = out.split_at_mut(PART_HEADER_LEN);
    head.copy_from_slice(&header);
    rest[..records.len()].copy_from_slice(records);
    rest[records.len()..].fill(0);
}

impl PartHeader {
    /// `None` for anything that does not begin like a part. What is in it is known to be right if [`PartHeader::is_checked`] says so, else
    /// with [`PartHeader::records`].
    pub fn decode(bytes: &[u8]) -> Option<PartHeader> {
        let bytes = bytes.get(..PART_HEADER_LEN)?;
        let version = u32_at(bytes, 8);
        let version_is_known = match version {
            2 => true,
            VERSION => {
                u32_at(bytes, HEADER_CRC_AT) == crc32fast::hash(&bytes[..HEADER_CRC_AT])
                    && u32_at(bytes, HEADER_CRC_AT + 4) == 0
            }
            _ => false,
        };
        if bytes[..8] != MAGIC || !version_is_known {
            return None;
        }
        let body_bytes = u32_at(bytes, 16) as usize;
        if body_bytes > PART_BYTES_MAX - BLOCK {
            return None;
        }
        let journal = JournalPosition {
            generation: u64_at(bytes, 40),
            file_sequence: u64_at(bytes, 48),
            commit_sequence: u64_at(bytes, 56),
            file_position: u64_at(bytes, 64),
        };
        Some(PartHeader {
            generation: u64_at(bytes, 24),
            sequence: u64_at(bytes, 32),
            ending: match u32_at(bytes, 20) {
                0 => Ending::GoesOn,
                1 => Ending::EndsHere,
                2 => Ending::EndsRun,
                _ => return None,
            },
            journal: (journal.generation > 0).then_some(journal),
            body_bytes,
            version,
            crc: u32_at(bytes, BODY_CRC_AT),
        })
    }

    /// The header is as it was written, whatever the records are.
    pub fn is_checked(&self) -> bool {
        self.version == VERSION
    }

    /// Bytes of header and records.
    pub fn bytes(&self) -> usize {
        let header_bytes = match self.version {
            2 => PART_HEADER_LEN_2,
            _ => PART_HEADER_LEN,
        };
        header_bytes + self.body_bytes
    }

    /// Bytes the part takes in the file.
    pub fn len_in_file(&self) -> usize {
        self.bytes().next_multiple_of(BLOCK)
    }

    /// The records of this part, which `bytes` begins with. `None` unless all of it is there and as it was written.
    pub fn records<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let part = bytes.get(..self.bytes())?;
        let records = &part[self.bytes() - self.body_bytes..];
        let crc = match self.version {
            2 => crc32fast::hash(&part[CRC_2_FROM..]),
            _ => crc32fast::hash(records),
        };
        (crc == self.crc).then_some(records)
    }
}

/// What is on disk of one log.
#[derive(Archive, Serialize, Deserialize)]
struct LogRecord {
    topic_id: [u8; 16],
    partition: i32,
    log_generation: u64,
    log_start: i64,
    recovery_offset: i64,
    recovery_segment_base: i64,
    recovery_position: u64,
    high_watermark: i64,
    index: Option<IndexTail>,
    epochs: EpochsSnapshot,
    producers: ProducersSnapshot,
}

/// Appends the record of a log.
pub fn encode_record(out: &mut Vec<u8>, checkpoint: &LogCheckpoint) {
    let record = LogRecord {
        topic_id: checkpoint.log.topic_id.0,
        partition: checkpoint.log.partition.0,
        log_generation: checkpoint.log_generation,
        log_start: checkpoint.log_start.get(),
        recovery_offset: checkpoint.recovery_offset.get(),
        recovery_segment_base: checkpoint.recovery_segment_base.get(),
        recovery_position: checkpoint.recovery_position,
        high_watermark: checkpoint.high_watermark.get(),
        index: checkpoint.index.clone(),
        epochs: checkpoint.epochs.snapshot(),
        producers: checkpoint.producers.snapshot(),
    };
    let record = rkyv::to_bytes::<rancor::Error>(&record).expect("memory takes plain data");
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(&record);
}

/// Takes the first record off `records`. `None` if it contradicts itself, or is no record.
pub fn decode_record(records: &mut &[u8]) -> Option<LogCheckpoint> {
    let (len, rest) = records.split_first_chunk::<4>()?;
    let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *records = rest;
    // rkyv wants its alignment.
    let mut aligned = AlignedVec::<16>::with_capacity(record.len());
    aligned.extend_from_slice(record);
    let record = rkyv::from_bytes::<LogRecord, rancor::Error>(&aligned).ok()?;
    let checkpoint = LogCheckpoint {
        log: LogId {
            topic_id: TopicId(record.topic_id),
            partition: PartitionIndex(record.partition),
        },
        log_generation: record.log_generation,
        log_start: Offset::from_wire(record.log_start)?,
        recovery_offset: Offset::from_wire(record.recovery_offset)?,
        recovery_segment_base: Offset::from_wire(record.recovery_segment_base)?,
        recovery_position: record.recovery_position,
        high_watermark: Offset::from_wire(record.high_watermark)?,
        index: record.index,
        epochs: Epochs::restore(&record.epochs)?,
        producers: Producers::restore(&record.producers)?,
    };
    let newest_epoch = checkpoint.epochs.iter().next_back();
    let ordered = checkpoint.recovery_segment_base <= checkpoint.recovery_offset
        && newest_epoch.is_none_or(|(_, start)| start <= checkpoint.recovery_offset)
        && checkpoint.log_start <= checkpoint.recovery_offset
        && checkpoint.recovery_position <= SEGMENT_BYTES_MAX;
    ordered.then_some(checkpoint)
}

/// The entry for fuzzers: any bytes, taken for a part as they are and with length and CRC made right. Panics if what is accepted
/// is unsound.
pub fn fuzz_part(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some(body_bytes) = data.len().checked_sub(PART_HEADER_LEN) {
        repaired[..8].copy_from_slice(&MAGIC);
        repaired[8..12].copy_from_slice(&VERSION.to_le_bytes());
        repaired[16..20].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        repaired[20..24].copy_from_slice(&u32::from(data[20] & 1).to_le_bytes());
        make_right(&mut repaired);
    }
    for bytes in [data, &repaired] {
        let records = PartHeader::decode(bytes).and_then(|header| header.records(bytes));
        let mut records = records.unwrap_or_default();
        while !records.is_empty() {
            let Some(found) = decode_record(&mut records) else {
                break;
            };
            assert!(found.recovery_segment_base <= found.recovery_offset);
            // What is accepted can be written again, and says the same then.
            let mut again = Vec::new();
            encode_record(&mut again, &found);
            let twin = decode_record(&mut again.as_slice()).expect("just encoded");
            assert!(twin.producers.snapshot() == found.producers.snapshot());
            assert!(twin.epochs == found.epochs && twin.index == found.index);
        }
    }
}

/// For fuzzers: makes the CRCs of the parts of a file right, as far as their lengths lead.
pub fn repair(file: &mut [u8]) {
    let mut position = 0;
    while let Some(rest) = file
        .get_mut(position..)
        .filter(|rest| rest.len() >= PART_HEADER_LEN)
    {
        let body_bytes = u32_at(rest, 16) as usize;
        let Some(part) = rest.get_mut(..PART_HEADER_LEN.saturating_add(body_bytes)) else {
            return;
        };
        make_right(part);
        position += part_len(body_bytes);
    }
}

fn make_right(part: &mut [u8]) {
    let body_crc = crc32fast::hash(&part[PART_HEADER_LEN..]);
    part[BODY_CRC_AT..][..4].copy_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32fast::hash(&part[..HEADER_CRC_AT]);
    part[HEADER_CRC_AT..][..4].copy_from_slice(&header_crc.to_le_bytes());
    part[HEADER_CRC_AT + 4..PART_HEADER_LEN].fill(0);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
