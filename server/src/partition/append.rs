//! The owner's side of Produce: append everything at once, then wait until it is committed.

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use forebay_engine::{
    AppendError, Appended, LogId,
    batch::ValidBatch,
    rt::{Instant, Rt, local::OneshotReceiver},
};

use super::{Partition, Turn};
use crate::shard::Shard;

/// One batch for one partition.
#[derive(Debug)]
pub struct Append {
    pub log: LogId,
    pub batch: ValidBatch,
    /// What the batch keeps alive: it is a slice of the request's frame.
    pub frame_bytes: usize,
}

/// The batches of one request for the partitions of one shard.
#[derive(Debug)]
pub struct Appends {
    pub appends: Vec<Append>,
    /// `false` for `acks=0`: nobody asks what became of it.
    pub wait: bool,
    /// How long a batch may wait for room and for its commit.
    pub timeout: Duration,
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug)]
pub enum AppendFailure {
    /// This host does not lead the partition.
    NotLeader,
    /// The log of the partition could not be opened.
    Offline,
    /// No room, or not committed, within the time-out. It may still come to be.
    TimedOut,
    Log(AppendError),
}

pub type AppendOutcome = Result<Appended, AppendFailure>;

/// Runs until all batches are committed or failed. The appends themselves happen before this returns its future.
pub(crate) fn run(
    shard: &Rc<Shard>,
    call: Appends,
) -> Result<Vec<AppendOutcome>, Pin<Box<dyn Future<Output = Vec<AppendOutcome>>>>> {
    let mut must_wait = false;
    let begun: Vec<Begun> = call
        .appends
        .into_iter()
        .map(|append| {
            let begun = begin(shard, append);
            must_wait |= begun.must_wait(call.wait);
            begun
        })
        .collect();
    if !must_wait {
        return Ok(begun.into_iter().map(Begun::outcome_now).collect());
    }
    let rt = shard.rt.clone();
    let deadline = Instant(rt.now().0.saturating_add(call.timeout.as_nanos() as u64));
    Err(Box::pin(finish(rt, begun, deadline)))
}

/// A batch whose place in the order of the log is fixed.
enum Begun {
    Failed(AppendFailure),
    Appended(Rc<Partition>, Appended),
    InLine(
        Rc<Partition>,
        OneshotReceiver<Result<Appended, AppendError>>,
    ),
}

impl Begun {
    fn must_wait(&self, wait: bool) -> bool {
        match self {
            Begun::Failed(_) => false,
            Begun::Appended(partition, appended) => wait && !committed(partition, appended),
            Begun::InLine(..) => true,
        }
    }

    fn outcome_now(self) -> AppendOutcome {
        match self {
            Begun::Failed(failure) => Err(failure),
            Begun::Appended(_, appended) => Ok(appended),
            Begun::InLine(..) => unreachable!("who is in line must wait"),
        }
    }
}

fn begin(shard: &Rc<Shard>, append: Append) -> Begun {
    let Some(partition) = shard.partition(append.log.topic_id, append.log.partition) else {
        return Begun::Failed(match shard.is_offline(append.log) {
            true => AppendFailure::Offline,
            false => AppendFailure::NotLeader,
        });
    };
    let records = append.batch.header().record_count;
    shard.counters.produced_batches.add(1);
    shard.counters.produced_records.add(records as usize);
    shard.counters.produced_bytes.add(append.batch.len());
    match partition.append_slice_in_turn(append.batch, append.frame_bytes) {
        Turn::Done(Ok(appended)) => Begun::Appended(partition, appended),
        Turn::Done(Err(error)) => Begun::Failed(AppendFailure::Log(error)),
        Turn::Waiting(receiver) => {
            shard.await_room(&partition);
            Begun::InLine(partition, receiver)
        }
    }
}

async fn finish(rt: Rt, begun: Vec<Begun>, deadline: Instant) -> Vec<AppendOutcome> {
    let mut outcomes = Vec::with_capacity(begun.len());
    for one in begun {
        let left = Duration::from_nanos(deadline.0.saturating_sub(rt.now().0));
        let outcome = match one {
            Begun::Failed(failure) => Err(failure),
            Begun::Appended(partition, appended) if committed(&partition, &appended) => {
                Ok(appended)
            }
            waiting => rt
                .timeout(left, finish_one(waiting))
                .await
                .unwrap_or(Err(AppendFailure::TimedOut)),
        };
        outcomes.push(outcome);
    }
    outcomes
}

async fn finish_one(begun: Begun) -> AppendOutcome {
    let (partition, appended) = match begun {
        Begun::Failed(failure) => return Err(failure),
        Begun::Appended(partition, appended) => (partition, appended),
        Begun::InLine(partition, receiver) => match receiver.await {
            Some(Ok(appended)) => (partition, appended),
            Some(Err(error)) => return Err(AppendFailure::Log(error)),
            None => return Err(AppendFailure::NotLeader),
        },
    };
    match partition.wait_committed(appended.last_offset.plus(1)).await {
        Ok(()) => Ok(appended),
        Err(_) if partition.is_closed() => Err(AppendFailure::NotLeader),
        Err(fault) => Err(AppendFailure::Log(AppendError::Fault(fault))),
    }
}

fn committed(partition: &Partition, appended: &Appended) -> bool {
    partition.log.marks().high_watermark > appended.last_offset
}
