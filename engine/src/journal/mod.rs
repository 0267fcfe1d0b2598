//! The journal of a shard: one durable write commits every small append of any number of partitions.

pub mod format;
pub mod replay;
pub mod ring;
pub mod writer;
