//! Producers and consumers as applications have them: librdkafka, one client each.

pub mod consume;
pub mod produce;
