//! `storage recovery`: how long an engine takes to open after a kill, against what was appended since it last began.
//!
//! A process of its own opens a log, appends so many bytes in durable batches, and kills itself (SIGKILL) as soon as the last of them was
//! acknowledged. Then nothing of the files stays in the page cache, and the engine is opened again, up to the moment at which appends may come.
//! Nothing acknowledged may be missing. Beside it the raw device reads as many bytes as the recovery read, the last of the log in their order.
//!
//! Bytes that were appended since the start are *dirty* here, as far as an end without notice is concerned; the engine's checkpoints keep what has
//! to be read far below them.

use std::{
    fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    time::Duration,
};

use clap::Args;
use forebay_engine::{Engine, Log, rt::Rt};
use rustix::{
    fs::{Advice, fadvise},
    process::{Signal, getpid, kill_process},
};
use serde::Serialize;

use super::{
    backlog,
    counters::{Counters, cpu_seconds},
    device::{self, Files},
    finish::Found,
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
    limits::{SMALL_BATCH_BYTES, mib, within},
    result::{
        run::{Better, Safety},
        turns::Cost,
    },
    run::{Direction, RunClock, Stop},
};

/// What a log is before it gets dirty: enough to tell a part from the whole.
const LOG_MIB_MIN: u64 = 16;

/// How often a process that writes is looked after.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, Args, Serialize)]
pub struct Plan {
    /// Sizes of what is appended before the kill, each measured by itself
    #[arg(long, value_delimiter = ',', default_value = "0,16,64,256")]
    dirty_mib: Vec<u64>,
    /// Size of the log before; it grows by what is appended
    #[arg(long, default_value_t = 1024)]
    log_mib: u64,
    /// Bytes of one record batch
    #[arg(long, default_value_t = 65_536)]
    batch_bytes: usize,
    #[command(flatten)]
    #[serde(flatten)]
    run: RunOptions,
}

impl Plan {
    /// As it is run, if it can be.
    fn checked(mut self) -> Result<Plan, String> {
        if self.run.quick {
            (self.run.rounds, self.log_mib) = (2, 256);
        }
        for dirty in &self.dirty_mib {
            within("--dirty-mib", *dirty, 0..=u64::MAX)?;
        }
        within("--log-mib", self.log_mib, LOG_MIB_MIN..=u64::MAX)?;
        within("--batch-bytes", self.batch_bytes, SMALL_BATCH_BYTES)?;
        self.run.check()?;
        Ok(self)
    }

    /// All that the log grows to.
    fn planned_bytes(&self) -> u64 {
        let dirty = self
            .dirty_mib
            .iter()
            .fold(0_u64, |sum, it| sum.saturating_add(*it));
        let grown = dirty.saturating_mul(u64::from(self.run.rounds));
        BASE_BYTES.saturating_add(mib(self.log_mib.saturating_add(grown)))
    }
}

/// What the process does that is killed; nobody starts it by hand.
#[derive(Clone, Debug, Args)]
pub struct Victim {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    bytes: u64,
    #[arg(long)]
    batch_bytes: usize,
}

/// Appends, says where the log ends, and is gone.
pub fn run_victim(victim: &Victim) -> Result<Exit, String> {
    let victim = victim.clone();
    let gone = on_one_shard(move |rt| async move {
        let (slices, _) = channel();
        let clock = RunClock::starting_in(Duration::ZERO);
        let probe = Probe::new(clock, slices, Stop::new());
        let (engine, log) = open(&rt, &probe, &victim.dir).await?;
        append(
            &rt,
            &probe,
            &engine,
            &log,
            (victim.batch_bytes, victim.bytes),
        )
        .await?;
        println!("{}", log.marks().counted_end.get());
        kill_process(getpid(), Signal::KILL).map_err(std::io::Error::from)?;
        Ok::<(), Broken>(())
    });
    match gone {
        Ok(()) | Err(Broken::Interrupted) => Ok(Exit::Done),
        Err(Broken::Failed(why)) => Err(why),
    }
}

/// Ready for appends.
async fn open(rt: &Rt, probe: &Probe, dir: &Path) -> Result<(Engine, Log), Broken> {
    let config = engine_config(dir.to_path_buf(), BYPASS_BYTES, TAIL_BYTES);
    let engine = subject::open(rt, config.clone()).await?;
    let log = subject::open_log(&engine, DurabilityArg::Persisted, 0).await?;
    probe.set_up(subject::settings(&config, &log.config()));
    subject::begin(&engine).await?;
    Ok((engine, log))
}

async fn append(
    rt: &Rt,
    probe: &Probe,
    engine: &Engine,
    log: &Log,
    (batch_bytes, bytes): (usize, u64),
) -> Result<(), Broken> {
    let progress = Progress::watch(rt, engine, [log]);
    let moved = progress.of(log);
    backlog::fill(probe, rt, engine, log, &moved, batch_bytes, bytes).await?;
    progress.stop().await;
    Ok(())
}

const ENGINE: &str = "engine";
const DEVICE: &str = "device";

pub fn run(plan: &Plan) -> Result<Exit, String> {
    let plan = plan.clone().checked()?;
    let session = Session::begin(&plan.run, plan.planned_bytes())?;
    let dir = session.make("engine")?;
    let ended = all_rounds(&plan, &session, &dir);
    session.finish("storage recovery", &plan, ended, |turns| Found {
        figures: plan
            .dirty_mib
            .iter()
            .flat_map(|it| figures(turns, *it))
            .collect(),
        safety: Some(safety(turns)),
        ..Found::default()
    })
}

fn all_rounds(plan: &Plan, session: &Session, dir: &Path) -> Result<(), Broken> {
    let (probe, bytes) = (session.probe(), (plan.batch_bytes, mib(plan.log_mib)));
    let dir_of_shard = dir.to_path_buf();
    on_one_shard(move |rt| async move {
        let (engine, log) = open(&rt, &probe, &dir_of_shard).await?;
        append(&rt, &probe, &engine, &log, bytes).await?;
        Ok::<_, Broken>(subject::close(&engine).await?)
    })?;
    let probe = session.probe();
    for number in 0..plan.run.rounds {
        for &dirty in &plan.dirty_mib {
            let end = write_and_be_killed(&probe, plan, dir, mib(dirty))?;
            drop_caches(dir)?;
            let (probe_of_shard, dir_of_shard) = (session.probe(), dir.to_path_buf());
            let log_bytes = bytes_of(&files(dir, "log")?)?;
            let recovered =
                on_one_shard(move |rt| recover(rt, probe_of_shard, dir_of_shard, end, log_bytes))?;
            let bytes = recovered.bytes;
            probe.took(Taken::new(number, ENGINE, recovered).in_case(case(dirty)));
            let segments = Files::open(&files(dir, "log")?)?;
            let read = device::read_once(&probe, &segments, bytes)?;
            probe.took(Taken::new(number, DEVICE, read).in_case(case(dirty)));
        }
    }
    Ok(())
}

fn case(dirty_mib: u64) -> String {
    format!("{dirty_mib} MiB dirty")
}

/// Gives the end of the log that was acknowledged.
fn write_and_be_killed(probe: &Probe, plan: &Plan, dir: &Path, bytes: u64) -> Result<i64, Broken> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args(["storage", "recovery-victim", "--dir"])
        .arg(dir)
        .args(["--bytes", &bytes.to_string()])
        .args(["--batch-bytes", &plan.batch_bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // A signal from a terminal is for us, who end it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("a process that writes: {error}"))?;
    let waited = wait(probe, &mut child);
    if waited.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    waited?;
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut said)?;
    }
    let end = said.trim().parse();
    end.map_err(|_| format!("the process that writes said {said:?}").into())
}

/// Until it has killed itself.
fn wait(probe: &Probe, child: &mut Child) -> Result<(), Broken> {
    loop {
        probe.check()?;
        match child.try_wait()? {
            None => std::thread::sleep(LOOK),
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => return Ok(()),
            Some(status) => return Err(format!("the process that writes ended: {status}").into()),
        }
    }
}

/// What the files hold is read from the disk from now on.
fn drop_caches(dir: &Path) -> Result<(), String> {
    for path in files(dir, "")? {
        let dropped = fs::File::open(&path).and_then(|file| {
            // Only what is on the disk can be dropped.
            file.sync_all()?;
            Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
        });
        dropped.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn bytes_of(paths: &[PathBuf]) -> Result<u64, String> {
    let len = |path: &PathBuf| {
        let about = fs::metadata(path);
        about
            .map(|it| it.len())
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    paths.iter().map(len).sum()
}

/// Opens the engine, and ends it in order.
async fn recover(
    rt: Rt,
    probe: Probe,
    dir: PathBuf,
    acknowledged: i64,
    log_bytes: u64,
) -> Result<Measured, Broken> {
    let (cpu_before, mut counters) = (cpu_seconds(), Counters::start());
    let meter = probe.meter(Direction::Consume);
    let began = rt.now();
    let (engine, log) = open(&rt, &probe, &dir).await?;
    let took = rt.now().since(began);
    let stats = engine.stats();
    let parts = [
        ("segments_read_bytes", stats.recovery_segment_bytes),
        ("journal_read_bytes", stats.recovery_journal_bytes),
        ("checkpoints_read_bytes", stats.recovery_checkpoint_bytes),
    ];
    let bytes = parts.iter().map(|(_, bytes)| bytes).sum();
    meter.record(took, bytes);
    let measured = meter.finish();
    let (counts, cpu) = (counters.read(), cpu_seconds() - cpu_before);
    let end = log.marks().counted_end.get();
    subject::close(&engine).await?;
    let count = |name: &str, count: u64| Cost::new(name, "count", count as f64);
    let mut costs = vec![
        Cost::new(SECONDS, "s", took.as_secs_f64()),
        Cost::new(SHARE, "part", bytes as f64 / log_bytes as f64),
        Cost::new("log_bytes", "bytes", log_bytes as f64),
        Cost::new("cpu_seconds", "s", cpu),
        count("ring_entries", counts.ring_entries),
        count(ACKNOWLEDGED, u64::try_from(acknowledged).unwrap_or(0)),
        count(LOST, u64::try_from(acknowledged - end).unwrap_or(0)),
    ];
    costs.extend(counts.syscalls.map(|calls| count("syscalls", calls)));
    costs.extend(parts.map(|(name, bytes)| Cost::new(name, "bytes", bytes as f64)));
    Ok(Measured { costs, ..measured })
}

/// Costs that figures are made of.
const SECONDS: &str = "recovery_seconds";
const SHARE: &str = "share_of_log";
const ACKNOWLEDGED: &str = "records_acknowledged";
const LOST: &str = "records_lost";

fn figures(turns: &Turns, dirty_mib: u64) -> Vec<Figure> {
    let case = case(dirty_mib);
    let cost = |name: &str| turns.values(Some(&case), ENGINE, |it| it.cost(name));
    let of = |side: &str, value: fn(&Measured) -> f64| {
        turns.values(Some(&case), side, |it| Some(value(it)))
    };
    let rates = |side| of(side, Measured::bytes_per_second);
    let read = of(ENGINE, |it| it.bytes as f64);
    let figures = [
        Figure::ratio(
            "device_ratio",
            Better::Higher,
            &rates(ENGINE),
            &rates(DEVICE),
        ),
        Figure::new(SECONDS, "s", Better::Lower, cost(SECONDS)).decides(),
        Figure::new("read_bytes", "bytes", Better::Lower, read),
        Figure::new(SHARE, "part", Better::Lower, cost(SHARE)),
    ];
    figures.map(|it| it.in_case(Some(&case))).to_vec()
}

/// Over all kills, each of which could have lost any record acknowledged before it.
fn safety(turns: &Turns) -> Safety {
    let sum = |name: &str| {
        let costs = turns.0.iter().filter_map(|it| it.measured.cost(name));
        costs.sum::<f64>() as u64
    };
    Safety {
        checked: sum(ACKNOWLEDGED),
        lost: sum(LOST),
        ..Safety::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kill_lost_is_not_safe() {
        let taken = |lost: f64| {
            let costs = vec![
                Cost::new(ACKNOWLEDGED, "count", 100.0),
                Cost::new(LOST, "count", lost),
            ];
            let measured = Measured {
                costs,
                ..Measured::default()
            };
            Taken::new(0, ENGINE, measured)
        };
        let of = |lost: &[f64]| safety(&Turns(lost.iter().map(|it| taken(*it)).collect()));
        assert!(of(&[0.0, 0.0]).is_clean());
        assert_eq!((of(&[0.0, 3.0]).checked, of(&[0.0, 3.0]).lost), (200, 3));
    }
}
