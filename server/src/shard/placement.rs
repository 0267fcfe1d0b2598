//! A shard's partitions follow the image: opened, reconfigured, closed.

use std::{rc::Rc, sync::Arc, time::Duration};

use forebay_engine::{LogConfig, LogId, LogName, PartitionIndex, SpaceUse};
use futures_util::{StreamExt, stream};

use super::{Shard, msg::Call};
use crate::{
    meta::{Image, PartitionState, Topic},
    partition::Partition,
};

/// A log that cannot be opened is tried again after this long, then after twice as long, and so on.
const OPEN_PAUSE_MIN: Duration = Duration::from_secs(1);
const OPEN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Logs that are opened or deleted at the same time: the more, the fewer syncs a large topic takes.
const LOGS_AT_ONCE_MAX: usize = 256;

impl Shard {
    /// Makes the image this shard's own. Partitions that went are closed first, new ones are open before the image shows them, so
    /// that whoever sees a topic in the image can use it. A partition whose log cannot be opened stays away and is logged.
    pub(super) async fn follow(self: &Rc<Self>, image: Arc<Image>) {
        let _turn = self.following.take(1).await;
        let present = self.image();
        if image.end < present.end {
            return;
        }
        self.close_gone(&image).await;
        let mut missing = Vec::new();
        for topic in image.topics.values() {
            let before = present.topics_by_id.get(&topic.id);
            let unchanged = before.is_some_and(|before| Arc::ptr_eq(before, topic))
                && image.broker_configs == present.broker_configs;
            if !unchanged {
                missing.extend(self.reconfigure(&image, topic));
            }
        }
        stream::iter(missing)
            .for_each_concurrent(LOGS_AT_ONCE_MAX, |(topic, index)| {
                self.open(&image, topic, index)
            })
            .await;
        self.tell_offline();
        self.batch_rules.borrow_mut().clear();
        *self.image.borrow_mut() = image;
        self.image_changed.notify_all();
    }

    /// Applies what changed to partitions that are open; names those that are not.
    fn reconfigure(&self, image: &Image, topic: &Arc<Topic>) -> Vec<(Arc<Topic>, PartitionIndex)> {
        let mut missing = Vec::new();
        for (index, state) in topic.partitions.iter().enumerate() {
            if !self.owns(state) {
                continue;
            }
            let index = PartitionIndex(index as i32);
            match self.partition(topic.id, index) {
                Some(partition) => {
                    partition.log.configure(self.log_config(image, topic));
                    partition.set_leader_epoch(state.leader_epoch);
                }
                None => missing.push((topic.clone(), index)),
            }
        }
        missing
    }

    fn log_config(&self, image: &Image, topic: &Topic) -> LogConfig {
        let config = self
            .config
            .log_config(&image.broker_configs, &topic.configs);
        let space = match topic.internal {
            true => SpaceUse::Internal,
            false => config.space,
        };
        LogConfig { space, ..config }
    }

    async fn open(&self, image: &Image, topic: Arc<Topic>, index: PartitionIndex) {
        let id = LogId {
            topic_id: topic.id,
            partition: index,
        };
        let name = LogName {
            topic: topic.name.clone(),
            partition: index,
        };
        let config = self.log_config(image, &topic);
        let engine = &self.engine;
        match engine.open_log_when_used(id, name.clone(), config).await {
            Ok(log) => {
                let state = &topic.partitions[index.0 as usize];
                let partition = Partition::new(log, state.leader_epoch);
                self.partitions.borrow_mut().insert(id, partition);
                if self.offline.borrow_mut().remove(&id) {
                    tracing::info!(partition = %name, "the log is open now");
                }
            }
            Err(error) => {
                if self.offline.borrow_mut().insert(id) {
                    tracing::error!(partition = %name, %error, "the log cannot be opened: the partition is offline until an attempt succeeds");
                }
            }
        }
    }

    /// Tries again and again to open the logs that could not be opened.
    pub(super) async fn open_offline(self: Rc<Self>) {
        let mut pause = OPEN_PAUSE_MIN;
        while !self.is_stopping() {
            self.rt.sleep(pause).await;
            pause = (pause * 2).min(OPEN_PAUSE_MAX);
            if self.offline.borrow().is_empty() {
                pause = OPEN_PAUSE_MIN;
                continue;
            }
            let _turn = self.following.take(1).await;
            let image = self.image();
            let offline: Vec<LogId> = self.offline.borrow().iter().copied().collect();
            for id in offline {
                match image.topics_by_id.get(&id.topic_id) {
                    Some(topic) => self.open(&image, topic.clone(), id.partition).await,
                    None => drop(self.offline.borrow_mut().remove(&id)),
                }
            }
            self.tell_offline();
        }
    }

    /// A log went offline, or is online again, or just moved.
    pub(super) fn note_readable(self: &Rc<Self>, partition: &Partition) {
        let (id, is_unreadable) = (partition.log.id(), !partition.log.is_readable());
        // With nothing in the set, as ever but after a fault, this does not even hash.
        if self.unreadable.borrow().contains(&id) == is_unreadable {
            return;
        }
        match is_unreadable {
            true => self.unreadable.borrow_mut().insert(id),
            false => self.unreadable.borrow_mut().remove(&id),
        };
        self.tell_offline();
    }

    /// Metadata, which any shard may be asked for, names no leader for a partition that nobody can serve.
    fn tell_offline(self: &Rc<Self>) {
        let offline = &*self.offline.borrow() | &*self.unreadable.borrow();
        if **self.offline_told.borrow() == offline {
            return;
        }
        let offline = Arc::new(offline);
        *self.offline_told.borrow_mut() = offline.clone();
        for other in self.shards().filter(|other| *other != self.id) {
            // Nobody waits: it is on its way, and overtakes no later one.
            drop(self.call(other, Call::Offline(self.id, offline.clone())));
        }
    }

    async fn close_gone(&self, image: &Image) {
        let present = self.image();
        let mut gone: Vec<(LogId, LogName)> = Vec::new();
        for topic in present.topics_by_id.values() {
            if image.topics_by_id.contains_key(&topic.id) {
                continue;
            }
            for (index, state) in topic.partitions.iter().enumerate() {
                if self.owns(state) {
                    let partition = PartitionIndex(index as i32);
                    let (topic_id, topic) = (topic.id, topic.name.clone());
                    let id = LogId {
                        topic_id,
                        partition,
                    };
                    gone.push((id, LogName { topic, partition }));
                }
            }
        }
        stream::iter(gone)
            .for_each_concurrent(LOGS_AT_ONCE_MAX, async |(id, name)| {
                self.offline.borrow_mut().remove(&id);
                self.unreadable.borrow_mut().remove(&id);
                let partition = self.partitions.borrow_mut().remove(&id);
                if let Some(partition) = partition {
                    partition.close();
                }
                if let Err(fault) = self.engine.delete_log(id, &name).await {
                    tracing::error!(partition = %name, %fault, "log not deleted");
                }
            })
            .await;
    }

    /// Whether this shard of this host keeps the partition.
    fn owns(&self, state: &PartitionState) -> bool {
        state.replicas.contains(&self.config.node_id) && self.shard_of_lane(state.lane) == self.id
    }
}
