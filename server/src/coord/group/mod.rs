//! Consumer groups of one partition of `__consumer_offsets`: the classic protocol, and committed offsets.
//!
//! A pure state machine: [`Machine::step`] takes an event and returns [`Effects`]: records to write, replies to give, timers to set.
//! It does no I/O, reads no clock and never waits, so that tests and the simulator drive it as the broker does.
//!
//! State changes at once, so a reply may rest on records of earlier steps that are not durable yet. Whoever runs the machine
//! lets every reply leave only after all records of all steps up to its own are committed; if they cannot be, the machine is thrown away
//! and loaded again from the log.

mod classic;
mod error;
mod machine;
mod members;
mod offsets;
mod rebalance;
mod request;
mod state;
mod subscription;
#[cfg(test)]
mod tests;

pub use error::GroupError;
pub use machine::{Context, Effects, Event, Machine, Rules, Timer, TimerChange, TimerKey, Token};
pub use request::{
    CommitOffset, CommitOffsets, DeleteOffsets, Described, DescribedMember, FetchOffsets,
    FetchedOffset, GroupFilter, Heartbeat, Join, Joined, JoinedMember, KnownMemberId, Leave,
    LeavingMember, ListedGroup, OffsetSelection, Protocol, Reply, Request, SkipAssignment, Sync,
    Synced, TopicPartition, Verb,
};
pub use state::StateName;
