//! A machine in a world of virtual time: timers run out in order, records are kept as a log, replies are collected.
//!
//! After every step the world checks what must always hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use forebay_engine::{Timestamp, rt::Instant};

use super::super::{
    Context, Effects, Event, Machine, Reply, Rules, Timer, TimerChange, TimerKey, Token, Verb,
    members::Waiting, state::State,
};
use crate::coord::{records::Record, timers::Timers};

pub struct World {
    pub machine: Machine,
    pub rules: Rules,
    pub log: Vec<Record>,
    pub now_ms: u64,
    pub room_bytes: usize,
    timers: Timers<TimerKey>,
    set_timers: BTreeSet<TimerKey>,
    next_token: u64,
    unanswered: BTreeSet<Token>,
    uniques: u128,
}

/// What one event led to.
pub type Outcome = (Vec<Record>, Vec<(Token, Reply)>);

pub fn rules() -> Rules {
    Rules {
        session_timeout_min_ms: 6_000,
        session_timeout_max_ms: 1_800_000,
        initial_rebalance_delay_ms: 3_000,
        group_size_max: 4,
        offset_metadata_bytes_max: 16,
        offsets_retention_ms: 600_000,
        batch_bytes_max: 16 * 1024,
    }
}

impl World {
    pub fn new(rules: Rules) -> World {
        World {
            machine: Machine::new(rules),
            rules,
            log: Vec::new(),
            now_ms: 0,
            room_bytes: 1 << 20,
            timers: Timers::new(),
            set_timers: BTreeSet::new(),
            next_token: 0,
            unanswered: BTreeSet::new(),
            uniques: 0,
        }
    }

    pub fn request(&mut self, verb: Verb) -> (Token, Outcome) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.unanswered.insert(token);
        (token, self.event(Event::Request { token, verb }))
    }

    pub fn event(&mut self, event: Event) -> Outcome {
        self.uniques += 1;
        let context = Context {
            now: Timestamp(i64::try_from(self.now_ms).unwrap()),
            unique: self.uniques,
            room_bytes: self.room_bytes,
        };
        let Effects {
            records,
            replies,
            timers,
        } = self.machine.step(context, event);
        self.log.extend(records.iter().cloned());
        for change in timers {
            match change {
                TimerChange::Set { key, after_ms } => {
                    self.set_timers.insert(key.clone());
                    self.timers.set(key, Instant(self.now_ms + after_ms));
                }
                TimerChange::Cancel(key) => {
                    self.set_timers.remove(&key);
                    self.timers.cancel(&key);
                }
            }
        }
        for (token, _) in &replies {
            assert!(self.unanswered.remove(token), "{token:?} answered once");
        }
        self.check();
        (records, replies)
    }

    /// Lets time pass, with all timers that run out meanwhile.
    pub fn wait(&mut self, ms: u64) -> Outcome {
        let until = self.now_ms + ms;
        let (mut records, mut replies) = Outcome::default();
        while let Some(deadline) = self.timers.next_deadline().filter(|next| next.0 <= until) {
            self.now_ms = deadline.0;
            let key = self.timers.pop_due(deadline).unwrap();
            self.set_timers.remove(&key);
            let (written, replied) = self.event(Event::Timer(key));
            records.extend(written);
            replies.extend(replied);
        }
        self.now_ms = until;
        (records, replies)
    }

    /// The broker stops and starts again: only the log remains.
    pub fn restart(&mut self) -> Outcome {
        self.machine = self.replayed();
        self.timers = Timers::new();
        self.set_timers.clear();
        self.unanswered.clear();
        self.event(Event::Loaded)
    }

    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    fn replayed(&self) -> Machine {
        let mut machine = Machine::new(self.rules);
        for record in &self.log {
            let (key, value) = record.encode();
            let value = value.map(Into::into);
            let read = Record::decode(Some(&key.into()), value.as_ref()).unwrap();
            assert_eq!(
                read.as_ref(),
                Some(record),
                "the log keeps what it was given"
            );
            machine.replay(record);
        }
        machine
    }

    fn check(&self) {
        let bytes: usize = self
            .machine
            .groups
            .values()
            .map(|group| group.bytes())
            .sum();
        assert_eq!(self.machine.bytes(), bytes, "the sum of bytes is kept up");
        let mut parked = BTreeSet::new();
        for (id, group) in &self.machine.groups {
            assert_eq!(id, &group.id);
            for member in group.members.iter() {
                let key = TimerKey {
                    group: id.clone(),
                    timer: Timer::Member(member.id.clone()),
                };
                match member.waiting {
                    Waiting::No => assert!(
                        self.set_timers.contains(&key),
                        "a member that waits for nothing has a session: {}",
                        member.id
                    ),
                    Waiting::Join(token) | Waiting::Sync(token) => {
                        assert!(parked.insert(token), "one request is parked once");
                    }
                }
                if let Some(instance) = &member.instance_id {
                    assert_eq!(group.members.by_instance(instance), Some(&member.id));
                }
            }
            let is_empty = group.members.is_empty();
            match group.state {
                State::Empty => assert!(is_empty),
                State::CompletingRebalance | State::Stable => assert!(!is_empty),
                State::PreparingRebalance(_) => {
                    let key = TimerKey {
                        group: id.clone(),
                        timer: Timer::Join,
                    };
                    assert!(self.set_timers.contains(&key), "a rebalance ends");
                }
            }
        }
        assert_eq!(parked, self.unanswered, "parked requests are the open ones");
        self.check_replay();
    }

    /// What is durable survives: all offsets, and every group as of its last completed generation.
    fn check_replay(&self) {
        let replayed = self.replayed();
        let offsets = |machine: &Machine| -> BTreeMap<(Arc<str>, Arc<str>, i32), i64> {
            let mut all = BTreeMap::new();
            for (id, group) in &machine.groups {
                for (topic, partition, committed) in group.offsets.iter() {
                    let key = (id.clone(), topic.clone(), partition);
                    all.insert(key, committed.offset);
                }
            }
            all
        };
        assert_eq!(offsets(&replayed), offsets(&self.machine));
        for (id, group) in &self.machine.groups {
            let settled = matches!(group.state, State::Empty | State::Stable);
            if group.recorded && settled {
                let again = &replayed.groups[id];
                // Of a member's protocols only the one in force is recorded, which is also all that a value shows.
                assert_eq!(again.to_value(), group.to_value());
                assert_eq!(again.state, group.state);
            }
        }
        for (id, group) in &replayed.groups {
            assert!(self.machine.groups.contains_key(id), "{id} was forgotten");
            assert_eq!(group.recorded, self.machine.groups[id].recorded);
        }
    }
}
