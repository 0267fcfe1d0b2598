//! What one shard may ask of another: one enum of calls, one of answers.
//!
//! Everything here is `Send` and owns its data, because it crosses threads. A call is answered exactly once. Its effects (appends,
//! say) happen in the order in which one shard sent its calls to another; answers come back in any order.
//!
//! To add a call: a variant in [`Call`], one in [`Answer`], an arm in `Shard::execute`, and a typed method in `shard/ask.rs`, so
//! that no caller matches on an answer that cannot come.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use forebay_engine::{LogId, Offset, ShardId};

use crate::{
    coord::group,
    meta::{Image, controller},
    metrics::Snapshot,
    partition::{
        AppendOutcome, Appends, DeleteRecords, EpochEnd, EpochEndQuery, FindOffset, FoundOffset,
        LogSize, OffsetFailure, ProducerState, ReadFailure, ReadOutcome, Reads, Watch,
    },
};

pub enum Call {
    /// To shard 0, where the metadata log lives: a change of the cluster's metadata.
    Control(controller::Request),
    /// A new image: the shard opens, closes and reconfigures its partitions, then answers `Published`.
    Publish(Arc<Image>),
    /// All partitions of this shard that cannot serve anything, since their logs could not be opened.
    Offline(ShardId, Arc<HashSet<LogId>>),
    /// To the shard that owns the group's partition of `__consumer_offsets`.
    Group(group::Request),

    Append(Appends),
    Read(Reads),
    Watch(Watch),
    FindOffsets(Vec<FindOffset>),
    DeleteRecords(Vec<DeleteRecords>),
    EndOfEpochs(Vec<EpochEndQuery>),
    /// All logs of the shard.
    LogSizes,
    DescribeProducers(LogId),

    /// To shard 0, which counts connections: may one from this address come in?
    Enter(IpAddr),
    /// To shard 0: a connection that came in is gone.
    Leave(IpAddr),
    Metrics,
    /// From shard 0 while the broker starts and stops.
    Step(Step),
}

pub enum Answer {
    Control(controller::Reply),
    /// Partitions that could not be opened stay offline and are logged; the image holds nevertheless.
    Published,
    Noted,
    Group(group::Reply),

    Append(Vec<AppendOutcome>),
    Read(Vec<ReadOutcome>),
    Watch,
    FindOffsets(Vec<Result<Option<FoundOffset>, ReadFailure>>),
    DeleteRecords(Vec<Result<Offset, OffsetFailure>>),
    EndOfEpochs(Vec<Result<EpochEnd, ReadFailure>>),
    LogSizes(Vec<LogSize>),
    DescribeProducers(Option<Vec<ProducerState>>),

    Entered(bool),
    Left,
    Metrics(Box<Snapshot>),
    Step(Result<(), String>),
    /// The other shard is stopping.
    Gone,
}

/// Start and stop, in this order; each is done on all shards before the next begins on any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// What recovery kept becomes durable.
    SyncRecovered,
    /// From here on logs may be appended to.
    StartJournal,
    /// Already bound on shard 0, which chose the port if need be.
    Listen(SocketAddr),
    /// No new connections, no new requests; those in flight get their replies.
    Drain,
    CloseEngine,
    /// To all but shard 0: answer, leave the mesh, end.
    Leave,
}

/// What travels between two shards, many at a time.
pub enum Message {
    Call {
        id: u64,
        call: Call,
    },
    Answer {
        id: u64,
        answer: Answer,
    },
    /// The caller no longer wants the answer.
    Cancel {
        id: u64,
    },
}

impl Call {
    /// Calls that, once begun, only wait, and hold nothing that others need: on their own shard they may stay unpolled behind an
    /// earlier request of their connection. Others run there as tasks.
    pub(super) fn only_waits(&self) -> bool {
        match self {
            Call::Control(_)
            | Call::Group(_)
            | Call::Append(_)
            | Call::Read(_)
            | Call::Watch(_)
            | Call::EndOfEpochs(_)
            | Call::LogSizes
            | Call::DescribeProducers(_)
            | Call::Enter(_)
            | Call::Leave(_)
            | Call::Offline(..)
            | Call::Metrics => true,
            Call::Publish(_) | Call::FindOffsets(_) | Call::DeleteRecords(_) | Call::Step(_) => {
                false
            }
        }
    }

    /// Calls that only read or wait are dropped with their caller; all others run to their end.
    pub(super) fn ends_with_caller(&self) -> bool {
        match self {
            Call::Control(_)
            | Call::Publish(_)
            | Call::Group(_)
            | Call::Append(_)
            | Call::DeleteRecords(_)
            | Call::Enter(_)
            | Call::Leave(_)
            | Call::Offline(..)
            | Call::Step(_) => false,
            Call::Read(_)
            | Call::Watch(_)
            | Call::FindOffsets(_)
            | Call::EndOfEpochs(_)
            | Call::LogSizes
            | Call::DescribeProducers(_)
            | Call::Metrics => true,
        }
    }
}
