//! The groups of one partition of `__consumer_offsets`: events in, effects out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use forebay_engine::Timestamp;

use super::{
    CommitOffsets, FetchOffsets, FetchedOffset, GroupError, GroupFilter, Join, ListedGroup,
    OffsetSelection, Reply, Verb,
    members::{MEMBER_OVERHEAD_BYTES, Waiting},
    state::{GROUP_OVERHEAD_BYTES, Group, State},
};
use crate::coord::records::{Record, STRING_BYTES_MAX};

/// The only type of group so far, as ListGroups names it.
pub const GROUP_TYPE: &str = "classic";

/// Names the request that an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What the configuration says about groups.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`.
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`.
    pub offsets_retention_ms: i64,
    /// What one request may write: it is one batch, kept or lost as a whole.
    pub batch_bytes_max: usize,
}

impl Rules {
    /// Members may fill half of a batch, so that an assignment for them finds room.
    pub fn members_bytes_max(&self) -> usize {
        self.batch_bytes_max / 2
    }
}

/// What a step needs to know of the world.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    pub now: Timestamp,
    /// Random bits, for the id of a new member.
    pub unique: u128,
    /// By how much the groups may grow.
    pub room_bytes: usize,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// Every token gets exactly one reply, in this step or a later one.
    Request { token: Token, verb: Verb },
    /// A timer that was set has run out.
    Timer(TimerKey),
    /// The log has been replayed.
    Loaded,
    /// These topics, or incarnations of them, are gone.
    TopicsDeleted(BTreeSet<Arc<str>>),
    /// It is time to look for offsets nobody can miss.
    ExpireOffsets,
}

/// What is to be done after a step.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be written in this order. Those of one request make one batch.
    pub records: Vec<Record>,
    pub replies: Vec<(Token, Reply)>,
    pub timers: Vec<TimerChange>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    pub group: Arc<str>,
    pub timer: Timer,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A member's session, or the time to use an id that was given out.
    Member(Arc<str>),
    /// The time to join a rebalance.
    Join,
    /// The time to ask for the assignment.
    Sync,
}

/// A key has at most one timer: setting it again replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange {
    Set { key: TimerKey, after_ms: u64 },
    Cancel(TimerKey),
}

/// One step in the making: what it may look at, and what it has decided so far.
pub(super) struct Step<'a> {
    pub now: Timestamp,
    pub unique: u128,
    pub room_bytes: usize,
    pub rules: &'a Rules,
    effects: &'a mut Effects,
}

impl Step<'_> {
    pub fn reply(&mut self, token: Token, reply: Reply) {
        self.effects.replies.push((token, reply));
    }
    pub fn refuse(&mut self, token: Token, error: GroupError) {
        self.reply(token, Reply::Refused(error));
    }
    /// Refuses a request that was parked, if there is one.
    pub fn release(&mut self, waiting: Waiting, error: GroupError) {
        match waiting {
            Waiting::No => {}
            Waiting::Join(token) | Waiting::Sync(token) => self.refuse(token, error),
        }
    }
    pub fn write(&mut self, record: Record) {
        self.effects.records.push(record);
    }
    pub fn set_timer(&mut self, group: &Arc<str>, timer: Timer, after_ms: u64) {
        let group = group.clone();
        let key = TimerKey { group, timer };
        self.effects.timers.push(TimerChange::Set { key, after_ms });
    }
    pub fn cancel_timer(&mut self, group: &Arc<str>, timer: Timer) {
        let group = group.clone();
        let key = TimerKey { group, timer };
        self.effects.timers.push(TimerChange::Cancel(key));
    }
}

/// All groups of one partition.
pub struct Machine {
    rules: Rules,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    bytes: usize,
}

impl Machine {
    pub fn new(rules: Rules) -> Machine {
        Machine {
            rules,
            groups: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Memory held by the groups.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Applies a record of the log. Only before [`Event::Loaded`].
    pub fn replay(&mut self, record: &Record) {
        match record {
            Record::Offset {
                group,
                topic,
                partition,
                value,
            } => self.with_group(group, |group| {
                group.offsets.apply(topic, *partition, value.as_ref());
            }),
            Record::Group {
                group,
                value: Some(value),
            } => self.with_group(group, |group| group.load_value(value)),
            Record::Group { group, value: None } => {
                self.with_group(group, Group::forget_members);
            }
        }
    }

    pub fn step(&mut self, context: Context, event: Event) -> Effects {
        let mut effects = Effects::default();
        let rules = self.rules;
        let mut step = Step {
            now: context.now,
            unique: context.unique,
            room_bytes: context.room_bytes,
            rules: &rules,
            effects: &mut effects,
        };
        match event {
            Event::Request { token, verb } => {
                if let Err(error) = self.serve(&mut step, token, verb) {
                    step.refuse(token, error);
                }
            }
            Event::Timer(key) => self.on_timer(&mut step, &key),
            Event::Loaded => self.each_group(|group| group.on_loaded(&mut step)),
            Event::TopicsDeleted(topics) => {
                self.each_group(|group| group.delete_offsets_of_topics(&mut step, &topics));
            }
            Event::ExpireOffsets => self.each_group(|group| {
                group.expire_offsets(&mut step);
                group.retire(&mut step);
            }),
        }
        effects
    }

    pub fn list(&self, filter: &GroupFilter) -> Vec<ListedGroup> {
        let wanted = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        if !wanted(&filter.types, GROUP_TYPE) {
            return Vec::new();
        }
        self.groups
            .values()
            .filter(|group| wanted(&filter.states, group.state_name().as_str()))
            .map(|group| ListedGroup {
                group: group.id.clone(),
                protocol_type: group.protocol_type_or_empty(),
                state: group.state_name(),
            })
            .collect()
    }

    /// Topics that some group has offsets of.
    pub fn topics(&self) -> BTreeSet<Arc<str>> {
        self.groups
            .values()
            .flat_map(|group| group.offsets.topics().cloned())
            .collect()
    }

    /// Replies through `step`, or not at all and returns why not.
    fn serve(&mut self, step: &mut Step<'_>, token: Token, verb: Verb) -> Result<(), GroupError> {
        check_strings(&verb)?;
        match verb {
            Verb::Join(join) => self.join(step, token, join),
            Verb::Sync(sync) => {
                self.with_member_group(&sync.group.clone(), |group| group.sync(step, token, sync))
            }
            Verb::Heartbeat(heartbeat) => self.with_member_group(&heartbeat.group, |group| {
                group.heartbeat(step, token, &heartbeat);
            }),
            Verb::Leave(leave) => self.with_member_group(&leave.group, |group| {
                group.leave(step, token, &leave.members);
            }),
            Verb::CommitOffsets(commit) => self.commit_offsets(step, token, &commit),
            Verb::FetchOffsets(fetch) => {
                step.reply(token, Reply::OffsetsFetched(self.fetch_offsets(&fetch)));
                Ok(())
            }
            Verb::DeleteOffsets(delete) => self.with_existing(&delete.group, |group| {
                group.delete_offsets(step, token, &delete.partitions);
            }),
            Verb::Describe { group } => self.with_existing(&group, |group| {
                step.reply(token, Reply::Described(group.describe()));
            }),
            Verb::Delete { group } => {
                let deleted = self.with_existing(&group, |group| group.delete(step))?;
                deleted.map(|()| step.reply(token, Reply::Deleted))
            }
        }
    }

    fn join(&mut self, step: &mut Step<'_>, token: Token, join: Join) -> Result<(), GroupError> {
        if join.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let session_timeouts =
            self.rules.session_timeout_min_ms..=self.rules.session_timeout_max_ms;
        if !session_timeouts.contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if !self.groups.contains_key(&join.group) {
            if !join.member_id.is_empty() {
                return Err(GroupError::UnknownMemberId);
            }
            let needed = GROUP_OVERHEAD_BYTES + MEMBER_OVERHEAD_BYTES + join.group.len();
            if needed > step.room_bytes {
                return Err(GroupError::CoordinatorNotAvailable);
            }
        }
        self.with_group(&join.group.clone(), |group| group.join(step, token, join));
        Ok(())
    }

    fn commit_offsets(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        commit: &CommitOffsets,
    ) -> Result<(), GroupError> {
        if !self.groups.contains_key(&commit.group) {
            // Whoever names a generation was a member of a group that is no more.
            if commit.generation >= 0 {
                return Err(GroupError::IllegalGeneration);
            }
            if GROUP_OVERHEAD_BYTES + commit.group.len() > step.room_bytes {
                return Err(GroupError::CoordinatorNotAvailable);
            }
        }
        self.with_group(&commit.group, |group| {
            group.commit_offsets(step, token, commit);
        });
        Ok(())
    }

    /// A group that does not exist has committed nothing.
    fn fetch_offsets(&self, fetch: &FetchOffsets) -> Vec<FetchedOffset> {
        match (self.groups.get(&fetch.group), &fetch.selection) {
            (Some(group), selection) => group.fetch_offsets(selection),
            (None, OffsetSelection::All) => Vec::new(),
            (None, OffsetSelection::Of(partitions)) => {
                let nothing = Group::new(fetch.group.clone());
                nothing.fetch_offsets(&OffsetSelection::Of(partitions.clone()))
            }
        }
    }

    fn on_timer(&mut self, step: &mut Step<'_>, key: &TimerKey) {
        // The group may have been deleted since the timer was set.
        let _ = self.with_existing(&key.group, |group| match &key.timer {
            Timer::Member(member_id) => group.on_member_timer(step, member_id),
            Timer::Join => group.on_join_timer(step),
            Timer::Sync => group.on_sync_timer(step),
        });
    }

    /// For verbs of members: no group, no member.
    fn with_member_group<R>(
        &mut self,
        id: &Arc<str>,
        act: impl FnOnce(&mut Group) -> R,
    ) -> Result<R, GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.with_existing(id, act)
            .map_err(|_| GroupError::UnknownMemberId)
    }

    fn with_existing<R>(
        &mut self,
        id: &Arc<str>,
        act: impl FnOnce(&mut Group) -> R,
    ) -> Result<R, GroupError> {
        if !self.groups.contains_key(id) {
            return Err(GroupError::GroupIdNotFound);
        }
        Ok(self.with_group(id, act))
    }

    /// The only way to a group that may change: counts its bytes, and forgets it once nothing is left of it.
    fn with_group<R>(&mut self, id: &Arc<str>, act: impl FnOnce(&mut Group) -> R) -> R {
        if !self.groups.contains_key(id) {
            let group = Group::new(id.clone());
            self.bytes += group.bytes();
            self.groups.insert(id.clone(), group);
        }
        let group = self.groups.get_mut(id).expect("it is there now");
        let bytes_before = group.bytes();
        let result = act(group);
        self.bytes = self.bytes - bytes_before + group.bytes();
        if group.is_unused() {
            self.bytes -= group.bytes();
            self.groups.remove(id);
        }
        result
    }

    fn each_group(&mut self, mut act: impl FnMut(&mut Group)) {
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with_group(&id, &mut act);
        }
    }
}

impl Group {
    /// Deletes a group that has no members, with its offsets.
    fn delete(&mut self, step: &mut Step<'_>) -> Result<(), GroupError> {
        if self.state != State::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        self.delete_all_offsets(step);
        for member_id in self.members.take_pending_joins() {
            step.cancel_timer(&self.id, Timer::Member(member_id));
        }
        self.retire(step);
        Ok(())
    }

    /// A group without members and offsets leaves the log too; the machine forgets it then.
    fn retire(&mut self, step: &mut Step<'_>) {
        let holds_nothing = self.offsets.is_empty() && self.members.pending_joins() == 0;
        if self.state == State::Empty && self.recorded && holds_nothing {
            self.forget_members();
            step.write(Record::Group {
                group: self.id.clone(),
                value: None,
            });
        }
    }
}

/// Requests of flexible versions may carry strings that no record can hold.
fn check_strings(verb: &Verb) -> Result<(), GroupError> {
    let fits = |text: &str| text.len() <= STRING_BYTES_MAX;
    let group = match verb {
        Verb::Join(join) => &join.group,
        Verb::Sync(sync) => &sync.group,
        Verb::Heartbeat(heartbeat) => &heartbeat.group,
        Verb::Leave(leave) => &leave.group,
        Verb::CommitOffsets(commit) => &commit.group,
        Verb::FetchOffsets(fetch) => &fetch.group,
        Verb::DeleteOffsets(delete) => &delete.group,
        Verb::Describe { group } | Verb::Delete { group } => group,
    };
    if !fits(group) {
        return Err(GroupError::InvalidGroupId);
    }
    let others_fit = match verb {
        Verb::Join(join) => {
            fits(&join.client_id)
                && fits(&join.client_host)
                && fits(&join.protocol_type)
                && join.instance_id.as_deref().is_none_or(fits)
                && join.protocols.iter().all(|protocol| fits(&protocol.name))
        }
        Verb::CommitOffsets(commit) => commit
            .offsets
            .iter()
            .all(|offset| fits(&offset.topic) && fits(&offset.metadata)),
        _ => true,
    };
    if others_fit {
        Ok(())
    } else {
        Err(GroupError::InvalidRequest)
    }
}
