//! Cluster metadata: a request becomes records, records become a new immutable image, the image is published to all shards.

mod codec;
pub mod controller;
pub mod image;
pub mod records;

use std::rc::Rc;

pub use image::{Broker, Image, PartitionState, Topic};

/// The controller's runtime on shard 0.
pub struct Controller {
    _private: (),
}

impl Controller {
    pub async fn handle(self: &Rc<Self>, _request: controller::Request) -> controller::Reply {
        unimplemented!()
    }
}
