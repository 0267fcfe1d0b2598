//! Fetch: read records from partitions, waiting for them if there are none yet.
//!
//! Records leave as the slices they are in the log: nothing is copied between log and socket.

use bytes::Bytes;
use forebay_engine::LeaderEpoch;
use kafka_protocol::{messages::TopicName, protocol::StrBytes};

use std::{pin::pin, rc::Rc, time::Duration};

use forebay_engine::{
    Offset,
    rt::{Instant, local::Units},
};
use futures_util::future::{select, select_all};

use super::{
    Outcome,
    fetch_sessions::{SessionUse, Wanted},
    partitions::{Located, leader_of, locate},
    reply_or_close,
};
use crate::{
    meta::Image,
    partition::{Isolation, Read, ReadOutcome, Reads, Watch},
    shard::Shard,
    wire::{
        Decode, DecodeError, ErrorCode, Reader, RequestHeader,
        reply::{Frame, FrameTooLarge},
    },
};

/// A reply may always take this much, however short memory for replies is.
const REPLY_BYTES_FLOOR: usize = 64 * 1024;
/// Longer waits are cut short: the client asks again.
const WAIT_MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, PartialEq)]
pub struct FetchRequest {
    /// -1 for a consumer.
    pub replica_id: i32,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub isolation_level: IsolationLevel,
    /// 0: none yet.
    pub session_id: i32,
    /// 0 opens a session, -1 closes it or does without, others count its requests.
    pub session_epoch: i32,
    pub topics: Vec<FetchTopic>,
    /// No longer part of the session.
    pub forgotten_topics: Vec<ForgottenTopic>,
    pub rack_id: StrBytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopic {
    pub topic: TopicName,
    pub partitions: Vec<FetchPartition>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartition {
    pub index: i32,
    /// `None`: the client does not know, and is not fenced.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Not checked: may be negative.
    pub fetch_offset: i64,
    /// The epoch of the last record the client has, if it wants to hear of a divergence.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Of the follower; -1 for a consumer.
    pub log_start_offset: i64,
    pub partition_max_bytes: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ForgottenTopic {
    pub topic: TopicName,
    pub partitions: Vec<i32>,
}

impl IsolationLevel {
    pub fn from_wire(level: i8) -> Option<IsolationLevel> {
        match level {
            0 => Some(IsolationLevel::ReadUncommitted),
            1 => Some(IsolationLevel::ReadCommitted),
            _ => None,
        }
    }
}

/// Negative epochs on the wire stand for "not known".
pub fn known_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

impl Decode for FetchRequest {
    /// The cluster id, a tagged field of version 12, is skipped: only the controllers' own fetches use it.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(FetchRequest {
            replica_id: reader.i32()?,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation_level: IsolationLevel::from_wire(reader.i8()?)
                .ok_or_else(|| reader.unknown("isolation level"))?,
            session_id: if version >= 7 { reader.i32()? } else { 0 },
            session_epoch: if version >= 7 { reader.i32()? } else { -1 },
            topics: reader.structures(version)?,
            forgotten_topics: if version >= 7 {
                reader.structures(version)?
            } else {
                Vec::new()
            },
            rack_id: if version >= 11 {
                reader.string()?
            } else {
                StrBytes::new()
            },
        })
    }
}

impl Decode for FetchTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        Ok(FetchTopic {
            topic: reader.string()?,
            partitions: reader.structures(version)?,
        })
    }
}

impl Decode for FetchPartition {
    const BYTES_MIN: usize = 16;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let index = reader.i32()?;
        let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let fetch_offset = reader.i64()?;
        let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
        let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
        Ok(FetchPartition {
            index,
            current_leader_epoch: known_epoch(current_leader_epoch),
            fetch_offset,
            last_fetched_epoch: known_epoch(last_fetched_epoch),
            log_start_offset,
            partition_max_bytes: reader.i32()?,
        })
    }
}

impl Decode for ForgottenTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        Ok(ForgottenTopic {
            topic: reader.string()?,
            partitions: reader.i32s()?,
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchReply {
    pub throttle_time_ms: i32,
    /// Of the request as a whole: told from version 7 on.
    pub error: ErrorCode,
    /// 0: no session.
    pub session_id: i32,
    pub topics: Vec<FetchTopicReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchTopicReply {
    pub topic: TopicName,
    pub partitions: Vec<FetchPartitionReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FetchPartitionReply {
    pub index: i32,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Epoch and end offset at which the client's log leaves ours.
    pub diverging_epoch: Option<(i32, i64)>,
    /// With NOT_LEADER_OR_FOLLOWER or FENCED_LEADER_EPOCH, where the leader is: broker and leader epoch.
    pub current_leader: Option<(i32, i32)>,
    /// `None` (null on the wire) for consumers that read uncommitted records.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1: stay here.
    pub preferred_read_replica: i32,
    /// Whole batches, one after the other.
    pub records: Vec<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

impl FetchPartitionReply {
    /// Without records and marks.
    pub fn failed(index: i32, error: ErrorCode) -> FetchPartitionReply {
        FetchPartitionReply {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

impl FetchReply {
    /// The reply as slices, to be sent one after the other: the records are those given, not copies.
    pub fn encode(self, header: &RequestHeader) -> Result<Vec<Bytes>, FrameTooLarge> {
        let version = header.version;
        let partitions: usize = self.topics.iter().map(|t| t.partitions.len()).sum();
        let mut frame = Frame::new(header, 32 + 64 * partitions + 64 * self.topics.len());
        frame.i32(self.throttle_time_ms);
        if version >= 7 {
            frame.i16(self.error.code());
            frame.i32(self.session_id);
        }
        frame.count(self.topics.len());
        for topic in self.topics {
            frame.string(&topic.topic);
            frame.count(topic.partitions.len());
            for partition in topic.partitions {
                partition.encode(&mut frame, version);
            }
            frame.tagged_fields(0);
        }
        frame.tagged_fields(0);
        frame.finish()
    }
}

impl FetchPartitionReply {
    fn encode(self, frame: &mut Frame, version: i16) {
        frame.i32(self.index);
        frame.i16(self.error.code());
        frame.i64(self.high_watermark);
        frame.i64(self.last_stable_offset);
        if version >= 5 {
            frame.i64(self.log_start_offset);
        }
        match &self.aborted_transactions {
            None => frame.null_array(),
            Some(aborted) => {
                frame.count(aborted.len());
                for transaction in aborted {
                    frame.i64(transaction.producer_id);
                    frame.i64(transaction.first_offset);
                    frame.tagged_fields(0);
                }
            }
        }
        if version >= 11 {
            frame.i32(self.preferred_read_replica);
        }
        frame.records(self.records);
        if version < 12 {
            return;
        }
        let diverging = self.diverging_epoch;
        let leader = self.current_leader;
        frame.tagged_fields(u32::from(diverging.is_some()) + u32::from(leader.is_some()));
        if let Some((epoch, end_offset)) = diverging {
            frame.tagged_field(0, |frame| {
                frame.i32(epoch);
                frame.i64(end_offset);
                frame.tagged_fields(0);
            });
        }
        if let Some((leader_id, leader_epoch)) = leader {
            frame.tagged_field(1, |frame| {
                frame.i32(leader_id);
                frame.i32(leader_epoch);
                frame.tagged_fields(0);
            });
        }
    }
}

/// Reads what is there; if that is too little, waits on the owning shards until there is more, and reads again.
pub async fn fetch(shard: Rc<Shard>, request: FetchRequest, header: RequestHeader) -> Outcome {
    let now = shard.rt.now();
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
    let isolation = request.isolation_level;
    let begun = shard
        .fetch_sessions
        .borrow_mut()
        .begin(request, now, || shard.rt.random_u64());
    let (session, wanted) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            let reply = FetchReply {
                throttle_time_ms: 0,
                error,
                session_id: 0,
                topics: Vec::new(),
            };
            return reply_or_close(&header, reply.encode(&header));
        }
    };
    let image = shard.image();
    let asked_bytes = wanted.iter().fold(0, |bytes: usize, wanted| {
        bytes.saturating_add(wanted.bytes_max())
    });
    let mut round = Round {
        places: wanted
            .iter()
            .map(|wanted| place(&shard, &image, wanted))
            .collect(),
        wanted,
        isolation: isolation.into(),
        // Clients ask for 50 MiB as a rule, of partitions of 1 MiB: what cannot come is not set aside.
        bytes_max: bytes_max.min(shard.config.fetch.bytes_max).min(asked_bytes),
        deadline: Instant(now.0.saturating_add(wait.as_nanos() as u64)),
    };
    let (memory, outcomes) = round.read_enough(&shard, bytes_min).await;
    let reply = round.reply(&shard, &image, session, outcomes);
    match reply.encode(&header) {
        Ok(slices) => Outcome::Fetched(slices, memory),
        Err(error) => reply_or_close(&header, Err(error)),
    }
}

/// Everything one request reads, however often.
struct Round {
    wanted: Vec<Wanted>,
    /// By partition as `wanted`.
    places: Vec<Result<Located, ErrorCode>>,
    isolation: Isolation,
    bytes_max: usize,
    deadline: Instant,
}

/// What came of reading one partition.
type Found = Result<ReadOutcome, ErrorCode>;

impl Round {
    async fn read_enough(
        &mut self,
        shard: &Rc<Shard>,
        bytes_min: usize,
    ) -> (Option<Units>, Vec<Found>) {
        loop {
            let (reserved, bytes_max) = reserve(shard, self.bytes_max);
            let found = self.read(shard, bytes_max).await;
            // Only what is there, and only until it is sent.
            drop(reserved);
            let last = |found: &Found| match found {
                Ok(outcome) => outcome.failure.is_some() || outcome.offline,
                Err(_) => true,
            };
            let bytes: usize = found.iter().flatten().map(|outcome| outcome.bytes).sum();
            let left = self.deadline.0.saturating_sub(shard.rt.now().0);
            // Also who allows no bytes at all waits for the first batch, which comes nevertheless.
            let enough = bytes >= bytes_min.min(bytes_max.max(1))
                || left == 0
                || found.is_empty()
                || shard.front.is_draining()
                || found.iter().any(last);
            if enough {
                return (shard.front.replies().try_take(bytes as u64), found);
            }
            self.wait_for_more(shard, &found, Duration::from_nanos(left))
                .await;
        }
    }

    /// All reads are on their way when this first waits. Each shard may use its share of the bytes.
    fn read(
        &self,
        shard: &Rc<Shard>,
        bytes_max: usize,
    ) -> impl Future<Output = Vec<Found>> + use<> {
        let mut positions = Vec::new();
        let mut reads = Vec::new();
        let mut found: Vec<Found> = Vec::with_capacity(self.wanted.len());
        for (position, (wanted, place)) in self.wanted.iter().zip(&self.places).enumerate() {
            let from = Offset::from_wire(wanted.partition.fetch_offset);
            match (place, from) {
                (Err(error), _) => found.push(Err(*error)),
                (Ok(_), None) => found.push(Err(ErrorCode::OffsetOutOfRange)),
                (Ok(located), Some(from)) => {
                    let read = Read {
                        log: located.log,
                        from,
                        current_epoch: wanted.partition.current_leader_epoch,
                        bytes_max: wanted.bytes_max(),
                    };
                    reads.push((located.owner, read));
                    positions.push(position);
                    // Stands unless the shard answers.
                    found.push(Err(ErrorCode::NotLeaderOrFollower));
                }
            }
        }
        let count = reads.len().max(1);
        let isolation = self.isolation;
        let ask = move |shard: &Rc<Shard>, owner, reads: Vec<Read>| {
            let share = bytes_max as u64 * reads.len() as u64 / count as u64;
            let request = Reads {
                reads,
                isolation,
                bytes_max: share as usize,
            };
            shard.read(owner, request)
        };
        let asked = shard.scatter(reads, ask);
        async move {
            for (position, outcome) in positions.into_iter().zip(asked.await) {
                if let Some(outcome) = outcome {
                    found[position] = Ok(outcome);
                }
            }
            found
        }
    }

    /// Until some partition has more than was found, or time is up.
    async fn wait_for_more(&self, shard: &Rc<Shard>, found: &[Found], left: Duration) {
        let seen = self.places.iter().zip(found).filter_map(|(place, found)| {
            let located = place.as_ref().ok()?;
            let marks = found.as_ref().ok()?.marks?;
            let end = match self.isolation {
                Isolation::ReadUncommitted => marks.high_watermark,
                Isolation::ReadCommitted => marks.last_stable,
            };
            Some((located.owner, (located.log, end)))
        });
        let mut by_shard = std::collections::BTreeMap::<_, Vec<_>>::new();
        for (owner, partition) in seen {
            by_shard.entry(owner).or_default().push(partition);
        }
        let watches = by_shard.into_iter().map(|(owner, partitions)| {
            let isolation = self.isolation;
            Box::pin(shard.watch(
                owner,
                Watch {
                    partitions,
                    isolation,
                },
            ))
        });
        let any = pin!(select_all(watches));
        let drain = pin!(shard.front.drain_begun());
        shard.rt.timeout(left, select(any, drain)).await;
    }

    fn reply(
        self,
        shard: &Shard,
        image: &Image,
        session: SessionUse,
        found: Vec<Found>,
    ) -> FetchReply {
        let mut sessions = shard.fetch_sessions.borrow_mut();
        let mut topics: Vec<FetchTopicReply> = Vec::new();
        for (wanted, found) in self.wanted.into_iter().zip(found) {
            let index = wanted.partition.index;
            let reply = partition_reply(image, &wanted.topic, index, found, self.isolation);
            shard
                .counters
                .fetched_bytes
                .add(reply.records.iter().map(Bytes::len).sum());
            if !sessions.tell(session, &wanted.topic, &reply) {
                continue;
            }
            match topics.last_mut().filter(|last| last.topic == wanted.topic) {
                Some(last) => last.partitions.push(reply),
                None => topics.push(FetchTopicReply {
                    topic: wanted.topic,
                    partitions: vec![reply],
                }),
            }
        }
        FetchReply {
            throttle_time_ms: 0,
            error: ErrorCode::None,
            session_id: session.id(),
            topics,
        }
    }
}

/// Sets memory for a reply aside while it is read; when there is little, the reply gets smaller, but never less than the floor.
fn reserve(shard: &Shard, bytes_max: usize) -> (Option<Units>, usize) {
    let mut bytes = bytes_max;
    loop {
        if let Some(units) = shard.front.replies().try_take(bytes as u64) {
            return (Some(units), bytes);
        }
        if bytes <= REPLY_BYTES_FLOOR {
            return (None, bytes);
        }
        bytes = (bytes / 2).max(REPLY_BYTES_FLOOR);
    }
}

fn place(shard: &Shard, image: &Image, wanted: &Wanted) -> Result<Located, ErrorCode> {
    let topic = image.topics.get(wanted.topic.as_str());
    locate(shard, topic, wanted.partition.index)
}

fn partition_reply(
    image: &Image,
    topic: &str,
    index: i32,
    found: Found,
    isolation: Isolation,
) -> FetchPartitionReply {
    let (error, outcome) = match found {
        Err(error) => (error, None),
        Ok(outcome) => {
            let error = outcome
                .failure
                .as_ref()
                .map_or(ErrorCode::None, ErrorCode::from);
            (error, Some(outcome))
        }
    };
    let mut reply = FetchPartitionReply::failed(index, error);
    if let Some(marks) = outcome.as_ref().and_then(|outcome| outcome.marks) {
        reply.high_watermark = marks.high_watermark.get();
        reply.last_stable_offset = marks.last_stable.get();
        reply.log_start_offset = marks.log_start.get();
    }
    if matches!(
        error,
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
    ) {
        reply.current_leader = leader_of(image, topic, index);
    }
    if isolation == Isolation::ReadCommitted {
        // No transactions yet, so none was aborted.
        reply.aborted_transactions = Some(Vec::new());
    }
    reply.records = outcome.map_or_else(Vec::new, |outcome| outcome.slices);
    reply
}

impl From<IsolationLevel> for Isolation {
    fn from(level: IsolationLevel) -> Isolation {
        match level {
            IsolationLevel::ReadUncommitted => Isolation::ReadUncommitted,
            IsolationLevel::ReadCommitted => Isolation::ReadCommitted,
        }
    }
}
