//! `storage mixed`: what draining a backlog and deleting old segments do to the latency of durable appends.
//!
//! Batches arrive on a fixed plan, whatever the engine does, and latency counts from the planned time: a stall is seen by every
//! batch that should have arrived in it. The same plan runs alone, beside a reader that drains a backlog from the disk as fast as it
//! can, beside retention that deletes as much as comes in, and beside both. The raw disk does the same with and without reads.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use clap::Args;
use forebay_engine::{
    Engine, Log, LogConfig, LogId, Offset,
    log::ReadLimit,
    rt::{Class, File, Instant, OpenMode, Rt, buf::ALIGNMENT, local::Notify},
};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    append::{
        DurabilityArg, append_one, batch_of, engine_config, micros, on_one_shard, open_log,
        wait_for_room, wake_writers,
    },
    backlog,
    folder::{BASE_BYTES, Folder},
};
use crate::{
    environment::Environment,
    result::{self, Latency, SCHEMA_VERSION, Spread},
};

/// Arrivals that may wait at the same time. Beyond that the plan asks for more than the disk gives, and the run is invalid.
const WAITING_MAX: usize = 4096;

/// Bytes that the reader asks for at a time, as a consumer does.
const FETCH_BYTES: usize = 1 << 20;

/// What each log keeps while retention deletes, in segments.
const SEGMENTS_KEPT: u64 = 2;

const BACKLOG_SEGMENT_BYTES: u64 = 64 << 20;

const SETTLE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Bytes of one record batch
    #[arg(long, default_value_t = 65_536)]
    size_bytes: usize,
    /// Batches that arrive each second, at even distances
    #[arg(long, default_value_t = 1000)]
    batches_per_sec: u64,
    /// Partitions that the batches go to in turn
    #[arg(long, default_value_t = 4)]
    partitions: u32,
    /// Backlog that is drained, in another log; what is read once is read again
    #[arg(long, default_value_t = 2048)]
    backlog_mib: u64,
    /// Readers that drain it, each from a place of its own
    #[arg(long, default_value_t = 1)]
    readers: u32,
    /// Segments of the partitions that are appended to: what retention deletes at a time
    #[arg(long, default_value_t = 8)]
    segment_mib: u64,
    /// Seconds of each phase
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the phases take turns within each, and the first one moves on
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within 30 seconds: two rounds of one second and a small backlog
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Alone,
    Drain,
    Retention,
    Both,
    DeviceAlone,
    DeviceDrain,
}

const PHASES: [Phase; 6] = [
    Phase::Alone,
    Phase::Drain,
    Phase::Retention,
    Phase::Both,
    Phase::DeviceAlone,
    Phase::DeviceDrain,
];

impl Phase {
    fn drains(self) -> bool {
        matches!(self, Phase::Drain | Phase::Both | Phase::DeviceDrain)
    }

    fn deletes(self) -> bool {
        matches!(self, Phase::Retention | Phase::Both)
    }

    /// What it is compared with.
    fn baseline(self) -> Phase {
        match self {
            Phase::DeviceAlone | Phase::DeviceDrain => Phase::DeviceAlone,
            _ => Phase::Alone,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Phase::Alone => "alone",
            Phase::Drain => "drain",
            Phase::Retention => "retention",
            Phase::Both => "both",
            Phase::DeviceAlone => "device alone",
            Phase::DeviceDrain => "device drain",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Measured {
    phase: Phase,
    /// From the planned arrival.
    latency: Latency,
    batches: u64,
    /// The plan could not be kept: too many were waiting.
    overrun: bool,
    read_bytes_per_second: f64,
    segments_deleted: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    phase: Phase,
    p50_us: Spread,
    p99_us: Spread,
    /// p99 over the p99 of the same round without anything beside it.
    p99_ratio: Spread,
    read_bytes_per_second: Spread,
    segments_deleted: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    schema_version: u32,
    command: &'static str,
    environment: Environment,
    valid: bool,
    phases: Vec<Summary>,
    rounds: Vec<Vec<Measured>>,
    plan: Plan,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let mut plan = plan.clone();
    if plan.quick {
        (plan.rounds, plan.seconds, plan.backlog_mib) = (2, 1, 512);
    }
    if plan.partitions == 0 || plan.rounds == 0 || plan.seconds == 0 || plan.batches_per_sec == 0 {
        return Err("partitions, rounds, seconds and batches-per-sec must be at least 1".into());
    }
    if !(256..=16 << 20).contains(&plan.size_bytes) || plan.segment_mib == 0 {
        return Err(
            "--size-bytes must be between 256 and 16777216, --segment-mib at least 1".into(),
        );
    }
    if plan.backlog_mib < (4 * BACKLOG_SEGMENT_BYTES) >> 20 {
        return Err("--backlog-mib must be at least 256: more than the tail holds".into());
    }
    let of_phase = plan.batches_per_sec * plan.seconds * plan.size_bytes as u64;
    let planned_bytes = BASE_BYTES + (plan.backlog_mib << 20) + of_phase;
    let folder = Folder::create(&plan.dir, planned_bytes)?;
    let dir = folder.0.join("engine");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    println!(
        "{} B batches, {} a second on {} partitions, persisted; backlog {} MiB, {} readers",
        plan.size_bytes, plan.batches_per_sec, plan.partitions, plan.backlog_mib, plan.readers
    );
    let plan_of_shard = plan.clone();
    let rounds = on_one_shard(move |rt| all_rounds(rt, plan_of_shard, dir))?;
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        command: "storage mixed",
        environment: Environment::capture(&plan.dir),
        valid: !rounds.iter().flatten().any(|measured| measured.overrun),
        phases: PHASES.map(|phase| summary(phase, &rounds)).to_vec(),
        rounds,
        plan,
    };
    print_summary(&outcome);
    if let Some(out) = &outcome.plan.out {
        result::write(out, &outcome).map_err(|error| format!("{}: {error}", out.display()))?;
        println!("written: {}", out.join("result.json").display());
    }
    match outcome.valid {
        true => Ok(()),
        false => Err(
            "invalid: more batches were planned than the disk takes; lower --batches-per-sec"
                .into(),
        ),
    }
}

/// The engine with all its logs.
struct Subject {
    rt: Rt,
    plan: Plan,
    engine: Engine,
    logs: Vec<Log>,
    moved: Rc<RefCell<HashMap<LogId, Notify>>>,
    backlog: Log,
    dir: PathBuf,
}

async fn all_rounds(rt: Rt, plan: Plan, dir: PathBuf) -> Result<Vec<Vec<Measured>>, String> {
    let subject = Subject::open(rt, plan, dir).await?;
    let waking = wake_writers(subject.engine.clone(), subject.moved.clone());
    let waker = subject.rt.spawn(Class::Foreground, waking);
    subject.fill_backlog().await?;
    // Memory is touched for the first time, and files grow into their first blocks.
    subject.measure(Phase::Alone).await?;
    let mut rounds = Vec::new();
    for round in 0..subject.plan.rounds as usize {
        let mut of_round = Vec::new();
        for step in 0..PHASES.len() {
            let phase = PHASES[(round + step) % PHASES.len()];
            let measured = subject.measure(phase).await?;
            print_measured(round, &measured);
            of_round.push(measured);
            subject.forget_what_was_written().await?;
        }
        rounds.push(of_round);
    }
    waker.cancel().await;
    let Subject { engine, .. } = subject;
    engine.close().await.map_err(|fault| fault.to_string())?;
    Ok(rounds)
}

impl Subject {
    async fn open(rt: Rt, plan: Plan, dir: PathBuf) -> Result<Subject, String> {
        let mut config = engine_config(dir.clone(), 256 << 10, 128 << 20);
        config.retention_check_interval_ms = 100;
        let opened = Engine::open(rt.clone(), config).await;
        let engine = opened.map_err(|error| error.to_string())?;
        let mut logs = Vec::new();
        for partition in 0..=plan.partitions {
            let log = open_log(&engine, DurabilityArg::Persisted, partition).await?;
            log.configure(LogConfig {
                segment_bytes: match partition < plan.partitions {
                    true => plan.segment_mib << 20,
                    false => BACKLOG_SEGMENT_BYTES,
                },
                file_delete_delay_ms: 0,
                ..log.config()
            });
            logs.push(log);
        }
        let recovered = engine.sync_recovered().await;
        recovered.map_err(|fault| fault.to_string())?;
        let started = engine.start_journal().await;
        started.map_err(|fault| fault.to_string())?;
        let notify_of = |log: &Log| (log.id(), Notify::new());
        let moved = Rc::new(RefCell::new(logs.iter().map(notify_of).collect()));
        let backlog = logs.pop().expect("one more than the plan's partitions");
        Ok(Subject {
            rt,
            plan,
            engine,
            logs,
            moved,
            backlog,
            dir,
        })
    }

    async fn fill_backlog(&self) -> Result<(), String> {
        let notify = self.moved.borrow()[&self.backlog.id()].clone();
        let bytes = self.plan.backlog_mib << 20;
        let (rt, engine) = (&self.rt, &self.engine);
        backlog::fill(rt, engine, &self.backlog, &notify, 256 << 10, bytes).await
    }

    /// What one phase wrote must not be what the next one pays for.
    async fn forget_what_was_written(&self) -> Result<(), String> {
        for log in &self.logs {
            let config = LogConfig {
                retention_bytes: None,
                ..log.config()
            };
            log.configure(config);
            let end = log.marks().log_end;
            log.delete_to(end)
                .await
                .map_err(|fault| fault.to_string())?;
        }
        self.rt.sleep(SETTLE).await;
        Ok(())
    }

    async fn measure(&self, phase: Phase) -> Result<Measured, String> {
        if phase.deletes() {
            for log in &self.logs {
                log.configure(LogConfig {
                    retention_bytes: Some((SEGMENTS_KEPT * self.plan.segment_mib) << 20),
                    ..log.config()
                });
            }
        }
        let device = match phase.baseline() {
            Phase::DeviceAlone => Some(Rc::new(Device::prepare(self).await?)),
            _ => None,
        };
        let before = self.engine.stats().segments_deleted;
        let read_bytes = Rc::new(Cell::new(0_u64));
        let mut readers = Vec::new();
        for number in 0..if phase.drains() { self.plan.readers } else { 0 } {
            let reading = match &device {
                None => self
                    .rt
                    .spawn(Class::Foreground, self.drain(number, read_bytes.clone())),
                Some(device) => {
                    let reading = device.clone().drain(number, read_bytes.clone());
                    self.rt.spawn(Class::Foreground, reading)
                }
            };
            readers.push(reading);
        }
        let started = self.rt.now();
        let (latency, overrun) = self.arrivals(device.clone()).await?;
        let seconds = self.rt.now().since(started).as_secs_f64();
        for reader in readers {
            reader.cancel().await;
        }
        if let Some(device) = device {
            device.remove()?;
        }
        Ok(Measured {
            phase,
            latency: Latency::of(&latency),
            batches: latency.len(),
            overrun,
            read_bytes_per_second: read_bytes.get() as f64 / seconds,
            segments_deleted: self.engine.stats().segments_deleted - before,
        })
    }

    /// Every batch at its planned time, for the seconds of a phase.
    async fn arrivals(&self, device: Option<Rc<Device>>) -> Result<(Histogram<u64>, bool), String> {
        let histogram = Histogram::<u64>::new(3).expect("three digits are allowed");
        let latency = Rc::new(RefCell::new(histogram));
        let (waiting, failed) = (Rc::new(Cell::new(0_usize)), Rc::new(RefCell::new(None)));
        let template = Rc::new(batch_of(self.plan.size_bytes, self.rt.wall_clock()));
        let batches = self.plan.batches_per_sec * self.plan.seconds;
        let began = self.rt.now();
        let mut overrun = false;
        for number in 0..batches {
            let planned = Instant(began.0 + number * 1_000_000_000 / self.plan.batches_per_sec);
            if let early @ 1.. = planned.since(self.rt.now()).as_nanos() {
                self.rt.sleep(Duration::from_nanos(early as u64)).await;
            }
            if waiting.get() >= WAITING_MAX {
                overrun = true;
                break;
            }
            waiting.set(waiting.get() + 1);
            let log = self.logs[(number % self.logs.len() as u64) as usize].clone();
            let notify = self.moved.borrow()[&log.id()].clone();
            let (rt, template, device) = (self.rt.clone(), template.clone(), device.clone());
            let room = self.engine.room();
            let (latency, waiting, failed) = (latency.clone(), waiting.clone(), failed.clone());
            let arrival = async move {
                let done = match device {
                    None => {
                        wait_for_room(&log, &room, template.len()).await;
                        let appended = append_one(&rt, &log, &notify, &template).await;
                        // Retention deletes nothing above it.
                        log.set_high_watermark(log.marks().counted_end);
                        appended
                    }
                    Some(device) => device.write(number, template.len()).await,
                };
                let taken = micros(rt.now().since(planned));
                latency
                    .borrow_mut()
                    .record(taken)
                    .expect("a resizing histogram takes any value");
                waiting.set(waiting.get() - 1);
                if let Err(error) = done {
                    *failed.borrow_mut() = Some(error);
                }
            };
            self.rt.spawn(Class::Foreground, arrival).detach();
        }
        while waiting.get() > 0 {
            self.rt.sleep(Duration::from_millis(1)).await;
        }
        match failed.take() {
            Some(error) => Err(error),
            None => Ok((latency.borrow().clone(), overrun)),
        }
    }

    /// Reads the backlog again and again until it is cancelled.
    fn drain(&self, number: u32, read_bytes: Rc<Cell<u64>>) -> impl Future<Output = ()> + 'static {
        let (log, readers) = (self.backlog.clone(), i64::from(self.plan.readers));
        async move {
            let end = log.marks().log_end;
            let mut from = Offset::new(end.get() * i64::from(number) / readers);
            loop {
                let limit = ReadLimit {
                    below: end,
                    bytes_max: FETCH_BYTES,
                    at_least_one: true,
                };
                let fetched = log.read(from, limit).await;
                let fetched = fetched.expect("the backlog can be read");
                read_bytes.set(read_bytes.get() + fetched.bytes as u64);
                from = fetched
                    .next
                    .filter(|next| *next < end)
                    .unwrap_or(log.marks().log_start);
            }
        }
    }
}

/// The raw disk under the same plan: one file whose blocks were written before, and one to read.
struct Device {
    rt: Rt,
    blocks: File,
    backlog: File,
    paths: [PathBuf; 2],
    file_bytes: u64,
}

impl Device {
    async fn prepare(subject: &Subject) -> Result<Device, String> {
        let rt = subject.rt.clone();
        let paths = ["device-blocks", "device-backlog"].map(|name| subject.dir.join(name));
        let file_bytes = 512 << 20;
        for path in &paths {
            fill(&rt, path, file_bytes)
                .await
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let open = async |path, mode| {
            let file = rt.open(path, mode).await;
            file.map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok(Device {
            blocks: open(&paths[0], OpenMode::ReadWriteDurable).await?,
            backlog: open(&paths[1], OpenMode::Read).await?,
            rt: rt.clone(),
            paths,
            file_bytes,
        })
    }

    async fn write(&self, number: u64, len: usize) -> Result<(), String> {
        let len = len.next_multiple_of(ALIGNMENT);
        let position = number % (self.file_bytes / len as u64) * len as u64;
        let written = self.blocks.write_at(self.rt.alloc(len), position).await;
        written.map_err(|error| error.to_string())
    }

    async fn drain(self: Rc<Self>, number: u32, read_bytes: Rc<Cell<u64>>) {
        let pieces = self.file_bytes / FETCH_BYTES as u64;
        for piece in u64::from(number).. {
            let position = piece % pieces * FETCH_BYTES as u64;
            let read = self.backlog.read_at(position, FETCH_BYTES).await;
            let read = read.expect("what was written can be read");
            read_bytes.set(read_bytes.get() + read.len() as u64);
        }
    }

    fn remove(&self) -> Result<(), String> {
        let removed = self.paths.iter().try_for_each(fs::remove_file);
        removed.map_err(|error| error.to_string())
    }
}

async fn fill(rt: &Rt, path: &Path, bytes: u64) -> io::Result<()> {
    const PIECE_BYTES: usize = 4 << 20;
    let file = rt.open(path, OpenMode::Create).await?;
    for position in (0..bytes).step_by(PIECE_BYTES) {
        file.write_at(rt.alloc(PIECE_BYTES), position).await?;
    }
    file.sync().await?;
    file.close().await
}

fn summary(phase: Phase, rounds: &[Vec<Measured>]) -> Summary {
    let of = |phase: Phase| {
        move |round: &Vec<Measured>| {
            let measured = round.iter().find(|measured| measured.phase == phase);
            *measured.expect("each round has each phase")
        }
    };
    let spread =
        |value: &dyn Fn(Measured) -> f64| Spread::of(rounds.iter().map(of(phase)).map(value));
    let p99 = |measured: Measured| measured.latency.p99_us as f64;
    let (here, baseline) = (of(phase), of(phase.baseline()));
    Summary {
        phase,
        p50_us: spread(&|measured| measured.latency.p50_us as f64),
        p99_us: spread(&p99),
        p99_ratio: Spread::of(
            rounds
                .iter()
                .map(|round| p99(here(round)) / p99(baseline(round))),
        ),
        read_bytes_per_second: spread(&|measured| measured.read_bytes_per_second),
        segments_deleted: spread(&|measured| measured.segments_deleted as f64).median,
    }
}

fn print_measured(round: usize, measured: &Measured) {
    let latency = measured.latency;
    println!(
        "round {} {:<12} p50 {:>6} us  p99 {:>7} us  p99.9 {:>7} us  read {:>7.1} MB/s  {:>4} segments deleted{}",
        round + 1,
        measured.phase.name(),
        latency.p50_us,
        latency.p99_us,
        latency.p999_us,
        measured.read_bytes_per_second / 1e6,
        measured.segments_deleted,
        if measured.overrun { "  OVERRUN" } else { "" },
    );
}

fn print_summary(outcome: &Outcome) {
    println!("median (from, to) over {} rounds:", outcome.plan.rounds);
    for phase in &outcome.phases {
        println!(
            "{:<12} p50 {:>6.0} us  p99 {:>7.0} us  p99 ratio {:.2} ({:.2} to {:.2})  read {:>6.1} MB/s",
            phase.phase.name(),
            phase.p50_us.median,
            phase.p99_us.median,
            phase.p99_ratio.median,
            phase.p99_ratio.min,
            phase.p99_ratio.max,
            phase.read_bytes_per_second.median / 1e6,
        );
    }
}
