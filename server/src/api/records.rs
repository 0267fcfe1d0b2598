//! DeleteRecords and OffsetForLeaderEpoch: where a partition's records begin, and where an epoch of them ends.

use kafka_protocol::messages::{
    DeleteRecordsRequest, OffsetForLeaderEpochRequest,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for DeleteRecordsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DeleteRecordsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        Ok(request)
    }
}

impl Decode for DeleteRecordsTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = DeleteRecordsTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for DeleteRecordsPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = DeleteRecordsPartition::default();
        partition.partition_index = reader.i32()?;
        partition.offset = reader.i64()?;
        Ok(partition)
    }
}

impl Decode for OffsetForLeaderEpochRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = OffsetForLeaderEpochRequest::default();
        if version >= 3 {
            request.replica_id = reader.i32()?.into();
        }
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for OffsetForLeaderTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = OffsetForLeaderTopic::default();
        topic.topic = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for OffsetForLeaderPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut partition = OffsetForLeaderPartition::default();
        partition.partition = reader.i32()?;
        partition.current_leader_epoch = reader.i32()?;
        partition.leader_epoch = reader.i32()?;
        Ok(partition)
    }
}
