//! The epochs of a log and where each starts; cut together with it.
//!
//! Both the epochs and their start offsets grow strictly. The list holds the epochs of the batches in the log and nothing
//! else: leaders that wrote nothing leave no trace.

use rkyv::{Archive, Deserialize, Serialize};

use crate::types::{LeaderEpoch, Offset};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    epoch: LeaderEpoch,
    start: Offset,
}

/// Plain data for the checkpoint: (epoch, start offset), in order.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochsSnapshot {
    pub entries: Vec<(i32, i64)>,
}

impl Epochs {
    /// Notes that the batch at `base_offset` was written in `epoch`. Panics if an earlier batch has a later epoch: the
    /// log's owner compares with [`Epochs::latest`] where bytes come from a disk.
    pub fn append(&mut self, epoch: LeaderEpoch, base_offset: Offset) {
        let start = base_offset;
        if let Some(last) = self.entries.last() {
            if last.epoch == epoch {
                assert!(last.start <= start, "offsets of one epoch grow");
                return;
            }
            assert!(last.epoch < epoch, "epochs never go back");
            assert!(last.start <= start, "offsets grow");
            if last.start == start {
                // All its batches were deleted, and it was trimmed to the log end.
                self.entries.pop();
            }
        }
        assert!(epoch.0 >= 0, "every batch in the log has an epoch");
        self.entries.push(Entry { epoch, start });
    }

    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The log now ends at `end`.
    pub fn truncate_to(&mut self, end: Offset) {
        let keep = self.entries.partition_point(|entry| entry.start < end);
        self.entries.truncate(keep);
    }

    /// The log now starts at `log_start`: the epoch that covers it starts there, those before it are gone.
    pub fn trim_to(&mut self, log_start: Offset) {
        let started = self
            .entries
            .partition_point(|entry| entry.start <= log_start);
        if started == 0 {
            return;
        }
        self.entries.drain(..started - 1);
        self.entries[0].start = log_start;
    }

    /// Kafka's OffsetForLeaderEpoch: the largest epoch at or below `epoch` and the offset where it ends. For an epoch older than
    /// all in the list that is `epoch` itself, ending where the list begins; for one newer than all, `None`.
    pub fn end_of_epoch(
        &self,
        epoch: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let later = self.entries.partition_point(|entry| entry.epoch <= epoch);
        match (later.checked_sub(1), self.entries.get(later)) {
            (Some(floor), Some(next)) => Some((self.entries[floor].epoch, next.start)),
            (None, Some(first)) => Some((epoch, first.start)),
            (Some(last), None) if self.entries[last].epoch == epoch => Some((epoch, log_end)),
            (_, None) => None,
        }
    }

    /// The epoch of the record at `offset`, which must lie in the log.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let started = self.entries.partition_point(|entry| entry.start <= offset);
        started
            .checked_sub(1)
            .map(|index| self.entries[index].epoch)
    }

    /// (epoch, start offset), oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (LeaderEpoch, Offset)> + '_ {
        self.entries.iter().map(|entry| (entry.epoch, entry.start))
    }

    pub fn snapshot(&self) -> EpochsSnapshot {
        EpochsSnapshot {
            entries: self.iter().map(|(e, start)| (e.0, start.get())).collect(),
        }
    }

    /// `None` if the data cannot be a list of ours.
    pub fn restore(snapshot: &EpochsSnapshot) -> Option<Epochs> {
        let mut entries: Vec<Entry> = Vec::with_capacity(snapshot.entries.len());
        for &(epoch, start) in &snapshot.entries {
            let start = Offset::from_wire(start)?;
            let epoch = LeaderEpoch(epoch);
            let follows = entries
                .last()
                .is_none_or(|last| last.epoch < epoch && last.start < start);
            if epoch.0 < 0 || !follows {
                return None;
            }
            entries.push(Entry { epoch, start });
        }
        Some(Epochs { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_whose_batches_were_all_deleted_gives_way() {
        let mut epochs = Epochs::default();
        epochs.append(LeaderEpoch(1), Offset::new(0));
        epochs.trim_to(Offset::new(7));
        assert_eq!(epochs.latest(), Some(LeaderEpoch(1)));
        epochs.append(LeaderEpoch(2), Offset::new(7));
        let entries: Vec<_> = epochs.iter().collect();
        assert_eq!(entries, [(LeaderEpoch(2), Offset::new(7))]);
    }

    fn list(entries: &[(i32, i64)]) -> Epochs {
        let entries = entries.to_vec();
        Epochs::restore(&EpochsSnapshot { entries }).expect("in order")
    }

    fn entries(epochs: &Epochs) -> Vec<(i32, i64)> {
        epochs.snapshot().entries
    }

    #[test]
    fn only_the_first_batch_of_an_epoch_is_noted() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.latest(), None);
        for (epoch, base) in [(0, 0), (0, 5), (3, 9), (3, 11), (4, 12)] {
            epochs.append(LeaderEpoch(epoch), Offset::new(base));
        }
        assert_eq!(entries(&epochs), [(0, 0), (3, 9), (4, 12)]);
        assert_eq!(epochs.latest(), Some(LeaderEpoch(4)));
    }

    #[test]
    #[should_panic(expected = "epochs never go back")]
    fn an_older_epoch_after_a_newer_one_is_a_bug() {
        list(&[(3, 0)]).append(LeaderEpoch(2), Offset::new(5));
    }

    #[test]
    fn cutting_the_end_drops_epochs_that_have_no_batch_left() {
        for (end, expected) in [
            (100, &[(1, 10), (3, 20), (7, 30)][..]),
            (31, &[(1, 10), (3, 20), (7, 30)]),
            (30, &[(1, 10), (3, 20)]),
            (11, &[(1, 10)]),
            (10, &[]),
            (0, &[]),
        ] {
            let mut epochs = list(&[(1, 10), (3, 20), (7, 30)]);
            epochs.truncate_to(Offset::new(end));
            assert_eq!(entries(&epochs), expected, "{end}");
        }
    }

    #[test]
    fn trimming_the_start_keeps_the_epoch_that_covers_it() {
        for (start, expected) in [
            (5, &[(1, 10), (3, 20), (7, 30)][..]),
            (10, &[(1, 10), (3, 20), (7, 30)]),
            (15, &[(1, 15), (3, 20), (7, 30)]),
            (20, &[(3, 20), (7, 30)]),
            (99, &[(7, 99)]),
        ] {
            let mut epochs = list(&[(1, 10), (3, 20), (7, 30)]);
            epochs.trim_to(Offset::new(start));
            assert_eq!(entries(&epochs), expected, "{start}");
        }
        let mut empty = Epochs::default();
        empty.trim_to(Offset::new(4));
        assert_eq!(empty, Epochs::default());
    }

    #[test]
    fn ends_of_epochs_are_kafkas() {
        let epochs = list(&[(1, 10), (3, 20), (7, 30)]);
        for (epoch, expected) in [
            (0, Some((0, 10))),
            (1, Some((1, 20))),
            (2, Some((1, 20))),
            (3, Some((3, 30))),
            (6, Some((3, 30))),
            (7, Some((7, 40))),
            (8, None),
        ] {
            let found = epochs.end_of_epoch(LeaderEpoch(epoch), Offset::new(40));
            let found = found.map(|(epoch, end)| (epoch.0, end.get()));
            assert_eq!(found, expected, "{epoch}");
        }
        let empty = Epochs::default();
        assert_eq!(empty.end_of_epoch(LeaderEpoch(0), Offset::ZERO), None);
    }

    #[test]
    fn every_offset_has_the_epoch_that_wrote_it() {
        let epochs = list(&[(1, 10), (3, 20)]);
        for (offset, expected) in [(9, None), (10, Some(1)), (19, Some(1)), (20, Some(3))] {
            let found = epochs.epoch_at(Offset::new(offset)).map(|epoch| epoch.0);
            assert_eq!(found, expected, "{offset}");
        }
    }

    #[test]
    fn lists_out_of_order_are_not_restored() {
        for entries in [
            vec![(2, 0), (1, 5)],
            vec![(1, 5), (2, 5)],
            vec![(-1, 0)],
            vec![(0, -1)],
        ] {
            assert_eq!(Epochs::restore(&EpochsSnapshot { entries }), None);
        }
    }
}
