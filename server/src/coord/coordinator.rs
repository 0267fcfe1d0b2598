//! One coordinator: a partition, the machine of its groups, and who waits for what. It counts what was given to the log and what the log
//! has taken, so that a reply knows what it has to wait for. Who steps it, and when, is the runtime's business.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use forebay_engine::{
    Offset, PartitionIndex,
    rt::{
        Instant,
        local::{Notify, OneshotSender},
    },
};

use super::group::{GroupError, Machine, Reply, Token};
use crate::partition::Partition;

/// Batches of one coordinator that wait for room in the log; beyond this, requests are refused for the moment.
const BATCHES_IN_LINE_MAX: u64 = 1024;

/// One partition's groups.
pub struct Coordinator {
    pub index: PartitionIndex,
    pub partition: Rc<Partition>,
    pub phase: RefCell<Phase>,
    /// It failed because of its log, and may start over at this time, if the log is online then.
    pub start_over: Cell<Option<Instant>>,
    pub waiting: RefCell<HashMap<Token, OneshotSender<Answer>>>,
    /// Batches given to the partition, and those of them that it has appended; the rest waits for room.
    batches_given: Cell<u64>,
    batches_appended: Cell<u64>,
    /// Where the last of the appended ones ends.
    appended_end: Cell<Offset>,
    appended: Notify,
}

pub enum Phase {
    Loading,
    Active(Machine),
    Failed,
}

/// A reply, and what must be committed before it may leave.
pub struct Answer {
    pub reply: Reply,
    pub after: After,
}

#[derive(Clone, Copy)]
pub enum After {
    /// Everything below this offset.
    End(Offset),
    /// The batch of this number, which still waits for room.
    Batch(u64),
}

impl Coordinator {
    pub fn new(index: PartitionIndex, partition: Rc<Partition>) -> Rc<Coordinator> {
        Rc::new(Coordinator {
            index,
            partition,
            phase: RefCell::new(Phase::Loading),
            start_over: Cell::new(None),
            waiting: RefCell::default(),
            batches_given: Cell::new(0),
            batches_appended: Cell::new(0),
            appended_end: Cell::new(Offset::ZERO),
            appended: Notify::new(),
        })
    }

    pub fn check_ready(&self) -> Result<(), GroupError> {
        match &*self.phase.borrow() {
            Phase::Loading => Err(GroupError::CoordinatorLoadInProgress),
            Phase::Failed => Err(GroupError::CoordinatorNotAvailable),
            // The disk is behind: try again a little later.
            Phase::Active(_) if self.batches_in_line() >= BATCHES_IN_LINE_MAX => {
                Err(GroupError::CoordinatorLoadInProgress)
            }
            Phase::Active(_) => Ok(()),
        }
    }

    pub fn batches_in_line(&self) -> u64 {
        self.batches_given.get() - self.batches_appended.get()
    }

    /// A batch is about to be given to the partition; `on_appended` follows for each.
    pub fn on_given(&self) {
        self.batches_given.set(self.batches_given.get() + 1);
    }

    /// Reports may overtake each other, appends do not: the one that ends last speaks for all before it. So once as many reports
    /// came as a batch's number, that batch and everything before it lie below `appended_end`.
    pub fn on_appended(&self, end: Offset) {
        self.appended_end.set(self.appended_end.get().max(end));
        self.batches_appended.set(self.batches_appended.get() + 1);
        assert!(self.batches_appended.get() <= self.batches_given.get());
        self.appended.notify_all();
    }

    pub fn after_all_so_far(&self) -> After {
        match self.batches_in_line() {
            0 => After::End(self.appended_end.get()),
            _ => After::Batch(self.batches_given.get()),
        }
    }

    pub fn is_committed(&self, after: After) -> bool {
        match after {
            After::End(end) => self.partition.log.marks().high_watermark >= end,
            After::Batch(_) => false,
        }
    }

    /// What the log held when it was loaded may not be committed yet.
    pub fn on_loaded(&self, machine: Machine) {
        self.appended_end.set(self.partition.log.marks().log_end);
        self.phase.replace(Phase::Active(machine));
    }

    /// Refuses whoever waits; gives back the machine, if there was one.
    pub fn retire(&self) -> Option<Machine> {
        let phase = self.phase.replace(Phase::Failed);
        self.waiting.take();
        self.appended.notify_all();
        match phase {
            Phase::Active(machine) => Some(machine),
            Phase::Loading | Phase::Failed => None,
        }
    }

    /// `Err` when that can no longer be known.
    pub async fn committed(&self, after: After) -> Result<(), ()> {
        let end = match after {
            After::End(end) => end,
            After::Batch(number) => self.appended_through(number).await?,
        };
        // The partition's task reports the fault; here only the outcome counts.
        self.partition.wait_committed(end).await.map_err(|_| ())
    }

    /// Where the log ends once it has taken the batch of this number.
    pub async fn appended_through(&self, number: u64) -> Result<Offset, ()> {
        loop {
            let appended = self.appended.listen();
            if self.batches_appended.get() >= number {
                return Ok(self.appended_end.get());
            }
            if matches!(*self.phase.borrow(), Phase::Failed) {
                return Err(());
            }
            appended.await;
        }
    }
}
