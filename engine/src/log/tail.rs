//! The newest batches in memory: what waits for the disk, and what tail readers are served from.
//!
//! A tail is a run of batches without a gap that ends at the log end. Batches leave at its front, and only once they are
//! in the segment (*flushed*). All tails of a shard share one budget, kept by the [`TailPool`], which counts the memory a
//! batch keeps alive rather than its length: a slice of a frame holds the whole frame.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Weak,
};

use bytes::Bytes;

use super::{Fetched, ReadLimit, state::LogInner};
use crate::{
    batch::BatchHeader,
    types::{LeaderEpoch, Offset, Timestamp},
};

#[derive(Clone, Debug)]
pub struct TailBatch {
    pub base: Offset,
    pub next: Offset,
    pub epoch: LeaderEpoch,
    pub max_timestamp: Timestamp,
    pub bytes: Bytes,
    /// Memory this batch answers for in the budget.
    pub kept_bytes: usize,
    /// Where it belongs on disk, decided when it was appended.
    pub segment_base: Offset,
    pub position: u64,
}

impl TailBatch {
    pub fn new(
        header: &BatchHeader,
        bytes: Bytes,
        kept_bytes: usize,
        segment_base: Offset,
        position: u64,
    ) -> TailBatch {
        assert_eq!(
            bytes.len(),
            header.total_len,
            "the header describes the bytes"
        );
        TailBatch {
            base: header.base_offset,
            next: header.next_offset(),
            epoch: header.leader_epoch,
            max_timestamp: header.max_timestamp,
            bytes,
            kept_bytes,
            segment_base,
            position,
        }
    }
}

#[derive(Default)]
pub struct Tail {
    batches: VecDeque<TailBatch>,
    /// How many batches at the front are in the segment.
    flushed: usize,
    /// Length of those that are not.
    unflushed_bytes: usize,
    /// The log is offline: what is not flushed stays to be read, and no longer waits for the disk.
    stranded: bool,
}

impl Tail {
    pub fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes
    }

    /// First offset that can be read from here.
    pub fn start(&self) -> Option<Offset> {
        self.batches.front().map(|batch| batch.base)
    }

    /// Gives memory back that was needed for more batches than there are now.
    pub fn shrink(&mut self) {
        self.batches.shrink_to_fit();
    }

    pub fn push(&mut self, batch: TailBatch) {
        if let Some(last) = self.batches.back() {
            assert!(last.next <= batch.base, "the tail is in order");
        }
        self.unflushed_bytes += batch.bytes.len();
        self.batches.push_back(batch);
    }

    /// The batches not in the segment yet, oldest first.
    pub fn unflushed(&self) -> impl Iterator<Item = &TailBatch> {
        self.batches.range(self.flushed..)
    }

    /// The batches from `offset` on, oldest first.
    pub fn from(&self, offset: Offset) -> impl Iterator<Item = &TailBatch> {
        self.batches.range(self.index_of(offset)..)
    }

    /// Index of the batch that holds `offset` or comes next.
    fn index_of(&self, offset: Offset) -> usize {
        self.batches.partition_point(|batch| batch.next <= offset)
    }

    /// Everything below `end` is in the segment now. Returns the memory of what became evictable.
    pub fn mark_flushed(&mut self, end: Offset) -> usize {
        let mut kept_bytes = 0;
        while let Some(batch) = self.batches.get(self.flushed) {
            if batch.next > end {
                break;
            }
            self.unflushed_bytes -= batch.bytes.len();
            kept_bytes += batch.kept_bytes;
            self.flushed += 1;
        }
        kept_bytes
    }

    /// Takes the oldest batch out if it is flushed, and returns the memory it answered for.
    pub fn evict_front(&mut self) -> Eviction {
        if self.batches.is_empty() {
            return Eviction::Empty;
        }
        if self.flushed == 0 {
            return Eviction::Unflushed;
        }
        let batch = self.batches.pop_front().expect("checked above");
        self.flushed -= 1;
        Eviction::Evicted(batch.kept_bytes)
    }

    /// Drops all batches that end above `end`; returns (memory of all dropped, memory of the unflushed among them).
    pub fn cut(&mut self, end: Offset) -> (usize, usize) {
        let (mut dropped, mut dropped_unflushed) = (0, 0);
        while self.batches.back().is_some_and(|batch| batch.next > end) {
            let batch = self.batches.pop_back().expect("checked above");
            dropped += batch.kept_bytes;
            if self.flushed > self.batches.len() {
                self.flushed -= 1;
            } else {
                dropped_unflushed += batch.kept_bytes;
                self.unflushed_bytes -= batch.bytes.len();
            }
        }
        match self.stranded {
            // They stopped waiting for the disk when the log went offline.
            true => (dropped, 0),
            false => (dropped, dropped_unflushed),
        }
    }

    /// Memory of (all batches, those that wait for the disk).
    pub fn kept_bytes(&self) -> (usize, usize) {
        let sum = |from: usize| {
            self.batches
                .range(from..)
                .map(|batch| batch.kept_bytes)
                .sum()
        };
        match self.stranded {
            true => (sum(0), 0),
            false => (sum(0), sum(self.flushed)),
        }
    }

    /// Nothing of it will be written any more. Returns the memory of what waited for that.
    pub fn strand(&mut self) -> usize {
        let (_, waiting) = self.kept_bytes();
        self.stranded = true;
        waiting
    }

    /// What is not flushed waits for the disk again. Returns its memory.
    pub fn unstrand(&mut self) -> usize {
        self.stranded = false;
        let (_, waiting) = self.kept_bytes();
        waiting
    }

    /// Whole batches from the one that holds `from` on; `None` when they are not (all) here any more.
    pub fn read(&self, from: Offset, limit: ReadLimit) -> Option<Fetched> {
        if self.start()? > from {
            return None;
        }
        let mut fetched = Fetched::default();
        for batch in self.from(from) {
            if !fetched.take(&batch.bytes, batch.next, limit) {
                break;
            }
        }
        Some(fetched)
    }
}

pub enum Eviction {
    Evicted(usize),
    Unflushed,
    Empty,
}

/// How many tails whose oldest batch is not flushed an eviction passes before it gives up for this time.
const UNFLUSHED_TRIES_MAX: usize = 64;

/// The budget of all tails of a shard. First in, first out over all logs: what is read from the tail is read soon.
pub struct TailPool {
    bytes_max: usize,
    bytes: Cell<usize>,
    unflushed_bytes: Cell<usize>,
    /// One entry per batch in the order of appends. An entry stands for "the oldest batch of this log"; entries left behind
    /// by a cut find the tail empty or evict a little early, both harmless.
    order: RefCell<VecDeque<Weak<LogInner>>>,
}

impl TailPool {
    pub fn new(bytes_max: usize) -> TailPool {
        TailPool {
            bytes_max,
            bytes: Cell::new(0),
            unflushed_bytes: Cell::new(0),
            order: RefCell::new(VecDeque::new()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub fn unflushed_bytes(&self) -> usize {
        self.unflushed_bytes.get()
    }

    /// Whether a batch may come in. One always may when nothing waits for the disk, however large it is.
    pub fn has_room(&self, kept_bytes: usize) -> bool {
        let unflushed = self.unflushed_bytes.get();
        unflushed == 0 || unflushed + kept_bytes <= self.bytes_max
    }

    /// Half of the budget waits for the disk: time to write behind, before appends have to be refused.
    pub fn wants_flush(&self) -> bool {
        self.unflushed_bytes.get() > self.bytes_max / 2
    }

    pub fn add(&self, log: Weak<LogInner>, kept_bytes: usize) {
        self.bytes.set(self.bytes.get() + kept_bytes);
        self.unflushed_bytes
            .set(self.unflushed_bytes.get() + kept_bytes);
        self.order.borrow_mut().push_back(log);
    }

    /// A log is online again: what it could not write waits for the disk once more.
    pub fn unflushed_again(&self, kept_bytes: usize) {
        self.unflushed_bytes
            .set(self.unflushed_bytes.get() + kept_bytes);
    }

    pub fn flushed(&self, kept_bytes: usize) {
        let left = self.unflushed_bytes.get().checked_sub(kept_bytes);
        self.unflushed_bytes
            .set(left.expect("no more is flushed than was added"));
    }

    /// Takes back what a cut or a closed log held.
    pub fn remove(&self, (dropped, dropped_unflushed): (usize, usize)) {
        self.flushed(dropped_unflushed);
        self.released(dropped);
    }

    fn released(&self, kept_bytes: usize) {
        let left = self.bytes.get().checked_sub(kept_bytes);
        self.bytes
            .set(left.expect("no more is released than was added"));
        assert!(
            self.unflushed_bytes.get() <= self.bytes.get(),
            "unflushed bytes are bytes"
        );
    }

    /// Evicts until the budget holds. Where a log's oldest batch is not flushed its write is asked for, and the next log's turn comes.
    /// No borrow of a log's state may be held.
    pub fn evict(&self) {
        let mut unflushed = 0;
        while self.bytes.get() > self.bytes_max && unflushed < UNFLUSHED_TRIES_MAX {
            let Some(entry) = self.order.borrow_mut().pop_front() else {
                return;
            };
            let Some(log) = entry.upgrade() else {
                continue;
            };
            match log.evict_front() {
                Eviction::Evicted(kept_bytes) => self.released(kept_bytes),
                Eviction::Empty => {}
                Eviction::Unflushed => {
                    unflushed += 1;
                    self.order.borrow_mut().push_back(entry);
                }
            }
        }
    }
}
