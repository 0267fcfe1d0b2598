//! The owner's side of Fetch: read what is there, or wait until more is.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use forebay_engine::{
    Fetched, LeaderEpoch, LogId, Marks, Offset, ReadError, log::ReadLimit, rt::local::Listen,
};

use super::Partition;
use crate::shard::Shard;

/// Up to where a consumer may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The high watermark.
    ReadUncommitted,
    /// The last stable offset.
    ReadCommitted,
}

/// What is asked of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub log: LogId,
    pub from: Offset,
    /// The epoch the client believes in; `None` skips the check.
    pub current_epoch: Option<LeaderEpoch>,
    pub bytes_max: usize,
}

/// What one request asks of the partitions of one shard.
#[derive(Clone, Debug)]
pub struct Reads {
    pub reads: Vec<Read>,
    pub isolation: Isolation,
    /// Over all partitions; only the first batch found may exceed it.
    pub bytes_max: usize,
}

#[derive(Clone, Debug)]
pub enum ReadFailure {
    NotLeader,
    /// The log of the partition could not be opened.
    Offline,
    FencedEpoch,
    UnknownEpoch,
    Log(ReadError),
}

/// What was found in one partition. Marks are filled wherever the partition is known, as clients expect.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    pub failure: Option<ReadFailure>,
    pub marks: Option<Marks>,
    pub slices: Vec<Bytes>,
    pub bytes: usize,
    /// The log has a fault: it gets no longer than it is, and waiting for more would be in vain.
    pub offline: bool,
}

/// Wait until one of these partitions has something at or above the offset, or cannot be read any more.
#[derive(Clone, Debug)]
pub struct Watch {
    pub partitions: Vec<(LogId, Offset)>,
    pub isolation: Isolation,
}

/// Answers at once when the tail caches hold everything; else goes to disk, one partition after the other.
pub(crate) fn run(
    shard: &Rc<Shard>,
    call: Reads,
) -> Result<Vec<ReadOutcome>, Pin<Box<dyn Future<Output = Vec<ReadOutcome>>>>> {
    let mut progress = Progress {
        bytes_left: call.bytes_max,
        outcomes: Vec::with_capacity(call.reads.len()),
        found_any: false,
    };
    for (index, read) in call.reads.iter().enumerate() {
        if !progress.read_cached(shard, read, call.isolation) {
            let shard = shard.clone();
            return Err(Box::pin(read_from_disk(shard, call, progress, index)));
        }
    }
    Ok(progress.outcomes)
}

async fn read_from_disk(
    shard: Rc<Shard>,
    call: Reads,
    mut progress: Progress,
    first: usize,
) -> Vec<ReadOutcome> {
    for read in &call.reads[first..] {
        if progress.read_cached(&shard, read, call.isolation) {
            continue;
        }
        let limit = progress.limit(&shard, read, call.isolation);
        let outcome = match (shard.partition_of(read.log), limit) {
            (Some(partition), Some(limit)) => {
                let fetched = partition.log.read(read.from, limit).await;
                outcome_of(&partition, fetched)
            }
            _ => ReadOutcome::failed(ReadFailure::NotLeader, None),
        };
        progress.push(outcome);
    }
    progress.outcomes
}

struct Progress {
    bytes_left: usize,
    outcomes: Vec<ReadOutcome>,
    found_any: bool,
}

impl Progress {
    /// `false` when the disk is needed; nothing was pushed then.
    fn read_cached(&mut self, shard: &Shard, read: &Read, isolation: Isolation) -> bool {
        let partition = match readable(shard, read.log, read.current_epoch) {
            Ok(partition) => partition,
            Err(failure) => {
                let marks = shard.partition_of(read.log).map(|p| p.log.marks());
                self.push(ReadOutcome::failed(failure, marks));
                return true;
            }
        };
        let marks = partition.log.marks();
        if read.from < marks.log_start || read.from > marks.log_end {
            let error = ReadError::OutOfRange {
                log_start: marks.log_start,
                log_end: marks.log_end,
            };
            self.push(ReadOutcome::failed(ReadFailure::Log(error), Some(marks)));
            return true;
        }
        let limit = self.limit_for(read, readable_end(&marks, isolation));
        let nothing_to_read = read.from >= limit.below;
        let used_up = limit.bytes_max == 0 && !limit.at_least_one;
        if nothing_to_read && let Some(fault) = partition.log.fault() {
            // Nothing will ever come: waiting for it would be a lie.
            let failure = ReadFailure::Log(ReadError::Fault(fault));
            self.push(ReadOutcome::failed(failure, Some(marks)));
            return true;
        }
        if nothing_to_read || used_up {
            self.push(outcome_of(&partition, Ok(Fetched::default())));
            return true;
        }
        match partition.log.read_cached(read.from, limit) {
            Some(fetched) => {
                self.push(outcome_of(&partition, fetched));
                true
            }
            None => false,
        }
    }

    fn limit(&self, shard: &Shard, read: &Read, isolation: Isolation) -> Option<ReadLimit> {
        let partition = shard.partition_of(read.log)?;
        Some(self.limit_for(read, readable_end(&partition.log.marks(), isolation)))
    }

    fn limit_for(&self, read: &Read, below: Offset) -> ReadLimit {
        ReadLimit {
            below,
            bytes_max: read.bytes_max.min(self.bytes_left),
            at_least_one: !self.found_any,
        }
    }

    fn push(&mut self, outcome: ReadOutcome) {
        self.bytes_left = self.bytes_left.saturating_sub(outcome.bytes);
        self.found_any |= outcome.bytes > 0;
        self.outcomes.push(outcome);
    }
}

impl ReadOutcome {
    pub fn failed(failure: ReadFailure, marks: Option<Marks>) -> ReadOutcome {
        ReadOutcome {
            failure: Some(failure),
            marks,
            slices: Vec::new(),
            bytes: 0,
            offline: false,
        }
    }
}

fn outcome_of(partition: &Partition, fetched: Result<Fetched, ReadError>) -> ReadOutcome {
    let marks = partition.log.marks();
    match fetched {
        Ok(fetched) => ReadOutcome {
            failure: None,
            marks: Some(marks),
            slices: fetched.slices,
            bytes: fetched.bytes,
            offline: partition.log.fault().is_some(),
        },
        Err(error) => ReadOutcome::failed(ReadFailure::Log(error), Some(marks)),
    }
}

/// The partition, if it is here and the client's idea of its leader epoch is ours.
pub(super) fn readable(
    shard: &Shard,
    log: LogId,
    current_epoch: Option<LeaderEpoch>,
) -> Result<Rc<Partition>, ReadFailure> {
    let absent = || match shard.is_offline(log) {
        true => ReadFailure::Offline,
        false => ReadFailure::NotLeader,
    };
    let partition = shard.partition_of(log).ok_or_else(absent)?;
    match current_epoch {
        Some(epoch) if epoch < partition.leader_epoch() => Err(ReadFailure::FencedEpoch),
        Some(epoch) if epoch > partition.leader_epoch() => Err(ReadFailure::UnknownEpoch),
        _ => Ok(partition),
    }
}

pub(super) fn readable_end(marks: &Marks, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::ReadUncommitted => marks.high_watermark,
        Isolation::ReadCommitted => marks.last_stable,
    }
}

/// Completes when one of the partitions has something to read, went offline, or is gone. The caller brings the time limit by
/// dropping this.
pub(crate) async fn watch(shard: Rc<Shard>, watch: Watch) {
    let mut partitions = Vec::with_capacity(watch.partitions.len());
    for (log, from) in watch.partitions {
        match shard.partition_of(log) {
            Some(partition) => partitions.push((partition, from)),
            None => return,
        }
    }
    loop {
        let mut moved: Vec<Listen> = partitions
            .iter()
            .map(|(partition, _)| partition.moved().listen())
            .collect();
        let changed = partitions.iter().any(|(partition, from)| {
            let end = readable_end(&partition.log.marks(), watch.isolation);
            end > *from || partition.is_closed() || partition.log.fault().is_some()
        });
        if changed {
            return;
        }
        poll_fn(|context| {
            let any = moved
                .iter_mut()
                .any(|listen| Pin::new(listen).poll(context).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
