//! Group commit: while one write is in flight the next one gathers.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::PathBuf,
    rc::Rc,
};

use bytes::Bytes;

use super::{
    format::{Stamp, commit_len, encode_commit, entry_len},
    ring::{JournalConfig, JournalPosition, Ring},
};
use crate::{
    error::Fault,
    rt::{Rt, local::Notify},
    types::{LeaderEpoch, LogId, Offset},
};

/// Batches of one log that wait to be durable.
#[derive(Clone, Debug)]
pub struct Entry {
    pub log: LogId,
    pub log_generation: u64,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    /// One or more whole batches.
    pub bytes: Bytes,
}

/// Everything of this log submitted up to `next_offset` is durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub log: LogId,
    pub log_generation: u64,
    pub next_offset: Offset,
}

/// Handle to the journal of this shard; cheap to clone.
#[derive(Clone)]
pub struct Journal(Rc<Inner>);

struct Inner {
    rt: Rt,
    ring: Rc<Ring>,
    pending: RefCell<VecDeque<Entry>>,
    /// Submitted and not yet durable.
    pending_bytes: Cell<u64>,
    submitted: Notify,
    next_commit: Cell<u64>,
    committing: Cell<bool>,
    fault: RefCell<Option<Fault>>,
}

impl Journal {
    /// Makes the ring ready for a new run: `generation` is greater than any in use before. Files that exist are reused, missing
    /// ones are created and written once in advance (the first one now, the rest behind). From here on everything that older
    /// generations left, in the rings of all shards, is void: call it when recovery has made durable what it kept.
    pub async fn start(
        rt: &Rt,
        dir: PathBuf,
        config: JournalConfig,
        generation: u64,
    ) -> Result<Journal, Fault> {
        let ring = Ring::open(rt, dir, config, generation).await?;
        Ok(Journal(Rc::new(Inner {
            rt: rt.clone(),
            ring,
            pending: RefCell::default(),
            pending_bytes: Cell::new(0),
            submitted: Notify::new(),
            next_commit: Cell::new(0),
            committing: Cell::new(false),
            fault: RefCell::new(None),
        })))
    }

    /// Hands over an entry; never waits, and the engine bounds what it submits. After a fault entries are dropped: nobody will
    /// be told that they are durable.
    pub fn submit(&self, entry: Entry) {
        let inner = &self.0;
        assert!(!entry.bytes.is_empty());
        assert!(
            commit_len(entry_len(&entry)) as u64 <= inner.ring.config().commits_bytes_max(),
            "an entry fits a journal file"
        );
        if inner.fault.borrow().is_some() {
            return;
        }
        let bytes = inner.pending_bytes.get() + entry.bytes.len() as u64;
        inner.pending_bytes.set(bytes);
        inner.pending.borrow_mut().push_back(entry);
        inner.submitted.notify_all();
    }

    /// Bytes of batches that were submitted and are not yet durable, the commit in flight included.
    pub fn pending_bytes(&self) -> u64 {
        self.0.pending_bytes.get()
    }

    /// Waits until something is pending, writes one commit of everything gathered (up to `commit_bytes_max`) with one write, and
    /// returns what is durable now, in the order of submission. One caller, in a loop, which must not drop the future halfway.
    /// After a fault every call returns it.
    pub async fn commit(&self) -> Result<Vec<Committed>, Fault> {
        let inner = &self.0;
        assert!(!inner.committing.replace(true), "one commit at a time");
        let result = inner.commit().await;
        inner.committing.set(false);
        if let Err(fault) = &result {
            inner
                .fault
                .borrow_mut()
                .get_or_insert_with(|| fault.clone());
            inner.pending.borrow_mut().clear();
            inner.pending_bytes.set(0);
        }
        result
    }

    /// `false` after a fault, and while the ring is full: what is submitted then waits, perhaps for long.
    pub fn takes_entries(&self) -> bool {
        self.0.fault.borrow().is_none() && !self.is_full()
    }

    /// A commit waits for a file that is still needed.
    pub fn is_full(&self) -> bool {
        self.0.ring.is_full()
    }

    pub fn fault(&self) -> Option<Fault> {
        self.0.fault.borrow().clone()
    }

    pub fn generation(&self) -> u64 {
        self.0.ring.generation()
    }

    /// Where the commit goes that is in flight or comes next. All entries before it were submitted before this call, so a checkpoint that
    /// starts now and covers all that was submitted may release everything before this position when it is durable.
    pub fn position(&self) -> JournalPosition {
        JournalPosition {
            generation: self.0.ring.generation(),
            file_sequence: self.0.ring.current(),
            commit_sequence: self.0.next_commit.get(),
            file_position: self.0.ring.file_position(),
        }
    }

    /// A checkpoint is durable: files before the one of `position` may be overwritten.
    pub fn release_before(&self, position: JournalPosition) {
        self.0.ring.release_before(position.file_sequence);
    }

    /// More than half of the ring is in use.
    pub fn needs_checkpoint(&self) -> bool {
        self.0.ring.needs_checkpoint()
    }

    /// Notified when `needs_checkpoint` becomes true, and again when `commit` waits because the ring is full.
    pub fn checkpoint_wanted(&self) -> Notify {
        self.0.ring.checkpoint_wanted()
    }
}

impl Inner {
    async fn commit(&self) -> Result<Vec<Committed>, Fault> {
        if let Some(fault) = &*self.fault.borrow() {
            return Err(fault.clone());
        }
        loop {
            let submitted = self.submitted.listen();
            if !self.pending.borrow().is_empty() {
                break;
            }
            submitted.await;
        }
        let commit_sequence = self.next_commit.get();
        let (entry_count, len) = self.gather();
        // What is submitted from here on belongs to the next commit.
        self.ring.reserve(len as u64, commit_sequence).await?;
        let mut buffer = self.rt.alloc(len);
        let stamp = Stamp {
            generation: self.ring.generation(),
            file_sequence: self.ring.current(),
            commit_sequence,
        };
        let gathered: Vec<Entry> = self.pending.borrow_mut().drain(..entry_count).collect();
        encode_commit(buffer.bytes_mut(), stamp, gathered.iter());
        let committed = gathered.iter().map(Committed::of).collect();
        let bytes: u64 = gathered.iter().map(|entry| entry.bytes.len() as u64).sum();
        // The frames that the batches are part of are free from here on.
        drop(gathered);
        self.ring.write(buffer).await?;
        self.next_commit.set(commit_sequence + 1);
        self.pending_bytes.set(self.pending_bytes.get() - bytes);
        Ok(committed)
    }

    /// How many of the pending entries the next commit takes, and its length in the file.
    fn gather(&self) -> (usize, usize) {
        let bytes_max = self.ring.config().commit_bytes_max;
        let mut entry_count = 0;
        let mut body_bytes = 0;
        for entry in self.pending.borrow().iter() {
            let body_with_it = body_bytes + entry_len(entry);
            if entry_count > 0 && commit_len(body_with_it) > bytes_max {
                break;
            }
            entry_count += 1;
            body_bytes = body_with_it;
        }
        assert!(entry_count > 0);
        (entry_count, commit_len(body_bytes))
    }
}

impl Committed {
    fn of(entry: &Entry) -> Committed {
        Committed {
            log: entry.log,
            log_generation: entry.log_generation,
            next_offset: entry.next_offset,
        }
    }
}
