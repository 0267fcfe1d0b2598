//! `storage read`: one reader that drains a log from the disk, next to the same files read without the engine, and reads from memory.
//!
//! The engine writes the log, ends, and starts again, so that it has nothing of it in memory. The files are read raw in two ways: in pieces of
//! the size that the reader asks for, and in the pieces that the engine reads, whatever the reader asks for. Neither knows a page cache.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use forebay_engine::{
    Engine, Log, LogConfig, Offset,
    log::ReadLimit,
    rt::{Instant, Rt, buf::ALIGNMENT},
};
use serde::Serialize;

use super::{
    backlog,
    counters::{Counters, Counts, cpu_seconds, device_reads},
    device::{self, Files},
    folder::{BASE_BYTES, RunOptions, files},
    measured::{Figure, Measured, Taken, Turns},
    probe::{Broken, Probe},
    session::Session,
    subject::{
        self, BYPASS_BYTES, DurabilityArg, Progress, TAIL_BYTES, engine_config, on_one_shard,
    },
};
use crate::{
    exit::Exit,
    limits::{SECONDS_MAX, SMALL_BATCH_BYTES, mib, within},
    result::{run::Better, turns::Cost},
    run::Direction,
};

const SEGMENT_BYTES: u64 = 256 << 20;

const READ_BYTES_MAX: usize = 16 << 20;

/// Threads that read the raw device.
const DEPTH_MAX: usize = 1024;

/// What is read from memory again and again.
const HOT_BYTES: u64 = 64 << 20;

/// Reads from memory between two looks at the clock.
const HOT_READS: u64 = 256;

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Bytes of one record batch of the log
    #[arg(long, default_value_t = 16_384)]
    batch_bytes: usize,
    /// Bytes that the reader asks for at a time, each measured by itself
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "16384,65536,262144,1048576"
    )]
    sizes: Vec<usize>,
    /// Reads of the raw device in flight; the engine has up to three
    #[arg(long, default_value_t = 3)]
    depth: usize,
    /// Bytes of one read of the raw device that goes by the engine's pieces
    #[arg(long, default_value_t = 262_144)]
    piece_bytes: usize,
    /// Size of the log
    #[arg(long, default_value_t = 2048)]
    backlog_mib: u64,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2)]
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
            let ends = [self.sizes.first(), self.sizes.last()];
            self.sizes = ends.into_iter().flatten().copied().collect();
            self.sizes.dedup();
        }
        within("--batch-bytes", self.batch_bytes, SMALL_BATCH_BYTES)?;
        for size in &self.sizes {
            check_read_bytes("--sizes", *size)?;
        }
        within("--depth", self.depth, 1..=DEPTH_MAX)?;
        check_read_bytes("--piece-bytes", self.piece_bytes)?;
        within(
            "--backlog-mib",
            self.backlog_mib,
            SEGMENT_BYTES >> 20..=u64::MAX,
        )?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        self.run.check()?;
        Ok(self)
    }
}

/// The raw device is read with direct I/O.
fn check_read_bytes(option: &str, bytes: usize) -> Result<(), String> {
    within(option, bytes, ALIGNMENT..=READ_BYTES_MAX)?;
    match bytes.is_multiple_of(ALIGNMENT) {
        true => Ok(()),
        false => Err(format!(
            "{option} must be a multiple of {ALIGNMENT}, and is {bytes}"
        )),
    }
}

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let planned_bytes = BASE_BYTES.saturating_add(mib(plan.backlog_mib));
    let session = Session::begin(&plan.run, planned_bytes)?;
    let dir = session.make("engine")?;
    let ended = write_and_read(&plan, &session, &dir);
    session.finish("storage read", &plan, ended, |turns| {
        let figures = plan.sizes.iter().flat_map(|size| figures(turns, *size));
        figures.collect::<Vec<_>>().into()
    })
}

fn write_and_read(plan: &Plan, session: &Session, dir: &Path) -> Result<(), Broken> {
    let of_shard = || (session.probe(), plan.clone(), dir.to_path_buf());
    let (probe, plan, dir) = of_shard();
    on_one_shard(move |rt| write_log(rt, probe, plan, dir))?;
    let (probe, plan, dir) = of_shard();
    on_one_shard(move |rt| all_rounds(rt, probe, plan, dir))
}

/// The engine with the log that is drained and one that stays in memory.
struct Logs {
    rt: Rt,
    probe: Probe,
    engine: Engine,
    cold: Log,
    hot: Log,
}

impl Logs {
    async fn open(rt: &Rt, probe: &Probe, dir: &Path) -> Result<Logs, Broken> {
        let config = engine_config(dir.to_path_buf(), BYPASS_BYTES, TAIL_BYTES);
        let engine = subject::open(rt, config.clone()).await?;
        let (cold, hot) = (open_log(&engine, 0).await?, open_log(&engine, 1).await?);
        probe.set_up(subject::settings(&config, &cold.config()));
        subject::begin(&engine).await?;
        Ok(Logs {
            rt: rt.clone(),
            probe: probe.clone(),
            engine,
            cold,
            hot,
        })
    }

    async fn fill(&self, log: &Log, batch_bytes: usize, bytes: u64) -> Result<(), Broken> {
        let (probe, rt, engine) = (&self.probe, &self.rt, &self.engine);
        let progress = Progress::watch(rt, engine, [log]);
        let moved = progress.of(log);
        let filled = backlog::fill(probe, rt, engine, log, &moved, batch_bytes, bytes).await;
        progress.stop().await;
        filled
    }

    async fn close(self) -> Result<(), String> {
        let Logs { engine, .. } = self;
        subject::close(&engine).await
    }

    /// One reader from the log's start to its end, and again, each read waiting for the one before it.
    async fn drain(&self, size: usize, ends: Instant) -> Result<Measured, Broken> {
        let meter = self.probe.meter(Direction::Consume);
        let mut reader = Reader::new(&self.cold, size);
        while self.rt.now() < ends {
            self.probe.check()?;
            let began = self.rt.now();
            let bytes = reader.read().await?;
            meter.record(self.rt.now().since(began), bytes);
        }
        Ok(meter.finish())
    }

    /// The same from memory. Nothing is waited for, so a read's latency is the mean of many.
    async fn read_hot(&self, size: usize, ends: Instant) -> Result<Measured, Broken> {
        let meter = self.probe.meter(Direction::Consume);
        let cold_before = self.engine.stats().cold_reads;
        let mut reader = Reader::new(&self.hot, size);
        while self.rt.now() < ends {
            self.probe.check()?;
            let began = self.rt.now();
            let mut bytes = 0;
            for _ in 0..HOT_READS {
                bytes += reader.read().await?;
            }
            meter.record_many(self.rt.now().since(began), HOT_READS, bytes);
            self.rt.yield_now().await;
        }
        match self.engine.stats().cold_reads - cold_before {
            0 => Ok(meter.finish()),
            cold => Err(format!("{cold} reads that should come from memory did not").into()),
        }
    }
}

async fn open_log(engine: &Engine, partition: u32) -> Result<Log, String> {
    let log = subject::open_log(engine, DurabilityArg::Persisted, partition).await?;
    log.configure(LogConfig {
        segment_bytes: SEGMENT_BYTES,
        ..log.config()
    });
    Ok(log)
}

/// Reads a log from its start to its end, and again.
struct Reader<'a> {
    log: &'a Log,
    start: Offset,
    limit: ReadLimit,
    next: Offset,
}

impl Reader<'_> {
    fn new(log: &Log, size: usize) -> Reader<'_> {
        let marks = log.marks();
        Reader {
            log,
            start: marks.log_start,
            limit: limit(marks.log_end, size),
            next: marks.log_start,
        }
    }

    /// Gives the bytes read.
    async fn read(&mut self) -> Result<u64, String> {
        let fetched = self.log.read(self.next, self.limit).await;
        let fetched = fetched.map_err(|error| error.to_string())?;
        let next = fetched.next.filter(|next| *next < self.limit.below);
        self.next = next.unwrap_or(self.start);
        Ok(fetched.bytes as u64)
    }
}

fn limit(below: Offset, size: usize) -> ReadLimit {
    ReadLimit {
        below,
        bytes_max: size,
        at_least_one: true,
    }
}

async fn write_log(rt: Rt, probe: Probe, plan: Plan, dir: PathBuf) -> Result<(), Broken> {
    let logs = Logs::open(&rt, &probe, &dir).await?;
    let bytes = mib(plan.backlog_mib);
    logs.fill(&logs.cold, plan.batch_bytes, bytes).await?;
    Ok(logs.close().await?)
}

async fn all_rounds(rt: Rt, probe: Probe, plan: Plan, dir: PathBuf) -> Result<(), Broken> {
    let logs = Logs::open(&rt, &probe, &dir).await?;
    // Those of the log that is drained: the only one there is anything in.
    let files = Arc::new(Files::open(&files(&dir, "log")?)?);
    println!(
        "log of {:.0} MiB in batches of {} B; raw reads {} in flight",
        files.total_bytes() as f64 / f64::from(1 << 20),
        plan.batch_bytes,
        plan.depth
    );
    logs.fill(&logs.hot, plan.batch_bytes, HOT_BYTES).await?;
    let bench = Bench {
        rt: &rt,
        probe: &probe,
        logs: &logs,
        files: &files,
        dir: &dir,
        plan: &plan,
    };
    // Memory is touched for the first time.
    bench.side(Turn::Engine, plan.piece_bytes).await?;
    for round in 0..plan.run.rounds {
        for &size in &plan.sizes {
            for step in 0..TURNS.len() {
                let turn = TURNS[(round as usize + step) % TURNS.len()];
                let measured = bench.side(turn, size).await?;
                probe.took(Taken::new(round, turn.name(), measured).in_case(case(size)));
            }
        }
    }
    drop(files);
    Ok(logs.close().await?)
}

fn case(size: usize) -> String {
    format!("{size} bytes")
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Engine,
    Device,
    DevicePieces,
    Hot,
}

impl Turn {
    fn name(self) -> &'static str {
        match self {
            Turn::Engine => "engine",
            Turn::Device => "device",
            Turn::DevicePieces => "device pieces",
            Turn::Hot => "from memory",
        }
    }
}

const TURNS: [Turn; 4] = [Turn::Engine, Turn::Device, Turn::DevicePieces, Turn::Hot];

struct Bench<'a> {
    rt: &'a Rt,
    probe: &'a Probe,
    logs: &'a Logs,
    files: &'a Arc<Files>,
    dir: &'a Path,
    plan: &'a Plan,
}

impl Bench<'_> {
    /// On the engine's core.
    async fn read_raw(&self, size: usize, duration: Duration) -> Result<Measured, Broken> {
        let (files, depth, probe) = (self.files.clone(), self.plan.depth, self.probe.clone());
        let read = move || device::read(&probe, &files, size, depth, duration);
        self.rt.run_blocking(read).await
    }

    async fn side(&self, turn: Turn, size: usize) -> Result<Measured, Broken> {
        let rt = self.rt;
        let duration = Duration::from_secs(self.plan.seconds);
        let requests_before = device_reads(self.dir);
        let (cpu_before, mut counters) = (cpu_seconds(), Counters::start());
        let ends = rt.now().plus(duration);
        let measured = match turn {
            Turn::Engine => self.logs.drain(size, ends).await?,
            Turn::Hot => self.logs.read_hot(size, ends).await?,
            Turn::Device => self.read_raw(size, duration).await?,
            Turn::DevicePieces => self.read_raw(self.plan.piece_bytes, duration).await?,
        };
        let (counts, cpu) = (counters.read(), cpu_seconds() - cpu_before);
        let requests = device_reads(self.dir).zip(requests_before);
        let requests = requests.map(|(after, before)| after - before);
        let costs = costs(measured.bytes, cpu, counts, requests);
        Ok(Measured { costs, ..measured })
    }
}

/// What a measurement took, per byte that was read.
fn costs(bytes: u64, cpu: f64, counts: Counts, requests: Option<u64>) -> Vec<Cost> {
    let per_mib = |name: &str, count: u64| {
        let value = count as f64 / (bytes as f64 / f64::from(1 << 20));
        Cost::new(&format!("{name}_per_mib"), "per MiB", value)
    };
    let allocated = counts.allocated_bytes as f64 / bytes as f64;
    let mut costs = vec![
        Cost::new("cpu_seconds_per_gb", "s/GB", cpu / (bytes as f64 / 1e9)),
        // Each copy goes into memory that is allocated for it, and so does each read.
        Cost::new("allocated_bytes_per_byte", "bytes per byte", allocated),
        per_mib("allocations", counts.allocations),
        per_mib("ring_entries", counts.ring_entries),
    ];
    // Of the disk, by all programs.
    costs.extend(requests.map(|requests| per_mib("device_reads", requests)));
    costs
}

fn figures(turns: &Turns, size: usize) -> Vec<Figure> {
    let case = case(size);
    let of = |turn: Turn, value: &dyn Fn(&Measured) -> Option<f64>| {
        turns.values(Some(&case), turn.name(), value)
    };
    let rates = |turn| of(turn, &|it| Some(it.bytes_per_second()));
    let cost = |name: &str| of(Turn::Engine, &|it| it.cost(name));
    let engine = rates(Turn::Engine);
    let figures = [
        Figure::ratio(
            "device_ratio",
            Better::Higher,
            &engine,
            &rates(Turn::Device),
        )
        .decides(),
        // To raw reads of the engine's pieces, whatever is asked for.
        Figure::ratio(
            "pieces_ratio",
            Better::Higher,
            &engine,
            &rates(Turn::DevicePieces),
        ),
        Figure::new(
            "bytes_per_second",
            "bytes/s",
            Better::Higher,
            engine.clone(),
        ),
        Figure::new(
            "hot_bytes_per_second",
            "bytes/s",
            Better::Higher,
            rates(Turn::Hot),
        ),
        Figure::new(
            "cpu_seconds_per_gb",
            "s/GB",
            Better::Lower,
            cost("cpu_seconds_per_gb"),
        ),
    ];
    figures.map(|it| it.in_case(Some(&case))).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_per_byte_that_was_read() {
        let bytes = 4 << 20;
        let counts = Counts {
            allocations: 8,
            allocated_bytes: 6 << 20,
            ring_entries: 2,
            syscalls: None,
        };
        let check = |requests: Option<u64>, expected: &[f64]| {
            let costs = costs(bytes, 1.0, counts, requests);
            let values: Vec<f64> = costs[1..].iter().map(|cost| cost.value).collect();
            assert_eq!(values, expected);
            assert!((costs[0].value - 238.4).abs() < 0.1, "{costs:?}");
        };
        check(Some(16), &[1.5, 2.0, 0.5, 4.0]);
        check(None, &[1.5, 2.0, 0.5]);
    }
}
