//! OffsetCommit, OffsetFetch, OffsetDelete: how far consumer groups have come.

use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    },
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for OffsetCommitRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetCommitRequest::default();
        request.group_id = reader.string()?;
        request.generation_id_or_member_epoch = reader.i32()?;
        request.member_id = reader.string()?;
        if version >= 7 {
            request.group_instance_id = reader.nullable_string()?;
        }
        if version <= 4 {
            request.retention_time_ms = reader.i64()?;
        }
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetCommitRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetCommitRequestPartition {
    const BYTES_MIN: usize = 13;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetCommitRequestPartition::default();
        partition.partition_index = reader.i32()?;
        partition.committed_offset = reader.i64()?;
        if version >= 6 {
            partition.committed_leader_epoch = reader.i32()?;
        }
        partition.committed_metadata = reader.nullable_string()?;
        Ok(partition)
    }
}

impl Decode for OffsetFetchRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetFetchRequest::default();
        match version {
            8.. => request.groups = reader.structures(version)?,
            // Null, which version 1 does not have, asks for all topics.
            2..=7 => {
                request.group_id = reader.string()?;
                request.topics = reader.nullable_structures(version)?;
            }
            _ => {
                request.group_id = reader.string()?;
                request.topics = Some(reader.structures(version)?);
            }
        }
        if version >= 7 {
            request.require_stable = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for OffsetFetchRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for OffsetFetchRequestGroup {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut group = OffsetFetchRequestGroup::default();
        group.group_id = reader.string()?;
        if version >= 9 {
            group.member_id = reader.nullable_string()?;
            group.member_epoch = reader.i32()?;
        }
        group.topics = reader.nullable_structures(version)?;
        Ok(group)
    }
}

impl Decode for OffsetFetchRequestTopics {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetFetchRequestTopics::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for OffsetDeleteRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetDeleteRequest::default();
        request.group_id = reader.string()?;
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetDeleteRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetDeleteRequestTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetDeleteRequestPartition {
    const BYTES_MIN: usize = 4;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetDeleteRequestPartition::default();
        partition.partition_index = reader.i32()?;
        Ok(partition)
    }
}
