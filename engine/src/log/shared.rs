//! What all logs of one shard share: budgets, caches, the journal, counters, and whom to tell when a log moved.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    path::{Path, PathBuf},
    rc::{Rc, Weak},
};

use super::{
    SpaceUse,
    space::{Space, SpaceConfig},
    state::LogInner,
    tail::TailPool,
    together::Syncs,
};
use crate::{
    error::Fault,
    journal::writer::Journal,
    rt::{
        DiskSpace, File, FileSystem, Instant, OpenMode, Rt,
        local::{Budget, Notify, Units},
    },
    segment::Index,
    types::{LogId, Offset},
};

/// Plain counters of one shard, read by metrics and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineStats {
    pub logs: u64,
    pub appended_batches: u64,
    pub appended_bytes: u64,
    pub appends_refused_busy: u64,
    pub appends_refused_disk_low: u64,
    pub journal_commits: u64,
    pub journal_bytes: u64,
    pub segment_writes: u64,
    pub segment_bytes: u64,
    /// Of single segments.
    pub segment_syncs: u64,
    /// Of everything at once.
    pub file_system_syncs: u64,
    pub segments_sealed: u64,
    pub segments_deleted: u64,
    /// Segments that began in the file of a deleted one.
    pub segments_recycled: u64,
    /// In files of deleted segments that are kept for this.
    pub spare_bytes: u64,
    pub bypass_writes: u64,
    pub bypass_bytes: u64,
    pub checkpoints: u64,
    pub tail_bytes: u64,
    pub tail_unflushed_bytes: u64,
    pub readahead_bytes: u64,
    pub cached_reads: u64,
    pub cold_reads: u64,
    pub cold_read_bytes: u64,
    pub truncations: u64,
    pub faults: u64,
    pub logs_reopened: u64,
    pub scrubbed_bytes: u64,
    pub scrub_rounds: u64,
    /// Wrong indexes, and segments that could not be read.
    pub scrub_errors: u64,
    pub logs_offline: u64,
    /// Damaged places found in segments.
    pub corrupt_batches: u64,
    /// As of the last look.
    pub disk_available_bytes: u64,
    pub disk_reserve_bytes: u64,
    /// Client data is refused.
    pub disk_low: bool,
    pub recovered_logs: u64,
    /// Bytes read from disk by the start, of segments and indexes, journals, and checkpoints.
    pub recovery_segment_bytes: u64,
    pub recovery_journal_bytes: u64,
    pub recovery_checkpoint_bytes: u64,
}

/// The bounds a log has to know.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bypass_bytes: usize,
    pub write_chunk_bytes_max: usize,
    pub tail_bytes_max: usize,
    pub readahead_bytes_max: usize,
    pub syncs_together_min: usize,
    pub spare_segments_max: usize,
}

/// Open segment files of a shard that are kept open though nobody uses them at the moment.
pub const OPEN_FILES_MAX: usize = 1024;

/// Segment files of a shard that are being opened.
pub const OPENS_IN_FLIGHT_MAX: u64 = 64;

/// Indexes of sealed segments in memory. A full one (1 GiB at an entry per 64 KiB) takes 256 KiB, most are not full.
pub const INDEXES_MAX: usize = 256;

/// Damaged places that are remembered, so that each is reported once; then all may be reported once more.
const DAMAGE_REMEMBERED_MAX: usize = 4096;

/// Key of a file or an index in the shard's caches: the log's number within this run, and the segment.
pub type SegmentKey = (u64, Offset);

/// How a segment file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handle {
    /// Read, written behind, synced.
    Behind,
    /// Every write is durable when it completes.
    Durable,
}

pub struct Shared {
    pub rt: Rt,
    pub limits: Limits,
    pub stats: RefCell<EngineStats>,
    pub pool: TailPool,
    pub space: Space,
    /// Appends that were refused may be tried again.
    pub room: Notify,
    pub journal: RefCell<Option<Journal>>,
    /// Some log did.
    pub went_offline: Notify,
    /// Opens of segment files take one unit, whatever takes their names away takes all: glommio panics when a path vanishes
    /// in the middle of an open.
    names: Budget,
    pub files: Cache<(SegmentKey, Handle), File>,
    pub indexes: Cache<SegmentKey, Index>,
    /// One index at a time is built again: two for the same segment would write to the same file.
    pub index_rebuilds: Budget,
    /// Read-ahead that cold readers of all logs hold.
    pub readahead_bytes: Cell<usize>,
    pub progress: Progress,
    pub checkpoints: CheckpointRequests,
    pub syncs: Syncs,
    pub deletions: RefCell<VecDeque<Deletion>>,
    /// Logs that completed a segment: retention looks at them at once, so that the next one finds a spare file.
    pub rolled: RefCell<Vec<Weak<LogInner>>>,
    /// Damaged places that the operator knows of.
    damaged: RefCell<BTreeSet<(SegmentKey, u64)>>,
    pub deletion_added: Notify,
    next_log_key: Cell<u64>,
}

/// A file out of its log that waits for its last readers.
pub struct Deletion {
    pub due: Instant,
    pub path: PathBuf,
}

impl Shared {
    pub fn new(rt: Rt, limits: Limits, space: SpaceConfig, file_system: FileSystem) -> Rc<Shared> {
        Rc::new(Shared {
            rt,
            limits,
            stats: RefCell::default(),
            pool: TailPool::new(limits.tail_bytes_max),
            space: Space::new(space),
            room: Notify::new(),
            journal: RefCell::new(None),
            went_offline: Notify::new(),
            names: Budget::new(OPENS_IN_FLIGHT_MAX),
            files: Cache::new(OPEN_FILES_MAX),
            indexes: Cache::new(INDEXES_MAX),
            index_rebuilds: Budget::new(1),
            readahead_bytes: Cell::new(0),
            progress: Progress::default(),
            checkpoints: CheckpointRequests::default(),
            syncs: Syncs::new(file_system),
            deletions: RefCell::default(),
            rolled: RefCell::default(),
            damaged: RefCell::default(),
            deletion_added: Notify::new(),
            next_log_key: Cell::new(0),
        })
    }

    pub fn new_log_key(&self) -> u64 {
        let key = self.next_log_key.get();
        self.next_log_key.set(key + 1);
        key
    }

    pub fn count(&self, change: impl FnOnce(&mut EngineStats)) {
        change(&mut self.stats.borrow_mut());
    }

    pub fn stats(&self) -> EngineStats {
        EngineStats {
            tail_bytes: self.pool.bytes() as u64,
            tail_unflushed_bytes: self.pool.unflushed_bytes() as u64,
            readahead_bytes: self.readahead_bytes.get() as u64,
            disk_available_bytes: self.space.available_bytes(),
            disk_reserve_bytes: self.space.reserve_bytes(),
            disk_low: self.space.is_low(),
            ..*self.stats.borrow()
        }
    }

    /// How much may wait in one log before it goes straight to the segment: nothing while the journal takes nothing.
    pub fn bypass_bytes(&self) -> usize {
        let journal = self.journal.borrow();
        match journal.as_ref().is_none_or(Journal::takes_entries) {
            true => self.limits.bypass_bytes,
            false => 0,
        }
    }

    /// Whether the disk has space for an append.
    pub fn take_space(&self, space_use: SpaceUse, bytes: u64) -> bool {
        let was_low = self.space.is_low();
        let taken = self.space.take(space_use, bytes);
        self.after_space_change(was_low);
        taken
    }

    /// What a look at the disk found.
    pub fn space_found(&self, found: DiskSpace) {
        let was_low = self.space.is_low();
        self.space.looked(found, self.pool.unflushed_bytes() as u64);
        self.after_space_change(was_low);
    }

    fn after_space_change(&self, was_low: bool) {
        let low = self.space.is_low();
        if low != was_low {
            // Appends that wait in line get in, or their refusal.
            self.room.notify_all();
        }
        if low && !was_low {
            // What may be deleted is deleted now.
            self.deletion_added.notify_all();
        }
    }

    /// The segment file, from the cache or opened now.
    pub async fn open_segment(
        &self,
        key: SegmentKey,
        path: &Path,
        handle: Handle,
    ) -> io::Result<Rc<File>> {
        if let Some(file) = self.files.get(&(key, handle)) {
            return Ok(file);
        }
        let _opening = self.names.take(1).await;
        let mode = match handle {
            Handle::Behind => OpenMode::ReadWrite,
            Handle::Durable => OpenMode::ReadWriteDurable,
        };
        let file = Rc::new(self.rt.open(path, mode).await?);
        self.files.put((key, handle), Rc::clone(&file));
        Ok(file)
    }

    /// `true` if nobody has reported damage at this position of the segment yet.
    pub fn is_new_damage(&self, key: SegmentKey, position: u64) -> bool {
        let mut damaged = self.damaged.borrow_mut();
        if damaged.len() >= DAMAGE_REMEMBERED_MAX {
            damaged.clear();
        }
        damaged.insert((key, position))
    }

    /// Nobody takes a name in a log's directory away while the result lives: for files that are replaced.
    pub async fn keep_names(&self) -> Units {
        self.names.take(1).await
    }

    /// Waits until no segment file is being opened; none is while the result lives.
    pub async fn hold_names(&self) -> Units {
        self.names.take(OPENS_IN_FLIGHT_MAX).await
    }

    /// The segment is gone or has been cut: nobody may find the old file or index here.
    pub fn forget_segment(&self, key: SegmentKey) {
        self.files.remove(&(key, Handle::Behind));
        self.files.remove(&(key, Handle::Durable));
        self.indexes.remove(&key);
    }
}

/// Keeps the most recently used values, up to a bound; whoever holds an `Rc` keeps its value longer.
pub struct Cache<K, V> {
    entries_max: usize,
    inner: RefCell<CacheInner<K, V>>,
}

struct CacheInner<K, V> {
    entries: HashMap<K, (u64, Rc<V>)>,
    clock: u64,
}

impl<K: std::hash::Hash + Eq + Clone, V> Cache<K, V> {
    pub fn new(entries_max: usize) -> Cache<K, V> {
        assert!(entries_max >= 8, "a smaller cache would only thrash");
        Cache {
            entries_max,
            inner: RefCell::new(CacheInner {
                entries: HashMap::new(),
                clock: 0,
            }),
        }
    }

    pub fn get(&self, key: &K) -> Option<Rc<V>> {
        let mut inner = self.inner.borrow_mut();
        inner.clock += 1;
        let now = inner.clock;
        let (used, value) = inner.entries.get_mut(key)?;
        *used = now;
        Some(Rc::clone(value))
    }

    pub fn put(&self, key: K, value: Rc<V>) {
        let mut inner = self.inner.borrow_mut();
        inner.clock += 1;
        let now = inner.clock;
        inner.entries.insert(key, (now, value));
        if inner.entries.len() > self.entries_max {
            inner.drop_oldest(self.entries_max / 8);
        }
    }

    pub fn remove(&self, key: &K) {
        self.inner.borrow_mut().entries.remove(key);
    }

    pub fn len(&self) -> usize {
        self.inner.borrow().entries.len()
    }
}

impl<K: std::hash::Hash + Eq + Clone, V> CacheInner<K, V> {
    /// An eighth at a time, so that the search costs little per eviction.
    fn drop_oldest(&mut self, count: usize) {
        let mut used: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
        let (_, limit, _) = used.select_nth_unstable(count);
        let limit = *limit;
        self.entries.retain(|_, (used, _)| *used >= limit);
    }
}

/// Logs whose counted end moved, or that got a fault, since somebody last asked.
#[derive(Default)]
pub struct Progress {
    moved: RefCell<Vec<LogId>>,
    notify: Notify,
}

impl Progress {
    /// The log guards against being listed twice.
    pub fn report(&self, id: LogId) {
        let mut moved = self.moved.borrow_mut();
        moved.push(id);
        if moved.len() == 1 {
            self.notify.notify_all();
        }
    }

    pub async fn wait(&self) -> Vec<LogId> {
        loop {
            let listen = self.notify.listen();
            let moved = self.moved.take();
            if !moved.is_empty() {
                return moved;
            }
            listen.await;
        }
    }
}

/// A checkpoint is due when so much was appended since the last one: the next start reads what came after it.
pub const CHECKPOINT_BYTES_MIN: u64 = 16 << 20;

/// A checkpoint syncs every log that changed, so it waits for so much per log.
pub const CHECKPOINT_BYTES_PER_LOG: u64 = 512 << 10;

/// Who needs a checkpoint asks here; one checkpoint answers all who asked before it began.
pub struct CheckpointRequests {
    /// Appended since the last checkpoint began.
    dirty_bytes: Cell<u64>,
    dirty_bytes_max: Cell<u64>,
    requested: Cell<u64>,
    /// All requests up to this number have their answer.
    answered: Cell<u64>,
    /// The answer to those up to this number was a fault.
    failed: RefCell<Option<(u64, Fault)>>,
    pub wanted: Notify,
    done: Notify,
}

impl Default for CheckpointRequests {
    fn default() -> CheckpointRequests {
        CheckpointRequests {
            dirty_bytes: Cell::new(0),
            dirty_bytes_max: Cell::new(CHECKPOINT_BYTES_MIN),
            requested: Cell::new(0),
            answered: Cell::new(0),
            failed: RefCell::default(),
            wanted: Notify::new(),
            done: Notify::new(),
        }
    }
}

impl CheckpointRequests {
    /// So much was appended to some log.
    pub fn appended(&self, bytes: u64) {
        let dirty_bytes = self.dirty_bytes.get() + bytes;
        self.dirty_bytes.set(dirty_bytes);
        if dirty_bytes >= self.dirty_bytes_max.get() {
            self.want();
        }
    }

    /// So many logs had changed when the last checkpoint was made.
    pub fn dirty_logs(&self, logs: usize) {
        let bytes = CHECKPOINT_BYTES_PER_LOG * logs as u64;
        self.dirty_bytes_max.set(bytes.max(CHECKPOINT_BYTES_MIN));
    }

    pub fn request(&self) -> u64 {
        self.requested.set(self.requested.get() + 1);
        self.wanted.notify_all();
        self.requested.get()
    }

    /// Asks for one soon, unless one is asked for already.
    pub fn want(&self) {
        if !self.is_open() {
            self.request();
        }
    }

    pub fn is_open(&self) -> bool {
        self.requested.get() > self.answered.get()
    }

    /// Waits for a checkpoint that began after this call.
    pub async fn complete(&self) -> Result<(), Fault> {
        let ticket = self.request();
        loop {
            let listen = self.done.listen();
            if self.answered.get() >= ticket {
                return match &*self.failed.borrow() {
                    Some((failed, fault)) if *failed >= ticket => Err(fault.clone()),
                    _ => Ok(()),
                };
            }
            listen.await;
        }
    }

    /// The number of the newest request: a checkpoint that begins now answers all up to it.
    pub fn begin(&self) -> u64 {
        self.dirty_bytes.set(0);
        self.requested.get()
    }

    pub fn end(&self, ticket: u64, result: &Result<(), Fault>) {
        if let Err(fault) = result {
            *self.failed.borrow_mut() = Some((ticket, fault.clone()));
        }
        self.answered.set(ticket);
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_what_was_used_last() {
        let cache = Cache::new(16);
        for key in 0..16 {
            cache.put(key, Rc::new(key));
        }
        for key in [0, 1, 2] {
            assert_eq!(cache.get(&key).as_deref(), Some(&key));
        }
        cache.put(16, Rc::new(16));
        assert!(cache.len() <= 16);
        for (key, kept) in [(0, true), (1, true), (2, true), (3, false), (16, true)] {
            assert_eq!(cache.get(&key).is_some(), kept, "key {key}");
        }
        cache.remove(&0);
        assert!(cache.get(&0).is_none());
    }
}
