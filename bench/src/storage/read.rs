//! `storage read`: one reader that drains a log from the disk, next to the same files read without the engine, and reads from memory.
//!
//! The engine writes the log, ends, and starts again, so that it has nothing of it in memory. The files are read raw in two ways: in pieces of
//! the size that the reader asks for, and in the pieces that the engine reads, whatever the reader asks for. Neither knows a page cache.

use std::{
    fs,
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
    folder::{BASE_BYTES, Place},
    subject::{
        self, BYPASS_BYTES, DurabilityArg, Progress, TAIL_BYTES, engine_config, on_one_shard,
    },
};
use crate::{
    latency::Latencies,
    limits::{ROUNDS_MAX, SECONDS_MAX, SMALL_BATCH_BYTES, mib, within},
    result::{Round, Spread},
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
    /// Rounds; the engine and the raw device take turns within each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within a minute: two rounds of one second and a log of 512 MiB
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
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)?;
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

/// One measurement of either side.
#[derive(Clone, Copy, Debug, Serialize)]
struct Side {
    round: Round,
    cpu_seconds_per_gb: f64,
    /// Each copy goes into memory that is allocated for it, and so does each read.
    allocated_bytes_per_byte: f64,
    allocations_per_mib: f64,
    ring_entries_per_mib: f64,
    /// Of the disk, by all programs.
    device_reads_per_mib: Option<f64>,
}

/// All rounds with one size of reads.
#[derive(Debug, Serialize)]
struct Case {
    size_bytes: usize,
    engine: Vec<Side>,
    device: Vec<Side>,
    device_pieces: Vec<Side>,
    hot: Vec<Side>,
    /// Engine bytes per second over those of the raw device in reads of the same size, round by round.
    device_ratio: Spread,
    /// The same over the raw device in the engine's pieces.
    pieces_ratio: Spread,
}

#[derive(Debug, Serialize)]
struct Found {
    cases: Vec<Case>,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let plan = plan.clone().checked()?;
    let planned_bytes = BASE_BYTES.saturating_add(mib(plan.backlog_mib));
    let folder = plan.place.folder(planned_bytes)?;
    let of_shard = || (plan.clone(), folder.path().to_path_buf());
    let (plan_of_shard, dir) = of_shard();
    on_one_shard(move |rt| write_log(rt, plan_of_shard, dir))?;
    let (plan_of_shard, dir) = of_shard();
    let cases = on_one_shard(move |rt| all_rounds(rt, plan_of_shard, dir))?;
    let found = Found { cases };
    print_summary(&plan, &found);
    plan.place.report("storage read", &plan, &found)
}

/// The engine with the log that is drained and one that stays in memory.
struct Logs {
    rt: Rt,
    engine: Engine,
    cold: Log,
    hot: Log,
}

impl Logs {
    async fn open(rt: &Rt, dir: &Path) -> Result<Logs, String> {
        let config = engine_config(dir.to_path_buf(), BYPASS_BYTES, TAIL_BYTES);
        let engine = subject::open(rt, config).await?;
        let (cold, hot) = (open_log(&engine, 0).await?, open_log(&engine, 1).await?);
        subject::begin(&engine).await?;
        Ok(Logs {
            rt: rt.clone(),
            engine,
            cold,
            hot,
        })
    }

    async fn fill(&self, log: &Log, batch_bytes: usize, bytes: u64) -> Result<(), String> {
        let (rt, engine) = (&self.rt, &self.engine);
        let progress = Progress::watch(rt, engine, [log]);
        let moved = progress.of(log);
        let filled = backlog::fill(rt, engine, log, &moved, batch_bytes, bytes).await;
        progress.stop().await;
        filled
    }

    async fn close(self) -> Result<(), String> {
        let Logs { engine, .. } = self;
        subject::close(&engine).await
    }

    /// One reader from the log's start to its end, and again, each read waiting for the one before it.
    async fn drain(&self, size: usize, ends: Instant) -> Result<(u64, Latencies), String> {
        let mut latencies = Latencies::new();
        let mut reader = Reader::new(&self.cold, size);
        while self.rt.now() < ends {
            let began = self.rt.now();
            reader.read().await?;
            latencies.record(self.rt.now().since(began));
        }
        Ok((reader.bytes, latencies))
    }

    /// The same from memory. Nothing is waited for, so a read's latency is the mean of many.
    async fn read_hot(&self, size: usize, ends: Instant) -> Result<(u64, Latencies), String> {
        let mut latencies = Latencies::new();
        let cold_before = self.engine.stats().cold_reads;
        let mut reader = Reader::new(&self.hot, size);
        while self.rt.now() < ends {
            let began = self.rt.now();
            for _ in 0..HOT_READS {
                reader.read().await?;
            }
            latencies.record_many(self.rt.now().since(began), HOT_READS);
            self.rt.yield_now().await;
        }
        match self.engine.stats().cold_reads - cold_before {
            0 => Ok((reader.bytes, latencies)),
            cold => Err(format!("{cold} reads that should come from memory did not")),
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
    /// Read so far.
    bytes: u64,
}

impl Reader<'_> {
    fn new(log: &Log, size: usize) -> Reader<'_> {
        let marks = log.marks();
        Reader {
            log,
            start: marks.log_start,
            limit: limit(marks.log_end, size),
            next: marks.log_start,
            bytes: 0,
        }
    }

    async fn read(&mut self) -> Result<(), String> {
        let fetched = self.log.read(self.next, self.limit).await;
        let fetched = fetched.map_err(|error| error.to_string())?;
        self.bytes += fetched.bytes as u64;
        let next = fetched.next.filter(|next| *next < self.limit.below);
        self.next = next.unwrap_or(self.start);
        Ok(())
    }
}

fn limit(below: Offset, size: usize) -> ReadLimit {
    ReadLimit {
        below,
        bytes_max: size,
        at_least_one: true,
    }
}

async fn write_log(rt: Rt, plan: Plan, dir: PathBuf) -> Result<(), String> {
    let logs = Logs::open(&rt, &dir).await?;
    let bytes = mib(plan.backlog_mib);
    logs.fill(&logs.cold, plan.batch_bytes, bytes).await?;
    logs.close().await
}

async fn all_rounds(rt: Rt, plan: Plan, dir: PathBuf) -> Result<Vec<Case>, String> {
    let logs = Logs::open(&rt, &dir).await?;
    let files = Arc::new(Files::open(&segments(&dir)?)?);
    println!(
        "log of {:.0} MiB in batches of {} B; raw reads {} in flight",
        files.total_bytes() as f64 / f64::from(1 << 20),
        plan.batch_bytes,
        plan.depth
    );
    logs.fill(&logs.hot, plan.batch_bytes, HOT_BYTES).await?;
    let bench = Bench {
        rt: &rt,
        logs: &logs,
        files: &files,
        dir: &dir,
        plan: &plan,
    };
    // Memory is touched for the first time.
    bench.side(Turn::Engine, plan.piece_bytes).await?;
    let mut measured: Vec<[Vec<Side>; 4]> = plan.sizes.iter().map(|_| Default::default()).collect();
    for round in 0..plan.rounds as usize {
        for (&size, of_size) in plan.sizes.iter().zip(&mut measured) {
            for step in 0..TURNS.len() {
                let number = (round + step) % TURNS.len();
                let side = bench.side(TURNS[number], size).await?;
                print_side(round, size, TURNS[number], &side);
                of_size[number].push(side);
            }
        }
    }
    drop(files);
    logs.close().await?;
    Ok(plan.sizes.iter().zip(measured).map(case).collect())
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
            Turn::DevicePieces => "device, pieces",
            Turn::Hot => "from memory",
        }
    }
}

const TURNS: [Turn; 4] = [Turn::Engine, Turn::Device, Turn::DevicePieces, Turn::Hot];

struct Bench<'a> {
    rt: &'a Rt,
    logs: &'a Logs,
    files: &'a Arc<Files>,
    dir: &'a Path,
    plan: &'a Plan,
}

impl Bench<'_> {
    /// On the engine's core.
    async fn read_raw(&self, size: usize, duration: Duration) -> Result<(u64, Latencies), String> {
        let (files, depth) = (self.files.clone(), self.plan.depth);
        let read = move || device::read(&files, size, depth, duration);
        let read = self.rt.run_blocking(read).await;
        read.map_err(|error| error.to_string())
    }

    async fn side(&self, turn: Turn, size: usize) -> Result<Side, String> {
        let rt = self.rt;
        let duration = Duration::from_secs(self.plan.seconds);
        let requests_before = device_reads(self.dir);
        let (cpu_before, mut counters) = (cpu_seconds(), Counters::start());
        let began = rt.now();
        let ends = began.plus(duration);
        let (bytes, latencies) = match turn {
            Turn::Engine => self.logs.drain(size, ends).await?,
            Turn::Hot => self.logs.read_hot(size, ends).await?,
            Turn::Device => self.read_raw(size, duration).await?,
            Turn::DevicePieces => self.read_raw(self.plan.piece_bytes, duration).await?,
        };
        let elapsed = rt.now().since(began);
        let (counts, cpu) = (counters.read(), cpu_seconds() - cpu_before);
        let requests = device_reads(self.dir).zip(requests_before);
        let requests = requests.map(|(after, before)| after - before);
        let round = Round::new(bytes, elapsed, &latencies);
        Ok(costs(round, bytes, cpu, counts, requests))
    }
}

/// What a measurement took, per byte that was read.
fn costs(round: Round, bytes: u64, cpu: f64, counts: Counts, requests: Option<u64>) -> Side {
    let per_mib = |count: u64| count as f64 / (bytes as f64 / f64::from(1 << 20));
    Side {
        round,
        cpu_seconds_per_gb: cpu / (bytes as f64 / 1e9),
        allocated_bytes_per_byte: counts.allocated_bytes as f64 / bytes as f64,
        allocations_per_mib: per_mib(counts.allocations),
        ring_entries_per_mib: per_mib(counts.ring_entries),
        device_reads_per_mib: requests.map(per_mib),
    }
}

/// Files of the log that is drained: the only one there is anything in.
fn segments(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let said = |error: std::io::Error| format!("{}: {error}", dir.display());
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(said)? {
            let entry = entry.map_err(said)?;
            let (path, about) = (entry.path(), entry.metadata().map_err(said)?);
            if about.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|it| it == "log") && about.len() > 0 {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn case((&size_bytes, sides): (&usize, [Vec<Side>; 4])) -> Case {
    let [engine, device, device_pieces, hot] = sides;
    let speeds = |sides: &[Side]| -> Vec<f64> {
        let speed = |side: &Side| side.round.bytes_per_second;
        sides.iter().map(speed).collect()
    };
    let ours = speeds(&engine);
    Case {
        size_bytes,
        device_ratio: Spread::of_ratios(&ours, &speeds(&device)),
        pieces_ratio: Spread::of_ratios(&ours, &speeds(&device_pieces)),
        engine,
        device,
        device_pieces,
        hot,
    }
}

fn print_side(round: usize, size: usize, turn: Turn, side: &Side) {
    println!(
        "round {} {size:>8} B {:<14} {:>9.1} MB/s  p50 {:>6} us  p99 {:>6} us",
        round + 1,
        turn.name(),
        side.round.bytes_per_second / 1e6,
        side.round.latency.p50_us,
        side.round.latency.p99_us,
    );
}

fn print_summary(plan: &Plan, found: &Found) {
    println!("median (from, to) over {} rounds:", plan.rounds);
    for case in &found.cases {
        println!(
            "{:>8} B: device ratio {:.2}, to its pieces {:.2}",
            case.size_bytes, case.device_ratio, case.pieces_ratio
        );
        print_costs(Turn::Engine, &case.engine);
        print_costs(Turn::Device, &case.device);
        print_costs(Turn::DevicePieces, &case.device_pieces);
        print_costs(Turn::Hot, &case.hot);
    }
}

fn print_costs(turn: Turn, sides: &[Side]) {
    let median = |of: fn(&Side) -> f64| Spread::of(sides.iter().map(of)).median;
    println!(
        "           {:<14} {:>9.1} MB/s {:>9.0} reads/s, CPU {:.3} s/GB, {:.2} B allocated a byte; per MiB: {:.1} allocations, {:.1} ring entries, {:.1} device reads",
        turn.name(),
        median(|side| side.round.bytes_per_second) / 1e6,
        median(|side| side.round.operations_per_second),
        median(|side| side.cpu_seconds_per_gb),
        median(|side| side.allocated_bytes_per_byte),
        median(|side| side.allocations_per_mib),
        median(|side| side.ring_entries_per_mib),
        median(|side| side.device_reads_per_mib.unwrap_or(f64::NAN)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_per_byte_that_was_read() {
        let bytes = 4 << 20;
        let round = Round::new(bytes, Duration::from_secs(1), &Latencies::new());
        let counts = Counts {
            allocations: 8,
            allocated_bytes: 6 << 20,
            ring_entries: 2,
            syscalls: None,
        };
        let side = costs(round, bytes, 1.0, counts, Some(16));
        assert_eq!(side.allocated_bytes_per_byte, 1.5);
        assert_eq!(side.allocations_per_mib, 2.0);
        assert_eq!(side.ring_entries_per_mib, 0.5);
        assert_eq!(side.device_reads_per_mib, Some(4.0));
        assert!((side.cpu_seconds_per_gb - 238.4).abs() < 0.1);
        assert_eq!(
            costs(round, bytes, 1.0, counts, None).device_reads_per_mib,
            None
        );
    }
}
