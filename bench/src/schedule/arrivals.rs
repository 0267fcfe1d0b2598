//! The planned times of a run, one after the other.

use std::{sync::Arc, time::Duration};

use super::{
    Share,
    curve::{Cursor, Curve},
};
use crate::random::Random;

/// Planned times since the start of the run, never decreasing. Ends where the rate stays zero for good.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// Without one nothing is planned.
    curve: Option<Arc<Curve>>,
    cursor: Cursor,
    counts: Counts,
    last: Duration,
}

/// At which values of the rate's integral something is due.
#[derive(Clone, Debug)]
enum Counts {
    /// At each whole number; this share has each `of`-th.
    Even { next: u64, of: u64 },
    /// At the sums of exponential gaps. A share draws the gaps of all the others too, or it would not know
    /// where its own arrivals are.
    Random {
        random: Random,
        sum: f64,
        gaps: u32,
        of: u32,
    },
}

impl Arrivals {
    pub(super) fn none() -> Arrivals {
        Arrivals {
            curve: None,
            cursor: Cursor::default(),
            counts: Counts::Even { next: 0, of: 1 },
            last: Duration::ZERO,
        }
    }

    pub(super) fn even(curve: Arc<Curve>, share: Share) -> Arrivals {
        Arrivals {
            curve: Some(curve),
            counts: Counts::Even {
                next: share.index.into(),
                of: share.of.into(),
            },
            ..Arrivals::none()
        }
    }

    pub(super) fn random(curve: Arc<Curve>, share: Share, seed: u64) -> Arrivals {
        Arrivals {
            curve: Some(curve),
            counts: Counts::Random {
                random: Random(seed),
                sum: 0.0,
                gaps: share.index + 1,
                of: share.of,
            },
            ..Arrivals::none()
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    #[inline]
    fn next(&mut self) -> Option<Duration> {
        let curve = self.curve.as_ref()?;
        let count = match &mut self.counts {
            Counts::Even { next, of } => {
                let count = *next;
                *next += *of;
                count as f64
            }
            Counts::Random {
                random,
                sum,
                gaps,
                of,
            } => {
                for _ in 0..*gaps {
                    *sum += random.exponential();
                }
                *gaps = *of;
                *sum
            }
        };
        let Some(at_ns) = curve.reaches(count, &mut self.cursor) else {
            self.curve = None;
            return None;
        };
        let at = Duration::from_nanos(at_ns);
        assert!(self.last <= at, "planned {at:?} after {:?}", self.last);
        self.last = at;
        Some(at)
    }
}
