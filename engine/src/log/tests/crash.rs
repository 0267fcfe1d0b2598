//! Power failures in the simulator, checked against a model of what was promised.
//!
//! A run opens three logs (two persisted, one replicated), does random things for a random time, and loses power. The next
//! run opens what the disk has then. Logs are opened when they are used, and rest when they are not. Checked after each recovery: everything counted under `persisted` is there at the same offset;
//! nothing is there that was not appended at that offset, or that a finished truncation took away; offsets have no hole;
//! epochs and producers are those of the batches that are there.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    time::Duration,
};

use super::*;
use crate::testing::{Rng, for_seeds};

const LOGS: usize = 3;
const REPLICATED: usize = 2;
const PRODUCERS: u64 = 3;

/// What is known of one log from the outside.
#[derive(Default)]
struct Model {
    /// By base offset, what was appended there since the last recovery, and before that what was found.
    batches: BTreeMap<i64, Bytes>,
    /// What a truncation in progress may have taken away or not.
    undecided: BTreeMap<i64, Bytes>,
    log_start: i64,
    /// A `delete_to` in progress may have moved the log start up to here.
    log_start_max: i64,
    /// Everything below was counted, and may not be lost.
    promised_end: i64,
    next_sequence: [i32; PRODUCERS as usize],
}

impl Model {
    fn end(&self) -> i64 {
        let last = self
            .batches
            .values()
            .next_back()
            .map(|bytes| header_of(bytes).next_offset().get());
        last.unwrap_or(self.log_start)
    }

    /// Takes over what recovery found, after checking it.
    fn accept(&mut self, log: &Log, found: &[(BatchHeader, Bytes)]) {
        let marks = log.marks();
        let (log_start, log_end) = (marks.log_start.get(), marks.log_end.get());
        assert!(
            log_end >= self.promised_end,
            "lost {} to {}",
            log_end,
            self.promised_end
        );
        assert!(
            (self.log_start..=self.log_start_max).contains(&log_start),
            "log start {log_start}"
        );
        let mut next = None;
        for (header, bytes) in found {
            let base = header.base_offset.get();
            if let Some(next) = next {
                assert_eq!(base, next, "a hole in the log");
            }
            next = Some(header.next_offset().get());
            let known = [self.batches.get(&base), self.undecided.get(&base)];
            assert!(
                known.contains(&Some(bytes)),
                "the batch at {base} was not appended there"
            );
        }
        assert_eq!(
            next.unwrap_or(log_end),
            log_end,
            "the log ends with its last batch"
        );
        self.batches.append(&mut self.undecided);
        for (header, bytes) in found {
            self.batches.insert(header.base_offset.get(), bytes.clone());
        }
        self.batches.split_off(&log_end);
        self.log_start = log_start;
        self.log_start_max = log_start;
        self.promised_end = log_end;
        self.check_derived(log);
    }

    /// Epochs and producers follow from the batches.
    fn check_derived(&mut self, log: &Log) {
        let headers: Vec<BatchHeader> = self.batches.values().map(header_of).collect();
        let latest = headers.last().map(|header| header.leader_epoch);
        let log_start = log.marks().log_start;
        if headers
            .last()
            .is_some_and(|header| header.base_offset >= log_start)
        {
            assert_eq!(log.latest_epoch(), latest);
        }
        let mut last_sequences: BTreeMap<i64, (i32, Offset)> = BTreeMap::new();
        for header in &headers {
            if let Some((id, _)) = header.producer {
                last_sequences.insert(id.0, (header.last_sequence(), header.last_offset()));
            }
            if header.base_offset >= log.marks().log_start {
                assert_eq!(log.epoch_at(header.base_offset), Some(header.leader_epoch));
            }
        }
        let found: BTreeMap<i64, (i32, Offset)> = log
            .producers()
            .into_iter()
            .map(|(id, _, sequence, offset, _)| (id.0, (sequence, offset)))
            .collect();
        for id in 0..PRODUCERS {
            let expected = last_sequences.get(&(id as i64));
            // Producers whose batches were all deleted may be forgotten, as by a rebuild from the log.
            let may_be_forgotten = expected.is_none_or(|(_, offset)| *offset < log_start);
            let last = found.get(&(id as i64));
            if !may_be_forgotten || last.is_some() {
                assert_eq!(last, expected, "producer {id}");
            }
            self.next_sequence[id as usize] = last.map_or(0, |(sequence, _)| sequence + 1);
        }
    }
}

fn header_of(bytes: &Bytes) -> BatchHeader {
    BatchHeader::parse(bytes).expect("a batch")
}

struct World {
    rng: Rng,
    models: Vec<Model>,
    /// One more with every start.
    epoch: LeaderEpoch,
    recovered_batches: usize,
    /// How often a log was found asleep in a running engine.
    found_asleep: usize,
}

fn log_config(at: usize) -> LogConfig {
    let mut config = config();
    config.segment_bytes = 24 * 1024;
    if at == REPLICATED {
        config.durability = Durability::Replicated;
    }
    config
}

async fn open(rig: &Rig, world: &Rc<RefCell<World>>) -> (Engine, Vec<Log>) {
    let engine = Engine::open(rig.rt.clone(), rig.engine.clone())
        .await
        .expect("open");
    let mut logs = Vec::new();
    for at in 0..LOGS {
        let (id, name) = identity(at as i32);
        let log = engine
            .open_log_when_used(id, name, log_config(at))
            .await
            .expect("open log");
        logs.push(log);
    }
    engine.sync_recovered().await.expect("sync");
    engine.start_journal().await.expect("start");
    for (at, log) in logs.iter().enumerate() {
        let start = log.marks().log_start;
        let found = read_all(log, start).await;
        let mut world = world.borrow_mut();
        world.recovered_batches += found.len();
        world.models[at].accept(log, &found);
    }
    world.borrow_mut().epoch.0 += 1;
    (engine, logs)
}

/// One random thing.
async fn step(rig: &Rig, engine: &Engine, logs: &[Log], world: &Rc<RefCell<World>>) {
    let (at, dice) = {
        let rng = &mut world.borrow_mut().rng;
        (rng.below(LOGS), rng.below(100))
    };
    let log = &logs[at];
    match dice {
        0..70 => append(log, at, world),
        70..80 => {
            let micros = world.borrow_mut().rng.below(3000) as u64;
            rig.rt.sleep(Duration::from_micros(micros)).await;
        }
        80..88 => counted(engine, log, log.marks().log_end).await,
        // Long enough for logs to go to rest.
        88 => {
            rig.rt.sleep(Duration::from_millis(90)).await;
            let asleep = logs.iter().filter(|log| is_asleep(log)).count();
            world.borrow_mut().found_asleep += asleep;
        }
        89..93 => log.set_high_watermark(log.marks().counted_end),
        93..96 => truncate(log, at, world).await,
        96..98 => delete(log, at, world).await,
        _ => {
            let start = log.marks().log_start;
            read_all(log, start).await;
        }
    }
}

fn append(log: &Log, at: usize, world: &Rc<RefCell<World>>) {
    let mut world = world.borrow_mut();
    let world = &mut *world;
    let count = 1 + world.rng.below(4);
    let bytes = match world.rng.below(10) {
        0 => world.rng.below(4000),
        _ => world.rng.below(300),
    };
    let salt = world.rng.below(1 << 30) as i64;
    let producer = world.rng.below(2 * PRODUCERS as usize);
    let model = &mut world.models[at];
    let mut builder = BatchBuilder::new(Codec::None);
    if producer < PRODUCERS as usize {
        let sequence = model.next_sequence[producer];
        builder = builder.producer(ProducerId(producer as i64), ProducerEpoch(0), sequence);
    }
    match log.append(build(builder, salt, count, bytes), world.epoch) {
        Ok(appended) => {
            assert!(!appended.duplicate);
            assert_eq!(appended.base_offset.get(), model.end().max(model.log_start));
            if producer < PRODUCERS as usize {
                model.next_sequence[producer] += count as i32;
            }
            let limit = everything(log);
            let read = log
                .read_cached(appended.base_offset, limit)
                .expect("cached")
                .expect("read");
            model
                .batches
                .insert(appended.base_offset.get(), read.slices[0].clone());
        }
        Err(AppendError::Busy) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn truncate(log: &Log, at: usize, world: &Rc<RefCell<World>>) {
    let marks = log.marks();
    let (from, to) = (marks.high_watermark.get(), marks.log_end.get());
    let offset = from + world.borrow_mut().rng.below((to - from + 1) as usize) as i64;
    {
        let mut world = world.borrow_mut();
        let model = &mut world.models[at];
        let kept = |bytes: &Bytes| header_of(bytes).next_offset().get() <= offset;
        let all = std::mem::take(&mut model.batches);
        let (below, above) = all.into_iter().partition(|(_, bytes)| kept(bytes));
        model.batches = below;
        model.undecided = above;
        model.promised_end = model.promised_end.min(model.end());
    }
    log.truncate_to(Offset::new(offset))
        .await
        .expect("truncate");
    let mut world = world.borrow_mut();
    let model = &mut world.models[at];
    model.undecided.clear();
    assert_eq!(log.marks().log_end.get(), model.end());
    model.check_derived(log);
}

async fn delete(log: &Log, at: usize, world: &Rc<RefCell<World>>) {
    let marks = log.marks();
    let (from, to) = (marks.log_start.get(), marks.high_watermark.get());
    let offset = from + world.borrow_mut().rng.below((to - from + 1) as usize) as i64;
    world.borrow_mut().models[at].log_start_max = offset;
    let log_start = log.delete_to(Offset::new(offset)).await.expect("delete");
    assert_eq!(log_start.get(), offset);
    world.borrow_mut().models[at].log_start = offset;
}

/// Runs until the power goes, and returns the disk as it is then.
fn run_once(seed: u64, disk: Disk, world: Rc<RefCell<World>>) -> Disk {
    let (crashed, _) = sim::run(seed, disk, move |rt| async move {
        let dir = PathBuf::from("/data");
        rt.create_dir_all(&dir)
            .await
            .expect("create the data directory");
        rt.sync_dir(Path::new("/")).await.expect("sync");
        let mut rig = Rig::new(rt.clone(), dir);
        rig.engine.journal_file_bytes = 64 * 1024;
        rig.engine.journal_files = 3;
        rig.engine.bypass_bytes = 8 * 1024;
        rig.engine.write_chunk_bytes_max = 16 * 1024;
        rig.engine.tail_bytes_max = 64 * 1024;
        rig.engine.checkpoint_interval_ms = 40;
        rig.engine.retention_check_interval_ms = 30;
        let logs: Rc<RefCell<Vec<Log>>> = Rc::default();
        let live = {
            let (world, logs) = (world.clone(), logs.clone());
            async move {
                let (engine, opened) = open(&rig, &world).await;
                *logs.borrow_mut() = opened.clone();
                let steps_max = world.borrow_mut().rng.below(4000);
                for _ in 0..steps_max {
                    step(&rig, &engine, &opened, &world).await;
                    rig.rt.yield_now().await;
                }
                // Some runs come to an orderly end, unless the power goes in the middle of that.
                engine.close().await.expect("close");
            }
        };
        // Often early, so that the power also goes during recovery.
        let micros = {
            let rng = &mut world.borrow_mut().rng;
            let micros_max = if rng.chance(25) { 10_000 } else { 400_000 };
            rng.below(micros_max)
        };
        rt.timeout(Duration::from_micros(micros as u64), live).await;
        for (at, log) in logs.borrow().iter().enumerate() {
            assert!(log.fault().is_none(), "{:?}", log.fault());
            let model = &mut world.borrow_mut().models[at];
            let counted = match at {
                REPLICATED => log.marks().durable_end,
                _ => log.marks().counted_end,
            };
            let undecided_from = model.undecided.keys().next().copied().unwrap_or(i64::MAX);
            model.promised_end = model.promised_end.max(counted.get().min(undecided_from));
        }
        let Rt::Sim(sim) = &rt else {
            panic!("this test runs in the simulator");
        };
        sim.crash()
    });
    crashed
}

/// How often logs were found asleep.
fn crash_repeatedly(seed: u64) -> usize {
    let world = Rc::new(RefCell::new(World {
        rng: Rng::new(seed),
        models: (0..LOGS).map(|_| Model::default()).collect(),
        epoch: LeaderEpoch(0),
        recovered_batches: 0,
        found_asleep: 0,
    }));
    let mut disk = Disk::default();
    for run in 0..8 {
        disk = run_once(seed * 100 + run, disk, world.clone());
    }
    world.borrow().found_asleep
}

#[test]
fn what_was_counted_survives_power_failures() {
    let found_asleep = Cell::new(0);
    for_seeds(12, |seed| {
        found_asleep.set(found_asleep.get() + crash_repeatedly(seed));
    });
    assert!(found_asleep.get() > 0, "no log ever went to rest");
}
