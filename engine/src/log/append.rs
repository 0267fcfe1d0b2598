//! Append: from a validated batch to offsets, tail and the way to the disk. Never waits.

use std::rc::Rc;

use bytes::Bytes;

use super::{
    Appended, TimestampType,
    producers::Check,
    rest::Rest,
    state::{LogInner, Phase},
};
use crate::{
    batch::ValidBatch,
    error::{AppendError, Fault},
    segment::SEGMENT_BYTES_MAX,
    types::{LeaderEpoch, Timestamp},
};

/// What the tail spends on a batch besides its bytes.
const BATCH_OVERHEAD_BYTES: usize = 160;

impl LogInner {
    /// `frame_bytes` is the memory that the batch keeps alive: the length of the frame it is a slice of.
    pub fn append(
        self: &Rc<Self>,
        batch: ValidBatch,
        epoch: LeaderEpoch,
        frame_bytes: usize,
    ) -> Result<Appended, AppendError> {
        let len = batch.len();
        assert!(frame_bytes >= len, "a slice is not longer than its frame");
        // A small slice would hold a large frame for as long as it stays in the tail: a copy is cheaper.
        let copied = len < frame_bytes / 2;
        let kept_bytes = BATCH_OVERHEAD_BYTES + if copied { len } else { frame_bytes };
        let now = self.shared.rt.wall_clock();
        if let Some(duplicate) = self.admit(&batch, kept_bytes)? {
            return Ok(duplicate);
        }
        let appended = self.accept(batch, epoch, copied, kept_bytes, now);
        self.placed(kept_bytes);
        self.shared.checkpoints.appended(len as u64);
        self.shared.count(|stats| {
            stats.appended_batches += 1;
            stats.appended_bytes += len as u64;
        });
        let replicated = !self.state.borrow().persisted();
        if replicated {
            self.report();
        }
        self.dispatch();
        Ok(appended)
    }

    pub fn has_room(self: &Rc<Self>, bytes: usize) -> bool {
        self.has_room_for(bytes + BATCH_OVERHEAD_BYTES)
    }

    pub fn has_space(&self) -> bool {
        let space_use = self.state.borrow().config.space;
        let has_space = self.shared.space.has(space_use);
        if !has_space {
            self.shared
                .count(|stats| stats.appends_refused_disk_low += 1);
        }
        has_space
    }

    /// Where there is no room, the writes that will make some are asked for.
    fn has_room_for(self: &Rc<Self>, kept_bytes: usize) -> bool {
        {
            let state = self.state.borrow();
            if state.phase == Phase::Cutting || state.rest == Rest::Turning {
                return false;
            }
            if state.rest == Rest::Asleep {
                drop(state);
                self.wake();
                return false;
            }
        }
        let has_room = self.shared.pool.has_room(kept_bytes);
        if !has_room {
            self.shared.checkpoints.want();
            self.request_flush();
        }
        has_room
    }

    /// Whether the batch may come in; the offsets of then if it has come before. Changes nothing.
    fn admit(
        self: &Rc<Self>,
        batch: &ValidBatch,
        kept_bytes: usize,
    ) -> Result<Option<Appended>, AppendError> {
        let state = self.state.borrow();
        if let Some(fault) = &state.fault {
            return Err(AppendError::Fault(fault.clone()));
        }
        if matches!(state.phase, Phase::Closed | Phase::Removed) {
            let closed = std::io::Error::other("the log is closed");
            return Err(AppendError::Fault(Fault::io("append", &self.dir, closed)));
        }
        let duplicate = match state.producers.check(batch.header())? {
            Check::New => None,
            Check::Duplicate {
                base_offset,
                last_offset,
                max_timestamp,
            } => Some(Appended {
                base_offset,
                last_offset,
                append_time: append_time(batch.header().timestamp_type(), max_timestamp),
                log_start: state.marks.log_start,
                duplicate: true,
            }),
        };
        if duplicate.is_some() {
            return Ok(duplicate);
        }
        let segment_bytes = state.config.segment_bytes.min(SEGMENT_BYTES_MAX);
        if batch.len() as u64 > segment_bytes {
            return Err(AppendError::BatchTooLarge {
                bytes: batch.len() as u64,
                segment_bytes,
            });
        }
        drop(state);
        if !self.has_room_for(kept_bytes) {
            self.shared.count(|stats| stats.appends_refused_busy += 1);
            return Err(AppendError::Busy);
        }
        let space_use = self.state.borrow().config.space;
        if !self.shared.take_space(space_use, batch.len() as u64) {
            self.shared
                .count(|stats| stats.appends_refused_disk_low += 1);
            return Err(AppendError::DiskLow);
        }
        Ok(None)
    }

    fn accept(
        &self,
        batch: ValidBatch,
        epoch: LeaderEpoch,
        copied: bool,
        kept_bytes: usize,
        now: Timestamp,
    ) -> Appended {
        let mut state = self.state.borrow_mut();
        state.used = true;
        let base_offset = state.marks.log_end;
        let (header, mut bytes) = batch.assign(base_offset, epoch);
        if copied {
            bytes = Bytes::copy_from_slice(&bytes);
        }
        state.producers.update(&header, base_offset, now);
        state.epochs.append(epoch, base_offset);
        state.place(&header, bytes, kept_bytes, now);
        if state.persisted() {
            state.pending.appended(header.total_len);
        } else {
            state.pending.skip(header.next_offset());
        }
        Appended {
            base_offset,
            last_offset: header.last_offset(),
            append_time: append_time(header.timestamp_type(), header.max_timestamp),
            log_start: state.marks.log_start,
            duplicate: false,
        }
    }
}

fn append_time(timestamp_type: TimestampType, max_timestamp: Timestamp) -> Option<Timestamp> {
    (timestamp_type == TimestampType::LogAppendTime).then_some(max_timestamp)
}
