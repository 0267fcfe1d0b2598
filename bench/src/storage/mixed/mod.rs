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
    folder::{BASE_BYTES, Place},
    subject::on_one_shard,
};
use crate::{
    latency::Latency,
    limits::{BATCH_BYTES, COUNT_MAX, ROUNDS_MAX, SECONDS_MAX, mib, within},
    result::Spread,
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
    /// Rounds; the phases take turns within each, and the first one moves on
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within 30 seconds: two rounds of one second and a small backlog
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.quick {
            (self.rounds, self.seconds, self.backlog_mib) = (2, 1, 512);
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
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)?;
        Ok(self)
    }

    /// What the run has on the disk at the same time, at the most.
    fn planned_bytes(&self) -> u64 {
        let of_phase = self.batches_per_sec * self.seconds * self.size_bytes as u64;
        let planned = BASE_BYTES.saturating_add(mib(self.backlog_mib));
        planned.saturating_add(of_phase)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
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

    /// What it is compared with.
    fn baseline(self) -> Phase {
        match self {
            Phase::DeviceAlone | Phase::DeviceDrain => Phase::DeviceAlone,
            _ => Phase::Alone,
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

#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    phase: Phase,
    /// From the planned arrival.
    latency: Latency,
    batches: u64,
    /// The plan could not be kept: too many were waiting.
    overrun: bool,
    read_bytes_per_second: f64,
    segments_deleted: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    phase: Phase,
    p50_us: Spread,
    p99_us: Spread,
    /// p99 over the p99 of the same round without anything beside it.
    p99_ratio: Spread,
    read_bytes_per_second: Spread,
    segments_deleted: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    valid: bool,
    phases: Vec<Summary>,
    rounds: Vec<Vec<Measured>>,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let plan = plan.clone().checked()?;
    let folder = plan.place.folder(plan.planned_bytes())?;
    let dir = folder.make("engine")?;
    println!(
        "{} B batches, {} a second on {} partitions, persisted; backlog {} MiB, {} readers",
        plan.size_bytes, plan.batches_per_sec, plan.partitions, plan.backlog_mib, plan.readers
    );
    let plan_of_shard = plan.clone();
    let rounds = on_one_shard(move |rt| all_rounds(rt, plan_of_shard, dir))?;
    let found = Found {
        valid: !rounds.iter().flatten().any(|measured| measured.overrun),
        phases: PHASES.map(|phase| summary(phase, &rounds)).to_vec(),
        rounds,
    };
    print_summary(&plan, &found);
    plan.place.report("storage mixed", &plan, &found)?;
    match found.valid {
        true => Ok(()),
        false => Err(
            "invalid: more batches were planned than the disk takes; lower --batches-per-sec"
                .into(),
        ),
    }
}

async fn all_rounds(rt: Rt, plan: Plan, dir: PathBuf) -> Result<Vec<Vec<Measured>>, String> {
    let rounds_planned = plan.rounds as usize;
    let run = Run::open(rt, plan, dir).await?;
    run.fill_backlog().await?;
    // Memory is touched for the first time, and files grow into their first blocks.
    run.measure(Phase::Alone).await?;
    let mut rounds = Vec::new();
    for round in 0..rounds_planned {
        let mut of_round = Vec::new();
        for step in 0..PHASES.len() {
            let phase = PHASES[(round + step) % PHASES.len()];
            let measured = run.measure(phase).await?;
            print_measured(round, &measured);
            of_round.push(measured);
            run.forget_what_was_written().await?;
        }
        rounds.push(of_round);
    }
    run.close().await?;
    Ok(rounds)
}

fn summary(phase: Phase, rounds: &[Vec<Measured>]) -> Summary {
    let values = |phase: Phase, value: fn(&Measured) -> f64| -> Vec<f64> {
        let of_round = |round: &Vec<Measured>| {
            let measured = round.iter().find(|measured| measured.phase == phase);
            value(measured.expect("each round has each phase"))
        };
        rounds.iter().map(of_round).collect()
    };
    let p99 = |phase| values(phase, |measured| measured.latency.p99_us as f64);
    let spread = |value| Spread::of(values(phase, value));
    Summary {
        phase,
        p50_us: spread(|measured| measured.latency.p50_us as f64),
        p99_us: Spread::of(p99(phase)),
        p99_ratio: Spread::of_ratios(&p99(phase), &p99(phase.baseline())),
        read_bytes_per_second: spread(|measured| measured.read_bytes_per_second),
        segments_deleted: spread(|measured| measured.segments_deleted as f64).median,
    }
}

fn print_measured(round: usize, measured: &Measured) {
    let latency = measured.latency;
    println!(
        "round {} {:<12} p50 {:>6} us  p99 {:>7} us  p99.9 {:>7} us  read {:>7.1} MB/s  {:>4} segments deleted{}",
        round + 1,
        measured.phase.name(),
        latency.p50_us,
        latency.p99_us,
        latency.p999_us,
        measured.read_bytes_per_second / 1e6,
        measured.segments_deleted,
        if measured.overrun { "  OVERRUN" } else { "" },
    );
}

fn print_summary(plan: &Plan, found: &Found) {
    println!("median (from, to) over {} rounds:", plan.rounds);
    for phase in &found.phases {
        println!(
            "{:<12} p50 {:>6.0} us  p99 {:>7.0} us  p99 ratio {:.2}  read {:>6.1} MB/s",
            phase.phase.name(),
            phase.p50_us.median,
            phase.p99_us.median,
            phase.p99_ratio,
            phase.read_bytes_per_second.median / 1e6,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_compared_with_its_baseline_in_the_same_round() {
        let measured = |phase, p99_us| Measured {
            phase,
            latency: Latency {
                p50_us: 1,
                p99_us,
                p95_us: p99_us,
                p999_us: p99_us,
                p9999_us: p99_us,
                max_us: p99_us,
            },
            batches: 1,
            overrun: false,
            read_bytes_per_second: 0.0,
            segments_deleted: 0,
        };
        let round = |alone, drain, device, device_drain| {
            vec![
                measured(Phase::Drain, drain),
                measured(Phase::Alone, alone),
                measured(Phase::DeviceDrain, device_drain),
                measured(Phase::DeviceAlone, device),
            ]
        };
        let rounds = [round(10, 20, 5, 20), round(40, 120, 5, 30)];
        let ratio = |phase| summary(phase, &rounds).p99_ratio;
        assert_eq!(ratio(Phase::Alone).to_string(), "1.00 (1.00 to 1.00)");
        assert_eq!(ratio(Phase::Drain).to_string(), "2.50 (2.00 to 3.00)");
        assert_eq!(ratio(Phase::DeviceDrain).to_string(), "5.00 (4.00 to 6.00)");
    }
}
