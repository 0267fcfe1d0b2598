//! `storage fan-in`: one writer per partition, each waiting for its small batch to be durable, against the same with a file per partition
//! that is synced by itself, as brokers without a journal do it, and against two raw loops of durable writes, each one write at a time over blocks
//! written before: of a block, and of as much as all writers have waiting together.

use std::{fs, path::PathBuf, rc::Rc, time::Duration};

use clap::Args;
use forebay_engine::rt::{
    Class, Rt,
    buf::ALIGNMENT,
    file::{File, OpenMode},
};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    append::{self, Round, micros, on_one_shard},
    device,
    folder::{BASE_BYTES, Folder},
};
use crate::{
    environment::Environment,
    result::{self, SCHEMA_VERSION, Spread},
};

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Numbers of partitions to measure with, one writer each
    #[arg(long, value_delimiter = ',', default_value = "16,100,1000")]
    partitions: Vec<u32>,
    /// Bytes of one record batch
    #[arg(long, default_value_t = 1024)]
    size_bytes: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds; both sides take turns within each
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Ends within a minute: two rounds of two seconds
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

/// All rounds with one number of partitions.
#[derive(Debug, Serialize)]
struct Case {
    partitions: u32,
    engine: Vec<Round>,
    /// Durable writes of the engine per second, journal and bypass.
    engine_commits_per_second: Spread,
    sync_per_file: Vec<Round>,
    /// A durable block after the other.
    raw_block: Vec<Round>,
    /// A durable write of what all writers have waiting after the other: each counts as so many batches.
    raw_gathered: Vec<Round>,
    /// Batches per second with the engine over those with a sync per file, round by round.
    gain: Spread,
    /// Engine commits per second over raw blocks per second.
    commits_to_raw: Spread,
    /// Batches per second with the engine over those of raw gathered writes.
    batches_to_raw: Spread,
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
        (plan.rounds, plan.seconds) = (2, 2);
    }
    if plan.partitions.is_empty() || plan.partitions.contains(&0) {
        return Err("--partitions must be at least 1".to_string());
    }
    if plan.rounds == 0 || plan.seconds == 0 {
        return Err("rounds and seconds must be at least 1".to_string());
    }
    if !(256..=1 << 20).contains(&plan.size_bytes) {
        return Err("--size-bytes must be between 256 and 1048576".to_string());
    }
    let folder = Folder::create(&plan.dir, BASE_BYTES)?;
    let mut cases = Vec::new();
    for &partitions in &plan.partitions {
        cases.push(case(&plan, partitions, &folder)?);
    }
    let outcome = Outcome {
        schema_version: SCHEMA_VERSION,
        command: "storage fan-in",
        environment: Environment::capture(&plan.dir),
        cases,
        plan,
    };
    if let Some(out) = &outcome.plan.out {
        result::write(out, &outcome).map_err(|error| format!("{}: {error}", out.display()))?;
        println!("written: {}", out.join("result.json").display());
    }
    Ok(())
}

fn case(plan: &Plan, partitions: u32, folder: &Folder) -> Result<Case, String> {
    let duration = Duration::from_secs(plan.seconds);
    let (mut engine, mut commits) = (Vec::new(), Vec::new());
    let (mut sync_per_file, mut raw_block, mut raw_gathered) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let dir = folder.0.join(format!("{partitions}-{round}"));
        let said = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(said)?;
        let (of_round, dir_of_engine) = (
            append::Plan::one_writer_each(partitions, plan.size_bytes),
            dir.clone(),
        );
        let side = on_one_shard(move |rt| append::append(rt, of_round, dir_of_engine, duration))?;
        let durable_writes = side.stats.journal_commits + side.stats.bypass_writes;
        engine.push(side.round);
        commits.push(durable_writes as f64 / plan.seconds as f64);
        let (dir_of_files, size) = (dir.clone(), plan.size_bytes);
        sync_per_file.push(on_one_shard(move |rt| async move {
            write_files(&rt, dir_of_files, partitions, size, duration).await
        })?);
        let raw = |size: usize| {
            let dir = dir.clone();
            let write =
                move |rt: Rt| async move { device::write(&rt, dir, size, 1, duration).await };
            let measured = on_one_shard(write);
            fs::remove_file(folder.0.join(format!("{partitions}-{round}/device"))).map_err(said)?;
            measured
        };
        raw_block.push(raw(ALIGNMENT)?);
        raw_gathered.push(raw(plan.size_bytes * partitions as usize)?);
        fs::remove_dir_all(&dir).map_err(said)?;
        print_side(partitions, round, "engine", &engine);
        print_side(partitions, round, "sync per file", &sync_per_file);
        print_side(partitions, round, "raw block", &raw_block);
        print_side(partitions, round, "raw gathered", &raw_gathered);
    }
    let rate = |round: &Round| round.operations_per_second;
    let to = |ours: &[f64], theirs: &[Round]| {
        Spread::of(
            ours.iter()
                .zip(theirs)
                .map(|(ours, theirs)| ours / rate(theirs)),
        )
    };
    let batches: Vec<f64> = engine.iter().map(rate).collect();
    let of_a_writer: Vec<f64> = batches
        .iter()
        .map(|all| all / f64::from(partitions))
        .collect();
    let case = Case {
        partitions,
        engine_commits_per_second: Spread::of(commits.iter().copied()),
        gain: to(&batches, &sync_per_file),
        commits_to_raw: to(&commits, &raw_block),
        batches_to_raw: to(&of_a_writer, &raw_gathered),
        engine,
        sync_per_file,
        raw_block,
        raw_gathered,
    };
    print_case(&case);
    Ok(case)
}

fn print_case(case: &Case) {
    let said = |spread: Spread, digits: usize| {
        let Spread { median, min, max } = spread;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    };
    let rates = |rounds: &[Round]| Spread::of(rounds.iter().map(|r| r.operations_per_second));
    println!(
        "{} partitions: {} batches/s in {} commits/s, sync per file {}, gain {}",
        case.partitions,
        said(rates(&case.engine), 0),
        said(case.engine_commits_per_second, 0),
        said(rates(&case.sync_per_file), 0),
        said(case.gain, 1),
    );
    println!(
        "  raw blocks {} a second, commits to them {}; raw gathered {} a second, batches to them {}",
        said(rates(&case.raw_block), 0),
        said(case.commits_to_raw, 2),
        said(rates(&case.raw_gathered), 0),
        said(case.batches_to_raw, 2),
    );
}

/// A file per partition, and a writer each: writes the blocks of a batch behind the last one, and syncs the file.
async fn write_files(
    rt: &Rt,
    dir: PathBuf,
    files: u32,
    size: usize,
    duration: Duration,
) -> Result<Round, String> {
    let mut opened = Vec::new();
    for number in 0..files {
        let path = dir.join(format!("file-{number}"));
        let file = rt.open(&path, OpenMode::Create).await;
        opened.push(file.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let block = size.next_multiple_of(ALIGNMENT);
    let started = rt.now();
    let ends = started.plus(duration);
    let writers: Vec<_> = opened
        .into_iter()
        .map(|file| {
            let of_task = rt.clone();
            let write = async move { write_file(&of_task, Rc::new(file), block, ends).await };
            rt.spawn(Class::Foreground, write)
        })
        .collect();
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    for writer in writers {
        latency += writer.await.map_err(|error| error.to_string())?;
    }
    let elapsed = rt.now().since(started);
    Ok(Round::new(latency.len() * size as u64, elapsed, &latency))
}

async fn write_file(
    rt: &Rt,
    file: Rc<File>,
    block: usize,
    ends: forebay_engine::rt::Instant,
) -> std::io::Result<Histogram<u64>> {
    let mut latency = Histogram::<u64>::new(3).expect("three digits are allowed");
    let mut position = 0;
    while rt.now() < ends {
        let began = rt.now();
        file.write_at(rt.alloc(block), position).await?;
        file.sync().await?;
        position += block as u64;
        latency
            .record(micros(rt.now().since(began)))
            .expect("a resizing histogram takes any value");
    }
    Ok(latency)
}

fn print_side(partitions: u32, round: u32, name: &str, rounds: &[Round]) {
    if let Some(last) = rounds.last() {
        println!(
            "{partitions:>6} partitions  round {} {name:<14} {:>9.0} batches/s  p50 {:>7} us  p99 {:>7} us",
            round + 1,
            last.operations_per_second,
            last.latency.p50_us,
            last.latency.p99_us,
        );
    }
}
