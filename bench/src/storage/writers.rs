//! Writers that each wait for their durable batch before the next: the load of `storage append` and of `storage fan-in`.

use std::{path::PathBuf, time::Duration};

use bytes::BytesMut;
use clap::Args;
use forebay_engine::{
    Engine, EngineConfig, EngineStats, Log, LogConfig,
    rt::{Instant, Rt, local::Notify},
};
use serde::Serialize;

use super::{
    counters::{Counters, Counts, cpu_seconds},
    measured::Measured,
    probe::{Broken, Meter, Probe},
    subject::{self, DurabilityArg, Progress, append_one, batch_of, engine_config},
    tasks::{join_all, spawn_all},
};
use crate::{
    limits::{BATCH_BYTES, COUNT_MAX, SECONDS_MAX, within},
    run::Direction,
};

/// What may go to the journal must fit one of its files.
const BYPASS_BYTES_MAX: usize = 32 << 20;

const SPARE_SEGMENTS_MAX: usize = 16;

/// As in Kafka, positions in a segment have 31 bits.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// What is filled before the clock starts.
const RETENTION_BYTES_MAX: u64 = 1 << 40;

/// A log is filled with batches of this size, so many at once.
const FILL_BATCH_BYTES: usize = 256 << 10;
const FILL_BATCHES: u32 = 8;

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
    #[arg(long, default_value_t = subject::SEGMENT_BYTES)]
    pub segment_bytes: u64,
    /// What each log keeps; it is filled so far before the clock starts, until it deletes. Default: everything
    #[arg(long)]
    pub retention_bytes: Option<u64>,
    /// Files of deleted segments that each log keeps for its next ones; with 0 all segments are new files
    #[arg(long, default_value_t = 0)]
    pub spare_segments: usize,
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
            segment_bytes: subject::SEGMENT_BYTES,
            retention_bytes: None,
            spare_segments: 0,
        }
    }

    pub fn check(&self) -> Result<(), String> {
        within("--size-bytes", self.size_bytes, BATCH_BYTES)?;
        within("--partitions", self.partitions, 1..=COUNT_MAX)?;
        within("--depth", self.depth, 1..=COUNT_MAX / self.partitions)?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        within("--warm-up-seconds", self.warm_up_seconds, 0..=SECONDS_MAX)?;
        within("--bypass-bytes", self.bypass_bytes, 0..=BYPASS_BYTES_MAX)?;
        within(
            "--spare-segments",
            self.spare_segments,
            0..=SPARE_SEGMENTS_MAX,
        )?;
        let least = (self.size_bytes as u64).max(FILL_BATCH_BYTES as u64) * 2;
        within(
            "--segment-bytes",
            self.segment_bytes,
            least..=SEGMENT_BYTES_MAX,
        )?;
        let retention = self.retention_bytes.unwrap_or(0);
        within("--retention-bytes", retention, 0..=RETENTION_BYTES_MAX)
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
    pub measured: Measured,
    pub stats: EngineStats,
    pub cpu_seconds: f64,
    pub counts: Counts,
}

/// All writers of one round on one engine.
pub async fn append(rt: Rt, probe: Probe, load: Load, dir: PathBuf) -> Result<Side, Broken> {
    let config = EngineConfig {
        spare_segments_max: load.spare_segments,
        ..engine_config(dir, load.bypass_bytes, load.tail_bytes)
    };
    let engine = subject::open(&rt, config.clone()).await?;
    let mut logs = Vec::new();
    for partition in 0..load.partitions {
        let log = subject::open_log(&engine, load.durability, partition).await?;
        log.configure(LogConfig {
            segment_bytes: load.segment_bytes,
            retention_bytes: load.retention_bytes,
            ..log.config()
        });
        logs.push(log);
    }
    probe.set_up(subject::settings(&config, &logs[0].config()));
    subject::begin(&engine).await?;
    let progress = Progress::watch(&rt, &engine, &logs);
    if load.retention_bytes.is_some() {
        for log in &logs {
            fill(
                &probe,
                &rt,
                &engine,
                log,
                &progress,
                load.spare_segments > 0,
            )
            .await?;
        }
    }
    let side = measure(&probe, &rt, &load, &engine, &logs, &progress).await?;
    progress.stop().await;
    subject::close(&engine).await?;
    Ok(side)
}

/// Appends large batches until the log deletes as much as it gets, and goes on in files of deleted segments if it keeps some.
async fn fill(
    probe: &Probe,
    rt: &Rt,
    engine: &Engine,
    log: &Log,
    progress: &Progress,
    recycles: bool,
) -> Result<(), Broken> {
    let template = batch_of(FILL_BATCH_BYTES, rt.wall_clock());
    let (before, config) = (engine.stats(), log.config());
    let bytes_max = config.retention_bytes.unwrap_or(0) + 6 * config.segment_bytes;
    for _ in 0..bytes_max / (FILL_BATCH_BYTES as u64 * u64::from(FILL_BATCHES)) {
        probe.check()?;
        let since = difference(engine.stats(), before);
        if since.segments_deleted > 1 && (!recycles || since.segments_recycled > 0) {
            return Ok(());
        }
        let append = |_| {
            let (rt, log, template) = (rt.clone(), log.clone(), template.clone());
            let moved = progress.of(&log);
            async move { append_one(&rt, &log, &moved, &template).await }
        };
        join_all(spawn_all(rt, (0..FILL_BATCHES).map(append))).await?;
    }
    Err("the log does not delete what is over its limit"
        .to_string()
        .into())
}

async fn measure(
    probe: &Probe,
    rt: &Rt,
    load: &Load,
    engine: &Engine,
    logs: &[Log],
    progress: &Progress,
) -> Result<Side, Broken> {
    let template = batch_of(load.size_bytes, rt.wall_clock());
    let warm_up = Duration::from_secs(load.warm_up_seconds);
    let started = rt.now().plus(warm_up);
    let ends = started.plus(load.duration());
    let writers = logs.iter().flat_map(|log| {
        let moved = progress.of(log);
        (0..load.depth).map(move |_| (log.clone(), moved.clone()))
    });
    let meter = probe.meter(Direction::Produce);
    let writer = |(log, moved)| Writer {
        rt: rt.clone(),
        probe: probe.clone(),
        meter: meter.clone(),
        log,
        moved,
        template: template.clone(),
        started,
        ends,
    };
    let tasks = spawn_all(rt, writers.map(writer).map(Writer::run));
    probe.sleep(rt, warm_up).await?;
    meter.begins();
    let (before, cpu_before, mut counters) = (engine.stats(), cpu_seconds(), Counters::start());
    join_all(tasks).await?;
    Ok(Side {
        stats: difference(engine.stats(), before),
        cpu_seconds: cpu_seconds() - cpu_before,
        counts: counters.read(),
        measured: meter.finish(),
    })
}

/// One writer until the end; what began before the start is not measured.
struct Writer {
    rt: Rt,
    probe: Probe,
    meter: Meter,
    log: Log,
    moved: Notify,
    template: BytesMut,
    started: Instant,
    ends: Instant,
}

impl Writer {
    async fn run(self) -> Result<(), Broken> {
        let bytes = self.template.len() as u64;
        while self.rt.now() < self.ends {
            self.probe.check()?;
            let began = self.rt.now();
            append_one(&self.rt, &self.log, &self.moved, &self.template).await?;
            match began >= self.started {
                true => self.meter.record(self.rt.now().since(began), bytes),
                false => self.meter.beside(bytes),
            }
        }
        Ok(())
    }
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
        checkpoints: after.checkpoints - before.checkpoints,
        segments_sealed: after.segments_sealed - before.segments_sealed,
        segments_recycled: after.segments_recycled - before.segments_recycled,
        segments_deleted: after.segments_deleted - before.segments_deleted,
        ..after
    }
}
