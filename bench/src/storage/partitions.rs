//! `storage partitions`: what many logs in one engine cost, idle and busy.
//!
//! First the life of an engine with many logs: create them, append a little to each, stop, start, kill, start. Then a load of the same
//! size from the same writers is spread over few logs and over many, taking turns, each time in an engine of its own.
//!
//! "Kill" here drops the executor with everything that is in memory. That leaves the files as SIGKILL would: nothing is in the page
//! cache that a kill of the process would lose.

use std::{cell::Cell, fs, path::PathBuf, rc::Rc};

use bytes::BytesMut;
use clap::Args;
use forebay_engine::{
    Engine, EngineStats, Log,
    rt::{Instant, Rt, local::Notify},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{
    counters::cpu_seconds,
    folder::{BASE_BYTES, RunOptions, remove},
    measured::{Figure, Measured, Taken, Turns},
    probe::{Broken, Meter, Probe},
    session::Session,
    subject::{
        self, BYPASS_BYTES, DurabilityArg, Progress, append_one, batch_of, engine_config,
        on_one_shard, wait_for_room,
    },
    tasks::{join_all, spawn_all},
};
use crate::{
    exit::Exit,
    limits::{BATCH_BYTES, COUNT_MAX, mib, within},
    result::{run::Better, turns::Cost},
    run::Direction,
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
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.run.quick {
            (self.run.rounds, self.load_mib, self.many) = (2, 256, 2_000);
        }
        within("--many", self.many, 1..=COUNT_MAX)?;
        within("--few", self.few, 1..=COUNT_MAX)?;
        within("--writers", self.writers, 1..=COUNT_MAX)?;
        within("--size-bytes", self.size_bytes, BATCH_BYTES)?;
        within("--load-mib", self.load_mib, 1..=u64::MAX)?;
        self.run.check()?;
        Ok(self)
    }
}

/// What the process holds at one moment.
#[derive(Clone, Copy)]
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
#[derive(Clone, Copy)]
struct Start {
    /// Until appends may come.
    seconds: f64,
    memory_per_log_bytes: f64,
    open_files: usize,
}

#[derive(Clone, Copy)]
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

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let planned_bytes = BASE_BYTES.saturating_add(mib(plan.load_mib));
    let session = Session::begin(&plan.run, planned_bytes)?;
    let mut life = None;
    let ended = all_rounds(&plan, &session, &mut life);
    session.finish("storage partitions", &plan, ended, |turns| {
        let mut figures = figures(&plan, turns);
        figures.extend(life.iter().flat_map(life_figures));
        figures.into()
    })
}

fn all_rounds(plan: &Plan, session: &Session, life: &mut Option<Life>) -> Result<(), Broken> {
    *life = Some(live(plan, session)?);
    let sides = [(FEW, plan.few), (MANY, plan.many)];
    for number in 0..plan.run.rounds {
        // The first one is not always the same.
        for step in 0..sides.len() {
            let (side, logs) = sides[(number as usize + step) % sides.len()];
            let measured = turn(plan, logs, side, number, session)?;
            session.probe().took(Taken::new(number, side, measured));
        }
    }
    Ok(())
}

const FEW: &str = "few logs";
const MANY: &str = "many logs";

fn figures(plan: &Plan, turns: &Turns) -> Vec<Figure> {
    let rates = |side: &str| turns.values(None, side, |it| Some(it.bytes_per_second()));
    let bytes = mib(plan.load_mib) as f64;
    let with_waking = |side: &str| {
        turns.values(None, side, |it| {
            Some(bytes / (bytes / it.bytes_per_second() + it.cost(WAKING)?))
        })
    };
    let cost = |name: &str| turns.values(None, MANY, |it| it.cost(name));
    let (few, many) = (rates(FEW), rates(MANY));
    vec![
        // Once each log has had a first small batch.
        Figure::ratio("many_to_few", Better::Higher, &many, &few).decides(),
        Figure::ratio(
            "many_to_few_with_waking",
            Better::Higher,
            &with_waking(MANY),
            &with_waking(FEW),
        ),
        Figure::new(
            "many_bytes_per_second",
            "bytes/s",
            Better::Higher,
            many.clone(),
        ),
        Figure::new(
            "few_bytes_per_second",
            "bytes/s",
            Better::Higher,
            few.clone(),
        ),
        Figure::new(WAKING, "s", Better::Lower, cost(WAKING)),
        Figure::new(
            "write_amplification",
            "bytes per byte",
            Better::Lower,
            cost("write_amplification"),
        )
        .decides(),
    ]
}

fn life_figures(life: &Life) -> Vec<Figure> {
    let seconds = |name: &str, value: f64| {
        Figure::once(&format!("{name}_seconds"), "s", Better::Lower, value)
    };
    let mut figures = vec![
        seconds("first_append", life.first_append_seconds),
        seconds("close", life.close_seconds),
        seconds("close_idle", life.close_idle_seconds),
    ];
    for (name, start) in [
        ("create", life.create),
        ("start_after_close", life.start_after_close),
        ("start_after_kill", life.start_after_kill),
    ] {
        let memory = format!("{name}_memory_per_log_bytes");
        figures.extend([
            seconds(name, start.seconds),
            Figure::once(&memory, "bytes", Better::Lower, start.memory_per_log_bytes),
            Figure::once(
                &format!("{name}_open_files"),
                "count",
                Better::Lower,
                start.open_files as f64,
            ),
        ]);
    }
    figures
}

/// What the life of the many logs cost, for the eye.
fn print_life(plan: &Plan, life: &Life) {
    println!("{} logs in one engine on one shard:", plan.many);
    for figure in life_figures(life).iter().filter_map(Figure::result) {
        println!(
            "  {:<40} {:.3} {}",
            figure.name, figure.spread.median, figure.unit
        );
    }
}

fn live(plan: &Plan, session: &Session) -> Result<Life, Broken> {
    let dir_of_all = session.make("life")?;
    let of = || (plan.clone(), dir_of_all.clone());
    let of_probe = || session.probe();
    let (plan_of_shard, dir) = of();
    let probe = of_probe();
    let (create, first_append_seconds, close_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, create) =
            start(&probe, &rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        let began = rt.now();
        append_first(&probe, &rt, &engine, &logs, plan_of_shard.writers).await?;
        let first_append_seconds = seconds_since(&rt, began);
        drop(logs);
        Ok::<_, Broken>((create, first_append_seconds, close(&rt, &engine).await?))
    })?;
    let (plan_of_shard, dir) = of();
    let probe = of_probe();
    let start_after_close = on_one_shard(move |rt| async move {
        let (engine, logs, started) =
            start(&probe, &rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        let some: Vec<Log> = logs.into_iter().step_by(100).collect();
        append_first(&probe, &rt, &engine, &some, plan_of_shard.writers).await?;
        Ok::<_, Broken>(started)
    })?;
    let (plan_of_shard, dir) = of();
    let probe = of_probe();
    let (start_after_kill, close_idle_seconds) = on_one_shard(move |rt| async move {
        let (engine, logs, started) =
            start(&probe, &rt, &plan_of_shard, plan_of_shard.many, dir).await?;
        drop(logs);
        Ok::<_, Broken>((started, close(&rt, &engine).await?))
    })?;
    remove(&dir_of_all)?;
    let life = Life {
        create,
        first_append_seconds,
        close_seconds,
        start_after_close,
        start_after_kill,
        close_idle_seconds,
    };
    print_life(plan, &life);
    Ok(life)
}

/// One load on an engine with `count` logs, which were created before it started. Each turn has a folder of its own, so that none pays for what
/// another wrote.
fn turn(
    plan: &Plan,
    count: u32,
    side: &str,
    number: u32,
    session: &Session,
) -> Result<Measured, Broken> {
    let dir = session.make(&format!("{side}-{number}"))?;
    let (plan_of_shard, dir_of_shard, probe) = (plan.clone(), dir.clone(), session.probe());
    on_one_shard(move |rt| async move {
        let (engine, logs, _) = start(&probe, &rt, &plan_of_shard, count, dir_of_shard).await?;
        drop(logs);
        Ok::<_, Broken>(close(&rt, &engine).await?)
    })?;
    let (plan, dir_of_shard, probe) = (plan.clone(), dir.clone(), session.probe());
    let measured = on_one_shard(move |rt| loaded(rt, probe, plan, count, dir_of_shard))?;
    remove(&dir)?;
    Ok(measured)
}

/// Seconds for one small durable batch to every log, by the plan's writers: a log opens its files at its first append.
const WAKING: &str = "waking_seconds";

async fn loaded(
    rt: Rt,
    probe: Probe,
    plan: Plan,
    count: u32,
    dir: PathBuf,
) -> Result<Measured, Broken> {
    let began = rt.now();
    let (engine, logs, _) = start(&probe, &rt, &plan, count, dir).await?;
    let start_seconds = seconds_since(&rt, began);
    let batches = mib(plan.load_mib).div_ceil(plan.size_bytes as u64);
    let began = rt.now();
    append_first(&probe, &rt, &engine, &logs, plan.writers).await?;
    let waking_seconds = seconds_since(&rt, began);
    let (before, cpu_before) = (engine.stats(), cpu_seconds());
    let load = (plan.writers, plan.size_bytes, batches);
    let measured = append_spread(&probe, &rt, &engine, &logs, load).await?;
    let cpu = cpu_seconds() - cpu_before;
    drop(logs);
    // From the last batch that became durable until everything was in segments and closed.
    let close_seconds = close(&rt, &engine).await?;
    let written = |stats: &EngineStats| stats.journal_bytes + stats.segment_bytes;
    let syncs = |stats: &EngineStats| stats.segment_syncs + stats.file_system_syncs;
    let after = engine.stats();
    let appended = (after.appended_bytes - before.appended_bytes) as f64;
    // The close included.
    let written = (written(&after) - written(&before)) as f64;
    let syncs = (syncs(&after) - syncs(&before)) as f64;
    let costs = vec![
        Cost::new("write_amplification", "bytes per byte", written / appended),
        Cost::new("cpu_seconds_per_gb", "s/GB", cpu / (appended / 1e9)),
        Cost::new("start_seconds", "s", start_seconds),
        Cost::new(WAKING, "s", waking_seconds),
        Cost::new("close_seconds", "s", close_seconds),
        Cost::new("syncs", "count", syncs),
    ];
    Ok(Measured { costs, ..measured })
}

async fn start(
    probe: &Probe,
    rt: &Rt,
    plan: &Plan,
    count: u32,
    dir: PathBuf,
) -> Result<(Engine, Vec<Log>, Start), Broken> {
    probe.check()?;
    let before = Held::now()?;
    let began = rt.now();
    let config = engine_config(dir, BYPASS_BYTES, TAIL_BYTES);
    let engine = subject::open(rt, config.clone()).await?;
    let logs: Vec<Log> = stream::iter(0..count)
        .map(|partition| subject::open_log(&engine, plan.durability, partition))
        .buffered(OPENS_IN_FLIGHT_MAX)
        .try_collect()
        .await?;
    probe.set_up(subject::settings(&config, &logs[0].config()));
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

/// One small durable batch to every log.
async fn append_first(
    probe: &Probe,
    rt: &Rt,
    engine: &Engine,
    logs: &[Log],
    writers: u32,
) -> Result<(), Broken> {
    let load = (writers, FIRST_APPEND_BYTES, logs.len() as u64);
    append_spread(probe, rt, engine, logs, load).await.map(drop)
}

/// By so many tasks batches of such a size, and so many of them, one log after the other.
async fn append_spread(
    probe: &Probe,
    rt: &Rt,
    engine: &Engine,
    logs: &[Log],
    (writers, size, batches): (u32, usize, u64),
) -> Result<Measured, Broken> {
    let progress = Progress::watch(rt, engine, logs);
    let spread = Rc::new(SpreadLoad {
        rt: rt.clone(),
        probe: probe.clone(),
        meter: probe.meter(Direction::Produce),
        logs: logs
            .iter()
            .map(|log| (log.clone(), progress.of(log)))
            .collect(),
        room: engine.room(),
        template: batch_of(size, rt.wall_clock()),
        batches,
        next: Cell::new(0),
    });
    let writers = (0..writers).map(|_| spread.clone().write());
    join_all(spawn_all(rt, writers)).await?;
    let measured = spread.meter.finish();
    progress.stop().await;
    Ok(measured)
}

/// What the writers share.
struct SpreadLoad {
    rt: Rt,
    probe: Probe,
    meter: Meter,
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
    async fn write(self: Rc<Self>) -> Result<(), Broken> {
        let bytes = self.template.len() as u64;
        loop {
            self.probe.check()?;
            let number = self.next.replace(self.next.get() + 1);
            if number >= self.batches {
                return Ok(());
            }
            let index = number % self.logs.len() as u64;
            let (log, moved) = &self.logs[usize::try_from(index).expect("an index")];
            let began = self.rt.now();
            wait_for_room(log, &self.room, self.template.len()).await;
            append_one(&self.rt, log, moved, &self.template).await?;
            self.meter.record(self.rt.now().since(began), bytes);
        }
    }
}
