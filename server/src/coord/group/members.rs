//! The members of one group, and the sums over them that every step needs.
//!
//! All changes go through [`Members::add`], [`Members::remove`] and [`Members::update`], which keep the sums right: bytes held, members
//! that wait for the rebalance, and how many members support each protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{JoinedMember, Protocol, Token};

/// What a member takes in memory besides its strings and bytes: its entries in the maps here and in the timers.
pub const MEMBER_OVERHEAD_BYTES: usize = 512;

/// The request that is parked until the group has come so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    No,
    Join(Token),
    Sync(Token),
}

#[derive(Clone, Debug)]
pub struct Member {
    pub id: Arc<str>,
    pub instance_id: Option<Arc<str>>,
    pub client_id: Arc<str>,
    pub client_host: Arc<str>,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    pub waiting: Waiting,
    /// Has not yet been told that it is a member: its first JoinGroup is parked.
    pub is_new: bool,
}

impl Member {
    pub fn is_joining(&self) -> bool {
        matches!(self.waiting, Waiting::Join(_))
    }

    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|candidate| &*candidate.name == protocol)
            .map(|candidate| &candidate.metadata)
    }

    fn bytes(&self) -> usize {
        MEMBER_OVERHEAD_BYTES
            + self.id.len()
            + self.instance_id.as_ref().map_or(0, |id| id.len())
            + self.client_id.len()
            + self.client_host.len()
            + protocols_bytes(&self.protocols)
            + self.assignment.len()
    }
}

pub fn protocols_bytes(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|protocol| protocol.name.len() + protocol.metadata.len())
        .sum()
}

#[derive(Debug, Default)]
pub struct Members {
    by_id: BTreeMap<Arc<str>, Member>,
    /// Static members: instance id to member id.
    by_instance: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were given out (MEMBER_ID_REQUIRED) and have not joined yet.
    pending_join: BTreeSet<Arc<str>>,
    /// Members of the new generation that have not asked for their assignment yet.
    pending_sync: BTreeSet<Arc<str>>,
    leader: Option<Arc<str>>,
    joining: usize,
    bytes: usize,
    supporters: BTreeMap<Arc<str>, usize>,
}

impl Members {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
    pub fn get(&self, id: &str) -> Option<&Member> {
        self.by_id.get(id)
    }
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_id.values()
    }
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.by_id.keys().cloned().collect()
    }
    /// The member id that holds this instance id.
    pub fn by_instance(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.by_instance.get(instance_id)
    }
    pub fn leader(&self) -> Option<&Arc<str>> {
        self.leader.as_ref()
    }
    pub fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }
    pub fn joining(&self) -> usize {
        self.joining
    }
    /// Memory held, the ids given out included.
    pub fn bytes(&self) -> usize {
        self.bytes + self.pending_join.len() * MEMBER_OVERHEAD_BYTES
    }

    /// Everyone is here, and nobody who was given an id is still to come.
    pub fn all_joined(&self) -> bool {
        self.joining == self.by_id.len() && self.pending_join.is_empty()
    }

    /// True for any protocol while there are no members.
    pub fn all_support(&self, protocol: &str) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.by_id.len()
    }

    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.iter()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }

    /// The first member leads.
    pub fn add(&mut self, member: Member) {
        self.pending_join.remove(&member.id);
        if let Some(instance_id) = &member.instance_id {
            let previous = self
                .by_instance
                .insert(instance_id.clone(), member.id.clone());
            assert!(previous.is_none(), "an instance id has one member");
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.count_in(&member);
        let previous = self.by_id.insert(member.id.clone(), member);
        assert!(previous.is_none(), "a member is added once");
    }

    /// Another member leads if this one did.
    pub fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.count_out(&member);
        self.pending_sync.remove(id);
        if let Some(instance_id) = &member.instance_id {
            self.by_instance.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.by_id.keys().next().cloned();
        }
        Some(member)
    }

    /// Changes a member that exists; its id and instance id stay.
    pub fn update<R>(&mut self, id: &str, change: impl FnOnce(&mut Member) -> R) -> R {
        let mut member = self.by_id.remove(id).expect("the caller has looked it up");
        self.count_out(&member);
        let result = change(&mut member);
        assert_eq!(&*member.id, id);
        self.count_in(&member);
        self.by_id.insert(member.id.clone(), member);
        result
    }

    /// A static member that came back: same state under a new id, the old id is gone.
    pub fn replace_id(&mut self, old: &str, new: Arc<str>) {
        let mut member = self.by_id.remove(old).expect("the caller has looked it up");
        self.count_out(&member);
        let instance_id = member.instance_id.clone().expect("only static members");
        self.by_instance.insert(instance_id, new.clone());
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.clone());
        }
        member.id = new.clone();
        self.count_in(&member);
        self.by_id.insert(new, member);
    }

    /// Sets the leader of a group read from the log.
    pub fn set_leader(&mut self, leader: Option<Arc<str>>) {
        assert!(leader.as_ref().is_none_or(|id| self.by_id.contains_key(id)));
        self.leader = leader;
    }

    /// Makes sure that a member leads who has rejoined; false if none has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &&Member| member.is_joining();
        if self
            .leader
            .as_ref()
            .and_then(|id| self.by_id.get(id))
            .is_some_and(Member::is_joining)
        {
            return true;
        }
        match self.by_id.values().find(joined) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// Each member votes for the first of its protocols that all support; ties go to the leader's order.
    pub fn select_protocol(&self) -> Option<Arc<str>> {
        let leader = self.by_id.get(self.leader.as_ref()?)?;
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.by_id.values() {
            let choice = member
                .protocols
                .iter()
                .find(|protocol| self.all_support(&protocol.name));
            *votes.entry(&choice?.name).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        leader
            .protocols
            .iter()
            .map(|protocol| &protocol.name)
            .find(|name| votes.get(&***name) == Some(&most))
            .cloned()
    }

    /// Every member with its metadata, for the leader.
    pub fn for_leader(&self, protocol: &str) -> Vec<JoinedMember> {
        self.by_id
            .values()
            .map(|member| JoinedMember {
                member_id: member.id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol).cloned().unwrap_or_default(),
            })
            .collect()
    }

    pub fn expect_join(&mut self, id: Arc<str>) {
        self.pending_join.insert(id);
    }
    pub fn expects_join(&self, id: &str) -> bool {
        self.pending_join.contains(id)
    }
    pub fn pending_joins(&self) -> usize {
        self.pending_join.len()
    }
    pub fn take_pending_joins(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.pending_join)
    }
    /// False if it was not expected.
    pub fn forget_join(&mut self, id: &str) -> bool {
        self.pending_join.remove(id)
    }
    pub fn expect_sync_of_all(&mut self) {
        self.pending_sync = self.by_id.keys().cloned().collect();
    }
    /// True if that was the last one missing.
    pub fn synced(&mut self, id: &str) -> bool {
        self.pending_sync.remove(id) && self.pending_sync.is_empty()
    }
    pub fn take_unsynced(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.pending_sync)
    }

    fn count_in(&mut self, member: &Member) {
        self.bytes += member.bytes();
        self.joining += usize::from(member.is_joining());
        for (position, protocol) in member.protocols.iter().enumerate() {
            if !repeats(&member.protocols, position) {
                *self.supporters.entry(protocol.name.clone()).or_default() += 1;
            }
        }
    }

    fn count_out(&mut self, member: &Member) {
        self.bytes -= member.bytes();
        self.joining -= usize::from(member.is_joining());
        for (position, protocol) in member.protocols.iter().enumerate() {
            if repeats(&member.protocols, position) {
                continue;
            }
            let count = self
                .supporters
                .get_mut(&protocol.name)
                .expect("counted in before");
            *count -= 1;
            if *count == 0 {
                self.supporters.remove(&protocol.name);
            }
        }
    }
}

/// A client may name a protocol twice; it counts once.
fn repeats(protocols: &[Protocol], position: usize) -> bool {
    protocols[..position]
        .iter()
        .any(|earlier| earlier.name == protocols[position].name)
}
