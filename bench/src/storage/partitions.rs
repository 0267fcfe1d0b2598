//! `storage partitions`: what many logs in one engine cost, idle and busy.
//!
//! First the life of an engine with many logs: create them, append a little to each, stop, start, kill, start. Then a load of the same
//! size from the same writers is spread over few logs and over many, taking turns, each time in an engine of its own.
//!
//! "Kill" here drops the executor with everything that is in memory. That leaves the files as SIGKILL would: nothing is in the page
//! cache that a kill of the process would lose.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::BytesMut;
use clap::Args;
use forebay_engine::{
    Engine, EngineStats, Log,
    rt::{Instant, Rt, local::Notify},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{
    folder::{BASE_BYTES, Folder, Place, remove},
    subject::{
        self, BYPASS_BYTES, DurabilityArg, Progress, append_one, batch_of, engine_config,
        on_one_shard, wait_for_room,
    },
    tasks::{join_all, spawn_all},
};
use crate::{
    latency::Latencies,
    limits::{BATCH_BYTES, COUNT_MAX, ROUNDS_MAX, mib, within},
    result::{Round, Spread},
};

/// Logs that are opened at the same time, as the broker does.
const OPENS_IN_FLIGHT_MAX: usize = 256;

/// Memory for what waits for the disk: of many logs there is more of it.
const TAIL_BYTES: usize = 512 << 20;

/// What is appended to each log before the engine stops.
const FIRST_APPEND_BYTES: usize = 1024;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Logs in the engine with many
    #[arg(long, default_value_t = 10_000)]
    many: u32,
    /// Logs in the engine with few
    #[arg(long, default_value_t = 10)]
    few: u32,
    /// Writers that share the load, each waiting for its batch to be durable before the next
    #[arg(long, default_value_t = 64)]
    writers: u32,
    /// Bytes of one record batch of the load
    #[arg(long, default_value_t = 65_536)]
    size_bytes: usize,
    /// Total load of one turn
    #[arg(long, default_value_t = 1024)]
    load_mib: u64,
    #[arg(long, value_enum, default_value_t = DurabilityArg::Persisted)]
    durability: DurabilityArg,
    /// Rounds; few and many take turns within each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within a minute: two rounds of half the load
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
            (self.rounds, self.load_mib) = (2, 512);
        }
        within("--many", self.many, 1..=COUNT_MAX)?;
        within("--few", self.few, 1..=COUNT_MAX)?;
        within("--writers", self.writers, 1..=COUNT_MAX)?;
        within("--size-bytes", self.size_bytes, BATCH_BYTES)?;
        within("--load-mib", self.load_mib, 1..=u64::MAX)?;
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)?;
        Ok(self)
    }
}

/// What the process holds at one moment.
#[derive(Clone, Copy, Debug, Serialize)]
struct Held {
    memory_bytes: u64,
    open_files: usize,
}

impl Held {
    fn now() -> Result<Held, String> {
        let said = |error: std::io::Error| format!("/proc/self: {error}");
        let statm = fs::read_to_string("/proc/self/statm").map_err(said)?;
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        let pages: u64 = pages.ok_or("/proc/self/statm is not as expected")?;
        Ok(Held {
            memory_bytes: pages * 4096,
            open_files: fs::read_dir("/proc/self/fd").map_err(said)?.count(),
        })
    }
}

/// One start of an engine with many logs.
#[derive(Clone, Copy, Debug, Serialize)]
struct Start {
    /// Until appends may come.
    seconds: f64,
    memory_per_log_bytes: f64,
    open_files: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Life {
    create: Start,
    /// One small durable batch to every log, by the plan's writers.
    first_append_seconds: f64,
    close_seconds: f64,
    start_after_close: Start,
    /// After one log in a hundred was appended to, and nothing was closed.
    start_after_kill: Start,
    /// Of an engine none of whose logs was touched since its start.
    close_idle_seconds: f64,
}

/// One turn of the load.
#[derive(Clone, Copy, Debug, Serialize)]
struct Turn {
    /// With all logs awake.
    round: Round,
    start_seconds: f64,
    /// For one small durable batch to every log, by the plan's writers: a log opens its files at its first append.
    waking_seconds: f64,
    /// From the last batch that became durable until everything was in segments and closed.
    close_seconds: f64,
    /// Bytes written to the disk for each byte appended, the close included.
    write_amplification: f64,
    syncs: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    life: Life,
    few: Vec<Turn>,
    many: Vec<Turn>,
    /// Bytes per second over many logs against few, round by round, once all are awake.
    many_to_few: Spread,
    /// The same with the waking of the logs on the clock.
    many_to_few_with_waking: Spread,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let plan = plan.clone().checked()?;
    let planned_bytes = BASE_BYTES.saturating_add(mib(plan.load_mib));
    let folder = plan.place.folder(planned_bytes)?;
    let life = live(&plan, &folder.make("life")?)?;
    print_life(&plan, &life);
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for number in 0..plan.rounds {
        let [of_few, of_many] = round(&plan, number, &folder)?;
        print_turn(number, plan.few, of_few);
        print_turn(number, plan.many, of_many);
        few.push(of_few);
        many.push(of_many);
    }
    let found = Found {
        life,
        many_to_few: Spread::of_ratios(&speeds(&many), &speeds(&few)),
        many_to_few_with_waking: Spread::of_ratios(
            &speeds_with_waking(&plan, &many),
            &speeds_with_waking(&plan, &few),
        ),
        few,
        many,
    };
    println!(
        "{} logs against {}: {:.2} of the throughput over {} rounds; with their waking on the clock {:.2}",
        plan.many, plan.few, found.many_to_few, plan.rounds, found.many_to_few_with_waking
    );
    plan.place.report("storage partitions", &plan, &found)
}

/// A turn with few logs and one with many. Each has a folder of its own, so that none pays for what another wrote, and the first
/// is not always the same.
fn round(plan: &Plan, number: u32, folder: &Folder) -> Result<[Turn; 2], String> {
    let few = || turn(plan, plan.few, &folder.make(&format!("few-{number}"))?);
    let many = || turn(plan, plan.many, &folder.make(&format!("many-{number}"))?);
    if number.is_multiple_of(2) {
        let few = few()?;
        return Ok([few, many()?]);
    }
    let many = many()?;
    Ok([few()?, many])
}

fn speeds(turns: &[Turn]) -> Vec<f64> {
    let speed = |turn: &Turn| turn.round.bytes_per_second;
    turns.iter().map(speed).collect()
}

fn speeds_with_waking(plan: &Plan, turns: &[Turn]) -> Vec<f64> {
    let bytes = mib(plan.load_mib) as f64;
    let speed = |turn: &Turn| bytes / (bytes / turn.round.bytes_per_second + turn.waking_seconds);
    turns.iter().map(speed).collect()
}

fn live(plan: &Plan, dir_of_all: &Path) -> Result<Life, String> {
    let of = || (plan.clone(), dir_of_all.to_path_buf());
    let (plan_of_shard, dir) = of();
    let (create, first_append_seconds, close_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, create) = start(&rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        let began = rt.now();
        let batches = u64::from(plan_of_shard.many);
        let writers = plan_of_shard.writers;
        append_spread(&rt, &engine, &logs, writers, FIRST_APPEND_BYTES, batches).await?;
        let first_append_seconds = seconds_since(&rt, began);
        drop(logs);
        Ok((create, first_append_seconds, close(&rt, &engine).await?))
    })?;
    let (plan_of_shard, dir) = of();
    let start_after_close = on_one_shard(move |rt| async move {
        let (engine, logs, started) = start(&rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        let some: Vec<Log> = logs.into_iter().step_by(100).collect();
        let batches = some.len() as u64;
        let writers = plan_of_shard.writers;
        append_spread(&rt, &engine, &some, writers, FIRST_APPEND_BYTES, batches).await?;
        Ok(started)
    })?;
    let (plan_of_shard, dir) = of();
    let (start_after_kill, close_idle_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, started) = start(&rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        drop(logs);
        Ok((started, close(&rt, &engine).await?))
    })?;
    remove(dir_of_all)?;
    Ok(Life {
        create,
        first_append_seconds,
        close_seconds,
        start_after_close,
        start_after_kill,
        close_idle_seconds,
    })
}

/// One load on an engine with `count` logs, which were created before it started. Their folder is removed.
fn turn(plan: &Plan, count: u32, dir: &Path) -> Result<Turn, String> {
    let (plan_of_shard, dir_of_shard) = (plan.clone(), dir.to_path_buf());
    on_one_shard(move |rt| async move {
        let (engine, logs, _) = start(&rt, &plan_of_shard, count, dir_of_shard).await?;
        drop(logs);
        close(&rt, &engine).await
    })?;
    let (plan, dir_of_shard) = (plan.clone(), dir.to_path_buf());
    let turn = loaded(plan, count, dir_of_shard)?;
    remove(dir)?;
    Ok(turn)
}

fn loaded(plan: Plan, count: u32, dir: PathBuf) -> Result<Turn, String> {
    on_one_shard(move |rt| async move {
        let began = rt.now();
        let (engine, logs, _) = start(&rt, &plan, count, dir).await?;
        let start_seconds = seconds_since(&rt, began);
        let batches = mib(plan.load_mib).div_ceil(plan.size_bytes as u64);
        let began = rt.now();
        let each = u64::from(count);
        append_spread(&rt, &engine, &logs, plan.writers, FIRST_APPEND_BYTES, each).await?;
        let waking_seconds = seconds_since(&rt, began);
        let before = engine.stats();
        let size = plan.size_bytes;
        let round = append_spread(&rt, &engine, &logs, plan.writers, size, batches).await?;
        drop(logs);
        let close_seconds = close(&rt, &engine).await?;
        let written = |stats: &EngineStats| stats.journal_bytes + stats.segment_bytes;
        let after = engine.stats();
        let appended = after.appended_bytes - before.appended_bytes;
        Ok(Turn {
            round,
            start_seconds,
            waking_seconds,
            close_seconds,
            write_amplification: (written(&after) - written(&before)) as f64 / appended as f64,
            syncs: after.segment_syncs + after.file_system_syncs
                - before.segment_syncs
                - before.file_system_syncs,
        })
    })
}

async fn start(
    rt: &Rt,
    plan: &Plan,
    count: u32,
    dir: PathBuf,
) -> Result<(Engine, Vec<Log>, Start), String> {
    let before = Held::now()?;
    let began = rt.now();
    let engine = subject::open(rt, engine_config(dir, BYPASS_BYTES, TAIL_BYTES)).await?;
    let logs = stream::iter(0..count)
        .map(|partition| subject::open_log(&engine, plan.durability, partition))
        .buffered(OPENS_IN_FLIGHT_MAX)
        .try_collect()
        .await?;
    subject::begin(&engine).await?;
    let seconds = seconds_since(rt, began);
    let held = Held::now()?;
    let memory_bytes = held.memory_bytes.saturating_sub(before.memory_bytes);
    let start = Start {
        seconds,
        memory_per_log_bytes: memory_bytes as f64 / f64::from(count),
        open_files: held.open_files - before.open_files,
    };
    Ok((engine, logs, start))
}

async fn close(rt: &Rt, engine: &Engine) -> Result<f64, String> {
    let began = rt.now();
    subject::close(engine).await?;
    Ok(seconds_since(rt, began))
}

fn seconds_since(rt: &Rt, began: Instant) -> f64 {
    rt.now().since(began).as_secs_f64()
}

/// `batches` durable batches by `writers` tasks, one log after the other.
async fn append_spread(
    rt: &Rt,
    engine: &Engine,
    logs: &[Log],
    writers: u32,
    size: usize,
    batches: u64,
) -> Result<Round, String> {
    let progress = Progress::watch(rt, engine, logs);
    let spread = Rc::new(SpreadLoad {
        rt: rt.clone(),
        logs: logs
            .iter()
            .map(|log| (log.clone(), progress.of(log)))
            .collect(),
        room: engine.room(),
        template: batch_of(size, rt.wall_clock()),
        batches,
        next: Cell::new(0),
    });
    let started = rt.now();
    let writers = (0..writers).map(|_| spread.clone().write());
    let latencies = join_all(spawn_all(rt, writers)).await?;
    let elapsed = rt.now().since(started);
    progress.stop().await;
    let bytes = batches * spread.template.len() as u64;
    Ok(Round::new(bytes, elapsed, &latencies))
}

/// What the writers share.
struct SpreadLoad {
    rt: Rt,
    /// Each with what is notified when it moves on.
    logs: Vec<(Log, Notify)>,
    room: Notify,
    template: BytesMut,
    batches: u64,
    /// The next batch that nobody has taken.
    next: Cell<u64>,
}

impl SpreadLoad {
    /// One of the writers, until there is no batch left.
    async fn write(self: Rc<Self>) -> Result<Latencies, String> {
        let mut latencies = Latencies::new();
        loop {
            let number = self.next.replace(self.next.get() + 1);
            if number >= self.batches {
                return Ok(latencies);
            }
            let index = number % self.logs.len() as u64;
            let (log, moved) = &self.logs[usize::try_from(index).expect("an index")];
            let began = self.rt.now();
            wait_for_room(log, &self.room, self.template.len()).await;
            append_one(&self.rt, log, moved, &self.template).await?;
            latencies.record(self.rt.now().since(began));
        }
    }
}

fn print_life(plan: &Plan, life: &Life) {
    println!("{} logs in one engine on one shard", plan.many);
    let start = |name: &str, start: Start| {
        println!(
            "{name:<22}{:>8.3} s  {:>8.0} B of memory per log  {:>6} files open",
            start.seconds, start.memory_per_log_bytes, start.open_files
        );
    };
    let step = |name: &str, seconds: f64| println!("{name:<22}{seconds:>8.3} s");
    start("create", life.create);
    step("first append to each", life.first_append_seconds);
    step("close", life.close_seconds);
    start("start after close", life.start_after_close);
    start("start after kill", life.start_after_kill);
    step("close, all idle", life.close_idle_seconds);
}

fn print_turn(number: u32, logs: u32, turn: Turn) {
    let round = turn.round;
    println!(
        "round {} {logs:>6} logs {:>8.1} MB/s  p50 {:>6} us  p99 {:>7} us  start {:>6.3} s  waking {:>6.3} s  close {:>6.3} s  written {:.2}x  syncs {}",
        number + 1,
        round.bytes_per_second / 1e6,
        round.latency.p50_us,
        round.latency.p99_us,
        turn.start_seconds,
        turn.waking_seconds,
        turn.close_seconds,
        turn.write_amplification,
        turn.syncs,
    );
}
