//! Positions in partitions, by time or by name.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    BrokerId, ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use super::{Client, ClientError, Metadata, Target, TopicPartition, topic_name};

/// What to look for; the wire encodes the names as negative timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    Latest,
    Earliest,
    MaxTimestamp,
    /// Any other of Kafka's negative markers, as a number.
    Marker(i64),
    /// The first record at or after this time, in ms since the epoch.
    Timestamp(i64),
}

impl OffsetSpec {
    pub fn wire(self) -> i64 {
        match self {
            OffsetSpec::Latest => -1,
            OffsetSpec::Earliest => -2,
            OffsetSpec::MaxTimestamp => -3,
            OffsetSpec::Marker(value) | OffsetSpec::Timestamp(value) => value,
        }
    }
}

impl Client {
    /// One offset per partition; `None` where no record matches. `read_committed` ends at the last stable offset.
    pub fn list_offsets(
        &mut self,
        metadata: &Metadata,
        wanted: &[(TopicPartition, OffsetSpec)],
        read_committed: bool,
    ) -> Result<BTreeMap<TopicPartition, Option<i64>>, ClientError> {
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<ListOffsetsPartition>>> =
            BTreeMap::new();
        for ((topic, partition), spec) in wanted {
            let leader = metadata
                .leader(topic, *partition)
                .ok_or_else(|| no_leader(metadata, topic, *partition))?;
            let entry = ListOffsetsPartition::default()
                .with_partition_index(*partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(spec.wire());
            let topics = by_leader.entry(leader).or_default();
            topics.entry(topic).or_default().push(entry);
        }
        let mut found = BTreeMap::new();
        for (leader, topics) in by_leader {
            let topics: Vec<ListOffsetsTopic> = topics
                .into_iter()
                .map(|(name, partitions)| {
                    ListOffsetsTopic::default()
                        .with_name(topic_name(name))
                        .with_partitions(partitions)
                })
                .collect();
            let response = self.call(Target::Broker(leader), 10, |version| {
                let request = ListOffsetsRequest::default()
                    .with_replica_id(BrokerId(-1))
                    .with_topics(topics);
                if version >= 2 {
                    request.with_isolation_level(i8::from(read_committed))
                } else {
                    request
                }
            })?;
            for topic in response.topics {
                for partition in topic.partitions {
                    let key = (topic.name.to_string(), partition.partition_index);
                    ClientError::check(partition.error_code, || format!("{}-{}", key.0, key.1))?;
                    let offset = (partition.offset >= 0).then_some(partition.offset);
                    found.insert(key, offset);
                }
            }
        }
        Ok(found)
    }
}

/// The most telling error for a partition that nobody leads.
fn no_leader(metadata: &Metadata, topic: &str, partition: i32) -> ClientError {
    const LEADER_NOT_AVAILABLE: i16 = 5;
    const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    let code = match metadata.topics.get(topic) {
        None => UNKNOWN_TOPIC_OR_PARTITION,
        Some(info) if info.error_code != 0 => info.error_code,
        Some(info) if info.partitions.iter().all(|p| p.index != partition) => {
            UNKNOWN_TOPIC_OR_PARTITION
        }
        Some(_) => LEADER_NOT_AVAILABLE,
    };
    match ClientError::check(code, || format!("{topic}-{partition}")) {
        Err(error) => error,
        Ok(()) => unreachable!("the code is not 0"),
    }
}
