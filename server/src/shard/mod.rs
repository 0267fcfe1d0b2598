//! A shard: partitions, coordinators and connections of one core, and the mesh between shards.
//!
//! A handler finds everything through `Rc<Shard>`. Rule of order: a handler queues its effects (local appends, calls to other shards)
//! before its first `await`, so that requests of one connection take effect in the order in which they came.

use std::{rc::Rc, sync::Arc};

use forebay_engine::{Engine, PartitionIndex, ShardId, TopicId, rt::Rt};

use crate::{config::Config, meta::Image, partition::Partition};

pub struct Shard {
    pub id: ShardId,
    pub rt: Rt,
    pub engine: Engine,
    pub config: Rc<Config>,
    _private: (),
}

impl Shard {
    /// The newest published metadata.
    pub fn image(&self) -> Arc<Image> {
        unimplemented!()
    }
    /// A partition this shard owns.
    pub fn partition(&self, _topic: TopicId, _partition: PartitionIndex) -> Option<Rc<Partition>> {
        unimplemented!()
    }
    /// The shard that owns a lane on this host.
    pub fn shard_of_lane(&self, _lane: u16) -> ShardId {
        unimplemented!()
    }
    pub fn shard_count(&self) -> u16 {
        unimplemented!()
    }
}
