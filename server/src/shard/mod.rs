//! A shard: partitions, coordinators and connections of one core, and the mesh between shards.
//!
//! A handler finds everything through `Rc<Shard>`. Rule of order: a handler queues its effects (local appends, calls to other shards)
//! before its first `await`, so that requests of one connection take effect in the order in which they came.

pub mod msg;

use std::{rc::Rc, sync::Arc};

use forebay_engine::{Engine, PartitionIndex, ShardId, TopicId, rt::Rt};

use crate::{
    config::Config,
    coord::group,
    meta::{Image, controller},
    partition::Partition,
};
use msg::{Answer, Call};

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
    /// All shards of this host, this one included.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shard_count()).map(ShardId)
    }

    /// Asks another shard, or this one. The call is on its way (or, for this shard, its part before the first await has run) when
    /// this returns, polled or not.
    pub fn call(
        self: &Rc<Self>,
        _to: ShardId,
        _call: Call,
    ) -> impl Future<Output = Answer> + use<> {
        async { unimplemented!() }
    }
    /// Asks the controller on shard 0. `None` when the broker is stopping.
    pub fn control(
        self: &Rc<Self>,
        request: controller::Request,
    ) -> impl Future<Output = Option<controller::Reply>> + use<> {
        let answer = self.call(ShardId(0), Call::Control(request));
        async move {
            match answer.await {
                Answer::Control(reply) => Some(reply),
                Answer::Gone => None,
                _ => unreachable!("a call is answered in kind"),
            }
        }
    }
    /// Asks the shard that owns a group. `None` when the broker is stopping.
    pub fn group(
        self: &Rc<Self>,
        owner: ShardId,
        request: group::Request,
    ) -> impl Future<Output = Option<group::Reply>> + use<> {
        let answer = self.call(owner, Call::Group(request));
        async move {
            match answer.await {
                Answer::Group(reply) => Some(reply),
                Answer::Gone => None,
                _ => unreachable!("a call is answered in kind"),
            }
        }
    }
    /// Gives a new image to one shard; completes when that shard's partitions follow it. `false` when the broker is stopping.
    pub fn publish(
        self: &Rc<Self>,
        to: ShardId,
        image: Arc<Image>,
    ) -> impl Future<Output = bool> + use<> {
        let answer = self.call(to, Call::Publish(image));
        async move { matches!(answer.await, Answer::Published) }
    }
}
