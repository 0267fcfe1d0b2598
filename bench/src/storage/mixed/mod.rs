//! `storage mixed`: what draining a backlog and deleting old segments do to the latency of durable appends.
//!
//! Batches arrive on a fixed plan, whatever the engine does, and latency counts from the planned time: a stall is seen by every
//! batch that should have arrived in it. The same plan runs alone, beside a reader that drains a backlog from the disk as fast as it
//! can, beside retention that deletes as much as comes in, and beside both. The raw disk does the same with and without reads.

mod run;

use std::path::PathBuf;

use clap::Args;
use forebay_engine::rt::Rt;
use serde::Serialize;

use super::{
    finish::Found,
    folder::{BASE_BYTES, RunOptions},
    measured::{Figure, Measured, Taken, Turns},
    probe::{Broken, Probe},
    session::Session,
    subject::on_one_shard,
};
use crate::{
    exit::Exit,
    limits::{BATCH_BYTES, COUNT_MAX, SECONDS_MAX, mib, within},
    result::run::Better,
};
use run::Run;

/// More than the tail holds.
const BACKLOG_MIB_MIN: u64 = 256;

/// No larger than the default of a broker.
const SEGMENT_MIB_MAX: u64 = 1024;

/// Batches a second beyond which there is less than a microsecond between two.
const BATCHES_PER_SEC_MAX: u64 = 1_000_000;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Bytes of one record batch
    #[arg(long, default_value_t = 65_536)]
    size_bytes: usize,
    /// Batches that arrive each second, at even distances
    #[arg(long, default_value_t = 1000)]
    batches_per_sec: u64,
    /// Partitions that the batches go to in turn
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Backlog that is drained, in another log; what is read once is read again
    #[arg(long, default_value_t = 2048)]
    backlog_mib: u64,
    /// Readers that drain it, each from a place of its own
    #[arg(long, default_value_t = 1)]
    readers: u32,
    /// Segments of the partitions that are appended to: what retention deletes at a time
    #[arg(long, default_value_t = 8)]
    segment_mib: u64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.run.quick {
            (self.run.rounds, self.seconds, self.backlog_mib) = (2, 1, 512);
        }
        within("--size-bytes", self.size_bytes, BATCH_BYTES)?;
        within(
            "--batches-per-sec",
            self.batches_per_sec,
            1..=BATCHES_PER_SEC_MAX,
        )?;
        within("--partitions", self.partitions, 1..=COUNT_MAX)?;
        within(
            "--backlog-mib",
            self.backlog_mib,
            BACKLOG_MIB_MIN..=u64::MAX,
        )?;
        within("--readers", self.readers, 0..=COUNT_MAX)?;
        within("--segment-mib", self.segment_mib, 1..=SEGMENT_MIB_MAX)?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        self.run.check()?;
        Ok(self)
    }

    /// What the run has on the disk at the same time, at the most.
    fn planned_bytes(&self) -> u64 {
        let of_phase = self.batches_per_sec * self.seconds * self.size_bytes as u64;
        let planned = BASE_BYTES.saturating_add(mib(self.backlog_mib));
        planned.saturating_add(of_phase)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Alone,
    Drain,
    Retention,
    Both,
    DeviceAlone,
    DeviceDrain,
}

const PHASES: [Phase; 6] = [
    Phase::Alone,
    Phase::Drain,
    Phase::Retention,
    Phase::Both,
    Phase::DeviceAlone,
    Phase::DeviceDrain,
];

impl Phase {
    fn drains(self) -> bool {
        matches!(self, Phase::Drain | Phase::Both | Phase::DeviceDrain)
    }

    fn deletes(self) -> bool {
        matches!(self, Phase::Retention | Phase::Both)
    }

    /// Whether the raw disk does it.
    fn is_raw(self) -> bool {
        matches!(self, Phase::DeviceAlone | Phase::DeviceDrain)
    }

    /// What it is compared with.
    fn baseline(self) -> Phase {
        match self.is_raw() {
            true => Phase::DeviceAlone,
            false => Phase::Alone,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Phase::Alone => "alone",
            Phase::Drain => "drain",
            Phase::Retention => "retention",
            Phase::Both => "both",
            Phase::DeviceAlone => "device alone",
            Phase::DeviceDrain => "device drain",
        }
    }
}

/// Counted in a phase besides the batches.
const READ: &str = "read_bytes_per_second";
const DELETED: &str = "segments_deleted";
/// 1 when the plan could not be kept: too many were waiting.
const OVERRUN: &str = "overrun";

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let session = Session::begin(&plan.run, plan.planned_bytes())?;
    let dir = session.make("engine")?;
    println!(
        "{} B batches, {} a second on {} partitions, persisted; backlog {} MiB, {} readers",
        plan.size_bytes, plan.batches_per_sec, plan.partitions, plan.backlog_mib, plan.readers
    );
    let (plan_of_shard, probe) = (plan.clone(), session.probe());
    let ended = on_one_shard(move |rt| all_rounds(rt, probe, plan_of_shard, dir));
    session.finish("storage mixed", &plan, ended, |turns| Found {
        figures: PHASES
            .iter()
            .flat_map(|phase| figures(*phase, turns))
            .collect(),
        invalid: overrun(turns).into_iter().collect(),
        ..Found::default()
    })
}

async fn all_rounds(rt: Rt, probe: Probe, plan: Plan, dir: PathBuf) -> Result<(), Broken> {
    let rounds = plan.run.rounds;
    let run = Run::open(rt, probe.clone(), plan, dir).await?;
    run.fill_backlog().await?;
    // Memory is touched for the first time, and files grow into their first blocks.
    run.measure(Phase::Alone).await?;
    for round in 0..rounds {
        for step in 0..PHASES.len() {
            let phase = PHASES[(round as usize + step) % PHASES.len()];
            let measured = run.measure(phase).await?;
            probe.took(Taken::new(round, phase.name(), measured));
            run.forget_what_was_written().await?;
        }
    }
    Ok(run.close().await?)
}

fn overrun(turns: &Turns) -> Option<String> {
    let any = turns
        .0
        .iter()
        .any(|it| it.measured.cost(OVERRUN) == Some(1.0));
    let why = "more batches were planned than the disk takes; lower --batches-per-sec";
    any.then(|| why.to_string())
}

fn figures(phase: Phase, turns: &Turns) -> Vec<Figure> {
    let of = |phase: Phase, value: &dyn Fn(&Measured) -> Option<f64>| {
        turns.values(None, phase.name(), value)
    };
    let p99 = |phase| of(phase, &|it| Some(it.p99_us()));
    let p50 = of(phase, &|it| Some(it.latency.percentiles().p50_us as f64));
    let service = of(phase, &|it| Some(it.service.percentiles().p99_us as f64));
    let mut figures = vec![
        Figure::new("latency_planned_p50_us", "us", Better::Lower, p50),
        Figure::new("latency_planned_p99_us", "us", Better::Lower, p99(phase)),
        Figure::new("latency_service_p99_us", "us", Better::Lower, service),
    ];
    if phase != phase.baseline() {
        // To the same round with nothing beside it.
        let baseline = p99(phase.baseline());
        let ratio = Figure::ratio("p99_ratio", Better::Lower, &p99(phase), &baseline);
        figures.push(if phase.is_raw() {
            ratio
        } else {
            ratio.decides()
        });
    }
    if phase.drains() {
        let read = of(phase, &|it| it.cost(READ));
        figures.push(Figure::new(READ, "bytes/s", Better::Higher, read));
    }
    let named = |it: Figure| it.in_case(Some(phase.name()));
    figures.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_phase_is_compared_with_its_baseline_in_the_same_round() {
        let taken = |round, phase: Phase, millis| {
            let mut measured = Measured::default();
            measured.latency.record(Duration::from_millis(millis));
            Taken::new(round, phase.name(), measured)
        };
        let round = |round, alone, drain, device, device_drain| {
            [
                taken(round, Phase::Drain, drain),
                taken(round, Phase::Alone, alone),
                taken(round, Phase::DeviceDrain, device_drain),
                taken(round, Phase::DeviceAlone, device),
            ]
        };
        let rounds = [round(0, 10, 20, 5, 20), round(1, 40, 120, 5, 30)];
        let turns = Turns(rounds.concat());
        let ratio = |phase| {
            let figures = figures(phase, &turns);
            let figure = figures.iter().filter_map(Figure::result);
            let ratio = figure.clone().find(|it| it.name == "p99_ratio");
            ratio.map(|it| it.spread)
        };
        assert_eq!(ratio(Phase::Alone), None);
        let drain = ratio(Phase::Drain).expect("a ratio");
        assert_eq!(drain.to_string(), "2.50 (2.00 to 3.00)");
        let drain = ratio(Phase::DeviceDrain).expect("a ratio");
        assert_eq!(drain.to_string(), "5.00 (4.00 to 6.00)");
    }
}
