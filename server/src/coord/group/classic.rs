//! The verbs of the classic protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and what happens when time runs out. The phases
//! of the rebalance they lead to are in `rebalance`.
//!
//! The rules are those of Kafka's group coordinator. In short: a join (or a member that goes) starts a rebalance; all join; the
//! generation grows and everyone is told who leads; the leader sends the assignment with its sync; that is written to the log and handed out.
//!
//! Invariant kept by every function here: a member that waits for nothing has a running session timer.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    GroupError, Heartbeat, Join, Joined, KnownMemberId, LeavingMember, Protocol, Reply,
    SkipAssignment, Sync, Synced, Timer, Token,
    machine::Step,
    members::{MEMBER_OVERHEAD_BYTES, Member, Waiting, protocols_bytes},
    state::{Group, Joining, State},
};
use crate::coord::records::STRING_BYTES_MAX;

/// A new member cannot send heartbeats while its first join is parked, and a vanished client is not noticed then.
/// After this time it is dropped; a living client simply joins again.
const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// A dash and a UUID follow the client's own name in a member id.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;

impl Group {
    pub(super) fn join(&mut self, step: &mut Step<'_>, token: Token, join: Join) {
        if self.is_full_for(step, &join) {
            return step.refuse(token, GroupError::GroupMaxSizeReached);
        }
        if !self.supports(&join) {
            return step.refuse(token, GroupError::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            self.join_without_id(step, token, join);
        } else {
            self.join_with_id(step, token, join);
        }
    }

    pub(super) fn sync(&mut self, step: &mut Step<'_>, token: Token, sync: Sync) {
        if let Err(error) = self.check_sync(&sync) {
            return step.refuse(token, error);
        }
        if self.members.synced(&sync.member_id) {
            step.cancel_timer(&self.id, Timer::Sync);
        }
        match self.state {
            State::Empty => unreachable!("the member was checked, and an empty group has none"),
            State::PreparingRebalance(_) => step.refuse(token, GroupError::RebalanceInProgress),
            State::CompletingRebalance => {
                self.park(step, &sync.member_id, Waiting::Sync(token));
                if self.members.is_leader(&sync.member_id) {
                    self.assign(step, sync.assignments);
                }
            }
            State::Stable => {
                self.start_session(step, &sync.member_id);
                step.reply(token, self.synced(&sync.member_id));
            }
        }
    }

    pub(super) fn heartbeat(&mut self, step: &mut Step<'_>, token: Token, heartbeat: &Heartbeat) {
        let checked = self
            .check_member(&heartbeat.member_id, heartbeat.instance_id.as_ref())
            .and_then(|()| self.check_generation(heartbeat.generation));
        if let Err(error) = checked {
            return step.refuse(token, error);
        }
        self.start_session(step, &heartbeat.member_id);
        match self.state {
            State::PreparingRebalance(_) => step.refuse(token, GroupError::RebalanceInProgress),
            // Members may beat between their join and their sync.
            State::Empty | State::CompletingRebalance | State::Stable => {
                step.reply(token, Reply::Alive)
            }
        }
    }

    pub(super) fn leave(&mut self, step: &mut Step<'_>, token: Token, members: &[LeavingMember]) {
        let results = members
            .iter()
            .map(|member| self.leave_one(step, member))
            .collect::<Vec<_>>();
        if results.iter().any(Result::is_ok) {
            self.rebalance_after_loss(step);
        }
        step.reply(token, Reply::Left(results));
    }

    /// A session ended, or an id that was given out was not used in time.
    pub(super) fn on_member_timer(&mut self, step: &mut Step<'_>, member_id: &str) {
        if self.members.forget_join(member_id) {
            return self.complete_join_if_ready(step);
        }
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        // Whoever waits for the group is alive as far as we know, and gets a new session when released.
        if member.waiting != Waiting::No && !member.is_new {
            return;
        }
        self.drop_member(step, member_id);
        self.rebalance_after_loss(step);
    }

    /// The time to join is over.
    pub(super) fn on_join_timer(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::PreparingRebalance(Joining::Initial {
                remaining_ms,
                member_added: true,
            }) if remaining_ms > 0 => self.wait_for_first_members(step, remaining_ms),
            State::PreparingRebalance(_) => self.complete_join(step),
            State::Empty | State::CompletingRebalance | State::Stable => {}
        }
    }

    /// The time to ask for the assignment is over: whoever has not is gone.
    pub(super) fn on_sync_timer(&mut self, step: &mut Step<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let unsynced = self.members.take_unsynced();
        for member_id in &unsynced {
            self.drop_member(step, member_id);
        }
        if !unsynced.is_empty() {
            self.prepare_rebalance(step);
        }
    }

    /// After a load: sessions start anew, since nobody could reach us.
    pub(super) fn on_loaded(&mut self, step: &mut Step<'_>) {
        for member_id in self.members.ids() {
            self.start_session(step, &member_id);
        }
        if self.members.len() > step.rules.group_size_max {
            self.prepare_rebalance(step);
        }
    }

    /// Is this a present member? The instance id, where given, tells an older incarnation of a static member from the newer one.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&Arc<str>>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.members.by_instance(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(present) if **present != *member_id => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        match self.members.get(member_id) {
            Some(_) => Ok(()),
            None => Err(GroupError::UnknownMemberId),
        }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// Gives the member a full session from now on.
    pub(super) fn start_session(&self, step: &mut Step<'_>, member_id: &str) {
        let member = self.members.get(member_id).expect("a present member");
        let timeout_ms = member.session_timeout_ms;
        step.set_timer(
            &self.id,
            Timer::Member(member.id.clone()),
            millis(timeout_ms),
        );
    }

    fn check_sync(&self, sync: &Sync) -> Result<(), GroupError> {
        self.check_member(&sync.member_id, sync.instance_id.as_ref())?;
        self.check_generation(sync.generation)?;
        let differs = |given: &Option<Arc<str>>, agreed: &Option<Arc<str>>| {
            given.is_some() && agreed.is_some() && given != agreed
        };
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The group may have no more members, or no more bytes of them than fit into one record of the log.
    fn is_full_for(&self, step: &Step<'_>, join: &Join) -> bool {
        let returning = join
            .instance_id
            .as_ref()
            .and_then(|instance_id| self.members.by_instance(instance_id))
            .unwrap_or(&join.member_id);
        let member = self.members.get(returning);
        let had_bytes = member.map_or(0, |member| protocols_bytes(&member.protocols));
        let added_bytes = protocols_bytes(&join.protocols)
            + if member.is_none() {
                MEMBER_OVERHEAD_BYTES + join.client_id.len() + join.client_host.len()
            } else {
                0
            };
        let grown_bytes = added_bytes.saturating_sub(had_bytes);
        let too_large = self.members.bytes() + grown_bytes > step.rules.members_bytes_max();
        if grown_bytes > 0 && (too_large || grown_bytes > step.room_bytes) {
            return true;
        }
        let size_max = step.rules.group_size_max;
        match self.state {
            State::Empty => false,
            State::PreparingRebalance(_) => {
                !member.is_some_and(Member::is_joining) && self.members.joining() >= size_max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_none() && self.members.len() >= size_max
            }
        }
    }

    fn supports(&self, join: &Join) -> bool {
        if self.state == State::Empty {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let common = |protocol: &Protocol| self.members.all_support(&protocol.name);
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(common)
    }

    fn join_without_id(&mut self, step: &mut Step<'_>, token: Token, join: Join) {
        let new_id = new_member_id(&join, step.unique);
        if let Some(instance_id) = &join.instance_id {
            match self.members.by_instance(instance_id).cloned() {
                Some(old_id) => self.static_member_returns(step, token, &old_id, new_id, join),
                None => self.add_member(step, token, new_id, join),
            }
        } else if join.known_member_id == KnownMemberId::Required {
            let timeout_ms = millis(join.session_timeout_ms);
            step.set_timer(&self.id, Timer::Member(new_id.clone()), timeout_ms);
            self.members.expect_join(new_id.clone());
            step.reply(token, Reply::MemberIdRequired { member_id: new_id });
        } else {
            self.add_member(step, token, new_id, join);
        }
    }

    fn join_with_id(&mut self, step: &mut Step<'_>, token: Token, join: Join) {
        let id = join.member_id.clone();
        // Ids are given out to dynamic members only.
        if self.members.expects_join(&id) && join.instance_id.is_none() {
            return self.add_member(step, token, id, join);
        }
        if let Err(error) = self.check_member(&id, join.instance_id.as_ref()) {
            return step.refuse(token, error);
        }
        let same = self
            .members
            .get(&id)
            .is_some_and(|member| member.protocols == join.protocols);
        match self.state {
            State::Empty => unreachable!("the member was checked, and an empty group has none"),
            // It may not have got the answer to its first join.
            State::CompletingRebalance if same => step.reply(token, self.joined(&id)),
            // A leader that joins again asks for a rebalance; a follower that changes nothing does not.
            State::Stable if same && !self.members.is_leader(&id) => {
                step.reply(token, self.joined(&id));
            }
            _ => {
                self.take_protocols(&id, &join);
                self.park(step, &id, Waiting::Join(token));
                self.rebalance_or_complete(step);
            }
        }
    }

    fn add_member(&mut self, step: &mut Step<'_>, token: Token, id: Arc<str>, join: Join) {
        if let State::PreparingRebalance(Joining::Initial { member_added, .. }) = &mut self.state {
            *member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.members.add(Member {
            id: id.clone(),
            instance_id: join.instance_id.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            session_timeout_ms: join.session_timeout_ms,
            protocols: owned(&join.protocols),
            assignment: Bytes::new(),
            waiting: Waiting::Join(token),
            is_new: true,
        });
        step.set_timer(&self.id, Timer::Member(id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete(step);
    }

    /// A static member restarted and lost its id. If nothing changes for the group it keeps its assignment, without a rebalance.
    fn static_member_returns(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        old_id: &Arc<str>,
        new_id: Arc<str>,
        join: Join,
    ) {
        let leader_before = self.members.leader().cloned();
        let waiting = self.take_waiting(old_id);
        step.release(waiting, GroupError::FencedInstanceId);
        step.cancel_timer(&self.id, Timer::Member(old_id.clone()));
        self.members.replace_id(old_id, new_id.clone());
        self.take_protocols(&new_id, &join);
        self.start_session(step, &new_id);

        let unchanged =
            self.state == State::Stable && self.members.select_protocol() == self.protocol;
        if !unchanged {
            self.park(step, &new_id, Waiting::Join(token));
            return self.rebalance_or_complete(step);
        }
        self.record(step);
        let Reply::Joined(mut joined) = self.joined(&new_id) else {
            unreachable!("`joined` answers so");
        };
        match join.skip_assignment {
            SkipAssignment::Understood => joined.skip_assignment = self.members.is_leader(&new_id),
            // An older client that heard it leads would compute a new assignment. It is told its former id leads.
            SkipAssignment::NotUnderstood => {
                joined.members.clear();
                joined.leader = leader_before.expect("a group with members has a leader");
            }
        }
        step.reply(token, Reply::Joined(joined));
    }

    fn leave_one(
        &mut self,
        step: &mut Step<'_>,
        leaving: &LeavingMember,
    ) -> Result<(), GroupError> {
        let member_id = match &leaving.instance_id {
            // An operator may remove a static member without knowing its id.
            Some(instance_id) if leaving.member_id.is_empty() => self
                .members
                .by_instance(instance_id)
                .cloned()
                .ok_or(GroupError::UnknownMemberId)?,
            instance_id => {
                if self.members.forget_join(&leaving.member_id) {
                    let timer = Timer::Member(leaving.member_id.clone());
                    step.cancel_timer(&self.id, timer);
                    return Ok(());
                }
                self.check_member(&leaving.member_id, instance_id.as_ref())?;
                leaving.member_id.clone()
            }
        };
        self.drop_member(step, &member_id);
        Ok(())
    }

    /// The caller sees to the rebalance.
    pub(super) fn drop_member(&mut self, step: &mut Step<'_>, member_id: &str) {
        let member = self.members.remove(member_id).expect("a present member");
        step.release(member.waiting, GroupError::UnknownMemberId);
        step.cancel_timer(&self.id, Timer::Member(member.id));
    }

    fn take_protocols(&mut self, member_id: &str, join: &Join) {
        self.members.update(member_id, |member| {
            member.protocols = owned(&join.protocols);
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.session_timeout_ms = join.session_timeout_ms;
        });
    }

    /// A request that was parked before for the same member belongs to a call its client has given up.
    fn park(&mut self, step: &mut Step<'_>, member_id: &str, waiting: Waiting) {
        let replaced = self.members.update(member_id, |member| {
            std::mem::replace(&mut member.waiting, waiting)
        });
        step.release(replaced, GroupError::RebalanceInProgress);
    }

    pub(super) fn take_waiting(&mut self, member_id: &str) -> Waiting {
        self.members.update(member_id, |member| {
            std::mem::replace(&mut member.waiting, Waiting::No)
        })
    }

    pub(super) fn joined(&self, member_id: &str) -> Reply {
        let member = self.members.get(member_id).expect("a present member");
        let protocol = self.protocol.clone().expect("set with the generation");
        let leader = self.members.leader().expect("a group with members has one");
        Reply::Joined(Joined {
            member_id: member.id.clone(),
            generation: self.generation,
            protocol_type: self.protocol_type_or_empty(),
            members: if self.members.is_leader(member_id) {
                self.members.for_leader(&protocol)
            } else {
                Vec::new()
            },
            protocol,
            leader: leader.clone(),
            skip_assignment: false,
        })
    }

    pub(super) fn synced(&self, member_id: &str) -> Reply {
        let member = self.members.get(member_id).expect("a present member");
        Reply::Synced(Synced {
            protocol_type: self.protocol_type_or_empty(),
            protocol: self.protocol.clone().expect("set with the generation"),
            assignment: member.assignment.clone(),
        })
    }
}

/// Timeouts are checked when a member joins; those of old records may be anything.
pub(super) fn millis(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}

/// Copies: what is kept must not hold on to the request's frame.
fn owned(protocols: &[Protocol]) -> Vec<Protocol> {
    protocols
        .iter()
        .map(|protocol| Protocol {
            name: protocol.name.clone(),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        })
        .collect()
}

/// The client's own name and something unique, as Kafka does it.
fn new_member_id(join: &Join, unique: u128) -> Arc<str> {
    let name = join.instance_id.as_ref().unwrap_or(&join.client_id);
    let len = name.floor_char_boundary(STRING_BYTES_MAX - MEMBER_ID_SUFFIX_BYTES);
    let uuid = uuid::Builder::from_random_bytes(unique.to_be_bytes()).into_uuid();
    format!("{}-{uuid}", &name[..len]).into()
}
