//! What a run of bursts says about a broker that is to shave peaks, from the phases and the series of the run.

use serde::Serialize;

use crate::{
    latency::Latency,
    result::run::{Backlog, Phase, Second},
};

/// A backlog is gone when both are not exceeded: one of them alone is always there while records flow.
const GONE_RECORDS: u64 = 1_000;
const GONE_SECONDS: f64 = 1.0;

/// Latency is back to normal when its p99 is within this of what it was before the first burst.
const NORMAL_WITHIN: f64 = 1.10;

/// Seconds in a row that must be normal.
const NORMAL_SECONDS: usize = 3;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peak {
    /// Acknowledged of offered, over the bursts.
    pub ingest_fidelity: f64,
    pub base_latency: Option<Latency>,
    pub bursts: Vec<Burst>,
    pub backlog_max: Backlog,
    pub backlog_max_at_s: f64,
    /// Produce p99 at the base rate while a backlog is drained, over that before the first burst.
    pub drain_interference: Option<f64>,
    /// Produce p99 of the last burst over that of the first.
    pub last_to_first_p99: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burst {
    pub name: String,
    pub offered: u64,
    pub acknowledged: u64,
    pub failed: u64,
    pub bytes_per_second: f64,
    pub latency: Option<Latency>,
    pub backlog_max: Backlog,
    /// From the end of the burst until the backlog is gone; none if it was not before the next burst or the end.
    pub drain_s: Option<f64>,
    pub drain_records_per_second: Option<f64>,
    /// From the end of the burst until latency is normal.
    pub recovery_s: Option<f64>,
}

/// None without a burst.
pub fn analyse(phases: &[Phase], series: &[Second]) -> Option<Peak> {
    let first_base = phases.iter().find(|phase| phase.name == "base")?;
    let normal = latency_of(first_base);
    let mut bursts = Vec::new();
    let mut drained_p99 = Vec::new();
    for (index, phase) in phases.iter().enumerate() {
        if !phase.name.starts_with("burst") {
            continue;
        }
        let after = phases.get(index + 1);
        let until = after.map_or(f64::INFINITY, |phase| match index + 2 < phases.len() {
            true => phase.end_s,
            // Nothing is produced after the last phase, and the consumers go on.
            false => f64::INFINITY,
        });
        bursts.push(burst(phase, until, normal, series));
        drained_p99.extend(p99_while_draining(phase.end_s, after, series));
    }
    let (first, last) = (bursts.first()?, bursts.last()?);
    let p99 = |latency: Option<Latency>| latency.map(|it| it.p99_us as f64);
    let last_to_first_p99 = ratio(p99(last.latency), p99(first.latency));
    drained_p99.sort_unstable();
    let median = drained_p99.get(drained_p99.len() / 2).map(|it| *it as f64);
    let highest = series
        .iter()
        .filter_map(|second| Some((second.second, second.backlog?)));
    let highest = highest.max_by_key(|(_, backlog)| backlog.records);
    let (at, backlog_max) = highest.unwrap_or_default();
    let offered: u64 = bursts.iter().map(|burst| burst.offered).sum();
    let acknowledged: u64 = bursts.iter().map(|burst| burst.acknowledged).sum();
    Some(Peak {
        ingest_fidelity: acknowledged as f64 / offered.max(1) as f64,
        base_latency: normal,
        backlog_max,
        backlog_max_at_s: at as f64,
        drain_interference: ratio(median, p99(normal)),
        last_to_first_p99,
        bursts,
    })
}

fn burst(phase: &Phase, until: f64, normal: Option<Latency>, series: &[Second]) -> Burst {
    let flow = phase.produced.as_ref();
    let of = |from: f64, to: f64| {
        let within = move |it: &&Second| from <= it.second as f64 && (it.second as f64) < to;
        series.iter().filter(within)
    };
    let backlogs = of(phase.start_s, until).filter_map(|second| second.backlog);
    let backlog_max = backlogs
        .max_by_key(|backlog| backlog.records)
        .unwrap_or_default();
    let gone = of(phase.end_s, until).find(|second| second.backlog.is_some_and(is_gone));
    let drain_s = gone.map(|second| second.second as f64 + 1.0 - phase.end_s);
    let drained = |seconds: f64| {
        let consumed = of(phase.end_s, phase.end_s + seconds).map(|it| it.consumed.completed);
        consumed.sum::<u64>() as f64 / seconds
    };
    let recovery_s = normal.and_then(|normal| {
        let most = normal.p99_us as f64 * NORMAL_WITHIN;
        let after: Vec<&Second> = of(phase.end_s, until).collect();
        let is_normal = |second: &&Second| {
            let planned = second.produced.planned;
            planned.is_some_and(|planned| planned.p99_us as f64 <= most)
        };
        let mut windows = after.windows(NORMAL_SECONDS);
        let first = windows.find(|window| window.iter().all(is_normal))?;
        Some((first[0].second as f64 - phase.end_s).max(0.0))
    });
    Burst {
        name: phase.name.clone(),
        offered: flow.map_or(0, |flow| flow.offered),
        acknowledged: flow.map_or(0, |flow| flow.completed),
        failed: flow.map_or(0, |flow| flow.failed),
        bytes_per_second: flow.map_or(0.0, |flow| flow.bytes_per_second),
        latency: latency_of(phase),
        backlog_max,
        drain_s,
        drain_records_per_second: drain_s.filter(|seconds| *seconds > 0.0).map(drained),
        recovery_s,
    }
}

/// Of the seconds at the base rate in which consumers were behind.
fn p99_while_draining(from: f64, phase: Option<&Phase>, series: &[Second]) -> Vec<u64> {
    let until = phase.map_or(from, |phase| phase.end_s);
    let draining = series.iter().filter(|it| {
        let at = it.second as f64;
        // The second in which the burst ended still has some of it.
        from + 1.0 <= at && at + 1.0 <= until && it.backlog.is_some_and(|backlog| !is_gone(backlog))
    });
    draining
        .filter_map(|second| Some(second.produced.planned?.p99_us))
        .collect()
}

fn is_gone(backlog: Backlog) -> bool {
    backlog.records <= GONE_RECORDS && backlog.seconds_behind <= GONE_SECONDS
}

fn latency_of(phase: &Phase) -> Option<Latency> {
    phase
        .produced
        .as_ref()
        .and_then(|flow| flow.latency_planned)
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other.filter(|other| *other > 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::run::Flow;

    fn latency(p99_us: u64) -> Latency {
        Latency {
            p50_us: p99_us / 2,
            p95_us: p99_us,
            p99_us,
            p999_us: p99_us,
            p9999_us: p99_us,
            max_us: p99_us,
        }
    }

    fn phase(
        name: &str,
        start_s: f64,
        end_s: f64,
        offered: u64,
        completed: u64,
        p99_us: u64,
    ) -> Phase {
        Phase {
            name: name.to_string(),
            start_s,
            end_s,
            measured: true,
            produced: Some(Flow {
                offered,
                completed,
                failed: offered - completed,
                bytes: completed,
                records_per_second: 0.0,
                bytes_per_second: 0.0,
                latency_planned: Some(latency(p99_us)),
                latency_service: None,
                lateness: None,
            }),
            consumed: None,
        }
    }

    fn second(second: u64, p99_us: u64, records: u64, consumed: u64) -> Second {
        let mut it = Second {
            second,
            ..Second::default()
        };
        it.produced.planned = Some(latency(p99_us));
        it.consumed.completed = consumed;
        it.backlog = Some(Backlog {
            records,
            bytes: records,
            seconds_behind: records as f64 / 10_000.0,
        });
        it
    }

    #[test]
    fn a_burst_is_told_from_what_comes_after_it() {
        let phases = [
            phase("base", 0.0, 2.0, 2_000, 2_000, 1_000),
            phase("burst 1", 2.0, 4.0, 100_000, 90_000, 9_000),
            phase("base 1", 4.0, 10.0, 6_000, 6_000, 1_200),
        ];
        let series = [
            second(0, 1_000, 10, 1_000),
            second(1, 1_000, 10, 1_000),
            second(2, 8_000, 40_000, 10_000),
            second(3, 9_000, 80_000, 10_000),
            second(4, 5_000, 50_000, 30_000),
            second(5, 1_500, 20_000, 30_000),
            second(6, 1_050, 500, 20_000),
            second(7, 1_000, 10, 1_000),
            second(8, 1_000, 10, 1_000),
            second(9, 1_000, 10, 1_000),
        ];
        let peak = analyse(&phases, &series).expect("there is a burst");
        assert_eq!(peak.ingest_fidelity, 0.9);
        assert_eq!(
            (peak.backlog_max.records, peak.backlog_max_at_s),
            (80_000, 3.0)
        );
        let burst = &peak.bursts[0];
        assert_eq!(
            (burst.offered, burst.acknowledged, burst.failed),
            (100_000, 90_000, 10_000)
        );
        assert_eq!(burst.drain_s, Some(3.0), "gone in the third second after");
        assert_eq!(burst.drain_records_per_second, Some(80_000.0 / 3.0));
        assert_eq!(burst.recovery_s, Some(2.0));
        assert_eq!(
            peak.drain_interference,
            Some(1.5),
            "of the one whole second behind"
        );
        assert_eq!(peak.last_to_first_p99, Some(1.0));
    }

    #[test]
    fn a_backlog_that_stays_has_no_drain_time() {
        let phases = [
            phase("base", 0.0, 1.0, 1, 1, 1_000),
            phase("burst 1", 1.0, 2.0, 1, 1, 1_000),
            phase("base 1", 2.0, 3.0, 1, 1, 1_000),
        ];
        let series = [
            second(0, 1_000, 0, 0),
            second(1, 1_000, 9_999, 0),
            second(2, 9_000, 9_999, 0),
        ];
        let burst = &analyse(&phases, &series).expect("there is a burst").bursts[0];
        assert_eq!((burst.drain_s, burst.recovery_s), (None, None));
        assert_eq!(burst.drain_records_per_second, None);
        assert_eq!(
            analyse(&phases[..1], &series),
            None,
            "no burst, nothing to say"
        );
    }
}
