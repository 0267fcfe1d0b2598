//! Writers that each wait for their durable batch before the next: the load of `storage append` and of `storage fan-in`.

use std::{path::PathBuf, time::Duration};

use bytes::BytesMut;
use clap::Args;
use forebay_engine::{
    Engine, EngineStats, Log,
    rt::{Instant, Rt, local::Notify},
};
use serde::Serialize;

use super::{
    counters::{Counters, Counts, cpu_seconds},
    subject::{self, DurabilityArg, Progress, append_one, batch_of, engine_config},
    tasks::{join_all, spawn_all},
};
use crate::{
    latency::Latencies,
    limits::{BATCH_BYTES, COUNT_MAX, SECONDS_MAX, within},
    result::Round,
};

/// What may go to the journal must fit one of its files.
const BYPASS_BYTES_MAX: usize = 32 << 20;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Load {
    /// Bytes of one record batch, and of one block on the raw device
    #[arg(long, default_value_t = 65_536)]
    pub size_bytes: usize,
    /// Partitions appended to; each has its own log
    #[arg(long, default_value_t = 1)]
    pub partitions: u32,
    /// Writers per partition, each waiting for its batch to be durable before the next
    #[arg(long, default_value_t = 4)]
    pub depth: u32,
    #[arg(long, value_enum, default_value_t = DurabilityArg::Persisted)]
    pub durability: DurabilityArg,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Seconds before each measurement of the engine, in which its memory is touched for the first time
    #[arg(long, default_value_t = 2)]
    pub warm_up_seconds: u64,
    /// The engine's memory for what waits for the disk and for tail readers
    #[arg(long, default_value_t = subject::TAIL_BYTES)]
    pub tail_bytes: usize,
    /// Appends waiting in one partition beyond this go straight to its segment
    #[arg(long, default_value_t = subject::BYPASS_BYTES)]
    pub bypass_bytes: usize,
}

impl Load {
    /// A durable batch at a time in each of so many partitions.
    pub fn one_writer_each(partitions: u32, size_bytes: usize, seconds: u64) -> Load {
        Load {
            size_bytes,
            partitions,
            depth: 1,
            durability: DurabilityArg::Persisted,
            seconds,
            warm_up_seconds: 1,
            tail_bytes: subject::TAIL_BYTES,
            bypass_bytes: subject::BYPASS_BYTES,
        }
    }

    pub fn check(&self) -> Result<(), String> {
        within("--size-bytes", self.size_bytes, BATCH_BYTES)?;
        within("--partitions", self.partitions, 1..=COUNT_MAX)?;
        within("--depth", self.depth, 1..=COUNT_MAX / self.partitions)?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        within("--warm-up-seconds", self.warm_up_seconds, 0..=SECONDS_MAX)?;
        within("--bypass-bytes", self.bypass_bytes, 0..=BYPASS_BYTES_MAX)
    }

    /// Batches waiting at the same time.
    pub fn writers(&self) -> usize {
        self.partitions as usize * self.depth as usize
    }

    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The engine's side of one round.
pub struct Side {
    pub round: Round,
    pub stats: EngineStats,
    pub cpu_seconds: f64,
    pub counts: Counts,
}

/// All writers of one round on one engine.
pub async fn append(rt: Rt, load: Load, dir: PathBuf) -> Result<Side, String> {
    let config = engine_config(dir, load.bypass_bytes, load.tail_bytes);
    let engine = subject::open(&rt, config).await?;
    let mut logs = Vec::new();
    for partition in 0..load.partitions {
        logs.push(subject::open_log(&engine, load.durability, partition).await?);
    }
    subject::begin(&engine).await?;
    let progress = Progress::watch(&rt, &engine, &logs);
    let side = measure(&rt, &load, &engine, &logs, &progress).await?;
    progress.stop().await;
    subject::close(&engine).await?;
    Ok(side)
}

async fn measure(
    rt: &Rt,
    load: &Load,
    engine: &Engine,
    logs: &[Log],
    progress: &Progress,
) -> Result<Side, String> {
    let template = batch_of(load.size_bytes, rt.wall_clock());
    let warm_up = Duration::from_secs(load.warm_up_seconds);
    let started = rt.now().plus(warm_up);
    let ends = started.plus(load.duration());
    let writers = logs.iter().flat_map(|log| {
        let moved = progress.of(log);
        (0..load.depth).map(move |_| (log.clone(), moved.clone()))
    });
    let tasks = spawn_all(
        rt,
        writers.map(|(log, moved)| write(rt.clone(), log, moved, template.clone(), started, ends)),
    );
    rt.sleep(warm_up).await;
    let (before, cpu_before, mut counters) = (engine.stats(), cpu_seconds(), Counters::start());
    let latencies = join_all(tasks).await?;
    let elapsed = rt.now().since(started);
    Ok(Side {
        stats: difference(engine.stats(), before),
        cpu_seconds: cpu_seconds() - cpu_before,
        counts: counters.read(),
        round: Round::new(
            latencies.count() * template.len() as u64,
            elapsed,
            &latencies,
        ),
    })
}

/// One writer until the end; what began before the start is not recorded.
async fn write(
    rt: Rt,
    log: Log,
    moved: Notify,
    template: BytesMut,
    started: Instant,
    ends: Instant,
) -> Result<Latencies, String> {
    let mut latencies = Latencies::new();
    while rt.now() < ends {
        let began = rt.now();
        append_one(&rt, &log, &moved, &template).await?;
        if began >= started {
            latencies.record(rt.now().since(began));
        }
    }
    Ok(latencies)
}

/// Of what this load moves.
fn difference(after: EngineStats, before: EngineStats) -> EngineStats {
    EngineStats {
        appended_batches: after.appended_batches - before.appended_batches,
        appended_bytes: after.appended_bytes - before.appended_bytes,
        journal_commits: after.journal_commits - before.journal_commits,
        journal_bytes: after.journal_bytes - before.journal_bytes,
        segment_writes: after.segment_writes - before.segment_writes,
        segment_bytes: after.segment_bytes - before.segment_bytes,
        segment_syncs: after.segment_syncs - before.segment_syncs,
        file_system_syncs: after.file_system_syncs - before.file_system_syncs,
        bypass_writes: after.bypass_writes - before.bypass_writes,
        ..after
    }
}
