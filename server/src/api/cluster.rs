//! DescribeCluster, DescribeLogDirs, ListPartitionReassignments, DescribeProducers.

use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    ListPartitionReassignmentsRequest, describe_log_dirs_request::DescribableLogDirTopic,
    describe_producers_request::TopicRequest,
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for DescribeClusterRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeClusterRequest::default();
        request.include_cluster_authorized_operations = reader.bool()?;
        if version >= 1 {
            request.endpoint_type = reader.i8()?;
        }
        if version >= 2 {
            request.include_fenced_brokers = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for DescribeLogDirsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeLogDirsRequest::default();
        request.topics = reader.nullable_structures(version)?;
        Ok(request)
    }
}

impl Decode for DescribableLogDirTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = DescribableLogDirTopic::default();
        topic.topic = reader.string()?;
        topic.partitions = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for ListPartitionReassignmentsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = ListPartitionReassignmentsRequest::default();
        request.timeout_ms = reader.i32()?;
        request.topics = reader.nullable_structures(version)?;
        Ok(request)
    }
}

impl Decode for ListPartitionReassignmentsTopics {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = ListPartitionReassignmentsTopics::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}

impl Decode for DescribeProducersRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeProducersRequest::default();
        request.topics = reader.structures(version)?;
        Ok(request)
    }
}

impl Decode for TopicRequest {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = TopicRequest::default();
        topic.name = reader.string()?;
        topic.partition_indexes = reader.i32s()?;
        Ok(topic)
    }
}
