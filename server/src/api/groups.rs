//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat, LeaveGroup, ListGroups, DescribeGroups, DeleteGroups.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol, leave_group_request::MemberIdentity,
    sync_group_request::SyncGroupRequestAssignment,
};

use crate::wire::{Decode, DecodeError, Reader};

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
