//! The broker. One shard per core owns everything it touches; no locks.

pub mod api;
pub mod boot;
pub mod cli;
pub mod config;
pub mod coord;
pub mod meta;
pub mod metrics;
pub mod net;
pub mod partition;
pub mod shard;
pub mod wire;
