//! A log that is filled so that it can be read: what `storage mixed` and `storage read` have in common.

use std::{cell::Cell, rc::Rc};

use bytes::BytesMut;
use forebay_engine::{
    Engine, Log,
    rt::{Rt, local::Notify},
};

use super::{
    probe::{Broken, Probe},
    subject::{append_one, batch_of, wait_for_room},
    tasks::{join_all, spawn_all},
};

/// Appends in flight.
const FILLERS: usize = 8;

/// Appends `bytes` in durable batches of about `batch_bytes`. `moved` is notified when the log moves on.
pub async fn fill(
    probe: &Probe,
    rt: &Rt,
    engine: &Engine,
    log: &Log,
    moved: &Notify,
    batch_bytes: usize,
    bytes: u64,
) -> Result<(), Broken> {
    let template = batch_of(batch_bytes, rt.wall_clock());
    let left = Rc::new(Cell::new(bytes / template.len() as u64));
    let filler = |_| Filler {
        probe: probe.clone(),
        rt: rt.clone(),
        log: log.clone(),
        moved: moved.clone(),
        room: engine.room(),
        template: template.clone(),
        left: left.clone(),
    };
    let fillers = (0..FILLERS).map(filler).map(Filler::run);
    join_all(spawn_all(rt, fillers)).await
}

/// One of those that share what is left to be appended.
struct Filler {
    probe: Probe,
    rt: Rt,
    log: Log,
    moved: Notify,
    room: Notify,
    template: BytesMut,
    left: Rc<Cell<u64>>,
}

impl Filler {
    async fn run(self) -> Result<(), Broken> {
        while self.left.get() > 0 {
            self.probe.check()?;
            self.left.set(self.left.get() - 1);
            wait_for_room(&self.log, &self.room, self.template.len()).await;
            append_one(&self.rt, &self.log, &self.moved, &self.template).await?;
        }
        Ok(())
    }
}
