//! `storage fan-in`: one writer per partition, each waiting for its small batch to be durable, against the same with a file per partition
//! that is synced by itself, as brokers without a journal do it, and against two raw loops of durable writes, each one write at a time over blocks
//! written before: of a block, and of as much as all writers have waiting together.

use std::{io, path::Path, path::PathBuf, time::Duration};

use clap::Args;
use forebay_engine::rt::{File, Instant, OpenMode, Rt, buf::ALIGNMENT};
use serde::Serialize;

use super::{
    device::{self, Blocks, Content},
    folder::{BASE_BYTES, Folder, Place, remove},
    subject::on_one_shard,
    tasks::{join_all, spawn_all},
    writers::{self, Load},
};
use crate::{
    latency::Latencies,
    limits::{COUNT_MAX, ROUNDS_MAX, SECONDS_MAX, SMALL_BATCH_BYTES, within},
    result::{Round, Spread},
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
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.quick {
            (self.rounds, self.seconds) = (2, 2);
        }
        for partitions in &self.partitions {
            within("--partitions", *partitions, 1..=COUNT_MAX)?;
        }
        within("--size-bytes", self.size_bytes, SMALL_BATCH_BYTES)?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        within("--rounds", self.rounds, 1..=ROUNDS_MAX)?;
        Ok(self)
    }
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
struct Found {
    cases: Vec<Case>,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    let plan = plan.clone().checked()?;
    let folder = plan.place.folder(BASE_BYTES)?;
    let mut cases = Vec::new();
    for &partitions in &plan.partitions {
        let rounds = (0..plan.rounds).map(|number| round(&plan, partitions, number, &folder));
        let case = case(partitions, rounds.collect::<Result<_, _>>()?);
        print_case(&case);
        cases.push(case);
    }
    plan.place.report("storage fan-in", &plan, &Found { cases })
}

/// What each side did in one round.
struct Sides {
    engine: Round,
    engine_commits_per_second: f64,
    sync_per_file: Round,
    raw_block: Round,
    raw_gathered: Round,
}

/// One after the other, in a folder of their own.
fn round(plan: &Plan, partitions: u32, number: u32, folder: &Folder) -> Result<Sides, String> {
    let dir = folder.make(&format!("{partitions}-{number}"))?;
    let load = Load::one_writer_each(partitions, plan.size_bytes, plan.seconds);
    let (duration, dir_of_engine) = (load.duration(), dir.clone());
    let engine = on_one_shard(move |rt| writers::append(rt, load, dir_of_engine))?;
    let durable_writes = engine.stats.journal_commits + engine.stats.bypass_writes;
    let (dir_of_files, size) = (dir.clone(), plan.size_bytes);
    let sync_per_file = on_one_shard(move |rt| async move {
        write_files(&rt, dir_of_files, partitions, size, duration).await
    })?;
    let sides = Sides {
        engine: engine.round,
        engine_commits_per_second: durable_writes as f64 / plan.seconds as f64,
        sync_per_file,
        raw_block: write_raw(&dir, ALIGNMENT, duration)?,
        raw_gathered: write_raw(&dir, size * partitions as usize, duration)?,
    };
    remove(&dir)?;
    let print = |name: &str, round: Round| print_side(partitions, number, name, round);
    print("engine", sides.engine);
    print("sync per file", sides.sync_per_file);
    print("raw block", sides.raw_block);
    print("raw gathered", sides.raw_gathered);
    Ok(sides)
}

/// Durable writes one at a time, into a file that is gone afterwards.
fn write_raw(dir: &Path, size: usize, duration: Duration) -> Result<Round, String> {
    let dir_of_shard = dir.to_path_buf();
    on_one_shard(move |rt| async move {
        let content = Content::noise(size);
        device::write(&rt, dir_of_shard, Blocks::Old, content, 1, duration).await
    })
}

fn case(partitions: u32, sides: Vec<Sides>) -> Case {
    let of = |side: fn(&Sides) -> Round| -> Vec<Round> { sides.iter().map(side).collect() };
    let (engine, sync_per_file) = (of(|it| it.engine), of(|it| it.sync_per_file));
    let (raw_block, raw_gathered) = (of(|it| it.raw_block), of(|it| it.raw_gathered));
    let commits: Vec<f64> = sides
        .iter()
        .map(|it| it.engine_commits_per_second)
        .collect();
    let batches = rates(&engine);
    let of_a_writer: Vec<f64> = batches
        .iter()
        .map(|all| all / f64::from(partitions))
        .collect();
    Case {
        partitions,
        gain: Spread::of_ratios(&batches, &rates(&sync_per_file)),
        commits_to_raw: Spread::of_ratios(&commits, &rates(&raw_block)),
        batches_to_raw: Spread::of_ratios(&of_a_writer, &rates(&raw_gathered)),
        engine_commits_per_second: Spread::of(commits),
        engine,
        sync_per_file,
        raw_block,
        raw_gathered,
    }
}

fn rates(rounds: &[Round]) -> Vec<f64> {
    let rate = |round: &Round| round.operations_per_second;
    rounds.iter().map(rate).collect()
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
    let write = |file| write_file(rt.clone(), file, block, ends);
    let writers = spawn_all(rt, opened.into_iter().map(write));
    let latencies = join_all(writers).await.map_err(|error| error.to_string())?;
    let elapsed = rt.now().since(started);
    let bytes = latencies.count() * size as u64;
    Ok(Round::new(bytes, elapsed, &latencies))
}

async fn write_file(rt: Rt, file: File, block: usize, ends: Instant) -> io::Result<Latencies> {
    let mut latencies = Latencies::new();
    let mut position = 0;
    while rt.now() < ends {
        let began = rt.now();
        file.write_at(rt.alloc(block), position).await?;
        file.sync().await?;
        position += block as u64;
        latencies.record(rt.now().since(began));
    }
    Ok(latencies)
}

fn print_side(partitions: u32, number: u32, name: &str, round: Round) {
    println!(
        "{partitions:>6} partitions  round {} {name:<14} {:>9.0} batches/s  p50 {:>7} us  p99 {:>7} us",
        number + 1,
        round.operations_per_second,
        round.latency.p50_us,
        round.latency.p99_us,
    );
}

fn print_case(case: &Case) {
    let rates = |rounds: &[Round]| Spread::of(rates(rounds));
    println!(
        "{} partitions: {:.0} batches/s in {:.0} commits/s, sync per file {:.0}, gain {:.1}",
        case.partitions,
        rates(&case.engine),
        case.engine_commits_per_second,
        rates(&case.sync_per_file),
        case.gain,
    );
    println!(
        "  raw blocks {:.0} a second, commits to them {:.2}; raw gathered {:.0} a second, batches to them {:.2}",
        rates(&case.raw_block),
        case.commits_to_raw,
        rates(&case.raw_gathered),
        case.batches_to_raw,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gathered_write_counts_as_a_batch_of_every_writer() {
        let at = |operations_per_second| Round {
            operations: 1,
            bytes_per_second: 1.0,
            operations_per_second,
            latency: Latencies::new().percentiles(),
        };
        let sides = Sides {
            engine: at(1_000.0),
            engine_commits_per_second: 20.0,
            sync_per_file: at(250.0),
            raw_block: at(40.0),
            raw_gathered: at(25.0),
        };
        let case = case(100, vec![sides]);
        assert_eq!(case.gain.median, 4.0);
        assert_eq!(case.commits_to_raw.median, 0.5);
        assert_eq!(case.batches_to_raw.median, 0.4);
    }
}
