//! One load on a broker: producers on a schedule and consumers beside them, for as long as the phases last.
//!
//! `pacer` says what is due, the clients (`librdkafka`) send and receive it, `outcome` puts together what they recorded.

mod backlog;
mod outcome;
mod pacer;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

pub use outcome::{Outcome, metric};
pub use pacer::Pacer;

use super::{
    librdkafka,
    options::{ConsumerOptions, Offer, ProducerOptions},
    topics::{Partition, Topics},
};
use crate::{
    live::Live,
    payload::{Acknowledged, Ledger},
    run::{
        PhaseSpan, PhaseTotals, RunClock, Stop,
        collector::{Collected, Collector, Told},
    },
    sample::Sampler,
};

/// Between the start of the clients and the first record.
const LEAD: Duration = Duration::from_millis(500);

/// What is asked for.
pub struct Load {
    pub run_id: u32,
    pub seed: u64,
    pub phases: Vec<PhaseSpan>,
    /// Of the first phase, when it is not measured.
    pub warm_up: Duration,
    pub produce: Option<Produce>,
    pub consume: Option<Consume>,
    pub drain_max: Duration,
    /// Of the generator, at p99.
    pub lateness_max: Duration,
}

#[derive(Clone, Debug)]
pub struct Produce {
    pub options: ProducerOptions,
    pub offer: Offer,
}

#[derive(Clone, Debug)]
pub struct Consume {
    pub options: ConsumerOptions,
    pub when: When,
}

/// When consumers read, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// What is there already.
    FromTheFirst,
    /// What is produced while they read.
    FromNowOn,
    /// What was produced, when nothing more is.
    AfterProducers,
}

/// What every worker of a load shares.
#[derive(Clone)]
pub struct Shared {
    pub clock: RunClock,
    pub stop: Stop,
    pub told: Sender<Told>,
    pub phases: Arc<[PhaseSpan]>,
    pub partitions: Arc<[Partition]>,
    pub run_id: u32,
    /// Somebody produces in this run, so that only its records count.
    pub producing: bool,
    /// Of the consumers, by partition.
    pub progress: Arc<[Progress]>,
    /// Bytes of a record's value, on average.
    pub record_bytes_mean: f64,
    /// Where consumers may stop, by partition: known once nothing more is produced.
    pub ends: Arc<OnceLock<Vec<i64>>>,
    /// After this nobody waits any longer.
    pub gives_up: Arc<OnceLock<Instant>>,
}

/// How far the consumer of one partition has come.
#[derive(Debug)]
pub struct Progress {
    position: AtomicI64,
    planned_nanos: AtomicU64,
}

impl Progress {
    fn at(offset: i64) -> Progress {
        Progress {
            position: AtomicI64::new(offset),
            planned_nanos: AtomicU64::new(0),
        }
    }

    /// The next offset that it has not had.
    pub fn position(&self) -> i64 {
        self.position.load(Ordering::Relaxed)
    }

    /// When the last record it had was planned to be sent.
    pub fn last_planned(&self) -> Duration {
        Duration::from_nanos(self.planned_nanos.load(Ordering::Relaxed))
    }

    pub fn advance(&self, position: i64, planned: Option<Duration>) {
        self.position.store(position, Ordering::Relaxed);
        if let Some(planned) = planned {
            let nanos = u64::try_from(planned.as_nanos()).unwrap_or(u64::MAX);
            self.planned_nanos.store(nanos, Ordering::Relaxed);
        }
    }
}

impl Shared {
    fn end_at(&self, offsets: &[(i64, i64)]) {
        let ends = offsets.iter().map(|(_, next)| *next).collect();
        assert!(
            self.ends.set(ends).is_ok(),
            "consumers are told once where to end"
        );
    }

    /// Records that consumers did not come to.
    fn unread(&self) -> u64 {
        let positions = self.progress.iter().map(Progress::position);
        let ends = self.ends.get().into_iter().flatten();
        let unread = ends
            .zip(positions)
            .map(|(end, position)| (end - position).max(0));
        u64::try_from(unread.sum::<i64>()).expect("none is below zero")
    }

    pub fn must_give_up(&self) -> bool {
        self.gives_up.get().is_some_and(|at| Instant::now() >= *at)
    }
}

/// What producers found.
pub struct Produced {
    pub totals: Vec<PhaseTotals>,
    pub acknowledged: Acknowledged,
    /// Errors by their text, and how often.
    pub errors: Vec<(String, u64)>,
}

/// What all of them found, and how the run went.
pub struct Found {
    pub produced: Option<Produced>,
    pub consumed: Vec<Consumed>,
    pub collected: Collected,
    /// Time of the run in which there was load.
    pub ran_for: Duration,
    pub seconds: f64,
    pub interrupted: bool,
    /// Why the broker could not be asked when all had been sent.
    pub lost: Option<String>,
    pub unread: u64,
}

/// What consumers found.
pub struct Consumed {
    pub totals: Vec<PhaseTotals>,
    pub ledger: Ledger,
    pub errors: Vec<(String, u64)>,
}

impl Load {
    pub fn run(
        &self,
        cluster: &rdkafka::ClientConfig,
        topics: &Topics,
        stop: &Stop,
        sampler: Sampler,
        live: Live,
    ) -> Result<Outcome, String> {
        let offsets = topics.offsets()?;
        let when = self.consume.as_ref().map(|consume| consume.when);
        let start_of = |(first, next): &(i64, i64)| match when {
            Some(When::FromTheFirst) => *first,
            _ => *next,
        };
        let starts: Vec<i64> = offsets.iter().map(start_of).collect();
        let clock = RunClock::starting_in(LEAD);
        let (collector, told) = Collector::start(clock, sampler, live);
        let shared = self.shared(clock, stop, told, topics, &starts);
        if self.produce.is_none() {
            shared.end_at(&offsets);
            let _ = shared.gives_up.set(clock.zero() + self.ends());
        }
        let consume = |ready: bool| match &self.consume {
            Some(consume) if ready => {
                librdkafka::consume::start(cluster, &consume.options, &starts, &shared)
            }
            _ => Ok(Vec::new()),
        };
        let mut consumers = consume(when != Some(When::AfterProducers))?;
        let monitor = match when {
            Some(When::FromNowOn) => Some(backlog::Monitor::start(cluster, &shared)?),
            _ => None,
        };
        let produced = self.produce(cluster, &shared);
        let mut ran_for = clock.elapsed();
        let mut interrupted = stop.is_asked();
        let mut lost = None;
        // Consumers end when they have had all of what lies below, where everything is that was acknowledged.
        if self.produce.is_some() {
            match produced.as_ref().map(|_| topics.offsets()) {
                Ok(Ok(ends)) => {
                    shared.end_at(&ends);
                    let _ = shared.gives_up.set(Instant::now() + self.drain_max);
                }
                Ok(Err(error)) => lost = Some(error),
                Err(_) => {}
            }
        }
        // Nobody can say any more where consumers would end.
        let in_vain = lost.is_some() || produced.is_err();
        if in_vain {
            stop.ask();
        }
        if when == Some(When::AfterProducers) && !in_vain {
            consumers = consume(true)?;
        }
        let mut consumed = Vec::new();
        for consumer in consumers {
            consumed.push(join(consumer)?);
        }
        if let Some(monitor) = monitor {
            monitor.stop();
        }
        if self.produce.is_none() {
            ran_for = clock.elapsed();
        }
        interrupted |= stop.is_asked() && !in_vain;
        let unread = shared.unread();
        let seconds = clock.elapsed().as_secs_f64();
        drop(shared);
        let found = Found {
            produced: produced?,
            consumed,
            collected: collector.finish(),
            ran_for,
            seconds,
            interrupted,
            lost,
            unread,
        };
        Ok(Outcome::new(self, found))
    }

    fn shared(
        &self,
        clock: RunClock,
        stop: &Stop,
        told: Sender<Told>,
        topics: &Topics,
        starts: &[i64],
    ) -> Shared {
        Shared {
            clock,
            stop: stop.clone(),
            told,
            phases: self.phases.clone().into(),
            partitions: topics.partitions.clone().into(),
            run_id: self.run_id,
            producing: self.produce.is_some(),
            progress: starts.iter().map(|offset| Progress::at(*offset)).collect(),
            record_bytes_mean: self
                .produce
                .as_ref()
                .map_or(0.0, |it| it.options.record_bytes.mean()),
            ends: Arc::new(OnceLock::new()),
            gives_up: Arc::new(OnceLock::new()),
        }
    }

    fn produce(
        &self,
        cluster: &rdkafka::ClientConfig,
        shared: &Shared,
    ) -> Result<Option<Produced>, String> {
        let Some(produce) = &self.produce else {
            return Ok(None);
        };
        let drivers = librdkafka::produce::start(cluster, produce, self, shared)?;
        let mut all: Option<Produced> = None;
        for driver in drivers {
            let found = join(driver)?;
            match &mut all {
                Some(all) => all.add(found),
                None => all = Some(found),
            }
        }
        Ok(all)
    }

    pub fn ends(&self) -> Duration {
        self.phases.last().map_or(Duration::ZERO, |phase| phase.end)
    }
}

impl Produced {
    fn add(&mut self, other: Produced) {
        for (totals, more) in self.totals.iter_mut().zip(&other.totals) {
            totals.add(more);
        }
        self.acknowledged.add(other.acknowledged);
        for (error, count) in other.errors {
            count_error(&mut self.errors, &error, count);
        }
    }
}

pub fn count_error(errors: &mut Vec<(String, u64)>, error: &str, count: u64) {
    match errors.iter_mut().find(|(known, _)| known == error) {
        Some((_, counted)) => *counted += count,
        None => errors.push((error.to_string(), count)),
    }
}

/// A worker that panicked is a bug of the bench: its message has been printed.
fn join<T>(worker: std::thread::JoinHandle<Result<T, String>>) -> Result<T, String> {
    match worker.join() {
        Ok(found) => found,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
