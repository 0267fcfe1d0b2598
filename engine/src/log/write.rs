//! From the tail to the segment files: the writer of a log, and no task while there is nothing to do.
//!
//! Bytes are written in the order of offsets, one write after the other; durable ones may overlap (`in_flight.rs`). What a write contains decides what it is: if any batch in it neither is durable
//! nor is on its way through the journal, the write itself is the durable one; else it is written behind, and a sync follows
//! with the next checkpoint. Where a segment ends the writer seals it and begins the next file; meanwhile the tail and the journal
//! go on taking appends.

use std::rc::Rc;

use bytes::Bytes;

use super::{
    in_flight::{InFlight, Landed, WriteNumber},
    shared::Handle,
    state::{LogInner, Phase, State},
    together::Wanted,
};
use crate::{
    error::Fault,
    rt::{Class, OpenMode, buf::ALIGNMENT, durable},
    segment::{End, SegmentIndex, SegmentWriter, index_path, segment_path},
    types::Offset,
};

/// Fewer bytes than this are not worth a durable write of their own beside another one.
const JOIN_BYTES_MIN: usize = 64 << 10;

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
    bytes: usize,
    lands: Landed,
}

/// What the file of a new segment consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    New,
    /// Of a segment that is out of the log.
    Recycled,
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
                Job::Write(write) => self.begin_write(write).await,
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

    /// The class of the next job, or `None` if there is none, or none before what is in flight has ended.
    fn next_class(&self, state: &State) -> Option<Class> {
        if state.fault.is_some() || state.write.paused {
            return None;
        }
        if !state.write.in_flight.is_quiet() {
            return self.may_join(state).then_some(Class::Foreground);
        }
        if state.write.in_flight.is_end_left() {
            return Some(Class::Foreground);
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

    /// Whether what waits may be written while other durable writes are at the disk.
    fn may_join(&self, state: &State) -> bool {
        let write = &state.write;
        write.in_flight.may_join() && state.pending.waits_from(write.planned_end)
    }

    /// A write that ends at `end` leaves its last block to the next one if that is going to follow: durable, and to the same segment.
    fn end_of(&self, state: &State, write: &Write) -> End {
        let next = state.tail.from(write.lands.end).next();
        let follows = write.lands.durable
            && write.bytes >= ALIGNMENT
            && state.pending.waits_from(write.lands.end)
            && state.pending.waiting_bytes() >= JOIN_BYTES_MIN.min(self.shared.bypass_bytes())
            && next.is_some_and(|next| next.segment_base == write.segment_base);
        match follows {
            true => End::Left,
            false => End::Padded,
        }
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
            assert!(state.write.in_flight.is_quiet(), "the segment is complete");
            let base = state.write.segment_base;
            let len = state.segments[state.segment_of(base)].len;
            return Job::Seal(base, next_base, len);
        }
        Job::Write(self.next_write(state))
    }

    /// As many batches of the present segment as one write may hold, at least one.
    fn next_write(&self, state: &mut State) -> Write {
        let base = state.write.segment_base;
        let writer = state.write.writer.take().expect("one writer");
        state.write.padded = true;
        let bytes_max = self.shared.limits.write_chunk_bytes_max;
        let share = InFlight::share_of(state.pending.waiting_bytes());
        let share = share.max(self.shared.bypass_bytes());
        let mut slices = Vec::new();
        let mut bytes = 0;
        let mut end = state.write.planned_end;
        let mut durable = false;
        for batch in state.tail.from(state.write.planned_end) {
            let full = bytes + batch.bytes.len() > bytes_max || (durable && bytes >= share);
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
            bytes,
            lands: Landed { end, durable },
        }
    }

    /// Sends a write on its way.
    async fn begin_write(self: &Rc<Self>, mut write: Write) -> Result<(), Fault> {
        let base = write.segment_base;
        let fault = |error| self.io_fault("write", base, error);
        let handle = match write.lands.durable {
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
        write.writer.make_ready(&file).await.map_err(fault)?;
        let Landed { end, durable } = write.lands;
        let (planned, number) = {
            let mut state = self.state.borrow_mut();
            let block = self.end_of(&state, &write);
            let planned = write.writer.plan(&self.shared.rt, &write.slices, block);
            let number = state.write.in_flight.begin(write.lands, block);
            state.write.writer = Some(write.writer);
            state.write.planned_end = end;
            (planned, number)
        };
        let bytes = write.bytes as u64;
        self.shared.count(|stats| {
            stats.segment_writes += 1;
            stats.segment_bytes += bytes;
            stats.bypass_writes += u64::from(durable);
            stats.bypass_bytes += if durable { bytes } else { 0 };
        });
        let class = match durable {
            true => Class::Foreground,
            false => Class::Housekeeping,
        };
        let log = Rc::clone(self);
        let write = async move {
            let result = planned.run(&file).await;
            log.write_ended(
                number,
                result.map_err(|error| log.io_fault("write", base, error)),
            );
        };
        self.shared.rt.spawn(class, write).detach();
        Ok(())
    }

    fn write_ended(self: &Rc<Self>, number: WriteNumber, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.poison(fault);
        }
        let moved = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            state.write.in_flight.ended(number);
            while let Some(landed) = state.write.in_flight.pop_landed() {
                if state.fault.is_none() {
                    self.landed(state, landed);
                }
            }
            state.fault.is_none() && state.advance()
        };
        if moved {
            self.report();
        }
        self.changed.notify_all();
        self.shared.room.notify_all();
        self.shared.pool.evict();
        self.dispatch();
    }

    /// Everything before it has landed too.
    fn landed(&self, state: &mut State, Landed { end, durable }: Landed) {
        let kept_bytes = state.tail.mark_flushed(end);
        self.shared.pool.flushed(kept_bytes);
        if durable {
            state.pending.segment_written(end);
            if state.write.synced_end == state.write.flushed_end {
                state.write.synced_end = end;
            }
        }
        state.write.flushed_end = end;
        assert!(end <= state.write.planned_end, "it was planned");
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
        let recycled = self.create_segment(next_base).await? == Blocks::Recycled;
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
            // A file that was used before is longer than what it holds.
            state.write.padded = recycled;
            state.advance()
        };
        self.shared.indexes.put(key, index);
        self.shared.count(|stats| {
            stats.segments_sealed += 1;
            stats.segment_syncs += 1;
            stats.segments_recycled += u64::from(recycled);
        });
        if moved {
            self.report();
        }
        self.changed.notify_all();
        if self.shared.limits.spare_segments_max > 0 {
            self.shared.rolled.borrow_mut().push(Rc::downgrade(self));
            self.shared.deletion_added.notify_all();
        }
        // What waited behind a durable write may go on: the seal has made that one's prefix durable.
        self.dispatch();
        Ok(())
    }

    /// Creates the file of a segment that begins at `base`, durably. Where there is a spare file it is that one, with all that is in it.
    pub async fn create_segment(&self, base: Offset) -> Result<Blocks, Fault> {
        let fault = |error| self.io_fault("create", base, error);
        let path = segment_path(&self.dir, base);
        let rt = &self.shared.rt;
        if let Some(spare) = self.take_spare(base) {
            match rt.rename(&spare.path, &path).await {
                Ok(()) => {
                    durable::sync_dir(rt, &self.dir).await?;
                    return Ok(Blocks::Recycled);
                }
                // Somebody has removed it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.put_spare_back(spare);
                    return Err(fault(error));
                }
            }
        }
        let file = rt.open(&path, OpenMode::Create).await.map_err(fault)?;
        file.sync().await.map_err(fault)?;
        durable::sync_dir(rt, &self.dir).await?;
        let key = (self.segment_key(base), Handle::Behind);
        self.shared.files.put(key, Rc::new(file));
        Ok(Blocks::New)
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
        self.wait_until(|state| !state.write.is_busy()).await;
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
