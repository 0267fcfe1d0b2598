//! What is known of one log from the outside, and what its promises allow it to be.
//!
//! The model is told of every call and every answer. It computes the bytes of each batch by itself, so nothing that the engine
//! says of a batch is believed.

use std::collections::BTreeMap;

use bytes::Bytes;
use forebay_engine::{
    AppendError, Appended, Durability, Fetched, LeaderEpoch, Log, LogConfig, LogId, LogName, Marks,
    Offset, ProducerEpoch, ProducerId, Timestamp,
    batch::{BatchHeader, DECOMPRESSED_BYTES_MAX, Records},
    log::{OffsetAndTime, ReadLimit},
};

/// One batch as the log has to hold it.
#[derive(Clone, Debug)]
pub struct Held {
    pub header: BatchHeader,
    pub bytes: Bytes,
}

impl Held {
    pub fn new(bytes: Bytes) -> Held {
        let header = BatchHeader::parse(&bytes).expect("a batch of ours");
        Held { header, bytes }
    }

    pub fn base(&self) -> i64 {
        self.header.base_offset.get()
    }

    pub fn next(&self) -> i64 {
        self.header.next_offset().get()
    }
}

/// A batch that an idempotent producer sent, as it was before the log gave it its offset.
#[derive(Clone, Debug)]
pub struct Sent {
    pub bytes: Bytes,
    pub header: BatchHeader,
}

/// The client's side of one idempotent producer.
#[derive(Clone, Debug, Default)]
pub struct Producer {
    pub epoch: i16,
    pub next_sequence: i32,
    /// The last few of this epoch, oldest first: what a client would send again.
    pub sent: Vec<Sent>,
}

/// What a producer's batch may be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    New,
    Duplicate(Offset),
    DuplicateSequence,
    OutOfOrder,
    Fenced,
}

/// How far the disk may have gone against what is assumed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Not at all: everything promised has to be there.
    Full,
    /// It lied somewhere: what is there has to be right, the rest may be missing.
    None,
}

#[derive(Clone)]
pub struct LogModel {
    pub id: LogId,
    pub name: LogName,
    pub config: LogConfig,
    /// By base offset: the log's batches, and below the log start what was there once.
    pub batches: BTreeMap<i64, Held>,
    /// What a truncation that has not returned may have taken away or not.
    undecided: BTreeMap<i64, Held>,
    /// What a truncation of this life took away, and which one: reads that began before it may still return it.
    cut: Vec<(u64, Held)>,
    pub cuts: u64,
    pub cutting: bool,
    /// Ends that the log may have while it is cut.
    cut_ends: (i64, i64),
    /// The log start is durable up to here, and nobody has asked for more than the maximum.
    log_start_min: i64,
    pub log_start_max: i64,
    /// Everything below was promised to survive.
    promised_end: i64,
    /// Appends from here on were made under `persisted`.
    persisted_from: i64,
    seen: Option<Marks>,
    /// A deletion has begun and not returned: the log may be gone, and with it everything.
    pub deleting: bool,
    /// Went offline in this life.
    pub faulted: bool,
    pub producers: Vec<Producer>,
}

impl LogModel {
    pub fn new(id: LogId, name: LogName, config: LogConfig, producers: usize) -> LogModel {
        LogModel {
            id,
            name,
            config,
            batches: BTreeMap::new(),
            undecided: BTreeMap::new(),
            cut: Vec::new(),
            cuts: 0,
            cutting: false,
            cut_ends: (0, 0),
            log_start_min: 0,
            log_start_max: 0,
            promised_end: 0,
            persisted_from: 0,
            seen: None,
            deleting: false,
            faulted: false,
            producers: vec![Producer::default(); producers],
        }
    }

    pub fn log_start(&self) -> i64 {
        self.seen.map_or(0, |marks| marks.log_start.get())
    }

    pub fn high_watermark(&self) -> i64 {
        self.seen.map_or(0, |marks| marks.high_watermark.get())
    }

    pub fn end(&self) -> i64 {
        let last = self.batches.values().next_back().map_or(0, Held::next);
        last.max(self.log_start())
    }

    pub fn append(&mut self, held: Held) {
        assert_eq!(held.base(), self.end(), "offsets follow");
        self.batches.insert(held.base(), held);
    }

    /// The log says where it stands. Called after every step, and at the moment of a crash.
    pub fn observe(&mut self, log: &Log) {
        let marks = log.marks();
        let name = &self.name;
        assert!(marks.log_start <= marks.last_stable, "{name}: {marks:?}");
        assert!(
            marks.last_stable <= marks.high_watermark,
            "{name}: {marks:?}"
        );
        assert!(marks.high_watermark <= marks.log_end, "{name}: {marks:?}");
        assert!(marks.durable_end <= marks.log_end, "{name}: {marks:?}");
        assert!(marks.counted_end <= marks.log_end, "{name}: {marks:?}");
        let log_end = marks.log_end.get();
        if let Some(seen) = self.seen {
            assert!(
                marks.log_start >= seen.log_start,
                "{name}: {seen:?} {marks:?}"
            );
            assert!(
                marks.high_watermark >= seen.high_watermark,
                "{name}: {seen:?} {marks:?}"
            );
            if !self.cutting {
                assert!(
                    marks.durable_end >= seen.durable_end,
                    "{name}: {seen:?} {marks:?}"
                );
                assert!(
                    marks.counted_end >= seen.counted_end,
                    "{name}: {seen:?} {marks:?}"
                );
            }
        }
        if self.retains() {
            self.log_start_max = self.log_start_max.max(marks.high_watermark.get());
        }
        assert!(
            marks.log_start.get() <= self.log_start_max,
            "{name}: nobody asked for log start {}, but for {}",
            marks.log_start,
            self.log_start_max
        );
        self.seen = Some(marks);
        if self.cutting {
            let (before, after) = self.cut_ends;
            assert!(
                [before, after].contains(&log_end),
                "{name}: ends at {log_end} in a cut from {before} to {after}"
            );
        } else {
            assert_eq!(log_end, self.end(), "{name}: log end");
        }
        // What a truncation in progress may take away is not promised.
        let bound = self.undecided.keys().next().copied().unwrap_or(i64::MAX);
        let mut promised = marks.durable_end.get();
        if self.config.durability == Durability::Persisted {
            let counted = marks.counted_end.get();
            if counted > self.persisted_from {
                promised = promised.max(counted);
            }
        } else {
            assert!(self.cutting || self.faulted || marks.counted_end == marks.log_end);
        }
        self.promised_end = self.promised_end.max(promised.min(bound));
    }

    fn retains(&self) -> bool {
        self.config.retention_bytes.is_some() || self.config.retention_ms.is_some()
    }

    pub fn configured(&mut self, config: LogConfig) {
        if config.durability != self.config.durability {
            self.persisted_from = self.end();
        }
        self.config = config;
    }

    /// `truncate_to` is about to be called.
    pub fn begin_cut(&mut self, offset: i64) {
        let before = self.end();
        let all = std::mem::take(&mut self.batches);
        let (kept, taken) = all.into_iter().partition(|(_, held)| held.next() <= offset);
        self.batches = kept;
        self.undecided = taken;
        self.cutting = true;
        self.cut_ends = (before, self.end());
        self.promised_end = self.promised_end.min(self.end());
    }

    /// It has returned; after a fault nobody knows what it did.
    pub fn end_cut(&mut self, done: bool) {
        if !done {
            self.faulted = true;
            return;
        }
        self.cutting = false;
        // What counts from here on was appended after it; until now it could be what had counted under `replicated`.
        self.persisted_from = self.persisted_from.min(self.end());
        self.cuts += 1;
        let taken = std::mem::take(&mut self.undecided);
        self.cut
            .extend(taken.into_values().map(|held| (self.cuts, held)));
        if let Some(seen) = &mut self.seen {
            let end = Offset::new(self.cut_ends.1);
            seen.durable_end = seen.durable_end.min(end);
            seen.counted_end = seen.counted_end.min(end);
            seen.log_end = seen.log_end.min(end);
        }
    }

    /// The log is online again: nothing of it was lost, and of a cut that failed it is known now whether it was made.
    pub fn mended(&mut self, log: &Log) {
        self.faulted = false;
        if !self.cutting {
            return;
        }
        let (before, after) = self.cut_ends;
        match log.marks().log_end.get() {
            end if end == before => {
                self.cutting = false;
                self.batches.append(&mut self.undecided);
            }
            end if end == after => self.end_cut(true),
            end => panic!(
                "{}: ends at {end} after a cut from {before} to {after}",
                self.name
            ),
        }
    }

    /// As it is if a cut that failed was not made, and where it ends if it was. One at rest that could not be woken for a cut still has all.
    pub fn uncut(&self) -> (LogModel, i64) {
        let mut uncut = self.clone();
        uncut.batches.append(&mut uncut.undecided);
        (uncut, self.end())
    }

    /// `delete_to` has returned: this log start is durable.
    pub fn deleted_to(&mut self, log_start: i64) {
        self.log_start_min = self.log_start_min.max(log_start);
    }

    /// Everything in the log is promised: it was closed in order. Of one at rest that could not be woken the model does not know all.
    pub fn closed(&mut self) {
        if self.faulted {
            return;
        }
        assert!(!self.cutting);
        self.promised_end = self.end();
        self.log_start_min = self.log_start();
    }

    /// Whether the log may hold this batch, for a reader that came when so many cuts had been made.
    fn may_hold(&self, bytes: &Bytes, base: i64, cuts: u64) -> bool {
        let holds = |batches: &BTreeMap<i64, Held>| {
            batches.get(&base).is_some_and(|held| held.bytes == *bytes)
        };
        let held_before =
            |(cut, held): &(u64, Held)| *cut > cuts && held.base() == base && held.bytes == *bytes;
        holds(&self.batches) || holds(&self.undecided) || self.cut.iter().any(held_before)
    }

    /// Checks what a read from `from` returned that began when `cuts` cuts had been made.
    pub fn check_read(&self, from: i64, limit: ReadLimit, fetched: &Fetched, cuts: u64) {
        let name = &self.name;
        let bytes: usize = fetched.slices.iter().map(Bytes::len).sum();
        assert_eq!(bytes, fetched.bytes, "{name}: bytes of a read from {from}");
        let single = fetched.slices.len() == 1 && limit.at_least_one;
        assert!(
            single || bytes <= limit.bytes_max,
            "{name}: more than was asked for"
        );
        let mut next = None;
        for slice in &fetched.slices {
            let held = Held::new(slice.clone());
            assert_eq!(
                held.header.total_len,
                slice.len(),
                "{name}: one batch per slice"
            );
            let base = held.base();
            match next {
                None => assert!(
                    (base..held.next()).contains(&from),
                    "{name}: a read from {from} began at {base}"
                ),
                Some(next) => assert_eq!(base, next, "{name}: a hole in a read from {from}"),
            }
            assert!(
                held.next() <= limit.below.get(),
                "{name}: {base} is above the limit"
            );
            assert!(
                self.may_hold(slice, base, cuts),
                "{name}: the batch at {base}, read from {from}, was not appended there"
            );
            next = Some(held.next());
        }
        assert_eq!(
            fetched.next.map(Offset::get),
            next,
            "{name}: where to go on"
        );
        let first = self
            .batch_of(from)
            .filter(|held| held.next() <= limit.below.get());
        let unchanged = self.cuts == cuts && !self.cutting;
        if limit.at_least_one && unchanged && from >= self.log_start() && first.is_some() {
            assert!(
                next.is_some(),
                "{name}: nothing at {from}, below {}",
                limit.below
            );
        }
    }

    /// Whatever else is gone: what a read returned was appended there.
    pub fn check_slices(&self, fetched: &Fetched, cuts: u64) {
        for slice in &fetched.slices {
            let held = Held::new(slice.clone());
            let base = held.base();
            assert!(
                self.may_hold(slice, base, cuts),
                "{}: the batch at {base} was not appended there",
                self.name
            );
        }
    }

    /// The batch that holds `offset`.
    pub fn batch_of(&self, offset: i64) -> Option<&Held> {
        let (_, held) = self.batches.range(..=offset).next_back()?;
        (offset < held.next()).then_some(held)
    }

    /// The first record at or after the log start, below `below`, that is not older.
    pub fn first_at(&self, timestamp: Timestamp, below: i64) -> Option<OffsetAndTime> {
        let log_start = self.log_start();
        let wanted = |held: &&Held| held.next() > log_start && held.next() <= below;
        for held in self.batches.values().filter(wanted) {
            if held.header.max_timestamp < timestamp {
                continue;
            }
            for record in records(held) {
                if record.timestamp >= timestamp && record.offset.get() >= log_start {
                    return Some(OffsetAndTime {
                        leader_epoch: held.header.leader_epoch,
                        ..record
                    });
                }
            }
        }
        None
    }

    pub fn max_timestamp(&self, below: i64) -> Option<Timestamp> {
        let log_start = self.log_start();
        let within = self.batches.values();
        let within = within.filter(|held| held.next() > log_start && held.next() <= below);
        within
            .flat_map(records)
            .filter(|record| record.offset.get() >= log_start)
            .map(|record| record.timestamp)
            .max()
    }

    /// Takes over what recovery found, after checking it.
    pub fn accept(&mut self, log: &Log, found: &[Held], trust: Trust) {
        let name = self.name.clone();
        let marks = log.marks();
        let (log_start, log_end) = (marks.log_start.get(), marks.log_end.get());
        say!(
            "{name} recovered: {marks:?}, promised {}",
            self.promised_end
        );
        if trust == Trust::Full && !self.deleting {
            assert!(
                log_end >= self.promised_end,
                "{name}: ends at {log_end}, but everything below {} was promised",
                self.promised_end
            );
            if self.retains() {
                // It may have gone on before anybody looked.
                self.log_start_max = self.log_start_max.max(self.end());
            }
            assert!(
                (self.log_start_min..=self.log_start_max).contains(&log_start),
                "{name}: log start {log_start} outside of {} to {}",
                self.log_start_min,
                self.log_start_max
            );
        }
        // What was cut stays cut, unless the disk lost the write that said so.
        let cuts = match trust {
            Trust::None => 0,
            _ => u64::MAX,
        };
        let mut next = None;
        for held in found {
            if let Some(next) = next {
                // Where the disk lost what it had confirmed a start bridges what is missing: the offsets of it are not used again.
                let is_bridged = trust == Trust::None && held.base() > next;
                assert!(
                    held.base() == next || is_bridged,
                    "{name}: a hole in the log from {next} to {}",
                    held.base()
                );
            }
            next = Some(held.next());
            assert!(
                self.may_hold(&held.bytes, held.base(), cuts),
                "{name}: the batch at {} was not appended there",
                held.base()
            );
        }
        assert_eq!(
            next.unwrap_or(log_end),
            log_end,
            "{name}: ends with its last batch"
        );
        let first = found.first().map_or(log_end, Held::base);
        self.batches.retain(|_, held| held.next() <= first);
        for held in found {
            self.batches.insert(held.base(), held.clone());
        }
        self.undecided.clear();
        self.cut.clear();
        self.cuts = 0;
        self.cutting = false;
        self.faulted = false;
        self.log_start_min = log_start;
        self.log_start_max = log_start;
        self.promised_end = log_end;
        self.persisted_from = 0;
        self.seen = Some(marks);
        self.check_derived(log);
    }

    /// Epochs and producers follow from the batches.
    pub fn check_derived(&self, log: &Log) {
        let name = &self.name;
        let log_start = self.log_start();
        let above = self
            .batches
            .values()
            .filter(|held| held.base() >= log_start);
        let mut latest = None;
        for held in above {
            latest = Some(held.header.leader_epoch);
            assert_eq!(
                log.epoch_at(held.header.base_offset),
                latest,
                "{name}: epoch at {}",
                held.base()
            );
        }
        if let Some(latest) = latest {
            assert_eq!(log.latest_epoch(), Some(latest), "{name}: latest epoch");
            let end = log.end_of_epoch(latest);
            assert_eq!(
                end,
                Some((latest, Offset::new(self.end()))),
                "{name}: end of {latest}"
            );
        }
        for (id, epoch, sequence, offset, _) in log.producers() {
            let history = self.history(id);
            let last = history
                .last()
                .unwrap_or_else(|| panic!("{name}: producer {id} is invented"));
            let known = (epoch, sequence, offset);
            let expected = (
                last.header
                    .producer
                    .map_or(ProducerEpoch(-1), |(_, epoch)| epoch),
                last.header.last_sequence(),
                last.header.last_offset(),
            );
            assert_eq!(known, expected, "{name}: producer {id}");
        }
    }

    /// The batches of a producer, oldest first, also those below the log start.
    fn history(&self, id: ProducerId) -> Vec<&Held> {
        let of = |held: &&Held| {
            held.header
                .producer
                .is_some_and(|(producer, _)| producer == id)
        };
        self.batches.values().filter(of).collect()
    }

    /// What the log may answer to this batch. Batches below the log start may be forgotten, in the order of their offsets.
    pub fn answers(&self, header: &BatchHeader) -> Vec<Answer> {
        let Some((id, _)) = header.producer else {
            return vec![Answer::New];
        };
        let history = self.history(id);
        let log_start = self.log_start();
        let deleted = history
            .iter()
            .filter(|held| held.next() <= log_start)
            .count();
        (0..=deleted)
            .map(|forgotten| answer(&history[forgotten..], header))
            .collect()
    }

    /// Checks the log's answer, and says whether the batch is new.
    pub fn check_answer(
        &self,
        header: &BatchHeader,
        answers: &[Answer],
        result: &Result<Appended, AppendError>,
    ) -> bool {
        let answer = match result {
            Ok(appended) if appended.duplicate => Answer::Duplicate(appended.base_offset),
            Ok(_) => Answer::New,
            Err(AppendError::DuplicateSequence) => Answer::DuplicateSequence,
            Err(AppendError::OutOfOrderSequence { .. }) => Answer::OutOfOrder,
            Err(AppendError::ProducerFenced { .. }) => Answer::Fenced,
            Err(_) => return false,
        };
        assert!(
            answers.contains(&answer),
            "{}: {answer:?} to sequence {} of {:?}, expected one of {answers:?}",
            self.name,
            header.base_sequence,
            header.producer
        );
        answer == Answer::New
    }

    /// After a crash or a cut: producers go on from the last batch that is there.
    pub fn resume_producers(&mut self) {
        for id in 0..self.producers.len() {
            let last = self
                .history(ProducerId(id as i64))
                .last()
                .map(|held| held.header);
            let producer = &mut self.producers[id];
            match last {
                Some(BatchHeader {
                    producer: Some((_, epoch)),
                    ..
                }) => {
                    if epoch.0 != producer.epoch {
                        producer.sent.clear();
                    }
                    producer.epoch = epoch.0;
                    producer.next_sequence = last.map_or(0, |header| header.last_sequence() + 1);
                }
                _ => {
                    producer.next_sequence = producer
                        .sent
                        .first()
                        .map_or(0, |sent| sent.header.base_sequence);
                }
            }
        }
    }
}

/// The rules for idempotent producers, from the batches that are remembered, oldest first.
fn answer(history: &[&Held], header: &BatchHeader) -> Answer {
    let epoch_of = |header: &BatchHeader| header.producer.map(|(_, epoch)| epoch);
    let Some(last) = history.last() else {
        return Answer::New;
    };
    if epoch_of(header) < epoch_of(&last.header) {
        return Answer::Fenced;
    }
    let of_epoch = history
        .iter()
        .rev()
        .take_while(|held| epoch_of(&held.header) == epoch_of(header));
    let recent: Vec<&BatchHeader> = of_epoch.take(5).map(|held| &held.header).collect();
    let Some(last) = recent.first() else {
        return match header.base_sequence {
            0 => Answer::New,
            _ => Answer::OutOfOrder,
        };
    };
    if header.base_sequence == last.last_sequence() + 1 {
        return Answer::New;
    }
    let sequences = |header: &BatchHeader| (header.base_sequence, header.last_sequence());
    if let Some(same) = recent
        .iter()
        .find(|known| sequences(known) == sequences(header))
    {
        return Answer::Duplicate(same.base_offset);
    }
    let oldest = recent.last().expect("there is a first");
    match recent.len() == 5 && header.last_sequence() < oldest.base_sequence {
        true => Answer::DuplicateSequence,
        false => Answer::OutOfOrder,
    }
}

fn records(held: &Held) -> Vec<OffsetAndTime> {
    let records = Records::new(&held.bytes, DECOMPRESSED_BYTES_MAX).expect("our own batch");
    let place = |record: forebay_engine::batch::Record| OffsetAndTime {
        offset: record.offset,
        timestamp: record.timestamp,
        leader_epoch: LeaderEpoch(-1),
    };
    records
        .map(|record| place(record.expect("our own record")))
        .collect()
}
