//! Coordinators: a request becomes (records, reply); the reply leaves after the records are durable; replay is the same code.
//!
//! Read in this order: [`group`] (the pure state machine of consumer groups: no I/O, no clock, no waiting), [`records`] (what it
//! writes to `__consumer_offsets`, in Kafka's own formats), [`timers`], [`runtime`] (one coordinator per owned partition).

pub mod group;
pub mod records;
pub mod runtime;
pub mod timers;

pub use runtime::Coordinators;
