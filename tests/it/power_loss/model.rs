//! What the persisted partitions must hold: every record that was acknowledged or read once, at its offset, for ever.
//!
//! Each producer numbers its records per partition. So a log is right if, for every producer, the numbers in it go up by one from
//! where the last deletion left them: none is missing, doubled or moved past another.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use forebay_tests::{payload, wire_client::WireClient};

use super::PERSISTED;

pub const PRODUCERS: usize = 2;

const ACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(60);

/// One record: who wrote it, and its number among those of this producer in this partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub producer: u8,
    pub number: u64,
}

impl Identity {
    /// What the record says: who it is, then noise that follows from that.
    pub fn value(self, partition: i32) -> Vec<u8> {
        let name = u64::from(self.producer) << 56 | (partition as u64) << 48 | self.number;
        let noise = payload::mix(name).to_le_bytes();
        // The second producer's records are so large that a few of them go past the journal.
        let repeats = match self.producer {
            0 => 1 + self.number % 60,
            _ => 200 + self.number % 800,
        };
        let mut value = name.to_be_bytes().to_vec();
        value.extend(noise.repeat(repeats as usize));
        value
    }

    #[track_caller]
    fn of(value: &[u8], partition: i32) -> Identity {
        let name = value.first_chunk().expect("a record begins with its name");
        let name = u64::from_be_bytes(*name);
        let identity = Identity {
            producer: (name >> 56) as u8,
            number: name & ((1 << 48) - 1),
        };
        assert!(
            value == identity.value(partition),
            "{identity:?} in partition {partition} is not as it was sent"
        );
        identity
    }
}

/// An acknowledgement, as the producer got it.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub partition: i32,
    /// Not known where the broker only said that it had the batch already: it remembers the offsets of five batches.
    pub offset: Option<i64>,
    pub identity: Identity,
}

pub type Acknowledgements = Arc<Mutex<Vec<Acknowledged>>>;

struct Entry {
    identity: Identity,
    acknowledged: bool,
}

#[derive(Default)]
struct Partition {
    start: i64,
    /// Number of the first record of each producer at or after the start.
    first: [u64; PRODUCERS],
    entries: BTreeMap<i64, Entry>,
}

pub struct Model {
    partitions: Vec<Partition>,
    inbox: Acknowledgements,
    acknowledged: u64,
    acknowledged_without_offset: u64,
}

impl Model {
    pub fn new(partitions: i32) -> Model {
        Model {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            inbox: Acknowledgements::default(),
            acknowledged: 0,
            acknowledged_without_offset: 0,
        }
    }

    pub fn inbox(&self) -> Acknowledgements {
        self.inbox.clone()
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn acknowledged_without_offset(&self) -> u64 {
        self.acknowledged_without_offset
    }

    /// Returns when an acknowledgement has come that no check has seen yet.
    pub fn wait_for_acknowledgement(&self) {
        let deadline = Instant::now() + ACKNOWLEDGED_TIME_MAX;
        let waiting = || self.inbox.lock().expect("no holder panics").len();
        let before = waiting();
        while waiting() == before {
            assert!(
                Instant::now() < deadline,
                "nothing is acknowledged any more"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads everything: what was acknowledged by now, and whatever was read before, is there.
    pub fn check(&mut self, client: &mut WireClient) {
        let acknowledged = std::mem::take(&mut *self.inbox.lock().expect("no holder panics"));
        for index in 0..self.partitions.len() {
            self.partitions[index].check(index as i32, client);
        }
        for one in acknowledged {
            self.acknowledged += 1;
            let entries = &mut self.partitions[one.partition as usize].entries;
            self.acknowledged_without_offset += u64::from(one.offset.is_none());
            let entry = match one.offset {
                Some(offset) => entries.get_mut(&offset),
                None => entries
                    .values_mut()
                    .find(|entry| entry.identity == one.identity),
            };
            let entry =
                entry.unwrap_or_else(|| panic!("nothing is where this was acknowledged: {one:?}"));
            assert_eq!(entry.identity, one.identity, "at the place of {one:?}");
            assert!(!entry.acknowledged, "acknowledged twice: {one:?}");
            entry.acknowledged = true;
        }
    }

    /// After all producers have come to their end.
    pub fn check_all_acknowledged(&self) {
        let mut entries = self.partitions.iter().flat_map(|one| one.entries.values());
        assert!(entries.all(|entry| entry.acknowledged));
    }

    /// Deletes records, up to the first that is not acknowledged yet.
    pub fn delete_some(&mut self, client: &mut WireClient) {
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let mut settled = partition
                .entries
                .iter()
                .filter(|(_, entry)| entry.acknowledged);
            let Some((last, _)) = settled.next_back() else {
                continue;
            };
            let unsettled = partition
                .entries
                .iter()
                .find(|(_, entry)| !entry.acknowledged);
            let start = unsettled.map_or(*last + 1, |(offset, _)| *offset);
            client.delete_records(PERSISTED, index as i32, start);
            let kept = partition.entries.split_off(&start);
            for entry in std::mem::replace(&mut partition.entries, kept).into_values() {
                partition.first[usize::from(entry.identity.producer)] = entry.identity.number + 1;
            }
            partition.start = start;
        }
    }
}

impl Partition {
    fn check(&mut self, index: i32, client: &mut WireClient) {
        assert_eq!(client.log_start(PERSISTED, index), self.start);
        let mut next = self.first;
        let mut found = BTreeMap::new();
        for (offset, value) in client.read_all(PERSISTED, index) {
            let identity = Identity::of(&value, index);
            let next = &mut next[usize::from(identity.producer)];
            assert_eq!(
                identity.number, *next,
                "partition {index}, offset {offset}, producer {}: lost, doubled or moved",
                identity.producer
            );
            *next += 1;
            let known = self.entries.remove(&offset);
            if let Some(known) = &known {
                assert_eq!(identity, known.identity, "offset {offset} has changed");
            }
            let acknowledged = known.is_some_and(|known| known.acknowledged);
            let entry = Entry {
                identity,
                acknowledged,
            };
            found.insert(offset, entry);
        }
        if let Some((offset, entry)) = self.entries.first_key_value() {
            panic!(
                "partition {index}: {:?} at {offset} was there (acknowledged: {}) and is gone; the log ends at {:?}",
                entry.identity,
                entry.acknowledged,
                found.last_key_value().map(|(offset, _)| *offset)
            );
        }
        self.entries = found;
    }
}
