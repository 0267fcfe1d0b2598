//! One group: where it stands in the rebalance, its members and its offsets; how it is described and recorded.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use forebay_engine::Timestamp;

use super::{
    Described, DescribedMember, Protocol,
    members::{Member, Members, Waiting},
    offsets::Offsets,
    subscription,
};
use crate::coord::records::{GroupValue, MemberValue};

/// The protocol type of consumers, the only one whose metadata the coordinator can read.
pub const CONSUMER: &str = "consumer";
/// What a group takes in memory besides its members and offsets.
pub const GROUP_OVERHEAD_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; there may be offsets.
    Empty,
    /// Members are (re)joining.
    PreparingRebalance(Joining),
    /// All have joined; the leader is working out the assignment.
    CompletingRebalance,
    Stable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// A group that had no members gives more of them time to come: one delay, and while new ones come further
    /// delays out of `remaining_ms`.
    Initial {
        remaining_ms: u64,
        member_added: bool,
    },
    /// Until all members are back, or the longest rebalance timeout among them has passed.
    Rejoin,
}

/// The states as clients know them. `Dead` is a group that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl StateName {
    pub fn as_str(self) -> &'static str {
        match self {
            StateName::Empty => "Empty",
            StateName::PreparingRebalance => "PreparingRebalance",
            StateName::CompletingRebalance => "CompletingRebalance",
            StateName::Stable => "Stable",
            StateName::Dead => "Dead",
        }
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug)]
pub struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    /// When it came into its state, as far as that was recorded.
    pub(super) state_since: Option<Timestamp>,
    pub(super) generation: i32,
    /// `None` until the first member came.
    pub(super) protocol_type: Option<Arc<str>>,
    /// What the present generation agreed on.
    pub(super) protocol: Option<Arc<str>>,
    pub(super) members: Members,
    pub(super) offsets: Offsets,
    /// The log holds a record of the group itself, which must be deleted with it.
    pub(super) recorded: bool,
}

impl Group {
    pub fn new(id: Arc<str>) -> Group {
        Group {
            id,
            state: State::Empty,
            state_since: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            members: Members::default(),
            offsets: Offsets::default(),
            recorded: false,
        }
    }

    /// A group that was never recorded, holds nothing and expects nobody can be forgotten without a trace.
    pub fn is_unused(&self) -> bool {
        self.state == State::Empty
            && !self.recorded
            && self.offsets.is_empty()
            && self.members.pending_joins() == 0
    }

    pub fn bytes(&self) -> usize {
        GROUP_OVERHEAD_BYTES + self.id.len() + self.members.bytes() + self.offsets.bytes()
    }

    pub fn state_name(&self) -> StateName {
        match self.state {
            State::Empty => StateName::Empty,
            State::PreparingRebalance(_) => StateName::PreparingRebalance,
            State::CompletingRebalance => StateName::CompletingRebalance,
            State::Stable => StateName::Stable,
        }
    }

    pub fn protocol_type_or_empty(&self) -> Arc<str> {
        self.protocol_type.clone().unwrap_or_else(|| "".into())
    }

    pub fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Does a member read this topic? Yes if the coordinator cannot tell.
    pub fn subscribes(&self, topic: &str) -> bool {
        if self.members.is_empty() {
            return false;
        }
        let Some(protocol) = self
            .protocol
            .as_deref()
            .filter(|_| self.is_consumer_group())
        else {
            return true;
        };
        self.members.iter().any(|member| {
            match member.metadata(protocol).and_then(subscription::topics) {
                Some(topics) => topics.contains(&topic),
                None => true,
            }
        })
    }

    pub fn describe(&self) -> Described {
        let protocol = self
            .protocol
            .as_ref()
            .filter(|_| self.state == State::Stable);
        let members = self.members.iter().map(|member| DescribedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol
                .and_then(|protocol| member.metadata(protocol).cloned())
                .unwrap_or_default(),
            assignment: protocol.map_or(Bytes::new(), |_| member.assignment.clone()),
        });
        Described {
            state: self.state_name(),
            protocol_type: self.protocol_type_or_empty(),
            protocol: protocol.cloned().unwrap_or_else(|| "".into()),
            members: members.collect(),
        }
    }

    /// The group as it is to survive a restart.
    pub fn to_value(&self) -> GroupValue {
        let protocol = self.protocol.as_deref().unwrap_or("");
        GroupValue {
            protocol_type: self.protocol_type_or_empty(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.members.leader().cloned(),
            state_since: self.state_since,
            members: self
                .members
                .iter()
                .map(|member| MemberValue {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    subscription: member.metadata(protocol).cloned().unwrap_or_default(),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }

    /// The record of the group itself is deleted; offsets stay.
    pub fn forget_members(&mut self) {
        let (id, offsets) = (self.id.clone(), std::mem::take(&mut self.offsets));
        *self = Group {
            offsets,
            ..Group::new(id)
        };
    }

    /// Takes over what a record says; the offsets stay. Only while the log is replayed: nobody waits then.
    pub fn load_value(&mut self, value: &GroupValue) {
        let protocol = value.protocol.clone().unwrap_or_else(|| "".into());
        self.recorded = true;
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type.clone()).filter(|text| !text.is_empty());
        self.protocol = value.protocol.clone();
        self.state_since = value.state_since;
        self.members = Members::default();
        for member in &value.members {
            self.members.add(Member {
                id: member.member_id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                protocols: vec![Protocol {
                    name: protocol.clone(),
                    metadata: member.subscription.clone(),
                }],
                assignment: member.assignment.clone(),
                waiting: Waiting::No,
                is_new: false,
            });
        }
        self.members.set_leader(value.leader.clone());
        self.state = if value.members.is_empty() {
            State::Empty
        } else {
            State::Stable
        };
    }
}
