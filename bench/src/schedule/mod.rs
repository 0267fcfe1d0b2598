//! When operations are due: one generator of planned times for everything that is measured.
//!
//! A schedule is written as text, in operations per second (`k` and `M` for thousand and million) and durations
//! with a unit (`ms`, `s`, `m`, `h`):
//!
//! | text | what it offers |
//! | --- | --- |
//! | `closed:64` | 64 operations in flight; the next begins when one ends, so nothing is planned |
//! | `constant:50k` | 50,000 a second, evenly spaced |
//! | `poisson:50k` | 50,000 a second on average, with exponential gaps |
//! | `step:10k,20k,40k@30s` | each rate for 30 seconds, the last one on and on |
//! | `ramp:1k-100k@5m` | from one rate to the other over five minutes, and then stays there |
//! | `sine:50k,30k@10m` | 50,000 a second, up and down by 30,000, once in ten minutes; begins upwards |
//! | `burst:1000,5,10s,30s` | 1,000 a second for 30 seconds, then 5 times as much for 10, and again |
//! | `trace:tuesday.csv` | rows of `seconds,rate`, each held until the next, the last one on and on |
//!
//! A rate of 0 in a step, at an end of a ramp, or in a trace is a pause; a sequence whose last rate is 0 ends.
//! A burst begins with its base rate, so that there is a normal to compare with.
//!
//! Promises: the n-th arrival is due when the integral of the rate passes n (from 0; `poisson` has random
//! distances of the mean 1 instead), computed from n and never added up, so that the count after any time is
//! right to one. Times never decrease. Shares of a schedule, put together, are the whole of it. The same seed
//! gives the same times.

mod arrivals;
mod curve;
mod error;
mod spec;
#[cfg(test)]
mod tests;
mod trace;
mod units;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

pub use arrivals::Arrivals;
pub use error::ScheduleError;

use curve::Curve;
use spec::Spec;

/// For the help of each `--schedule`.
pub const HELP: &str = "\
When operations are due. Rates are operations per second (k, M), durations have a unit (ms, s, m, h):
  closed:64             64 in flight, the next when one ends
  constant:50k          evenly spaced
  poisson:50k           with exponential gaps
  step:10k,20k,40k@30s  each rate for 30s, the last goes on
  ramp:1k-100k@5m       from one rate to the other, then stays
  sine:50k,30k@10m      MEAN,AMPLITUDE@PERIOD
  burst:1000,5,10s,30s  BASE,TIMES,ON,OFF: base for 30s, 5 times base for 10s, repeated
  trace:FILE.csv        rows of seconds,rate; each rate is held until the next row";

/// See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    spec: Spec,
    /// None for a closed loop.
    curve: Option<Arc<Curve>>,
}

/// Which arrivals of a schedule one of several generators has: each `of`-th, from `index` on.
///
/// The shares of `poisson` each draw the gaps of all: as many shares as cores are cheap, thousands are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: u32,
    pub of: u32,
}

impl Share {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for targets with one generator")
    )]
    pub const ALL: Share = Share { index: 0, of: 1 };
}

/// A part of a run that is judged by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    pub name: String,
    pub start: Duration,
    pub end: Duration,
}

impl Schedule {
    fn new(spec: Spec) -> Schedule {
        let curve = Curve::new(&spec).map(Arc::new);
        Schedule { spec, curve }
    }

    /// Planned times since the start of the run; none for a closed loop. Only `poisson` needs the seed.
    ///
    /// Panics on a share that is none.
    pub fn arrivals(&self, seed: u64, share: Share) -> Arrivals {
        assert!(share.index < share.of, "no such share: {share:?}");
        match (&self.curve, &self.spec) {
            (None, _) => Arrivals::none(),
            (Some(curve), Spec::Poisson { .. }) => Arrivals::random(curve.clone(), share, seed),
            (Some(curve), _) => Arrivals::even(curve.clone(), share),
        }
    }

    /// In operations per second; 0 for a closed loop, which has none.
    pub fn rate_at(&self, at: Duration) -> f64 {
        self.curve.as_ref().map_or(0.0, |curve| curve.rate_at(at))
    }

    /// Operations planned from one time (inclusive) to another, as the integral of the rate; 0 for a closed loop.
    pub fn offered(&self, from: Duration, to: Duration) -> f64 {
        let until = |curve: &Arc<Curve>| curve.count_at(to) - curve.count_at(from);
        self.curve.as_ref().map_or(0.0, until)
    }

    /// The parts of a run of `total`, without gaps; what would begin after its end is left out.
    pub fn phases(&self, total: Duration) -> Vec<Phase> {
        let mut phases = Phases::new(total);
        match &self.spec {
            Spec::Burst { on, off, .. } => {
                phases.push("base".to_owned(), *off);
                for burst in 1.. {
                    if phases.are_complete() {
                        break;
                    }
                    phases.push(format!("burst {burst}"), *on);
                    phases.push(format!("base {burst}"), *off);
                }
            }
            Spec::Step { rates, each } => {
                for step in 1..rates.len() {
                    phases.push(format!("step {step}"), *each);
                }
                phases.push(format!("step {}", rates.len()), total);
            }
            _ => phases.push("run".to_owned(), total),
        }
        phases.phases
    }

    /// Operations in flight, if this is a closed loop.
    pub fn is_closed(&self) -> Option<u32> {
        match self.spec {
            Spec::Closed { in_flight } => Some(in_flight),
            _ => None,
        }
    }

    /// With each rate multiplied; a closed loop has none and stays as it is. Refused when a rate would leave
    /// its bounds.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for operations that are batches of records")
    )]
    pub fn scaled(&self, factor: f64) -> Result<Schedule, ScheduleError> {
        Ok(Schedule::new(self.spec.scaled(factor)?))
    }
}

struct Phases {
    phases: Vec<Phase>,
    start: Duration,
    total: Duration,
}

impl Phases {
    fn new(total: Duration) -> Phases {
        Phases {
            phases: Vec::new(),
            start: Duration::ZERO,
            total,
        }
    }

    fn are_complete(&self) -> bool {
        self.start >= self.total
    }

    fn push(&mut self, name: String, length: Duration) {
        if self.are_complete() {
            return;
        }
        let start = self.start;
        let end = start.saturating_add(length).min(self.total);
        self.start = end;
        self.phases.push(Phase { name, start, end });
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    /// Reads the file of a trace.
    fn from_str(text: &str) -> Result<Schedule, ScheduleError> {
        Ok(Schedule::new(Spec::parse(text)?))
    }
}

/// Reads back as the same schedule, if the file of a trace is still the same.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spec.fmt(f)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Schedule) -> bool {
        self.spec == other.spec
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
