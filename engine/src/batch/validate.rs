//! From bytes that came from outside to a [`ValidBatch`].
//!
//! Follows Kafka's LogValidator, with two differences: compressed records are not looked into unless keys are required
//! or the codec changes (Kafka decompresses every batch), and offset deltas must be 0, 1, 2 and so on (Kafka lets a
//! producer write others into an uncompressed batch).

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{
    BatchHeader, Codec, HEADER_LEN,
    builder::encode,
    header::{at, attribute, compute_crc, put},
    records::{DECOMPRESSED_BYTES_MAX, RecordView},
    varint::Reader,
};
use crate::{
    log::TimestampType,
    types::{LeaderEpoch, Offset, Timestamp},
};

/// So many records without a key are named in one error.
pub const KEY_MISSING_INDICES_MAX: usize = 1024;

/// Length, attributes, two deltas, key, value and header count take a byte each at least.
const RECORD_BYTES_MIN: usize = 7;

/// What the topic asks of a batch.
#[derive(Clone, Debug)]
pub struct BatchRules {
    pub message_bytes_max: usize,
    pub timestamp_type: TimestampType,
    /// How far a timestamp may lie before, and after, the broker's clock. `None`: any.
    pub timestamp_before_max_ms: Option<i64>,
    pub timestamp_after_max_ms: Option<i64>,
    /// Compacted topics: every record has a key.
    pub keys_required: bool,
    /// `compression.type` other than `producer`: batches with another codec are recompressed.
    pub codec: Option<Codec>,
    /// Control batches come from coordinators only.
    pub control_allowed: bool,
}

/// One batch whose header, CRC, counts and (when not compressed) records were checked. Offset and epoch are assigned by the log.
#[derive(Debug)]
pub struct ValidBatch {
    header: BatchHeader,
    bytes: BytesMut,
}

impl ValidBatch {
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes base offset and leader epoch in place (both lie outside the CRC) and freezes the batch.
    pub fn assign(self, base_offset: Offset, epoch: LeaderEpoch) -> (BatchHeader, Bytes) {
        let ValidBatch {
            mut header,
            mut bytes,
        } = self;
        assert!(bytes.len() == header.total_len);
        assert!(header.last_offset_delta == header.record_count - 1);
        header.base_offset = base_offset;
        header.leader_epoch = epoch;
        put(&mut bytes, at::BASE_OFFSET, base_offset.get().to_be_bytes());
        put(&mut bytes, at::LEADER_EPOCH, epoch.0.to_be_bytes());
        (header, bytes.freeze())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Shorter than a header, or than its own length says.
    Truncated,
    /// More or fewer bytes than exactly one batch.
    NotOneBatch,
    Magic(i8),
    /// A length that no batch can have.
    Length(i32),
    Crc {
        stored: u32,
        computed: u32,
    },
    TooLarge {
        bytes: usize,
        bytes_max: usize,
    },
    /// Counts, deltas, lengths or attribute bits that contradict each other.
    Malformed(&'static str),
    /// Index of the record (-1: the batch as a whole) and its timestamp.
    Timestamp {
        index: i32,
        timestamp: Timestamp,
    },
    /// Indices of the records without a key, the first [`KEY_MISSING_INDICES_MAX`] of them.
    KeyMissing {
        indices: Vec<i32>,
    },
    UnsupportedCodec(u8),
    Decompression(String),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BatchError::Truncated => f.write_str("batch is cut short"),
            BatchError::NotOneBatch => f.write_str("expected exactly one batch"),
            BatchError::Magic(magic) => write!(f, "batch format {magic} is not supported"),
            BatchError::Length(length) => write!(f, "no batch has length {length}"),
            BatchError::Crc { stored, computed } => {
                write!(
                    f,
                    "batch carries CRC {stored:08x}, its bytes have {computed:08x}"
                )
            }
            BatchError::TooLarge { bytes, bytes_max } => {
                write!(f, "batch of {bytes} bytes is larger than {bytes_max}")
            }
            BatchError::Malformed(what) => write!(f, "malformed batch: {what}"),
            BatchError::Timestamp { index, timestamp } => {
                write!(f, "timestamp {timestamp} of record {index} is not allowed")
            }
            BatchError::KeyMissing { indices } => {
                write!(f, "{} records or more have no key", indices.len())
            }
            BatchError::UnsupportedCodec(id) => write!(f, "unknown compression codec {id}"),
            BatchError::Decompression(what) => write!(f, "cannot decompress: {what}"),
        }
    }
}

impl std::error::Error for BatchError {}

/// Checks everything a broker must know before the batch may enter a log.
///
/// Changes only what Kafka changes too: with `LogAppendTime` the attribute and the maximum timestamp, with `CreateTime` a wrong
/// maximum timestamp, and the codec if the topic wants another. Then the CRC is computed anew.
pub fn validate(
    bytes: BytesMut,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<ValidBatch, BatchError> {
    let header = BatchHeader::parse(&bytes)?;
    if header.total_len > bytes.len() {
        return Err(BatchError::Truncated);
    }
    if header.total_len < bytes.len() {
        return Err(BatchError::NotOneBatch);
    }
    check_size(bytes.len(), rules)?;
    header.check_crc(&bytes)?;
    check_header(&header, rules)?;

    let codec = header.codec()?;
    let codec_wanted = rules.codec.unwrap_or(codec);
    let mut batch = ValidBatch { header, bytes };
    let max_timestamp = if codec == Codec::None {
        let section = &batch.bytes[HEADER_LEN..];
        let max_timestamp = check_records(section, &header, rules, now)?;
        if codec_wanted != codec {
            batch.replace(encode(header, codec_wanted, section))?;
        }
        max_timestamp
    } else if rules.keys_required || codec_wanted != codec {
        let section = codec.decompress(&batch.bytes[HEADER_LEN..], DECOMPRESSED_BYTES_MAX)?;
        let max_timestamp = check_records(&section, &header, rules, now)?;
        if codec_wanted != codec {
            batch.replace(encode(header, codec_wanted, &section))?;
        }
        max_timestamp
    } else {
        // Whatever the records say, nothing reads a timestamp of this batch as later than its maximum.
        check_timestamp(-1, header.max_timestamp, rules, now)?;
        header.max_timestamp
    };
    match rules.timestamp_type {
        TimestampType::CreateTime => batch.stamp(TimestampType::CreateTime, max_timestamp),
        TimestampType::LogAppendTime => batch.stamp(TimestampType::LogAppendTime, now),
    }
    // A codec the topic asks for may do worse than the producer's.
    check_size(batch.bytes.len(), rules)?;
    assert!(batch.bytes.len() == batch.header.total_len);
    Ok(batch)
}

impl ValidBatch {
    fn replace(&mut self, bytes: BytesMut) -> Result<(), BatchError> {
        self.header = BatchHeader::parse(&bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Sets timestamp type and maximum timestamp, with a new CRC if that changes anything.
    fn stamp(&mut self, timestamp_type: TimestampType, max_timestamp: Timestamp) {
        let header = &mut self.header;
        if header.timestamp_type() == timestamp_type && header.max_timestamp == max_timestamp {
            return;
        }
        match timestamp_type {
            TimestampType::CreateTime => header.attributes &= !attribute::LOG_APPEND_TIME,
            TimestampType::LogAppendTime => header.attributes |= attribute::LOG_APPEND_TIME,
        }
        header.max_timestamp = max_timestamp;
        let bytes = &mut self.bytes;
        put(bytes, at::ATTRIBUTES, header.attributes.to_be_bytes());
        put(bytes, at::MAX_TIMESTAMP, max_timestamp.0.to_be_bytes());
        header.crc = compute_crc(bytes);
        put(bytes, at::CRC, header.crc.to_be_bytes());
    }
}

fn check_size(bytes: usize, rules: &BatchRules) -> Result<(), BatchError> {
    let bytes_max = rules.message_bytes_max;
    if bytes > bytes_max {
        return Err(BatchError::TooLarge { bytes, bytes_max });
    }
    Ok(())
}

/// What the header says of itself, and what the topic allows of it.
fn check_header(header: &BatchHeader, rules: &BatchRules) -> Result<(), BatchError> {
    let malformed = |what| Err(BatchError::Malformed(what));
    if header.record_count < 1 {
        return malformed("no records");
    }
    if header.last_offset_delta != header.record_count - 1 {
        return malformed("record count and last offset delta disagree");
    }
    // The compressed records are not counted, and nothing of ours would decompress more than this.
    if header.record_count as usize > DECOMPRESSED_BYTES_MAX / RECORD_BYTES_MIN {
        return malformed("more records than a batch can hold");
    }
    if header.is_control() && !rules.control_allowed {
        return malformed("control batch from a client");
    }
    if header.producer.is_none() && header.is_transactional() {
        return malformed("transactional batch without a producer");
    }
    if header.producer.is_some() {
        match (header.is_control(), header.base_sequence >= 0) {
            (false, false) => return malformed("producer without a sequence"),
            (true, true) => return malformed("control batch with a sequence"),
            (false, true) | (true, false) => {}
        }
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::Timestamp {
            index: -1,
            timestamp: header.max_timestamp,
        });
    }
    Ok(())
}

/// Walks all records of an uncompressed section, without allocation as long as keys are there. Returns the largest timestamp.
fn check_records(
    section: &[u8],
    header: &BatchHeader,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<Timestamp, BatchError> {
    let mut max_timestamp = Timestamp(-1);
    let mut without_key = Vec::new();
    let mut reader = Reader::new(section);
    for index in 0..header.record_count {
        let record = RecordView::read(&mut reader)?;
        if record.offset_delta != index {
            return Err(BatchError::Malformed("offset deltas are not 0, 1, 2, ..."));
        }
        let timestamp = record.timestamp(header)?;
        check_timestamp(index, timestamp, rules, now)?;
        max_timestamp = max_timestamp.max(timestamp);
        if rules.keys_required
            && record.key.is_none()
            && without_key.len() < KEY_MISSING_INDICES_MAX
        {
            without_key.push(index);
        }
    }
    if !reader.is_empty() {
        return Err(BatchError::Malformed("bytes after the last record"));
    }
    if !without_key.is_empty() {
        return Err(BatchError::KeyMissing {
            indices: without_key,
        });
    }
    Ok(max_timestamp)
}

fn check_timestamp(
    index: i32,
    timestamp: Timestamp,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<(), BatchError> {
    // -1 is "none"; with LogAppendTime the producer's timestamps do not matter.
    if timestamp == Timestamp(-1) || rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let (limit_ms, distance_ms) = if timestamp <= now {
        let distance_ms = now.0.saturating_sub(timestamp.0);
        (rules.timestamp_before_max_ms, distance_ms)
    } else {
        let distance_ms = timestamp.0.saturating_sub(now.0);
        (rules.timestamp_after_max_ms, distance_ms)
    };
    if limit_ms.is_some_and(|limit_ms| distance_ms > limit_ms) {
        return Err(BatchError::Timestamp { index, timestamp });
    }
    Ok(())
}
