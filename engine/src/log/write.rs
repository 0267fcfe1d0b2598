//! From the tail to the segment files: the writer of a log, one write in flight, and no task while there is nothing to do.
//!
//! Bytes are written in the order of offsets. What a write contains decides what it is: if any batch in it neither is durable
//! nor is on its way through the journal, the write itself is the durable one; else it is written behind, and a sync follows
//! with the next checkpoint. Where a segment ends the writer seals it and begins the next file; meanwhile the tail and the journal
//! go on taking appends.

use std::rc::Rc;

use bytes::Bytes;

use super::{
    shared::Handle,
    state::{LogInner, Phase, State},
    together::Wanted,
};
use crate::{
    error::Fault,
    rt::{Class, OpenMode, durable},
    segment::{SegmentIndex, SegmentWriter, index_path, segment_path},
    types::Offset,
};

enum Job {
    Write(Write),
    /// The segment is complete: (its base, the base of the next one, its exact length).
    Seal(Offset, Offset, u64),
    /// The next job belongs to another class of work.
    OtherClass(Class),
    Nothing,
}

struct Write {
    segment_base: Offset,
    writer: SegmentWriter,
    slices: Vec<Bytes>,
    end: Offset,
    durable: bool,
}

/// What a wait for the disk found when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    Reached,
    /// The log was cut or removed meanwhile, so what was waited for may never come.
    Cut,
}

/// A mending waits for its end.
struct SyncInFlight<'a>(&'a LogInner);

impl SyncInFlight<'_> {
    fn begin(log: &LogInner) -> SyncInFlight<'_> {
        log.state.borrow_mut().write.syncs += 1;
        SyncInFlight(log)
    }
}

impl Drop for SyncInFlight<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().write.syncs -= 1;
    }
}

impl LogInner {
    /// Starts the writer if there is something for it to do.
    pub fn start_writer(self: &Rc<Self>) {
        let class = {
            let mut state = self.state.borrow_mut();
            if state.write.running {
                return;
            }
            let Some(class) = self.next_class(&state) else {
                return;
            };
            state.write.running = true;
            class
        };
        let log = Rc::clone(self);
        self.shared
            .rt
            .spawn(class, async move { log.run_writer(class).await })
            .detach();
    }

    async fn run_writer(self: Rc<Self>, class: Class) {
        loop {
            let job = self.next_job(class);
            let result = match job {
                Job::Write(write) => self.write(write).await,
                Job::Seal(base, next_base, len) => self.seal(base, next_base, len).await,
                Job::OtherClass(other) => {
                    let log = Rc::clone(&self);
                    // Boxed: a task that spawns itself would otherwise have a type that contains itself.
                    let next: std::pin::Pin<Box<dyn Future<Output = ()>>> =
                        Box::pin(async move { log.run_writer(other).await });
                    self.shared.rt.spawn(other, next).detach();
                    return;
                }
                Job::Nothing => return,
            };
            if let Err(fault) = result {
                self.poison(fault);
                self.state.borrow_mut().write.running = false;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// The class of the next job, or `None` if there is none.
    fn next_class(&self, state: &State) -> Option<Class> {
        if state.fault.is_some() || state.write.paused {
            return None;
        }
        let limits = &self.shared.limits;
        if state.pending.waiting_bytes() > self.shared.bypass_bytes() {
            return Some(Class::Foreground);
        }
        let unflushed = state.write.flushed_end < state.marks.log_end;
        let wanted = unflushed && state.write.wanted_end > state.write.flushed_end;
        if wanted
            || state.segment_to_seal().is_some()
            || state.tail.unflushed_bytes() >= limits.write_chunk_bytes_max
        {
            return Some(Class::Housekeeping);
        }
        None
    }

    fn next_job(&self, class: Class) -> Job {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        match self.next_class(state) {
            None => {
                state.write.running = false;
                self.changed.notify_all();
                return Job::Nothing;
            }
            Some(other) if other != class => return Job::OtherClass(other),
            Some(_) => {}
        }
        if let Some(next_base) = state.segment_to_seal() {
            let base = state.write.segment_base;
            let len = state.segments[state.segment_of(base)].len;
            return Job::Seal(base, next_base, len);
        }
        Job::Write(self.next_write(state))
    }

    /// As many batches of the present segment as one write may hold, at least one.
    fn next_write(&self, state: &mut State) -> Write {
        let base = state.write.segment_base;
        let writer = state.write.writer.take().expect("one write at a time");
        state.write.padded = true;
        let mut slices = Vec::new();
        let mut bytes = 0;
        let mut end = state.write.flushed_end;
        let mut durable = false;
        for batch in state.tail.unflushed() {
            let full = bytes + batch.bytes.len() > self.shared.limits.write_chunk_bytes_max;
            if batch.segment_base != base || (full && !slices.is_empty()) {
                break;
            }
            if slices.is_empty() {
                assert_eq!(batch.position, writer.position(), "the file has no holes");
            }
            bytes += batch.bytes.len();
            end = batch.next;
            slices.push(batch.bytes.clone());
            if state.pending.waiting_bytes() > 0 && batch.next > state.pending.waiting_from() {
                state.pending.claim(batch.next, batch.bytes.len());
                durable = true;
            }
        }
        assert!(!slices.is_empty(), "a write has something to write");
        Write {
            segment_base: base,
            writer,
            slices,
            end,
            durable,
        }
    }

    async fn write(self: &Rc<Self>, write: Write) -> Result<(), Fault> {
        let base = write.segment_base;
        let fault = |error| self.io_fault("write", base, error);
        let handle = match write.durable {
            true => Handle::Durable,
            false => Handle::Behind,
        };
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let file = self
            .shared
            .open_segment(key, &path, handle)
            .await
            .map_err(fault)?;
        let mut writer = write.writer;
        let rt = &self.shared.rt;
        let bytes = writer
            .append(rt, &file, &write.slices)
            .await
            .map_err(fault)?;
        self.shared.count(|stats| {
            stats.segment_writes += 1;
            stats.segment_bytes += bytes;
            stats.bypass_writes += u64::from(write.durable);
            stats.bypass_bytes += if write.durable { bytes } else { 0 };
        });
        self.written(writer, write.end, write.durable);
        Ok(())
    }

    fn written(self: &Rc<Self>, writer: SegmentWriter, end: Offset, durable: bool) {
        let moved = {
            let mut state = self.state.borrow_mut();
            if state.fault.is_some() {
                return;
            }
            assert!(state.write.writer.is_none(), "one write at a time");
            state.write.writer = Some(writer);
            let kept_bytes = state.tail.mark_flushed(end);
            self.shared.pool.flushed(kept_bytes);
            if durable {
                state.pending.segment_written(end);
                if state.write.synced_end == state.write.flushed_end {
                    state.write.synced_end = end;
                }
            }
            state.write.flushed_end = end;
            state.advance()
        };
        if moved {
            self.report();
        }
        self.changed.notify_all();
        self.shared.room.notify_all();
        self.shared.pool.evict();
        self.dispatch();
    }

    /// Completes a segment and begins the next file. The order makes every file but the last a complete and durable one:
    /// exact length, sync, index, and only then the next name in the directory.
    async fn seal(self: &Rc<Self>, base: Offset, next_base: Offset, len: u64) -> Result<(), Fault> {
        let fault = |error| self.io_fault("seal", base, error);
        self.wait_until(|state| !state.write.index_saving).await;
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let rt = &self.shared.rt;
        let file = self
            .shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        file.truncate(len).await.map_err(fault)?;
        self.synced(async { file.sync().await.map_err(fault) })
            .await?;
        let index = {
            let state = self.state.borrow();
            let index = state.segments[state.segment_of(base)].live_index();
            Rc::new(index.expect("sealed only once").clone())
        };
        assert_eq!(index.len(), len, "the index covers the whole segment");
        durable::replace_file(rt, &index_path(&self.dir, base), &index.encode()).await?;
        self.create_segment(next_base).await?;
        let moved = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let at = state.segment_of(base);
            state.segments[at].index = SegmentIndex::OnDisk {
                max_timestamp: Some(index.max_timestamp()),
            };
            state.write.segment_base = next_base;
            state.write.writer = Some(SegmentWriter::at(0));
            state.write.synced_end = state.write.flushed_end;
            state.write.index_saved_len = 0;
            state.write.padded = false;
            state.advance()
        };
        self.shared.indexes.put(key, index);
        self.shared.count(|stats| {
            stats.segments_sealed += 1;
            stats.segment_syncs += 1;
        });
        if moved {
            self.report();
        }
        self.changed.notify_all();
        // What waited behind a durable write may go on: the seal has made that one's prefix durable.
        self.dispatch();
        Ok(())
    }

    /// Creates an empty segment file, durably.
    pub async fn create_segment(&self, base: Offset) -> Result<(), Fault> {
        let fault = |error| self.io_fault("create", base, error);
        let path = segment_path(&self.dir, base);
        let rt = &self.shared.rt;
        let file = rt.open(&path, OpenMode::Create).await.map_err(fault)?;
        file.sync().await.map_err(fault)?;
        durable::sync_dir(rt, &self.dir).await?;
        let key = (self.segment_key(base), Handle::Behind);
        self.shared.files.put(key, Rc::new(file));
        Ok(())
    }

    /// Waits until everything below `end` is in the segment files.
    pub async fn flush_to(self: &Rc<Self>, end: Offset) -> Result<Waited, Fault> {
        let generation = {
            let mut state = self.state.borrow_mut();
            state.write.wanted_end = state.write.wanted_end.max(end);
            state.generation
        };
        self.start_writer();
        loop {
            let changed = self.changed.listen();
            {
                let state = self.state.borrow();
                if let Some(fault) = &state.fault {
                    return Err(fault.clone());
                }
                if state.generation != generation || state.phase == Phase::Removed {
                    return Ok(Waited::Cut);
                }
                if state.is_flushed_to(end) {
                    return Ok(Waited::Reached);
                }
            }
            changed.await;
        }
    }

    /// Waits until everything below `end` is durable in the segment files.
    pub async fn sync_to(self: &Rc<Self>, end: Offset) -> Result<Waited, Fault> {
        if self.flush_to(end).await? == Waited::Cut {
            return Ok(Waited::Cut);
        }
        let (base, covered, generation) = {
            let state = self.state.borrow();
            if state.is_synced_to(end) {
                return Ok(Waited::Reached);
            }
            // What lies in earlier segments was synced when they were sealed.
            let write = &state.write;
            (write.segment_base, write.flushed_end, state.generation)
        };
        let result = self.sync_segment(base).await;
        if let Err(fault) = result {
            if self.state.borrow().phase == Phase::Removed {
                return Ok(Waited::Cut);
            }
            self.poison(fault.clone());
            return Err(fault);
        }
        let moved = {
            let mut state = self.state.borrow_mut();
            if state.generation != generation {
                return Ok(Waited::Cut);
            }
            state.write.synced_end = state.write.synced_end.max(covered);
            state.advance()
        };
        if moved {
            self.report();
        }
        self.dispatch();
        Ok(Waited::Reached)
    }

    pub async fn sync_segment(&self, base: Offset) -> Result<(), Fault> {
        let fault = |error| self.io_fault("sync", base, error);
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let file = self
            .shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        let (files, dirs) = (vec![file], Vec::new());
        self.synced(self.shared.sync(Wanted { files, dirs })).await
    }

    /// Waits for a sync of a segment. One that ends well after another of this log has failed says nothing: what it was to make durable may
    /// have gone with that one.
    pub async fn synced(&self, sync: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
        let _in_flight = SyncInFlight::begin(self);
        sync.await?;
        self.fault().map_or(Ok(()), Err)
    }

    /// Stops the writer: when this returns no write is in flight and none begins until [`LogInner::resume_writer`].
    pub async fn pause_writer(&self) {
        self.state.borrow_mut().write.paused = true;
        self.wait_until(|state| !state.write.running).await;
    }

    pub fn resume_writer(self: &Rc<Self>) {
        self.state.borrow_mut().write.paused = false;
        self.start_writer();
    }

    /// Waits for a change that is announced by `changed`.
    pub async fn wait_until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.listen();
            if reached(&self.state.borrow()) {
                return;
            }
            changed.await;
        }
    }
}
