//! The owner's side of questions about offsets: ListOffsets, DeleteRecords, OffsetForLeaderEpoch, sizes and producers.

use std::rc::Rc;

use forebay_engine::{
    LeaderEpoch, LogId, Offset, ProducerEpoch, ProducerId, ReadError, Timestamp, log::OffsetAndTime,
};

use super::{
    Isolation, Partition, ReadFailure,
    read::{readable, readable_end},
};
use crate::shard::Shard;

/// Which offset is wanted; Kafka's negative timestamps by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// -1: the end of what may be read.
    Latest,
    /// -2 and -4: everything is local.
    Earliest,
    /// -3: the record with the largest timestamp.
    MaxTimestamp,
    /// -5: nothing is ever tiered.
    LatestTiered,
    /// The first record at or after this time.
    AtOrAfter(Timestamp),
}

#[derive(Clone, Copy, Debug)]
pub struct FindOffset {
    pub log: LogId,
    pub current_epoch: Option<LeaderEpoch>,
    pub spec: OffsetSpec,
    pub isolation: Isolation,
}

/// A position, and what is known about the record there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    pub offset: Offset,
    pub timestamp: Option<Timestamp>,
    pub leader_epoch: Option<LeaderEpoch>,
}

pub(crate) async fn find_offsets(
    shard: Rc<Shard>,
    queries: Vec<FindOffset>,
) -> Vec<Result<Option<FoundOffset>, ReadFailure>> {
    let mut found = Vec::with_capacity(queries.len());
    for query in queries {
        found.push(find_offset(&shard, query).await);
    }
    found
}

async fn find_offset(
    shard: &Rc<Shard>,
    query: FindOffset,
) -> Result<Option<FoundOffset>, ReadFailure> {
    let partition = readable(shard, query.log, query.current_epoch)?;
    let log = &partition.log;
    let marks = log.marks();
    let end = readable_end(&marks, query.isolation);
    let mark = |offset, leader_epoch| FoundOffset {
        offset,
        timestamp: None,
        leader_epoch,
    };
    let record = |found: Option<OffsetAndTime>| {
        found.map(|found| FoundOffset {
            offset: found.offset,
            timestamp: Some(found.timestamp),
            leader_epoch: Some(found.leader_epoch),
        })
    };
    match query.spec {
        OffsetSpec::Latest => Ok(Some(mark(end, log.latest_epoch()))),
        OffsetSpec::Earliest => Ok(Some(mark(marks.log_start, log.epoch_at(marks.log_start)))),
        OffsetSpec::LatestTiered => Ok(None),
        OffsetSpec::MaxTimestamp => log
            .find_max_timestamp(end)
            .await
            .map(record)
            .map_err(ReadFailure::Log),
        OffsetSpec::AtOrAfter(timestamp) => log
            .find_timestamp(timestamp, end)
            .await
            .map(record)
            .map_err(ReadFailure::Log),
    }
}

#[derive(Clone, Copy, Debug)]
pub struct DeleteRecords {
    pub log: LogId,
    /// `None`: everything up to the high watermark.
    pub below: Option<Offset>,
}

#[derive(Clone, Debug)]
pub enum OffsetFailure {
    NotLeader,
    /// The log of the partition could not be opened.
    Offline,
    OutOfRange,
    Fault(forebay_engine::Fault),
}

/// Gives the new log start of each partition.
pub(crate) async fn delete_records(
    shard: Rc<Shard>,
    calls: Vec<DeleteRecords>,
) -> Vec<Result<Offset, OffsetFailure>> {
    let mut starts = Vec::with_capacity(calls.len());
    for call in calls {
        starts.push(match shard.is_offline(call.log) {
            true => Err(OffsetFailure::Offline),
            false => delete_below(shard.partition_of(call.log), call.below).await,
        });
    }
    starts
}

async fn delete_below(
    partition: Option<Rc<Partition>>,
    below: Option<Offset>,
) -> Result<Offset, OffsetFailure> {
    let partition = partition.ok_or(OffsetFailure::NotLeader)?;
    let marks = partition.log.marks();
    let below = below.unwrap_or(marks.high_watermark);
    if below > marks.high_watermark {
        return Err(OffsetFailure::OutOfRange);
    }
    if below <= marks.log_start {
        return Ok(marks.log_start);
    }
    let start = partition.log.delete_to(below).await;
    start.map_err(OffsetFailure::Fault)
}

#[derive(Clone, Copy, Debug)]
pub struct EpochEndQuery {
    pub log: LogId,
    pub current_epoch: Option<LeaderEpoch>,
    pub epoch: LeaderEpoch,
}

/// The largest epoch at or below the one asked for, and where it ends; `None` when the log knows no such epoch.
pub type EpochEnd = Option<(LeaderEpoch, Offset)>;

pub(crate) fn end_of_epochs(
    shard: &Shard,
    queries: Vec<EpochEndQuery>,
) -> Vec<Result<EpochEnd, ReadFailure>> {
    let end_of_epoch = |query: EpochEndQuery| {
        let partition = readable(shard, query.log, query.current_epoch)?;
        if query.epoch == partition.leader_epoch() {
            // The present epoch has written nothing perhaps, but it ends where the log ends.
            return Ok(Some((query.epoch, partition.log.marks().log_end)));
        }
        Ok(partition.log.end_of_epoch(query.epoch))
    };
    queries.into_iter().map(end_of_epoch).collect()
}

/// One log of a shard, for DescribeLogDirs.
#[derive(Clone, Copy, Debug)]
pub struct LogSize {
    pub log: LogId,
    pub bytes: u64,
}

/// A log whose directory cannot be listed is left out.
pub(crate) async fn log_sizes(shard: Rc<Shard>) -> Vec<LogSize> {
    let mut sizes = Vec::new();
    for partition in shard.partitions() {
        let log = partition.log.id();
        match partition.log.size_bytes().await {
            Ok(bytes) => sizes.push(LogSize { log, bytes }),
            Err(fault) => {
                tracing::warn!(partition = %partition.log.name(), %fault, "size unknown");
            }
        }
    }
    sizes
}

/// State of one producer in one log, for DescribeProducers.
#[derive(Clone, Copy, Debug)]
pub struct ProducerState {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub last_timestamp: Timestamp,
}

/// `None` when the partition is not here.
pub(crate) fn describe_producers(shard: &Shard, log: LogId) -> Option<Vec<ProducerState>> {
    let partition = shard.partition_of(log)?;
    let state = |(id, epoch, last_sequence, last_offset, last_timestamp)| ProducerState {
        id,
        epoch,
        last_sequence,
        last_offset,
        last_timestamp,
    };
    Some(partition.log.producers().into_iter().map(state).collect())
}

impl From<ReadError> for ReadFailure {
    fn from(error: ReadError) -> ReadFailure {
        ReadFailure::Log(error)
    }
}
