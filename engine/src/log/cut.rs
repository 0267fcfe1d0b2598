//! Cuts: `truncate_to` takes the end of a log away, `delete_to` its beginning.
//!
//! A truncation is the one change after which bytes on disk must not come back. The order, each step durable before the next:
//!
//! 1. appends are refused, everything below the cut is synced, the writer stops;
//! 2. the state changes in one step, generation + 1 included: completions and journal entries of before are void;
//! 3. a checkpoint records cut and generation;
//! 4. files above the cut go, newest first, and the last one kept is cut to its exact length.
//!
//! After a crash before 3 the log is as it was or a shorter prefix of that; after 3 the checkpoint's generation voids the journal's entries, and
//! recovery may find the old batches in the segment again, which is allowed as long as `truncate_to` has not returned.
//! Where the last sync has failed the file looks cut and is not: the next start cuts it again (`Recovery::cut_again`).

use std::{path::PathBuf, rc::Rc};

use super::{
    in_flight::InFlight,
    producers::Producers,
    shared::Handle,
    state::{LogInner, Phase},
    timestamps::Walk,
    write::Waited,
};
use crate::{
    checkpoint::LogCheckpoint,
    error::{Fault, ReadError},
    rt::durable,
    segment::{
        Index, Next, Segment, SegmentIndex, SegmentReader, SegmentWriter, index_path, segment_path,
    },
    types::Offset,
};

/// What a log looks like after the cut.
struct Cut {
    end: Offset,
    /// The segment that is the last one then.
    base: Offset,
    /// Index of the segment that holds the end, covering exactly what is kept.
    index: Index,
    producers: Producers,
}

impl LogInner {
    /// Cuts every batch that holds `offset` or comes after it.
    pub async fn truncate_to(self: &Rc<Self>, offset: Offset) -> Result<(), Fault> {
        self.awake_and_whole().await?;
        {
            let mut state = self.state.borrow_mut();
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            if offset >= state.marks.log_end {
                return Ok(());
            }
            if matches!(state.phase, Phase::Closed | Phase::Removed) {
                let closed = std::io::Error::other("the log is closed");
                return Err(Fault::io("truncate", &self.dir, closed));
            }
            assert!(
                offset >= state.marks.high_watermark,
                "a cut below the high watermark"
            );
            state.phase = Phase::Cutting;
        }
        let result = self.truncate_stopped(offset).await;
        self.state.borrow_mut().phase = Phase::Open;
        self.changed.notify_all();
        self.shared.room.notify_all();
        match &result {
            Ok(()) => {
                self.shared.count(|stats| stats.truncations += 1);
                self.resume_writer();
            }
            Err(fault) => self.poison(fault.clone()),
        }
        result
    }

    async fn truncate_stopped(self: &Rc<Self>, offset: Offset) -> Result<(), Fault> {
        let end = self.cut_point(offset).await?;
        let waited = self.sync_to(end).await?;
        assert_eq!(waited, Waited::Reached, "one cut at a time");
        self.pause_writer().await;
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        let cut = match self.plan_cut(end).await {
            Ok(cut) => cut,
            Err(fault) => {
                // Nothing was changed yet: the log can be mended.
                self.state.borrow_mut().write.paused = false;
                return Err(fault);
            }
        };
        let (kept_base, kept_len) = (cut.base, cut.index.len());
        let removed = self.apply_cut(cut);
        self.changed.notify_all();
        self.report();
        self.record().await?;
        self.drop_spares().await;
        for base in removed {
            self.remove_files(&[index_path(&self.dir, base), segment_path(&self.dir, base)])
                .await?;
        }
        self.remove_files(&[index_path(&self.dir, kept_base)])
            .await?;
        let fault = |error| self.io_fault("truncate", kept_base, error);
        let path = segment_path(&self.dir, kept_base);
        let key = self.segment_key(kept_base);
        let shared = &self.shared;
        let file = shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        file.truncate(kept_len).await.map_err(fault)?;
        self.synced(async { file.sync().await.map_err(fault) })
            .await
    }

    /// Waits until a checkpoint describes the log as it is now. One that succeeds repeats what was known of a log that went offline.
    async fn record(&self) -> Result<(), Fault> {
        self.shared.checkpoints.complete().await?;
        self.fault().map_or(Ok(()), Err)
    }

    /// The end of the last whole batch at or below `offset`.
    async fn cut_point(self: &Rc<Self>, offset: Offset) -> Result<Offset, Fault> {
        {
            let state = self.state.borrow();
            if state.tail.start().is_some_and(|start| start <= offset) {
                let batch = state.tail.from(offset).next();
                return Ok(batch.map_or(state.marks.log_end, |batch| batch.base.min(offset)));
            }
        }
        let (_, index) = self.index_below(offset).await?;
        Ok(index.next_offset())
    }

    /// The segment that is the last one after a cut at `end`.
    fn cut_base(&self, end: Offset) -> Offset {
        let state = self.state.borrow();
        state.segments[state.segment_before(end)].base
    }

    /// The plan holds until the next wait.
    async fn plan_cut(self: &Rc<Self>, end: Offset) -> Result<Cut, Fault> {
        let producers = self.producers_at(end).await?;
        let (base, index) = self.index_below(end).await?;
        if index.next_offset() != end {
            let what = format!("batches up to {}, and not to {end}", index.next_offset());
            return Err(Fault::corrupt(what, segment_path(&self.dir, base)));
        }
        Ok(Cut {
            end,
            base,
            index,
            producers,
        })
    }

    /// The segment that a log which ends at `end` ends in, and its index. Where a cut falls between two segments, the first may lie
    /// below the log start, and leave the log while its file is read; or come back, when it could not be removed.
    async fn index_below(self: &Rc<Self>, end: Offset) -> Result<(Offset, Index), Fault> {
        loop {
            let base = self.cut_base(end);
            let index = self.index_up_to(base, end).await;
            if self.cut_base(end) == base {
                return Ok((base, index?));
            }
        }
    }

    /// The index of a segment as far as its file holds whole batches below `end`.
    async fn index_up_to(self: &Rc<Self>, base: Offset, end: Offset) -> Result<Index, Fault> {
        let mut index = self.ask_index(base, Index::clone).await?;
        let place = index.rewind(index.find_offset(end).position);
        let len = {
            let state = self.state.borrow();
            state.flushed_len(&state.segments[state.segment_of(base)])
        };
        if place.position >= len {
            return Ok(index);
        }
        let fault = |error| self.io_fault("read", base, error);
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let shared = &self.shared;
        let file = shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        let mut reader = SegmentReader::new(file, place.position, len);
        loop {
            match self.judge(reader.peek().await.map_err(fault)?, index.next_offset()) {
                Next::Batch(header, _) if header.next_offset() <= end => {
                    index.push(&header, reader.position());
                    reader.advance(&header);
                }
                Next::Batch(..) | Next::End => return Ok(index),
                Next::Broken(why) => return Err(Fault::corrupt(why, path)),
            }
        }
    }

    /// Producers as of `end`: the last snapshot at or below it, and the headers from there.
    async fn producers_at(self: &Rc<Self>, end: Offset) -> Result<Producers, Fault> {
        let (checkpoint, log_start, has_producers) = {
            let state = self.state.borrow();
            let has_producers = !state.producers.is_empty();
            // One of before a cut may speak of batches that are gone.
            let of_now = |known: &&Rc<LogCheckpoint>| known.log_generation == state.generation;
            let checkpoint = state.checkpoint.as_ref().filter(of_now).cloned();
            (checkpoint, state.marks.log_start, has_producers)
        };
        if !has_producers {
            return Ok(Producers::default());
        }
        let (from, mut producers) = match checkpoint {
            // One from below the log start would leave out what lies between.
            Some(known) if (log_start..=end).contains(&known.recovery_offset) => {
                (known.recovery_offset, known.producers.clone())
            }
            _ => (log_start, Producers::default()),
        };
        let now = self.shared.rt.wall_clock();
        let mut walk = Walk::new(self, from, end);
        while let Some((header, _)) = walk.next().await.map_err(read_fault)? {
            producers.update(&header, header.base_offset, now);
        }
        Ok(producers)
    }

    /// Changes the state; returns the bases of the segments that are out of the log, newest first.
    fn apply_cut(self: &Rc<Self>, cut: Cut) -> Vec<Offset> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        assert!(
            state.write.paused && !state.write.is_busy(),
            "the writer stands"
        );
        let kept = state.segment_before(cut.end);
        assert_eq!(state.segments[kept].base, cut.base, "the plan still holds");
        let removed: Vec<Segment> = state.segments.drain(kept + 1..).rev().collect();
        let has_file = state.write.segment_base;
        let removed = removed
            .iter()
            .map(|segment| segment.base)
            .filter(|&base| base <= has_file);
        let removed: Vec<Offset> = removed.collect();
        let segment = &mut state.segments[kept];
        segment.len = cut.index.len();
        let (base, len) = (segment.base, segment.len);
        segment.index = SegmentIndex::Live(cut.index);
        self.shared.pool.remove(state.tail.cut(cut.end));
        state.cursors.clear(&self.shared);
        state.generation += 1;
        state.marks = state.marks.cut(cut.end);
        state.epochs.truncate_to(cut.end);
        state.producers = cut.producers;
        state.pending.reset(cut.end);
        let write = &mut state.write;
        write.segment_base = base;
        write.writer = Some(SegmentWriter::at(len));
        write.in_flight = InFlight::default();
        write.planned_end = cut.end;
        write.flushed_end = cut.end;
        write.synced_end = cut.end;
        write.wanted_end = cut.end;
        write.index_saved_len = 0;
        write.padded = false;
        for &base in removed.iter().chain([&base]) {
            self.shared.forget_segment(self.segment_key(base));
        }
        removed
    }

    pub(super) async fn remove_files(&self, paths: &[PathBuf]) -> Result<(), Fault> {
        let _names = self.shared.hold_names().await;
        let rt = &self.shared.rt;
        for path in paths {
            if rt.exists(path).await {
                let removed = rt.remove_file(path).await;
                removed.map_err(|error| Fault::io("remove", path, error))?;
            }
        }
        // One segment at a time: a hole in their sequence must not survive a crash.
        durable::sync_dir(rt, &self.dir).await
    }

    /// Moves the log start, at most to the high watermark, and lets whole segments below it go.
    pub async fn delete_to(self: &Rc<Self>, offset: Offset) -> Result<Offset, Fault> {
        self.awake_and_whole().await?;
        let (log_start, recorded, is_behind) = {
            let mut state = self.state.borrow_mut();
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            let before = state.marks.log_start;
            let after = offset.min(state.marks.high_watermark).max(before);
            state.marks = state.marks.moved(|marks| {
                marks.log_start = after;
                marks.last_stable = marks.last_stable.max(after);
            });
            state.epochs.trim_to(after);
            // Another call may have moved it, and still wait for the checkpoint.
            let recorded = match &state.checkpoint {
                Some(known) => known.log_start >= after,
                None => after == Offset::ZERO,
            };
            // An earlier attempt may have failed between the start and the segments.
            (after, recorded, state.has_segments_below_start())
        };
        if !recorded {
            self.record().await?;
        }
        if !recorded || is_behind {
            self.remove_segments_below_start().await?;
        }
        Ok(log_start)
    }
}

/// Reads between log start and log end fail for one reason only.
fn read_fault(error: ReadError) -> Fault {
    match error {
        ReadError::Corrupt(fault) | ReadError::Fault(fault) => fault,
        ReadError::OutOfRange { .. } => panic!("the log start does not move during a cut"),
    }
}
