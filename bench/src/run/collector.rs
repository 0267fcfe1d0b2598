//! Merges what the workers send into the series of the run, and shows it while it runs.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use super::{Direction, RunClock, Slice, recorder::Totals};
use crate::{
    latency::Latencies,
    live::Live,
    result::run::{Backlog, FlowSecond, Sample, Second},
    sample::Sampler,
};

/// How long after its end a second is taken for complete: workers that are busy send late.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// What is sent to the collector.
pub enum Told {
    Slice(Box<Slice>),
    Backlog { second: u64, backlog: Backlog },
}

/// The series of a run, with the histograms of each second.
#[derive(Default)]
pub struct Collected {
    pub series: Vec<Second>,
    /// Planned latencies of each second, for the HDR log.
    pub produced: Vec<(u64, Latencies)>,
    pub consumed: Vec<(u64, Latencies)>,
}

#[derive(Default)]
struct Open {
    produced: Totals,
    consumed: Totals,
    backlog: Option<Backlog>,
    machine: Option<Sample>,
}

/// A thread that collects until all senders are gone.
pub struct Collector(JoinHandle<Collected>);

impl Collector {
    pub fn start(clock: RunClock, sampler: Sampler, live: Live) -> (Collector, Sender<Told>) {
        let (sender, told) = channel();
        let thread = std::thread::spawn(move || collect(clock, sampler, live, &told));
        (Collector(thread), sender)
    }

    /// Once the last sender is dropped.
    pub fn finish(self) -> Collected {
        match self.0.join() {
            Ok(collected) => collected,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn collect(
    clock: RunClock,
    mut sampler: Sampler,
    mut live: Live,
    told: &Receiver<Told>,
) -> Collected {
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut collected = Collected::default();
    let mut sampled = 0;
    let mut shown = 0;
    loop {
        match told.recv_timeout(Duration::from_millis(50)) {
            Ok(Told::Slice(slice)) => {
                let second = open.entry(slice.second).or_default();
                match slice.direction {
                    Direction::Produce => second.produced.add(&slice.totals),
                    Direction::Consume => second.consumed.add(&slice.totals),
                }
            }
            Ok(Told::Backlog { second, backlog }) => {
                open.entry(second).or_default().backlog = Some(backlog);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let now = clock.elapsed();
        while sampled < now.as_secs() {
            open.entry(sampled).or_default().machine = Some(sampler.sample());
            sampled += 1;
        }
        let settled = now.saturating_sub(SETTLED_AFTER).as_secs();
        while shown < settled {
            if let Some(second) = open.get(&shown) {
                live.show(&second_of(shown, second));
            }
            shown += 1;
        }
    }
    // Only now is every second complete: a worker that was held up sends a slice long after its second.
    for (number, second) in open {
        collected.series.push(second_of(number, &second));
        collected.produced.push((number, second.produced.planned));
        collected.consumed.push((number, second.consumed.planned));
    }
    live.end();
    collected
}

fn second_of(number: u64, open: &Open) -> Second {
    Second {
        second: number,
        produced: flow_of(&open.produced),
        consumed: flow_of(&open.consumed),
        backlog: open.backlog,
        machine: open.machine.clone().unwrap_or_default(),
    }
}

fn flow_of(totals: &Totals) -> FlowSecond {
    let some = |latencies: &Latencies| (latencies.count() > 0).then(|| latencies.percentiles());
    FlowSecond {
        offered: totals.counts.offered,
        completed: totals.counts.completed,
        failed: totals.counts.failed,
        bytes: totals.counts.bytes,
        planned: some(&totals.planned),
        service: some(&totals.service),
        lateness: some(&totals.lateness),
        heat: totals.planned.heat(),
    }
}
