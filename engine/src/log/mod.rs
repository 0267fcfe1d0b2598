//! One partition's log: segments, tail, marks, producers, epochs.

pub mod epochs;
pub mod marks;
pub mod producers;
pub mod recovery;
pub mod retention;
pub mod tail;

use bytes::Bytes;

use crate::{
    batch::{BatchRules, ValidBatch},
    error::{AppendError, Fault, ReadError},
    types::{LeaderEpoch, LogId, LogName, Offset, ProducerEpoch, ProducerId, Timestamp},
};

pub use marks::Marks;

/// When a batch counts as safe on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once durable, in the journal or in the segment.
    Persisted,
    /// Once in memory; written behind.
    Replicated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What a topic's configuration asks of its logs. May change while the log is open.
#[derive(Clone, Debug)]
pub struct LogConfig {
    pub durability: Durability,
    pub segment_bytes: u64,
    pub segment_ms: u64,
    pub index_interval_bytes: u64,
    pub retention_bytes: Option<u64>,
    pub retention_ms: Option<u64>,
    /// How long a deleted segment's file stays.
    pub file_delete_delay_ms: u64,
    /// `false` for `cleanup.policy=compact`: retention does not delete.
    pub delete: bool,
    pub rules: BatchRules,
}

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    pub last_offset: Offset,
    /// Set for `LogAppendTime`.
    pub append_time: Option<Timestamp>,
    pub log_start: Offset,
    /// The same batch had been written before; the offsets are those of then.
    pub duplicate: bool,
}

/// What a read found: whole batches as stored, ready to be sent.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    pub slices: Vec<Bytes>,
    pub bytes: usize,
    /// Where the next read goes on; `None` when nothing was read.
    pub next: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAndTime {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub leader_epoch: LeaderEpoch,
}

/// How a read is bounded.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Only batches that end at or below this offset (high watermark or last stable offset).
    pub below: Offset,
    pub bytes_max: usize,
    /// The first batch is returned even if it is larger than `bytes_max`.
    pub at_least_one: bool,
}

/// Handle to an open log. Cheap to clone, stays on its shard.
#[derive(Clone)]
pub struct Log {
    _private: std::rc::Rc<()>,
}

impl Log {
    pub fn id(&self) -> LogId {
        unimplemented!()
    }
    pub fn name(&self) -> &LogName {
        unimplemented!()
    }
    pub fn config(&self) -> LogConfig {
        unimplemented!()
    }
    pub fn configure(&self, _config: LogConfig) {
        unimplemented!()
    }

    /// Assigns offsets and the epoch, checks the producer's sequence, and puts the batch into the tail. Never waits. It counts once
    /// [`Marks::counted_end`] has passed its last offset; [`crate::Engine::progress`] reports every log whose counted end moved.
    pub fn append(&self, _batch: ValidBatch, _epoch: LeaderEpoch) -> Result<Appended, AppendError> {
        unimplemented!()
    }

    /// Whether an append of this size would be taken now rather than refused with `Busy` (which gives the batch up): ask first,
    /// and wait for [`crate::Engine::room`] if not.
    pub fn has_room(&self, _bytes: usize) -> bool {
        unimplemented!()
    }

    pub fn marks(&self) -> Marks {
        unimplemented!()
    }
    /// Moves the high watermark forward, up to the log end; the caller knows what is replicated.
    pub fn set_high_watermark(&self, _offset: Offset) {
        unimplemented!()
    }
    /// Why the log is offline, if it is.
    pub fn fault(&self) -> Option<Fault> {
        unimplemented!()
    }

    /// Reads whole batches from the one that contains `from` on. From the tail cache without waiting, else from disk in the cold class.
    pub async fn read(&self, _from: Offset, _limit: ReadLimit) -> Result<Fetched, ReadError> {
        unimplemented!()
    }
    /// As `read`, but only if the tail cache holds what is asked for (or nothing is there to read): `None` means "go to disk".
    pub fn read_cached(
        &self,
        _from: Offset,
        _limit: ReadLimit,
    ) -> Option<Result<Fetched, ReadError>> {
        unimplemented!()
    }
    /// The first record below `below` whose timestamp is at or after `timestamp`.
    pub async fn find_timestamp(
        &self,
        _timestamp: Timestamp,
        _below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        unimplemented!()
    }
    /// The record with the largest timestamp below `below`.
    pub async fn find_max_timestamp(
        &self,
        _below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        unimplemented!()
    }
    /// The leader epoch of the record at `offset`, if the log has one.
    pub fn epoch_at(&self, _offset: Offset) -> Option<LeaderEpoch> {
        unimplemented!()
    }
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        unimplemented!()
    }
    /// Kafka's OffsetForLeaderEpoch: the largest epoch at or below `epoch` and the offset where it ends.
    pub fn end_of_epoch(&self, _epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        unimplemented!()
    }

    /// Cuts everything from `offset` on, with epochs and producers; durable when it returns. Never below the high watermark.
    pub async fn truncate_to(&self, _offset: Offset) -> Result<(), Fault> {
        unimplemented!()
    }
    /// Moves the log start forward (DeleteRecords); whole segments below it go. Durable when it returns.
    pub async fn delete_to(&self, _offset: Offset) -> Result<Offset, Fault> {
        unimplemented!()
    }
    /// Bytes in segments and tail.
    pub fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Forgets producers idle for longer than `idle_ms`.
    pub fn expire_producers(&self, _idle_ms: u64) {
        unimplemented!()
    }
    /// Producers with state in this log: id, epoch, last sequence, last offset, last timestamp.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerEpoch, i32, Offset, Timestamp)> {
        unimplemented!()
    }
}
