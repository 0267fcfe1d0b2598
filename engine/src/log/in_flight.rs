//! The writes of one log that are at the disk, in the order of offsets.
//!
//! Several durable writes may be there together, of which each but the last leaves the block in which it ends to the next one. They end in
//! any order and count in theirs: what is in the segment is a prefix. A write behind the answer is alone.

use std::collections::VecDeque;

use crate::{segment::End, types::Offset};

/// So many durable writes of one log: while the disk makes one durable it takes the bytes of another.
const AT_DISK_MAX: usize = 2;

/// What waits is divided into so many writes, so that there is one to follow when another ends.
const SHARES: usize = 4;

/// Name of a write: one more with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteNumber(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landed {
    /// Everything below is in the segment.
    pub end: Offset,
    pub durable: bool,
}

#[derive(Debug)]
struct Flying {
    lands: Landed,
    end: End,
    at_disk: bool,
}

#[derive(Debug, Default)]
pub struct InFlight {
    writes: VecDeque<Flying>,
    /// Number of the first of `writes`, or of the next one to come.
    first: u64,
}

impl InFlight {
    /// Nothing is at the disk.
    pub fn is_quiet(&self) -> bool {
        self.writes.iter().all(|write| !write.at_disk)
    }

    /// The end of the last write waits for one more.
    pub fn is_end_left(&self) -> bool {
        self.writes.back().is_some_and(|last| last.end == End::Left)
    }

    /// Whether a durable write may join those that are at the disk.
    pub fn may_join(&self) -> bool {
        let at_disk = self.writes.iter().filter(|write| write.at_disk).count();
        self.is_end_left() && at_disk < AT_DISK_MAX
    }

    /// How large each of several durable writes should be when so many bytes wait.
    pub fn share_of(waiting_bytes: usize) -> usize {
        waiting_bytes.div_ceil(SHARES)
    }

    pub fn begin(&mut self, lands: Landed, end: End) -> WriteNumber {
        assert!(
            self.is_quiet() || (lands.durable && self.may_join()),
            "a write behind is alone, and no two writes share a block"
        );
        if let Some(last) = self.writes.back() {
            assert!(lands.end > last.lands.end, "writes begin in order");
        }
        assert!(
            lands.durable || end == End::Padded,
            "only durable writes leave their end"
        );
        self.writes.push_back(Flying {
            lands,
            end,
            at_disk: true,
        });
        WriteNumber(self.first + self.writes.len() as u64 - 1)
    }

    pub fn ended(&mut self, number: WriteNumber) {
        let at = number.0.checked_sub(self.first).expect("it has not landed");
        let write = &mut self.writes[usize::try_from(at).expect("there are few")];
        assert!(std::mem::take(&mut write.at_disk), "a write ends once");
    }

    /// Takes out the oldest one, if all of it is in the segment.
    pub fn pop_landed(&mut self) -> Option<Landed> {
        let (oldest, next) = (self.writes.front()?, self.writes.get(1));
        if oldest.at_disk {
            return None;
        }
        let mut landed = oldest.lands;
        if oldest.end == End::Left {
            let next = next.filter(|next| !next.at_disk)?;
            landed.durable &= next.lands.durable;
        }
        self.writes.pop_front();
        self.first += 1;
        Some(landed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn landing(end: i64, durable: bool) -> Landed {
        let end = Offset::new(end);
        Landed { end, durable }
    }

    #[test]
    fn writes_end_in_any_order_and_count_in_theirs() {
        let mut writes = InFlight::default();
        let first = writes.begin(landing(1, true), End::Left);
        let second = writes.begin(landing(2, true), End::Padded);
        writes.ended(second);
        assert_eq!(writes.pop_landed(), None);
        writes.ended(first);
        assert_eq!(writes.pop_landed(), Some(landing(1, true)));
        assert_eq!(writes.pop_landed(), Some(landing(2, true)));
        assert_eq!(writes.pop_landed(), None);
        let third = writes.begin(landing(3, false), End::Padded);
        assert!(!writes.is_quiet());
        writes.ended(third);
        assert_eq!(writes.pop_landed(), Some(landing(3, false)));
    }

    #[test]
    fn an_end_that_was_left_counts_with_the_next_write() {
        for durable in [true, false] {
            let mut writes = InFlight::default();
            let first = writes.begin(landing(1, true), End::Left);
            writes.ended(first);
            assert!(writes.is_quiet() && writes.is_end_left());
            assert_eq!(writes.pop_landed(), None);
            let second = writes.begin(landing(2, durable), End::Padded);
            assert_eq!(writes.pop_landed(), None);
            writes.ended(second);
            assert_eq!(writes.pop_landed(), Some(landing(1, durable)));
            assert_eq!(writes.pop_landed(), Some(landing(2, durable)));
        }
    }

    #[test]
    fn few_writes_join_and_only_where_a_block_was_left() {
        let mut writes = InFlight::default();
        for end in 1..=AT_DISK_MAX as i64 {
            assert!(writes.is_quiet() || writes.may_join());
            writes.begin(landing(end, true), End::Left);
        }
        assert!(!writes.may_join());
        for durable in [true, false] {
            let mut writes = InFlight::default();
            writes.begin(landing(1, durable), End::Padded);
            assert!(!writes.may_join());
        }
    }
}
