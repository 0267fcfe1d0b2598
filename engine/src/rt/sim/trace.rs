//! What happened in a run: a running hash over everything, and the last events to look at.

use std::{collections::VecDeque, fmt};

/// Events kept for people; the hash covers all.
const EVENTS_KEPT_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at_nanos: u64,
    pub what: &'static str,
    /// A task, a position, a port: whatever tells events of one kind apart.
    pub subject: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    count: u64,
    hash: u64,
    last: VecDeque<Event>,
}

impl Trace {
    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The most recent events, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Event> {
        self.last.iter()
    }

    pub(super) fn record(&mut self, event: Event) {
        self.count += 1;
        self.mix(event.at_nanos);
        self.mix(event.subject);
        for byte in event.what.bytes() {
            self.mix(u64::from(byte));
        }
        if self.last.len() == EVENTS_KEPT_MAX {
            self.last.pop_front();
        }
        self.last.push_back(event);
    }

    /// FNV-1a over words: not the standard library's hasher, which may change between versions of it.
    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        self.hash ^= self.hash >> 32;
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events, hash {:016x}, last:", self.count, self.hash)?;
        for event in self.last.iter().rev().take(16).rev() {
            write!(f, " {}ns {} {};", event.at_nanos, event.what, event.subject)?;
        }
        Ok(())
    }
}
