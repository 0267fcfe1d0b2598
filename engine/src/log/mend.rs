//! Takes an offline log online again while the broker runs, losing nothing that it holds.
//!
//! What a failed write or sync struck is not trusted and not synced once more: every batch of the present segment from the last
//! checkpoint on is written again, from memory where the tail has it, else from the disk where it is whole there, through a
//! file opened anew, and synced. Only when all of that has succeeded is the log online. Offsets, generation and content stay as they were, so whatever of the old writes or of the journal still
//! comes to be on the disk is the same as what is there. Batches that were refused to their producers with the fault, but are in the
//! tail, stay in the log and become durable with the next sync: that they may or may not be there is all that a fault promises.
//!
//! What neither memory nor disk has any more may be in the journal, which keeps it: then a restart recovers, and this does not. Neither
//! does it finish a cut that failed halfway.

use std::{path::PathBuf, rc::Rc};

use bytes::Bytes;

use super::{
    in_flight::InFlight,
    rest::Rest,
    shared::Handle,
    state::{LogInner, Phase, State},
};
use crate::{
    error::Fault,
    segment::{Next, SegmentReader, SegmentWriter, index_path, segment_path, writer::Run},
    types::Offset,
};

/// The part of the present segment that no checkpoint covers.
struct Unsynced {
    base: Offset,
    /// Of the batch at `position`.
    offset: Offset,
    position: u64,
    /// Where its last batch ends, written or not.
    end: u64,
    end_offset: Offset,
    /// Segments that were begun and have no batches in a file.
    planned: Vec<Offset>,
}

impl LogInner {
    /// Whether the log is offline for a reason that `mend` may do something about.
    pub fn is_mendable(&self) -> bool {
        is_mendable(&self.state.borrow())
    }

    /// The same, or it will be when what is in flight has ended.
    pub fn wants_mending(&self) -> bool {
        wants_mending(&self.state.borrow())
    }

    pub async fn mend(self: &Rc<Self>) -> Result<(), Fault> {
        self.wait_until(|state| !state.write.index_saving).await;
        if self.turns_to_mend() {
            return self.mend_asleep().await;
        }
        let unsynced = {
            let mut state = self.state.borrow_mut();
            if !is_mendable(&state) {
                let fault = state.fault.clone();
                return fault.map_or(Ok(()), Err);
            }
            // The writer's place: whoever closes or removes the log waits for its end.
            state.write.running = true;
            state.cursors.clear(&self.shared);
            unsynced(&state)
        };
        let result = self.write_again(&unsynced).await;
        {
            let mut state = self.state.borrow_mut();
            state.write.running = false;
            if result.is_ok() && state.phase == Phase::Open {
                self.go_online(&mut state, &unsynced);
            }
        }
        self.changed.notify_all();
        result?;
        if let Some(fault) = self.fault() {
            // Closed or removed meanwhile.
            return Err(fault);
        }
        self.report();
        self.shared.room.notify_all();
        self.request_flush();
        self.shared.checkpoints.request();
        Ok(())
    }

    fn turns_to_mend(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let is_asleep = is_mendable(&state) && state.rest == Rest::Asleep;
        if is_asleep {
            state.rest = Rest::Turning;
        }
        is_asleep
    }

    fn go_online(&self, state: &mut State, mended: &Unsynced) {
        state.fault = None;
        state.tail.mark_flushed(mended.end_offset);
        state.write.writer = Some(SegmentWriter::at(mended.end));
        state.write.in_flight = InFlight::default();
        state.write.planned_end = mended.end_offset;
        state.write.flushed_end = mended.end_offset;
        state.write.synced_end = mended.end_offset;
        state.write.padded = true;
        state.write.index_saved_len = 0;
        // What is behind it was on its way to the journal or to a segment: now the next checkpoint's sync is what counts.
        let log_end = state.marks.log_end;
        state.pending.hold(log_end);
        state.advance();
        self.shared.pool.unflushed_again(state.tail.unstrand());
    }

    async fn write_again(&self, unsynced: &Unsynced) -> Result<(), Fault> {
        let base = unsynced.base;
        let fault = |error| self.io_fault("write again", base, error);
        self.remove_planned(&unsynced.planned).await?;
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let shared = &self.shared;
        // A handle that has seen an error may not tell of the next one.
        shared.forget_segment(key);
        let file = shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        let mut reader = SegmentReader::new(Rc::clone(&file), unsynced.position, unsynced.end);
        let mut run = Run::at(unsynced.position);
        let mut offset = unsynced.offset;
        while run.end() < unsynced.end {
            let position = run.end();
            let (next, bytes) = match self.in_tail(base, offset, position) {
                Some(found) => found,
                // The tail ends at the log end: where it begins the reader is done.
                None => {
                    // What came from the tail before may have been evicted from it meanwhile.
                    if reader.position() != position {
                        reader.go_to(position);
                    }
                    match self.judge(reader.peek().await.map_err(fault)?, offset) {
                        Next::Batch(header, bytes) => {
                            reader.advance(&header);
                            (header.next_offset(), bytes)
                        }
                        _ => return Err(only_in_journal(path, position, offset)),
                    }
                }
            };
            offset = next;
            run.push(&bytes);
            if run.gathered_bytes() >= shared.limits.write_chunk_bytes_max {
                run.write(&shared.rt, &file).await.map_err(fault)?;
            }
        }
        run.write(&shared.rt, &file).await.map_err(fault)?;
        file.sync()
            .await
            .map_err(|error| self.io_fault("sync", base, error))?;
        shared.count(|stats| stats.segment_syncs += 1);
        Ok(())
    }

    fn in_tail(&self, base: Offset, offset: Offset, position: u64) -> Option<(Offset, Bytes)> {
        let state = self.state.borrow();
        let batch = state.tail.from(offset).next()?;
        let is_here = batch.segment_base == base && batch.position == position;
        is_here.then(|| (batch.next, batch.bytes.clone()))
    }

    /// A seal that failed may have left the next segment's file, which holds nothing yet; the next seal creates it.
    async fn remove_planned(&self, planned: &[Offset]) -> Result<(), Fault> {
        for &base in planned {
            let paths = [index_path(&self.dir, base), segment_path(&self.dir, base)];
            self.shared.forget_segment(self.segment_key(base));
            self.remove_files(&paths).await?;
        }
        Ok(())
    }
}

/// A writer that is paused without end is what a cut that failed halfway leaves.
fn is_mendable(state: &State) -> bool {
    let is_still = !state.write.is_busy() && state.write.syncs == 0 && state.rest != Rest::Turning;
    wants_mending(state) && state.phase == Phase::Open && is_still
}

fn wants_mending(state: &State) -> bool {
    let may_come = match state.phase {
        Phase::Open => !state.write.paused,
        Phase::Cutting => true,
        Phase::Closed | Phase::Removed => false,
    };
    state.fault.is_some() && may_come
}

fn unsynced(state: &State) -> Unsynced {
    let base = state.write.segment_base;
    let segment = &state.segments[state.segment_of(base)];
    let known = state.checkpoint.as_ref().filter(|known| {
        known.recovery_segment_base == base && known.log_generation == state.generation
    });
    let (offset, position) = known.map_or((base, 0), |known| {
        (known.recovery_offset, known.recovery_position)
    });
    let planned = state.segments.iter().map(|segment| segment.base);
    Unsynced {
        base,
        offset,
        position,
        end: segment.len,
        end_offset: state
            .segment_after(base)
            .map_or(state.marks.log_end, |next| next.base),
        planned: planned.filter(|&planned| planned > base).collect(),
    }
}

fn only_in_journal(path: PathBuf, position: u64, offset: Offset) -> Fault {
    let what = format!(
        "the batch at position {position}, offset {offset} is neither in memory nor whole on the disk; \
         if the journal has it a restart of the broker recovers it"
    );
    Fault::corrupt(what, path)
}
