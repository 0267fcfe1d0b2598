//! A log with its role: leader epoch, high watermark, and those who wait for it or for room.
//!
//! Single host for now: the high watermark follows the counted end. Appends that find no room wait here in the order in which they
//! came, and later ones queue behind them, so that a full disk slows producers down without ever reordering one.

mod append;
mod offsets;
mod read;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
};

use forebay_engine::{
    AppendError, Appended, Fault, LeaderEpoch, Log, Offset,
    batch::ValidBatch,
    rt::local::{Notify, OneshotReceiver, OneshotSender, oneshot},
};

pub use append::{Append, AppendFailure, AppendOutcome, Appends};
pub use offsets::{
    DeleteRecords, EpochEnd, EpochEndQuery, FindOffset, FoundOffset, LogSize, OffsetFailure,
    OffsetSpec, ProducerState,
};
pub use read::{Isolation, Read, ReadFailure, ReadOutcome, Reads, Watch};

pub(crate) use append::run as run_appends;
pub(crate) use offsets::{
    delete_records, describe_producers, end_of_epochs, find_offsets, log_sizes,
};
pub(crate) use read::{run as run_reads, watch};

/// One partition this shard owns.
pub struct Partition {
    pub log: Log,
    leader_epoch: Cell<LeaderEpoch>,
    closed: Cell<bool>,
    moved: Notify,
    waiting: RefCell<VecDeque<Waiting>>,
}

/// An append that found no room.
struct Waiting {
    batch: ValidBatch,
    frame_bytes: usize,
    done: OneshotSender<Result<Appended, AppendError>>,
}

/// What became of an append at once.
pub enum Turn {
    Done(Result<Appended, AppendError>),
    /// In line; dropping the receiver leaves the line.
    Waiting(OneshotReceiver<Result<Appended, AppendError>>),
}

impl Partition {
    /// The log was recovered: on a single host everything in it that counts is committed.
    pub fn new(log: Log, epoch: LeaderEpoch) -> Rc<Partition> {
        let partition = Rc::new(Partition {
            log,
            leader_epoch: Cell::new(epoch),
            closed: Cell::new(false),
            moved: Notify::new(),
            waiting: RefCell::default(),
        });
        partition.on_progress();
        partition
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch.get()
    }

    pub fn set_leader_epoch(&self, epoch: LeaderEpoch) {
        assert!(
            epoch >= self.leader_epoch.get(),
            "a leader epoch never goes back"
        );
        self.leader_epoch.set(epoch);
    }

    /// Appends now, without waiting; order of calls is order in the log. The batch is an allocation of its own.
    pub fn append(&self, batch: ValidBatch) -> Result<Appended, AppendError> {
        let bytes = batch.len();
        self.append_slice(batch, bytes)
    }

    fn append_slice(&self, batch: ValidBatch, frame_bytes: usize) -> Result<Appended, AppendError> {
        let epoch = self.leader_epoch.get();
        let appended = self.log.append_slice(batch, epoch, frame_bytes)?;
        // Under `replicated` the append counts already; no progress event needs to come for it.
        self.on_progress();
        Ok(appended)
    }

    /// Appends now if there is room and nobody is in line, else joins the line. Tell `Shard::await_room` of one that waits.
    pub fn append_in_turn(&self, batch: ValidBatch) -> Turn {
        self.append_slice_in_turn(batch, 0)
    }

    /// As `append_in_turn`, for a batch that keeps a frame of `frame_bytes` alive.
    pub fn append_slice_in_turn(&self, batch: ValidBatch, frame_bytes: usize) -> Turn {
        // A batch that was converted is no slice of its frame, and may be the longer of the two.
        let frame_bytes = frame_bytes.max(batch.len());
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() && self.takes(frame_bytes) {
            drop(waiting);
            return Turn::Done(self.append_slice(batch, frame_bytes));
        }
        let (done, receiver) = oneshot();
        waiting.push_back(Waiting {
            batch,
            frame_bytes,
            done,
        });
        Turn::Waiting(receiver)
    }

    /// Appends what waits, in order, as far as there is room. `true` when nothing waits any more.
    pub fn append_waiting(&self) -> bool {
        loop {
            let next = {
                let mut waiting = self.waiting.borrow_mut();
                match waiting.front() {
                    None => return true,
                    Some(front) if !front.done.is_closed() && !self.takes(front.frame_bytes) => {
                        return false;
                    }
                    Some(_) => waiting.pop_front().expect("the front was just seen"),
                }
            };
            if next.done.is_closed() {
                continue;
            }
            let outcome = self.append_slice(next.batch, next.frame_bytes);
            // A caller that left in this very moment sees a time-out, as with any append that is late.
            let _ = next.done.send(outcome);
        }
    }

    /// Completes when the high watermark has reached `end`, or the log went offline.
    pub async fn wait_committed(&self, end: Offset) -> Result<(), Fault> {
        loop {
            let moved = self.moved.listen();
            if self.log.marks().high_watermark >= end {
                return Ok(());
            }
            if let Some(fault) = self.log.fault() {
                return Err(fault);
            }
            if self.closed.get() {
                return Err(closed_fault(&self.log));
            }
            moved.await;
        }
    }

    /// Called once per reported progress: moves the high watermark, wakes who waited.
    pub fn on_progress(&self) {
        let marks = self.log.marks();
        if marks.counted_end > marks.high_watermark {
            self.log.set_high_watermark(marks.counted_end);
            self.moved.notify_all();
        } else if self.log.fault().is_some() {
            self.moved.notify_all();
        }
    }

    /// Notified whenever the high watermark moved, or the partition went offline or away.
    pub fn moved(&self) -> &Notify {
        &self.moved
    }

    /// The partition leaves this shard (its topic was deleted): everyone who waits is told.
    pub fn close(&self) {
        self.closed.set(true);
        self.waiting.borrow_mut().clear();
        self.moved.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether an append would not be refused as `Busy`. A log with a fault "takes" everything: it answers with the fault.
    fn takes(&self, frame_bytes: usize) -> bool {
        self.log.has_room(frame_bytes) || self.log.fault().is_some()
    }
}

fn closed_fault(log: &Log) -> Fault {
    Fault::io(
        "write",
        log.name().to_string(),
        io::Error::new(io::ErrorKind::NotFound, "the partition was deleted"),
    )
}
