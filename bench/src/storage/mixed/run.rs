//! One run of `storage mixed`: an engine with its logs, and what arrives at it, is read from it and is deleted from it in each phase.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use bytes::BytesMut;
use forebay_engine::{
    Engine, Log, LogConfig, Offset,
    log::ReadLimit,
    rt::{Class, Instant, Rt, Task},
};

use super::{DELETED, OVERRUN, Phase, Plan, READ};
use crate::{
    limits::mib,
    result::turns::Cost,
    run::Direction,
    storage::{
        backlog,
        counters::cpu_seconds,
        device::Pair,
        measured::Measured,
        probe::{Broken, Meter, Probe},
        subject::{
            self, BYPASS_BYTES, DurabilityArg, Progress, TAIL_BYTES, append_one, batch_of,
            engine_config, wait_for_room,
        },
    },
};

/// Arrivals that may wait at the same time. Beyond that the plan asks for more than the disk gives, and the run is invalid.
const WAITING_MAX: usize = 4096;

/// Bytes that the reader asks for at a time, as a consumer does.
const FETCH_BYTES: usize = 1 << 20;

/// What each log keeps while retention deletes, in segments.
const SEGMENTS_KEPT: u64 = 2;

const BACKLOG_SEGMENT_BYTES: u64 = 64 << 20;

const SETTLE: Duration = Duration::from_millis(500);

/// The engine with all its logs, and the plan that they are under.
pub struct Run {
    rt: Rt,
    probe: Probe,
    plan: Plan,
    engine: Engine,
    logs: Vec<Log>,
    backlog: Log,
    progress: Progress,
    dir: PathBuf,
}

impl Run {
    pub async fn open(rt: Rt, probe: Probe, plan: Plan, dir: PathBuf) -> Result<Run, Broken> {
        let mut config = engine_config(dir.clone(), BYPASS_BYTES, TAIL_BYTES);
        config.retention_check_interval_ms = 100;
        let engine = subject::open(&rt, config.clone()).await?;
        let mut logs = Vec::new();
        for partition in 0..plan.partitions {
            logs.push(open_log(&engine, partition, mib(plan.segment_mib)).await?);
        }
        let backlog = open_log(&engine, plan.partitions, BACKLOG_SEGMENT_BYTES).await?;
        probe.set_up(subject::settings(&config, &logs[0].config()));
        subject::begin(&engine).await?;
        let progress = Progress::watch(&rt, &engine, logs.iter().chain([&backlog]));
        Ok(Run {
            rt,
            probe,
            plan,
            engine,
            logs,
            backlog,
            progress,
            dir,
        })
    }

    pub async fn fill_backlog(&self) -> Result<(), Broken> {
        let (log, bytes) = (&self.backlog, mib(self.plan.backlog_mib));
        let moved = self.progress.of(log);
        let (probe, rt, engine) = (&self.probe, &self.rt, &self.engine);
        backlog::fill(probe, rt, engine, log, &moved, 256 << 10, bytes).await
    }

    /// What one phase wrote must not be what the next one pays for.
    pub async fn forget_what_was_written(&self) -> Result<(), Broken> {
        self.retain(None);
        for log in &self.logs {
            let deleted = log.delete_to(log.marks().log_end).await;
            deleted.map_err(|fault| fault.to_string())?;
        }
        self.probe.sleep(&self.rt, SETTLE).await
    }

    fn retain(&self, retention_bytes: Option<u64>) {
        for log in &self.logs {
            log.configure(LogConfig {
                retention_bytes,
                ..log.config()
            });
        }
    }

    pub async fn measure(&self, phase: Phase) -> Result<Measured, Broken> {
        if phase.deletes() {
            self.retain(Some(SEGMENTS_KEPT * mib(self.plan.segment_mib)));
        }
        let device = match phase.is_raw() {
            true => Some(Rc::new(
                Pair::prepare(&self.probe, &self.rt, &self.dir).await?,
            )),
            false => None,
        };
        let (deleted_before, cpu_before) = (self.engine.stats().segments_deleted, cpu_seconds());
        let reading = self.probe.meter(Direction::Consume);
        let readers = match phase.drains() {
            true => self.drain(&device, &reading),
            false => Vec::new(),
        };
        let (mut measured, overrun) = self.arrivals(&device).await?;
        let cpu = cpu_seconds() - cpu_before;
        for reader in readers {
            reader.cancel().await;
        }
        if let Some(device) = device {
            device.remove()?;
        }
        let read_bytes_per_second = reading.finish().bytes as f64 / measured.seconds();
        let deleted = self.engine.stats().segments_deleted - deleted_before;
        measured.costs = vec![
            Cost::new(READ, "bytes/s", read_bytes_per_second),
            Cost::new(DELETED, "count", deleted as f64),
            Cost::new("cores", "cores", cpu / measured.seconds()),
            Cost::new(OVERRUN, "0 or 1", f64::from(u8::from(overrun))),
        ];
        Ok(measured)
    }

    /// Starts the plan's readers, of the backlog or of the device.
    fn drain(&self, device: &Option<Rc<Pair>>, meter: &Meter) -> Vec<Task<()>> {
        let readers = self.plan.readers;
        let reader = |number| match device {
            None => {
                let (rt, log) = (self.rt.clone(), self.backlog.clone());
                let reading = drain(rt, log, number, readers, meter.clone());
                self.rt.spawn(Class::Foreground, reading)
            }
            Some(device) => {
                let reading = device.clone().drain(number, FETCH_BYTES, meter.clone());
                self.rt.spawn(Class::Foreground, reading)
            }
        };
        (0..readers).map(reader).collect()
    }

    /// Every batch at its planned time, for the seconds of a phase. Says too whether the plan could not be kept.
    async fn arrivals(&self, device: &Option<Rc<Pair>>) -> Result<(Measured, bool), Broken> {
        let arrived = Rc::new(Arrived::new(self.probe.meter(Direction::Produce)));
        let template = Rc::new(batch_of(self.plan.size_bytes, self.rt.wall_clock()));
        let per_sec = self.plan.batches_per_sec;
        let began = self.rt.now();
        let mut overrun = false;
        for number in 0..per_sec * self.plan.seconds {
            self.probe.check()?;
            let planned = planned(began, number, per_sec);
            if let early @ 1.. = planned.since(self.rt.now()).as_nanos() {
                self.rt.sleep(Duration::from_nanos(early as u64)).await;
            }
            if arrived.waiting.get() >= WAITING_MAX {
                overrun = true;
                break;
            }
            arrived.meter.offered(self.rt.now().since(planned));
            arrived.waiting.set(arrived.waiting.get() + 1);
            match device {
                None => self.arrive(number, planned, &template, &arrived),
                Some(device) => self.arrive_raw(number, planned, template.len(), device, &arrived),
            }
        }
        while arrived.waiting.get() > 0 && arrived.failed.borrow().is_none() {
            self.probe.check()?;
            self.rt.sleep(Duration::from_millis(1)).await;
        }
        match arrived.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok((arrived.meter.finish(), overrun)),
        }
    }

    /// One batch goes to the log whose turn it is.
    fn arrive(
        &self,
        number: u64,
        planned: Instant,
        template: &Rc<BytesMut>,
        arrived: &Rc<Arrived>,
    ) {
        let log = self.logs[(number % self.logs.len() as u64) as usize].clone();
        let (moved, room) = (self.progress.of(&log), self.engine.room());
        let (rt, template, arrived) = (self.rt.clone(), template.clone(), arrived.clone());
        let arrival = async move {
            let sent = rt.now();
            wait_for_room(&log, &room, template.len()).await;
            let appended = append_one(&rt, &log, &moved, &template).await;
            // Retention deletes nothing above it.
            log.set_high_watermark(log.marks().counted_end);
            arrived.done(rt.now(), (planned, sent), template.len(), appended);
        };
        self.rt.spawn(Class::Foreground, arrival).detach();
    }

    /// As many bytes go to the device.
    fn arrive_raw(
        &self,
        number: u64,
        planned: Instant,
        len: usize,
        device: &Rc<Pair>,
        arrived: &Rc<Arrived>,
    ) {
        let (rt, device, arrived) = (self.rt.clone(), device.clone(), arrived.clone());
        let arrival = async move {
            let sent = rt.now();
            let written = device.write(number, len).await;
            arrived.done(rt.now(), (planned, sent), len, written);
        };
        self.rt.spawn(Class::Foreground, arrival).detach();
    }

    pub async fn close(self) -> Result<(), String> {
        let Run {
            engine, progress, ..
        } = self;
        progress.stop().await;
        subject::close(&engine).await
    }
}

async fn open_log(engine: &Engine, partition: u32, segment_bytes: u64) -> Result<Log, String> {
    let log = subject::open_log(engine, DurabilityArg::Persisted, partition).await?;
    log.configure(LogConfig {
        segment_bytes,
        file_delete_delay_ms: 0,
        ..log.config()
    });
    Ok(log)
}

/// What became of the batches of a phase.
struct Arrived {
    meter: Meter,
    /// Batches that are on their way.
    waiting: Cell<usize>,
    failed: RefCell<Option<String>>,
}

impl Arrived {
    fn new(meter: Meter) -> Arrived {
        Arrived {
            meter,
            waiting: Cell::new(0),
            failed: RefCell::new(None),
        }
    }

    /// One of those that were on their way has ended.
    fn done(
        &self,
        now: Instant,
        (planned, sent): (Instant, Instant),
        bytes: usize,
        ended: Result<(), String>,
    ) {
        let (since_planned, since_sent) = (now.since(planned), now.since(sent));
        self.meter
            .record_planned(since_planned, since_sent, bytes as u64);
        self.waiting.set(self.waiting.get() - 1);
        if let Err(error) = ended {
            *self.failed.borrow_mut() = Some(error);
        }
    }
}

/// When the batch with this number arrives.
fn planned(began: Instant, number: u64, per_sec: u64) -> Instant {
    Instant(began.0 + number * 1_000_000_000 / per_sec)
}

/// Reads the backlog again and again, from a place of the reader's own, until it is cancelled.
async fn drain(rt: Rt, log: Log, number: u32, readers: u32, meter: Meter) {
    let end = log.marks().log_end;
    let mut from = Offset::new(end.get() * i64::from(number) / i64::from(readers));
    loop {
        let limit = ReadLimit {
            below: end,
            bytes_max: FETCH_BYTES,
            at_least_one: true,
        };
        let began = rt.now();
        let fetched = log.read(from, limit).await;
        let fetched = fetched.expect("the backlog can be read");
        meter.record(rt.now().since(began), fetched.bytes as u64);
        from = fetched
            .next
            .filter(|next| *next < end)
            .unwrap_or(log.marks().log_start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_arrive_at_even_distances() {
        let at = |number| planned(Instant(7), number, 3).0;
        assert_eq!(at(0), 7);
        assert_eq!(at(1), 333_333_340);
        assert_eq!(at(3), 1_000_000_007);
        // Nothing is rounded away: a million seconds later the distance is the same.
        assert_eq!(at(3_000_000), 1_000_000_000_000_007);
    }
}
