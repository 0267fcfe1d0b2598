//! Membership in a consumer group by the classic protocol: join, sync, heartbeat, commit, leave.
//!
//! The member offers the range assignor, which every Kafka client knows, and as the group's leader computes it. There is
//! no background thread: the owner calls [`Membership::heartbeat_if_due`] between two polls.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use kafka_protocol::{
    ResponseError,
    messages::{
        HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
        OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{
            OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
        },
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};

use super::{
    Client, ClientError, Metadata, RETRY_BACKOFF, Target, TopicPartition,
    assignment::{
        assign_ranges, assignment_bytes, parse_assignment, parse_subscription, subscription_bytes,
    },
    group_id, str_bytes, topic_name,
};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";

#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub group: String,
    /// A name that survives restarts of the member (static membership).
    pub instance_id: Option<String>,
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    /// How long the others wait for us when the group changes.
    pub rebalance_timeout: Duration,
}

pub struct Membership {
    config: GroupConfig,
    coordinator: Option<i32>,
    member_id: String,
    generation: i32,
    heartbeat_at: Instant,
}

/// What a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// The group is changing: join again, then carry on.
    Rejoin,
}

impl Membership {
    pub fn new(config: GroupConfig) -> Membership {
        Membership {
            config,
            coordinator: None,
            member_id: String::new(),
            generation: -1,
            heartbeat_at: Instant::now(),
        }
    }

    /// Joins, or joins again, and returns the partitions that are ours now. Waits for the other members.
    pub fn join(
        &mut self,
        client: &mut Client,
        topics: &[String],
        metadata: &Metadata,
    ) -> Result<Vec<TopicPartition>, ClientError> {
        loop {
            match self.try_join(client, topics, metadata) {
                Ok(assigned) => {
                    self.heartbeat_at = Instant::now() + self.config.heartbeat_interval;
                    return Ok(assigned);
                }
                Err(error) => match error.code() {
                    Some(ResponseError::MemberIdRequired | ResponseError::RebalanceInProgress) => {}
                    Some(ResponseError::UnknownMemberId | ResponseError::IllegalGeneration) => {
                        self.forget_member();
                    }
                    _ if error.is_retriable() => {
                        self.coordinator = None;
                        sleep(RETRY_BACKOFF);
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Tells the coordinator that we live, when it is time to.
    pub fn heartbeat_if_due(&mut self, client: &mut Client) -> Result<Standing, ClientError> {
        if Instant::now() < self.heartbeat_at {
            return Ok(Standing::Member);
        }
        self.heartbeat_at = Instant::now() + self.config.heartbeat_interval;
        let outcome = self.at_coordinator(client).and_then(|target| {
            let response = client.call(target, 4, |version| {
                let mut request = HeartbeatRequest::default()
                    .with_group_id(group_id(&self.config.group))
                    .with_generation_id(self.generation)
                    .with_member_id(str_bytes(&self.member_id));
                if version >= 3 {
                    request.group_instance_id = self.instance_id();
                }
                request
            })?;
            ClientError::check(response.error_code, || self.what())
        });
        match outcome {
            Ok(()) => Ok(Standing::Member),
            Err(error) => self.standing_after(error),
        }
    }

    /// Commits the offset of the next record to read, per partition. Tries again while the coordinator is away.
    pub fn commit(
        &mut self,
        client: &mut Client,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Standing, ClientError> {
        if offsets.is_empty() || self.generation < 0 {
            return Ok(Standing::Member);
        }
        let outcome = client.retry(|client| {
            let target = self.at_coordinator(client)?;
            let instance_id = self.instance_id();
            let identify = |request: &mut OffsetCommitRequest, version| {
                request.generation_id_or_member_epoch = self.generation;
                request.member_id = str_bytes(&self.member_id);
                if version >= 7 {
                    request.group_instance_id = instance_id;
                }
            };
            let outcome = client.commit_offsets(target, &self.config.group, offsets, identify);
            if outcome.as_ref().is_err_and(ClientError::is_retriable) {
                self.coordinator = None;
            }
            outcome
        });
        match outcome {
            Ok(()) => Ok(Standing::Member),
            // Tried for long enough: the caller must know that it is not committed.
            Err(error) if error.is_retriable() => Err(error),
            Err(error) => self.standing_after(error),
        }
    }

    /// Leaves, so that the others need not wait for our session to end. A static member stays, as in Kafka.
    pub fn leave(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.member_id.is_empty() || self.config.instance_id.is_some() {
            return Ok(());
        }
        let target = self.at_coordinator(client)?;
        let member_id = str_bytes(&self.member_id);
        let response = client.call(target, 5, |version| {
            let request = LeaveGroupRequest::default().with_group_id(group_id(&self.config.group));
            if version >= 3 {
                request.with_members(vec![MemberIdentity::default().with_member_id(member_id)])
            } else {
                request.with_member_id(member_id)
            }
        })?;
        self.forget_member();
        ClientError::check(response.error_code, || self.what())
    }

    fn try_join(
        &mut self,
        client: &mut Client,
        topics: &[String],
        metadata: &Metadata,
    ) -> Result<Vec<TopicPartition>, ClientError> {
        let target = self.at_coordinator(client)?;
        let joined = self.send_join(client, target, topics)?;
        self.generation = joined.generation_id;
        let assignments = if *joined.leader == *self.member_id {
            assign(&joined, metadata)?
        } else {
            Vec::new()
        };
        let instance_id = self.instance_id();
        // The coordinator answers when the leader has sent the assignment.
        let timeout = self.config.rebalance_timeout + client.request_timeout();
        let response = client.call_within(target, 5, timeout, |version| {
            let mut request = SyncGroupRequest::default()
                .with_group_id(group_id(&self.config.group))
                .with_generation_id(self.generation)
                .with_member_id(str_bytes(&self.member_id))
                .with_assignments(assignments);
            if version >= 3 {
                request.group_instance_id = instance_id;
            }
            if version >= 5 {
                request.protocol_type = Some(StrBytes::from_static_str(PROTOCOL_TYPE));
                request.protocol_name = Some(StrBytes::from_static_str(ASSIGNOR));
            }
            request
        })?;
        ClientError::check(response.error_code, || self.what())?;
        parse_assignment(&response.assignment)
    }

    fn send_join(
        &mut self,
        client: &mut Client,
        target: Target,
        topics: &[String],
    ) -> Result<JoinGroupResponse, ClientError> {
        let metadata = subscription_bytes(topics);
        let config = &self.config;
        let timeout = config.rebalance_timeout + client.request_timeout();
        let instance_id = self.instance_id();
        let millis = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        let response = client.call_within(target, 9, timeout, |version| {
            let mut request = JoinGroupRequest::default()
                .with_group_id(group_id(&config.group))
                .with_session_timeout_ms(millis(config.session_timeout))
                .with_member_id(str_bytes(&self.member_id))
                .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
                .with_protocols(vec![
                    JoinGroupRequestProtocol::default()
                        .with_name(StrBytes::from_static_str(ASSIGNOR))
                        .with_metadata(metadata),
                ]);
            if version >= 1 {
                request.rebalance_timeout_ms = millis(config.rebalance_timeout);
            }
            if version >= 5 {
                request.group_instance_id = instance_id;
            }
            request
        })?;
        if response.error_code == ResponseError::MemberIdRequired.code() || response.error_code == 0
        {
            self.member_id = response.member_id.to_string();
        }
        ClientError::check(response.error_code, || self.what())?;
        Ok(response)
    }

    fn at_coordinator(&mut self, client: &mut Client) -> Result<Target, ClientError> {
        let node = match self.coordinator {
            Some(node) => node,
            None => client.coordinator(&self.config.group)?,
        };
        self.coordinator = Some(node);
        Ok(Target::Broker(node))
    }

    /// What an error says about our membership; what it does not speak of is passed on.
    fn standing_after(&mut self, error: ClientError) -> Result<Standing, ClientError> {
        match error.code() {
            Some(ResponseError::RebalanceInProgress) => Ok(Standing::Rejoin),
            Some(ResponseError::UnknownMemberId | ResponseError::IllegalGeneration) => {
                self.forget_member();
                Ok(Standing::Rejoin)
            }
            // A coordinator that moved or restarted knows us still; if not, it will say so.
            _ if error.is_retriable() => {
                self.coordinator = None;
                Ok(Standing::Member)
            }
            _ => Err(error),
        }
    }

    fn forget_member(&mut self) {
        self.member_id.clear();
        self.generation = -1;
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.config.instance_id.as_deref().map(str_bytes)
    }

    fn what(&self) -> String {
        format!("group '{}'", self.config.group)
    }
}

impl Client {
    /// Commits offsets; `identify` adds who asks. Without it the group must be empty.
    pub fn commit_offsets(
        &mut self,
        target: Target,
        group: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
        identify: impl FnOnce(&mut OffsetCommitRequest, i16),
    ) -> Result<(), ClientError> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), offset) in offsets {
            by_topic.entry(topic).or_default().push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(*partition)
                    .with_committed_offset(*offset)
                    .with_committed_metadata(Some(StrBytes::new())),
            );
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(partitions)
        });
        let mut request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let response = self.call(target, 9, |version| {
            identify(&mut request, version);
            request
        })?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                ClientError::check(partition.error_code, || {
                    format!(
                        "committing offset of {}-{}",
                        &*topic.name, partition.partition_index
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Committed offsets of a group: of these partitions, or of all that have one.
    pub fn committed_offsets(
        &mut self,
        group: &str,
        wanted: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let by_topic = wanted.map(|wanted| {
            let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in wanted {
                by_topic.entry(topic).or_default().push(*partition);
            }
            by_topic
        });
        let what = || format!("group '{group}'");
        self.retry(|client| {
            let coordinator = client.coordinator(group)?;
            let by_topic = by_topic.clone();
            let response = client.call(Target::Broker(coordinator), 9, |version| {
                offset_fetch_request(group, by_topic, version)
            })?;
            ClientError::check(response.error_code, what)?;
            let mut found = BTreeMap::new();
            let mut note = |topic: &str, partition: i32, code: i16, offset: i64| {
                ClientError::check(code, || format!("{topic}-{partition}"))?;
                if offset >= 0 {
                    found.insert((topic.to_string(), partition), offset);
                }
                Ok::<(), ClientError>(())
            };
            for topic in &response.topics {
                for p in &topic.partitions {
                    note(
                        &topic.name,
                        p.partition_index,
                        p.error_code,
                        p.committed_offset,
                    )?;
                }
            }
            for group in &response.groups {
                ClientError::check(group.error_code, what)?;
                for topic in &group.topics {
                    for p in &topic.partitions {
                        note(
                            &topic.name,
                            p.partition_index,
                            p.error_code,
                            p.committed_offset,
                        )?;
                    }
                }
            }
            Ok(found)
        })
    }
}

/// From version 8 on a request holds several groups.
fn offset_fetch_request(
    group: &str,
    by_topic: Option<BTreeMap<&str, Vec<i32>>>,
    version: i16,
) -> OffsetFetchRequest {
    let topics = by_topic.map(BTreeMap::into_iter);
    if version >= 8 {
        let topics = topics.map(|topics| {
            topics
                .map(|(topic, partitions)| {
                    OffsetFetchRequestTopics::default()
                        .with_name(topic_name(topic))
                        .with_partition_indexes(partitions)
                })
                .collect()
        });
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_topics(topics);
        OffsetFetchRequest::default().with_groups(vec![group])
    } else {
        let topics = topics.map(|topics| {
            topics
                .map(|(topic, partitions)| {
                    OffsetFetchRequestTopic::default()
                        .with_name(topic_name(topic))
                        .with_partition_indexes(partitions)
                })
                .collect()
        });
        OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(topics)
    }
}

/// What the members said they want, and what each gets.
fn assign(
    joined: &JoinGroupResponse,
    metadata: &Metadata,
) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
    let mut members = BTreeMap::new();
    for member in &joined.members {
        let topics = parse_subscription(&member.metadata)?;
        members.insert(member.member_id.to_string(), topics);
    }
    let assignment = assign_ranges(&members, |topic| {
        let topic = metadata.topics.get(topic)?;
        Some(topic.partitions.len())
    });
    let assignments = assignment.into_iter().map(|(member, topics)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(str_bytes(&member))
            .with_assignment(assignment_bytes(&topics))
    });
    Ok(assignments.collect())
}
