//! The planned times of a run, one after the other.

use std::{sync::Arc, time::Duration};

use super::{
    Share,
    curve::{Cursor, Curve},
};

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

/// SplitMix64: the same numbers for a seed in every release of ours.
#[derive(Clone, Debug)]
pub(super) struct Random(pub u64);

impl Random {
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above zero, and up to one.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// With a mean of one.
    #[inline]
    fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }
}
