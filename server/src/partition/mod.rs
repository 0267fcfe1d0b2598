//! A log with its role: high watermark, and those who wait for it.

use std::rc::Rc;

use forebay_engine::{
    AppendError, Appended, Fault, LeaderEpoch, Log, Offset, batch::ValidBatch, rt::local::Notify,
};

/// One partition this shard owns. Single host for now: the high watermark follows the counted end.
pub struct Partition {
    pub log: Log,
    _private: (),
}

impl Partition {
    pub fn new(_log: Log, _epoch: LeaderEpoch) -> Rc<Partition> {
        unimplemented!()
    }
    pub fn leader_epoch(&self) -> LeaderEpoch {
        unimplemented!()
    }
    pub fn set_leader_epoch(&self, _epoch: LeaderEpoch) {
        unimplemented!()
    }
    /// Appends now, without waiting; order of calls is order in the log.
    pub fn append(&self, _batch: ValidBatch) -> Result<Appended, AppendError> {
        unimplemented!()
    }
    /// Completes when the high watermark has reached `end`, or the log went offline.
    pub async fn wait_committed(&self, _end: Offset) -> Result<(), Fault> {
        unimplemented!()
    }
    /// Called once per reported progress: moves the high watermark, wakes who waited.
    pub fn on_progress(&self) {
        unimplemented!()
    }
    /// Notified whenever the high watermark moved.
    pub fn moved(&self) -> &Notify {
        unimplemented!()
    }
}
