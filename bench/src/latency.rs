//! How long single operations took: recorded one by one, shown as percentiles.

use std::{ops::AddAssign, time::Duration};

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Every latency of one measurement, in microseconds, to three digits.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Latencies {
        Latencies(Histogram::new(3).expect("three digits are allowed"))
    }

    pub fn record(&mut self, took: Duration) {
        self.record_many(took, 1);
    }

    /// `count` operations that took `took` together, each counted with the mean.
    pub fn record_many(&mut self, took: Duration, count: u64) {
        self.0
            .record_n(micros(took) / count, count)
            .expect("a resizing histogram takes any value");
    }

    /// `count` operations that took `took` each.
    pub fn record_each(&mut self, took: Duration, count: u64) {
        self.0
            .record_n(micros(took), count)
            .expect("a resizing histogram takes any value");
    }

    /// In microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Which latency each part of the operations stays within; empty without operations. Parts so near to all that less than one operation
    /// lies beyond are left out.
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let parts = [
            0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998,
            0.9999, 0.99995, 0.99999, 0.999_999,
        ];
        let count = self.count() as f64;
        let known = parts.into_iter().filter(|part| count * (1.0 - part) >= 1.0);
        known
            .map(|part| (part, self.0.value_at_quantile(part)))
            .collect()
    }

    /// How many fell into each of a few buckets per doubling, by the bucket's upper bound in microseconds. Empty ones are left out.
    pub fn heat(&self) -> Vec<(u64, u64)> {
        let mut heat: Vec<(u64, u64)> = Vec::new();
        for value in self.0.iter_recorded() {
            let bound = heat_bound(value.value_iterated_to());
            match heat.last_mut() {
                Some((last, count)) if *last == bound => {
                    *count += value.count_since_last_iteration()
                }
                _ => heat.push((bound, value.count_since_last_iteration())),
            }
        }
        heat
    }

    /// Operations recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn percentiles(&self) -> Latency {
        Latency {
            p50_us: self.0.value_at_quantile(0.5),
            p95_us: self.0.value_at_quantile(0.95),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            p9999_us: self.0.value_at_quantile(0.9999),
            max_us: self.0.max(),
        }
    }
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies::new()
    }
}

impl AddAssign for Latencies {
    fn add_assign(&mut self, other: Latencies) {
        self.0 += other.0;
    }
}

impl AddAssign<&Latencies> for Latencies {
    fn add_assign(&mut self, other: &Latencies) {
        self.0 += &other.0;
    }
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub p9999_us: u64,
    pub max_us: u64,
}

/// Where a bucket of the heat map begins, from its upper bound.
pub fn heat_start(bound: u64) -> u64 {
    match bound {
        0..=8 => 4,
        bound if bound.is_power_of_two() => bound - bound / 8,
        bound => bound - (1 << (bound.ilog2() - 2)),
    }
}

/// Four buckets per doubling from 8 microseconds on.
fn heat_bound(micros: u64) -> u64 {
    if micros < 8 {
        return 8;
    }
    let quarter = 1 << (micros.ilog2() - 2);
    (micros / quarter + 1).saturating_mul(quarter)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        for micros in micros {
            latencies.record(Duration::from_micros(micros));
        }
        latencies
    }

    #[test]
    fn percentiles_count_operations() {
        let expected = Latency {
            p50_us: 500,
            p95_us: 950,
            p99_us: 990,
            p999_us: 999,
            p9999_us: 1000,
            max_us: 1000,
        };
        assert_eq!(of(1..=1000).percentiles(), expected);
        assert_eq!(of((1..=1000).rev()).percentiles(), expected);
    }

    #[test]
    fn one_slow_operation_in_a_hundred_shows_above_p99_only() {
        let latency = of((0..99).map(|_| 10).chain([1_000])).percentiles();
        assert_eq!((latency.p50_us, latency.p99_us), (10, 10));
        assert_eq!((latency.p999_us, latency.max_us), (1_000, 1_000));
    }

    #[test]
    fn many_at_once_count_with_their_mean() {
        let mut latencies = Latencies::new();
        latencies.record_many(Duration::from_micros(500), 100);
        assert_eq!(latencies.count(), 100);
        assert_eq!(latencies.percentiles().max_us, 5);
    }

    #[test]
    fn what_two_tasks_recorded_adds_up() {
        let mut both = of([1, 2]);
        both += of([7]);
        assert_eq!(both.count(), 3);
        assert_eq!(both.percentiles().p50_us, 2);
        assert_eq!(both.percentiles().max_us, 7);
    }

    #[test]
    fn hours_are_recorded_as_well_as_microseconds() {
        let hours = Duration::from_secs(10 * 3600);
        let mut latencies = of([1]);
        latencies.record(hours);
        let ratio = latencies.percentiles().max_us as f64 / hours.as_micros() as f64;
        assert!((0.999..1.001).contains(&ratio), "{ratio}");
    }

    #[test]
    fn heat_buckets_hold_every_value_once() {
        let check = |micros: u64, bound: u64| {
            assert_eq!(of([micros]).heat(), [(bound, 1)], "{micros}");
        };
        check(0, 8);
        check(7, 8);
        check(8, 10);
        check(9, 10);
        check(10, 12);
        check(1_000, 1_024);
        check(1_024, 1_280);
        for micros in [8, 9, 63, 64, 100, 1_000, 1_023, 1_024, 70_000] {
            let bound = heat_bound(micros);
            assert!(heat_start(bound) <= micros && micros < bound, "{micros}");
            assert_eq!(
                heat_bound(heat_start(bound)),
                bound,
                "no gap before {bound}"
            );
        }
        let heat = of(0..10_000).heat();
        assert_eq!(heat.iter().map(|(_, count)| count).sum::<u64>(), 10_000);
        assert!(heat.is_sorted_by(|one, next| one.0 < next.0));
    }
}
