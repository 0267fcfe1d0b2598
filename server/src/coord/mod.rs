//! Coordinators: a request becomes (records, reply); the reply leaves after the records are durable; replay is the same code.
//!
//! Read in this order: [`group`] (the pure state machine of consumer groups: no I/O, no clock, no waiting), [`records`] (what it
//! writes to `__consumer_offsets`, in Kafka's own formats), [`log`] (those records as batches, there and back), [`timers`],
//! `coordinator` (one partition, and who waits for what), [`runtime`] (all of a shard).

use forebay_engine::PartitionIndex;

mod coordinator;
pub mod group;
pub mod log;
pub mod records;
pub mod runtime;
pub mod timers;

pub use runtime::Coordinators;

/// The topic that holds all groups.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of [`OFFSETS_TOPIC`] that holds a group: as Kafka places it, by Java's `String.hashCode`.
pub fn partition_of_group(group: &str, partitions: i32) -> PartitionIndex {
    assert!(partitions > 0);
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka's `Utils.abs`: the one number without a counterpart becomes 0.
    let positive = hash.checked_abs().unwrap_or(0);
    PartitionIndex(positive % partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_placed_as_kafka_does() {
        let check = |group: &str, hash: i32| {
            let expected = PartitionIndex(hash.checked_abs().unwrap_or(0) % 50);
            assert_eq!(partition_of_group(group, 50), expected, "{group}");
        };
        // Hash codes as Java computes them.
        check("", 0);
        check("a", 97);
        check("hello", 99_162_322);
        check("polygenelubricants", i32::MIN);
        check("\u{1f600}", 1_772_899);
    }
}
