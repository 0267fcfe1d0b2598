//! Our words in the `kafka-protocol` crate's types, for the handlers of the control plane.

use forebay_engine::TopicId;
use kafka_protocol::{messages::BrokerId, protocol::StrBytes};
use uuid::Uuid;

use crate::{
    meta::{Image, PartitionState, controller::Refusal},
    wire::ErrorCode,
};

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_uuid(id: TopicId) -> Uuid {
    Uuid::from_bytes(id.0)
}

pub fn broker_ids(brokers: &[i32]) -> Vec<BrokerId> {
    brokers.iter().copied().map(BrokerId).collect()
}

/// Replicas on brokers that are not there.
pub fn offline(image: &Image, state: &PartitionState) -> Vec<BrokerId> {
    let live = |id: &i32| image.brokers.get(id).is_some_and(|broker| !broker.fenced);
    let gone = state.replicas.iter().filter(|id| !live(id));
    gone.copied().map(BrokerId).collect()
}

/// Error code and message of one item of a reply.
pub fn outcome<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(refusal) => (
            ErrorCode::from(refusal.why).code(),
            Some(text(&refusal.message)),
        ),
    }
}
