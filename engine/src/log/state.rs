//! The state of one open log, and the few steps that change it. Appends, writes, reads, cuts and recovery are in files of
//! their own; each changes the state in one borrow between two awaits, so that no task ever sees half a change.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use bytes::Bytes;

use super::{
    Durability, LogConfig, Marks,
    epochs::Epochs,
    in_flight::InFlight,
    pending::{Decision, Pending},
    producers::Producers,
    read::Cursors,
    rest::{Outline, Rest},
    shared::{SegmentKey, Shared},
    spares::Spares,
    tail::{Eviction, Tail, TailBatch},
};
use crate::{
    batch::BatchHeader,
    checkpoint::LogCheckpoint,
    error::Fault,
    journal::writer::Entry,
    rt::local::Notify,
    segment::{SEGMENT_BYTES_MAX, Segment, SegmentWriter, segment_path},
    types::{LogId, LogName, Offset, Timestamp},
};

/// Generation of a log that was never cut.
pub const FIRST_GENERATION: u64 = 1;

pub struct LogInner {
    pub shared: Rc<Shared>,
    pub id: LogId,
    pub name: LogName,
    pub dir: PathBuf,
    /// Number of this log within this run.
    pub key: u64,
    /// Whether it may let go of its segments when nobody uses it. Such a log refuses appends as `Busy` until it is awake again.
    pub may_rest: bool,
    pub state: RefCell<State>,
    /// The flushed end moved, the writer stopped, or a fault came: for those in this module who wait.
    pub changed: Notify,
}

pub struct State {
    pub config: LogConfig,
    pub marks: Marks,
    /// One more with every cut; whatever completes for an older one is void.
    pub generation: u64,
    /// In order of offsets, never empty; the last one takes the appends.
    pub segments: Vec<Segment>,
    pub tail: Tail,
    pub pending: Pending,
    pub producers: Producers,
    pub epochs: Epochs,
    pub write: WriteState,
    pub cursors: Cursors,
    pub spares: Spares,
    /// The last durable record of this log in a checkpoint. After a cut it is of an older generation until the next checkpoint.
    pub checkpoint: Option<Rc<LogCheckpoint>>,
    pub phase: Phase,
    pub rest: Rest,
    /// While it is asleep, and once somebody has asked.
    pub outline: Option<Outline>,
    /// Appended to, read from disk, or woken since the last look for idle logs.
    pub used: bool,
    pub fault: Option<Fault>,
    /// Listed in the shard's progress and not collected yet.
    pub reported: bool,
    /// Segments below the log start whose renaming has begun, and how many of these a sync of the directory has made durable.
    pub renames_begun: u64,
    pub renames_synced: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taking appends.
    Open,
    /// Being cut: appends are refused as if the disk were busy.
    Cutting,
    /// No more appends.
    Closed,
    /// Out of the data directory: nothing is written any more, and nobody need wait.
    Removed,
}

/// Where the segment files stand.
pub struct WriteState {
    /// The segment that is being written; later ones have no file yet, earlier ones are sealed.
    pub segment_base: Offset,
    /// The end of its file with all that is on its way there; away while a write is being planned.
    pub writer: Option<SegmentWriter>,
    pub in_flight: InFlight,
    /// Everything below is in segments or on its way there.
    pub planned_end: Offset,
    /// Everything below is in segments.
    pub flushed_end: Offset,
    /// Everything below is durable in segments.
    pub synced_end: Offset,
    /// Somebody wants everything below in segments.
    pub wanted_end: Offset,
    /// A task plans writes or seals.
    pub running: bool,
    /// No new write may begin.
    pub paused: bool,
    /// Syncs in flight.
    pub syncs: usize,
    /// The file may be longer than its batches: it was written to since it was cut to its exact length.
    pub padded: bool,
    /// Length of the active segment when its side file was last written.
    pub index_saved_len: u64,
    /// That side file is being written: a seal, which writes it too, has to wait.
    pub index_saving: bool,
}

impl WriteState {
    /// Something of the writer's is at the disk, or may be.
    pub fn is_busy(&self) -> bool {
        self.running || !self.in_flight.is_quiet()
    }
}

impl State {
    /// Neither being cut nor on its way to or from rest.
    pub fn is_still(&self) -> bool {
        self.phase != Phase::Cutting && self.rest != Rest::Turning
    }

    pub fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment")
    }

    /// Index in `segments` of the one that holds `offset`, or the first one.
    pub fn segment_of(&self, offset: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base <= offset)
            .saturating_sub(1)
    }

    /// Index in `segments` of the one that would hold the last batch of a log that ends at `end`.
    pub fn segment_before(&self, end: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base < end)
            .saturating_sub(1)
    }

    /// Whether everything below `end` is in segment files.
    pub fn is_flushed_to(&self, end: Offset) -> bool {
        let oldest = self.tail.unflushed().next();
        self.write.flushed_end >= end || oldest.is_none_or(|batch| batch.base >= end)
    }

    /// Whether everything below `end` is durable in segment files.
    pub fn is_synced_to(&self, end: Offset) -> bool {
        let write = &self.write;
        write.synced_end >= end
            || (write.synced_end == write.flushed_end && self.is_flushed_to(end))
    }

    /// The last segment, unless it was just begun and may have no file yet.
    pub fn last_with_file(&self) -> &Segment {
        match self.write.segment_base == self.active().base {
            true => self.active(),
            false => &self.segments[self.segment_before(self.marks.log_end)],
        }
    }

    /// What a checkpoint says of this log when everything in it is durable in segments.
    pub fn describe(&self, log: LogId) -> LogCheckpoint {
        let last = self.last_with_file();
        let saved_len = match self.write.segment_base == last.base {
            true => self.write.index_saved_len,
            false => 0,
        };
        LogCheckpoint {
            log,
            log_generation: self.generation,
            log_start: self.marks.log_start,
            recovery_offset: self.marks.log_end,
            recovery_segment_base: last.base,
            recovery_position: last.len,
            high_watermark: self.marks.high_watermark,
            index: last.live_index().map(|index| index.tail(saved_len)),
            epochs: self.epochs.clone(),
            producers: self.producers.clone(),
        }
    }

    /// The segment after the one with this base, planned or with a file.
    pub fn segment_after(&self, base: Offset) -> Option<&Segment> {
        let next = self
            .segments
            .partition_point(|segment| segment.base <= base);
        self.segments.get(next)
    }

    /// The base of the segment to begin, if the one that is being written is complete in its file.
    pub fn segment_to_seal(&self) -> Option<Offset> {
        let base = self.write.segment_base;
        let next = self.segment_after(base)?;
        let oldest = self.tail.unflushed().next();
        oldest
            .is_none_or(|batch| batch.segment_base != base)
            .then_some(next.base)
    }

    /// Whether a deletion has moved the log start and not come to the segments below it, or was stopped there, be it before the last sync.
    pub fn has_segments_below_start(&self) -> bool {
        let second = self.segments.get(1);
        self.has_unsynced_renames()
            || second.is_some_and(|second| {
                second.base <= self.marks.log_start && second.base <= self.write.segment_base
            })
    }

    /// A power failure may bring segments back that are out of the log.
    pub fn has_unsynced_renames(&self) -> bool {
        self.renames_synced < self.renames_begun
    }

    /// Bytes of a segment that are in its file.
    pub fn flushed_len(&self, segment: &Segment) -> u64 {
        if segment.base < self.write.segment_base {
            segment.len
        } else if segment.base > self.write.segment_base {
            0
        } else {
            // The writer is ahead by what is in flight: the oldest unflushed batch begins where the file ends.
            self.tail
                .unflushed()
                .next()
                .filter(|batch| batch.segment_base == segment.base)
                .map_or(segment.len, |batch| batch.position)
        }
    }

    pub fn persisted(&self) -> bool {
        self.config.durability == Durability::Persisted
    }

    /// Appends the batch to tail and active segment, and moves the log end. The batch has its offsets and was accepted.
    pub fn place(&mut self, header: &BatchHeader, bytes: Bytes, kept_bytes: usize, now: Timestamp) {
        assert!(header.base_offset >= self.marks.log_end, "offsets grow");
        if self.must_roll(header, now) {
            self.roll(header.base_offset, now);
        }
        let segment = self.segments.last_mut().expect("a log has a segment");
        let position = segment.push(header);
        let segment_base = segment.base;
        self.tail.push(TailBatch::new(
            header,
            bytes,
            kept_bytes,
            segment_base,
            position,
        ));
        let next = header.next_offset();
        let replicated = !self.persisted();
        self.marks = self.marks.moved(|marks| {
            marks.log_end = next;
            if replicated {
                marks.counted_end = next;
            }
        });
    }

    /// As Kafka: by size, by the time between a segment's first batch and this one, and before an offset delta leaves 32 bits.
    fn must_roll(&self, header: &BatchHeader, now: Timestamp) -> bool {
        let active = self.active();
        if active.len == 0 {
            return false;
        }
        let Some(index) = active.live_index() else {
            panic!("the active segment is not sealed");
        };
        let batch_time = if header.max_timestamp >= Timestamp(0) {
            header.max_timestamp
        } else {
            now
        };
        let age_ms = batch_time.0.saturating_sub(index.began().0);
        let segment_bytes = self.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        active.len + header.total_len as u64 > segment_bytes
            || u64::try_from(age_ms).is_ok_and(|age_ms| age_ms > self.config.segment_ms)
            || header.last_offset().since(active.base) > i64::from(i32::MAX)
    }

    /// Begins a new segment at `base`. Its file comes later: the writer first completes the old one.
    pub fn roll(&mut self, base: Offset, now: Timestamp) {
        assert!(self.active().len > 0, "an empty segment is not rolled");
        let interval = self.config.index_interval_bytes;
        self.segments.push(Segment::new(base, interval, now));
        self.write.wanted_end = self.write.wanted_end.max(base);
    }

    /// Moves the durable end to what journal and segments have confirmed; `true` if the counted end moved.
    pub fn advance(&mut self) -> bool {
        let before = self.marks.counted_end;
        let durable = self
            .pending
            .durable_end(self.marks.durable_end, self.write.synced_end);
        let persisted = self.persisted();
        self.marks = self.marks.moved(|marks| {
            marks.durable_end = durable;
            marks.counted_end = match persisted {
                true => marks.counted_end.max(durable),
                false => marks.log_end,
            };
        });
        self.marks.counted_end > before
    }
}

impl LogInner {
    pub fn segment_key(&self, base: Offset) -> SegmentKey {
        (self.key, base)
    }

    pub fn io_fault(&self, what: &'static str, base: Offset, error: std::io::Error) -> Fault {
        Fault::io(what, segment_path(&self.dir, base), error)
    }

    pub fn fault(&self) -> Option<Fault> {
        self.state.borrow().fault.clone()
    }

    /// Takes the log offline. What it waits for will never come, so everyone who waits is told.
    pub fn poison(&self, fault: Fault) {
        {
            let mut state = self.state.borrow_mut();
            if state.fault.is_some() || state.phase == Phase::Removed {
                return;
            }
            state.fault = Some(fault.clone());
            // Other logs need the room that this one will never give back by writing.
            self.shared.pool.flushed(state.tail.strand());
        }
        self.shared.room.notify_all();
        self.shared.went_offline.notify_all();
        tracing::error!(log = %self.name, %fault, "log is offline; it is tried again until it can be written");
        self.shared.count(|stats| stats.faults += 1);
        self.changed.notify_all();
        self.report();
    }

    /// Takes a changed configuration over. When the log becomes `persisted`, what is only in memory is made durable from here on;
    /// what was counted stays counted.
    pub fn configure(self: &Rc<Self>, config: LogConfig) {
        let changed = {
            let mut state = self.state.borrow_mut();
            let changed = state.config.durability != config.durability;
            state.config = config;
            if changed {
                let end = state.marks.log_end;
                state.pending.hold(end);
                state.advance();
            }
            changed
        };
        if changed {
            self.report();
            self.shared.checkpoints.request();
        }
    }

    /// Puts the log on the list of those that moved, once until it is collected.
    pub fn report(&self) {
        let first = !std::mem::replace(&mut self.state.borrow_mut().reported, true);
        if first {
            self.shared.progress.report(self.id);
        }
    }

    pub fn evict_front(self: &Rc<Self>) -> Eviction {
        let eviction = self.state.borrow_mut().tail.evict_front();
        if matches!(eviction, Eviction::Unflushed) {
            self.request_flush();
        }
        eviction
    }

    /// Everything in the tail now should go to the segment soon: its memory is needed.
    pub fn request_flush(self: &Rc<Self>) {
        {
            let mut state = self.state.borrow_mut();
            state.write.wanted_end = state.write.wanted_end.max(state.marks.log_end);
        }
        self.start_writer();
    }

    /// Sends what waits on its way: to the journal from here, to the segment by the writer.
    pub fn dispatch(self: &Rc<Self>) {
        let entries = self.journal_entries();
        if !entries.is_empty() {
            let journal = self.shared.journal.borrow().clone();
            let journal = journal.expect("appends begin after the journal has started");
            for entry in entries {
                journal.submit(entry);
            }
            // A log that was opened after the journal failed learns of it here.
            if let Some(fault) = journal.fault() {
                self.poison(fault);
            }
        }
        self.start_writer();
    }

    fn journal_entries(&self) -> Vec<Entry> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.fault.is_some()
            || state.pending.decide(self.shared.bypass_bytes()) != Decision::Journal
        {
            return Vec::new();
        }
        let mut entries = Vec::new();
        for batch in state.tail.from(state.pending.waiting_from()) {
            state.pending.submit(batch.next, batch.bytes.len());
            entries.push(Entry {
                log: self.id,
                log_generation: state.generation,
                base_offset: batch.base,
                next_offset: batch.next,
                leader_epoch: batch.epoch,
                bytes: batch.bytes.clone(),
            });
        }
        let bytes: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        self.shared
            .count(|stats| stats.journal_bytes += bytes as u64);
        assert_eq!(
            state.pending.waiting_bytes(),
            0,
            "everything that waited was submitted"
        );
        entries
    }

    /// The journal holds everything of this log below `next_offset`, as of `generation`.
    pub fn journal_committed(self: &Rc<Self>, generation: u64, next_offset: Offset) {
        let moved = {
            let mut state = self.state.borrow_mut();
            if state.generation != generation {
                return;
            }
            state.pending.journal_committed(next_offset);
            state.advance()
        };
        if moved {
            self.report();
        }
        self.dispatch();
    }

    /// Accounts for a batch that `place` has just put into the tail.
    pub fn placed(self: &Rc<Self>, kept_bytes: usize) {
        self.shared.pool.add(Rc::downgrade(self), kept_bytes);
        if self.shared.pool.wants_flush() {
            // A checkpoint writes behind what all logs hold, idle ones included.
            self.shared.checkpoints.want();
        }
        self.shared.pool.evict();
    }
}

impl Drop for LogInner {
    fn drop(&mut self) {
        // A log that goes away gives its part of the shard's budgets back.
        let state = self.state.get_mut();
        self.shared.pool.remove(state.tail.kept_bytes());
        state.cursors.clear(&self.shared);
    }
}
