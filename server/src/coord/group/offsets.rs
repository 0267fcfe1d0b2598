//! Committed offsets of one group: who may commit, fetch and delete them, and when they expire.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use forebay_engine::Timestamp;

use super::{
    CommitOffset, CommitOffsets, FetchedOffset, GroupError, OffsetSelection, Reply, Token,
    TopicPartition,
    machine::Step,
    state::{Group, State},
};
use crate::coord::records::{CommittedOffset, Record};

/// What an offset takes in memory besides its strings.
const OFFSET_OVERHEAD_BYTES: usize = 128;

#[derive(Debug, Default)]
pub struct Offsets {
    by_topic: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
    bytes: usize,
}

impl Offsets {
    pub fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_topic.get(topic)?.get(&partition)
    }
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_topic.keys()
    }
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, &CommittedOffset)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(&partition, committed)| (topic, partition, committed))
        })
    }

    /// What a record says happens here: live and when the log is replayed.
    pub fn apply(&mut self, topic: &Arc<str>, partition: i32, value: Option<&CommittedOffset>) {
        let size = |committed: &CommittedOffset| {
            OFFSET_OVERHEAD_BYTES + topic.len() + committed.metadata.len()
        };
        let partitions = self.by_topic.entry(topic.clone()).or_default();
        let previous = match value {
            Some(committed) => {
                self.bytes += size(committed);
                partitions.insert(partition, committed.clone())
            }
            None => partitions.remove(&partition),
        };
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        self.bytes -= previous.as_ref().map_or(0, size);
    }
}

impl Group {
    pub(super) fn commit_offsets(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        commit: &CommitOffsets,
    ) {
        let checked = self
            .check_commit(commit)
            .and_then(|()| self.check_commit_fits(step, commit));
        if let Err(error) = checked {
            return step.refuse(token, error);
        }
        // Committing keeps a session alive, unless its group waits for an assignment.
        if self.members.get(&commit.member_id).is_some() {
            self.start_session(step, &commit.member_id);
        }
        let results = commit
            .offsets
            .iter()
            .map(|offset| self.commit_one(step, offset))
            .collect();
        step.reply(token, Reply::OffsetsCommitted(results));
    }

    pub(super) fn fetch_offsets(&self, selection: &OffsetSelection) -> Vec<FetchedOffset> {
        let fetched =
            |topic: &Arc<str>, partition, committed: Option<&CommittedOffset>| FetchedOffset {
                topic: topic.clone(),
                partition,
                committed: committed.cloned(),
            };
        match selection {
            OffsetSelection::All => self
                .offsets
                .iter()
                .map(|(topic, partition, committed)| fetched(topic, partition, Some(committed)))
                .collect(),
            OffsetSelection::Of(partitions) => partitions
                .iter()
                .map(|wanted| {
                    let committed = self.offsets.get(&wanted.topic, wanted.partition);
                    fetched(&wanted.topic, wanted.partition, committed)
                })
                .collect(),
        }
    }

    pub(super) fn delete_offsets(
        &mut self,
        step: &mut Step<'_>,
        token: Token,
        partitions: &[TopicPartition],
    ) {
        // Of members that are not consumers we cannot tell what they read.
        if self.state != State::Empty && !self.is_consumer_group() {
            return step.refuse(token, GroupError::NonEmptyGroup);
        }
        let mut results = Vec::with_capacity(partitions.len());
        for TopicPartition { topic, partition } in partitions {
            if self.subscribes(topic) {
                results.push(Err(GroupError::GroupSubscribedToTopic));
                continue;
            }
            if self.offsets.get(topic, *partition).is_some() {
                self.write_offset(step, topic, *partition, None);
            }
            results.push(Ok(()));
        }
        step.reply(token, Reply::OffsetsDeleted(results));
    }

    pub(super) fn delete_all_offsets(&mut self, step: &mut Step<'_>) {
        self.delete_offsets_where(step, |_, _| true);
    }

    pub(super) fn delete_offsets_of_topics(
        &mut self,
        step: &mut Step<'_>,
        topics: &BTreeSet<Arc<str>>,
    ) {
        if self.offsets.topics().any(|topic| topics.contains(topic)) {
            self.delete_offsets_where(step, |topic, _| topics.contains(topic));
        }
    }

    /// An offset that nobody can miss: of an empty group, or of a topic that a stable group no longer reads.
    pub(super) fn expire_offsets(&mut self, step: &mut Step<'_>) {
        let retention_ms = step.rules.offsets_retention_ms;
        let now = step.now;
        let expired = |committed: &CommittedOffset, since: Timestamp| match committed.expires_at {
            Some(expires_at) => now >= expires_at,
            None => now.0.saturating_sub(since.0) >= retention_ms,
        };
        match self.state {
            // The members went, then the time runs; a group without members ever lives by its commits.
            State::Empty => {
                let empty_since = self.state_since.filter(|_| self.protocol_type.is_some());
                self.delete_offsets_where(step, |_, committed| {
                    let committed_at = committed.committed_at;
                    expired(
                        committed,
                        empty_since.map_or(committed_at, |since| since.max(committed_at)),
                    )
                });
            }
            State::Stable if self.is_consumer_group() => {
                let read: BTreeSet<Arc<str>> = self
                    .offsets
                    .topics()
                    .filter(|topic| self.subscribes(topic))
                    .cloned()
                    .collect();
                self.delete_offsets_where(step, |topic, committed| {
                    !read.contains(topic) && expired(committed, committed.committed_at)
                });
            }
            State::Stable | State::PreparingRebalance(_) | State::CompletingRebalance => {}
        }
    }

    fn check_commit(&self, commit: &CommitOffsets) -> Result<(), GroupError> {
        let outside_of_membership =
            commit.generation < 0 && commit.member_id.is_empty() && commit.instance_id.is_none();
        if self.state == State::Empty && commit.generation < 0 {
            return Ok(());
        }
        if outside_of_membership {
            // An administrator, or a consumer that manages its own partitions, in a group that members own.
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&commit.member_id, commit.instance_id.as_ref())?;
        self.check_generation(commit.generation)?;
        match self.state {
            // The member knows the new generation, but not yet what it owns in it.
            State::CompletingRebalance => Err(GroupError::RebalanceInProgress),
            State::Empty | State::PreparingRebalance(_) | State::Stable => Ok(()),
        }
    }

    /// One request is one batch of the log, so that it is kept or lost as a whole; and new offsets need memory.
    fn check_commit_fits(&self, step: &Step<'_>, commit: &CommitOffsets) -> Result<(), GroupError> {
        let mut batch_bytes = 0;
        let mut new_bytes = 0;
        for offset in &commit.offsets {
            let strings = offset.topic.len() + offset.metadata.len();
            batch_bytes += OFFSET_OVERHEAD_BYTES + self.id.len() + strings;
            if self.offsets.get(&offset.topic, offset.partition).is_none() {
                new_bytes += OFFSET_OVERHEAD_BYTES + strings;
            }
        }
        if batch_bytes > step.rules.batch_bytes_max {
            return Err(GroupError::InvalidCommitOffsetSize);
        }
        if new_bytes > step.room_bytes {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        Ok(())
    }

    fn commit_one(&mut self, step: &mut Step<'_>, commit: &CommitOffset) -> Result<(), GroupError> {
        if commit.metadata.len() > step.rules.offset_metadata_bytes_max {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        let committed = CommittedOffset {
            offset: commit.offset,
            leader_epoch: commit.leader_epoch,
            metadata: commit.metadata.clone(),
            committed_at: step.now,
            expires_at: None,
        };
        self.write_offset(step, &commit.topic, commit.partition, Some(committed));
        Ok(())
    }

    fn delete_offsets_where(
        &mut self,
        step: &mut Step<'_>,
        doomed: impl Fn(&Arc<str>, &CommittedOffset) -> bool,
    ) {
        let doomed: Vec<(Arc<str>, i32)> = self
            .offsets
            .iter()
            .filter(|(topic, _, committed)| doomed(topic, committed))
            .map(|(topic, partition, _)| (topic.clone(), partition))
            .collect();
        for (topic, partition) in doomed {
            self.write_offset(step, &topic, partition, None);
        }
    }

    fn write_offset(
        &mut self,
        step: &mut Step<'_>,
        topic: &Arc<str>,
        partition: i32,
        value: Option<CommittedOffset>,
    ) {
        self.offsets.apply(topic, partition, value.as_ref());
        step.write(Record::Offset {
            group: self.id.clone(),
            topic: topic.clone(),
            partition,
            value,
        });
    }
}
