//! From bytes that came from outside to a [`ValidBatch`].

use std::fmt;

use bytes::BytesMut;

use super::{BatchHeader, Codec};
use crate::{log::TimestampType, types::Timestamp};

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
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// Shorter than a header, or than its own length says.
    Truncated,
    /// More or fewer bytes than exactly one batch.
    NotOneBatch,
    Magic(i8),
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
    /// Index of the record and its timestamp.
    Timestamp {
        index: i32,
        timestamp: Timestamp,
    },
    /// Indices of the records without a key.
    KeyMissing {
        indices: Vec<i32>,
    },
    UnsupportedCodec(u8),
    Decompression(String),
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for BatchError {}

/// Checks everything a broker must know before the batch may enter a log.
pub fn validate(
    _bytes: BytesMut,
    _rules: &BatchRules,
    _now: Timestamp,
) -> Result<ValidBatch, BatchError> {
    unimplemented!()
}
