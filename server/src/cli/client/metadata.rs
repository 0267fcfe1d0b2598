//! What a cluster says of itself: brokers, topics, leaders.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    MetadataRequest, MetadataResponse,
    metadata_request::MetadataRequestTopic,
    metadata_response::{MetadataResponsePartition, MetadataResponseTopic},
};

use super::{Client, ClientError, Target, topic_name};
use forebay_engine::TopicId;

#[derive(Clone, Debug)]
pub struct PartitionInfo {
    pub error_code: i16,
    pub index: i32,
    /// `None` while there is no leader.
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
}

#[derive(Clone, Debug)]
pub struct TopicInfo {
    pub error_code: i16,
    pub name: String,
    pub id: TopicId,
    pub is_internal: bool,
    /// By index.
    pub partitions: Vec<PartitionInfo>,
}

#[derive(Clone, Debug)]
pub struct Metadata {
    pub controller: i32,
    pub topics: BTreeMap<String, TopicInfo>,
}

impl Metadata {
    pub fn leader(&self, topic: &str, partition: i32) -> Option<i32> {
        let topic = self.topics.get(topic)?;
        let found = topic.partitions.iter().find(|p| p.index == partition)?;
        found.leader
    }
}

impl Client {
    /// Metadata of the named topics, or of all. With `create`, the broker may create those that are missing.
    pub fn metadata(
        &mut self,
        topics: Option<&[String]>,
        create: AutoCreate,
    ) -> Result<Metadata, ClientError> {
        let wanted = topics.map(|names| {
            names
                .iter()
                .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))))
                .collect()
        });
        let allow = create == AutoCreate::Allow;
        let response = self.retry(|client| {
            client.call(Target::Any, 12, |version| {
                // Before version 4 the flag does not exist and the encoder insists on its default.
                MetadataRequest::default()
                    .with_topics(wanted.clone())
                    .with_allow_auto_topic_creation(allow || version < 4)
            })
        })?;
        ClientError::check(response.error_code, || "metadata".to_string())?;
        self.learn(&response)
    }

    fn learn(&mut self, response: &MetadataResponse) -> Result<Metadata, ClientError> {
        for broker in &response.brokers {
            self.note_broker(broker.node_id.0, &broker.host, broker.port)?;
        }
        let topics = response.topics.iter().filter_map(topic_info);
        Ok(Metadata {
            controller: response.controller_id.0,
            topics: topics.map(|info| (info.name.clone(), info)).collect(),
        })
    }
}

/// Whether asking for a topic may bring it into being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCreate {
    Allow,
    Forbid,
}

fn topic_info(topic: &MetadataResponseTopic) -> Option<TopicInfo> {
    let mut partitions: Vec<PartitionInfo> = topic.partitions.iter().map(partition_info).collect();
    partitions.sort_by_key(|partition| partition.index);
    Some(TopicInfo {
        error_code: topic.error_code,
        name: topic.name.as_ref()?.to_string(),
        id: TopicId(topic.topic_id.into_bytes()),
        is_internal: topic.is_internal,
        partitions,
    })
}

fn partition_info(partition: &MetadataResponsePartition) -> PartitionInfo {
    let ids = |nodes: &[kafka_protocol::messages::BrokerId]| nodes.iter().map(|n| n.0).collect();
    PartitionInfo {
        error_code: partition.error_code,
        index: partition.partition_index,
        leader: (partition.leader_id.0 >= 0).then_some(partition.leader_id.0),
        replicas: ids(&partition.replica_nodes),
        isr: ids(&partition.isr_nodes),
    }
}
