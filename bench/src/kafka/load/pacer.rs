//! Which records are due, and which of them wait because the system does not take them.

use std::{collections::VecDeque, iter::Peekable, time::Duration};

use crate::{
    run::Recorder,
    schedule::{Arrivals, Schedule, Share},
};

/// Records that wait at most; what is planned beyond them is counted as failed, since memory has an end.
const WAITING_MAX: usize = 4_000_000;

/// Of one driver: its share of the arrivals of all.
pub struct Pacer {
    plan: Plan,
    waiting: VecDeque<Duration>,
    ends: Duration,
}

enum Plan {
    /// The warm-up has the rate that the schedule begins with, and the schedule's time begins after it.
    Open {
        warm_up: Peekable<Arrivals>,
        warm_up_ends: Duration,
        arrivals: Peekable<Arrivals>,
    },
    Closed,
}

impl Pacer {
    pub fn new(
        schedule: &Schedule,
        seed: u64,
        share: Share,
        warm_up_ends: Duration,
        ends: Duration,
    ) -> Result<Pacer, String> {
        let plan = match schedule.is_closed() {
            Some(_) => Plan::Closed,
            None => {
                let rate = schedule.rate_at(Duration::ZERO).max(1.0);
                let steady: Schedule = format!("constant:{rate}")
                    .parse()
                    .map_err(|error| format!("the rate of the warm-up: {error}"))?;
                Plan::Open {
                    warm_up: steady.arrivals(seed, share).peekable(),
                    warm_up_ends,
                    arrivals: schedule.arrivals(seed, share).peekable(),
                }
            }
        };
        Ok(Pacer {
            plan,
            waiting: VecDeque::new(),
            ends,
        })
    }

    /// Takes over what is due by now.
    pub fn turn_to(&mut self, now: Duration, recorder: &mut Recorder) {
        while let Some(planned) = self.next_arrival().filter(|planned| *planned <= now) {
            self.pass();
            recorder.offered(planned, 1);
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(planned);
            } else {
                recorder.failed(planned, 1);
            }
        }
    }

    /// The one that has waited longest; in a closed loop there always is one, planned for now.
    pub fn first_waiting(&self, now: Duration) -> Option<Duration> {
        match self.plan {
            Plan::Closed => (now < self.ends).then_some(now),
            Plan::Open { .. } => self.waiting.front().copied(),
        }
    }

    /// The first that waits was sent.
    pub fn sent(&mut self, now: Duration, recorder: &mut Recorder) {
        match self.plan {
            Plan::Closed => recorder.offered(now, 1),
            Plan::Open { .. } => {
                self.waiting.pop_front();
            }
        }
    }

    /// None when nothing more is planned.
    pub fn next_arrival(&mut self) -> Option<Duration> {
        let Plan::Open {
            warm_up,
            warm_up_ends,
            arrivals,
        } = &mut self.plan
        else {
            return None;
        };
        let warm = warm_up.peek().copied().filter(|at| at < warm_up_ends);
        let next = warm.or_else(|| arrivals.peek().map(|at| *at + *warm_up_ends));
        next.filter(|planned| *planned < self.ends)
    }

    /// Nothing is planned, and nothing waits.
    pub fn is_done(&mut self, now: Duration) -> bool {
        match self.plan {
            Plan::Closed => now >= self.ends,
            Plan::Open { .. } => self.waiting.is_empty() && self.next_arrival().is_none(),
        }
    }

    /// The plan ends here: what waits was never sent.
    pub fn cut(&mut self, at: Duration, recorder: &mut Recorder) {
        self.ends = self.ends.min(at);
        for planned in self.waiting.drain(..) {
            recorder.failed(planned, 1);
        }
    }

    fn pass(&mut self) {
        if let Plan::Open {
            warm_up,
            warm_up_ends,
            arrivals,
        } = &mut self.plan
        {
            match warm_up.peek().is_some_and(|at| at < warm_up_ends) {
                true => warm_up.next(),
                false => arrivals.next(),
            };
        }
    }
}
