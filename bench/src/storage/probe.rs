//! What a measurement has of the run that it is a part of: the clock, where its seconds and turns go, and whether it should end.
//!
//! A `Probe` goes onto a shard or into a thread. Whoever measures there has a `Meter`, which counts what happens within each second of the
//! run, and at the end says what all of it was.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::Duration,
};

use forebay_engine::rt::Rt;

use super::measured::{Measured, Taken, Turns};
use crate::{
    result::run::Setting,
    run::{
        Direction, RunClock, Slice, Stop,
        collector::Told,
        recorder::{Counts, Totals},
    },
};

/// Longest time until a task that only waits hears of a signal.
const HEARS_WITHIN: Duration = Duration::from_millis(50);

/// Why a measurement ended before its time.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// By a signal. What was measured until then is kept.
    Interrupted,
    Failed(String),
}

impl From<String> for Broken {
    fn from(why: String) -> Broken {
        Broken::Failed(why)
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Broken {
        Broken::Failed(error.to_string())
    }
}

/// What was found so far.
#[derive(Default)]
pub struct Gathered {
    pub turns: Turns,
    pub engine_config: Vec<Setting>,
}

/// Copied to every shard and thread.
#[derive(Clone)]
pub struct Probe {
    clock: RunClock,
    slices: Sender<Told>,
    stop: Stop,
    gathered: Arc<Mutex<Gathered>>,
}

impl Probe {
    pub fn new(clock: RunClock, slices: Sender<Told>, stop: Stop) -> Probe {
        Probe {
            clock,
            slices,
            stop,
            gathered: Arc::default(),
        }
    }

    /// Asked often: a signal ends what is measured.
    pub fn check(&self) -> Result<(), Broken> {
        match self.stop.is_asked() {
            true => Err(Broken::Interrupted),
            false => Ok(()),
        }
    }

    pub async fn sleep(&self, rt: &Rt, duration: Duration) -> Result<(), Broken> {
        let ends = rt.now().plus(duration);
        loop {
            self.check()?;
            let left = ends.since(rt.now());
            if left.is_zero() {
                return Ok(());
            }
            rt.sleep(left.min(HEARS_WITHIN)).await;
        }
    }

    pub fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Of one measurement, which begins now.
    pub fn meter(&self, direction: Direction) -> Meter {
        Meter(Rc::new(RefCell::new(Metering {
            direction,
            clock: self.clock,
            slices: self.slices.clone(),
            start: self.clock.elapsed(),
            second: self.clock.elapsed().as_secs(),
            of_second: Totals::default(),
            counts: Counts::default(),
            measured: Totals::default(),
        })))
    }

    /// A whole turn of one side is over.
    pub fn took(&self, taken: Taken) {
        println!("{}", taken.line());
        self.gathered().turns.0.push(taken);
    }

    /// How the engine was set up; of several that are alike, one says it.
    pub fn set_up(&self, engine_config: Vec<Setting>) {
        self.gathered().engine_config = engine_config;
    }

    pub fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // Whoever panicked left a whole turn or none.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shared by all tasks of one thread that do the same.
#[derive(Clone)]
pub struct Meter(Rc<RefCell<Metering>>);

struct Metering {
    direction: Direction,
    clock: RunClock,
    slices: Sender<Told>,
    start: Duration,
    second: u64,
    of_second: Totals,
    /// Of what is measured; a second counts the warm-up too.
    counts: Counts,
    /// Latencies of the seconds that are over.
    measured: Totals,
}

impl Meter {
    /// The warm-up is over.
    pub fn begins(&self) {
        let mut metering = self.0.borrow_mut();
        metering.start = metering.clock.elapsed();
    }

    /// An operation that began when the one before it had ended.
    pub fn record(&self, took: Duration, bytes: u64) {
        self.record_many(took, 1, bytes);
    }

    /// `count` of them that took `took` together.
    pub fn record_many(&self, took: Duration, count: u64, bytes: u64) {
        let mut metering = self.0.borrow_mut();
        metering.completed(count, bytes);
        metering.of_second.planned.record_many(took, count);
    }

    /// An operation of a plan, which began when it was its time, or later.
    pub fn record_planned(&self, since_planned: Duration, since_sent: Duration, bytes: u64) {
        let mut metering = self.0.borrow_mut();
        metering.completed(1, bytes);
        metering.of_second.planned.record(since_planned);
        metering.of_second.service.record(since_sent);
    }

    /// An operation's time has come, so much too late.
    pub fn offered(&self, late: Duration) {
        let mut metering = self.0.borrow_mut();
        metering.turn();
        metering.of_second.counts.offered += 1;
        metering.of_second.lateness.record(late);
    }

    /// An operation of a warm-up, or beside what is measured.
    pub fn beside(&self, bytes: u64) {
        let mut metering = self.0.borrow_mut();
        metering.turn();
        metering.of_second.counts.completed += 1;
        metering.of_second.counts.bytes += bytes;
    }

    /// The measurement ends now.
    pub fn finish(&self) -> Measured {
        let mut metering = self.0.borrow_mut();
        metering.send();
        let Totals {
            planned,
            service,
            lateness,
            ..
        } = std::mem::take(&mut metering.measured);
        Measured {
            start: metering.start,
            end: metering.clock.elapsed(),
            operations: metering.counts.completed,
            bytes: metering.counts.bytes,
            latency: planned,
            service,
            lateness,
            costs: Vec::new(),
        }
    }
}

impl Metering {
    fn completed(&mut self, count: u64, bytes: u64) {
        self.turn();
        for counts in [&mut self.of_second.counts, &mut self.counts] {
            counts.completed += count;
            counts.bytes += bytes;
        }
    }

    fn turn(&mut self) {
        let second = self.clock.elapsed().as_secs();
        if second > self.second {
            self.send();
            self.second = second;
        }
    }

    fn send(&mut self) {
        let totals = std::mem::take(&mut self.of_second);
        self.measured.add(&totals);
        let slice = Slice {
            direction: self.direction,
            second: self.second,
            totals,
        };
        // A collector that is gone has failed, and says so itself.
        let _ = self.slices.send(Told::Slice(Box::new(slice)));
    }
}
