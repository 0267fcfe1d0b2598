//! Idempotent producers: epoch and the last five batches of each, checked on append.
//!
//! A producer numbers its records; `check` says whether a batch continues the numbers, repeats one of the last five batches
//! (whose offsets are answered again), or neither. A producer that is not known here may begin with any sequence: its state may have
//! been forgotten, by age, by number or with deleted records.
//!
//! A cut of the log is not undone here: restore the snapshot of the last checkpoint and `update` with the headers from there on.
//! Transactions are not tracked yet; control batches only fence.

use std::collections::HashMap;

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    batch::BatchHeader,
    error::AppendError,
    types::{Offset, ProducerEpoch, ProducerId, Timestamp},
};

/// So many batches in flight are allowed to an idempotent producer (`max.in.flight.requests.per.connection`).
pub const BATCHES_PER_PRODUCER: usize = 5;

/// Producers remembered per log. One more, and the sixteenth of them that wrote longest ago is forgotten.
pub const PRODUCERS_MAX: usize = 16 * 1024;

/// What the sequence numbers of a batch say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    New,
    /// Written before, with these offsets.
    Duplicate {
        base_offset: Offset,
        last_offset: Offset,
        /// The maximum timestamp it was stored with: the append time, if the topic is `LogAppendTime`.
        max_timestamp: Timestamp,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Producers {
    by_id: HashMap<ProducerId, Producer>,
}

/// One producer, as tools ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
    /// -1 and `None` after a control batch that began a new epoch.
    pub last_sequence: i32,
    pub last_offset: Option<Offset>,
    pub last_timestamp: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Of the last batch, as the producer gave it.
    last_timestamp: Timestamp,
    /// When it was written, by the broker's clock.
    active_at: Timestamp,
    /// Offset of the last batch of any kind: orders producers by age.
    last_offset: Offset,
    /// Oldest first; the first `count` are filled.
    batches: [Written; BATCHES_PER_PRODUCER],
    count: u8,
}

/// One of the last batches of a producer.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: i64,
    pub last_offset: i64,
    pub max_timestamp: i64,
}

/// Plain data for the checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducersSnapshot {
    pub producers: Vec<ProducerSnapshot>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    pub id: i64,
    pub epoch: i16,
    pub last_timestamp: i64,
    pub active_at: i64,
    pub last_offset: i64,
    pub batches: Vec<Written>,
}

impl Producers {
    /// Whether a batch with this header may be appended now. Changes nothing.
    pub fn check(&self, header: &BatchHeader) -> Result<Check, AppendError> {
        let Some((id, epoch)) = header.producer else {
            return Ok(Check::New);
        };
        let Some(known) = self.by_id.get(&id) else {
            return Ok(Check::New);
        };
        if epoch < known.epoch {
            return Err(AppendError::ProducerFenced {
                current: known.epoch,
            });
        }
        if header.is_control() {
            return Ok(Check::New);
        }
        let got = header.base_sequence;
        assert!(got >= 0, "validation lets no producer pass without one");
        let batches = match epoch == known.epoch {
            true => known.batches(),
            false => &[],
        };
        let Some(last) = batches.last() else {
            // A new epoch, or one that so far has only a control batch.
            return match got {
                0 => Ok(Check::New),
                _ => Err(AppendError::OutOfOrderSequence { expected: 0, got }),
            };
        };
        let expected = sequence_after(last.last_sequence);
        if got == expected {
            return Ok(Check::New);
        }
        let last_sequence = header.last_sequence();
        let same = batches
            .iter()
            .find(|written| written.base_sequence == got && written.last_sequence == last_sequence);
        if let Some(written) = same {
            return Ok(Check::Duplicate {
                base_offset: Offset::new(written.base_offset),
                last_offset: Offset::new(written.last_offset),
                max_timestamp: Timestamp(written.max_timestamp),
            });
        }
        // Only when five are remembered can an older one have been forgotten.
        let oldest = batches[0].base_sequence;
        if batches.len() == BATCHES_PER_PRODUCER && is_before(last_sequence, oldest) {
            return Err(AppendError::DuplicateSequence);
        }
        Err(AppendError::OutOfOrderSequence { expected, got })
    }

    /// Notes a batch that was appended at `base_offset`, or found there by recovery. `now` is the broker's clock: idle time counts
    /// from it, since a producer's timestamps may lie years back.
    pub fn update(&mut self, header: &BatchHeader, base_offset: Offset, now: Timestamp) {
        let Some((id, epoch)) = header.producer else {
            return;
        };
        if self.by_id.len() >= PRODUCERS_MAX && !self.by_id.contains_key(&id) {
            self.forget_longest_idle();
        }
        let last_offset = base_offset.plus(i64::from(header.last_offset_delta));
        let known = self.by_id.entry(id).or_insert(Producer {
            epoch,
            last_timestamp: header.max_timestamp,
            active_at: now,
            last_offset,
            batches: Default::default(),
            count: 0,
        });
        if known.epoch != epoch {
            known.epoch = epoch;
            known.count = 0;
        }
        known.last_timestamp = header.max_timestamp;
        known.active_at = known.active_at.max(now);
        known.last_offset = last_offset;
        if !header.is_control() {
            known.push(Written {
                base_sequence: header.base_sequence,
                last_sequence: header.last_sequence(),
                base_offset: base_offset.get(),
                last_offset: last_offset.get(),
                max_timestamp: header.max_timestamp.0,
            });
        }
        assert!(self.by_id.len() <= PRODUCERS_MAX);
    }

    /// Forgets who has not written for longer than `idle_ms`.
    pub fn expire(&mut self, now: Timestamp, idle_ms: u64) {
        self.by_id.retain(|_, known| {
            let idle = now.0.saturating_sub(known.active_at.0);
            !u64::try_from(idle).is_ok_and(|idle| idle > idle_ms)
        });
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = ProducerState> + '_ {
        self.by_id.iter().map(|(&id, known)| {
            let last = known.batches().last();
            ProducerState {
                id,
                epoch: known.epoch,
                last_sequence: last.map_or(-1, |written| written.last_sequence),
                last_offset: last.map(|written| Offset::new(written.last_offset)),
                last_timestamp: known.last_timestamp,
            }
        })
    }

    /// Ordered by id, so that equal states give equal bytes.
    pub fn snapshot(&self) -> ProducersSnapshot {
        let mut producers: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, known)| ProducerSnapshot {
                id: id.0,
                epoch: known.epoch.0,
                last_timestamp: known.last_timestamp.0,
                active_at: known.active_at.0,
                last_offset: known.last_offset.get(),
                batches: known.batches().to_vec(),
            })
            .collect();
        producers.sort_unstable_by_key(|producer| producer.id);
        ProducersSnapshot { producers }
    }

    /// `None` if the data cannot be a snapshot of ours.
    pub fn restore(snapshot: &ProducersSnapshot) -> Option<Producers> {
        if snapshot.producers.len() > PRODUCERS_MAX {
            return None;
        }
        let mut by_id = HashMap::with_capacity(snapshot.producers.len());
        for saved in &snapshot.producers {
            if saved.id < 0 || saved.epoch < 0 || saved.batches.len() > BATCHES_PER_PRODUCER {
                return None;
            }
            let mut known = Producer {
                epoch: ProducerEpoch(saved.epoch),
                last_timestamp: Timestamp(saved.last_timestamp),
                active_at: Timestamp(saved.active_at),
                last_offset: Offset::from_wire(saved.last_offset)?,
                batches: Default::default(),
                count: 0,
            };
            for written in &saved.batches {
                let offsets_ok = 0 <= written.base_offset
                    && written.base_offset <= written.last_offset
                    && written.last_offset <= saved.last_offset;
                if !offsets_ok || written.base_sequence < 0 || written.last_sequence < 0 {
                    return None;
                }
                known.push(*written);
            }
            if by_id.insert(ProducerId(saved.id), known).is_some() {
                return None;
            }
        }
        Some(Producers { by_id })
    }

    fn forget_longest_idle(&mut self) {
        let mut offsets: Vec<Offset> = self.by_id.values().map(|p| p.last_offset).collect();
        // Last offsets differ between producers, so exactly a sixteenth goes.
        let (_, &mut newest_to_go, _) = offsets.select_nth_unstable(PRODUCERS_MAX / 16 - 1);
        self.by_id
            .retain(|_, known| known.last_offset > newest_to_go);
    }
}

impl Producer {
    fn batches(&self) -> &[Written] {
        &self.batches[..usize::from(self.count)]
    }

    fn push(&mut self, written: Written) {
        if usize::from(self.count) == BATCHES_PER_PRODUCER {
            self.batches.copy_within(1.., 0);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = written;
        self.count += 1;
    }
}

/// After 2^31-1 comes 0.
fn sequence_after(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

/// Whether `sequence` lies in the half of the circle before `other`.
fn is_before(sequence: i32, other: i32) -> bool {
    let distance = other.wrapping_sub(sequence) & i32::MAX;
    (1..=i32::MAX / 2).contains(&distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch::{BatchBuilder, Codec, attribute},
        testing::{Rng, for_seeds},
    };

    const NOW: Timestamp = Timestamp(1_000_000);

    fn header(id: i64, epoch: i16, base_sequence: i32, count: usize) -> BatchHeader {
        let mut builder = BatchBuilder::new(Codec::None).producer(
            ProducerId(id),
            ProducerEpoch(epoch),
            base_sequence,
        );
        for _ in 0..count {
            builder.push(Timestamp(5), None, None, &[]);
        }
        BatchHeader::parse(&builder.build()).unwrap()
    }

    fn marker(id: i64, epoch: i16) -> BatchHeader {
        let mut header = header(id, epoch, 0, 1);
        header.attributes |= attribute::CONTROL | attribute::TRANSACTIONAL;
        header.base_sequence = -1;
        header
    }

    /// A producer and its log: appends what `check` lets pass.
    #[derive(Default)]
    struct Appender {
        producers: Producers,
        end: i64,
    }

    impl Appender {
        fn append(&mut self, header: &BatchHeader) -> String {
            let base = Offset::new(self.end);
            match self.producers.check(header) {
                Ok(Check::New) => {
                    self.producers.update(header, base, NOW);
                    self.end += i64::from(header.record_count);
                    format!("at {base}")
                }
                Ok(Check::Duplicate {
                    base_offset,
                    last_offset,
                    ..
                }) => format!("again {base_offset}..={last_offset}"),
                Err(error) => error.to_string(),
            }
        }
    }

    #[test]
    fn sequences_follow_one_another() {
        let mut log = Appender::default();
        for (epoch, base_sequence, count, expected) in [
            // Nothing is known of the producer: any sequence will do.
            (0, 100, 3, "at 0"),
            (0, 103, 1, "at 3"),
            (0, 103, 1, "again 3..=3"),
            (0, 100, 3, "again 0..=2"),
            // Neither the same batch, nor the next, nor certainly an old one.
            (0, 100, 2, "sequence 100 does not follow, expected 104"),
            (0, 105, 1, "sequence 105 does not follow, expected 104"),
            (0, 90, 1, "sequence 90 does not follow, expected 104"),
            (0, 104, 2, "at 4"),
            (0, 106, 1, "at 6"),
            (0, 107, 1, "at 7"),
            (0, 108, 1, "at 8"),
            // Five later ones are remembered now.
            (0, 100, 3, "sequence was written long ago"),
            (0, 103, 1, "again 3..=3"),
            // A new epoch starts at 0 and fences the old one.
            (1, 109, 1, "sequence 109 does not follow, expected 0"),
            (1, 0, 1, "at 9"),
            (0, 109, 1, "producer epoch is older than 1"),
            (1, 0, 1, "again 9..=9"),
            (1, 1, 1, "at 10"),
        ] {
            let got = log.append(&header(7, epoch, base_sequence, count));
            assert_eq!(got, expected, "epoch {epoch} sequence {base_sequence}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut log = Appender::default();
        for (base_sequence, count, expected) in [
            (i32::MAX - 1, 2, "at 0"),
            (0, 2, "at 2"),
            (i32::MAX - 1, 2, "again 0..=1"),
            (2, 1, "at 4"),
        ] {
            assert_eq!(log.append(&header(1, 0, base_sequence, count)), expected);
        }
        let mut log = Appender::default();
        assert_eq!(log.append(&header(1, 0, i32::MAX, 3)), "at 0");
        assert_eq!(log.append(&header(1, 0, 2, 1)), "at 3");
    }

    #[test]
    fn a_marker_fences_and_the_next_epoch_starts_at_zero() {
        let mut log = Appender::default();
        log.append(&header(1, 0, 0, 1));
        assert_eq!(log.append(&marker(1, 1)), "at 1");
        assert_eq!(
            log.append(&header(1, 0, 1, 1)),
            "producer epoch is older than 1"
        );
        assert_eq!(
            log.append(&header(1, 1, 1, 1)),
            "sequence 1 does not follow, expected 0"
        );
        assert_eq!(log.append(&header(1, 1, 0, 1)), "at 2");
        // A marker of the same epoch does not disturb the sequences.
        assert_eq!(log.append(&marker(1, 1)), "at 3");
        assert_eq!(log.append(&header(1, 1, 1, 1)), "at 4");
    }

    #[test]
    fn idle_producers_expire() {
        let mut producers = Producers::default();
        producers.update(&header(1, 0, 0, 1), Offset::ZERO, NOW);
        producers.update(&header(2, 0, 0, 1), Offset::new(1), Timestamp(NOW.0 + 50));
        producers.expire(Timestamp(NOW.0 + 100), 100);
        assert_eq!(producers.len(), 2);
        producers.expire(Timestamp(NOW.0 + 101), 100);
        assert_eq!(producers.len(), 1);
        assert_eq!(producers.iter().next().unwrap().id, ProducerId(2));
    }

    #[test]
    fn the_longest_idle_make_room() {
        let mut producers = Producers::default();
        let template = header(0, 0, 0, 1);
        for id in 0..=PRODUCERS_MAX as i64 {
            let mut header = template;
            header.producer = Some((ProducerId(id), ProducerEpoch(0)));
            producers.update(&header, Offset::new(id), NOW);
        }
        let gone = PRODUCERS_MAX / 16;
        assert_eq!(producers.len(), PRODUCERS_MAX + 1 - gone);
        let oldest = producers.iter().map(|state| state.id.0).min();
        assert_eq!(oldest, Some(gone as i64));
    }

    #[test]
    fn a_restored_snapshot_answers_as_the_original() {
        for_seeds(50, |seed| {
            let mut rng = Rng::new(seed);
            let (mut log, mut twin) = (Appender::default(), Appender::default());
            for _ in 0..200 {
                let id = rng.below(4) as i64;
                let epoch = rng.below(100) as i16 / 70;
                let sequence = rng.below(6) as i32;
                let header = header(id, epoch, sequence, 1 + rng.below(2));
                assert_eq!(log.append(&header), twin.append(&header));
                if rng.chance(10) {
                    let snapshot = twin.producers.snapshot();
                    assert_eq!(snapshot, log.producers.snapshot());
                    twin.producers = Producers::restore(&snapshot).expect("ours");
                }
            }
        });
    }

    #[test]
    fn impossible_snapshots_are_not_restored() {
        let mut producers = Producers::default();
        producers.update(&header(1, 0, 0, 1), Offset::ZERO, NOW);
        let good = producers.snapshot();
        assert!(Producers::restore(&good).is_some());
        let check = |damage: fn(&mut ProducerSnapshot)| {
            let mut bad = good.clone();
            damage(&mut bad.producers[0]);
            assert!(Producers::restore(&bad).is_none());
        };
        check(|producer| producer.id = -1);
        check(|producer| producer.epoch = -1);
        check(|producer| producer.last_offset = -1);
        check(|producer| producer.batches = vec![producer.batches[0]; 6]);
        check(|producer| producer.batches[0].base_offset = 9);
        check(|producer| producer.batches[0].base_sequence = -1);
        let mut twice = good.clone();
        twice.producers.extend(good.producers);
        assert!(Producers::restore(&twice).is_none());
    }
}
