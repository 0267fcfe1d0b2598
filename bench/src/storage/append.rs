//! `storage append`: writers that each wait for their durable batch, against as many writers on the raw device.
//!
//! What blocks a write goes to decides how fast it is. The engine's segments are new files or, with spare files, those of deleted
//! segments; its journal always overwrites. The device is measured over blocks that were written before and over new ones.

use clap::Args;
use serde::Serialize;

use super::{
    device::{self, Blocks, Content},
    folder::{BASE_BYTES, RunOptions, remove},
    measured::{Figure, Measured, Taken, Turns},
    probe::Broken,
    session::Session,
    subject::{batch_of, on_one_shard},
    writers::{self, Load, Side},
};
use crate::{
    exit::Exit,
    result::{run::Better, turns::Cost},
};

/// Writers on the raw device.
const DEVICE_WRITERS_MAX: usize = 256;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    #[command(flatten)]
    #[serde(flatten)]
    load: Load,
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.run.quick {
            self.run.rounds = 3;
            (self.load.seconds, self.load.warm_up_seconds) = (1, 1);
        }
        self.run.check()?;
        self.load.check()?;
        Ok(self)
    }

    fn device_writers(&self) -> usize {
        self.load.writers().min(DEVICE_WRITERS_MAX)
    }
}

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let session = Session::begin(&plan.run, BASE_BYTES)?;
    let ended = (0..plan.run.rounds).try_for_each(|number| round(&plan, number, &session));
    session.finish("storage append", &plan, ended, |turns| {
        figures(turns).into()
    })
}

/// What blocks are written to the raw device, and what is in them.
const DEVICES: [(&str, Blocks, bool); 3] = [
    ("device", Blocks::Old, false),
    // With the work for each batch that no broker can leave out, on the same core.
    ("device with checks", Blocks::Old, true),
    ("device new blocks", Blocks::New, false),
];

/// One side after the other, in a folder of their own.
fn round(plan: &Plan, number: u32, session: &Session) -> Result<(), Broken> {
    let dir = session.make(&format!("round-{number}"))?;
    let (load, dir_of_engine, probe) = (plan.load.clone(), dir.clone(), session.probe());
    let engine = on_one_shard(move |rt| writers::append(rt, probe, load, dir_of_engine))?;
    let measured = Measured {
        costs: costs(&engine),
        ..engine.measured
    };
    session.probe().took(Taken::new(number, "engine", measured));
    let (size, duration) = (plan.load.size_bytes, plan.load.duration());
    let depth = plan.device_writers();
    for (side, blocks, with_batches) in DEVICES {
        let (dir, probe) = (dir.clone(), session.probe());
        let measured = on_one_shard(move |rt| async move {
            let content = match with_batches {
                true => Content::Batch(batch_of(size, rt.wall_clock())),
                false => Content::noise(size),
            };
            device::write(probe, &rt, dir, blocks, content, depth, duration).await
        })?;
        session.probe().took(Taken::new(number, side, measured));
    }
    Ok(remove(&dir)?)
}

/// What one batch took, counted, not timed, and what the engine did besides.
fn costs(side: &Side) -> Vec<Cost> {
    let (stats, counts) = (&side.stats, &side.counts);
    let appended = stats.appended_bytes as f64;
    let write_amplification = (stats.journal_bytes + stats.segment_bytes) as f64 / appended;
    let per_batch = |name: &str, count: u64| {
        let value = count as f64 / stats.appended_batches as f64;
        Cost::new(&format!("{name}_per_batch"), "per batch", value)
    };
    let count = |name: &str, count: u64| Cost::new(name, "count", count as f64);
    let mut costs = vec![
        // Bytes written to the disk (journal and segments) for each byte appended; each is copied once into what is written.
        Cost::new("write_amplification", "bytes per byte", write_amplification),
        Cost::new(
            "cpu_seconds_per_gb",
            "s/GB",
            side.cpu_seconds / (appended / 1e9),
        ),
        // Of memory, the batch itself among them, which a broker would have from its socket.
        per_batch("allocations", counts.allocations),
        per_batch("allocated_bytes", counts.allocated_bytes),
        per_batch("ring_entries", counts.ring_entries),
    ];
    // Of the shard's thread.
    costs.extend(counts.syscalls.map(|calls| per_batch("syscalls", calls)));
    costs.extend([
        per_batch(
            "durable_writes",
            stats.journal_commits + stats.bypass_writes,
        ),
        per_batch("syncs", stats.segment_syncs + stats.file_system_syncs),
        count("journal_commits", stats.journal_commits),
        count("segment_writes", stats.segment_writes),
        count("segment_syncs", stats.segment_syncs),
        count("checkpoints", stats.checkpoints),
        count("segments_sealed", stats.segments_sealed),
        count("segments_recycled", stats.segments_recycled),
    ]);
    costs
}

fn figures(turns: &Turns) -> Vec<Figure> {
    let rates = |side: &str| turns.values(None, side, |it| Some(it.bytes_per_second()));
    let p99 = |side: &str| turns.values(None, side, |it| Some(it.p99_us()));
    let cost = |name: &str| turns.values(None, "engine", |it| it.cost(name));
    let (engine, device) = (rates("engine"), rates("device"));
    let checks = rates("device with checks");
    let operations = turns.values(None, "engine", |it| Some(it.operations_per_second()));
    vec![
        Figure::ratio("device_ratio", Better::Higher, &engine, &device).decides(),
        Figure::ratio(
            "device_p99_ratio",
            Better::Lower,
            &p99("engine"),
            &p99("device"),
        )
        .decides(),
        Figure::ratio("device_with_checks_ratio", Better::Higher, &engine, &checks),
        // What that work leaves of the device, whatever the engine does.
        Figure::ratio("device_ratio_max", Better::Higher, &checks, &device),
        Figure::ratio(
            "device_new_blocks_ratio",
            Better::Higher,
            &engine,
            &rates("device new blocks"),
        ),
        Figure::new(
            "bytes_per_second",
            "bytes/s",
            Better::Higher,
            engine.clone(),
        ),
        Figure::new(
            "batches_per_second",
            "batches/s",
            Better::Higher,
            operations,
        ),
        Figure::new("latency_p99_us", "us", Better::Lower, p99("engine")),
        Figure::new(
            "device_bytes_per_second",
            "bytes/s",
            Better::Higher,
            device.clone(),
        ),
        Figure::new(
            "write_amplification",
            "bytes per byte",
            Better::Lower,
            cost("write_amplification"),
        )
        .decides(),
        Figure::new(
            "cpu_seconds_per_gb",
            "s/GB",
            Better::Lower,
            cost("cpu_seconds_per_gb"),
        )
        .decides(),
    ]
}

#[cfg(test)]
mod tests {
    use forebay_engine::EngineStats;

    use super::*;
    use crate::storage::counters::Counts;

    #[test]
    fn costs_are_per_byte_and_batch_of_the_round() {
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
        let measured = Measured::default();
        let costs = costs(&Side {
            measured,
            stats,
            cpu_seconds: 0.5,
            counts,
        });
        let check = |name: &str, expected: Option<f64>| {
            let cost = costs.iter().find(|cost| cost.name == name);
            assert_eq!(cost.map(|cost| cost.value), expected, "{name}");
        };
        check("write_amplification", Some(1.5));
        check("cpu_seconds_per_gb", Some(125.0));
        check("allocations_per_batch", Some(2.0));
        check("allocated_bytes_per_batch", Some(100.0));
        check("ring_entries_per_batch", Some(1.5));
        check("syscalls_per_batch", None);
        check("durable_writes_per_batch", Some(0.75));
        check("syncs_per_batch", Some(0.25));
    }
}
