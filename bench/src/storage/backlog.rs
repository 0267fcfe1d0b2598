//! A log that is filled so that it can be read: what `storage mixed` and `storage read` have in common.

use std::{cell::Cell, rc::Rc};

use forebay_engine::{
    Engine, Log,
    rt::{Class, Rt, local::Notify},
};

use super::append::{append_one, batch_of, wait_for_room};

/// Appends in flight.
const FILLERS: usize = 8;

/// Appends `bytes` in durable batches of about `batch_bytes`. `notify` is told when the log moves on.
pub async fn fill(
    rt: &Rt,
    engine: &Engine,
    log: &Log,
    notify: &Notify,
    batch_bytes: usize,
    bytes: u64,
) -> Result<(), String> {
    let template = batch_of(batch_bytes, rt.wall_clock());
    let left = Rc::new(Cell::new(bytes / template.len() as u64));
    let fillers: Vec<_> = (0..FILLERS)
        .map(|_| {
            let (of_task, log, notify) = (rt.clone(), log.clone(), notify.clone());
            let (left, template, room) = (left.clone(), template.clone(), engine.room());
            rt.spawn(Class::Foreground, async move {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    wait_for_room(&log, &room, template.len()).await;
                    append_one(&of_task, &log, &notify, &template).await?;
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    for filler in fillers {
        filler.await?;
    }
    Ok(())
}
