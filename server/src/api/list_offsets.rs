//! ListOffsets: the offset for a timestamp, and the first and last offsets of partitions.

use kafka_protocol::messages::{
    ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for ListOffsetsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ListOffsetsRequest::default();
        request.replica_id = reader.i32()?.into();
        if version >= 2 {
            request.isolation_level = reader.i8()?;
        }
        request.topics = reader.structures(version)?;
        if version >= 10 {
            request.timeout_ms = reader.i32()?;
        }
        Ok(request)
    }
}

impl Decode for ListOffsetsTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = ListOffsetsTopic::default();
        topic.name = reader.string()?;
        topic.partitions = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for ListOffsetsPartition {
    const BYTES_MIN: usize = 12;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut partition = ListOffsetsPartition::default();
        partition.partition_index = reader.i32()?;
        if version >= 4 {
            partition.current_leader_epoch = reader.i32()?;
        }
        partition.timestamp = reader.i64()?;
        Ok(partition)
    }
}
