//! The largest factor of a burst that a broker takes within a latency objective, found by bisection.

use serde::Serialize;
use serde_json::json;

use super::{Peak, Plan, peak_of};
use crate::{
    exit::Exit,
    kafka::{
        drive::{Drive, Findings},
        load::{Outcome, metric},
    },
    result::run::Better,
};

/// The bisection ends when the factor is known to this part of itself.
const KNOWN_TO: f64 = 0.05;

#[derive(Clone, Debug, Serialize)]
struct Probe {
    times: f64,
    holds: bool,
    p99_us: u64,
    ingest_fidelity: f64,
    /// The generator kept up; a probe that is not valid says nothing good of the broker.
    valid: bool,
}

pub fn find(plan: &Plan, drive: Drive<'_>) -> Result<Exit, String> {
    let mut probes: Vec<Probe> = Vec::new();
    let mut last = None;
    let knee = bisect(plan.peak.times_max, |times| {
        let driven = drive.load(&plan.load(times)?)?;
        let probe = probe(plan, times, &driven.1);
        eprintln!(
            "times {times:.2}: p99 {} us, fidelity {:.4}: {}",
            probe.p99_us,
            probe.ingest_fidelity,
            if probe.holds {
                "holds"
            } else {
                "does not hold"
            }
        );
        let holds = probe.holds;
        probes.push(probe);
        last = Some(driven);
        Ok(match drive.stop.is_asked() {
            true => None,
            false => Some(holds),
        })
    })?;
    let driven = last.expect("at least one load was run");
    let line = match knee {
        Some(times) => format!(
            "knee: {times:.2} times the base rate of {} records/s, within p99 {} ms",
            plan.peak.base_rate, plan.peak.objective_ms
        ),
        None => format!(
            "no knee: already the base rate of {} records/s does not hold p99 {} ms",
            plan.peak.base_rate, plan.peak.objective_ms
        ),
    };
    let findings = Findings {
        details: json!({ "knee_times": knee, "probes": probes }),
        metrics: vec![metric(
            "peak_knee_times",
            "ratio",
            Better::Higher,
            knee.unwrap_or(0.0),
        )],
        lines: vec![line],
    };
    drive.finish("peak --knee", plan, driven, findings)
}

fn probe(plan: &Plan, times: f64, outcome: &Outcome) -> Probe {
    let peak = peak_of(outcome);
    let bursts = || peak.iter().flat_map(|peak: &Peak| &peak.bursts);
    let p99_us = bursts()
        .filter_map(|burst| Some(burst.latency?.p99_us))
        .max();
    let p99_us = p99_us.unwrap_or(u64::MAX);
    let all_taken = bursts().all(|burst| burst.failed == 0 && burst.acknowledged == burst.offered);
    Probe {
        times,
        holds: all_taken
            && u128::from(p99_us) <= plan.objective().as_micros()
            && outcome.verdict.valid,
        p99_us,
        ingest_fidelity: peak.map_or(0.0, |peak| peak.ingest_fidelity),
        valid: outcome.verdict.valid,
    }
}

/// The largest factor from 1 to `most` that holds, to `KNOWN_TO`. None when 1 does not. `holds` answers nothing when it was stopped: what
/// is known by then counts.
fn bisect(
    most: f64,
    mut holds: impl FnMut(f64) -> Result<Option<bool>, String>,
) -> Result<Option<f64>, String> {
    if holds(1.0)? != Some(true) {
        return Ok(None);
    }
    let (mut good, mut bad) = (1.0, None);
    // Doubling first: a knee is more often near the base than near what is allowed.
    while bad.is_none() && good < most {
        let times = (good * 2.0_f64).min(most);
        match holds(times)? {
            Some(true) => good = times,
            Some(false) => bad = Some(times),
            None => return Ok(Some(good)),
        }
    }
    while let Some(above) = bad.filter(|above| above - good > good * KNOWN_TO) {
        let times = (good * above).sqrt();
        match holds(times)? {
            Some(true) => good = times,
            Some(false) => bad = Some(times),
            None => break,
        }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_found_in_a_few_loads() {
        let check = |knee: f64, most: f64, expected: Option<f64>| {
            let mut loads = 0;
            let found = bisect(most, |times| {
                loads += 1;
                Ok(Some(times <= knee))
            });
            let found = found.expect("no load fails");
            assert!(loads <= 14, "{loads} loads");
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    assert!(
                        found <= knee && found >= expected / (1.0 + KNOWN_TO),
                        "{found}"
                    );
                }
                (found, expected) => assert_eq!(found, expected),
            }
        };
        check(0.5, 64.0, None);
        check(1.0, 64.0, Some(1.0));
        check(7.3, 64.0, Some(7.3));
        check(63.0, 64.0, Some(63.0));
        check(1_000.0, 64.0, Some(64.0));
    }

    #[test]
    fn a_stopped_search_says_what_it_knows() {
        let mut loads = 0;
        let found = bisect(64.0, |_| {
            loads += 1;
            Ok((loads < 3).then_some(true))
        });
        assert_eq!(found, Ok(Some(2.0)));
    }
}
