//! `storage append`: writers that each wait for their durable batch, against as many writers on the raw device.
//!
//! What blocks a write goes to decides how fast it is. The engine's segments are new files or, with spare files, those of deleted
//! segments; its journal always overwrites. The device is measured over blocks that were written before and over new ones.

use clap::Args;
use serde::Serialize;

use super::{
    device::{self, Blocks, Content},
    folder::{BASE_BYTES, Folder, Place, remove},
    subject::{batch_of, on_one_shard},
    writers::{self, Load, Side},
};
use crate::{
    limits::{ROUNDS_MAX, within},
    result::{Round, Spread},
};

/// Writers on the raw device.
const DEVICE_WRITERS_MAX: usize = 256;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    /// Rounds; engine and device take turns within each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within 30 seconds: three rounds of two seconds
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
            self.rounds = 3;
            (self.load.seconds, self.load.warm_up_seconds) = (2, 1);
        }
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)?;
        self.load.check()?;
        Ok(self)
    }

    fn device_writers(&self) -> usize {
        self.load.writers().min(DEVICE_WRITERS_MAX)
    }
}

/// What the engine did in one round, per appended byte and batch.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    /// Bytes written to the disk (journal and segments) for each byte appended.
    write_amplification: f64,
    journal_commits: u64,
    segment_writes: u64,
    segment_syncs: u64,
    checkpoints: u64,
    segments_sealed: u64,
    segments_recycled: u64,
    cpu_seconds_per_gb: f64,
    per_batch: PerBatch,
}

/// What one batch took, counted, not timed.
#[derive(Clone, Copy, Debug, Serialize)]
struct PerBatch {
    /// Of memory, the batch itself among them, which a broker would have from its socket.
    allocations: f64,
    allocated_bytes: f64,
    /// Bytes copied for each byte appended: once into each buffer that is written.
    copies: f64,
    ring_entries: f64,
    /// Of the shard's thread.
    syscalls: Option<f64>,
    durable_writes: f64,
    syncs: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    engine: Vec<Round>,
    engine_cost: Vec<Cost>,
    /// Over blocks written before.
    device: Vec<Round>,
    /// With the work for each batch that no broker can leave out, on the same core.
    device_with_checks: Vec<Round>,
    device_new_blocks: Vec<Round>,
    engine_bytes_per_second: Spread,
    device_bytes_per_second: Spread,
    /// Engine bytes per second over device bytes per second, round by round.
    device_ratio: Spread,
    /// Engine over the device with the work for each batch.
    device_with_checks_ratio: Spread,
    /// What that work leaves of the device, whatever the engine does.
    device_ratio_max: Spread,
    device_new_blocks_ratio: Spread,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let plan = plan.clone().checked()?;
    let folder = plan.place.folder(BASE_BYTES)?;
    let mut sides = Vec::new();
    for number in 0..plan.rounds {
        let sides_of_round = round(&plan, number, &folder)?;
        print_side(number, "engine", sides_of_round.engine.round);
        print_side(number, "device", sides_of_round.device);
        print_side(number, "device, checks", sides_of_round.device_with_checks);
        print_side(
            number,
            "device, new blocks",
            sides_of_round.device_new_blocks,
        );
        sides.push(sides_of_round);
    }
    let found = found(&sides);
    print_summary(&plan, &found);
    plan.place.report("storage append", &plan, &found)
}

/// What each side did in one round.
struct Sides {
    engine: Side,
    device: Round,
    device_with_checks: Round,
    device_new_blocks: Round,
}

/// One after the other, in a folder of their own.
fn round(plan: &Plan, number: u32, folder: &Folder) -> Result<Sides, String> {
    let dir = folder.make(&format!("round-{number}"))?;
    let (load, dir_of_engine) = (plan.load.clone(), dir.clone());
    let engine = on_one_shard(move |rt| writers::append(rt, load, dir_of_engine))?;
    let (size, duration) = (plan.load.size_bytes, plan.load.duration());
    let depth = plan.device_writers();
    let on_device = |blocks: Blocks, with_batches: bool| {
        let dir = dir.clone();
        on_one_shard(move |rt| async move {
            let content = match with_batches {
                true => Content::Batch(batch_of(size, rt.wall_clock())),
                false => Content::noise(size),
            };
            device::write(&rt, dir, blocks, content, depth, duration).await
        })
    };
    let sides = Sides {
        engine,
        device: on_device(Blocks::Old, false)?,
        device_with_checks: on_device(Blocks::Old, true)?,
        device_new_blocks: on_device(Blocks::New, false)?,
    };
    remove(&dir)?;
    Ok(sides)
}

fn cost(side: &Side) -> Cost {
    let (stats, counts) = (&side.stats, &side.counts);
    let appended = stats.appended_bytes as f64;
    let per_batch = |count: u64| count as f64 / stats.appended_batches as f64;
    let write_amplification = (stats.journal_bytes + stats.segment_bytes) as f64 / appended;
    Cost {
        write_amplification,
        journal_commits: stats.journal_commits,
        segment_writes: stats.segment_writes,
        segment_syncs: stats.segment_syncs,
        checkpoints: stats.checkpoints,
        segments_sealed: stats.segments_sealed,
        segments_recycled: stats.segments_recycled,
        cpu_seconds_per_gb: side.cpu_seconds / (appended / 1e9),
        per_batch: PerBatch {
            allocations: per_batch(counts.allocations),
            allocated_bytes: per_batch(counts.allocated_bytes),
            copies: write_amplification,
            ring_entries: per_batch(counts.ring_entries),
            syscalls: counts.syscalls.map(per_batch),
            durable_writes: per_batch(stats.journal_commits + stats.bypass_writes),
            syncs: per_batch(stats.segment_syncs + stats.file_system_syncs),
        },
    }
}

fn found(sides: &[Sides]) -> Found {
    let of = |side: fn(&Sides) -> Round| -> Vec<Round> { sides.iter().map(side).collect() };
    let speeds = |rounds: &[Round]| -> Vec<f64> {
        let speed = |round: &Round| round.bytes_per_second;
        rounds.iter().map(speed).collect()
    };
    let engine = of(|sides| sides.engine.round);
    let device = of(|sides| sides.device);
    let device_with_checks = of(|sides| sides.device_with_checks);
    let device_new_blocks = of(|sides| sides.device_new_blocks);
    let (ours, theirs) = (speeds(&engine), speeds(&device));
    Found {
        device_ratio: Spread::of_ratios(&ours, &theirs),
        device_with_checks_ratio: Spread::of_ratios(&ours, &speeds(&device_with_checks)),
        device_ratio_max: Spread::of_ratios(&speeds(&device_with_checks), &theirs),
        device_new_blocks_ratio: Spread::of_ratios(&ours, &speeds(&device_new_blocks)),
        engine_bytes_per_second: Spread::of(ours),
        device_bytes_per_second: Spread::of(theirs),
        engine_cost: sides.iter().map(|sides| cost(&sides.engine)).collect(),
        engine,
        device,
        device_with_checks,
        device_new_blocks,
    }
}

fn print_side(number: u32, name: &str, round: Round) {
    println!(
        "round {} {name:<18} {:>9.1} MB/s {:>9.0} ops/s  p50 {:>6} us  p99 {:>7} us  p99.9 {:>7} us",
        number + 1,
        round.bytes_per_second / 1e6,
        round.operations_per_second,
        round.latency.p50_us,
        round.latency.p99_us,
        round.latency.p999_us,
    );
}

fn print_summary(plan: &Plan, found: &Found) {
    let load = &plan.load;
    println!(
        "{} B batches, {} partitions, {} writers each, {:?}, one shard; device: {} writers, O_DIRECT|O_DSYNC",
        load.size_bytes,
        load.partitions,
        load.depth,
        load.durability,
        plan.device_writers(),
    );
    println!(
        "device ratio: {:.2} over {} rounds; over new blocks: {:.2}",
        found.device_ratio, plan.rounds, found.device_new_blocks_ratio
    );
    println!(
        "to the device with a check and a copy of each batch: {:.2}; that to the device: {:.2}",
        found.device_with_checks_ratio, found.device_ratio_max
    );
    let all = |count: fn(&Cost) -> u64| found.engine_cost.iter().map(count).sum::<u64>();
    println!(
        "segments: {} begun, of these {} in files of deleted ones; checkpoints: {}; journal commits: {}; segment writes: {}",
        all(|cost| cost.segments_sealed),
        all(|cost| cost.segments_recycled),
        all(|cost| cost.checkpoints),
        all(|cost| cost.journal_commits),
        all(|cost| cost.segment_writes),
    );
    let median = |value: fn(&Cost) -> f64| Spread::of(found.engine_cost.iter().map(value)).median;
    println!(
        "write amplification {:.2}, CPU {:.2} s/GB",
        median(|cost| cost.write_amplification),
        median(|cost| cost.cpu_seconds_per_gb)
    );
    println!(
        "per batch: {:.2} allocations of {:.0} B, {:.2} copies, {:.3} ring entries, {:.3} syscalls, {:.4} durable writes, {:.5} syncs",
        median(|cost| cost.per_batch.allocations),
        median(|cost| cost.per_batch.allocated_bytes),
        median(|cost| cost.per_batch.copies),
        median(|cost| cost.per_batch.ring_entries),
        median(|cost| cost.per_batch.syscalls.unwrap_or(f64::NAN)),
        median(|cost| cost.per_batch.durable_writes),
        median(|cost| cost.per_batch.syncs),
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forebay_engine::EngineStats;

    use super::*;
    use crate::{latency::Latencies, storage::counters::Counts};

    #[test]
    fn costs_are_per_byte_and_batch_of_the_round() {
        let round = Round::new(4_000_000, Duration::from_secs(1), &Latencies::new());
        let stats = EngineStats {
            appended_batches: 4,
            appended_bytes: 4_000_000,
            journal_commits: 2,
            journal_bytes: 4_000_000,
            segment_bytes: 2_000_000,
            segment_syncs: 1,
            bypass_writes: 1,
            ..EngineStats::default()
        };
        let counts = Counts {
            allocations: 8,
            allocated_bytes: 400,
            ring_entries: 6,
            syscalls: None,
        };
        let cost = cost(&Side {
            round,
            stats,
            cpu_seconds: 0.5,
            counts,
        });
        assert_eq!(cost.write_amplification, 1.5);
        assert_eq!(cost.cpu_seconds_per_gb, 125.0);
        let batch = cost.per_batch;
        assert_eq!((batch.allocations, batch.allocated_bytes), (2.0, 100.0));
        assert_eq!((batch.ring_entries, batch.syscalls), (1.5, None));
        assert_eq!((batch.durable_writes, batch.syncs), (0.75, 0.25));
    }
}
