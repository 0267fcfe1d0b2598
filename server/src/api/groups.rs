//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, ListGroups, DescribeGroups, DeleteGroups.

use std::{rc::Rc, sync::Arc};

use futures_util::future::join_all;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
    delete_groups_response::DeletableGroupResult,
    describe_groups_response::{DescribedGroup, DescribedGroupMember},
    find_coordinator_response::Coordinator,
    join_group_request::JoinGroupRequestProtocol,
    join_group_response::JoinGroupResponseMember,
    leave_group_request::MemberIdentity,
    leave_group_response::MemberResponse,
    list_groups_response::ListedGroup,
    sync_group_request::SyncGroupRequestAssignment,
};

use super::{
    Client,
    convert::text,
    coordinator::{ask, shared, shared_option},
    partitions::leader_of,
};
use crate::{
    coord::{
        OFFSETS_TOPIC,
        group::{
            Described, DescribedMember, GroupError, GroupFilter, Heartbeat, Join, Joined,
            KnownMemberId, Leave, LeavingMember, Protocol, Reply, Request, SkipAssignment,
            StateName, Sync, Verb,
        },
        partition_of_group,
    },
    shard::Shard,
    wire::{Decode, DecodeError, ErrorCode, Reader},
};

/// ListGroups' name of the only type there is.
const GROUP_TYPE: &str = "classic";
/// Without an authorizer everybody may do everything with a group: read (3), delete (6), describe (8).
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

impl Decode for FindCoordinatorRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = FindCoordinatorRequest::default();
        if version <= 3 {
            request.key = reader.string()?;
        }
        if version >= 1 {
            request.key_type = reader.i8()?;
        }
        if version >= 4 {
            request.coordinator_keys = reader.strings()?;
        }
        Ok(request)
    }
}

impl Decode for JoinGroupRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = JoinGroupRequest::default();
        request.group_id = reader.string()?;
        request.session_timeout_ms = reader.i32()?;
        if version >= 1 {
            request.rebalance_timeout_ms = reader.i32()?;
        }
        request.member_id = reader.string()?;
        if version >= 5 {
            request.group_instance_id = reader.nullable_string()?;
        }
        request.protocol_type = reader.string()?;
        request.protocols = reader.structures(version)?;
        if version >= 8 {
            request.reason = reader.nullable_string()?;
        }
        Ok(request)
    }
}

impl Decode for JoinGroupRequestProtocol {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = reader.string()?;
        protocol.metadata = reader.bytes()?;
        Ok(protocol)
    }
}

impl Decode for SyncGroupRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = SyncGroupRequest::default();
        request.group_id = reader.string()?;
        request.generation_id = reader.i32()?;
        request.member_id = reader.string()?;
        if version >= 3 {
            request.group_instance_id = reader.nullable_string()?;
        }
        if version >= 5 {
            request.protocol_type = reader.nullable_string()?;
            request.protocol_name = reader.nullable_string()?;
        }
        request.assignments = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for SyncGroupRequestAssignment {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut assignment = SyncGroupRequestAssignment::default();
        assignment.member_id = reader.string()?;
        assignment.assignment = reader.bytes()?;
        Ok(assignment)
    }
}

impl Decode for HeartbeatRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = HeartbeatRequest::default();
        request.group_id = reader.string()?;
        request.generation_id = reader.i32()?;
        request.member_id = reader.string()?;
        if version >= 3 {
            request.group_instance_id = reader.nullable_string()?;
        }
        Ok(request)
    }
}

impl Decode for LeaveGroupRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = LeaveGroupRequest::default();
        request.group_id = reader.string()?;
        if version <= 2 {
            request.member_id = reader.string()?;
        }
        if version >= 3 {
            request.members = reader.structures(version)?;
        }
        Ok(request)
    }
}

impl Decode for MemberIdentity {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut member = MemberIdentity::default();
        member.member_id = reader.string()?;
        member.group_instance_id = reader.nullable_string()?;
        if version >= 5 {
            member.reason = reader.nullable_string()?;
        }
        Ok(member)
    }
}

impl Decode for ListGroupsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ListGroupsRequest::default();
        if version >= 4 {
            request.states_filter = reader.strings()?;
        }
        if version >= 5 {
            request.types_filter = reader.strings()?;
        }
        Ok(request)
    }
}

impl Decode for DescribeGroupsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeGroupsRequest::default();
        request.groups = reader.strings()?;
        if version >= 3 {
            request.include_authorized_operations = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for DeleteGroupsRequest {
    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut request = DeleteGroupsRequest::default();
        request.groups_names = reader.strings()?;
        Ok(request)
    }
}

/// Names this cluster's broker for each key. The first question for a group makes `__consumer_offsets`.
pub async fn find_coordinator(
    shard: &Rc<Shard>,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;
    let keys = match version {
        4.. => request.coordinator_keys,
        _ => vec![request.key],
    };
    let ready = match request.key_type {
        GROUP if shard.ensure_internal_topic(OFFSETS_TOPIC).await.is_ok() => Ok(()),
        GROUP | TRANSACTION => Err(ErrorCode::CoordinatorNotAvailable),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let mut coordinators = keys.into_iter().map(|key| {
        let found = ready.and_then(|()| coordinator_of(shard, &key));
        found
            .unwrap_or_else(|error| {
                Coordinator::default()
                    .with_node_id((-1).into())
                    .with_port(-1)
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.name())))
            })
            .with_key(key)
    });
    if version >= 4 {
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let one = coordinators.next().expect("one key was asked for");
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_error_message(one.error_message)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

/// Waits until the rebalance has come so far.
pub async fn join_group(
    shard: &Rc<Shard>,
    request: JoinGroupRequest,
    version: i16,
    client: Client,
) -> JoinGroupResponse {
    let join = Join {
        group: shared(&request.group_id),
        member_id: shared(&request.member_id),
        instance_id: shared_option(request.group_instance_id.as_ref()),
        client_id: client.id.as_str().into(),
        // As Java prints an address.
        client_host: format!("/{}", client.host).into(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: match version {
            1.. => request.rebalance_timeout_ms,
            _ => request.session_timeout_ms,
        },
        protocol_type: shared(&request.protocol_type),
        protocols: request.protocols.iter().map(protocol).collect(),
        known_member_id: match version {
            4.. => KnownMemberId::Required,
            _ => KnownMemberId::NotRequired,
        },
        skip_assignment: match version {
            9.. => SkipAssignment::Understood,
            _ => SkipAssignment::NotUnderstood,
        },
    };
    let reply = ask(shard, &request.group_id, Verb::Join(join)).await;
    join_response(reply, &request.member_id, version)
}

pub async fn sync_group(
    shard: &Rc<Shard>,
    request: SyncGroupRequest,
    version: i16,
) -> SyncGroupResponse {
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        group: shared(&request.group_id),
        member_id: shared(&request.member_id),
        instance_id: shared_option(request.group_instance_id.as_ref()),
        generation: request.generation_id,
        protocol_type: shared_option(request.protocol_type.as_ref()),
        protocol: shared_option(request.protocol_name.as_ref()),
        assignments: assignments
            .map(|one| (shared(&one.member_id), one.assignment))
            .collect(),
    };
    let reply = ask(shard, &request.group_id, Verb::Sync(sync)).await;
    sync_response(reply, version)
}

pub async fn heartbeat(
    shard: &Rc<Shard>,
    request: HeartbeatRequest,
    _version: i16,
) -> HeartbeatResponse {
    let heartbeat = Heartbeat {
        group: shared(&request.group_id),
        member_id: shared(&request.member_id),
        instance_id: shared_option(request.group_instance_id.as_ref()),
        generation: request.generation_id,
    };
    let error = match ask(shard, &request.group_id, Verb::Heartbeat(heartbeat)).await {
        Reply::Alive => ErrorCode::None,
        Reply::Refused(error) => error.into(),
        _ => unreachable!("a request is answered in kind"),
    };
    HeartbeatResponse::default().with_error_code(error.code())
}

pub async fn leave_group(
    shard: &Rc<Shard>,
    mut request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    if version <= 2 {
        let one = MemberIdentity::default().with_member_id(std::mem::take(&mut request.member_id));
        request.members = vec![one];
    }
    let members = request.members.iter().map(|member| LeavingMember {
        member_id: shared(&member.member_id),
        instance_id: shared_option(member.group_instance_id.as_ref()),
    });
    let leave = Leave {
        group: shared(&request.group_id),
        members: members.collect(),
    };
    let reply = ask(shard, &request.group_id, Verb::Leave(leave)).await;
    leave_response(reply, request.members, version)
}

/// Asks all shards; an error of one is the error of the whole.
pub async fn list_groups(
    shard: &Rc<Shard>,
    request: ListGroupsRequest,
    version: i16,
) -> ListGroupsResponse {
    let strings = |names: &[kafka_protocol::protocol::StrBytes]| {
        names.iter().map(|name| name.to_string()).collect()
    };
    let filter = GroupFilter {
        states: strings(&request.states_filter),
        types: strings(&request.types_filter),
    };
    let asked = shard
        .shards()
        .map(|owner| shard.group(owner, Request::List(filter.clone())));
    list_response(join_all(asked).await, version)
}

pub async fn describe_groups(
    shard: &Rc<Shard>,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let asked = request.groups.iter().map(|group| {
        let verb = Verb::Describe {
            group: shared(group),
        };
        ask(shard, group, verb)
    });
    let replies = join_all(asked).await;
    let operations = request.include_authorized_operations;
    let groups = request.groups.into_iter().zip(replies).map(|(id, reply)| {
        let group = describe_response(id, reply, version);
        match operations && group.error_code == 0 {
            true => group.with_authorized_operations(ALL_OPERATIONS),
            false => group,
        }
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub async fn delete_groups(
    shard: &Rc<Shard>,
    request: DeleteGroupsRequest,
    _version: i16,
) -> DeleteGroupsResponse {
    let asked = request.groups_names.iter().map(|group| {
        let verb = Verb::Delete {
            group: shared(group),
        };
        ask(shard, group, verb)
    });
    let replies = join_all(asked).await;
    let results = request.groups_names.into_iter().zip(replies);
    let results = results.map(|(id, reply)| {
        let error = match reply {
            Reply::Deleted => ErrorCode::None,
            Reply::Refused(error) => error.into(),
            _ => unreachable!("a request is answered in kind"),
        };
        DeletableGroupResult::default()
            .with_group_id(id)
            .with_error_code(error.code())
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

fn coordinator_of(shard: &Shard, group: &str) -> Result<Coordinator, ErrorCode> {
    let image = shard.image();
    let find = || {
        let topic = image.topics.get(OFFSETS_TOPIC)?;
        let partition = partition_of_group(group, topic.partitions.len() as i32);
        let (leader, _) = leader_of(&image, OFFSETS_TOPIC, partition.0)?;
        image.brokers.get(&leader)
    };
    let broker = find().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    Ok(Coordinator::default()
        .with_node_id(broker.id.into())
        .with_host(text(&broker.host))
        .with_port(i32::from(broker.port)))
}

fn protocol(protocol: &JoinGroupRequestProtocol) -> Protocol {
    Protocol {
        name: shared(&protocol.name),
        metadata: protocol.metadata.clone(),
    }
}

fn join_response(reply: Reply, asked_as: &str, version: i16) -> JoinGroupResponse {
    // Up to version 6 the protocol cannot be null.
    let no_protocol = (version <= 6).then(|| text(""));
    let refused = |error: ErrorCode, member_id: &str| {
        JoinGroupResponse::default()
            .with_error_code(error.code())
            .with_generation_id(-1)
            .with_protocol_type(None)
            .with_protocol_name(no_protocol)
            .with_member_id(text(member_id))
    };
    match reply {
        Reply::Joined(joined) => joined_response(joined),
        Reply::MemberIdRequired { member_id } => refused(ErrorCode::MemberIdRequired, &member_id),
        Reply::Refused(error) => refused(error.into(), asked_as),
        _ => unreachable!("a request is answered in kind"),
    }
}

fn joined_response(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(&joined.protocol_type)))
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(text(&joined.member_id))
        .with_members(members.collect())
}

fn sync_response(reply: Reply, version: i16) -> SyncGroupResponse {
    let response = SyncGroupResponse::default();
    match reply {
        Reply::Synced(synced) if version >= 5 => response
            .with_protocol_type(Some(text(&synced.protocol_type)))
            .with_protocol_name(Some(text(&synced.protocol)))
            .with_assignment(synced.assignment),
        Reply::Synced(synced) => response.with_assignment(synced.assignment),
        Reply::Refused(error) => response.with_error_code(ErrorCode::from(error).code()),
        _ => unreachable!("a request is answered in kind"),
    }
}

fn leave_response(reply: Reply, members: Vec<MemberIdentity>, version: i16) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    let results = match reply {
        Reply::Left(results) => results,
        Reply::Refused(error) => {
            return response.with_error_code(ErrorCode::from(error).code());
        }
        _ => unreachable!("a request is answered in kind"),
    };
    assert_eq!(results.len(), members.len(), "one result per member");
    if version <= 2 {
        return response.with_error_code(ErrorCode::from(results[0]).code());
    }
    let members = members.into_iter().zip(results).map(|(member, result)| {
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(ErrorCode::from(result).code())
    });
    response.with_members(members.collect())
}

fn list_response(replies: Vec<Option<Reply>>, version: i16) -> ListGroupsResponse {
    let mut groups = Vec::new();
    for reply in replies {
        match reply.unwrap_or(Reply::Refused(GroupError::CoordinatorNotAvailable)) {
            Reply::Listed(listed) => groups.extend(listed),
            Reply::Refused(error) => {
                return ListGroupsResponse::default()
                    .with_error_code(ErrorCode::from(error).code());
            }
            _ => unreachable!("a request is answered in kind"),
        }
    }
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    let groups = groups.into_iter().map(|group| {
        let mut listed = ListedGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_protocol_type(text(&group.protocol_type));
        if version >= 4 {
            listed.group_state = text(group.state.as_str());
        }
        if version >= 5 {
            listed.group_type = text(GROUP_TYPE);
        }
        listed
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Up to version 5 a group that does not exist is one in state `Dead`.
fn describe_response(id: GroupId, reply: Reply, version: i16) -> DescribedGroup {
    let group = DescribedGroup::default().with_group_id(id);
    let dead = || text(StateName::Dead.as_str());
    match reply {
        Reply::Described(described) => fill_description(group, described),
        Reply::Refused(GroupError::GroupIdNotFound) if version <= 5 => {
            group.with_group_state(dead())
        }
        Reply::Refused(GroupError::GroupIdNotFound) => {
            let message = format!("Group {} not found.", group.group_id.as_str());
            group
                .with_group_state(dead())
                .with_error_code(ErrorCode::GroupIdNotFound.code())
                .with_error_message(Some(text(&message)))
        }
        Reply::Refused(error) => group.with_error_code(ErrorCode::from(error).code()),
        _ => unreachable!("a request is answered in kind"),
    }
}

fn fill_description(group: DescribedGroup, described: Described) -> DescribedGroup {
    let member = |member: DescribedMember| {
        let optional = |text_of: &Option<Arc<str>>| text_of.as_deref().map(text);
        DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(optional(&member.instance_id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    };
    group
        .with_group_state(text(described.state.as_str()))
        .with_protocol_type(text(&described.protocol_type))
        .with_protocol_data(text(&described.protocol))
        .with_members(described.members.into_iter().map(member).collect())
}

#[cfg(test)]
mod tests;
