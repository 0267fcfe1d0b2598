//! Reads: from the tail cache without waiting, else from the segments, in the class of cold reads.

use std::{collections::VecDeque, path::Path, rc::Rc};

use super::{
    Fetched, ReadLimit,
    shared::{Handle, Shared},
    state::{LogInner, Phase},
};
use crate::{
    error::{Fault, ReadError},
    rt::{Class, Rt, durable},
    segment::{
        Index, Next, SegmentIndex, SegmentReader, index::FILE_BYTES_MAX, index_path, segment_path,
    },
    types::Offset,
};

/// Sequential readers of one log that are remembered with their read-ahead.
const CURSORS_MAX: usize = 8;

/// Readers that stopped at the end of a read, most recently used last. A read that begins where one of them stopped goes on with it.
#[derive(Default)]
pub struct Cursors {
    list: VecDeque<Cursor>,
}

struct Cursor {
    /// Of the batch at the reader's position.
    next: Offset,
    segment_base: Offset,
    reader: SegmentReader,
    /// Nobody has gone on with it since the last look for idle ones.
    idle: bool,
}

impl Cursors {
    fn take(&mut self, from: Offset, shared: &Shared) -> Option<Cursor> {
        let at = self.list.iter().position(|cursor| cursor.next == from)?;
        let cursor = self.list.remove(at)?;
        shared
            .readahead_bytes
            .set(shared.readahead_bytes.get() - cursor.reader.buffered_bytes());
        Some(cursor)
    }

    /// Keeps the read-ahead only while the shard's budget for it holds; the position is kept anyway.
    fn put(&mut self, mut cursor: Cursor, shared: &Shared) {
        let others = shared.readahead_bytes.get();
        cursor.idle = false;
        if others + cursor.reader.buffered_bytes() > shared.limits.readahead_bytes_max {
            cursor.reader.drop_buffer();
        }
        shared
            .readahead_bytes
            .set(others + cursor.reader.buffered_bytes());
        self.list.push_back(cursor);
        while self.list.len() > CURSORS_MAX {
            self.drop_oldest(shared);
        }
    }

    /// Drops the readers that were not used since the last call: one that never comes back must not hold memory that others need,
    /// nor its file.
    pub fn drop_idle(&mut self, shared: &Shared) {
        let mut in_use = VecDeque::new();
        while let Some(cursor) = self.list.front_mut() {
            if cursor.idle {
                self.drop_oldest(shared);
            } else {
                cursor.idle = true;
                in_use.extend(self.list.pop_front());
            }
        }
        self.list = in_use;
    }

    fn drop_oldest(&mut self, shared: &Shared) {
        if let Some(cursor) = self.list.pop_front() {
            let left = shared.readahead_bytes.get() - cursor.reader.buffered_bytes();
            shared.readahead_bytes.set(left);
        }
    }

    /// What was read ahead may not be in the log any more.
    pub fn clear(&mut self, shared: &Shared) {
        while !self.list.is_empty() {
            self.drop_oldest(shared);
        }
    }
}

impl Fetched {
    /// Takes the batch if the limit allows it; `false` when the read is over.
    pub(super) fn take(&mut self, batch: &bytes::Bytes, next: Offset, limit: ReadLimit) -> bool {
        if next > limit.below {
            return false;
        }
        let first = self.slices.is_empty();
        let fits = self.bytes + batch.len() <= limit.bytes_max;
        let must_take = first && limit.at_least_one;
        if !fits && !must_take {
            return false;
        }
        self.slices.push(batch.clone());
        self.bytes += batch.len();
        self.next = Some(next);
        self.bytes < limit.bytes_max
    }
}

/// Whether the segments still are what the reader thought they were.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    generation: u64,
    first_base: Offset,
}

/// A place in a segment where no whole batch is.
pub(super) struct Broken {
    pub segment_base: Offset,
    pub position: u64,
    /// Of the batch that should be there: the end of the last one that was read before it.
    pub offset: Offset,
    pub why: String,
}

enum Cold {
    Done(Fetched),
    /// The log was cut, or the segment deleted, while it was read.
    Stale,
    /// Nothing from here to the end of the segment: go on at its successor.
    NextSegment(Offset),
}

impl LogInner {
    pub fn read_cached(
        &self,
        from: Offset,
        limit: ReadLimit,
    ) -> Option<Result<Fetched, ReadError>> {
        let state = self.state.borrow();
        let (log_start, log_end) = (state.marks.log_start, state.marks.log_end);
        if from < log_start || from > log_end {
            return Some(Err(ReadError::OutOfRange { log_start, log_end }));
        }
        if from >= limit.below || from == log_end {
            return Some(Ok(Fetched::default()));
        }
        let fetched = state.tail.read(from, limit)?;
        drop(state);
        self.shared.count(|stats| stats.cached_reads += 1);
        Some(Ok(fetched))
    }

    pub async fn read(
        self: &Rc<Self>,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Fetched, ReadError> {
        if let Some(result) = self.read_cached(from, limit) {
            return result;
        }
        let log = Rc::clone(self);
        let read = async move { log.read_cold(from, limit).await };
        self.shared.rt.spawn(Class::ColdRead, read).await
    }

    async fn read_cold(
        self: Rc<Self>,
        mut from: Offset,
        limit: ReadLimit,
    ) -> Result<Fetched, ReadError> {
        loop {
            self.awake().await?;
            self.state.borrow_mut().used = true;
            // The tail may have begun, or the log been cut, since the last look.
            if let Some(result) = self.read_cached(from, limit) {
                return result;
            }
            match self.read_segment(from, limit).await? {
                Cold::Done(fetched) => {
                    self.shared.count(|stats| {
                        stats.cold_reads += 1;
                        stats.cold_read_bytes += fetched.bytes as u64;
                    });
                    return Ok(fetched);
                }
                Cold::Stale => self.shared.rt.yield_now().await,
                Cold::NextSegment(base) => from = base,
            }
        }
    }

    pub(super) fn version(&self) -> Version {
        let state = self.state.borrow();
        Version {
            generation: state.generation,
            first_base: state.segments[0].base,
        }
    }

    fn is_removed(&self) -> bool {
        self.state.borrow().phase == Phase::Removed
    }

    async fn read_segment(
        self: &Rc<Self>,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Cold, ReadError> {
        let version = self.version();
        let result = self.read_segment_as_of(from, limit).await;
        if self.is_removed() {
            // What has its files' names now may belong to the next log of the same name.
            let removed = std::io::Error::other("the log is deleted");
            return Err(ReadError::Fault(Fault::io("read", &self.dir, removed)));
        }
        let unchanged = self.version() == version;
        match result {
            Ok((fetched, Some(cursor))) if unchanged && fetched.next.is_some() => {
                let mut state = self.state.borrow_mut();
                state.cursors.put(cursor, &self.shared);
                Ok(Cold::Done(fetched))
            }
            Ok((fetched, Some(_))) if unchanged => Ok(Cold::Done(fetched)),
            Ok((_, None)) if unchanged => {
                let state = self.state.borrow();
                let base = state.segments[state.segment_of(from)].base;
                match state.segment_after(base) {
                    Some(next) => Ok(Cold::NextSegment(next.base)),
                    None => Ok(Cold::Stale),
                }
            }
            Err(fault) if unchanged => Err(ReadError::from(fault)),
            _ => Ok(Cold::Stale),
        }
    }

    /// Reads batches of the one segment that holds `from`. No cursor comes back where the segment ended before anything was found.
    async fn read_segment_as_of(
        self: &Rc<Self>,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<(Fetched, Option<Cursor>), Fault> {
        let version = self.version();
        let mut cursor = self.cursor_at(from).await?;
        let base = cursor.segment_base;
        let mut expected = cursor.next;
        let fault = |error| self.io_fault("read", base, error);
        let mut fetched = Fetched::default();
        loop {
            let next = cursor.reader.peek().await.map_err(fault)?;
            let (header, bytes) = match self.judge(next, expected) {
                Next::Batch(header, bytes) => (header, bytes),
                Next::End if fetched.next.is_none() => {
                    self.check_end(version, from, &cursor, expected)?;
                    return Ok((fetched, None));
                }
                Next::End => break,
                // What was found before is served; the next read begins at the broken batch and says so.
                Next::Broken(_) if fetched.next.is_some() => break,
                Next::Broken(why) => {
                    let broken = Broken {
                        segment_base: base,
                        position: cursor.reader.position(),
                        offset: expected,
                        why,
                    };
                    let fault = self.report_damage(version, &broken);
                    match self.pass_over(&mut cursor.reader, &broken).await? {
                        Some(behind) if behind <= from => {
                            expected = behind;
                            cursor.next = behind;
                        }
                        // What is asked for is in there.
                        _ => return Err(fault),
                    }
                    continue;
                }
            };
            expected = header.next_offset();
            if header.next_offset() > from {
                let taken = fetched.slices.len();
                let more = fetched.take(&bytes, header.next_offset(), limit);
                if fetched.slices.len() > taken {
                    cursor.reader.advance(&header);
                    cursor.next = header.next_offset();
                }
                if !more {
                    break;
                }
            } else {
                cursor.reader.advance(&header);
                cursor.next = header.next_offset();
            }
        }
        Ok((fetched, Some(cursor)))
    }

    /// The last segment's file, read to its end, does not have what the log says is in it: to read it again would not help. Behind the end of
    /// any other there may be a hole that a bridge has left.
    fn check_end(
        &self,
        version: Version,
        from: Offset,
        cursor: &Cursor,
        expected: Offset,
    ) -> Result<(), Fault> {
        let base = cursor.segment_base;
        let is_all = {
            let state = self.state.borrow();
            let last = state.segments.last().filter(|last| last.base == base);
            last.is_some_and(|last| {
                from < state.write.flushed_end && state.flushed_len(last) <= cursor.reader.end()
            })
        };
        if !is_all {
            return Ok(());
        }
        let broken = Broken {
            segment_base: base,
            position: cursor.reader.position(),
            offset: expected,
            why: "the segment ends too early".to_owned(),
        };
        Err(self.report_damage(version, &broken))
    }

    /// Neither its offset nor its epoch is covered by the CRC of a batch. What the log knows of both tells whether they are right.
    pub(super) fn judge(&self, next: Next, expected: Offset) -> Next {
        let Next::Batch(header, _) = &next else {
            return next;
        };
        if header.base_offset != expected {
            return Next::Broken(format!("it calls itself {}", header.base_offset));
        }
        let state = self.state.borrow();
        let known = state.epochs.epoch_at(expected);
        if expected >= state.marks.log_start && known != Some(header.leader_epoch) {
            let epoch = header.leader_epoch;
            return Next::Broken(format!("epoch {epoch} where {known:?} was written"));
        }
        next
    }

    /// Goes on behind a broken batch, if it is known where the next one begins, and says which offset that may have.
    pub(super) async fn pass_over(
        self: &Rc<Self>,
        reader: &mut SegmentReader,
        broken: &Broken,
    ) -> Result<Option<Offset>, Fault> {
        let base = broken.segment_base;
        let fault = |error| self.io_fault("read", base, error);
        if let Next::Batch(header, _) = reader.peek().await.map_err(fault)? {
            // Whole, and not where it belongs: its length and how many offsets it has are covered by the CRC.
            reader.advance(&header);
            let count = header.next_offset().since(header.base_offset);
            return Ok(Some(broken.offset.plus(count)));
        }
        let skipped = reader.skip_broken().await;
        if let Some(header) = skipped.map_err(fault)? {
            return Ok(Some(header.next_offset()));
        }
        let place = self.ask_index(base, |index| index.place_behind(broken.position));
        // The index may know of more than there was when this read began.
        let Some(place) = place.await?.filter(|place| place.position <= reader.end()) else {
            return Ok(None);
        };
        reader.go_to(place.position);
        Ok(Some(place.offset))
    }

    /// Tells the operator, once for each place.
    pub(super) fn report_damage(&self, version: Version, broken: &Broken) -> Fault {
        let base = broken.segment_base;
        let path = segment_path(&self.dir, base);
        let (position, offset) = (broken.position, broken.offset);
        let what = format!("{} at position {position}, offset {offset}", broken.why);
        let key = self.segment_key(base);
        if self.version() == version && self.shared.is_new_damage(key, position) {
            self.shared.count(|stats| stats.corrupt_batches += 1);
            tracing::error!(
                log = %self.name, path = %path.display(), position, %offset, why = broken.why,
                "a batch is damaged on disk; it is not served, what lies before and behind it is"
            );
        }
        Fault::corrupt(what, path)
    }

    async fn cursor_at(self: &Rc<Self>, from: Offset) -> Result<Cursor, Fault> {
        let (base, end, known) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let segment = &state.segments[state.segment_of(from)];
            let (base, end) = (segment.base, state.flushed_len(segment));
            let known = state.cursors.take(from, &self.shared);
            (base, end, known)
        };
        if let Some(mut cursor) = known
            && cursor.segment_base == base
            && cursor.reader.position() <= end
        {
            cursor.reader.set_end(end);
            return Ok(cursor);
        }
        let place = self
            .ask_index(base, |index| index.find_offset(from))
            .await?;
        let fault = |error| self.io_fault("open", base, error);
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let file = self
            .shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        Ok(Cursor {
            next: place.offset,
            segment_base: base,
            reader: SegmentReader::new(file, place.position.min(end), end)
                .with_read_ahead(&self.shared.rt),
            idle: false,
        })
    }

    /// Asks the index of a segment, wherever it is.
    pub async fn ask_index<T>(
        self: &Rc<Self>,
        base: Offset,
        ask: impl FnOnce(&Index) -> T,
    ) -> Result<T, Fault> {
        self.awake().await?;
        {
            let state = self.state.borrow();
            if let Some(index) = state.segments[state.segment_of(base)].live_index() {
                return Ok(ask(index));
            }
        }
        let index = self.sealed_index(base).await?;
        Ok(ask(&index))
    }

    /// The index of a sealed segment: from the cache, from its side file, or built again.
    async fn sealed_index(&self, base: Offset) -> Result<Rc<Index>, Fault> {
        let key = self.segment_key(base);
        if let Some(index) = self.shared.indexes.get(&key) {
            return Ok(index);
        }
        let (len, interval, version) = {
            let state = self.state.borrow();
            let len = state.segments[state.segment_of(base)].len;
            (len, state.config.index_interval_bytes, self.version())
        };
        let index = match load_index(&self.shared.rt, &self.dir, base, interval).await {
            Ok(index) if index.len() == len => index,
            _ => {
                let _turn = self.shared.index_rebuilds.take(1).await;
                if let Some(index) = self.shared.indexes.get(&key) {
                    // Somebody else has built it meanwhile.
                    return Ok(index);
                }
                self.rebuild_index(base, len, interval, version).await?
            }
        };
        let index = Rc::new(index);
        if self.version() == version {
            self.shared.indexes.put(key, Rc::clone(&index));
            let mut state = self.state.borrow_mut();
            let at = state.segment_of(base);
            if let SegmentIndex::OnDisk { max_timestamp } = &mut state.segments[at].index {
                *max_timestamp = Some(index.max_timestamp());
            }
        }
        Ok(index)
    }

    async fn rebuild_index(
        &self,
        base: Offset,
        len: u64,
        interval: u64,
        version: Version,
    ) -> Result<Index, Fault> {
        let fault = |error| self.io_fault("read", base, error);
        let path = segment_path(&self.dir, base);
        let key = self.segment_key(base);
        let shared = &self.shared;
        let file = shared
            .open_segment(key, &path, Handle::Behind)
            .await
            .map_err(fault)?;
        let mut index = Index::new(base, interval, shared.rt.wall_clock());
        let mut reader = SegmentReader::new(file, 0, len);
        loop {
            match reader.peek().await.map_err(fault)? {
                Next::Batch(header, _) if index.accepts(&header) => {
                    index.push(&header, reader.position());
                    reader.advance(&header);
                }
                Next::Broken(_) => match reader.skip_broken().await.map_err(fault)? {
                    Some(header) if index.accepts(&header) => {
                        index.skip_to(header.next_offset(), reader.position());
                    }
                    _ => break,
                },
                Next::Batch(..) | Next::End => break,
            }
        }
        tracing::warn!(log = %self.name, segment = %base, covered = index.len(), len, "built the index again");
        if index.len() == len {
            let _names = shared.keep_names().await;
            // A cut or a deletion meanwhile has removed the side file, or waits for the names to do so.
            if self.version() == version && !self.is_removed() {
                let path = index_path(&self.dir, base);
                let written = durable::replace_file(&shared.rt, &path, &index.encode()).await;
                if let Err(fault) = written {
                    // Only a cache: what was built is good for this run.
                    tracing::warn!(log = %self.name, %fault, "cannot write the index");
                }
            }
        }
        Ok(index)
    }
}

/// Reads the side file of a segment.
pub async fn load_index(rt: &Rt, dir: &Path, base: Offset, interval: u64) -> Result<Index, Fault> {
    let path = index_path(dir, base);
    let bytes = rt
        .read_small(&path, FILE_BYTES_MAX)
        .await
        .map_err(|error| Fault::io("read", &path, error))?;
    Index::decode(&bytes, base, interval, &path)
}
