//! Brokers that come and come again. Rule names (C2, C3, C4) are those of the replication specification.

use forebay_engine::{LeaderEpoch, TopicId};

use super::{Draft, Refusal, Refused, Reply};
use crate::{
    config::Config,
    meta::{
        image::{METADATA_FEATURE, METADATA_LEVEL, PartitionState, Topic},
        records::{Assignment, Record},
    },
};

/// One start of a broker.
#[derive(Clone, Debug)]
pub struct Registration {
    pub id: i32,
    /// Random, of this process start.
    pub incarnation: [u8; 16],
    pub storage_id: [u8; 16],
    /// From the clean-shutdown marker: the epoch of the start that ended cleanly.
    pub clean_epoch: Option<i64>,
    pub host: String,
    pub port: u16,
    pub rack: Option<String>,
}

/// What an empty metadata log begins with.
pub fn first_records(cluster_id: &str, config: &Config) -> Vec<Record> {
    vec![
        Record::Cluster {
            id: cluster_id.to_owned(),
            lanes: config.lanes,
        },
        Record::FeatureLevel {
            name: METADATA_FEATURE.to_owned(),
            level: METADATA_LEVEL,
        },
    ]
}

/// What is known of a broker's logs when it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// They are as they were when it stopped.
    Clean,
    /// What was durable is there.
    Unclean,
    /// Another data directory: nothing is there.
    Empty,
}

/// C2: a start gets a new epoch, and the broker is taken out of every ISR before it may be chosen again.
pub(super) fn register(draft: &mut Draft, registration: &Registration) -> Reply {
    let id = registration.id;
    if id < 0 || registration.host.is_empty() || registration.host.len() > 255 {
        let message = "A broker has a number and a host.";
        return Reply::Refused(Refusal::new(Refused::InvalidRequest, message));
    }
    let before = draft.image.brokers.get(&id);
    if let Some(same) = before.filter(|known| known.incarnation == registration.incarnation) {
        return Reply::RegisterBroker(same.epoch);
    }
    let start = match before {
        Some(known) if known.storage_id != registration.storage_id => Start::Empty,
        Some(known) if registration.clean_epoch == Some(known.epoch) => Start::Clean,
        _ => Start::Unclean,
    };
    let mut records = vec![Record::RegisterBroker {
        id,
        incarnation: registration.incarnation,
        storage_id: registration.storage_id,
        host: registration.host.clone(),
        port: registration.port,
        rack: registration.rack.clone(),
        fenced: false,
    }];
    for topic in draft.image.topics.values() {
        let records_of_topic = restart_topic(draft, topic, id, start);
        records.extend(records_of_topic);
    }
    draft.push(records);
    let registered = draft.image.brokers.get(&id);
    Reply::RegisterBroker(registered.expect("just registered").epoch)
}

fn restart_topic(draft: &Draft, topic: &Topic, broker: i32, start: Start) -> Vec<Record> {
    let dynamic = &draft.image.broker_configs;
    let log = draft.config.log_config(dynamic, &topic.configs);
    let min_isr = draft.config.min_insync_replicas(dynamic, &topic.configs) as usize;
    let keeps_its_log = match start {
        Start::Clean => true,
        Start::Unclean => log.durability == forebay_engine::Durability::Persisted,
        Start::Empty => false,
    };
    topic
        .partitions
        .iter()
        .enumerate()
        .filter(|(_, partition)| partition.replicas.contains(&broker))
        .map(|(index, partition)| {
            let mut state = without(partition, broker, min_isr, keeps_its_log);
            // C4: the broker is unfenced now, and so may be chosen.
            let live = |id: i32| {
                let known = draft.image.brokers.get(&id);
                id == broker || known.is_some_and(|known| !known.fenced)
            };
            elect(&mut state, live);
            change(topic.id, index, partition, state)
        })
        .collect()
}

/// C3: the state after `broker` left the ISR. The leader's epoch grows if it led, even if it is chosen again at once.
fn without(
    partition: &PartitionState,
    broker: i32,
    min_isr: usize,
    keeps_its_log: bool,
) -> Assignment {
    let was_in_sync = partition.isr.contains(&broker);
    let isr: Vec<i32> = others(&partition.isr, broker);
    let mut elr = if isr.len() >= min_isr {
        Vec::new()
    } else {
        partition.elr.clone()
    };
    // A broker alone with a partition has the longest log there is: waiting for a better one would be for ever.
    let alone = partition.replicas == [broker];
    elr.retain(|id| *id != broker || keeps_its_log);
    if was_in_sync && isr.len() < min_isr && keeps_its_log || alone {
        elr = others(&elr, broker);
        elr.push(broker);
    }
    let led = partition.leader == Some(broker);
    Assignment {
        replicas: partition.replicas.clone(),
        isr,
        elr,
        leader: partition.leader.filter(|leader| *leader != broker),
        leader_epoch: LeaderEpoch(partition.leader_epoch.0 + i32::from(led)),
    }
}

/// C4: a live member of the ISR leads, else one of the ELR, which is the ISR then; else nobody.
fn elect(state: &mut Assignment, live: impl Fn(i32) -> bool) {
    if state.leader.is_some() {
        return;
    }
    // In the order of the replicas, so that the preferred one comes first.
    let choose = |from: &[i32]| {
        let mut candidates = state.replicas.iter().copied();
        candidates.find(|id| from.contains(id) && live(*id))
    };
    let from_isr = choose(&state.isr);
    let Some(chosen) = from_isr.or_else(|| choose(&state.elr)) else {
        return;
    };
    if from_isr.is_none() {
        state.isr = vec![chosen];
        state.elr = others(&state.elr, chosen);
    }
    state.leader = Some(chosen);
    state.leader_epoch = LeaderEpoch(state.leader_epoch.0 + 1);
}

fn others(brokers: &[i32], broker: i32) -> Vec<i32> {
    let kept = brokers.iter().copied().filter(|id| *id != broker);
    kept.collect()
}

fn change(topic: TopicId, index: usize, before: &PartitionState, state: Assignment) -> Record {
    Record::PartitionChange {
        topic,
        index: index as i32,
        version: before.version + 1,
        state,
    }
}
