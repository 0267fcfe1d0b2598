//! A new image goes to every shard of this host, and what every handler needs of the controller: topics that come into being when
//! somebody asks for them.

use std::{rc::Rc, sync::Arc};

use futures_util::future::join_all;

use super::{
    Image, Topic,
    controller::{NewTopic, Refusal, Refused, Reply, Request},
};
use crate::shard::Shard;

/// Completes when the partitions of all shards follow the image, so that a topic can be used once its creation was answered. A
/// shard that is stopping follows no more, and nobody minds.
pub(super) async fn publish(shard: &Rc<Shard>, image: Arc<Image>) {
    let shards = shard.shards();
    let published = shards.map(|other| shard.publish(other, image.clone()));
    join_all(published).await;
}

impl Shard {
    /// The topic of this name, created with the broker's defaults if it is not there.
    pub async fn ensure_topics(self: &Rc<Self>, names: Vec<String>) -> Vec<Result<(), Refusal>> {
        let topics = names.into_iter().map(|name| default_topic(self, name));
        let request = Request::CreateTopics {
            topics: topics.collect(),
            validate_only: false,
        };
        let results = match self.control(request.clone()).await {
            Some(Reply::CreateTopics(results)) => results,
            refused => {
                let Request::CreateTopics { topics, .. } = request else {
                    unreachable!("made above");
                };
                let refusal = refusal_of(refused);
                topics.iter().map(|_| Err(refusal.clone())).collect()
            }
        };
        let settled = results.into_iter().map(|result| match result {
            // Somebody else was faster.
            Err(refusal) if refusal.why != Refused::TopicExists => Err(refusal),
            _ => Ok(()),
        });
        settled.collect()
    }

    /// `__consumer_offsets` or another topic of the broker's own, created on first need.
    pub async fn ensure_internal_topic(
        self: &Rc<Self>,
        name: &'static str,
    ) -> Result<Arc<Topic>, Refusal> {
        if let Some(topic) = self.image().topics.get(name) {
            return Ok(topic.clone());
        }
        let results = self.ensure_topics(vec![name.to_owned()]).await;
        for result in results {
            result?;
        }
        let missing = || Refusal::new(Refused::Unavailable, format!("{name} is being created."));
        self.image().topics.get(name).cloned().ok_or_else(missing)
    }
}

/// A topic as the broker makes it by itself.
fn default_topic(shard: &Shard, name: String) -> NewTopic {
    if name != "__consumer_offsets" {
        return NewTopic {
            name,
            ..NewTopic::default()
        };
    }
    let groups = &shard.config.groups;
    let brokers = shard.image().active_brokers().count();
    let factor = brokers.min(groups.offsets_topic_replication_factor as usize);
    let set = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
    NewTopic {
        name,
        partitions: Some(groups.offsets_topic_partitions),
        replication_factor: Some(factor.max(1) as i16),
        assignments: Vec::new(),
        configs: vec![
            set("cleanup.policy", "compact"),
            set("compression.type", "producer"),
            set(
                "segment.bytes",
                &groups.offsets_topic_segment_bytes.to_string(),
            ),
        ],
    }
}

/// What a reply of another kind than the request's means: it was refused as a whole, or the broker is stopping.
pub fn refusal_of(reply: Option<Reply>) -> Refusal {
    match reply {
        Some(Reply::Refused(refusal)) => refusal,
        Some(_) => unreachable!("a request is answered in kind"),
        None => Refusal::new(Refused::Unavailable, "The broker is stopping."),
    }
}
