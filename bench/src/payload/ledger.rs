//! What was received, held against what was acknowledged.

use std::collections::HashMap;

use super::{Damage, Stamp, intervals::Intervals};
use crate::result::run::Safety;

/// Ranges of one stream beyond which nothing is kept: what arrives in so many pieces is wrong anyway, and memory has an end.
const PIECES_MAX: usize = 100_000;

/// Of one producer's records in one partition.
#[derive(Clone, Debug, Default)]
struct Stream {
    received: Intervals,
    duplicated: u64,
    reordered: u64,
}

/// Of one consumer, or of several together.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Without it, records of all runs are taken.
    run_id: Option<u32>,
    streams: HashMap<(u32, u32), Stream>,
    corrupt: u64,
    foreign: u64,
    /// Records that were not accounted for, since a stream had too many gaps.
    beyond: u64,
}

/// What producers were told is safe.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    streams: HashMap<u32, Intervals>,
}

impl Acknowledged {
    pub fn record(&mut self, stream: u32, sequence: u64) {
        self.streams.entry(stream).or_default().insert(sequence);
    }

    pub fn add(&mut self, other: Acknowledged) {
        for (stream, sequences) in other.streams {
            self.streams.entry(stream).or_default().merge(&sequences);
        }
    }
}

impl Ledger {
    /// Of the records of one run; others are passed over.
    pub fn of_run(run_id: u32) -> Ledger {
        Ledger {
            run_id: Some(run_id),
            ..Ledger::default()
        }
    }

    /// Of all records that this program ever wrote.
    pub fn of_all() -> Ledger {
        Ledger::default()
    }

    pub fn receive(&mut self, stamp: &Result<Stamp, Damage>) {
        let stamp = match stamp {
            Ok(stamp) if self.run_id.is_none_or(|run_id| run_id == stamp.run_id) => stamp,
            Ok(_) | Err(Damage::Foreign) => {
                self.foreign += 1;
                return;
            }
            Err(Damage::Corrupt) => {
                self.corrupt += 1;
                return;
            }
        };
        let stream = self
            .streams
            .entry((stamp.run_id, stamp.stream))
            .or_default();
        if stream.received.pieces() >= PIECES_MAX && stream.received.opens_a_piece(stamp.sequence) {
            self.beyond += 1;
            return;
        }
        let behind = stream
            .received
            .last()
            .is_some_and(|last| stamp.sequence < last);
        if !stream.received.insert(stamp.sequence) {
            stream.duplicated += 1;
        } else if behind {
            stream.reordered += 1;
        }
    }

    /// Of another consumer, which read other partitions, or some of the same again.
    pub fn add(&mut self, other: Ledger) {
        for (id, theirs) in other.streams {
            let ours = self.streams.entry(id).or_default();
            ours.duplicated += theirs.duplicated + ours.received.shared_with(&theirs.received);
            ours.reordered += theirs.reordered;
            ours.received.merge(&theirs.received);
        }
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        self.beyond += other.beyond;
    }

    /// What became of the acknowledged records of the run. What was not acknowledged may be there or not.
    pub fn settle(&self, run_id: u32, acknowledged: &Acknowledged) -> Safety {
        let mut safety = self.seen();
        safety.checked = 0;
        safety.lost = 0;
        for (stream, sequences) in &acknowledged.streams {
            let received = self.streams.get(&(run_id, *stream));
            let found = received.map_or(0, |stream| sequences.shared_with(&stream.received));
            safety.checked += sequences.count();
            safety.lost += sequences.count() - found;
        }
        safety
    }

    /// When nobody knows what was acknowledged: what lies between the first and the last of a stream must be there.
    pub fn seen(&self) -> Safety {
        let mut safety = Safety {
            corrupt: self.corrupt,
            ..Safety::default()
        };
        for stream in self.streams.values() {
            let (first, last) = (stream.received.first(), stream.received.last());
            let span = first.zip(last).map_or(0, |(first, last)| last - first + 1);
            safety.checked += span;
            safety.lost += span - stream.received.count();
            safety.duplicated += stream.duplicated;
            safety.reordered += stream.reordered;
        }
        safety
    }

    /// Records of other programs, or of other runs.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Received and not accounted for.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u32 = 9;

    fn stamp(stream: u32, sequence: u64) -> Result<Stamp, Damage> {
        Ok(Stamp {
            run_id: RUN,
            stream,
            sequence,
            planned: 0,
            sent: 0,
        })
    }

    fn check(received: &[u64], acknowledged: &[u64], expected: Safety) {
        let mut ledger = Ledger::of_run(RUN);
        for sequence in received {
            ledger.receive(&stamp(1, *sequence));
        }
        let mut acks = Acknowledged::default();
        for sequence in acknowledged {
            acks.record(1, *sequence);
        }
        assert_eq!(
            ledger.settle(RUN, &acks),
            expected,
            "{received:?} of {acknowledged:?}"
        );
    }

    #[test]
    fn every_acknowledged_record_is_accounted_for() {
        let clean = |checked| Safety {
            checked,
            ..Safety::default()
        };
        check(&[], &[], clean(0));
        check(&[0, 1, 2], &[0, 1, 2], clean(3));
        // Not acknowledged and there, or not there: either is right.
        check(&[0, 1, 2, 3], &[0, 2], clean(2));
        let lost = |checked, lost| Safety {
            checked,
            lost,
            ..Safety::default()
        };
        check(&[0, 2], &[0, 1, 2], lost(3, 1));
        check(&[0, 1], &[0, 1, 2, 3], lost(4, 2));
        check(&[], &[0, 1], lost(2, 2));
        let duplicated = Safety {
            duplicated: 2,
            ..clean(2)
        };
        check(&[0, 0, 1, 0], &[0, 1], duplicated);
        let reordered = Safety {
            reordered: 1,
            ..clean(3)
        };
        check(&[0, 2, 1], &[0, 1, 2], reordered);
    }

    #[test]
    fn other_runs_and_damage_are_told_apart() {
        let mut ledger = Ledger::of_run(RUN + 1);
        ledger.receive(&stamp(1, 0));
        ledger.receive(&Err(Damage::Foreign));
        ledger.receive(&Err(Damage::Corrupt));
        assert_eq!(ledger.foreign(), 2);
        assert_eq!(ledger.seen().corrupt, 1);
        assert!(!ledger.seen().is_clean());
    }

    #[test]
    fn what_two_consumers_had_adds_up() {
        let (mut one, mut other) = (Ledger::of_all(), Ledger::of_all());
        for sequence in 5..10 {
            one.receive(&stamp(1, sequence));
        }
        for sequence in 9..12 {
            other.receive(&stamp(1, sequence));
        }
        other.receive(&stamp(2, 0));
        one.add(other);
        let seen = one.seen();
        assert_eq!((seen.checked, seen.lost, seen.duplicated), (8, 0, 1));
    }

    #[test]
    fn memory_has_an_end() {
        let mut ledger = Ledger::of_all();
        for index in 0..=PIECES_MAX as u64 {
            ledger.receive(&stamp(1, index * 2));
        }
        assert_eq!(ledger.beyond(), 1);
        ledger.receive(&stamp(1, 1));
        assert_eq!(ledger.beyond(), 1, "what closes a gap is taken");
    }
}
