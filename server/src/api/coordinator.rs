//! From a group's id to the shard that coordinates it. Shared by the handlers of groups and their offsets.

use std::{future::Future, rc::Rc, sync::Arc};

use futures_util::future::Either;
use kafka_protocol::protocol::StrBytes;

use super::partitions::locate;
use crate::{
    coord::{
        OFFSETS_TOPIC,
        group::{GroupError, Reply, Request, Verb},
        partition_of_group,
    },
    shard::Shard,
};

/// Asks the coordinator of a group. The question is on its way when this returns, polled or not.
pub fn ask(shard: &Rc<Shard>, group: &str, verb: Verb) -> impl Future<Output = Reply> + use<> {
    let image = shard.image();
    let located = image.topics.get(OFFSETS_TOPIC).and_then(|topic| {
        let coordinator = partition_of_group(group, topic.partitions.len() as i32);
        let located = locate(shard, Some(topic), coordinator.0).ok()?;
        Some((located.owner, coordinator))
    });
    let Some((owner, coordinator)) = located else {
        // FindCoordinator, which the client asks now, makes the topic.
        return Either::Left(async { Reply::Refused(GroupError::NotCoordinator) });
    };
    let answer = shard.group(owner, Request::Group { coordinator, verb });
    Either::Right(async move {
        let stopping = Reply::Refused(GroupError::CoordinatorNotAvailable);
        answer.await.unwrap_or(stopping)
    })
}

pub fn shared(text: &StrBytes) -> Arc<str> {
    Arc::from(text.as_str())
}

pub fn shared_option(text: Option<&StrBytes>) -> Option<Arc<str>> {
    text.map(shared)
}
