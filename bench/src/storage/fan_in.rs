//! `storage fan-in`: one writer per partition, each waiting for its small batch to be durable, against the same with a file per partition
//! that is synced by itself, as brokers without a journal do it, and against two raw loops of durable writes, each one write at a time over blocks
//! written before: of a block, and of as much as all writers have waiting together.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use forebay_engine::rt::{File, Instant, OpenMode, Rt, buf::ALIGNMENT};
use serde::Serialize;

use super::{
    device::{self, Blocks, Content},
    folder::{BASE_BYTES, RunOptions, remove},
    measured::{Figure, Measured, Taken, Turns},
    probe::{Broken, Meter, Probe},
    session::Session,
    subject::on_one_shard,
    tasks::{join_all, spawn_all},
    writers::{self, Load},
};
use crate::{
    exit::Exit,
    limits::{COUNT_MAX, SECONDS_MAX, SMALL_BATCH_BYTES, within},
    result::{run::Better, turns::Cost},
    run::Direction,
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
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.run.quick {
            (self.run.rounds, self.seconds) = (2, 1);
            self.partitions.truncate(2);
        }
        for partitions in &self.partitions {
            within("--partitions", *partitions, 1..=COUNT_MAX)?;
        }
        within("--size-bytes", self.size_bytes, SMALL_BATCH_BYTES)?;
        within("--seconds", self.seconds, 1..=SECONDS_MAX)?;
        self.run.check()?;
        Ok(self)
    }
}

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let session = Session::begin(&plan.run, BASE_BYTES)?;
    let ended = all_rounds(&plan, &session);
    session.finish("storage fan-in", &plan, ended, |turns| {
        let figures = plan.partitions.iter().flat_map(|it| figures(turns, *it));
        figures.collect::<Vec<_>>().into()
    })
}

fn all_rounds(plan: &Plan, session: &Session) -> Result<(), Broken> {
    for number in 0..plan.run.rounds {
        for &partitions in &plan.partitions {
            round(plan, partitions, number, session)?;
        }
    }
    Ok(())
}

fn case(partitions: u32) -> String {
    format!("{partitions} partitions")
}

/// One side after the other, in a folder of their own.
fn round(plan: &Plan, partitions: u32, number: u32, session: &Session) -> Result<(), Broken> {
    let dir = session.make(&format!("{partitions}-{number}"))?;
    let took = |side, measured| {
        let taken = Taken::new(number, side, measured).in_case(case(partitions));
        session.probe().took(taken);
    };
    let load = Load::one_writer_each(partitions, plan.size_bytes, plan.seconds);
    let (duration, dir_of_engine, probe) = (load.duration(), dir.clone(), session.probe());
    let engine = on_one_shard(move |rt| writers::append(rt, probe, load, dir_of_engine))?;
    let durable_writes = (engine.stats.journal_commits + engine.stats.bypass_writes) as f64;
    let commits = durable_writes / engine.measured.seconds();
    let cpu = engine.cpu_seconds / engine.measured.operations as f64 * 1e6;
    let costs = vec![
        // Journal and bypass.
        Cost::new("commits_per_second", "commits/s", commits),
        Cost::new("cpu_us_per_batch", "us/batch", cpu),
    ];
    let measured = Measured {
        costs,
        ..engine.measured
    };
    took("engine", measured);
    let (dir_of_files, size, probe) = (dir.clone(), plan.size_bytes, session.probe());
    let files = on_one_shard(move |rt| async move {
        write_files(probe, &rt, dir_of_files, partitions, size, duration).await
    })?;
    took("sync per file", files);
    took("raw block", write_raw(session, &dir, ALIGNMENT, duration)?);
    // Each of its writes has what all writers have waiting.
    let gathered = size * partitions as usize;
    took(
        "raw gathered",
        write_raw(session, &dir, gathered, duration)?,
    );
    Ok(remove(&dir)?)
}

/// Durable writes one at a time, into a file that is gone afterwards.
fn write_raw(
    session: &Session,
    dir: &Path,
    size: usize,
    duration: Duration,
) -> Result<Measured, Broken> {
    let (dir, probe) = (dir.to_path_buf(), session.probe());
    on_one_shard(move |rt| async move {
        let content = Content::noise(size);
        device::write(probe, &rt, dir, Blocks::Old, content, 1, duration).await
    })
}

fn figures(turns: &Turns, partitions: u32) -> Vec<Figure> {
    let case = case(partitions);
    let of = |side: &str, value: &dyn Fn(&Measured) -> Option<f64>| {
        turns.values(Some(&case), side, value)
    };
    let rates = |side: &str| of(side, &|it| Some(it.operations_per_second()));
    let engine = rates("engine");
    let commits = of("engine", &|it| it.cost("commits_per_second"));
    // A gathered write counts as a batch of every writer.
    let gathered = of("raw gathered", &|it| {
        Some(it.operations_per_second() * f64::from(partitions))
    });
    let cpu = of("engine", &|it| it.cost("cpu_us_per_batch"));
    let p99 = of("engine", &|it| Some(it.p99_us()));
    let figures = [
        Figure::ratio(
            "sync_per_file_ratio",
            Better::Higher,
            &engine,
            &rates("sync per file"),
        ),
        Figure::ratio("raw_gathered_ratio", Better::Higher, &engine, &gathered).decides(),
        Figure::ratio(
            "raw_block_ratio",
            Better::Higher,
            &commits,
            &rates("raw block"),
        ),
        Figure::new(
            "batches_per_second",
            "batches/s",
            Better::Higher,
            engine.clone(),
        ),
        Figure::new(
            "commits_per_second",
            "commits/s",
            Better::Higher,
            commits.clone(),
        ),
        Figure::new("latency_p99_us", "us", Better::Lower, p99),
        Figure::new("cpu_us_per_batch", "us/batch", Better::Lower, cpu).decides(),
    ];
    figures.map(|it| it.in_case(Some(&case))).to_vec()
}

/// A file per partition, and a writer each: writes the blocks of a batch behind the last one, and syncs the file.
async fn write_files(
    probe: Probe,
    rt: &Rt,
    dir: PathBuf,
    files: u32,
    size: usize,
    duration: Duration,
) -> Result<Measured, Broken> {
    let mut opened = Vec::new();
    for number in 0..files {
        let path = dir.join(format!("file-{number}"));
        let file = rt.open(&path, OpenMode::Create).await;
        opened.push(file.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let meter = probe.meter(Direction::Produce);
    let ends = rt.now().plus(duration);
    let write = |file| Syncing {
        rt: rt.clone(),
        probe: probe.clone(),
        meter: meter.clone(),
        file,
        size,
        ends,
    };
    let writers = opened.into_iter().map(write).map(Syncing::run);
    join_all(spawn_all(rt, writers)).await?;
    Ok(meter.finish())
}

/// The writer of one file.
struct Syncing {
    rt: Rt,
    probe: Probe,
    meter: Meter,
    file: File,
    size: usize,
    ends: Instant,
}

impl Syncing {
    async fn run(self) -> Result<(), Broken> {
        let block = self.size.next_multiple_of(ALIGNMENT);
        let mut position = 0;
        while self.rt.now() < self.ends {
            self.probe.check()?;
            let began = self.rt.now();
            self.file.write_at(self.rt.alloc(block), position).await?;
            self.file.sync().await?;
            position += block as u64;
            self.meter
                .record(self.rt.now().since(began), self.size as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gathered_write_counts_as_a_batch_of_every_writer() {
        let at = |side, operations, commits| {
            let measured = Measured {
                end: Duration::from_secs(1),
                operations,
                costs: vec![Cost::new("commits_per_second", "commits/s", commits)],
                ..Measured::default()
            };
            Taken::new(0, side, measured).in_case(case(100))
        };
        let turns = Turns(vec![
            at("engine", 1_000, 20.0),
            at("sync per file", 250, 0.0),
            at("raw block", 40, 0.0),
            at("raw gathered", 25, 0.0),
        ]);
        let figures = figures(&turns, 100);
        let check = |name: &str, expected: f64| {
            let figure = figures.iter().filter_map(Figure::result);
            let spread = figure
                .clone()
                .find(|it| it.name == name)
                .map(|it| it.spread);
            assert_eq!(spread.map(|it| it.median), Some(expected), "{name}");
        };
        check("sync_per_file_ratio", 4.0);
        check("raw_block_ratio", 0.5);
        check("raw_gathered_ratio", 0.4);
    }
}
