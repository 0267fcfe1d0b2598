//! What waits to become durable under `persisted`, and by which of the two ways: the shard's journal, or a durable write to
//! the segment.
//!
//! The rule: an append goes to the journal at once while less than `bypass_bytes` of its log are on their way there. Beyond that
//! appends *wait*, in the tail only. When more than `bypass_bytes` wait, they go to the segment with durable writes, and never see the
//! journal; when fewer wait as the journal or the segment write completes, they are submitted then. So a trickle uses the journal alone,
//! bulk ingest writes every byte once, and nothing waits longer than for one commit or one write to end.
//!
//! While a durable segment write is in flight new appends wait too, so the journal never holds a batch behind one that could still be
//! lost: what is durable is a prefix.

use std::collections::VecDeque;

use crate::types::Offset;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    /// Submit all that waits to the journal.
    Journal,
    /// Write all that waits to the segment.
    Bypass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Journal,
    Segment,
    /// Written behind; durable with the next sync of the segment.
    Sync,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    end: Offset,
    via: Via,
}

#[derive(Debug)]
pub struct Pending {
    /// Consecutive ranges of offsets on their way, oldest first.
    ranges: VecDeque<Range>,
    /// (end, bytes) of what was submitted to the journal and is not committed.
    submitted: VecDeque<(Offset, usize)>,
    submitted_bytes: usize,
    /// Everything from here to the log end waits.
    waiting_from: Offset,
    waiting_bytes: usize,
    journal_end: Offset,
    segment_end: Offset,
}

impl Pending {
    /// Nothing waits in a log that ends at `end`.
    pub fn new(end: Offset) -> Pending {
        Pending {
            ranges: VecDeque::new(),
            submitted: VecDeque::new(),
            submitted_bytes: 0,
            waiting_from: end,
            waiting_bytes: 0,
            journal_end: end,
            segment_end: end,
        }
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Nothing waits, and nothing is on its way through the journal.
    pub fn is_idle(&self) -> bool {
        self.waiting_bytes == 0 && self.submitted.is_empty()
    }

    /// Whether something waits, from `offset` on.
    pub fn waits_from(&self, offset: Offset) -> bool {
        self.waiting_bytes > 0 && self.waiting_from == offset
    }

    pub fn waiting_from(&self) -> Offset {
        self.waiting_from
    }

    pub fn appended(&mut self, bytes: usize) {
        self.waiting_bytes += bytes;
    }

    /// Batches of a log whose appends do not wait for the disk (`replicated`).
    pub fn skip(&mut self, end: Offset) {
        assert_eq!(
            self.waiting_bytes, 0,
            "only what does not wait can be skipped"
        );
        self.waiting_from = end;
    }

    pub fn decide(&self, bypass_bytes: usize) -> Decision {
        let segment_busy = self.ranges.iter().any(|range| range.via == Via::Segment);
        if self.waiting_bytes == 0 || segment_busy {
            return Decision::Nothing;
        }
        if self.waiting_bytes > bypass_bytes {
            return Decision::Bypass;
        }
        if self.submitted.is_empty() || self.submitted_bytes + self.waiting_bytes <= bypass_bytes {
            return Decision::Journal;
        }
        Decision::Nothing
    }

    /// The batch that waited longest, which ends at `end`, goes to the journal.
    pub fn submit(&mut self, end: Offset, bytes: usize) {
        self.take_waiting(end, bytes, Via::Journal);
        self.submitted.push_back((end, bytes));
        self.submitted_bytes += bytes;
    }

    /// The batch that waited longest, which ends at `end`, is part of a durable write to the segment.
    pub fn claim(&mut self, end: Offset, bytes: usize) {
        self.take_waiting(end, bytes, Via::Segment);
    }

    fn take_waiting(&mut self, end: Offset, bytes: usize, via: Via) {
        assert!(end > self.waiting_from, "batches leave the line in order");
        assert!(
            bytes <= self.waiting_bytes,
            "only what waits can leave the line"
        );
        self.waiting_from = end;
        self.waiting_bytes -= bytes;
        match self.ranges.back_mut() {
            Some(last) if last.via == via => last.end = end,
            _ => self.ranges.push_back(Range { end, via }),
        }
    }

    pub fn journal_committed(&mut self, end: Offset) {
        self.journal_end = self.journal_end.max(end);
        while let Some(&(front, bytes)) = self.submitted.front()
            && front <= end
        {
            self.submitted_bytes -= bytes;
            self.submitted.pop_front();
        }
    }

    /// A durable write to the segment is done up to `end`.
    pub fn segment_written(&mut self, end: Offset) {
        self.segment_end = self.segment_end.max(end);
    }

    /// Everything below `synced` is durable in segments. Returns the end of the durable prefix.
    pub fn durable_end(&mut self, so_far: Offset, synced: Offset) -> Offset {
        let mut durable = so_far.max(synced);
        while let Some(range) = self.ranges.front() {
            let reached = match range.via {
                Via::Journal => self.journal_end,
                Via::Segment => self.segment_end,
                Via::Sync => synced,
            };
            durable = durable.max(reached.min(range.end));
            if durable < range.end {
                break;
            }
            self.ranges.pop_front();
        }
        durable
    }

    /// The log was cut to `end`, and everything below is durable.
    pub fn reset(&mut self, end: Offset) {
        *self = Pending::new(end);
    }

    /// The log's mode changed: everything below `end` waits for the next sync.
    pub fn hold(&mut self, end: Offset) {
        self.reset(end);
        self.ranges.push_back(Range {
            end,
            via: Via::Sync,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    fn offset(value: i64) -> Offset {
        Offset::new(value)
    }

    #[test]
    fn a_trickle_goes_to_the_journal_at_once() {
        let mut pending = Pending::new(offset(0));
        for n in 1..=5 {
            pending.appended(100);
            assert_eq!(pending.decide(LIMIT), Decision::Journal);
            pending.submit(offset(n), 100);
        }
        assert_eq!(pending.durable_end(offset(0), offset(0)), offset(0));
        pending.journal_committed(offset(3));
        assert_eq!(pending.durable_end(offset(0), offset(0)), offset(3));
        pending.journal_committed(offset(5));
        assert_eq!(pending.durable_end(offset(3), offset(0)), offset(5));
    }

    #[test]
    fn bulk_passes_the_journal_by_and_counts_only_after_what_came_before() {
        let mut pending = Pending::new(offset(0));
        pending.appended(900);
        assert_eq!(pending.decide(LIMIT), Decision::Journal);
        pending.submit(offset(1), 900);
        pending.appended(900);
        assert_eq!(
            pending.decide(LIMIT),
            Decision::Nothing,
            "the journal has enough of this log"
        );
        pending.appended(900);
        assert_eq!(pending.decide(LIMIT), Decision::Bypass);
        pending.claim(offset(2), 900);
        pending.claim(offset(3), 900);
        pending.appended(100);
        assert_eq!(
            pending.decide(LIMIT),
            Decision::Nothing,
            "waits for the segment write"
        );
        pending.segment_written(offset(3));
        assert_eq!(
            pending.durable_end(offset(0), offset(0)),
            offset(0),
            "a hole is not durable"
        );
        pending.journal_committed(offset(1));
        assert_eq!(pending.durable_end(offset(0), offset(0)), offset(3));
        assert_eq!(
            pending.decide(LIMIT),
            Decision::Journal,
            "what waited goes on"
        );
    }

    #[test]
    fn nothing_counts_before_what_was_only_written_behind() {
        let mut pending = Pending::new(offset(0));
        pending.skip(offset(3));
        pending.hold(offset(3));
        pending.appended(10);
        pending.submit(offset(4), 10);
        pending.journal_committed(offset(4));
        assert_eq!(pending.durable_end(offset(0), offset(2)), offset(2));
        assert_eq!(pending.durable_end(offset(2), offset(3)), offset(4));
    }

    #[test]
    fn a_sync_of_the_segment_makes_everything_durable() {
        let mut pending = Pending::new(offset(0));
        pending.appended(10);
        pending.submit(offset(4), 10);
        assert_eq!(pending.durable_end(offset(0), offset(4)), offset(4));
        pending.journal_committed(offset(4));
        assert_eq!(pending.durable_end(offset(4), offset(4)), offset(4));
        assert_eq!(pending.decide(LIMIT), Decision::Nothing);
    }
}
