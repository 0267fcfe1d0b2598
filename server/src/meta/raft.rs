//! The metadata's Raft group around the `raft` crate. Pure: it says what to write and what is committed, and does neither.
//!
//! Index and term are the log's own: `index = offset + 1`, `term = leader epoch`. A group of one voter runs the same path as a
//! cluster will; it only never has a message to send.
//!
//! Kept in memory are the newest entries (other voters will need them soon) and where each term begins. Older entries are in the log.

use std::collections::VecDeque;

use forebay_engine::{LeaderEpoch, Offset};
use protobuf::Message as _;
use raft::{
    Config, GetEntriesContext, RaftState, RawNode, StateRole, Storage, StorageError,
    prelude::{ConfState, Entry, EntryType, HardState, Ready, Snapshot},
    util::limit_size,
};

/// Entries kept in memory, and their bytes.
const CACHED_ENTRIES_MAX: usize = 1024;
const CACHED_BYTES_MAX: usize = 64 << 20;

/// What a voter must never forget, beside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    pub term: u64,
    /// For whom this voter voted in `term`; 0 for nobody.
    pub vote: u64,
}

/// Where each term of a log begins, and where the log ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// First index and term, both growing.
    starts: Vec<(u64, u64)>,
    last_index: u64,
}

/// One entry to be written to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub offset: Offset,
    pub epoch: LeaderEpoch,
    pub kind: EntryKind,
    pub data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A group of records, or nothing: the entry with which a leader begins.
    Group = 0,
    /// A change of the voters.
    Voters = 1,
}

/// What Raft wants next, in this order: the ballot durable, the entries durable, then [`Raft::done`].
pub struct Work {
    pub ballot: Option<Ballot>,
    pub entries: Vec<LogEntry>,
    ready: Ready,
}

pub struct Raft {
    node: RawNode<Store>,
}

impl Terms {
    /// Notes that the entry after the last one is of this term.
    pub fn push(&mut self, term: u64) {
        self.last_index += 1;
        let grows = self.last_term() < term;
        assert!(grows || self.last_term() == term, "terms never go back");
        if grows {
            self.starts.push((self.last_index, term));
        }
    }

    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    pub fn last_term(&self) -> u64 {
        self.starts.last().map_or(0, |(_, term)| *term)
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index > self.last_index {
            return None;
        }
        let next = self.starts.partition_point(|(start, _)| *start <= index);
        Some(next.checked_sub(1).map_or(0, |at| self.starts[at].1))
    }

    fn truncate_to(&mut self, last_index: u64) {
        self.last_index = last_index;
        self.starts.retain(|(start, _)| *start <= last_index);
    }
}

impl Raft {
    /// A voter whose log and ballot are as given. `committed` entries are applied already.
    pub fn new(id: u64, voters: &[u64], ballot: Ballot, log: Terms, committed: u64) -> Raft {
        assert!(
            ballot.term >= log.last_term(),
            "the ballot is older than the log"
        );
        assert!(committed <= log.last_index(), "more committed than written");
        let hard_state = HardState {
            term: ballot.term,
            vote: ballot.vote,
            commit: committed,
            ..HardState::default()
        };
        let mut voters_state = ConfState::default();
        voters_state.set_voters(voters.to_vec());
        let store = Store {
            hard_state,
            voters: voters_state,
            terms: log,
            cached: VecDeque::new(),
            cached_bytes: 0,
        };
        let config = Config {
            id,
            applied: committed,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            pre_vote: true,
            check_quorum: true,
            ..Config::default()
        };
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store, &quiet).expect("the configuration is valid");
        Raft { node }
    }

    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Stands for election now, without waiting for a timeout.
    pub fn campaign(&mut self) {
        self.node
            .campaign()
            .expect("a voter may stand for election");
    }

    /// Passes time.
    pub fn tick(&mut self) {
        self.node.tick();
    }

    /// Puts `data` at the end of the log; gives its offset. `None` if this voter does not lead.
    pub fn propose(&mut self, data: Vec<u8>) -> Option<Offset> {
        let index = self.node.raft.raft_log.last_index() + 1;
        self.node.propose(Vec::new(), data).ok()?;
        assert_eq!(
            self.node.raft.raft_log.last_index(),
            index,
            "one proposal is one entry"
        );
        Some(offset_of(index))
    }

    pub fn next_work(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let ready = self.node.ready();
        let no_messages = ready.messages().is_empty() && ready.persisted_messages().is_empty();
        assert!(no_messages, "a group of one has nobody to write to");
        assert!(ready.snapshot().is_empty(), "nobody sends snapshots");
        let present = &self.node.store().hard_state;
        let ballot = ready
            .hs()
            .filter(|state| state.term != present.term || state.vote != present.vote)
            .map(|state| Ballot {
                term: state.term,
                vote: state.vote,
            });
        let entries = ready.entries().iter().map(to_log).collect();
        Some(Work {
            ballot,
            entries,
            ready,
        })
    }

    /// The work is durable. Gives the entries that are committed now, in order.
    pub fn done(&mut self, work: Work) -> Vec<LogEntry> {
        let mut ready = work.ready;
        let store = self.node.mut_store();
        if let Some(state) = ready.hs() {
            store.hard_state = state.clone();
        }
        store.append(ready.take_entries());
        let mut committed = ready.take_committed_entries();
        let mut light = self.node.advance(ready);
        committed.extend(light.take_committed_entries());
        if let Some(commit) = light.commit_index() {
            self.node.mut_store().hard_state.commit = commit;
        }
        self.node.advance_apply();
        committed.iter().map(to_log).collect()
    }
}

fn offset_of(index: u64) -> Offset {
    let index = i64::try_from(index).expect("an index is an offset plus one");
    Offset::new(index - 1)
}

fn to_log(entry: &Entry) -> LogEntry {
    assert!(entry.context.is_empty(), "we use no context");
    LogEntry {
        offset: offset_of(entry.index),
        epoch: LeaderEpoch(
            i32::try_from(entry.term).expect("terms grow by restarts and elections"),
        ),
        kind: match entry.get_entry_type() {
            EntryType::EntryNormal => EntryKind::Group,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Voters,
        },
        data: entry.data.to_vec(),
    }
}

/// What the crate reads of the log.
struct Store {
    hard_state: HardState,
    voters: ConfState,
    terms: Terms,
    /// The newest entries, without a gap up to the last one.
    cached: VecDeque<Entry>,
    cached_bytes: usize,
}

impl Store {
    fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else {
            return;
        };
        let first = first.index;
        assert!(first <= self.terms.last_index() + 1, "a gap in the log");
        while self.cached.back().is_some_and(|entry| entry.index >= first) {
            let cut = self.cached.pop_back().expect("just seen");
            self.cached_bytes -= cut.compute_size() as usize;
        }
        self.terms.truncate_to(first - 1);
        for entry in entries {
            self.terms.push(entry.term);
            self.cached_bytes += entry.compute_size() as usize;
            self.cached.push_back(entry);
        }
        self.forget();
    }

    /// Drops the oldest entries beyond the bounds, but only those that everyone here is done with.
    fn forget(&mut self) {
        while let Some(oldest) = self.cached.front() {
            let within =
                self.cached.len() <= CACHED_ENTRIES_MAX && self.cached_bytes <= CACHED_BYTES_MAX;
            if within || oldest.index > self.hard_state.commit {
                return;
            }
            self.cached_bytes -= oldest.compute_size() as usize;
            self.cached.pop_front();
        }
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(
            high <= self.terms.last_index() + 1,
            "asked beyond the end of the log"
        );
        let cached_from = self.cached.front().map_or(u64::MAX, |entry| entry.index);
        if low < cached_from {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let from = (low - cached_from) as usize;
        let count = (high - low) as usize;
        let mut entries: Vec<Entry> = self.cached.range(from..from + count).cloned().collect();
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let unavailable = raft::Error::Store(StorageError::Unavailable);
        self.terms.term(index).ok_or(unavailable)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.terms.last_index())
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(
            StorageError::SnapshotTemporarilyUnavailable,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The disk of one voter: what was written, as a restart finds it.
    #[derive(Default)]
    struct Disk {
        ballot: Ballot,
        log: Vec<LogEntry>,
    }

    impl Disk {
        fn start(&self) -> Raft {
            let mut terms = Terms::default();
            for entry in &self.log {
                terms.push(entry.epoch.0 as u64);
            }
            let committed = terms.last_index();
            Raft::new(1, &[1], self.ballot, terms, committed)
        }

        fn work(&mut self, raft: &mut Raft) -> Vec<LogEntry> {
            let mut committed = Vec::new();
            while let Some(work) = raft.next_work() {
                if let Some(ballot) = work.ballot {
                    self.ballot = ballot;
                }
                for entry in &work.entries {
                    assert_eq!(entry.offset, Offset::new(self.log.len() as i64));
                    self.log.push(entry.clone());
                }
                committed.extend(raft.done(work));
            }
            committed
        }
    }

    #[test]
    fn a_single_voter_leads_at_once_and_commits_what_it_wrote() {
        let mut disk = Disk::default();
        for start in 1..=3i32 {
            let mut raft = disk.start();
            assert!(raft.propose(b"too early".to_vec()).is_none());
            raft.campaign();
            let begun = disk.work(&mut raft);
            assert!(raft.is_leader());
            assert_eq!(begun.len(), 1, "the entry a leader begins with");
            assert_eq!(
                (begun[0].epoch, begun[0].data.len()),
                (LeaderEpoch(start), 0)
            );
            for number in 0..5u8 {
                let offset = raft.propose(vec![number]).expect("leads");
                let committed = disk.work(&mut raft);
                assert_eq!(committed.len(), 1);
                assert_eq!(
                    (committed[0].offset, &committed[0].data[..]),
                    (offset, &[number][..])
                );
                raft.tick();
            }
            assert_eq!(
                disk.ballot,
                Ballot {
                    term: start as u64,
                    vote: 1
                }
            );
        }
        assert_eq!(disk.log.len(), 18);
    }

    #[test]
    fn nothing_is_committed_before_it_is_written() {
        let mut disk = Disk::default();
        let mut raft = disk.start();
        raft.campaign();
        disk.work(&mut raft);
        raft.propose(vec![7]).expect("leads");
        let work = raft.next_work().expect("an entry to write");
        assert_eq!(work.entries.len(), 1);
        assert!(work.ready.committed_entries().is_empty());
        assert_eq!(raft.done(work).len(), 1);
    }

    #[test]
    fn memory_for_entries_is_bounded() {
        let mut disk = Disk::default();
        let mut raft = disk.start();
        raft.campaign();
        disk.work(&mut raft);
        for _ in 0..CACHED_ENTRIES_MAX + 100 {
            raft.propose(vec![0; 10]).expect("leads");
            disk.work(&mut raft);
        }
        let store = raft.node.store();
        assert!(store.cached.len() <= CACHED_ENTRIES_MAX + 1);
        let bytes: u32 = store.cached.iter().map(|entry| entry.compute_size()).sum();
        assert_eq!(store.cached_bytes, bytes as usize);
        for _ in 0..8 {
            raft.propose(vec![0; CACHED_BYTES_MAX / 4]).expect("leads");
            disk.work(&mut raft);
        }
        assert!(raft.node.store().cached.len() <= 5);
    }

    #[test]
    fn terms_are_found_by_index() {
        let mut terms = Terms::default();
        for term in [1, 1, 3, 3, 3, 4] {
            terms.push(term);
        }
        let found: Vec<_> = (0..=7).map(|index| terms.term(index)).collect();
        let expected = [0, 1, 1, 3, 3, 3, 4].map(Some);
        assert_eq!(found[..7], expected);
        assert_eq!(found[7], None);
        terms.truncate_to(2);
        assert_eq!((terms.last_term(), terms.term(3)), (1, None));
    }
}
