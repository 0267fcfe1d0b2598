//! The phases of a rebalance: preparing (members join), completing (the leader assigns), stable; and back when somebody comes or goes.
//!
//! Both ways to a new generation lead through here, and every record of a group is written here.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use super::{
    GroupError, Timer,
    classic::millis,
    machine::Step,
    members::Waiting,
    state::{Group, Joining, State},
};
use crate::coord::records::Record;

impl Group {
    pub(super) fn rebalance_or_complete(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::PreparingRebalance(_) => self.complete_join_if_ready(step),
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare_rebalance(step);
            }
        }
    }

    pub(super) fn rebalance_after_loss(&mut self, step: &mut Step<'_>) {
        match self.state {
            State::Empty => {}
            State::PreparingRebalance(_) => self.complete_join_if_ready(step),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(step),
        }
    }

    pub(super) fn complete_join_if_ready(&mut self, step: &mut Step<'_>) {
        let rejoining = self.state == State::PreparingRebalance(Joining::Rejoin);
        if rejoining && self.members.all_joined() {
            self.complete_join(step);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, step: &mut Step<'_>) {
        self.withdraw_assignment(step, GroupError::RebalanceInProgress);
        step.cancel_timer(&self.id, Timer::Sync);
        if self.state == State::Empty {
            let longest_ms = millis(self.members.rebalance_timeout_ms());
            let first_ms = step.rules.initial_rebalance_delay_ms;
            return self.wait_for_first_members(step, longest_ms.max(first_ms));
        }
        self.state = State::PreparingRebalance(Joining::Rejoin);
        if self.members.all_joined() {
            self.complete_join(step);
        } else {
            self.start_join_timer(step);
        }
    }

    /// Waits one initial delay out of the time left.
    pub(super) fn wait_for_first_members(&mut self, step: &mut Step<'_>, left_ms: u64) {
        let delay_ms = step.rules.initial_rebalance_delay_ms.min(left_ms);
        self.state = State::PreparingRebalance(Joining::Initial {
            remaining_ms: left_ms - delay_ms,
            member_added: false,
        });
        step.set_timer(&self.id, Timer::Join, delay_ms);
    }

    /// Goes on with those who have come. Static members may be away for the length of their session.
    pub(super) fn complete_join(&mut self, step: &mut Step<'_>) {
        assert!(matches!(self.state, State::PreparingRebalance(_)));
        step.cancel_timer(&self.id, Timer::Join);
        for member_id in self.members.ids() {
            let member = self.members.get(&member_id).expect("just listed");
            if !member.is_joining() && member.instance_id.is_none() {
                self.drop_member(step, &member_id);
            }
        }
        if self.members.is_empty() {
            return self.become_empty(step);
        }
        if !self.members.elect_joined_leader() {
            // Only static members are left, all away. Their sessions decide.
            self.state = State::PreparingRebalance(Joining::Rejoin);
            return self.start_join_timer(step);
        }
        self.next_generation();
        self.protocol = self.members.select_protocol();
        assert!(
            self.protocol.is_some(),
            "a join is admitted only if a protocol remains that all support"
        );
        self.state = State::CompletingRebalance;
        self.members.expect_sync_of_all();
        for member_id in self.members.ids() {
            self.start_session(step, &member_id);
            self.members
                .update(&member_id, |member| member.is_new = false);
            if let Waiting::Join(token) = self.take_waiting(&member_id) {
                step.reply(token, self.joined(&member_id));
            }
        }
        let timeout_ms = millis(self.members.rebalance_timeout_ms());
        step.set_timer(&self.id, Timer::Sync, timeout_ms);
    }

    /// The leader has spoken: the assignment is recorded and handed out.
    pub(super) fn assign(&mut self, step: &mut Step<'_>, assignments: Vec<(Arc<str>, Bytes)>) {
        let bytes: usize = assignments.iter().map(|(_, bytes)| bytes.len()).sum();
        if self.members.bytes() + bytes > step.rules.batch_bytes_max {
            self.withdraw_assignment(step, GroupError::AssignmentTooLarge);
            return self.prepare_rebalance(step);
        }
        let mut assignments: HashMap<Arc<str>, Bytes> = assignments.into_iter().collect();
        for member_id in self.members.ids() {
            // Copied: what is kept must not hold on to the request's frame.
            let assignment = assignments.remove(&member_id).unwrap_or_default();
            let assignment = Bytes::copy_from_slice(&assignment);
            self.members
                .update(&member_id, |member| member.assignment = assignment);
        }
        self.state = State::Stable;
        self.state_since = Some(step.now);
        self.record(step);
        for member_id in self.members.ids() {
            if let Waiting::Sync(token) = self.take_waiting(&member_id) {
                self.start_session(step, &member_id);
                step.reply(token, self.synced(&member_id));
            }
        }
    }

    pub(super) fn record(&mut self, step: &mut Step<'_>) {
        self.recorded = true;
        step.write(Record::Group {
            group: self.id.clone(),
            value: Some(self.to_value()),
        });
    }

    fn start_join_timer(&self, step: &mut Step<'_>) {
        let timeout_ms = millis(self.members.rebalance_timeout_ms());
        step.set_timer(&self.id, Timer::Join, timeout_ms);
    }

    fn become_empty(&mut self, step: &mut Step<'_>) {
        self.next_generation();
        self.protocol = None;
        self.state = State::Empty;
        self.state_since = Some(step.now);
        self.record(step);
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    /// Nobody has an assignment any more, and whoever waits for one is told why.
    fn withdraw_assignment(&mut self, step: &mut Step<'_>, error: GroupError) {
        for member_id in self.members.ids() {
            self.members
                .update(&member_id, |member| member.assignment = Bytes::new());
            let member = self.members.get(&member_id).expect("just listed");
            if matches!(member.waiting, Waiting::Sync(_)) {
                self.start_session(step, &member_id);
                step.release(self.take_waiting(&member_id), error);
            }
        }
    }
}
