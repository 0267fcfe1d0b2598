//! `storage read`: one reader that drains a log from the disk, next to the same files read without the engine, and reads from memory.
//!
//! The engine writes the log, ends, and starts again, so that it has nothing of it in memory. The files are read raw in two ways: in pieces of
//! the size that the reader asks for, and in the pieces that the engine reads, whatever the reader asks for. Neither knows a page cache.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use forebay_engine::{
    Engine, Log, LogConfig, Offset,
    log::ReadLimit,
    rt::{Class, Instant, Rt, local::Notify},
};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    append::{
        DurabilityArg, Round, cpu_seconds, engine_config, micros, on_one_shard, open_log,
        wake_writers,
    },
    backlog,
    counters::{Counters, device_reads},
    device::{self, Files},
    folder::{BASE_BYTES, Folder},
};
use crate::{
    environment::Environment,
    result::{self, SCHEMA_VERSION, Spread},
};

const SEGMENT_BYTES: u64 = 256 << 20;

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
    /// Directory on the disk to measure; a folder of our own is made in it and removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Where to write result.json
    #[arg(long)]
    #[serde(skip)]
    out: Option<PathBuf>,
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
struct Outcome {
    schema_version: u32,
    command: &'static str,
    environment: Environment,
    cases: Vec<Case>,
    plan: Plan,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let mut plan = plan.clone();
    if plan.quick {
        (plan.rounds, plan.seconds, plan.backlog_mib) = (2, 1, 512);
    }
    check(&plan)?;
    let folder = Folder::create(&plan.dir, BASE_BYTES + (plan.backlog_mib << 20))?;
    let (plan_of_shard, dir) = (plan.clone(), folder.0.clone());
    on_one_shard(move |rt| write_log(rt, plan_of_shard, dir))?;
    let (plan_of_shard, dir) = (plan.clone(), folder.0.clone());
    let cases = on_one_shard(move |rt| all_rounds(rt, plan_of_shard, dir))?;
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        command: "storage read",
        environment: Environment::capture(&plan.dir),
        cases,
        plan,
    };
    print_summary(&outcome);
    if let Some(out) = &outcome.plan.out {
        result::write(out, &outcome).map_err(|error| format!("{}: {error}", out.display()))?;
        println!("written: {}", out.join("result.json").display());
    }
    Ok(())
}

fn check(plan: &Plan) -> Result<(), String> {
    if plan.depth == 0 || plan.rounds == 0 || plan.seconds == 0 || plan.sizes.is_empty() {
        return Err("sizes, depth, rounds and seconds must be at least 1".to_string());
    }
    let mut sizes = plan.sizes.iter().chain([&plan.piece_bytes]);
    if !sizes.all(|size| (4096..=16 << 20).contains(size) && size.is_multiple_of(4096)) {
        return Err(
            "--sizes and --piece-bytes must be multiples of 4096, up to 16 MiB".to_string(),
        );
    }
    if !(256..=1 << 20).contains(&plan.batch_bytes) {
        return Err("--batch-bytes must be between 256 and 1048576".to_string());
    }
    if plan.backlog_mib < SEGMENT_BYTES >> 20 {
        return Err(format!(
            "--backlog-mib must be at least {}",
            SEGMENT_BYTES >> 20
        ));
    }
    Ok(())
}

/// The engine with the log that is drained and one that stays in memory.
struct Subject {
    rt: Rt,
    engine: Engine,
    cold: Log,
    hot: Log,
}

impl Subject {
    async fn open(rt: &Rt, dir: &Path) -> Result<Subject, String> {
        let config = engine_config(dir.to_path_buf(), 256 << 10, 128 << 20);
        let engine = Engine::open(rt.clone(), config).await;
        let engine = engine.map_err(|error| error.to_string())?;
        let mut logs = Vec::new();
        for partition in 0..2 {
            let log = open_log(&engine, DurabilityArg::Persisted, partition).await?;
            log.configure(LogConfig {
                segment_bytes: SEGMENT_BYTES,
                ..log.config()
            });
            logs.push(log);
        }
        let recovered = engine.sync_recovered().await;
        recovered.map_err(|fault| fault.to_string())?;
        let started = engine.start_journal().await;
        started.map_err(|fault| fault.to_string())?;
        let (Some(hot), Some(cold)) = (logs.pop(), logs.pop()) else {
            unreachable!("two logs were opened");
        };
        Ok(Subject {
            rt: rt.clone(),
            engine,
            cold,
            hot,
        })
    }

    async fn fill(&self, log: &Log, batch_bytes: usize, bytes: u64) -> Result<(), String> {
        let notify = Notify::new();
        let moved = HashMap::from([(log.id(), notify.clone())]);
        let waking = wake_writers(self.engine.clone(), Rc::new(RefCell::new(moved)));
        let waker = self.rt.spawn(Class::Foreground, waking);
        let (rt, engine) = (&self.rt, &self.engine);
        let filled = backlog::fill(rt, engine, log, &notify, batch_bytes, bytes).await;
        waker.cancel().await;
        filled
    }

    async fn close(self) -> Result<(), String> {
        let Subject { engine, .. } = self;
        engine.close().await.map_err(|fault| fault.to_string())
    }

    /// One reader from the log's start to its end, and again, each read waiting for the one before it.
    async fn drain(&self, size: usize, ends: Instant) -> Result<(u64, Histogram<u64>), String> {
        let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
        let marks = self.cold.marks();
        let (mut from, mut bytes) = (marks.log_start, 0);
        while self.rt.now() < ends {
            let began = self.rt.now();
            let fetched = self.cold.read(from, limit(marks.log_end, size)).await;
            let fetched = fetched.map_err(|error| error.to_string())?;
            latency
                .record(micros(self.rt.now().since(began)))
                .expect("a resizing histogram takes any value");
            bytes += fetched.bytes as u64;
            let next = fetched.next.filter(|next| *next < marks.log_end);
            from = next.unwrap_or(marks.log_start);
        }
        Ok((bytes, latency))
    }

    /// The same from memory. Nothing is waited for, so a read's latency is the mean of many.
    async fn read_hot(&self, size: usize, ends: Instant) -> Result<(u64, Histogram<u64>), String> {
        let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
        let marks = self.hot.marks();
        let cold_before = self.engine.stats().cold_reads;
        let (mut from, mut bytes) = (marks.log_start, 0);
        while self.rt.now() < ends {
            let began = self.rt.now();
            for _ in 0..HOT_READS {
                let fetched = self.hot.read(from, limit(marks.log_end, size)).await;
                let fetched = fetched.map_err(|error| error.to_string())?;
                bytes += fetched.bytes as u64;
                let next = fetched.next.filter(|next| *next < marks.log_end);
                from = next.unwrap_or(marks.log_start);
            }
            latency
                .record_n(micros(self.rt.now().since(began)) / HOT_READS, HOT_READS)
                .expect("a resizing histogram takes any value");
            self.rt.yield_now().await;
        }
        match self.engine.stats().cold_reads - cold_before {
            0 => Ok((bytes, latency)),
            cold => Err(format!("{cold} reads that should come from memory did not")),
        }
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
    let subject = Subject::open(&rt, &dir).await?;
    let bytes = plan.backlog_mib << 20;
    subject.fill(&subject.cold, plan.batch_bytes, bytes).await?;
    subject.close().await
}

async fn all_rounds(rt: Rt, plan: Plan, dir: PathBuf) -> Result<Vec<Case>, String> {
    let subject = Subject::open(&rt, &dir).await?;
    let files = Arc::new(Files::open(&segments(&dir)?)?);
    println!(
        "log of {:.0} MiB in batches of {} B; raw reads {} in flight",
        files.total_bytes() as f64 / f64::from(1 << 20),
        plan.batch_bytes,
        plan.depth
    );
    subject
        .fill(&subject.hot, plan.batch_bytes, HOT_BYTES)
        .await?;
    let bench = Bench {
        rt: &rt,
        subject: &subject,
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
    subject.close().await?;
    Ok(plan.sizes.iter().zip(measured).map(case).collect())
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Engine,
    Device,
    DevicePieces,
    Hot,
}

const TURNS: [Turn; 4] = [Turn::Engine, Turn::Device, Turn::DevicePieces, Turn::Hot];

struct Bench<'a> {
    rt: &'a Rt,
    subject: &'a Subject,
    files: &'a Arc<Files>,
    dir: &'a Path,
    plan: &'a Plan,
}

impl Bench<'_> {
    /// On the engine's core.
    async fn read_raw(
        &self,
        size: usize,
        duration: Duration,
    ) -> Result<(u64, Histogram<u64>), String> {
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
        let (bytes, latency) = match turn {
            Turn::Engine => self.subject.drain(size, ends).await?,
            Turn::Hot => self.subject.read_hot(size, ends).await?,
            Turn::Device => self.read_raw(size, duration).await?,
            Turn::DevicePieces => self.read_raw(self.plan.piece_bytes, duration).await?,
        };
        let elapsed = rt.now().since(began);
        let (counts, cpu) = (counters.read(), cpu_seconds() - cpu_before);
        let requests = device_reads(self.dir).zip(requests_before);
        let per_mib = |count: u64| count as f64 / (bytes as f64 / f64::from(1 << 20));
        Ok(Side {
            round: Round::new(bytes, elapsed, &latency),
            cpu_seconds_per_gb: cpu / (bytes as f64 / 1e9),
            allocated_bytes_per_byte: counts.allocated_bytes as f64 / bytes as f64,
            allocations_per_mib: per_mib(counts.allocations),
            ring_entries_per_mib: per_mib(counts.ring_entries),
            device_reads_per_mib: requests.map(|(after, before)| per_mib(after - before)),
        })
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
    let ratio_to = |theirs: &[Side]| {
        let ratio = |(ours, theirs): (&Side, &Side)| {
            ours.round.bytes_per_second / theirs.round.bytes_per_second
        };
        Spread::of(engine.iter().zip(theirs).map(ratio))
    };
    Case {
        size_bytes,
        device_ratio: ratio_to(&device),
        pieces_ratio: ratio_to(&device_pieces),
        engine,
        device,
        device_pieces,
        hot,
    }
}

fn print_side(round: usize, size: usize, turn: Turn, side: &Side) {
    let name = match turn {
        Turn::Engine => "engine",
        Turn::Device => "device",
        Turn::DevicePieces => "device, pieces",
        Turn::Hot => "from memory",
    };
    println!(
        "round {} {size:>8} B {name:<14} {:>9.1} MB/s  p50 {:>6} us  p99 {:>6} us",
        round + 1,
        side.round.bytes_per_second / 1e6,
        side.round.latency.p50_us,
        side.round.latency.p99_us,
    );
}

fn print_summary(outcome: &Outcome) {
    println!("median (from, to) over {} rounds:", outcome.plan.rounds);
    for case in &outcome.cases {
        let (same, pieces) = (case.device_ratio, case.pieces_ratio);
        println!(
            "{:>8} B: device ratio {:.2} ({:.2} to {:.2}), to its pieces {:.2} ({:.2} to {:.2})",
            case.size_bytes, same.median, same.min, same.max, pieces.median, pieces.min, pieces.max,
        );
        for (name, sides) in [
            ("engine", &case.engine),
            ("device", &case.device),
            ("device, pieces", &case.device_pieces),
            ("from memory", &case.hot),
        ] {
            let median = |of: fn(&Side) -> f64| Spread::of(sides.iter().map(of)).median;
            println!(
                "           {name:<14} {:>9.1} MB/s {:>9.0} reads/s, CPU {:.3} s/GB, {:.2} B allocated a byte; per MiB: {:.1} allocations, {:.1} ring entries, {:.1} device reads",
                median(|side| side.round.bytes_per_second) / 1e6,
                median(|side| side.round.operations_per_second),
                median(|side| side.cpu_seconds_per_gb),
                median(|side| side.allocated_bytes_per_byte),
                median(|side| side.allocations_per_mib),
                median(|side| side.ring_entries_per_mib),
                median(|side| side.device_reads_per_mib.unwrap_or(f64::NAN)),
            );
        }
    }
}
