//! What is done to the logs: each step picks a log and one thing to do, and tells the model.
//!
//! Several actors run at once, so a read may meet a truncation, a seal or a deletion. No borrow of the world is held over an
//! await; who waited looks first whether the log is still the one that was asked.

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use forebay_engine::{
    AppendError, Durability, Engine, Fault, LeaderEpoch, Log, LogConfig, LogId, LogName, Offset,
    PartitionIndex, ProducerEpoch, ProducerId, ReadError, Timestamp, TopicId,
    batch::{BatchBuilder, Codec, ValidBatch, validate},
    log::ReadLimit,
    rt::{Rt, sim::Faults},
};

use crate::{
    model::{Held, LogModel, Producer, Sent},
    plan::{self, Bent, LOGS, Life, PRODUCERS, Trouble},
    testing::Rng,
};

/// Batches that a client may send again.
const SENT_MAX: usize = 5;

/// All that outlives a life, and the handles of the present one.
pub struct World {
    pub rng: Rng,
    pub models: Vec<LogModel>,
    /// `None` while the log is being deleted, and when it could not be opened.
    pub handles: Vec<Option<Log>>,
    pub life: Life,
    pub bent: Bent,
    pub epoch: i32,
    /// Makes every record unlike any other.
    pub salt: u64,
    pub topics: u64,
    /// Of the one record that each batch has, if all batches are of one length.
    uniform_bytes: Option<usize>,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let bent = Bent::of(seed);
        let life = plan::lives(&mut rng, bent).remove(0);
        let mut world = World {
            rng,
            models: Vec::new(),
            handles: vec![None; LOGS],
            life,
            bent,
            epoch: 0,
            salt: 0,
            topics: 0,
            uniform_bytes: plan::uniform_bytes(seed),
        };
        for at in 0..LOGS {
            let model = world.new_model(at);
            world.models.push(model);
        }
        world
    }

    /// The next topic of this name.
    fn new_model(&mut self, at: usize) -> LogModel {
        self.topics += 1;
        let mut topic_id = [7; 16];
        topic_id[..8].copy_from_slice(&self.topics.to_le_bytes());
        let partition = PartitionIndex(at as i32);
        let id = LogId {
            topic_id: TopicId(topic_id),
            partition,
        };
        let topic = "t".to_string();
        let config = self.log_config();
        LogModel::new(id, LogName { topic, partition }, config, PRODUCERS)
    }

    fn log_config(&mut self) -> LogConfig {
        let config = plan::log_config(&mut self.rng);
        match self.uniform_bytes {
            Some(_) => plan::deleting_soon(config),
            None => config,
        }
    }

    /// The log has been deleted: the next one of its name is another.
    pub fn replace(&mut self, at: usize) {
        self.models[at] = self.new_model(at);
    }

    pub fn observe_all(&mut self) {
        for (model, handle) in self.models.iter_mut().zip(&self.handles) {
            if let Some(log) = handle {
                if let Some(fault) = log.fault() {
                    assert!(
                        self.life.trouble.excuses_faults(),
                        "{}: {fault}",
                        model.name
                    );
                    model.faulted = true;
                } else if model.faulted {
                    model.mended(log);
                }
                model.observe(log);
            }
        }
    }
}

impl Trouble {
    pub fn excuses_faults(self) -> bool {
        matches!(self, Trouble::Errors | Trouble::Full | Trouble::Lies)
    }
}

/// One actor's hands.
#[derive(Clone)]
pub struct Hands {
    pub rt: Rt,
    pub engine: Engine,
    pub world: Rc<RefCell<World>>,
}

impl Hands {
    pub async fn act(self) {
        let steps = self.world.borrow().life.steps;
        for _ in 0..steps {
            self.step().await;
            self.world.borrow_mut().observe_all();
            let pause = self.below(600);
            match pause {
                0..300 => self.rt.yield_now().await,
                micros => self.rt.sleep(Duration::from_micros(micros as u64)).await,
            }
        }
    }

    fn below(&self, bound: usize) -> usize {
        self.world.borrow_mut().rng.below(bound)
    }

    async fn step(&self) {
        let (at, dice) = (self.below(LOGS), self.below(1000));
        let Some(log) = self.world.borrow().handles[at].clone() else {
            return self.rt.yield_now().await;
        };
        let short_lives = self.world.borrow().bent == Bent::ShortLives;
        match dice {
            // Each of these would bring about a checkpoint, and leave nothing to recover.
            930..1000 if short_lives => self.append(at, &log),
            0..560 => self.append(at, &log),
            560..640 => self.append_again(at, &log),
            640..700 => self.wait(at, &log).await,
            700..790 => self.read(at, &log).await,
            790..820 => self.read_back(at, &log).await,
            820..850 => self.find_timestamp(at, &log).await,
            850..860 => self.find_max_timestamp(at, &log).await,
            860..930 => self.move_high_watermark(at, &log),
            930..950 => self.truncate(at, &log).await,
            950..970 => self.delete_to(at, &log).await,
            970..980 => self.configure(at, &log),
            980..984 => self.recreate(at).await,
            984..990 => self.world.borrow_mut().epoch += 1,
            990..995 => self.new_producer_epoch(at),
            995..999 => {
                let micros = self.below(20_000) as u64;
                self.rt.sleep(Duration::from_micros(micros)).await;
            }
            _ => self.let_mend().await,
        }
    }

    /// The disk works for a while, long enough for logs that are offline to be taken online again.
    async fn let_mend(&self) {
        let Rt::Sim(sim) = &self.rt else {
            panic!("this runs in the simulator");
        };
        let faults = self.world.borrow().life.faults;
        let offline = |world: &World| world.models.iter().any(|model| model.faulted);
        if !offline(&self.world.borrow()) || self.below(2) == 0 {
            return;
        }
        sim.set_faults(Faults::default());
        let micros = 1_000_000 + self.below(4_000_000) as u64;
        self.rt.sleep(Duration::from_micros(micros)).await;
        sim.set_faults(faults);
    }

    fn append(&self, at: usize, log: &Log) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let producer = world.rng.below(2 * PRODUCERS);
        let known = world.models[at].producers.get(producer).cloned();
        let id = known.is_some().then_some(producer);
        let sequence = known
            .as_ref()
            .map(|known| (known.epoch, known.next_sequence));
        // Now and then one that does not follow.
        let sequence = sequence.map(|(epoch, next)| match world.rng.below(50) {
            0 => (epoch, next + 1),
            1 => ((epoch - 1).max(0), next),
            _ => (epoch, next),
        });
        let bytes = new_batch(world, &self.rt, at, id.zip(sequence));
        send(world, at, log, bytes.freeze(), id);
    }

    /// A client that has had no answer sends what it has sent before, in order.
    fn append_again(&self, at: usize, log: &Log) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let producer = world.rng.below(PRODUCERS);
        let sent = world.models[at].producers[producer].sent.clone();
        let from = world.rng.below(sent.len() + 1);
        for sent in &sent[from..] {
            send(world, at, log, sent.bytes.clone(), Some(producer));
        }
    }

    /// Until all of the log counts.
    async fn wait(&self, at: usize, log: &Log) {
        let id = log.id();
        let end = log.marks().log_end;
        loop {
            {
                let world = self.world.borrow();
                let model = &world.models[at];
                let gone = world.handles[at].is_none() || model.id != id || log.fault().is_some();
                if gone || log.marks().counted_end >= end.min(log.marks().log_end) {
                    return;
                }
            }
            self.rt.sleep(Duration::from_micros(300)).await;
        }
    }

    fn limit(&self, log: &Log) -> ReadLimit {
        let marks = log.marks();
        let mut world = self.world.borrow_mut();
        let rng = &mut world.rng;
        ReadLimit {
            below: [marks.log_end, marks.high_watermark, marks.last_stable][rng.below(3)],
            bytes_max: [0, 500, 20_000, 1 << 20][rng.below(4)],
            at_least_one: rng.chance(80),
        }
    }

    async fn read(&self, at: usize, log: &Log) {
        let marks = log.marks();
        let span = marks.log_end.since(marks.log_start) as usize + 4;
        let from = (marks.log_start.get() - 2).max(0) + self.below(span) as i64;
        let limit = self.limit(log);
        self.read_from(at, log, from, limit).await;
    }

    /// From somewhere on to the end, as a consumer does that is behind.
    async fn read_back(&self, at: usize, log: &Log) {
        let marks = log.marks();
        let span = marks.log_end.since(marks.log_start) as usize + 1;
        let mut from = marks.log_start.get() + self.below(span) as i64;
        for _ in 0..20 {
            let mut limit = self.limit(log);
            limit.at_least_one = true;
            match self.read_from(at, log, from, limit).await {
                Some(next) => from = next,
                None => return,
            }
        }
    }

    async fn read_from(&self, at: usize, log: &Log, from: i64, limit: ReadLimit) -> Option<i64> {
        let cuts = self.world.borrow().models[at].cuts;
        let result = log.read(Offset::new(from), limit).await;
        let world = self.world.borrow();
        let model = &world.models[at];
        if world.handles[at].is_none() || model.id != log.id() {
            return None;
        }
        match result {
            Ok(fetched) => {
                match self.lied_about(model) {
                    true => model.check_slices(&fetched, cuts),
                    false => model.check_read(from, limit, &fetched, cuts),
                }
                fetched.next.map(Offset::get)
            }
            Err(ReadError::OutOfRange { log_start, log_end }) => {
                assert!(
                    from < log_start.get() || from > log_end.get(),
                    "{from} is in range"
                );
                None
            }
            Err(ReadError::Fault(fault) | ReadError::Corrupt(fault)) => {
                self.excuse_read(&world, model, &fault);
                None
            }
        }
    }

    /// Whether the disk has falsified anything of this log's files so far, or may do so with each read.
    fn lied_about(&self, model: &LogModel) -> bool {
        let Rt::Sim(sim) = &self.rt else {
            panic!("this runs in the simulator");
        };
        let dir = format!("{}/{}/", plan::DATA_DIR, model.name);
        let damage = sim.damage();
        let mut damaged = damage.iter().map(|damage| damage.path.to_string_lossy());
        self.world.borrow().life.faults.flip_in_read > 0.0
            || damaged.any(|path| path.starts_with(&dir))
    }

    /// A disk that only lies gives no errors, so nobody may say that there are any but where it has lied.
    fn excuse_read(&self, world: &World, model: &LogModel, fault: &Fault) {
        let excused = match world.life.trouble {
            Trouble::Lies => self.lied_about(model) || model.faulted,
            trouble => trouble.excuses_faults(),
        };
        assert!(excused, "{}: {fault}", model.name);
    }

    async fn find_timestamp(&self, at: usize, log: &Log) {
        let now = self.rt.wall_clock().0;
        let timestamp = Timestamp(now - 150 + self.below(200) as i64);
        self.lookup(at, log, Some(timestamp)).await;
    }

    async fn find_max_timestamp(&self, at: usize, log: &Log) {
        self.lookup(at, log, None).await;
    }

    /// By timestamp, or for the largest there is.
    async fn lookup(&self, at: usize, log: &Log, timestamp: Option<Timestamp>) {
        let below = log.marks().high_watermark;
        let version = |model: &LogModel| (model.id, model.cuts, model.cutting, model.log_start());
        let before = version(&self.world.borrow().models[at]);
        let found = match timestamp {
            Some(timestamp) => log.find_timestamp(timestamp, below).await,
            None => log.find_max_timestamp(below).await,
        };
        let world = self.world.borrow();
        let model = &world.models[at];
        let unchanged =
            version(model) == before && log.marks().log_start.get() == model.log_start();
        let lied = world.life.trouble == Trouble::Lies && self.lied_about(model);
        if !unchanged || lied || model.cutting || world.handles[at].is_none() {
            return;
        }
        let found = match found {
            Ok(found) => found,
            Err(ReadError::Fault(fault) | ReadError::Corrupt(fault)) => {
                return self.excuse_read(&world, model, &fault);
            }
            Err(error) => panic!("{}: {error}", model.name),
        };
        let Some(sought) = timestamp.or_else(|| model.max_timestamp(below.get())) else {
            assert_eq!(
                found, None,
                "{}: there is no record below {below}",
                model.name
            );
            return;
        };
        let expected = model.first_at(sought, below.get());
        assert_eq!(
            found, expected,
            "{}: first record at {sought} or later, below {below}",
            model.name
        );
    }

    fn move_high_watermark(&self, at: usize, log: &Log) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let model = &world.models[at];
        if model.cutting {
            return;
        }
        // Replicas acknowledge whole batches.
        let counted = log.marks().counted_end;
        let last = if world.rng.chance(60) {
            counted.get()
        } else {
            model.high_watermark() + world.rng.below(20) as i64
        };
        let boundary = model
            .batch_of(last)
            .map_or(last, Held::base)
            .min(counted.get());
        log.set_high_watermark(Offset::new(boundary));
    }

    async fn truncate(&self, at: usize, log: &Log) {
        let offset = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            let marks = log.marks();
            let model = &mut world.models[at];
            if model.cutting || model.faulted {
                return;
            }
            let span = marks.log_end.since(marks.high_watermark) as usize + 1;
            let offset = marks.high_watermark.get() + world.rng.below(span) as i64;
            say!("{} truncate to {offset}: {marks:?}", model.name);
            model.begin_cut(offset);
            offset
        };
        let result = log.truncate_to(Offset::new(offset)).await;
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        let model = &mut world.models[at];
        say!(
            "{} truncated to {offset}: {result:?} {:?}",
            model.name,
            log.marks()
        );
        model.end_cut(result.is_ok());
        match result {
            Ok(()) => {
                model.observe(log);
                model.check_derived(log);
                model.resume_producers();
            }
            Err(fault) => world.excuse(&fault),
        }
    }

    async fn delete_to(&self, at: usize, log: &Log) {
        let offset = {
            let mut world = self.world.borrow_mut();
            let world = &mut *world;
            let marks = log.marks();
            let span = marks.high_watermark.since(marks.log_start) as usize + 1;
            let offset = marks.log_start.get() + world.rng.below(span) as i64;
            let model = &mut world.models[at];
            model.log_start_max = model.log_start_max.max(offset);
            offset
        };
        say!("{} delete to {offset}", log.name());
        let result = log.delete_to(Offset::new(offset)).await;
        say!("{} deleted to {offset}: {result:?}", log.name());
        let mut world = self.world.borrow_mut();
        if world.handles[at].is_none() || world.models[at].id != log.id() {
            return;
        }
        match result {
            Ok(log_start) => {
                assert!(
                    log_start.get() >= offset,
                    "deleted to {log_start}, not {offset}"
                );
                world.models[at].deleted_to(offset);
            }
            Err(fault) => world.excuse(&fault),
        }
    }

    fn configure(&self, at: usize, log: &Log) {
        let mut world = self.world.borrow_mut();
        let world = &mut *world;
        if world.models[at].cutting || world.models[at].faulted {
            return;
        }
        let mut config = world.log_config();
        if world.rng.chance(50) {
            config.durability = match log.config().durability {
                Durability::Persisted => Durability::Replicated,
                Durability::Replicated => Durability::Persisted,
            };
        }
        reconfigure(world, at, log, config);
    }

    /// A batch under `replicated` in each log, and one under `persisted` behind it: for a moment the journal has what comes after something that
    /// is nowhere.
    pub fn flip_all(&self) {
        let handles = self.world.borrow().handles.clone();
        for (at, log) in handles.iter().enumerate() {
            let Some(log) = log else {
                continue;
            };
            for durability in [Durability::Replicated, Durability::Persisted] {
                let config = LogConfig {
                    durability,
                    ..log.config()
                };
                reconfigure(&mut self.world.borrow_mut(), at, log, config);
                self.append(at, log);
            }
        }
    }

    /// Deletes the log, and creates another one of the same name.
    async fn recreate(&self, at: usize) {
        let (id, name) = {
            let mut world = self.world.borrow_mut();
            let model = &mut world.models[at];
            if model.cutting {
                return;
            }
            model.deleting = true;
            let (id, name) = (model.id, model.name.clone());
            world.handles[at] = None;
            (id, name)
        };
        if let Err(fault) = self.engine.delete_log(id, &name).await {
            return self.world.borrow().excuse(&fault);
        }
        let (id, name, config) = {
            let mut world = self.world.borrow_mut();
            world.replace(at);
            let model = &world.models[at];
            (model.id, model.name.clone(), model.config.clone())
        };
        match self.engine.open_log(id, name, config).await {
            Ok(log) => {
                let mut world = self.world.borrow_mut();
                world.models[at].accept(&log, &[], crate::model::Trust::Full);
                world.handles[at] = Some(log);
            }
            Err(error) => {
                let world = self.world.borrow();
                assert!(world.life.trouble.excuses_faults(), "open: {error}");
            }
        }
    }

    fn new_producer_epoch(&self, at: usize) {
        let mut world = self.world.borrow_mut();
        let producer = world.rng.below(PRODUCERS);
        let known = &mut world.models[at].producers[producer];
        *known = Producer {
            epoch: known.epoch + 1,
            ..Producer::default()
        };
    }
}

fn reconfigure(world: &mut World, at: usize, log: &Log, config: LogConfig) {
    say!("{} configure {:?}", log.name(), config.durability);
    // What retention has done so far it did by the old limits.
    world.models[at].observe(log);
    log.configure(config.clone());
    world.models[at].configured(config);
    world.models[at].observe(log);
}

impl World {
    pub fn excuse(&self, fault: &Fault) {
        assert!(self.life.trouble.excuses_faults(), "{fault}");
    }
}

/// A batch like no other, not yet in any log. `producer` is (id, (epoch, sequence)).
fn new_batch(
    world: &mut World,
    rt: &Rt,
    at: usize,
    producer: Option<(usize, (i16, i32))>,
) -> BytesMut {
    let uniform = world.uniform_bytes.map(|bytes| (1, bytes, Codec::None));
    let (count, bytes, codec) = uniform.unwrap_or_else(|| any_batch(world, at));
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, (epoch, sequence))) = producer {
        builder = builder.producer(ProducerId(id as i64), ProducerEpoch(epoch), sequence);
    }
    let now = rt.wall_clock().0;
    for _ in 0..count {
        world.salt += 1;
        let mut value = vec![world.salt as u8; bytes / count];
        value.extend_from_slice(&world.salt.to_le_bytes());
        let timestamp = Timestamp(now - world.rng.below(100) as i64);
        builder.push(timestamp, None, Some(&value), &[]);
    }
    builder.build()
}

/// How many records, of how many bytes in all, and how they are compressed.
fn any_batch(world: &mut World, at: usize) -> (usize, usize, Codec) {
    let rng = &mut world.rng;
    let short_lives = world.bent == Bent::ShortLives;
    let count = match short_lives {
        // Then batches of one life begin where those of another did.
        true => 1,
        false => 1 + rng.below(4),
    };
    let segment_bytes = world.models[at].config.segment_bytes as usize;
    let bytes = match rng.below(100) {
        _ if short_lives => rng.below(200),
        0..80 => rng.below(300),
        80..94 => rng.below(4000),
        94..99 => rng.below(20_000.min(segment_bytes)),
        // Sometimes too large.
        _ => rng.below(segment_bytes.min(100_000)),
    };
    let codec = if rng.chance(3) {
        Codec::Lz4
    } else {
        Codec::None
    };
    (count, bytes, codec)
}

fn send(world: &mut World, at: usize, log: &Log, bytes: Bytes, producer: Option<usize>) {
    if world.models[at].faulted && log.fault().is_none() {
        world.models[at].mended(log);
    }
    if world.models[at].cutting && (world.models[at].faulted || crate::life::rests(at)) {
        // Nobody knows where it ends, or whether the cut has waited for the log to wake and comes after this.
        return;
    }
    let batch = valid(&bytes);
    let header = *batch.header();
    let model = &mut world.models[at];
    let answers = model.answers(&header);
    let has_room = world.rng.chance(30).then(|| log.has_room(bytes.len()));
    let slice_of = world
        .rng
        .chance(10)
        .then(|| bytes.len() * (1 + world.rng.below(4)));
    let epoch = LeaderEpoch(world.epoch);
    let result = match slice_of {
        Some(frame_bytes) => log.append_slice(batch, epoch, frame_bytes),
        None => log.append(batch, epoch),
    };
    match &result {
        Err(AppendError::Busy) => assert!(
            has_room != Some(true) || slice_of.is_some(),
            "{}: no room after all",
            model.name
        ),
        Err(AppendError::BatchTooLarge { .. }) => {
            assert!(bytes.len() as u64 > model.config.segment_bytes)
        }
        Err(AppendError::Fault(fault)) => return world.excuse(fault),
        Ok(_) => {}
        Err(_) => {}
    }
    say!(
        "{} append {:?} sequence {} to {}, at {}: {result:?}",
        model.name,
        header.producer,
        header.base_sequence,
        header.last_sequence(),
        model.end()
    );
    if model.cutting {
        // Its producers are those of before the cut or of after it.
        assert!(
            !matches!(&result, Ok(appended) if !appended.duplicate),
            "{}: appended during a cut",
            model.name
        );
        return;
    }
    if !model.check_answer(&header, &answers, &result) {
        return;
    }
    let appended = result.expect("a new batch was appended");
    let expected = assigned(&bytes, model.end(), epoch);
    let held = Held::new(expected);
    assert_eq!(
        appended.base_offset, held.header.base_offset,
        "{}: base offset",
        model.name
    );
    assert_eq!(
        appended.last_offset,
        held.header.last_offset(),
        "{}: last offset",
        model.name
    );
    model.append(held);
    let Some(producer) = producer else {
        return;
    };
    let producer = &mut model.producers[producer];
    let is_own = header
        .producer
        .is_some_and(|(_, epoch)| epoch.0 == producer.epoch);
    if is_own {
        producer.next_sequence = header.last_sequence() + 1;
        let known = producer
            .sent
            .iter()
            .any(|sent| sent.header.base_sequence == header.base_sequence);
        if !known {
            producer.sent.push(Sent { bytes, header });
        }
        if producer.sent.len() > SENT_MAX {
            producer.sent.remove(0);
        }
    }
}

fn valid(bytes: &Bytes) -> ValidBatch {
    validate(BytesMut::from(&bytes[..]), &plan::rules(), Timestamp(0)).expect("a valid batch")
}

/// What the log has to make of the batch: base offset and leader epoch in their places, all else as it came.
fn assigned(bytes: &Bytes, base: i64, epoch: LeaderEpoch) -> Bytes {
    let mut assigned = bytes.to_vec();
    assigned[..8].copy_from_slice(&base.to_be_bytes());
    assigned[12..16].copy_from_slice(&epoch.0.to_be_bytes());
    assigned.into()
}
