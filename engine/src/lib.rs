//! The log of Forebay.
//!
//! Knows Kafka record batches (magic 2), disks and time. Knows nothing of sockets, requests or brokers.
//! Read the modules in this order: `types`, `error`, `rt` (the seam to disk, network, clock, randomness
//! and tasks), `batch`, `segment`, `journal`, `log`, `engine`.

pub mod batch;
pub mod checkpoint;
pub mod engine;
pub mod error;
pub mod journal;
pub mod log;
pub mod rt;
pub mod segment;
#[cfg(test)]
mod testing;
pub mod types;

pub use engine::{
    Engine, EngineConfig, EngineStats, SYNCS_TOGETHER_MIN, SpaceAlarm, SpaceConfig, Strays,
};
pub use error::{AppendError, Fault, OpenError, ReadError};
pub use log::{Appended, Durability, Fetched, Log, LogConfig, Marks, SpaceUse, TimestampType};
pub use types::{
    LeaderEpoch, LogId, LogName, Offset, PartitionIndex, ProducerEpoch, ProducerId, ShardId,
    Timestamp, TopicId,
};
