//! What groups are asked and what they answer, free of wire formats and versions.
//!
//! Ids are `Arc<str>`: they are shared by state, timers, records and replies, and cross shards.

use std::sync::Arc;

use bytes::Bytes;
use forebay_engine::PartitionIndex;

use super::{GroupError, StateName};
use crate::coord::records::CommittedOffset;

/// A request to the coordinators of one shard.
#[derive(Clone, Debug)]
pub enum Request {
    /// To the coordinator in one partition of `__consumer_offsets`.
    Group {
        coordinator: PartitionIndex,
        verb: Verb,
    },
    /// All groups of the shard that pass the filter.
    List(GroupFilter),
}

/// What can be asked of one group.
#[derive(Clone, Debug)]
pub enum Verb {
    Join(Join),
    Sync(Sync),
    Heartbeat(Heartbeat),
    Leave(Leave),
    CommitOffsets(CommitOffsets),
    FetchOffsets(FetchOffsets),
    DeleteOffsets(DeleteOffsets),
    Describe { group: Arc<str> },
    Delete { group: Arc<str> },
}

impl Verb {
    /// Whether it may make the log of the groups grow for long: refused when the disk is nearly full. What ends something may always come in.
    pub fn needs_space(&self) -> bool {
        match self {
            Verb::Join(_) | Verb::Sync(_) | Verb::CommitOffsets(_) => true,
            Verb::Heartbeat(_)
            | Verb::Leave(_)
            | Verb::FetchOffsets(_)
            | Verb::DeleteOffsets(_)
            | Verb::Describe { .. }
            | Verb::Delete { .. } => false,
        }
    }
}

/// Must a new member first be told its id, and join again with it (JoinGroup v4 and later)?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownMemberId {
    Required,
    NotRequired,
}

/// Does a static leader that comes back know how to keep the old assignment (JoinGroup v9)?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipAssignment {
    Understood,
    NotUnderstood,
}

#[derive(Clone, Debug)]
pub struct Join {
    pub group: Arc<str>,
    /// Empty for a member that has no id yet.
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: Arc<str>,
    /// In the order of the member's preference.
    pub protocols: Vec<Protocol>,
    pub known_member_id: KnownMemberId,
    pub skip_assignment: SkipAssignment,
}

/// An assignment strategy and what the member tells the leader about itself under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: Arc<str>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug)]
pub struct Sync {
    pub group: Arc<str>,
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub generation: i32,
    /// What the member takes the group to have agreed on; checked where given (v5).
    pub protocol_type: Option<Arc<str>>,
    pub protocol: Option<Arc<str>>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub group: Arc<str>,
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub generation: i32,
}

#[derive(Clone, Debug)]
pub struct Leave {
    pub group: Arc<str>,
    pub members: Vec<LeavingMember>,
}

/// By member id, by instance id, or by both.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
pub struct CommitOffsets {
    pub group: Arc<str>,
    /// Empty, with a negative generation, for a consumer that manages its partitions itself.
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub generation: i32,
    pub offsets: Vec<CommitOffset>,
}

#[derive(Clone, Debug)]
pub struct CommitOffset {
    pub topic: Arc<str>,
    pub partition: i32,
    /// As the client gave it: the coordinator keeps offsets, it does not interpret them.
    pub offset: i64,
    /// -1 if unknown.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

#[derive(Clone, Debug)]
pub struct FetchOffsets {
    pub group: Arc<str>,
    pub selection: OffsetSelection,
}

#[derive(Clone, Debug)]
pub enum OffsetSelection {
    All,
    Of(Vec<TopicPartition>),
}

#[derive(Clone, Debug)]
pub struct DeleteOffsets {
    pub group: Arc<str>,
    pub partitions: Vec<TopicPartition>,
}

/// Lower-case names of states and types; empty means any.
#[derive(Clone, Debug, Default)]
pub struct GroupFilter {
    pub states: Vec<String>,
    pub types: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The request as a whole was refused; nothing was changed by it.
    Refused(GroupError),
    /// Join again with this id.
    MemberIdRequired {
        member_id: Arc<str>,
    },
    Joined(Joined),
    Synced(Synced),
    /// The heartbeat counted.
    Alive,
    /// One result for each member of the request, in its order.
    Left(Vec<Result<(), GroupError>>),
    /// One result for each offset of the request, in its order.
    OffsetsCommitted(Vec<Result<(), GroupError>>),
    OffsetsFetched(Vec<FetchedOffset>),
    /// One result for each partition of the request, in its order.
    OffsetsDeleted(Vec<Result<(), GroupError>>),
    Described(Described),
    Deleted,
    Listed(Vec<ListedGroup>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub member_id: Arc<str>,
    pub generation: i32,
    pub protocol_type: Arc<str>,
    pub protocol: Arc<str>,
    pub leader: Arc<str>,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
    /// The leader is to keep the assignment that is in force.
    pub skip_assignment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: Arc<str>,
    pub protocol: Arc<str>,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    pub topic: Arc<str>,
    pub partition: i32,
    /// `None` if the group has not committed one.
    pub committed: Option<CommittedOffset>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub state: StateName,
    /// Empty for a group that only keeps offsets.
    pub protocol_type: Arc<str>,
    /// Set while the group is stable.
    pub protocol: Arc<str>,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    /// Metadata and assignment are filled while the group is stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: Arc<str>,
    pub protocol_type: Arc<str>,
    pub state: StateName,
}
