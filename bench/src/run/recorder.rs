//! What one worker does, counted as it happens.
//!
//! An operation has three times: when it was planned to begin, when it was sent, and when it was completed. Its latency counts from the
//! first, so that an operation that had to wait behind a stalled one shows the stall (no coordinated omission); the service time counts
//! from the second. How late the generator noticed that an operation was due is its lateness, and says whether the run is valid. In a closed loop nothing is planned, and the two
//! latencies are the same.
//!
//! Whatever happens within a second goes to the collector as one slice when that second is over, by the time it happened; the totals of a
//! phase take operations by the time they were planned, whenever they ended.

use std::{sync::mpsc::Sender, time::Duration};

use super::{RunClock, collector::Told};
use crate::latency::Latencies;

/// Of which flow a slice is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Produce,
    Consume,
}

/// A part of the run that is reported by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseSpan {
    pub name: String,
    pub start: Duration,
    pub end: Duration,
    /// Measured, or only there to get the systems going.
    pub measured: bool,
}

/// Of what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were planned to be sent.
    pub offered: u64,
    /// Records whose outcome is known and good.
    pub completed: u64,
    pub failed: u64,
    /// Bytes of the completed records, as the application sees them (keys and values).
    pub bytes: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.offered += other.offered;
        self.completed += other.completed;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

/// Counts with the latencies of the completed.
#[derive(Clone, Default)]
pub struct Totals {
    pub counts: Counts,
    /// From the planned time. Of a consumer: until the record was received.
    pub planned: Latencies,
    /// From the time of sending.
    pub service: Latencies,
    /// Of the generator behind its plan.
    pub lateness: Latencies,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.counts.add(other.counts);
        self.planned += &other.planned;
        self.service += &other.service;
        self.lateness += &other.lateness;
    }
}

/// What one worker did within one second of the run.
pub struct Slice {
    pub direction: Direction,
    pub second: u64,
    pub totals: Totals,
}

/// What one worker's operations of one phase came to.
pub type PhaseTotals = Totals;

/// When an operation was planned and sent. Times of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub planned: Duration,
    pub sent: Duration,
}

pub struct Recorder {
    direction: Direction,
    clock: RunClock,
    phases: Vec<PhaseSpan>,
    of_phase: Vec<PhaseTotals>,
    second: u64,
    of_second: Totals,
    slices: Sender<Told>,
}

impl Recorder {
    pub fn new(
        direction: Direction,
        clock: RunClock,
        phases: &[PhaseSpan],
        slices: Sender<Told>,
    ) -> Recorder {
        Recorder {
            direction,
            clock,
            phases: phases.to_vec(),
            of_phase: vec![PhaseTotals::default(); phases.len()],
            second: 0,
            of_second: Totals::default(),
            slices,
        }
    }

    /// The generator has come to `records` that were planned for `planned`. Whether the system can take them now is another matter: what has to
    /// wait for it is not the generator's lateness.
    pub fn offered(&mut self, planned: Duration, records: u64) {
        let now = self.clock.elapsed();
        self.turn_to(now);
        self.each_at(planned, |totals| {
            totals.counts.offered += records;
            let lateness = now.saturating_sub(planned);
            totals.lateness.record_each(lateness, records);
        });
    }

    /// `records` sent together have been acknowledged or received by now. What is received belongs to the phase it is received in.
    pub fn completed(&mut self, times: Times, records: u64, bytes: u64) {
        let now = self.clock.elapsed();
        self.turn_to(now);
        let at = match self.direction {
            Direction::Produce => times.planned,
            Direction::Consume => now,
        };
        self.each_at(at, |totals| {
            totals.counts.completed += records;
            totals.counts.bytes += bytes;
            let since = |then: Duration| now.saturating_sub(then);
            totals.planned.record_each(since(times.planned), records);
            totals.service.record_each(since(times.sent), records);
        });
    }

    /// Records whose times are not known, or that were sent before this run.
    pub fn received(&mut self, records: u64, bytes: u64) {
        let now = self.clock.elapsed();
        self.turn_to(now);
        self.each_at(now, |totals| {
            totals.counts.completed += records;
            totals.counts.bytes += bytes;
        });
    }

    pub fn failed(&mut self, planned: Duration, records: u64) {
        self.turn_to(self.clock.elapsed());
        self.each_at(planned, |totals| totals.counts.failed += records);
    }

    /// Called from time to time by a worker that has nothing to record, so that its last slice is not late.
    pub fn tick(&mut self) {
        self.turn_to(self.clock.elapsed());
    }

    /// Sends what is left. The totals are by phase, in their order.
    pub fn finish(mut self) -> Vec<PhaseTotals> {
        self.send();
        self.of_phase
    }

    fn each_at(&mut self, planned: Duration, mut count: impl FnMut(&mut Totals)) {
        count(&mut self.of_second);
        let phase = self.phases.iter().rposition(|phase| phase.start <= planned);
        if let Some(phase) = phase {
            count(&mut self.of_phase[phase]);
        }
    }

    fn turn_to(&mut self, now: Duration) {
        if now.as_secs() > self.second {
            self.send();
            self.second = now.as_secs();
        }
    }

    fn send(&mut self) {
        let totals = std::mem::take(&mut self.of_second);
        let slice = Slice {
            direction: self.direction,
            second: self.second,
            totals,
        };
        // A collector that is gone has failed, and says so itself.
        let _ = self.slices.send(Told::Slice(Box::new(slice)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn span(name: &str, start: u64, end: u64) -> PhaseSpan {
        PhaseSpan {
            name: name.to_string(),
            start: Duration::from_secs(start),
            end: Duration::from_secs(end),
            measured: true,
        }
    }

    #[test]
    fn latency_counts_from_the_plan_and_service_time_from_the_send() {
        let (sender, slices) = channel();
        let clock = RunClock::starting_in(Duration::ZERO);
        let phases = [span("all", 0, 60)];
        let mut recorder = Recorder::new(Direction::Produce, clock, &phases, sender);
        recorder.offered(Duration::ZERO, 7);
        std::thread::sleep(Duration::from_millis(20));
        let times = Times {
            planned: Duration::ZERO,
            sent: clock.elapsed(),
        };
        recorder.completed(times, 7, 700);
        let totals = recorder.finish().remove(0);
        assert_eq!(totals.counts.offered, 7);
        assert_eq!((totals.counts.completed, totals.counts.bytes), (7, 700));
        assert_eq!(totals.planned.count(), 7);
        assert!(totals.planned.percentiles().p50_us >= 20_000);
        assert!(totals.service.percentiles().p50_us < totals.planned.percentiles().p50_us);
        let late = totals.lateness.percentiles().p50_us;
        assert!(late < 20_000, "the generator was on time: {late}");
        let completed = slices.iter().map(|told| match told {
            Told::Slice(slice) => slice.totals.counts.completed,
            Told::Backlog { .. } => 0,
        });
        assert_eq!(completed.sum::<u64>(), 7);
    }

    #[test]
    fn an_operation_belongs_to_the_phase_it_was_planned_for() {
        let (sender, _slices) = channel();
        let clock = RunClock::starting_in(Duration::ZERO);
        let phases = [span("base", 0, 1), span("burst", 1, 2)];
        let mut recorder = Recorder::new(Direction::Produce, clock, &phases, sender);
        for planned_ms in [0, 999, 1_000, 1_999, 5_000] {
            recorder.failed(Duration::from_millis(planned_ms), 1);
        }
        let failed: Vec<u64> = recorder.finish().iter().map(|t| t.counts.failed).collect();
        assert_eq!(failed, [2, 3], "what comes after the last phase is its");
    }
}
