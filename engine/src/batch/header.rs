//! The 61 bytes before the records of a batch, and the checksum over them.
//!
//! All integers are big-endian. The checksum covers everything from `attributes` to the end of the batch, so the
//! broker may write base offset and leader epoch in place without touching it.
//!
//! ```text
//!      0       8      12      16 17      21  23      27      35      43      51  53      57      61
//!      +-------+-------+-------+--+-------+---+-------+-------+-------+-------+---+-------+-------+--------
//!      | base  | batch |leader |ma| CRC-  |att| last  | base  |  max  | prod- |pro| base  |record | records
//!      |offset | length| epoch |gc| 32C   |rib|offset |  time |  time | ucer  |epo| sequ- | count | (maybe
//!      |  i64  |  i32  |  i32  |i8|  u32  |u16| delta |  i64  |  i64  |id i64 |ch | ence  |  i32  |  compressed)
//!      +-------+-------+-------+--+-------+---+-------+-------+-------+-------+---+-------+-------+--------
//!      `batch length` counts from offset 12 |<------------------ covered by the CRC-32C ------------------->
//!
//! attributes:  15 ........ 7 | 6 delete horizon | 5 control | 4 transactional | 3 LogAppendTime | 2..0 codec
//! ```
//!
//! Parsing believes nothing: it accepts bytes of any origin. What a topic asks of a batch is checked in `validate`.

use super::{BatchError, Codec};
use crate::{
    log::TimestampType,
    types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp},
};

pub const HEADER_LEN: usize = 61;

/// Base offset and batch length: what the length itself does not count.
pub const LENGTH_PREFIX_LEN: usize = 12;

pub const MAGIC: i8 = 2;

/// No batch of any format is shorter than this after its length field.
const BATCH_LENGTH_MIN: i32 = 14;

/// Where each field begins.
pub(crate) mod at {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

const _: () = assert!(at::BATCH_LENGTH + size_of::<i32>() == LENGTH_PREFIX_LEN);
const _: () = assert!(at::CRC + size_of::<u32>() == at::ATTRIBUTES);
const _: () = assert!(at::PRODUCER_EPOCH + size_of::<i16>() == at::BASE_SEQUENCE);
const _: () = assert!(at::RECORD_COUNT + size_of::<i32>() == HEADER_LEN);

/// Bits of `attributes`.
pub mod attribute {
    pub const CODEC_MASK: u16 = 0b111;
    pub const LOG_APPEND_TIME: u16 = 1 << 3;
    pub const TRANSACTIONAL: u16 = 1 << 4;
    pub const CONTROL: u16 = 1 << 5;
    pub const DELETE_HORIZON: u16 = 1 << 6;
}

/// All fields of a header, read by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Whole batch, the first 12 bytes included.
    pub total_len: usize,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub attributes: u16,
    pub last_offset_delta: i32,
    pub base_timestamp: Timestamp,
    pub max_timestamp: Timestamp,
    /// `None` for -1: neither idempotent nor transactional.
    pub producer: Option<(ProducerId, ProducerEpoch)>,
    /// -1 where there is no producer, whatever the bytes say (several clients leave a zero there).
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may end right after it.
    ///
    /// Promises: `total_len >= HEADER_LEN`, offsets do not overflow, `record_count >= 0`. Not checked: that the rest of the
    /// batch is there, the CRC, and whatever a topic asks.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // Older formats are shorter than our header: say "wrong magic" rather than "truncated", if there can be an older batch.
        let Some(prefix) = bytes.first_chunk::<{ at::CRC }>() else {
            return Err(BatchError::Truncated);
        };
        let batch_length = i32::from_be_bytes(field(prefix, at::BATCH_LENGTH));
        if batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::Length(batch_length));
        }
        let magic = i8::from_be_bytes(field(prefix, at::MAGIC));
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated);
        };
        let total_len = usize::try_from(batch_length)
            .ok()
            .map(|length| length + LENGTH_PREFIX_LEN)
            .filter(|&total| total >= HEADER_LEN)
            .ok_or(BatchError::Length(batch_length))?;
        let base_offset = Offset::from_wire(i64::from_be_bytes(field(fixed, at::BASE_OFFSET)))
            .ok_or(BatchError::Malformed("negative base offset"))?;
        let last_offset_delta = i32::from_be_bytes(field(fixed, at::LAST_OFFSET_DELTA));
        if last_offset_delta < 0 {
            return Err(BatchError::Malformed("negative last offset delta"));
        }
        if base_offset.get() > i64::MAX - i64::from(last_offset_delta) - 1 {
            return Err(BatchError::Malformed("offset overflow"));
        }
        let record_count = i32::from_be_bytes(field(fixed, at::RECORD_COUNT));
        if record_count < 0 {
            return Err(BatchError::Malformed("negative record count"));
        }
        let producer = parse_producer(fixed)?;
        Ok(BatchHeader {
            base_offset,
            total_len,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(fixed, at::LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(fixed, at::CRC)),
            attributes: u16::from_be_bytes(field(fixed, at::ATTRIBUTES)),
            last_offset_delta,
            base_timestamp: Timestamp(i64::from_be_bytes(field(fixed, at::BASE_TIMESTAMP))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(fixed, at::MAX_TIMESTAMP))),
            producer,
            base_sequence: match producer {
                Some(_) => i32::from_be_bytes(field(fixed, at::BASE_SEQUENCE)),
                None => -1,
            },
            record_count,
        })
    }

    /// Writes all fields over the first [`HEADER_LEN`] bytes of `batch`, then the CRC of the whole; `self.crc` is set to it.
    pub(super) fn write(&mut self, batch: &mut [u8]) {
        assert!(batch.len() == self.total_len);
        assert!(self.total_len >= HEADER_LEN);
        let batch_length = i32::try_from(self.total_len - LENGTH_PREFIX_LEN)
            .expect("builders keep a batch below 2 GiB");
        let (id, epoch) = match self.producer {
            Some((id, epoch)) => (id.0, epoch.0),
            None => (-1, -1),
        };
        put(batch, at::BASE_OFFSET, self.base_offset.get().to_be_bytes());
        put(batch, at::BATCH_LENGTH, batch_length.to_be_bytes());
        put(batch, at::LEADER_EPOCH, self.leader_epoch.0.to_be_bytes());
        put(batch, at::MAGIC, MAGIC.to_be_bytes());
        put(batch, at::ATTRIBUTES, self.attributes.to_be_bytes());
        put(
            batch,
            at::LAST_OFFSET_DELTA,
            self.last_offset_delta.to_be_bytes(),
        );
        put(
            batch,
            at::BASE_TIMESTAMP,
            self.base_timestamp.0.to_be_bytes(),
        );
        put(batch, at::MAX_TIMESTAMP, self.max_timestamp.0.to_be_bytes());
        put(batch, at::PRODUCER_ID, id.to_be_bytes());
        put(batch, at::PRODUCER_EPOCH, epoch.to_be_bytes());
        put(batch, at::BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(batch, at::RECORD_COUNT, self.record_count.to_be_bytes());
        self.crc = compute_crc(batch);
        put(batch, at::CRC, self.crc.to_be_bytes());
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }

    /// Sequence of the last record; after 2^31-1 comes 0. -1 where there is no sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        // Both are in 0..2^31, so the sum fits 32 unsigned bits and the mask is the wrap.
        ((self.base_sequence as u32 + self.last_offset_delta as u32) & 0x7fff_ffff) as i32
    }

    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_id((self.attributes & attribute::CODEC_MASK) as u8)
    }

    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & attribute::LOG_APPEND_TIME != 0 {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & attribute::TRANSACTIONAL != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes & attribute::CONTROL != 0
    }

    /// Whether `batch`, which this header was parsed from, is complete and carries its own checksum.
    pub fn check_crc(&self, batch: &[u8]) -> Result<(), BatchError> {
        if batch.len() < self.total_len {
            return Err(BatchError::Truncated);
        }
        let computed = compute_crc(&batch[..self.total_len]);
        if computed != self.crc {
            return Err(BatchError::Crc {
                stored: self.crc,
                computed,
            });
        }
        Ok(())
    }
}

/// CRC-32C over what the checksum of one whole batch covers.
pub(super) fn compute_crc(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(&batch[at::ATTRIBUTES..])
}

pub(super) fn put<const N: usize>(batch: &mut [u8], position: usize, value: [u8; N]) {
    batch[position..position + N].copy_from_slice(&value);
}

fn parse_producer(
    fixed: &[u8; HEADER_LEN],
) -> Result<Option<(ProducerId, ProducerEpoch)>, BatchError> {
    let id = i64::from_be_bytes(field(fixed, at::PRODUCER_ID));
    let epoch = i16::from_be_bytes(field(fixed, at::PRODUCER_EPOCH));
    match id {
        -1 => Ok(None),
        0.. if epoch >= 0 => Ok(Some((ProducerId(id), ProducerEpoch(epoch)))),
        0.. => Err(BatchError::Malformed("negative producer epoch")),
        _ => Err(BatchError::Malformed("negative producer id")),
    }
}

fn field<const N: usize>(fixed: &[u8], position: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&fixed[position..position + N]);
    value
}
