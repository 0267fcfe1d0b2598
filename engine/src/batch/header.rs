//! The 61 bytes before the records of a batch. (Owner draws the bytes here.)

use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

pub const HEADER_LEN: usize = 61;

/// All fields of a header, read by value. `parse` checks only that the fixed part is there and that lengths are sane.
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
    /// -1 where there is no producer.
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    pub fn last_offset(&self) -> Offset {
        self.base_offset.plus(i64::from(self.last_offset_delta))
    }
    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().plus(1)
    }
}
