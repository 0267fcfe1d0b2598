//! The metadata log on disk: `__cluster_metadata-0`, a log of the engine like any other, and the ballot beside it.
//!
//! An entry is one record in a batch of its own: the key is one byte, the entry's kind; the value is its data. The batch's leader
//! epoch is the entry's term. The ballot is the file `quorum-state` in the data directory, replaced as a whole:
//!
//! ```text
//! 0  u32  magic "FBQS"
//! 4  u32  version, 0
//! 8  u64  term
//! 16 u64  vote, 0 for nobody
//! 24 u32  CRC-32 of the bytes before
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::Bytes;
use forebay_engine::{
    AppendError, Durability, Engine, Fault, LogConfig, LogId, LogName, Offset, PartitionIndex,
    ReadError, SpaceUse, TimestampType, TopicId,
    batch::{BatchBuilder, BatchError, BatchHeader, BatchRules, Codec, Records, validate},
    log::ReadLimit,
    rt::{Rt, durable},
};

use super::{
    codec::CodecError,
    controller::METADATA_TOPIC,
    image::Image,
    raft::{Ballot, EntryKind, LogEntry, Terms},
    records::{GROUP_BYTES_MAX, decode},
};
use crate::partition::Partition;

/// Kafka's fixed id of the metadata topic, AAAAAAAAAAAAAAAAAAAAAQ.
pub const METADATA_LOG: LogId = LogId {
    topic_id: TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    partition: PartitionIndex(0),
};

/// In the data directory.
pub const BALLOT_FILE: &str = "quorum-state";
const BALLOT_MAGIC: u32 = u32::from_be_bytes(*b"FBQS");
const BALLOT_BYTES: usize = 28;

/// Read at a time while the log is replayed.
const REPLAY_BYTES: usize = 4 << 20;

/// Batch and record headers around an entry's data.
const FRAMING_BYTES_MAX: usize = 1024;

/// The directory of the metadata log.
pub fn log_name() -> LogName {
    LogName {
        topic: METADATA_TOPIC.to_owned(),
        partition: METADATA_LOG.partition,
    }
}

/// Kept for ever and always durable, whatever the broker's defaults are.
pub fn log_config() -> LogConfig {
    LogConfig {
        durability: Durability::Persisted,
        segment_bytes: 64 << 20,
        segment_ms: i64::MAX as u64,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: false,
        space: SpaceUse::Metadata,
        rules: BatchRules {
            message_bytes_max: GROUP_BYTES_MAX + FRAMING_BYTES_MAX,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: None,
            keys_required: true,
            codec: None,
            control_allowed: false,
        },
    }
}

/// What a restart found.
pub struct Replayed {
    pub image: Image,
    pub terms: Terms,
    pub ballot: Ballot,
}

/// The open metadata log.
pub struct MetadataLog {
    rt: Rt,
    engine: Engine,
    partition: Rc<Partition>,
    ballot_path: PathBuf,
}

impl MetadataLog {
    pub fn new(rt: Rt, engine: Engine, partition: Rc<Partition>, data_dir: &Path) -> MetadataLog {
        MetadataLog {
            rt,
            engine,
            partition,
            ballot_path: data_dir.join(BALLOT_FILE),
        }
    }

    pub fn is_online(&self) -> bool {
        self.partition.log.fault().is_none()
    }

    /// Reads everything and applies it. With one voter all that is in the log is committed.
    pub async fn replay(&self) -> Result<Replayed, Fault> {
        let log = &self.partition.log;
        let end = log.marks().log_end;
        let mut replayed = Replayed {
            image: Image::default(),
            terms: Terms::default(),
            ballot: Ballot::default(),
        };
        let limit = ReadLimit {
            below: end,
            bytes_max: REPLAY_BYTES,
            at_least_one: true,
        };
        let mut next = Offset::ZERO;
        while next < end {
            let fetched = log.read(next, limit).await.map_err(|error| match error {
                ReadError::Corrupt(fault) | ReadError::Fault(fault) => fault,
                ReadError::OutOfRange { .. } => self.corrupt(error.to_string()),
            })?;
            for slice in fetched.slices {
                self.replay_batches(slice, &mut replayed)?;
            }
            next = match fetched.next {
                Some(further) if further > next => further,
                _ => return Err(self.corrupt(format!("no entry at offset {next}"))),
            };
        }
        replayed.ballot = self.read_ballot(&replayed.terms).await?;
        Ok(replayed)
    }

    fn replay_batches(&self, mut slice: Bytes, replayed: &mut Replayed) -> Result<(), Fault> {
        let corrupt = |error: BatchError| self.corrupt(error.to_string());
        while !slice.is_empty() {
            let header = BatchHeader::parse(&slice).map_err(corrupt)?;
            if header.total_len > slice.len() {
                return Err(self.corrupt("half a batch".to_owned()));
            }
            let batch = slice.split_to(header.total_len);
            let records = Records::new(&batch, GROUP_BYTES_MAX).map_err(corrupt)?;
            for record in records {
                let record = record.map_err(corrupt)?;
                let entry = LogEntry {
                    offset: record.offset,
                    epoch: header.leader_epoch,
                    kind: match record.key.as_deref() {
                        Some([0]) => EntryKind::Group,
                        Some([1]) => EntryKind::Voters,
                        _ => return Err(self.corrupt(format!("entry {}", record.offset))),
                    },
                    data: record.value.unwrap_or_default().to_vec(),
                };
                self.replay_entry(&entry, replayed)?;
            }
        }
        Ok(())
    }

    fn replay_entry(&self, entry: &LogEntry, replayed: &mut Replayed) -> Result<(), Fault> {
        let expected = replayed.terms.last_index();
        let in_order = u64::try_from(entry.offset.get()) == Ok(expected);
        let Some(term) = u64::try_from(entry.epoch.0)
            .ok()
            .filter(|term| in_order && *term >= replayed.terms.last_term() && *term > 0)
        else {
            let LogEntry { offset, epoch, .. } = entry;
            return Err(self.corrupt(format!("entry {offset} of epoch {epoch} is out of order")));
        };
        replayed.terms.push(term);
        apply_entry(&mut replayed.image, entry)
            .map_err(|why| self.corrupt(format!("entry {}: {why}", entry.offset)))
    }

    /// Writes entries at the end of the log; durable when it returns.
    pub async fn append(&self, entries: &[LogEntry]) -> Result<(), Fault> {
        let log = &self.partition.log;
        let rules = log_config().rules;
        let now = self.rt.wall_clock();
        let Some(last) = entries.last() else {
            return Ok(());
        };
        if entries[0].offset < log.marks().log_end {
            log.truncate_to(entries[0].offset).await?;
        }
        for entry in entries {
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(now, Some(&[entry.kind as u8]), Some(&entry.data), &[]);
            let batch = validate(builder.build(), &rules, now)
                .expect("a batch that we built passes our rules");
            loop {
                let room = self.engine.room().listen();
                if log.has_room(batch.len()) {
                    break;
                }
                room.await;
            }
            self.partition.set_leader_epoch(entry.epoch);
            let appended = self.partition.append(batch).map_err(|error| match error {
                AppendError::Fault(fault) => fault,
                other => self.corrupt(other.to_string()),
            })?;
            assert_eq!(
                appended.base_offset, entry.offset,
                "index and offset go together"
            );
        }
        self.partition.wait_committed(last.offset.plus(1)).await
    }

    /// Makes the ballot durable.
    pub async fn save_ballot(&self, ballot: Ballot) -> Result<(), Fault> {
        durable::replace_file(&self.rt, &self.ballot_path, &encode_ballot(ballot)).await
    }

    async fn read_ballot(&self, terms: &Terms) -> Result<Ballot, Fault> {
        let path = &self.ballot_path;
        let ballot = match self.rt.read_small(path, BALLOT_BYTES).await {
            Ok(bytes) => decode_ballot(&bytes).ok_or_else(|| Fault::corrupt("ballot", path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ballot::default(),
            Err(error) => return Err(Fault::io("read", path, error)),
        };
        // The ballot is written before the first entry of its term.
        if ballot.term < terms.last_term() {
            let term = terms.last_term();
            let what = format!("ballot of term {} beside a log of term {term}", ballot.term);
            return Err(Fault::corrupt(what, path));
        }
        Ok(ballot)
    }

    fn corrupt(&self, what: String) -> Fault {
        Fault::corrupt(what, log_name().to_string())
    }
}

/// Applies a committed entry. One without data is the mark of a new leader, one about voters concerns Raft only.
pub fn apply_entry(image: &mut Image, entry: &LogEntry) -> Result<(), String> {
    let group = match entry.kind {
        EntryKind::Group if !entry.data.is_empty() => {
            decode(&entry.data).map_err(|error: CodecError| error.to_string())?
        }
        EntryKind::Group | EntryKind::Voters => Vec::new(),
    };
    image
        .apply(entry.offset, &group)
        .map_err(|error| error.to_string())
}

fn encode_ballot(ballot: Ballot) -> [u8; BALLOT_BYTES] {
    let mut bytes = [0; BALLOT_BYTES];
    bytes[..4].copy_from_slice(&BALLOT_MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&ballot.term.to_be_bytes());
    bytes[16..24].copy_from_slice(&ballot.vote.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode_ballot(bytes: &[u8]) -> Option<Ballot> {
    let bytes: &[u8; BALLOT_BYTES] = bytes.try_into().ok()?;
    let number = |from: usize| {
        let field: [u8; 8] = bytes[from..from + 8].try_into().expect("eight bytes");
        u64::from_be_bytes(field)
    };
    let ballot = Ballot {
        term: number(8),
        vote: number(16),
    };
    // Every byte is determined by the two numbers.
    (*bytes == encode_ballot(ballot)).then_some(ballot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballot_survives_and_damage_is_seen() {
        let ballot = Ballot { term: 7, vote: 2 };
        let bytes = encode_ballot(ballot);
        assert_eq!(decode_ballot(&bytes), Some(ballot));
        for position in 0..BALLOT_BYTES {
            for bit in 0..8 {
                let mut damaged = bytes;
                damaged[position] ^= 1 << bit;
                assert_eq!(decode_ballot(&damaged), None, "byte {position} bit {bit}");
            }
        }
        assert_eq!(decode_ballot(&bytes[1..]), None);
    }
}
