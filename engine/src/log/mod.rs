//! One partition's log: segments, tail, marks, producers, epochs.

mod append;
mod cut;
pub mod epochs;
pub mod fuzz;
mod in_flight;
pub mod marks;
mod mend;
pub(crate) mod open;
mod pending;
pub mod producers;
mod read;
pub mod recovery;
mod rest;
mod retention;
pub(crate) mod scrub;
pub(crate) mod settle;
pub(crate) mod shared;
pub(crate) mod space;
mod spares;
pub(crate) mod state;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod timestamps;
pub(crate) mod together;
pub(crate) mod write;

use std::rc::Rc;

use bytes::Bytes;

use crate::{
    batch::{BatchRules, ValidBatch},
    error::{AppendError, Fault, ReadError},
    types::{LeaderEpoch, LogId, LogName, Offset, ProducerEpoch, ProducerId, Timestamp},
};
use state::LogInner;

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

/// How much of a disk that runs full a log may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceUse {
    /// Records of clients: refused once only the reserve is left.
    Data,
    /// Committed offsets and the like, of an owner who decides before it writes and cannot take that back: never refused, but
    /// [`Log::has_space`] says when three quarters of the reserve are gone too, and then nothing more should be begun.
    Internal,
    /// Never refused.
    Metadata,
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
    pub space: SpaceUse,
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
pub struct Log(pub(crate) Rc<LogInner>);

impl Log {
    pub fn id(&self) -> LogId {
        self.0.id
    }

    pub fn name(&self) -> &LogName {
        &self.0.name
    }

    pub fn config(&self) -> LogConfig {
        self.0.state.borrow().config.clone()
    }

    pub fn configure(&self, config: LogConfig) {
        self.0.configure(config);
    }

    /// Assigns offsets and the epoch, checks the producer's sequence, and puts the batch into the tail. Never waits. It counts once
    /// [`Marks::counted_end`] has passed its last offset; [`crate::Engine::progress`] reports every log whose counted end moved.
    pub fn append(&self, batch: ValidBatch, epoch: LeaderEpoch) -> Result<Appended, AppendError> {
        let frame_bytes = batch.len();
        self.0.append(batch, epoch, frame_bytes)
    }

    /// As `append`, for a batch that is a slice of a frame of `frame_bytes`: where it is the smaller part of what it keeps alive it is
    /// copied, else the tail's budget counts the whole frame.
    pub fn append_slice(
        &self,
        batch: ValidBatch,
        epoch: LeaderEpoch,
        frame_bytes: usize,
    ) -> Result<Appended, AppendError> {
        self.0.append(batch, epoch, frame_bytes)
    }

    /// Whether an append of this size would be taken now rather than refused with `Busy` (which gives the batch up): ask first,
    /// and wait for [`crate::Engine::room`] if not.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.0.has_room(bytes)
    }

    /// Whether the disk has space for what this log is used for. Where not, appends of client data are refused with `DiskLow`; whoever
    /// appends to an internal log asks first.
    pub fn has_space(&self) -> bool {
        self.0.has_space()
    }

    pub fn marks(&self) -> Marks {
        self.0.state.borrow().marks
    }

    /// Moves the high watermark forward, up to the log end; the caller knows what is replicated.
    pub fn set_high_watermark(&self, offset: Offset) {
        let mut state = self.0.state.borrow_mut();
        state.marks = state.marks.moved(|marks| {
            marks.high_watermark = marks.high_watermark.max(offset);
            marks.last_stable = marks.high_watermark;
        });
    }

    /// Why the log is offline, if it is.
    pub fn fault(&self) -> Option<Fault> {
        self.0.fault()
    }

    /// Whether it can be read. One that went offline can, as far as it is durable, but for one at rest whose segments could not be opened.
    pub fn is_readable(&self) -> bool {
        let state = self.0.state.borrow();
        state.fault.is_none() || state.rest != rest::Rest::Asleep
    }

    /// Reads whole batches from the one that contains `from` on. From the tail cache without waiting, else from disk in the cold class.
    pub async fn read(&self, from: Offset, limit: ReadLimit) -> Result<Fetched, ReadError> {
        self.0.read(from, limit).await
    }

    /// As `read`, but only if the tail cache holds what is asked for (or nothing is there to read): `None` means "go to disk".
    pub fn read_cached(
        &self,
        from: Offset,
        limit: ReadLimit,
    ) -> Option<Result<Fetched, ReadError>> {
        self.0.read_cached(from, limit)
    }

    /// The first record below `below` whose timestamp is at or after `timestamp`.
    pub async fn find_timestamp(
        &self,
        timestamp: Timestamp,
        below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        self.0.find_timestamp(timestamp, below).await
    }

    /// The record with the largest timestamp below `below`.
    pub async fn find_max_timestamp(
        &self,
        below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        self.0.find_max_timestamp(below).await
    }

    /// The leader epoch of the record at `offset`, if the log has one.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let state = self.0.state.borrow();
        let within = offset >= state.marks.log_start && offset < state.marks.log_end;
        within.then(|| state.epochs.epoch_at(offset)).flatten()
    }

    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.0.state.borrow().epochs.latest()
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch at or below `epoch` and the offset where it ends.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.0.state.borrow();
        state.epochs.end_of_epoch(epoch, state.marks.log_end)
    }

    /// Cuts every batch that ends above `offset`, with epochs and producers; durable when it returns. Never below the high watermark.
    pub async fn truncate_to(&self, offset: Offset) -> Result<(), Fault> {
        self.0.truncate_to(offset).await
    }

    /// Moves the log start forward (DeleteRecords), at most to the high watermark; whole segments below it go. Durable when it returns.
    pub async fn delete_to(&self, offset: Offset) -> Result<Offset, Fault> {
        self.0.delete_to(offset).await
    }

    /// Bytes in segments and tail.
    pub async fn size_bytes(&self) -> Result<u64, Fault> {
        self.0.size_bytes().await
    }

    /// Forgets producers idle for longer than `idle_ms`.
    pub fn expire_producers(&self, idle_ms: u64) {
        let now = self.0.shared.rt.wall_clock();
        self.0.state.borrow_mut().producers.expire(now, idle_ms);
    }

    /// Producers with state in this log: id, epoch, last sequence, last offset, last timestamp.
    pub fn producers(&self) -> Vec<(ProducerId, ProducerEpoch, i32, Offset, Timestamp)> {
        let state = self.0.state.borrow();
        let known = state.producers.iter().filter_map(|producer| {
            let last_offset = producer.last_offset?;
            let (id, epoch) = (producer.id, producer.epoch);
            Some((
                id,
                epoch,
                producer.last_sequence,
                last_offset,
                producer.last_timestamp,
            ))
        });
        known.collect()
    }
}
