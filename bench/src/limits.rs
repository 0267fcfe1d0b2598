//! What a plan may ask for: a run that cannot be done says so in one line before it begins.

use std::{fmt::Display, ops::RangeInclusive};

/// Longest single measurement.
pub const SECONDS_MAX: u64 = 3600;

/// Most rounds of one run.
pub const ROUNDS_MAX: u32 = 10_000;

/// Most partitions, writers and whatever else is made one by one before the clock starts.
pub const COUNT_MAX: u32 = 1_000_000;

/// What `--size-bytes` of a record batch may be: from the least that holds a record, up to Kafka's usual largest.
pub const BATCH_BYTES: RangeInclusive<usize> = 256..=16 << 20;

/// Smaller batches, of which there are many at the same time.
pub const SMALL_BATCH_BYTES: RangeInclusive<usize> = 256..=1 << 20;

pub fn within<T: PartialOrd + Display>(
    option: &str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(format!(
        "{option} must be between {least} and {most}, and is {value}"
    ))
}

/// Saturates: a plan that asks for more than there can be is refused for lack of room.
pub fn mib(count: u64) -> u64 {
    count.saturating_mul(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_allowed() {
        let check = |value, expected| {
            assert_eq!(within("--n", value, 2..=5).is_ok(), expected, "{value}");
        };
        check(1, false);
        check(2, true);
        check(5, true);
        check(6, false);
        let refused = within("--n", 6, 2..=5).expect_err("more than five");
        assert_eq!(refused, "--n must be between 2 and 5, and is 6");
    }

    #[test]
    fn no_size_is_taken_for_a_smaller_one() {
        assert_eq!(mib(3), 3 * 1024 * 1024);
        assert_eq!(mib(u64::MAX), u64::MAX);
    }
}
