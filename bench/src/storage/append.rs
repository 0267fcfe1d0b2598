//! `storage append`: writers that each wait for their durable batch, against as many writers on the raw device.

use std::{cell::RefCell, collections::HashMap, fs, path::PathBuf, rc::Rc, time::Duration};

use bytes::BytesMut;
use clap::{Args, ValueEnum};
use forebay_engine::{
    Durability, Engine, EngineConfig, EngineStats, LeaderEpoch, Log, LogConfig, LogId, LogName,
    PartitionIndex, SYNCS_TOGETHER_MIN, ShardId, SpaceConfig, SpaceUse, Timestamp, TimestampType,
    TopicId,
    batch::{BatchBuilder, BatchRules, Codec, validate},
    rt::{Class, Rt, local::Notify, uring},
};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    counters::{Counters, Counts},
    device,
    folder::{BASE_BYTES, Folder},
};
use crate::{
    environment::Environment,
    result::{self, Latency, SCHEMA_VERSION, Spread},
};

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Bytes of one record batch, and of one block on the raw device
    #[arg(long, default_value_t = 65_536)]
    size_bytes: usize,
    /// Partitions appended to; each has its own log
    #[arg(long, default_value_t = 1)]
    partitions: u32,
    /// Writers per partition, each waiting for its batch to be durable before the next
    #[arg(long, default_value_t = 4)]
    depth: u32,
    #[arg(long, value_enum, default_value_t = DurabilityArg::Persisted)]
    durability: DurabilityArg,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds before each measurement of the engine, in which its memory is touched for the first time
    #[arg(long, default_value_t = 2)]
    warm_up_seconds: u64,
    /// The engine's memory for what waits for the disk and for tail readers
    #[arg(long, default_value_t = 134_217_728)]
    tail_bytes: usize,
    /// Appends waiting in one partition beyond this go straight to its segment
    #[arg(long, default_value_t = 262_144)]
    bypass_bytes: usize,
    /// Rounds; engine and device take turns within each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within 30 seconds: three rounds of two seconds
    #[arg(long)]
    quick: bool,
    /// Directory on the disk to measure; a folder of our own is made in it and removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where to write result.json
    #[arg(long)]
    #[serde(skip)]
    out: Option<PathBuf>,
}

impl Plan {
    /// A durable batch at a time in each of so many partitions.
    pub fn one_writer_each(partitions: u32, size_bytes: usize) -> Plan {
        Plan {
            size_bytes,
            partitions,
            depth: 1,
            durability: DurabilityArg::Persisted,
            seconds: 0,
            warm_up_seconds: 1,
            tail_bytes: 128 << 20,
            bypass_bytes: 256 << 10,
            rounds: 1,
            quick: false,
            dir: PathBuf::new(),
            out: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DurabilityArg {
    Persisted,
    Replicated,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Durability {
        match durability {
            DurabilityArg::Persisted => Durability::Persisted,
            DurabilityArg::Replicated => Durability::Replicated,
        }
    }
}

/// One measurement of either side.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    pub operations: u64,
    pub bytes_per_second: f64,
    pub operations_per_second: f64,
    pub latency: Latency,
}

impl Round {
    pub fn new(bytes: u64, elapsed: Duration, latency: &Histogram<u64>) -> Round {
        let seconds = elapsed.as_secs_f64();
        Round {
            operations: latency.len(),
            bytes_per_second: bytes as f64 / seconds,
            operations_per_second: latency.len() as f64 / seconds,
            latency: Latency::of(latency),
        }
    }
}

pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the engine did in one round, per appended byte and batch.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    /// Bytes written to the disk (journal and segments) for each byte appended.
    write_amplification: f64,
    journal_commits: u64,
    segment_writes: u64,
    segment_syncs: u64,
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

/// The engine's side of one round.
pub struct Side {
    pub round: Round,
    pub stats: EngineStats,
    cpu_seconds: f64,
    counts: Counts,
}

#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    command: &'static str,
    plan: Plan,
    environment: Environment,
    engine: Vec<Round>,
    engine_cost: Vec<Cost>,
    device: Vec<Round>,
    engine_bytes_per_second: Spread,
    device_bytes_per_second: Spread,
    /// Engine bytes per second over device bytes per second, round by round.
    device_ratio: Spread,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let mut plan = plan.clone();
    if plan.quick {
        (plan.rounds, plan.seconds, plan.warm_up_seconds) = (3, 2, 1);
    }
    if plan.partitions == 0 || plan.depth == 0 || plan.rounds == 0 || plan.seconds == 0 {
        return Err("partitions, depth, rounds and seconds must be at least 1".to_string());
    }
    if !(256..=16 << 20).contains(&plan.size_bytes) {
        return Err("--size-bytes must be between 256 and 16777216".to_string());
    }
    let folder = Folder::create(&plan.dir, BASE_BYTES)?;
    let duration = Duration::from_secs(plan.seconds);
    let (mut engine, mut engine_cost, mut device) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let dir = folder.0.join(format!("round-{round}"));
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let (plan_of_round, dir_of_engine) = (plan.clone(), dir.clone());
        let side = on_one_shard(move |rt| append(rt, plan_of_round, dir_of_engine, duration))?;
        engine.push(side.round);
        engine_cost.push(cost(&side));
        let (size, depth) = (plan.size_bytes, (plan.partitions * plan.depth) as usize);
        let dir_of_device = dir.clone();
        device.push(on_one_shard(move |rt| async move {
            device::write(&rt, dir_of_device, size, depth.min(256), duration).await
        })?);
        fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        print_round(round, engine[round as usize], device[round as usize]);
    }
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        command: "storage append",
        environment: Environment::capture(&plan.dir),
        engine_bytes_per_second: Spread::of(engine.iter().map(|round| round.bytes_per_second)),
        device_bytes_per_second: Spread::of(device.iter().map(|round| round.bytes_per_second)),
        device_ratio: Spread::of(
            engine
                .iter()
                .zip(&device)
                .map(|(e, d)| e.bytes_per_second / d.bytes_per_second),
        ),
        plan,
        engine,
        engine_cost,
        device,
    };
    print_summary(&outcome);
    if let Some(out) = &outcome.plan.out {
        result::write(out, &outcome).map_err(|error| format!("{}: {error}", out.display()))?;
        println!("written: {}", out.join("result.json").display());
    }
    Ok(())
}

/// Runs one task on one pinned executor and gives back what it returned.
pub fn on_one_shard<T, Running>(
    main: impl FnOnce(Rt) -> Running + Send + 'static,
) -> Result<T, String>
where
    T: Send + 'static,
    Running: Future<Output = Result<T, String>> + 'static,
{
    let said = |error: std::io::Error| error.to_string();
    let mut options = uring::ShardOptions::for_this_host().map_err(said)?;
    options.shards = 1;
    let mut main = Some(main);
    let handles = uring::run_shards(&options, |_| {
        let main = main.take().expect("one shard is started once");
        move |rt: Rt, _: ShardId| main(rt)
    })
    .map_err(said)?;
    let [handle] =
        <[_; 1]>::try_from(handles).unwrap_or_else(|_| unreachable!("one shard was started"));
    handle.join().map_err(said)?
}

/// All writers of one round on one engine.
pub async fn append(rt: Rt, plan: Plan, dir: PathBuf, duration: Duration) -> Result<Side, String> {
    let engine = Engine::open(
        rt.clone(),
        engine_config(dir, plan.bypass_bytes, plan.tail_bytes),
    )
    .await
    .map_err(|e| e.to_string())?;
    let mut logs = Vec::new();
    for partition in 0..plan.partitions {
        logs.push(open_log(&engine, plan.durability, partition).await?);
    }
    engine
        .sync_recovered()
        .await
        .map_err(|fault| fault.to_string())?;
    engine
        .start_journal()
        .await
        .map_err(|fault| fault.to_string())?;

    let moved: Rc<RefCell<HashMap<LogId, Notify>>> = Rc::new(RefCell::new(
        logs.iter().map(|log| (log.id(), Notify::new())).collect(),
    ));
    let waker = rt.spawn(
        Class::Foreground,
        wake_writers(engine.clone(), moved.clone()),
    );
    let template = batch_of(plan.size_bytes, rt.wall_clock());
    let warm_up = Duration::from_secs(plan.warm_up_seconds);
    let started = rt.now().plus(warm_up);
    let ends = started.plus(duration);
    let mut writers = Vec::new();
    for log in &logs {
        let notify = moved.borrow()[&log.id()].clone();
        for _ in 0..plan.depth {
            let (rt_of_task, log, notify) = (rt.clone(), log.clone(), notify.clone());
            let template = template.clone();
            writers.push(rt.spawn(Class::Foreground, async move {
                let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
                while rt_of_task.now() < ends {
                    let began = rt_of_task.now();
                    append_one(&rt_of_task, &log, &notify, &template).await?;
                    if began >= started {
                        latency
                            .record(micros(rt_of_task.now().since(began)))
                            .expect("a resizing histogram takes any value");
                    }
                }
                Ok::<_, String>(latency)
            }));
        }
    }
    rt.sleep(warm_up).await;
    let (before, cpu_before, mut counters) = (engine.stats(), cpu_seconds(), Counters::start());
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    for writer in writers {
        latency += writer.await?;
    }
    let elapsed = rt.now().since(started);
    let stats = difference(engine.stats(), before);
    let (cpu_seconds, counts) = (cpu_seconds() - cpu_before, counters.read());
    waker.cancel().await;
    engine.close().await.map_err(|fault| fault.to_string())?;
    Ok(Side {
        round: Round::new(latency.len() * template.len() as u64, elapsed, &latency),
        stats,
        cpu_seconds,
        counts,
    })
}

/// As a broker does: a frame's bytes are checked, appended, and waited for.
pub async fn append_one(
    rt: &Rt,
    log: &Log,
    notify: &Notify,
    template: &BytesMut,
) -> Result<(), String> {
    let batch = validate(template.clone(), &rules(), rt.wall_clock()).map_err(|e| e.to_string())?;
    let appended = log
        .append(batch, LeaderEpoch(0))
        .map_err(|error| error.to_string())?;
    loop {
        let listen = notify.listen();
        if log.marks().counted_end > appended.last_offset {
            return Ok(());
        }
        if let Some(fault) = log.fault() {
            return Err(fault.to_string());
        }
        listen.await;
    }
}

/// Waits until the log takes a batch of `len` bytes, as a broker does before it reads the next frame.
pub async fn wait_for_room(log: &Log, room: &Notify, len: usize) {
    loop {
        let more = room.listen();
        if log.has_room(len) {
            return;
        }
        more.await;
    }
}

pub async fn wake_writers(engine: Engine, moved: Rc<RefCell<HashMap<LogId, Notify>>>) {
    loop {
        let logs = engine.progress().await;
        let moved = moved.borrow();
        logs.iter()
            .filter_map(|id| moved.get(id))
            .for_each(Notify::notify_all);
    }
}

pub fn engine_config(dir: PathBuf, bypass_bytes: usize, tail_bytes_max: usize) -> EngineConfig {
    EngineConfig {
        data_dir: dir,
        shard: ShardId(0),
        journal_file_bytes: 64 << 20,
        journal_files: 4,
        bypass_bytes,
        write_chunk_bytes_max: 4 << 20,
        tail_bytes_max,
        readahead_bytes_max: 64 << 20,
        checkpoint_interval_ms: 60_000,
        retention_check_interval_ms: 300_000,
        producer_id_expiration_ms: 86_400_000,
        syncs_together_min: SYNCS_TOGETHER_MIN,
        space: SpaceConfig::default(),
    }
}

pub async fn open_log(
    engine: &Engine,
    durability: DurabilityArg,
    partition: u32,
) -> Result<Log, String> {
    let partition = PartitionIndex(i32::try_from(partition).map_err(|error| error.to_string())?);
    let id = LogId {
        topic_id: TopicId(*b"forebay-bench-01"),
        partition,
    };
    let name = LogName {
        topic: "bench".to_string(),
        partition,
    };
    let config = LogConfig {
        durability: durability.into(),
        segment_bytes: 1 << 30,
        segment_ms: 7 * 24 * 3_600_000,
        index_interval_bytes: 4096,
        retention_bytes: None,
        retention_ms: None,
        file_delete_delay_ms: 60_000,
        delete: true,
        space: SpaceUse::Data,
        rules: rules(),
    };
    engine
        .open_log_when_used(id, name, config)
        .await
        .map_err(|error| error.to_string())
}

fn rules() -> BatchRules {
    BatchRules {
        message_bytes_max: 32 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: None,
        keys_required: false,
        codec: None,
        control_allowed: false,
    }
}

/// One batch of about `size` bytes: records of 1 KiB (or one smaller record) of noise, which no layer below can compress.
pub fn batch_of(size: usize, now: Timestamp) -> BytesMut {
    const RECORD_BYTES: usize = 1024;
    let mut builder = BatchBuilder::new(Codec::None);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    };
    let overhead = 61 + 12;
    while builder.len() + overhead < size || builder.is_empty() {
        let room = size.saturating_sub(builder.len() + 12).max(1);
        builder.push(now, None, Some(&noise(room.min(RECORD_BYTES))), &[]);
    }
    builder.build()
}

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

/// User and system time of this process so far.
#[allow(unsafe_code)]
pub fn cpu_seconds() -> f64 {
    // SAFETY: all-zero bytes are a valid rusage (integers only), and getrusage writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn print_round(number: u32, engine: Round, device: Round) {
    let side = |name: &str, round: Round| {
        println!(
            "round {} {name:<6} {:>9.1} MB/s {:>9.0} ops/s  p50 {:>6} us  p99 {:>7} us  p99.9 {:>7} us",
            number + 1,
            round.bytes_per_second / 1e6,
            round.operations_per_second,
            round.latency.p50_us,
            round.latency.p99_us,
            round.latency.p999_us,
        );
    };
    side("engine", engine);
    side("device", device);
}

fn print_summary(outcome: &Outcome) {
    let plan = &outcome.plan;
    println!(
        "{} B batches, {} partitions, {} writers each, {:?}, one shard; device: {} writers, O_DIRECT|O_DSYNC over written blocks",
        plan.size_bytes,
        plan.partitions,
        plan.depth,
        plan.durability,
        (plan.partitions * plan.depth).min(256),
    );
    let ratio = outcome.device_ratio;
    println!(
        "device ratio: {:.2} (from {:.2} to {:.2} over {} rounds)",
        ratio.median, ratio.min, ratio.max, plan.rounds
    );
    let amplification = Spread::of(outcome.engine_cost.iter().map(|c| c.write_amplification));
    let cpu = Spread::of(outcome.engine_cost.iter().map(|c| c.cpu_seconds_per_gb));
    println!(
        "write amplification {:.2}, CPU {:.2} s/GB",
        amplification.median, cpu.median
    );
    let median = |value: fn(&PerBatch) -> f64| {
        Spread::of(outcome.engine_cost.iter().map(|c| value(&c.per_batch))).median
    };
    println!(
        "per batch: {:.2} allocations of {:.0} B, {:.2} copies, {:.3} ring entries, {:.3} syscalls, {:.4} durable writes, {:.5} syncs",
        median(|batch| batch.allocations),
        median(|batch| batch.allocated_bytes),
        median(|batch| batch.copies),
        median(|batch| batch.ring_entries),
        median(|batch| batch.syscalls.unwrap_or(f64::NAN)),
        median(|batch| batch.durable_writes),
        median(|batch| batch.syncs),
    );
}
