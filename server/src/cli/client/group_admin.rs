//! Groups from the outside: list, describe, delete, delete offsets.

use std::collections::BTreeMap;

use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest,
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
};

use super::{
    AutoCreate, Client, ClientError, Target, TopicPartition, assignment::parse_assignment,
    group_id, topic_name,
};

#[derive(Clone, Debug)]
pub struct GroupListing {
    pub group: String,
    /// Empty before version 4 of the API.
    pub state: String,
    /// `classic` or `consumer`; empty before version 5 of the API.
    pub kind: String,
}

#[derive(Clone, Debug)]
pub struct GroupDescription {
    pub coordinator: i32,
    /// `Dead` for a group that does not exist.
    pub state: String,
    pub assignor: String,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug)]
pub struct GroupMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assignment: Vec<TopicPartition>,
}

impl GroupDescription {
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }
}

impl Client {
    /// The groups of all brokers: each knows those that it coordinates.
    pub fn list_groups(&mut self) -> Result<Vec<GroupListing>, ClientError> {
        self.metadata(Some(&[]), AutoCreate::Forbid)?;
        let brokers: Vec<i32> = self.brokers().collect();
        let mut listings = Vec::new();
        for broker in brokers {
            let response =
                self.call(Target::Broker(broker), 5, |_| ListGroupsRequest::default())?;
            ClientError::check(response.error_code, || "listing groups".to_string())?;
            listings.extend(response.groups.iter().map(|group| GroupListing {
                group: group.group_id.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
            }));
        }
        listings.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(listings)
    }

    pub fn describe_group(&mut self, group: &str) -> Result<GroupDescription, ClientError> {
        let what = || format!("group '{group}'");
        self.retry(|client| {
            let coordinator = client.coordinator(group)?;
            let response = client.call(Target::Broker(coordinator), 6, |_| {
                DescribeGroupsRequest::default().with_groups(vec![group_id(group)])
            })?;
            let found = response
                .groups
                .into_iter()
                .next()
                .ok_or_else(|| ClientError::Malformed(format!("no answer for {}", what())))?;
            let message = found.error_message.as_deref().map(AsRef::as_ref);
            ClientError::check_with(found.error_code, message, what)?;
            let members = found.members.iter().map(|member| {
                Ok(GroupMember {
                    member_id: member.member_id.to_string(),
                    instance_id: member.group_instance_id.as_deref().map(str::to_string),
                    client_id: member.client_id.to_string(),
                    host: member.client_host.to_string(),
                    assignment: match found.protocol_type.as_str() {
                        // Other protocols (Connect, schema registries) put other things there.
                        "consumer" => parse_assignment(&member.member_assignment)?,
                        _ => Vec::new(),
                    },
                })
            });
            Ok(GroupDescription {
                coordinator,
                state: found.group_state.to_string(),
                assignor: found.protocol_data.to_string(),
                members: members.collect::<Result<_, ClientError>>()?,
            })
        })
    }

    pub fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        self.retry(|client| {
            let coordinator = client.coordinator(group)?;
            let response = client.call(Target::Broker(coordinator), 2, |_| {
                DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)])
            })?;
            for result in &response.results {
                ClientError::check(result.error_code, || format!("group '{group}'"))?;
            }
            Ok(())
        })
    }

    /// Forgets committed offsets; one outcome per partition.
    pub fn delete_offsets(
        &mut self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<(), ClientError>>, ClientError> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, partition) in partitions {
            by_topic
                .entry(topic)
                .or_default()
                .push(OffsetDeleteRequestPartition::default().with_partition_index(*partition));
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions)
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(group_id(group))
            .with_topics(topics.collect());
        let coordinator = self.coordinator(group)?;
        let response = self.call(Target::Broker(coordinator), 0, |_| request)?;
        ClientError::check(response.error_code, || format!("group '{group}'"))?;
        let mut outcomes = BTreeMap::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                let key = (topic.name.to_string(), partition.partition_index);
                let what = || format!("{}-{}", key.0, key.1);
                let outcome = ClientError::check(partition.error_code, what);
                outcomes.insert(key, outcome);
            }
        }
        Ok(outcomes)
    }
}
