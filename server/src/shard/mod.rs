//! A shard: partitions, coordinators and connections of one core, and the mesh between shards.
//!
//! A handler finds everything through `Rc<Shard>`. Rule of order: a handler queues its effects (local appends, calls to other shards)
//! before its first `await`, so that requests of one connection take effect in the order in which they came.

mod ask;
mod execute;
pub mod mesh;
pub mod msg;
mod placement;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{HashMap, HashSet},
    future::Future,
    rc::Rc,
    sync::Arc,
};

use forebay_engine::{
    Engine, LeaderEpoch, Log, LogId, PartitionIndex, ShardId, TopicId,
    batch::BatchRules,
    rt::{
        Class, Rt,
        local::{Budget, Notify},
    },
};

use crate::{
    api::{Sessions, producer_ids::ProducerIds},
    config::Config,
    coord::Coordinators,
    meta::{Controller, Image, Topic},
    metrics::Counters,
    net::{self, Front},
    partition::Partition,
};
use mesh::{Mesh, MeshSeeds};
use msg::{Answer, Call};

pub struct Shard {
    pub id: ShardId,
    pub rt: Rt,
    pub engine: Engine,
    pub config: Rc<Config>,
    pub counters: Counters,
    pub coordinators: Rc<Coordinators>,
    /// Connections of this shard.
    pub front: Front,
    pub fetch_sessions: RefCell<Sessions>,
    pub producer_ids: ProducerIds,
    count: u16,
    image: RefCell<Arc<Image>>,
    image_changed: Notify,
    partitions: RefCell<HashMap<LogId, Rc<Partition>>>,
    /// Partitions of this shard whose log could not be opened; it is tried again.
    offline: RefCell<HashSet<LogId>>,
    /// Those whose log is there, and could not be read when it was first used.
    unreadable: RefCell<HashSet<LogId>>,
    /// Both of the other shards, as they told.
    offline_elsewhere: RefCell<HashMap<ShardId, Arc<HashSet<LogId>>>>,
    /// What this shard told the others last.
    offline_told: RefCell<Arc<HashSet<LogId>>>,
    /// What topics ask of batches, computed on first need and forgotten with each new image.
    batch_rules: RefCell<HashMap<TopicId, Rc<BatchRules>>>,
    /// Partitions in which appends wait for room.
    crowded: RefCell<Vec<Rc<Partition>>>,
    /// On shard 0 only.
    controller: OnceCell<Rc<Controller>>,
    /// One image is followed at a time.
    following: Budget,
    mesh: Mesh,
    stopping: Cell<bool>,
    stop: Notify,
}

impl Shard {
    /// Joins the peers and starts the shard's own tasks; completes when all peers have joined.
    pub async fn start(
        rt: Rt,
        id: ShardId,
        seeds: MeshSeeds,
        engine: Engine,
        config: Rc<Config>,
    ) -> Rc<Shard> {
        let count = seeds.shard_count();
        let shard = Rc::new(Shard {
            id,
            engine,
            counters: Counters::default(),
            coordinators: Rc::default(),
            front: Front::new(&config, count),
            fetch_sessions: RefCell::new(Sessions::new(
                config.fetch.session_slots_max / usize::from(count),
            )),
            config,
            count,
            image: RefCell::default(),
            image_changed: Notify::new(),
            partitions: RefCell::default(),
            offline: RefCell::default(),
            unreadable: RefCell::default(),
            offline_elsewhere: RefCell::default(),
            offline_told: RefCell::default(),
            producer_ids: ProducerIds::default(),
            batch_rules: RefCell::default(),
            crowded: RefCell::default(),
            controller: OnceCell::new(),
            following: Budget::new(1),
            mesh: Mesh::new(count),
            stopping: Cell::new(false),
            stop: Notify::new(),
            rt,
        });
        mesh::join_peers(&shard, seeds).await;
        let rt = &shard.rt;
        rt.spawn(Class::Foreground, follow_progress(shard.clone()))
            .detach();
        rt.spawn(Class::Foreground, follow_room(shard.clone()))
            .detach();
        rt.spawn(Class::Foreground, net::reap(shard.clone()))
            .detach();
        shard
    }

    /// The newest published metadata.
    pub fn image(&self) -> Arc<Image> {
        self.image.borrow().clone()
    }

    /// Notified when `image` has changed and this shard's partitions follow it.
    pub fn image_changed(&self) -> &Notify {
        &self.image_changed
    }

    /// A partition this shard owns.
    pub fn partition(&self, topic: TopicId, partition: PartitionIndex) -> Option<Rc<Partition>> {
        self.partition_of(LogId {
            topic_id: topic,
            partition,
        })
    }

    pub fn partition_of(&self, log: LogId) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(&log).cloned()
    }

    /// Whether the partition belongs to this shard, but its log could not be opened.
    pub fn is_offline(&self, log: LogId) -> bool {
        self.offline.borrow().contains(&log)
    }

    /// Whether the partition belongs to some shard of this host, and cannot serve anything since its log could not be opened.
    pub fn is_offline_anywhere(&self, log: LogId) -> bool {
        let elsewhere = self.offline_elsewhere.borrow();
        let here = self.is_offline(log) || self.unreadable.borrow().contains(&log);
        here || elsewhere.values().any(|offline| offline.contains(&log))
    }

    /// All partitions this shard owns.
    pub fn partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// What a topic of the present image asks of batches.
    pub fn batch_rules(&self, topic: &Topic) -> Rc<BatchRules> {
        let mut known = self.batch_rules.borrow_mut();
        let compute = || {
            let image = self.image.borrow();
            let config = self
                .config
                .log_config(&image.broker_configs, &topic.configs);
            Rc::new(config.rules)
        };
        known.entry(topic.id).or_insert_with(compute).clone()
    }

    /// Makes a log that no image names (the metadata log) a partition of this shard, so that its high watermark follows its progress.
    pub fn adopt(&self, log: Log, epoch: LeaderEpoch) -> Rc<Partition> {
        let id = log.id();
        let partition = Partition::new(log, epoch);
        let before = self.partitions.borrow_mut().insert(id, partition.clone());
        assert!(before.is_none(), "a log belongs to one partition");
        partition
    }

    /// The shard that owns a lane on this host.
    pub fn shard_of_lane(&self, lane: u16) -> ShardId {
        ShardId(lane % self.count)
    }

    pub fn shard_count(&self) -> u16 {
        self.count
    }

    /// All shards of this host, this one included.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.count).map(ShardId)
    }

    /// Asks another shard, or this one. The call is on its way (or, for this shard, its part before the first await has run) when
    /// this returns, polled or not.
    pub fn call(self: &Rc<Self>, to: ShardId, call: Call) -> impl Future<Output = Answer> + use<> {
        assert!(to.0 < self.count, "there is no shard {to}");
        mesh::call(self, to, call)
    }

    /// Gives shard 0 its controller, once.
    pub fn install_controller(&self, controller: Rc<Controller>) {
        assert_eq!(self.id, ShardId(0), "the metadata log lives on shard 0");
        let installed = self.controller.set(controller).is_ok();
        assert!(installed, "the controller is installed once");
    }

    /// Notes that appends wait for room in this partition.
    pub(crate) fn await_room(&self, partition: &Rc<Partition>) {
        let mut crowded = self.crowded.borrow_mut();
        if !crowded.iter().any(|known| Rc::ptr_eq(known, partition)) {
            crowded.push(partition.clone());
        }
    }

    /// The last step: queues between shards drain and end.
    pub fn leave_mesh(&self) {
        self.stopping.set(true);
        self.mesh.close();
        self.stop.notify_all();
    }

    /// Completes when this shard has left the mesh and all it had to say is on its way.
    pub async fn stopped(&self) {
        let stop = self.stop.listen();
        if !self.is_stopping() {
            stop.await;
        }
        self.mesh.flushed().await;
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

/// Moves high watermarks as commits complete: one wake-up for all partitions of a group commit.
async fn follow_progress(shard: Rc<Shard>) {
    loop {
        for log in shard.engine.progress().await {
            if let Some(partition) = shard.partition_of(log) {
                partition.on_progress();
                shard.note_readable(&partition);
            }
        }
        if shard.is_stopping() {
            return;
        }
    }
}

/// Lets waiting appends in when the disk has caught up.
async fn follow_room(shard: Rc<Shard>) {
    let room = shard.engine.room();
    while !shard.is_stopping() {
        let more = room.listen();
        let crowded = shard.crowded.take();
        let still: Vec<_> = crowded
            .into_iter()
            .filter(|partition| !partition.append_waiting())
            .collect();
        shard.crowded.borrow_mut().extend(still);
        more.await;
    }
}
