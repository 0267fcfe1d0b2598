//! CreateTopics, DeleteTopics, CreatePartitions, DescribeTopicPartitions.

use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest,
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
    delete_topics_request::DeleteTopicState,
    describe_topic_partitions_request::{Cursor, TopicRequest},
};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for CreateTopicsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = CreateTopicsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for CreatableTopic {
    const BYTES_MIN: usize = 9;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = CreatableTopic::default();
        topic.name = reader.string()?;
        topic.num_partitions = reader.i32()?;
        topic.replication_factor = reader.i16()?;
        topic.assignments = reader.structures(version)?;
        topic.configs = reader.structures(version)?;
        Ok(topic)
    }
}

impl Decode for CreatableReplicaAssignment {
    const BYTES_MIN: usize = 5;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut assignment = CreatableReplicaAssignment::default();
        assignment.partition_index = reader.i32()?;
        assignment.broker_ids = reader.i32s()?;
        Ok(assignment)
    }
}

impl Decode for CreatableTopicConfig {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut config = CreatableTopicConfig::default();
        config.name = reader.string()?;
        config.value = reader.nullable_string()?;
        Ok(config)
    }
}

impl Decode for DeleteTopicsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DeleteTopicsRequest::default();
        if version >= 6 {
            request.topics = reader.structures(version)?;
        }
        if version <= 5 {
            request.topic_names = reader.strings()?;
        }
        request.timeout_ms = reader.i32()?;
        Ok(request)
    }
}

impl Decode for DeleteTopicState {
    const BYTES_MIN: usize = 17;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = DeleteTopicState::default();
        topic.name = reader.nullable_string()?;
        topic.topic_id = reader.uuid()?;
        Ok(topic)
    }
}

impl Decode for CreatePartitionsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = CreatePartitionsRequest::default();
        request.topics = reader.structures(version)?;
        request.timeout_ms = reader.i32()?;
        request.validate_only = reader.bool()?;
        Ok(request)
    }
}

impl Decode for CreatePartitionsTopic {
    const BYTES_MIN: usize = 6;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = CreatePartitionsTopic::default();
        topic.name = reader.string()?;
        topic.count = reader.i32()?;
        topic.assignments = reader.nullable_structures(version)?;
        Ok(topic)
    }
}

impl Decode for CreatePartitionsAssignment {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut assignment = CreatePartitionsAssignment::default();
        assignment.broker_ids = reader.i32s()?;
        Ok(assignment)
    }
}

impl Decode for DescribeTopicPartitionsRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = DescribeTopicPartitionsRequest::default();
        request.topics = reader.structures(version)?;
        request.response_partition_limit = reader.i32()?;
        request.cursor = reader.nullable_structure(version)?;
        Ok(request)
    }
}

impl Decode for TopicRequest {
    const BYTES_MIN: usize = 1;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut topic = TopicRequest::default();
        topic.name = reader.string()?;
        Ok(topic)
    }
}

impl Decode for Cursor {
    const BYTES_MIN: usize = 5;

    fn decode(reader: &mut Reader, _version: i16) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::default();
        cursor.topic_name = reader.string()?;
        cursor.partition_index = reader.i32()?;
        Ok(cursor)
    }
}
