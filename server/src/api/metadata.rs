//! Metadata: brokers, topics, partitions and their leaders.

use kafka_protocol::messages::{MetadataRequest, metadata_request::MetadataRequestTopic};

use crate::wire::{Decode, DecodeError, Reader};

impl Decode for MetadataRequest {
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut request = MetadataRequest::default();
        // Null asks for all topics; in version 0, which has no null, an empty list does.
        request.topics = if version >= 1 {
            reader.nullable_structures(version)?
        } else {
            Some(reader.structures(version)?)
        };
        if version >= 4 {
            request.allow_auto_topic_creation = reader.bool()?;
        }
        if (8..=10).contains(&version) {
            request.include_cluster_authorized_operations = reader.bool()?;
        }
        if version >= 8 {
            request.include_topic_authorized_operations = reader.bool()?;
        }
        Ok(request)
    }
}

impl Decode for MetadataRequestTopic {
    const BYTES_MIN: usize = 2;

    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        let mut topic = MetadataRequestTopic::default();
        if version >= 10 {
            topic.topic_id = reader.uuid()?;
            topic.name = reader.nullable_string()?;
        } else {
            topic.name = Some(reader.string()?);
        }
        Ok(topic)
    }
}
