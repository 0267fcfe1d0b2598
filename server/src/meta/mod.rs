//! Cluster metadata: a request becomes records, records become a new immutable image, the image is published to all shards.

pub mod image;

pub use image::{Broker, Image, PartitionState, Topic};
