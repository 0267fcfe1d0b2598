//! Deadlines of one shard's coordinators: an ordered map, driven by one task.
//!
//! Keys are unique: setting one again moves it. Nothing here costs anything while no timer is set.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use forebay_engine::rt::Instant;

/// Timers in the order in which they run out; those of one instant in the order in which they were set.
pub struct Timers<K> {
    by_deadline: BTreeMap<(Instant, u64), K>,
    by_key: HashMap<K, (Instant, u64)>,
    next_sequence: u64,
}

impl<K: Clone + Eq + Hash> Timers<K> {
    pub fn new() -> Timers<K> {
        Timers {
            by_deadline: BTreeMap::new(),
            by_key: HashMap::new(),
            next_sequence: 0,
        }
    }

    pub fn set(&mut self, key: K, deadline: Instant) {
        self.cancel(&key);
        let position = (deadline, self.next_sequence);
        self.next_sequence += 1;
        self.by_key.insert(key.clone(), position);
        self.by_deadline.insert(position, key);
        assert_eq!(self.by_key.len(), self.by_deadline.len());
    }

    pub fn cancel(&mut self, key: &K) {
        if let Some(position) = self.by_key.remove(key) {
            self.by_deadline.remove(&position);
        }
    }

    pub fn cancel_where(&mut self, doomed: impl Fn(&K) -> bool) {
        self.by_deadline.retain(|_, key| !doomed(key));
        self.by_key.retain(|key, _| !doomed(key));
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline
            .keys()
            .next()
            .map(|(deadline, _)| *deadline)
    }

    /// Takes the first timer that has run out at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next_deadline()? > now {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

impl<K: Clone + Eq + Hash> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_run_out_in_order_and_move_when_set_again() {
        let mut timers = Timers::new();
        timers.set("a", Instant(30));
        timers.set("b", Instant(10));
        timers.set("c", Instant(10));
        timers.set("d", Instant(20));
        timers.set("b", Instant(40));
        timers.cancel(&"d");
        timers.cancel(&"d");
        assert_eq!(timers.next_deadline(), Some(Instant(10)));
        assert_eq!(timers.pop_due(Instant(9)), None);
        assert_eq!(timers.pop_due(Instant(35)), Some("c"));
        assert_eq!(timers.pop_due(Instant(35)), Some("a"));
        assert_eq!(timers.pop_due(Instant(35)), None);
        timers.cancel_where(|key| *key == "b");
        assert_eq!(timers.next_deadline(), None);
        assert_eq!(timers.pop_due(Instant(u64::MAX)), None);
    }
}
