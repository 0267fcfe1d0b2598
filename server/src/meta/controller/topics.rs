//! Topics: created, deleted, given more partitions.

use std::collections::{BTreeMap, BTreeSet};

use forebay_engine::{LeaderEpoch, TopicId};

use super::{
    DeletedTopic, Draft, INTERNAL_TOPICS, Refusal, Refused, duplicates,
    names::{check_name, plain_name},
};
use crate::{
    config::settings::check_topic_value,
    meta::records::{Assignment, Record, Resource},
};

#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    /// `None`: the broker's default.
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    /// Partition and its replicas; if given, it says all of the two above.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: TopicId,
    pub partitions: i32,
    pub replication_factor: i16,
    /// As set on the topic.
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

#[derive(Clone, Debug)]
pub struct NewPartitions {
    pub topic: String,
    /// Partitions that the topic shall have.
    pub count: i32,
    /// Replicas of each new partition, where the client chose.
    pub assignments: Option<Vec<Vec<i32>>>,
}

pub(super) fn create(draft: &mut Draft, topics: &[NewTopic]) -> Vec<Result<CreatedTopic, Refusal>> {
    let twice = duplicates(topics.iter().map(|topic| topic.name.as_str()));
    topics
        .iter()
        .map(|topic| {
            if twice.contains(topic.name.as_str()) {
                return duplicate_topic();
            }
            create_one(draft, topic)
        })
        .collect()
}

fn create_one(draft: &mut Draft, topic: &NewTopic) -> Result<CreatedTopic, Refusal> {
    let name = &topic.name;
    check_name(name)?;
    if draft.image.topics.contains_key(name) {
        let message = format!("Topic '{name}' already exists.");
        return Err(Refusal::new(Refused::TopicExists, message));
    }
    if let Some(other) = draft.colliding(name) {
        let message = format!("Topic '{name}' collides with existing topic: {other}");
        return Err(Refusal::new(Refused::InvalidTopicName, message));
    }
    let configs = check_configs(&topic.configs)?;
    let replicas = choose_replicas(draft, topic)?;
    check_partition_count(draft, replicas.len())?;

    let id = draft.new_topic_id();
    let created = CreatedTopic {
        id,
        partitions: replicas.len() as i32,
        replication_factor: replicas[0].len() as i16,
        configs: configs.clone(),
    };
    let mut records = vec![Record::Topic {
        id,
        name: name.clone(),
        internal: INTERNAL_TOPICS.contains(&name.as_str()),
    }];
    records.extend(new_partitions(draft, id, 0, replicas));
    records.extend(configs.into_iter().map(|(name, value)| Record::Config {
        resource: Resource::Topic(id),
        name,
        value: Some(value),
    }));
    draft.push(records);
    if let Some(names) = &mut draft.plain_names {
        names.insert(plain_name(name), name.clone());
    }
    Ok(created)
}

fn check_configs(
    configs: &[(String, Option<String>)],
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut checked = BTreeMap::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for topic configs: {name}");
            return Err(Refusal::new(Refused::InvalidConfig, message));
        };
        let value = check_topic_value(name, value)
            .map_err(|message| Refusal::new(Refused::InvalidConfig, message))?;
        checked.insert(name.clone(), value);
    }
    Ok(checked)
}

/// The replicas of each partition, chosen by the client or by us. Never empty, no partition without replicas.
fn choose_replicas(draft: &Draft, topic: &NewTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    if !topic.assignments.is_empty() {
        return assigned_replicas(draft, topic);
    }
    let defaults = &draft.config.topics;
    let partitions = topic.partitions.unwrap_or(defaults.partitions_default);
    if partitions < 1 {
        return Err(Refusal::new(
            Refused::InvalidPartitions,
            "Number of partitions was set to an invalid non-positive value.",
        ));
    }
    let factor = topic
        .replication_factor
        .unwrap_or(defaults.replication_factor_default);
    if factor < 1 {
        return Err(Refusal::new(
            Refused::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ));
    }
    check_partition_count(draft, partitions as usize)?;
    place(draft, partitions as usize, factor as usize)
}

fn assigned_replicas(draft: &Draft, topic: &NewTopic) -> Result<Vec<Vec<i32>>, Refusal> {
    if topic.partitions.is_some() || topic.replication_factor.is_some() {
        return Err(Refusal::new(
            Refused::InvalidRequest,
            "A manual partition assignment was specified, but the number of partitions or the replication factor was not set to -1.",
        ));
    }
    let by_index: BTreeMap<i32, &Vec<i32>> = topic
        .assignments
        .iter()
        .map(|(index, replicas)| (*index, replicas))
        .collect();
    let consecutive = by_index
        .keys()
        .copied()
        .eq(0..topic.assignments.len() as i32);
    if !consecutive {
        return Err(Refusal::new(
            Refused::InvalidReplicaAssignment,
            "partitions should be a consecutive 0-based integer sequence",
        ));
    }
    let replicas: Vec<_> = by_index.into_values().cloned().collect();
    check_chosen(draft, &replicas, replicas[0].len())?;
    Ok(replicas)
}

/// Replicas that a client chose exist, differ, and are `factor` per partition.
fn check_chosen(draft: &Draft, replicas: &[Vec<i32>], factor: usize) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::new(Refused::InvalidReplicaAssignment, message));
    for chosen in replicas {
        if chosen.is_empty() || chosen.len() != factor {
            return invalid(
                "All partitions should have the same number of replicas, at least one".to_owned(),
            );
        }
        if chosen.iter().collect::<BTreeSet<_>>().len() != chosen.len() {
            return invalid(format!(
                "Duplicate brokers not allowed in replica assignment: {chosen:?}"
            ));
        }
        let unknown = chosen.iter().find(|broker| {
            !draft
                .image
                .active_brokers()
                .any(|known| known.id == **broker)
        });
        if let Some(unknown) = unknown {
            return invalid(format!(
                "Unknown broker id {unknown} in manual partition assignment."
            ));
        }
    }
    Ok(())
}

/// Spreads partitions over brokers, going round, and starting where the last topic ended.
fn place(draft: &Draft, partitions: usize, factor: usize) -> Result<Vec<Vec<i32>>, Refusal> {
    let brokers: Vec<i32> = draft
        .image
        .active_brokers()
        .map(|broker| broker.id)
        .collect();
    if factor > brokers.len() {
        let count = brokers.len();
        return Err(Refusal::new(
            Refused::InvalidReplicationFactor,
            format!(
                "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached because only {count} broker(s) are registered."
            ),
        ));
    }
    let start = usize::from(draft.image.next_lane);
    let replicas_of = |partition: usize| {
        let first = start + partition;
        (first..first + factor)
            .map(|position| brokers[position % brokers.len()])
            .collect()
    };
    Ok((0..partitions).map(replicas_of).collect())
}

fn check_partition_count(draft: &Draft, more: usize) -> Result<(), Refusal> {
    let limit = draft.config.topics.partitions_max;
    let total = draft.partitions.saturating_add(more);
    if total > limit {
        return Err(Refusal::new(
            Refused::Policy,
            format!("{total} partitions would be more than forebay.partitions={limit}"),
        ));
    }
    Ok(())
}

/// Records of new partitions from `first` on. All replicas are in sync: there is nothing to be behind of.
fn new_partitions(
    draft: &Draft,
    topic: TopicId,
    first: usize,
    replicas: Vec<Vec<i32>>,
) -> Vec<Record> {
    let lanes = usize::from(draft.image.lanes);
    let next_lane = usize::from(draft.image.next_lane);
    replicas
        .into_iter()
        .enumerate()
        .map(|(position, replicas)| Record::Partition {
            topic,
            index: (first + position) as i32,
            lane: ((next_lane + position) % lanes) as u16,
            state: Assignment {
                leader: Some(replicas[0]),
                leader_epoch: LeaderEpoch(0),
                isr: replicas.clone(),
                elr: Vec::new(),
                replicas,
            },
        })
        .collect()
}

pub(super) fn delete(draft: &mut Draft, topics: &[TopicRef]) -> Vec<Result<DeletedTopic, Refusal>> {
    // Both ways of naming one topic count as the same.
    let resolved: Vec<_> = topics.iter().map(|topic| resolve(draft, topic)).collect();
    let mut named: BTreeMap<TopicId, usize> = BTreeMap::new();
    for topic in resolved.iter().flatten() {
        *named.entry(topic.id).or_default() += 1;
    }
    resolved
        .into_iter()
        .map(|topic| {
            let topic = topic?;
            if named[&topic.id] > 1 {
                return duplicate_topic();
            }
            if !draft.config.topics.delete_enabled {
                let message = "Topic deletion is disabled.";
                return Err(Refusal::new(Refused::TopicDeletionDisabled, message));
            }
            draft.push(vec![Record::RemoveTopic { id: topic.id }]);
            Ok(topic)
        })
        .collect()
}

fn resolve(draft: &Draft, topic: &TopicRef) -> Result<DeletedTopic, Refusal> {
    let found = match topic {
        TopicRef::Name(name) => draft.image.topics.get(name).ok_or_else(unknown_topic),
        TopicRef::Id(id) => draft.image.topic(*id).ok_or_else(|| {
            let message = "This server does not host this topic ID.";
            Refusal::new(Refused::UnknownTopicId, message)
        }),
    }?;
    Ok(DeletedTopic {
        name: found.name.clone(),
        id: found.id,
    })
}

pub(super) fn grow(draft: &mut Draft, topics: &[NewPartitions]) -> Vec<Result<(), Refusal>> {
    let twice = duplicates(topics.iter().map(|topic| topic.topic.as_str()));
    topics
        .iter()
        .map(|topic| {
            if twice.contains(topic.topic.as_str()) {
                return duplicate_topic();
            }
            grow_one(draft, topic)
        })
        .collect()
}

fn grow_one(draft: &mut Draft, wanted: &NewPartitions) -> Result<(), Refusal> {
    let name = &wanted.topic;
    let topic = draft.image.topics.get(name).ok_or_else(unknown_topic)?;
    let (id, present) = (topic.id, topic.partitions.len());
    let factor = topic.partitions[0].replicas.len();
    let more = match usize::try_from(wanted.count) {
        Ok(count) if count > present => count - present,
        Ok(count) if count == present => {
            let message = format!("Topic already has {present} partition(s).");
            return Err(Refusal::new(Refused::InvalidPartitions, message));
        }
        _ => {
            let message = format!(
                "The topic {name} currently has {present} partition(s); {} would not be an increase.",
                wanted.count
            );
            return Err(Refusal::new(Refused::InvalidPartitions, message));
        }
    };
    check_partition_count(draft, more)?;
    let replicas = match &wanted.assignments {
        None => place(draft, more, factor)?,
        Some(chosen) if chosen.len() != more => {
            let count = chosen.len();
            let message = format!(
                "Attempted to add {more} additional partition(s), but only {count} assignment(s) were specified."
            );
            return Err(Refusal::new(Refused::InvalidReplicaAssignment, message));
        }
        Some(chosen) => {
            check_chosen(draft, chosen, factor)?;
            chosen.clone()
        }
    };
    let records = new_partitions(draft, id, present, replicas);
    draft.push(records);
    Ok(())
}

fn unknown_topic() -> Refusal {
    let message = "This server does not host this topic-partition.";
    Refusal::new(Refused::UnknownTopic, message)
}

fn duplicate_topic<T>() -> Result<T, Refusal> {
    Err(Refusal::new(
        Refused::InvalidRequest,
        "Duplicate topic name.",
    ))
}
