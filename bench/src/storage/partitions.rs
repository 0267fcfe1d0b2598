//! `storage partitions`: what many logs in one engine cost, idle and busy.
//!
//! First the life of an engine with many logs: create them, append a little to each, stop, start, kill, start. Then a load of the same
//! size from the same writers is spread over few logs and over many, taking turns, each time in an engine of its own.
//!
//! "Kill" here drops the executor with everything that is in memory. That leaves the files as SIGKILL would: nothing is in the page
//! cache that a kill of the process would lose.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use clap::Args;
use forebay_engine::{
    Engine, EngineStats, Log,
    rt::{Class, Instant, Rt, local::Notify},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    append::{
        DurabilityArg, Round, append_one, batch_of, engine_config, micros, on_one_shard, open_log,
        wait_for_room, wake_writers,
    },
    folder::{BASE_BYTES, Folder},
};
use crate::{
    environment::Environment,
    result::{self, SCHEMA_VERSION, Spread},
};

/// Logs that are opened at the same time, as the broker does.
const OPENS_IN_FLIGHT_MAX: usize = 256;

/// What is appended to each log before the engine stops.
const SMALL_BATCH_BYTES: usize = 1024;

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
    /// Directory on the disk to measure; a folder of our own is made in it and removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where to write result.json
    #[arg(long)]
    #[serde(skip)]
    out: Option<PathBuf>,
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
    round: Round,
    start_seconds: f64,
    /// From the last batch that became durable until everything was in segments and closed.
    close_seconds: f64,
    /// Bytes written to the disk for each byte appended, the close included.
    write_amplification: f64,
    syncs: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    command: &'static str,
    environment: Environment,
    life: Life,
    few: Vec<Turn>,
    many: Vec<Turn>,
    /// Bytes per second over many logs against few, round by round.
    many_to_few: Spread,
    plan: Plan,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let mut plan = plan.clone();
    if plan.quick {
        (plan.rounds, plan.load_mib) = (2, 512);
    }
    let counts = [plan.few, plan.many, plan.writers, plan.rounds];
    if counts.contains(&0) || plan.load_mib == 0 {
        return Err("many, few, writers, load-mib and rounds must be at least 1".to_string());
    }
    if !(256..=16 << 20).contains(&plan.size_bytes) {
        return Err("--size-bytes must be between 256 and 16777216".to_string());
    }
    let folder = Folder::create(&plan.dir, BASE_BYTES + (plan.load_mib << 20))?;
    let dir_of = |name: &str| -> Result<PathBuf, String> {
        let dir = folder.0.join(name);
        fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(dir)
    };
    let life = live(&plan, &dir_of("life")?)?;
    print_life(&plan, &life);
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        // Each turn has a folder of its own, so that none pays for what another wrote, and the first is not always the same.
        let of = |count, name: &str| turn(&plan, count, &dir_of(&format!("{name}-{round}"))?);
        if round % 2 == 0 {
            few.push(of(plan.few, "few")?);
            many.push(of(plan.many, "many")?);
        } else {
            many.push(of(plan.many, "many")?);
            few.push(of(plan.few, "few")?);
        }
        print_turn(round, plan.few, few[round as usize]);
        print_turn(round, plan.many, many[round as usize]);
    }
    let ratio =
        |(few, many): (&Turn, &Turn)| many.round.bytes_per_second / few.round.bytes_per_second;
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        command: "storage partitions",
        environment: Environment::capture(&plan.dir),
        many_to_few: Spread::of(few.iter().zip(&many).map(ratio)),
        life,
        few,
        many,
        plan,
    };
    let ratio = outcome.many_to_few;
    println!(
        "{} logs against {}: {:.2} of the throughput (from {:.2} to {:.2} over {} rounds)",
        outcome.plan.many,
        outcome.plan.few,
        ratio.median,
        ratio.min,
        ratio.max,
        outcome.plan.rounds
    );
    if let Some(out) = &outcome.plan.out {
        result::write(out, &outcome).map_err(|error| format!("{}: {error}", out.display()))?;
        println!("written: {}", out.join("result.json").display());
    }
    Ok(())
}

fn live(plan: &Plan, dir_of_all: &Path) -> Result<Life, String> {
    let of = || (plan.clone(), dir_of_all.to_path_buf());
    let (plan_of_shard, dir) = of();
    let (create, first_append_seconds, close_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, create) = start(&rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        let began = rt.now();
        let batches = u64::from(plan_of_shard.many);
        let writers = plan_of_shard.writers;
        append_spread(&rt, &engine, &logs, writers, SMALL_BATCH_BYTES, batches).await?;
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
        append_spread(&rt, &engine, &some, writers, SMALL_BATCH_BYTES, batches).await?;
        Ok(started)
    })?;
    let (plan_of_shard, dir) = of();
    let (start_after_kill, close_idle_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, started) = start(&rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        drop(logs);
        Ok((started, close(&rt, &engine).await?))
    })?;
    fs::remove_dir_all(dir_of_all).map_err(|error| format!("{}: {error}", dir_of_all.display()))?;
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
    fs::remove_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(turn)
}

fn loaded(plan: Plan, count: u32, dir: PathBuf) -> Result<Turn, String> {
    on_one_shard(move |rt| async move {
        let began = rt.now();
        let (engine, logs, _) = start(&rt, &plan, count, dir).await?;
        let start_seconds = seconds_since(&rt, began);
        let batches = (plan.load_mib << 20).div_ceil(plan.size_bytes as u64);
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
    let said = |fault: forebay_engine::Fault| fault.to_string();
    let engine = Engine::open(rt.clone(), engine_config(dir, 256 << 10, 512 << 20))
        .await
        .map_err(|error| error.to_string())?;
    let logs = stream::iter(0..count)
        .map(|partition| open_log(&engine, plan.durability, partition))
        .buffered(OPENS_IN_FLIGHT_MAX)
        .try_collect()
        .await?;
    engine.sync_recovered().await.map_err(said)?;
    engine.start_journal().await.map_err(said)?;
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
    engine.close().await.map_err(|fault| fault.to_string())?;
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
    let moved: Rc<RefCell<HashMap<_, _>>> = Rc::new(RefCell::new(
        logs.iter().map(|log| (log.id(), Notify::new())).collect(),
    ));
    let waking = wake_writers(engine.clone(), moved.clone());
    let waker = rt.spawn(Class::Foreground, waking);
    let template = batch_of(size, rt.wall_clock());
    let logs: Rc<[Log]> = logs.into();
    let next = Rc::new(Cell::new(0_u64));
    let started = rt.now();
    let writers: Vec<_> = (0..writers)
        .map(|_| {
            let (rt_of_task, logs, next) = (rt.clone(), logs.clone(), next.clone());
            let (moved, template) = (moved.clone(), template.clone());
            let room = engine.room();
            rt.spawn(Class::Foreground, async move {
                let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
                loop {
                    let number = next.replace(next.get() + 1);
                    if number >= batches {
                        return Ok::<_, String>(latency);
                    }
                    let log = &logs[usize::try_from(number % logs.len() as u64).expect("an index")];
                    let notify = moved.borrow()[&log.id()].clone();
                    let began = rt_of_task.now();
                    wait_for_room(log, &room, template.len()).await;
                    append_one(&rt_of_task, log, &notify, &template).await?;
                    latency
                        .record(micros(rt_of_task.now().since(began)))
                        .expect("a resizing histogram takes any value");
                }
            })
        })
        .collect();
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    for writer in writers {
        latency += writer.await?;
    }
    let elapsed = rt.now().since(started);
    waker.cancel().await;
    Ok(Round::new(
        batches * template.len() as u64,
        elapsed,
        &latency,
    ))
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
        "round {} {logs:>6} logs {:>8.1} MB/s  p50 {:>6} us  p99 {:>7} us  start {:>6.3} s  close {:>6.3} s  written {:.2}x  syncs {}",
        number + 1,
        round.bytes_per_second / 1e6,
        round.latency.p50_us,
        round.latency.p99_us,
        turn.start_seconds,
        turn.close_seconds,
        turn.write_amplification,
        turn.syncs,
    );
}
