//! Cluster metadata: a request becomes records, records become a new immutable image, the image is published to all shards.

pub mod image;

use std::rc::Rc;

pub use image::{Broker, Image, PartitionState, Topic};

/// Requests to the controller. (Contract with `shard::msg`: names and `Send`; the owner fills them.)
pub mod controller {
    pub enum Request {}
    pub enum Reply {}
}

/// The controller's runtime on shard 0.
pub struct Controller {
    _private: (),
}

impl Controller {
    pub async fn handle(self: &Rc<Self>, request: controller::Request) -> controller::Reply {
        match request {}
    }
}
