//! The immutable picture of the cluster that every shard reads, and how records change it.
//!
//! [`Image::apply`] is the only way an image changes: for a request just decided, for an entry that arrived from another broker, and
//! for the log when a broker starts. It refuses records that contradict the image, since going on would spread a broken state.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    fmt,
    sync::Arc,
};

use forebay_engine::{LeaderEpoch, Offset, TopicId};

use super::records::{Assignment, Record, Resource};

/// The feature that numbers what a metadata log may contain, and the newest level we know.
pub const METADATA_FEATURE: &str = "forebay.metadata";
pub const METADATA_LEVEL: u16 = 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
    /// Grows with every start of the broker: the metadata offset of its registration.
    pub epoch: i64,
    pub fenced: bool,
    /// Of one process start: repeating a registration with it changes nothing.
    pub incarnation: [u8; 16],
    /// Of the data directory: another one means that the broker lost everything.
    pub storage_id: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Which lane, and so which core of each host, the partition belongs to. Fixed at creation.
    pub lane: u16,
    pub leader: Option<i32>,
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this state.
    pub version: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub id: TopicId,
    pub name: String,
    /// `__consumer_offsets` and the like.
    pub internal: bool,
    pub partitions: Vec<PartitionState>,
    /// Only what was set on the topic itself, under Kafka's names.
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub cluster_id: String,
    /// Lanes of the cluster; 0 until its first record is applied.
    pub lanes: u16,
    /// The lane of the next new partition: they go round, so that a topic's partitions spread.
    pub next_lane: u16,
    pub features: BTreeMap<String, u16>,
    /// The metadata offset this image includes everything below of.
    pub end: Option<Offset>,
    pub brokers: BTreeMap<i32, Broker>,
    pub topics: BTreeMap<String, Arc<Topic>>,
    pub topics_by_id: HashMap<TopicId, Arc<Topic>>,
    /// Dynamic broker configuration: `None` is the cluster-wide default.
    pub broker_configs: BTreeMap<Option<i32>, BTreeMap<String, String>>,
    /// The first producer id not yet given to any broker as part of a block.
    pub next_producer_id: i64,
}

/// A record that contradicts the image: a bug in who wrote it, or a damaged log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError(pub String);

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ApplyError {}

impl Image {
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics_by_id.get(&id)
    }

    pub fn partition_count(&self) -> usize {
        self.topics
            .values()
            .map(|topic| topic.partitions.len())
            .sum()
    }

    /// Brokers that may be given partitions.
    pub fn active_brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// Applies one group, found at `offset` of the metadata log. After an error the image is broken and must not be used.
    pub fn apply(&mut self, offset: Offset, group: &[Record]) -> Result<(), ApplyError> {
        if self.end.is_some_and(|end| offset < end) {
            return refuse(format!("offset {offset} was applied before"));
        }
        let mut delta = Delta {
            image: self,
            offset,
            changed: BTreeMap::new(),
        };
        for record in group {
            delta.apply(record)?;
        }
        delta.finish()?;
        self.end = Some(offset.plus(1));
        Ok(())
    }
}

fn refuse<T>(why: String) -> Result<T, ApplyError> {
    Err(ApplyError(why))
}

/// One group on its way into an image. Topics are taken out, changed and put back once, however many records concern them.
struct Delta<'a> {
    image: &'a mut Image,
    offset: Offset,
    changed: BTreeMap<TopicId, Topic>,
}

impl Delta<'_> {
    fn apply(&mut self, record: &Record) -> Result<(), ApplyError> {
        if self.image.lanes == 0 && !matches!(record, Record::Cluster { .. }) {
            return refuse("the first record must describe the cluster".to_owned());
        }
        match record {
            Record::Cluster { id, lanes } => self.describe_cluster(id, *lanes),
            Record::FeatureLevel { name, level } => self.set_feature(name, *level),
            Record::RegisterBroker {
                id,
                incarnation,
                storage_id,
                host,
                port,
                rack,
                fenced,
            } => {
                let broker = Broker {
                    id: *id,
                    host: host.clone(),
                    port: *port,
                    rack: rack.clone(),
                    epoch: self.offset.get(),
                    fenced: *fenced,
                    incarnation: *incarnation,
                    storage_id: *storage_id,
                };
                self.image.brokers.insert(*id, broker);
                Ok(())
            }
            Record::Topic { id, name, internal } => self.add_topic(*id, name, *internal),
            Record::Partition {
                topic,
                index,
                lane,
                state,
            } => self.add_partition(*topic, *index, *lane, state),
            Record::PartitionChange {
                topic,
                index,
                version,
                state,
            } => self.change_partition(*topic, *index, *version, state),
            Record::RemoveTopic { id } => self.remove_topic(*id),
            Record::Config {
                resource,
                name,
                value,
            } => self.set_config(*resource, name, value.as_deref()),
            Record::ProducerIds { next } => {
                if *next <= self.image.next_producer_id {
                    return refuse(format!("producer ids below {next} were given away before"));
                }
                self.image.next_producer_id = *next;
                Ok(())
            }
        }
    }

    fn describe_cluster(&mut self, id: &str, lanes: u16) -> Result<(), ApplyError> {
        if self.image.lanes != 0 {
            return refuse("the cluster is described already".to_owned());
        }
        if lanes == 0 {
            return refuse("a cluster has lanes".to_owned());
        }
        self.image.cluster_id = id.to_owned();
        self.image.lanes = lanes;
        Ok(())
    }

    fn set_feature(&mut self, name: &str, level: u16) -> Result<(), ApplyError> {
        if name != METADATA_FEATURE || level > METADATA_LEVEL {
            return refuse(format!(
                "feature {name} level {level} needs a newer version"
            ));
        }
        self.image.features.insert(name.to_owned(), level);
        Ok(())
    }

    fn add_topic(&mut self, id: TopicId, name: &str, internal: bool) -> Result<(), ApplyError> {
        let known = self.image.topics.contains_key(name)
            || self.image.topics_by_id.contains_key(&id)
            || self.changed.values().any(|topic| topic.name == name);
        if known {
            return refuse(format!("topic {name} ({id}) exists"));
        }
        let topic = Topic {
            id,
            name: name.to_owned(),
            internal,
            partitions: Vec::new(),
            configs: BTreeMap::new(),
        };
        match self.changed.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(topic);
                Ok(())
            }
            Entry::Occupied(_) => refuse(format!("topic id {id} exists")),
        }
    }

    fn add_partition(
        &mut self,
        topic: TopicId,
        index: i32,
        lane: u16,
        state: &Assignment,
    ) -> Result<(), ApplyError> {
        check_assignment(state)?;
        let lanes = self.image.lanes;
        if lane >= lanes {
            return refuse(format!("lane {lane} of {lanes}"));
        }
        let changed = self.change(topic)?;
        if usize::try_from(index) != Ok(changed.partitions.len()) {
            return refuse(format!(
                "partition {}-{index} is not the next",
                changed.name
            ));
        }
        changed.partitions.push(partition_state(lane, 0, state));
        self.image.next_lane = (lane + 1) % lanes;
        Ok(())
    }

    fn change_partition(
        &mut self,
        topic: TopicId,
        index: i32,
        version: i32,
        state: &Assignment,
    ) -> Result<(), ApplyError> {
        check_assignment(state)?;
        let topic = self.change(topic)?;
        let name = format!("{}-{index}", topic.name);
        let present = usize::try_from(index)
            .ok()
            .and_then(|index| topic.partitions.get_mut(index));
        let Some(present) = present else {
            return refuse(format!("there is no partition {name}"));
        };
        if Some(version) != present.version.checked_add(1) {
            return refuse(format!(
                "{name} version {version} after {}",
                present.version
            ));
        }
        let epoch_goes_back = state.leader_epoch < present.leader_epoch;
        let epoch_stays = state.leader_epoch == present.leader_epoch;
        if epoch_goes_back || (epoch_stays && state.leader != present.leader) {
            return refuse(format!("{name} has another leader in an old epoch"));
        }
        *present = partition_state(present.lane, version, state);
        Ok(())
    }

    fn remove_topic(&mut self, id: TopicId) -> Result<(), ApplyError> {
        let stored = self.image.topics_by_id.remove(&id);
        if let Some(topic) = &stored {
            self.image.topics.remove(&topic.name);
        }
        if self.changed.remove(&id).is_none() && stored.is_none() {
            return refuse(format!("there is no topic {id}"));
        }
        Ok(())
    }

    fn set_config(
        &mut self,
        resource: Resource,
        name: &str,
        value: Option<&str>,
    ) -> Result<(), ApplyError> {
        let configs = match resource {
            Resource::Topic(id) => &mut self.change(id)?.configs,
            Resource::Broker(broker) => self.image.broker_configs.entry(broker).or_default(),
        };
        match value {
            Some(value) => configs.insert(name.to_owned(), value.to_owned()),
            None => configs.remove(name),
        };
        let broker_configs = &mut self.image.broker_configs;
        broker_configs.retain(|_, configs| !configs.is_empty());
        Ok(())
    }

    /// The topic, to be changed.
    fn change(&mut self, id: TopicId) -> Result<&mut Topic, ApplyError> {
        match self.changed.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => match self.image.topics_by_id.get(&id) {
                Some(topic) => Ok(entry.insert(Topic::clone(topic))),
                None => refuse(format!("there is no topic {id}")),
            },
        }
    }

    fn finish(self) -> Result<(), ApplyError> {
        for (id, topic) in self.changed {
            if topic.partitions.is_empty() {
                return refuse(format!("topic {} has no partitions", topic.name));
            }
            let topic = Arc::new(topic);
            self.image.topics.insert(topic.name.clone(), topic.clone());
            self.image.topics_by_id.insert(id, topic);
        }
        Ok(())
    }
}

fn partition_state(lane: u16, version: i32, state: &Assignment) -> PartitionState {
    PartitionState {
        lane,
        leader: state.leader,
        leader_epoch: state.leader_epoch,
        version,
        replicas: state.replicas.clone(),
        isr: state.isr.clone(),
        elr: state.elr.clone(),
    }
}

/// What holds for every partition at any time (replication rules, section 1).
fn check_assignment(state: &Assignment) -> Result<(), ApplyError> {
    let Assignment {
        replicas,
        isr,
        elr,
        leader,
        leader_epoch,
    } = state;
    let distinct = |brokers: &[i32]| {
        let mut sorted = brokers.to_vec();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair[0] != pair[1])
    };
    if replicas.is_empty() || ![replicas, isr, elr].into_iter().all(|list| distinct(list)) {
        return refuse(format!("replicas {replicas:?}, ISR {isr:?}, ELR {elr:?}"));
    }
    if !isr
        .iter()
        .chain(elr)
        .all(|broker| replicas.contains(broker))
    {
        return refuse(format!(
            "ISR {isr:?} or ELR {elr:?} outside of {replicas:?}"
        ));
    }
    if elr.iter().any(|broker| isr.contains(broker)) {
        return refuse(format!("ELR {elr:?} overlaps ISR {isr:?}"));
    }
    if leader.is_some_and(|leader| !isr.contains(&leader)) {
        return refuse(format!("leader {leader:?} outside of ISR {isr:?}"));
    }
    if leader_epoch.0 < 0 {
        return refuse(format!("leader epoch {leader_epoch}"));
    }
    Ok(())
}
