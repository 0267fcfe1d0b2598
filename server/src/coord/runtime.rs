//! All coordinators of one shard: one per partition of `__consumer_offsets` that the shard owns.
//!
//! A coordinator first reads its partition into a [`Machine`] (COORDINATOR_LOAD_IN_PROGRESS meanwhile). Then every request is one step:
//! its records go to the partition as one batch, its effects hold for the next step at once, and every reply waits
//! until all that was written before it is committed. So nobody ever sees what a crash could take back.
//!
//! When an append fails, the machine is ahead of its log: the coordinator is dropped, whoever waits is refused, and the next
//! request reads the log again (once the log is online again, if it went offline).
//!
//! Bounds: memory of all groups of the shard ([`MEMORY_SHARE`]), appends that wait for room (see `coordinator`), and by
//! that of the requests in flight, who wait here.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use forebay_engine::{
    Offset, PartitionIndex,
    batch::ValidBatch,
    rt::{
        Class, Instant,
        local::{Notify, oneshot},
    },
};

use super::{
    OFFSETS_TOPIC,
    coordinator::{Answer, Coordinator, Phase},
    group::{
        Context, Event, GroupError, GroupFilter, Machine, Reply, Request, Rules, TimerChange,
        TimerKey, Token, Verb,
    },
    log::{self, BATCH_BYTES_MAX},
    records::Record,
    timers::Timers,
};
use crate::{config::Config, meta::Image, partition::Turn, shard::Shard};

/// Groups may take this part of the broker's memory: one over it.
const MEMORY_SHARE: u64 = 32;
const NANOS_PER_MS: u64 = 1_000_000;
/// After the disk did not give the groups of a partition they are read again, when somebody asks, no sooner than this.
const LOAD_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct Coordinators {
    /// Set by `start`.
    shard: OnceCell<Weak<Shard>>,
    closed: Cell<bool>,
    coordinators: RefCell<BTreeMap<PartitionIndex, Rc<Coordinator>>>,
    timers: RefCell<Timers<Alarm>>,
    /// The next timer runs out earlier than the one that was next before.
    timers_moved: Notify,
    /// Held by all machines together.
    bytes: Cell<usize>,
    next_token: Cell<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Alarm {
    Group {
        coordinator: PartitionIndex,
        key: TimerKey,
    },
    ExpireOffsets,
}

impl Coordinators {
    /// Starts the tasks of this shard's coordinators. Called once, when logs may be appended to.
    pub fn start(shard: &Rc<Shard>) {
        let this = &shard.coordinators;
        let attached = this.shard.set(Rc::downgrade(shard)).is_ok();
        assert!(attached, "coordinators start once");
        let rt = &shard.rt;
        rt.spawn(Class::Foreground, run_timers(Rc::downgrade(shard)))
            .detach();
        rt.spawn(Class::Housekeeping, follow_images(Rc::downgrade(shard)))
            .detach();
        this.set_expiry_timer(shard);
    }

    /// The broker stops: whoever waits is refused, and nothing is coordinated any more.
    pub fn close(&self) {
        self.closed.set(true);
        for coordinator in self.coordinators.take().into_values() {
            self.retire(&coordinator);
        }
        self.timers_moved.notify_all();
    }

    /// Its part before the first await takes effect in the order of calls.
    pub async fn handle(self: &Rc<Self>, request: Request) -> Reply {
        let Some(shard) = self.shard() else {
            return Reply::Refused(GroupError::NotCoordinator);
        };
        let outcome = match request {
            Request::List(filter) => self.list(&shard, &filter),
            Request::Group { coordinator, verb } => self.ask(&shard, coordinator, verb).await,
        };
        outcome.unwrap_or_else(Reply::Refused)
    }

    async fn ask(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        index: PartitionIndex,
        verb: Verb,
    ) -> Result<Reply, GroupError> {
        let coordinator = self.find(shard, index).ok_or(GroupError::NotCoordinator)?;
        coordinator.check_ready()?;
        // Before the machine decides: it cannot take back what the log then has no space for. Every client asks again after
        // this error, for whatever it asked; Kafka gives it when its log does not take a commit for the moment.
        if verb.needs_space() && !coordinator.partition.log.has_space() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let token = Token(self.next_token.get());
        self.next_token.set(token.0 + 1);
        let (sender, answer) = oneshot();
        coordinator.waiting.borrow_mut().insert(token, sender);
        self.step(shard, &coordinator, Event::Request { token, verb });
        // Dropped with the coordinator: its log has failed, or it is not ours any more.
        let Answer { reply, after } = answer.await.ok_or(GroupError::NotCoordinator)?;
        if !coordinator.is_committed(after) {
            let limit = Duration::from_millis(shard.config.groups.commit_timeout_ms);
            let committed = shard.rt.timeout(limit, coordinator.committed(after)).await;
            // Not in time, or the log has failed: the client cannot know what became of it, and asks again.
            committed
                .unwrap_or(Err(()))
                .map_err(|()| GroupError::CoordinatorNotAvailable)?;
        }
        Ok(reply)
    }

    /// What is listed may not be committed yet: a list promises nothing.
    fn list(self: &Rc<Self>, shard: &Rc<Shard>, filter: &GroupFilter) -> Result<Reply, GroupError> {
        let mut groups = Vec::new();
        for index in owned_partitions(shard) {
            let coordinator = self.find(shard, index).ok_or(GroupError::NotCoordinator)?;
            match &*coordinator.phase.borrow() {
                Phase::Loading => return Err(GroupError::CoordinatorLoadInProgress),
                Phase::Failed => return Err(GroupError::CoordinatorNotAvailable),
                Phase::Active(machine) => groups.extend(machine.list(filter)),
            }
        }
        Ok(Reply::Listed(groups))
    }

    fn shard(&self) -> Option<Rc<Shard>> {
        let shard = self.shard.get()?.upgrade()?;
        (!self.closed.get()).then_some(shard)
    }

    /// The coordinator of a partition this shard owns; opened at first need.
    fn find(self: &Rc<Self>, shard: &Rc<Shard>, index: PartitionIndex) -> Option<Rc<Coordinator>> {
        let present = self.coordinators.borrow().get(&index).cloned();
        if let Some(coordinator) = present {
            // One that failed with its log starts over when the log is online again.
            let start_over = coordinator.start_over.get();
            let starts_over = matches!(*coordinator.phase.borrow(), Phase::Failed)
                && start_over.is_some_and(|at| at <= shard.rt.now())
                && coordinator.partition.log.fault().is_none();
            if !coordinator.partition.is_closed() && !starts_over {
                return Some(coordinator);
            }
            self.drop_coordinator(&coordinator);
        }
        let topic = shard.image().topics.get(OFFSETS_TOPIC)?.id;
        let coordinator = Coordinator::new(index, shard.partition(topic, index)?);
        self.coordinators
            .borrow_mut()
            .insert(index, coordinator.clone());
        if coordinator.partition.log.marks().log_end == Offset::ZERO {
            self.activate(shard, &coordinator, Machine::new(rules(&shard.config)));
        } else {
            let load = load(shard.clone(), coordinator.clone());
            shard.rt.spawn(Class::Foreground, load).detach();
        }
        Some(coordinator)
    }

    fn activate(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        coordinator: &Rc<Coordinator>,
        machine: Machine,
    ) {
        self.bytes.set(self.bytes.get() + machine.bytes());
        coordinator.on_loaded(machine);
        self.step(shard, coordinator, Event::Loaded);
    }

    /// One event through the machine, and all that follows from it.
    fn step(self: &Rc<Self>, shard: &Rc<Shard>, coordinator: &Rc<Coordinator>, event: Event) {
        let rt = &shard.rt;
        let unique = u128::from(rt.random_u64()) << 64 | u128::from(rt.random_u64());
        let effects = {
            let mut phase = coordinator.phase.borrow_mut();
            let Phase::Active(machine) = &mut *phase else {
                return;
            };
            let before = machine.bytes();
            let room_bytes = memory_bytes_max(shard).saturating_sub(self.bytes.get());
            let context = Context {
                now: rt.wall_clock(),
                unique,
                room_bytes,
            };
            let effects = machine.step(context, event);
            self.bytes.set(self.bytes.get() - before + machine.bytes());
            effects
        };
        self.change_timers(shard, coordinator.index, effects.timers);
        if let Err(error) = self.write(shard, coordinator, &effects.records) {
            return self.fail(coordinator, &error);
        }
        for (token, reply) in effects.replies {
            let after = coordinator.after_all_so_far();
            let sender = coordinator.waiting.borrow_mut().remove(&token);
            let sender = sender.expect("a token is answered once");
            // The caller may have gone meanwhile.
            let _ = sender.send(Answer { reply, after });
        }
    }

    fn write(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        coordinator: &Rc<Coordinator>,
        records: &[Record],
    ) -> Result<(), String> {
        for batch in log::batches(records, shard.rt.wall_clock()) {
            self.append(shard, coordinator, batch)?;
        }
        Ok(())
    }

    fn append(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        coordinator: &Rc<Coordinator>,
        batch: ValidBatch,
    ) -> Result<(), String> {
        coordinator.on_given();
        match coordinator.partition.append_in_turn(batch) {
            Turn::Done(Ok(appended)) => coordinator.on_appended(appended.last_offset.plus(1)),
            Turn::Done(Err(error)) => return Err(error.to_string()),
            Turn::Waiting(outcome) => {
                shard.await_room(&coordinator.partition);
                let (this, coordinator) = (self.clone(), coordinator.clone());
                let wait = async move {
                    match outcome.await {
                        Some(Ok(appended)) => coordinator.on_appended(appended.last_offset.plus(1)),
                        Some(Err(error)) => this.fail(&coordinator, &error.to_string()),
                        None => this.fail(&coordinator, "the partition was closed"),
                    }
                };
                shard.rt.spawn(Class::Foreground, wait).detach();
            }
        }
        Ok(())
    }

    /// The machine may be ahead of its log: forget it. The next request starts over with what the log holds.
    fn fail(&self, coordinator: &Rc<Coordinator>, why: &str) {
        if matches!(*coordinator.phase.borrow(), Phase::Failed) {
            return;
        }
        let partition = coordinator.index;
        tracing::error!(%partition, %why, "group coordinator failed");
        if coordinator.partition.log.fault().is_some() {
            coordinator.start_over.set(Some(Instant(0)));
            self.retire(coordinator);
        } else {
            self.drop_coordinator(coordinator);
        }
    }

    fn drop_coordinator(&self, coordinator: &Rc<Coordinator>) {
        let mut coordinators = self.coordinators.borrow_mut();
        let present = coordinators.get(&coordinator.index);
        if present.is_some_and(|present| Rc::ptr_eq(present, coordinator)) {
            coordinators.remove(&coordinator.index);
        }
        drop(coordinators);
        self.retire(coordinator);
    }

    fn retire(&self, coordinator: &Rc<Coordinator>) {
        if let Some(machine) = coordinator.retire() {
            self.bytes.set(self.bytes.get() - machine.bytes());
            let index = coordinator.index;
            self.timers.borrow_mut().cancel_where(
                |alarm| matches!(alarm, Alarm::Group { coordinator, .. } if *coordinator == index),
            );
        }
    }

    fn change_timers(&self, shard: &Shard, coordinator: PartitionIndex, changes: Vec<TimerChange>) {
        for change in changes {
            match change {
                TimerChange::Set { key, after_ms } => {
                    self.set_timer(shard, Alarm::Group { coordinator, key }, after_ms);
                }
                TimerChange::Cancel(key) => {
                    let alarm = Alarm::Group { coordinator, key };
                    self.timers.borrow_mut().cancel(&alarm);
                }
            }
        }
    }

    fn set_timer(&self, shard: &Shard, alarm: Alarm, after_ms: u64) {
        let after_ns = after_ms.saturating_mul(NANOS_PER_MS);
        let deadline = Instant(shard.rt.now().0.saturating_add(after_ns));
        let mut timers = self.timers.borrow_mut();
        let next_before = timers.next_deadline();
        timers.set(alarm, deadline);
        let is_next = next_before.is_none_or(|next| deadline < next);
        drop(timers);
        if is_next {
            self.timers_moved.notify_all();
        }
    }

    fn set_expiry_timer(&self, shard: &Shard) {
        let interval_ms = shard.config.groups.offsets_retention_check_interval_ms;
        self.set_timer(shard, Alarm::ExpireOffsets, interval_ms);
    }

    fn on_alarm(self: &Rc<Self>, shard: &Rc<Shard>, alarm: Alarm) {
        match alarm {
            Alarm::Group { coordinator, key } => {
                let coordinator = self.coordinators.borrow().get(&coordinator).cloned();
                if let Some(coordinator) = coordinator {
                    self.step(shard, &coordinator, Event::Timer(key));
                }
            }
            Alarm::ExpireOffsets => {
                self.set_expiry_timer(shard);
                self.step_all(shard, &Event::ExpireOffsets);
            }
        }
    }

    fn step_all(self: &Rc<Self>, shard: &Rc<Shard>, event: &Event) {
        let all: Vec<_> = self.coordinators.borrow().values().cloned().collect();
        for coordinator in all {
            self.step(shard, &coordinator, event.clone());
        }
    }

    /// Opens what the shard came to own, closes what went, and drops offsets of topics that were deleted since `before`.
    fn follow(self: &Rc<Self>, shard: &Rc<Shard>, before: &Image, image: &Image) {
        for index in owned_partitions(shard) {
            self.find(shard, index);
        }
        let all: Vec<_> = self.coordinators.borrow().values().cloned().collect();
        for coordinator in all {
            if coordinator.partition.is_closed() {
                self.drop_coordinator(&coordinator);
            }
        }
        let gone: BTreeSet<Arc<str>> = before
            .topics
            .values()
            .filter(|topic| !image.topics_by_id.contains_key(&topic.id))
            .map(|topic| topic.name.as_str().into())
            .collect();
        if !gone.is_empty() {
            self.step_all(shard, &Event::TopicsDeleted(gone));
        }
    }
}

async fn load(shard: Rc<Shard>, coordinator: Rc<Coordinator>) {
    let this = &shard.coordinators;
    let read_bytes_max = shard.config.groups.offsets_load_bytes;
    let log = &coordinator.partition.log;
    let loaded = log::load(&shard.rt, log, rules(&shard.config), read_bytes_max).await;
    if !matches!(*coordinator.phase.borrow(), Phase::Loading) {
        return;
    }
    match loaded {
        Ok(machine) => {
            // A topic may have been deleted, and the broker stopped before its offsets were.
            let image = shard.image();
            let mut gone = machine.topics();
            gone.retain(|topic| !image.topics.contains_key(&**topic));
            this.activate(&shard, &coordinator, machine);
            this.step(&shard, &coordinator, Event::TopicsDeleted(gone));
        }
        // To go on without what could not be read would lose offsets. It stays failed where to read the same bytes again would not help.
        Err(error) => {
            let partition = coordinator.index;
            if error.may_pass() {
                let start_over = shard.rt.now().plus(LOAD_PAUSE);
                coordinator.start_over.set(Some(start_over));
            }
            tracing::error!(%partition, %error, "cannot load the groups of this partition");
            this.retire(&coordinator);
        }
    }
}

/// Lives as long as the shard; sleeps until the next timer, and for ever while there is none.
async fn run_timers(shard: Weak<Shard>) {
    loop {
        let (rt, moved, sleep) = {
            let Some(strong) = shard.upgrade() else {
                return;
            };
            let this = &strong.coordinators;
            if this.closed.get() {
                return;
            }
            let moved = this.timers_moved.listen();
            let now = strong.rt.now();
            loop {
                let due = this.timers.borrow_mut().pop_due(now);
                let Some(alarm) = due else { break };
                this.on_alarm(&strong, alarm);
            }
            let next = this.timers.borrow().next_deadline();
            let sleep = next.map(|next| Duration::from_nanos(next.0.saturating_sub(now.0)));
            (strong.rt.clone(), moved, sleep)
        };
        match sleep {
            // Either way there may be something due now.
            Some(sleep) => drop(rt.timeout(sleep, moved).await),
            None => moved.await,
        }
    }
}

async fn follow_images(shard: Weak<Shard>) {
    let mut seen: Option<Arc<Image>> = None;
    loop {
        let changed = {
            let Some(strong) = shard.upgrade() else {
                return;
            };
            if strong.coordinators.closed.get() {
                return;
            }
            let changed = strong.image_changed().listen();
            let image = strong.image();
            let before = seen.replace(image.clone());
            let before = before.as_deref().unwrap_or(&image);
            strong.coordinators.follow(&strong, before, &image);
            changed
        };
        changed.await;
    }
}

fn owned_partitions(shard: &Shard) -> Vec<PartitionIndex> {
    let image = shard.image();
    let Some(topic) = image.topics.get(OFFSETS_TOPIC) else {
        return Vec::new();
    };
    (0..topic.partitions.len() as i32)
        .map(PartitionIndex)
        .filter(|index| shard.partition(topic.id, *index).is_some())
        .collect()
}

fn memory_bytes_max(shard: &Shard) -> usize {
    let share = shard.config.memory.total_bytes / MEMORY_SHARE / u64::from(shard.shard_count());
    usize::try_from(share).unwrap_or(usize::MAX)
}

fn rules(config: &Config) -> Rules {
    let groups = &config.groups;
    let timeout = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
    Rules {
        session_timeout_min_ms: timeout(groups.session_timeout_min_ms),
        session_timeout_max_ms: timeout(groups.session_timeout_max_ms),
        initial_rebalance_delay_ms: groups.initial_rebalance_delay_ms,
        group_size_max: groups.size_max,
        offset_metadata_bytes_max: groups.offset_metadata_bytes_max,
        offsets_retention_ms: i64::try_from(groups.offsets_retention_ms).unwrap_or(i64::MAX),
        batch_bytes_max: BATCH_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests;
