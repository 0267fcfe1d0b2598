//! A rate over time, its integral, and the time at which the integral reaches a count.
//!
//! The rate is a row of pieces, each linear in time, and after the last piece either begins anew or stays as it
//! is. Every figure of a piece counts from the start of its cycle, and cycles are multiplied, not added up: after
//! an hour the count is as right as after a second. A sine has its pieces only as a first guess; its integral
//! is known, and the guess is corrected by it.
//!
//! Times are in nanoseconds as `f64`, exact up to 104 days.

use std::{f64::consts::PI, time::Duration};

use super::spec::Spec;

/// Enough that the first guess for a sine is nearly right.
const SINE_PIECES: u32 = 256;

/// Of an operation: how far a planned time of a sine may be from the true one.
const SINE_ERROR_MAX: f64 = 1e-3;

/// From the worst guess, one in a piece that begins with a rate of zero, about ten are needed.
const SINE_ROUNDS_MAX: usize = 32;

const NS: f64 = 1e9;

#[derive(Clone, Debug)]
pub struct Curve {
    pieces: Vec<Piece>,
    /// Duration and count of a cycle. Without one the last piece goes on.
    cycle: Option<Cycle>,
    sine: Option<Sine>,
}

/// From `start_ns` on the rate is `rate`, changed by `slope` per second.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start_ns: f64,
    /// The integral before it.
    before: f64,
    rate: f64,
    slope: f64,
}

#[derive(Clone, Copy, Debug)]
struct Cycle {
    ns: u64,
    count: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sine {
    mean: f64,
    amplitude: f64,
    period_ns: f64,
}

/// Where in the curve a count was last found. Counts are asked for in rising order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    cycle: u64,
    piece: usize,
}

impl Curve {
    /// `None` for a closed loop.
    pub fn new(spec: &Spec) -> Option<Curve> {
        Some(match spec {
            Spec::Closed { .. } => return None,
            Spec::Constant { rate } | Spec::Poisson { rate } => held([(Duration::ZERO, *rate)]),
            Spec::Step { rates, each } => held((0..).zip(rates.iter()).map(|(step, rate)| {
                let at = Duration::from_nanos_u128(each.as_nanos() * step);
                (at, *rate)
            })),
            Spec::Trace { rows, factor, .. } => {
                held(rows.iter().map(|row| (row.at, row.rate * factor)))
            }
            Spec::Ramp { from, to, over } => ramp(*from, *to, *over),
            Spec::Burst {
                base,
                times,
                on,
                off,
            } => {
                let end = *off + *on;
                let mut curve = held([(Duration::ZERO, *base), (*off, base * times), (end, 0.0)]);
                let end = curve.pieces.pop().expect("three pieces");
                curve.cycle = Some(Cycle {
                    ns: end.start_ns as u64,
                    count: end.before,
                });
                curve
            }
            Spec::Sine {
                mean,
                amplitude,
                period,
            } => Sine {
                mean: *mean,
                amplitude: *amplitude,
                period_ns: ns(*period),
            }
            .curve(),
        })
    }

    pub fn rate_at(&self, at: Duration) -> f64 {
        let (_, at_ns) = self.in_cycle(at);
        match &self.sine {
            Some(sine) => sine.at(at_ns).1,
            None => {
                let piece = self.piece_at(at_ns);
                (piece.rate + piece.slope * (at_ns - piece.start_ns) / NS).max(0.0)
            }
        }
    }

    /// The integral of the rate from the start of the run.
    pub fn count_at(&self, at: Duration) -> f64 {
        let (before, at_ns) = self.in_cycle(at);
        let count = match &self.sine {
            Some(sine) => sine.at(at_ns).0,
            None => self.piece_at(at_ns).count_at(at_ns),
        };
        before + count
    }

    /// The count of the cycles before, and the time in this one.
    fn in_cycle(&self, at: Duration) -> (f64, f64) {
        match self.cycle {
            Some(Cycle { ns, count }) => {
                let (at, ns) = (at.as_nanos(), u128::from(ns));
                ((at / ns) as f64 * count, (at % ns) as f64)
            }
            None => (0.0, ns(at)),
        }
    }

    fn piece_at(&self, at_ns: f64) -> &Piece {
        let after = self.pieces.partition_point(|piece| piece.start_ns <= at_ns);
        &self.pieces[after - 1]
    }

    /// The nanosecond in which the integral rises above `count`: nothing is planned within a pause. `None` when
    /// it never does. The answer depends on the count alone, not on what the cursor was used for before.
    #[inline]
    pub fn reaches(&self, count: f64, cursor: &mut Cursor) -> Option<u64> {
        loop {
            let (cycles_ns, rest) = match self.cycle {
                Some(cycle) => (
                    cursor.cycle.saturating_mul(cycle.ns),
                    count - cursor.cycle as f64 * cycle.count,
                ),
                None => (0, count),
            };
            let piece = &self.pieces[cursor.piece];
            let end = match (self.pieces.get(cursor.piece + 1), self.cycle) {
                (Some(next), _) => next.before,
                (None, Some(cycle)) => cycle.count,
                (None, None) => piece.last_count(),
            };
            if rest < end {
                let mut at_ns = piece.reaches(rest);
                if let Some(sine) = &self.sine {
                    let next = self.pieces.get(cursor.piece + 1);
                    let end_ns = next.map_or(sine.period_ns, |next| next.start_ns);
                    at_ns = sine.reaches(rest, at_ns, (piece.start_ns, end_ns));
                }
                return Some(cycles_ns.saturating_add((at_ns + 0.5) as u64));
            }
            if cursor.piece + 1 < self.pieces.len() {
                cursor.piece += 1;
            } else if self.cycle.is_some() {
                *cursor = Cursor {
                    cycle: cursor.cycle + 1,
                    piece: 0,
                };
            } else {
                return None;
            }
        }
    }
}

impl Piece {
    fn count_at(&self, at_ns: f64) -> f64 {
        let seconds = (at_ns - self.start_ns) / NS;
        self.before + seconds * (self.rate + self.slope * seconds / 2.0)
    }

    /// What the last piece adds up to, if it is the last for ever.
    fn last_count(&self) -> f64 {
        if self.rate > 0.0 {
            f64::INFINITY
        } else {
            self.before
        }
    }

    #[inline]
    fn reaches(&self, count: f64) -> f64 {
        let rest = (count - self.before).max(0.0);
        if self.slope == 0.0 {
            return self.start_ns + rest * NS / self.rate;
        }
        // The root of rate x + slope x^2 / 2 = rest that does not cancel.
        let root = (self.rate * self.rate + 2.0 * self.slope * rest).max(0.0);
        let divisor = self.rate + root.sqrt();
        if divisor == 0.0 {
            return self.start_ns;
        }
        self.start_ns + 2.0 * rest / divisor * NS
    }
}

impl Sine {
    /// Count and rate at a time within the period.
    #[inline]
    fn at(&self, at_ns: f64) -> (f64, f64) {
        let (sin, cos) = (PI * at_ns / self.period_ns).sin_cos();
        let swing = self.amplitude * self.period_ns / NS / PI * sin * sin;
        let count = self.mean * at_ns / NS + swing;
        (count, self.mean + self.amplitude * 2.0 * sin * cos)
    }

    /// Newton's method from a guess that is nearly right, within the piece that has the count. One round is
    /// the rule; where the rate touches zero it needs some more, and stops short of dividing by nearly nothing.
    #[inline]
    fn reaches(&self, count: f64, guess_ns: f64, piece_ns: (f64, f64)) -> f64 {
        let mut at_ns = guess_ns;
        for _ in 0..SINE_ROUNDS_MAX {
            let (found, rate) = self.at(at_ns);
            let missing = count - found;
            let is_near = missing.abs() < SINE_ERROR_MAX;
            if rate <= 0.0 || is_near && rate < self.mean * SINE_ERROR_MAX {
                break;
            }
            at_ns = (at_ns + missing / rate * NS).clamp(piece_ns.0, piece_ns.1);
            if is_near {
                break;
            }
        }
        at_ns
    }

    fn curve(self) -> Curve {
        let border_ns = |index: u32| self.period_ns * f64::from(index) / f64::from(SINE_PIECES);
        let pieces = (0..SINE_PIECES).map(|index| {
            let (start_ns, end_ns) = (border_ns(index), border_ns(index + 1));
            let (before, rate) = self.at(start_ns);
            let (_, end_rate) = self.at(end_ns);
            Piece {
                start_ns,
                before,
                rate,
                slope: (end_rate - rate) / (end_ns - start_ns) * NS,
            }
        });
        Curve {
            pieces: pieces.collect(),
            cycle: Some(Cycle {
                ns: self.period_ns as u64,
                count: self.mean * self.period_ns / NS,
            }),
            sine: Some(self),
        }
    }
}

/// Each rate from its time on.
fn held(rates: impl IntoIterator<Item = (Duration, f64)>) -> Curve {
    let mut pieces: Vec<Piece> = Vec::new();
    for (start, rate) in rates {
        let start_ns = ns(start);
        pieces.push(Piece {
            start_ns,
            before: pieces.last().map_or(0.0, |last| last.count_at(start_ns)),
            rate,
            slope: 0.0,
        });
    }
    Curve {
        pieces,
        cycle: None,
        sine: None,
    }
}

fn ramp(from: f64, to: f64, over: Duration) -> Curve {
    let mut curve = held([(Duration::ZERO, from), (over, to)]);
    curve.pieces[0].slope = (to - from) / over.as_secs_f64();
    curve.pieces[1].before = (from + to) / 2.0 * over.as_secs_f64();
    curve
}

fn ns(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}
