//! Sparse index of offsets and timestamps to file positions.
//!
//! About every [`INTERVAL_BYTES_MIN`] (or the topic's `index.interval.bytes`, if that is more) an entry says: the batch with
//! this base offset begins at this position, and this is the largest timestamp of all batches before it. A lookup gives a place
//! at or before what is sought; the reader walks batch headers from there.
//!
//! The side file is a cache: when it is missing or fails its checks, the index is built again by walking the segment.
//!
//! ```text
//! <base offset, 20 digits>.fbi                      integers little-endian
//!  0        4        8               12                      16
//! +--------+--------+---------------+-----------------------+---------...
//! | "FBI\0"| version| payload bytes | CRC-32 of the payload | payload: rkyv archive of `IndexFile`
//! +--------+--------+---------------+-----------------------+---------...
//! ```

use std::path::Path;

use rkyv::{Archive, Deserialize, Serialize, rancor::Error as ArchiveError, util::AlignedVec};

use super::SEGMENT_BYTES_MAX;
use crate::{
    batch::BatchHeader,
    error::Fault,
    types::{Offset, Timestamp},
};

/// Kafka's default of 4 KiB makes an index 16 times as large to save a part of one read: we read 128 KiB at least.
pub const INTERVAL_BYTES_MIN: u64 = 64 * 1024;

/// A side file larger than this is not ours: 2 GiB of segment have 32768 entries of 16 bytes.
pub const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"FBI\0";
const VERSION: u32 = 1;
const FILE_HEADER_LEN: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Base offset of the batch, relative to the segment's.
    pub offset_delta: u32,
    pub position: u32,
    /// Largest timestamp of all batches before `position`.
    pub max_timestamp_before: i64,
}

const _: () = assert!(size_of::<Entry>() == 16);

#[derive(Archive, Serialize, Deserialize)]
struct IndexFile {
    base_offset: i64,
    next_offset: i64,
    len: u64,
    created: i64,
    first_timestamp: i64,
    max_timestamp: i64,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    base: Offset,
    interval_bytes: u64,
    created: Timestamp,
    entries: Vec<Entry>,
    /// The index covers the batches in `[0, len)` of the file, offsets `[base, next_offset)`.
    len: u64,
    next_offset: Offset,
    /// Largest timestamp of the first batch, from which the age of the segment counts.
    first_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

/// The end of an index, from a position in the file on: a checkpoint keeps it, so that the part of an active segment that its side file does
/// not cover yet need not be walked at the next start.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct IndexTail {
    /// The batches before this position are in the side file.
    from: u64,
    len: u64,
    next_offset: i64,
    created: i64,
    first_timestamp: i64,
    max_timestamp: i64,
    entries: Vec<Entry>,
}

/// A place to begin a walk at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub offset: Offset,
    pub position: u64,
}

pub const NO_TIMESTAMP: Timestamp = Timestamp(-1);

impl IndexTail {
    pub fn from(&self) -> u64 {
        self.from
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == self.from
    }

    /// As [`Index::newest`].
    pub fn newest(&self) -> Timestamp {
        let began = match self.first_timestamp >= 0 {
            true => self.first_timestamp,
            false => self.created,
        };
        Timestamp(self.max_timestamp.max(began))
    }
}

impl Index {
    pub fn new(base: Offset, interval_bytes: u64, created: Timestamp) -> Index {
        Index {
            base,
            interval_bytes: interval_bytes.max(INTERVAL_BYTES_MIN),
            created,
            entries: Vec::new(),
            len: 0,
            next_offset: base,
            first_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    pub fn base(&self) -> Offset {
        self.base
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// When the segment's time began: the first batch's timestamp, or, where that has none, the creation of the file.
    pub fn began(&self) -> Timestamp {
        if self.first_timestamp >= Timestamp(0) {
            self.first_timestamp
        } else {
            self.created
        }
    }

    /// The largest timestamp; records without timestamps age from the creation of their segment.
    pub fn newest(&self) -> Timestamp {
        self.max_timestamp.max(self.began())
    }

    /// Takes the next batch into account; batches come in order and without gaps in the file.
    pub fn push(&mut self, header: &BatchHeader, position: u64) {
        assert_eq!(position, self.len, "batches are indexed in file order");
        assert!(
            header.base_offset >= self.next_offset,
            "offsets grow within a segment"
        );
        let previous = self.entries.last().map_or(0, |entry| entry.position);
        if position - u64::from(previous) >= self.interval_bytes {
            self.entries.push(Entry {
                offset_delta: u32::try_from(header.base_offset.since(self.base))
                    .expect("the log rolls before a delta leaves 32 bits"),
                position: u32::try_from(position).expect("the log rolls before 2 GiB"),
                max_timestamp_before: self.max_timestamp.0,
            });
        }
        if self.len == 0 {
            self.first_timestamp = header.max_timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.len += header.total_len as u64;
        self.next_offset = header.next_offset();
    }

    /// Whether the batch can be the next one: whatever the bytes of a file say, offsets grow, and deltas and positions have their bounds.
    pub fn accepts(&self, header: &BatchHeader) -> bool {
        header.base_offset >= self.next_offset
            && self.has_room(header.total_len, header.next_offset())
    }

    /// Whether a batch of `len` bytes that ends before `next_offset` stays within the bounds of a segment.
    pub fn has_room(&self, len: usize, next_offset: Offset) -> bool {
        self.len + len as u64 <= SEGMENT_BYTES_MAX
            && next_offset.since(self.base) <= i64::from(i32::MAX) + 1
    }

    /// Passes over bytes that cannot be walked any more: the next batch is at `position` and has `offset` or a later one.
    pub fn skip_to(&mut self, offset: Offset, position: u64) {
        assert!(position >= self.len, "an index does not go back");
        self.len = position;
        self.next_offset = self.next_offset.max(offset);
    }

    /// The last known place at or before `offset`.
    pub fn find_offset(&self, offset: Offset) -> Place {
        let after = self
            .entries
            .partition_point(|entry| self.place(entry).offset <= offset);
        self.place_before(after)
    }

    /// A place at or before the first batch whose largest timestamp is at or after `timestamp`.
    pub fn find_timestamp(&self, timestamp: Timestamp) -> Place {
        let after = self
            .entries
            .partition_point(|entry| entry.max_timestamp_before < timestamp.0);
        self.place_before(after)
    }

    /// The largest timestamp of all batches before `place`, which this index gave out.
    pub fn max_timestamp_before(&self, place: Place) -> Timestamp {
        self.entries
            .iter()
            .rev()
            .find(|entry| u64::from(entry.position) <= place.position)
            .map_or(NO_TIMESTAMP, |entry| Timestamp(entry.max_timestamp_before))
    }

    /// Forgets everything from the last entry at or before `position` on, and says where the walk has to resume.
    /// (What lies between that entry and `position` cannot be kept: its largest timestamp is not known.)
    pub fn rewind(&mut self, position: u64) -> Place {
        if position >= self.len {
            return Place {
                offset: self.next_offset,
                position: self.len,
            };
        }
        let kept = self
            .entries
            .partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.truncate(kept);
        match self.entries.pop() {
            Some(last) => {
                let place = self.place(&last);
                self.len = place.position;
                self.next_offset = place.offset;
                self.max_timestamp = Timestamp(last.max_timestamp_before);
                place
            }
            None => {
                *self = Index::new(self.base, self.interval_bytes, self.created);
                Place {
                    offset: self.base,
                    position: 0,
                }
            }
        }
    }

    /// The first known place behind `position`.
    pub fn place_behind(&self, position: u64) -> Option<Place> {
        let after = self
            .entries
            .partition_point(|entry| u64::from(entry.position) <= position);
        self.entries.get(after).map(|entry| self.place(entry))
    }

    /// What a side file that covers the first `from` bytes does not say.
    pub fn tail(&self, from: u64) -> IndexTail {
        let from = from.min(self.len);
        let first = self
            .entries
            .partition_point(|entry| u64::from(entry.position) < from);
        IndexTail {
            from,
            len: self.len,
            next_offset: self.next_offset.get(),
            created: self.created.0,
            first_timestamp: self.first_timestamp.0,
            max_timestamp: self.max_timestamp.0,
            entries: self.entries[first..].to_vec(),
        }
    }

    /// The index as it was when the tail was taken, if the two of them meet. `self` may be newer than the side file of then.
    pub fn with_tail(mut self, tail: &IndexTail) -> Option<Index> {
        if self.len < tail.from || self.len > tail.len {
            return None;
        }
        let known = tail
            .entries
            .partition_point(|entry| u64::from(entry.position) < self.len);
        self.entries.extend_from_slice(&tail.entries[known..]);
        self.len = tail.len;
        self.next_offset = Offset::from_wire(tail.next_offset)?;
        self.created = Timestamp(tail.created);
        self.first_timestamp = Timestamp(tail.first_timestamp);
        self.max_timestamp = Timestamp(tail.max_timestamp);
        is_sound(self.base, self.next_offset, self.len, &self.entries).then_some(self)
    }

    fn place(&self, entry: &Entry) -> Place {
        Place {
            offset: self.base.plus(i64::from(entry.offset_delta)),
            position: u64::from(entry.position),
        }
    }

    fn place_before(&self, after: usize) -> Place {
        match after.checked_sub(1) {
            Some(index) => self.place(&self.entries[index]),
            None => Place {
                offset: self.base,
                position: 0,
            },
        }
    }

    /// About what its side file takes.
    pub fn file_len(&self) -> usize {
        FILE_HEADER_LEN + size_of::<IndexFile>() + self.entries.len() * size_of::<Entry>()
    }

    pub fn encode(&self) -> Vec<u8> {
        let file = IndexFile {
            base_offset: self.base.get(),
            next_offset: self.next_offset.get(),
            len: self.len,
            created: self.created.0,
            first_timestamp: self.first_timestamp.0,
            max_timestamp: self.max_timestamp.0,
            entries: self.entries.clone(),
        };
        let payload = rkyv::to_bytes::<ArchiveError>(&file).expect("plain numbers always encode");
        let payload_len = u32::try_from(payload.len()).expect("an index is at most a few MiB");
        let mut bytes = Vec::with_capacity(FILE_HEADER_LEN + payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&payload_len.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        assert!(
            bytes.len() <= FILE_BYTES_MAX,
            "written within our own limit"
        );
        bytes
    }

    /// Reads a side file back, or says what is wrong with it. `path` is named in the fault only.
    pub fn decode(
        bytes: &[u8],
        base: Offset,
        interval_bytes: u64,
        path: &Path,
    ) -> Result<Index, Fault> {
        let corrupt = |what: &str| Fault::corrupt(what, path);
        if bytes.len() < FILE_HEADER_LEN || bytes[0..4] != MAGIC {
            return Err(corrupt("not an index"));
        }
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if number(4) != VERSION {
            return Err(corrupt("unknown version of the index"));
        }
        let payload = &bytes[FILE_HEADER_LEN..];
        if number(8) as usize != payload.len() || number(12) != crc32fast::hash(payload) {
            return Err(corrupt("length or CRC-32 of the index"));
        }
        let mut aligned = AlignedVec::<16>::with_capacity(payload.len());
        aligned.extend_from_slice(payload);
        let file = rkyv::from_bytes::<IndexFile, ArchiveError>(&aligned)
            .map_err(|_| corrupt("structure of the index"))?;
        let next_offset = Offset::from_wire(file.next_offset)
            .filter(|&next| is_sound(base, next, file.len, &file.entries))
            .filter(|_| file.base_offset == base.get());
        let Some(next_offset) = next_offset else {
            return Err(corrupt("entries of the index"));
        };
        Ok(Index {
            base,
            interval_bytes: interval_bytes.max(INTERVAL_BYTES_MIN),
            created: Timestamp(file.created),
            entries: file.entries,
            len: file.len,
            next_offset,
            first_timestamp: Timestamp(file.first_timestamp),
            max_timestamp: Timestamp(file.max_timestamp),
        })
    }
}

/// The entry for fuzzers: any bytes, taken for a side file as they are and with length and CRC made right. Panics if what is accepted
/// is unsound.
pub fn fuzz_index(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    let base = Offset::new(100);
    for bytes in [data, &repaired] {
        let Ok(index) = Index::decode(bytes, base, 0, Path::new("fuzzed")) else {
            continue;
        };
        let twin = Index::decode(&index.encode(), base, 0, Path::new("fuzzed"));
        assert!(twin.is_ok_and(|twin| twin == index), "it round-trips");
        for offset in [base, index.next_offset(), Offset::new(i64::MAX)] {
            let place = index.find_offset(offset);
            assert!(place.position <= index.len() && place.offset >= base);
        }
        index.find_timestamp(index.max_timestamp());
        let mut rewound = index.clone();
        let place = rewound.rewind(index.len() / 2);
        assert!(place.position <= index.len() / 2 && rewound.len() == place.position);
        assert!(rewound.with_tail(&index.tail(place.position)) == Some(index));
    }
}

/// For fuzzers: makes magic, length and CRC right.
pub fn repair(bytes: &mut [u8]) {
    if let Some(payload_len) = bytes.len().checked_sub(FILE_HEADER_LEN) {
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&(payload_len as u32).to_le_bytes());
        let crc = crc32fast::hash(&bytes[FILE_HEADER_LEN..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Whether these can be the entries of a segment that holds `[base, next_offset)` in `len` bytes.
fn is_sound(base: Offset, next_offset: Offset, len: u64, entries: &[Entry]) -> bool {
    let grows = |pair: &[Entry]| {
        pair[0].position < pair[1].position && pair[0].offset_delta < pair[1].offset_delta
    };
    let inside = entries.last().is_none_or(|last| {
        u64::from(last.position) < len && i64::from(last.offset_delta) < next_offset.since(base)
    });
    len <= SEGMENT_BYTES_MAX
        && next_offset >= base
        && (len > 0 || next_offset == base)
        && entries.windows(2).all(grows)
        && inside
}

/// Compares an index with the batches it is of, one after the other.
pub struct IndexCheck<'a> {
    index: &'a Index,
    /// Entries that were met.
    met: usize,
    agrees: bool,
    end: Place,
    max_timestamp: Timestamp,
}

impl<'a> IndexCheck<'a> {
    pub fn new(index: &'a Index) -> IndexCheck<'a> {
        IndexCheck {
            index,
            met: 0,
            agrees: true,
            end: index.place_before(0),
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// The next batch of the segment.
    pub fn batch(&mut self, header: &BatchHeader, position: u64) {
        if let Some(entry) = self.index.entries.get(self.met)
            && u64::from(entry.position) <= position
        {
            let place = Place {
                offset: header.base_offset,
                position,
            };
            self.agrees &= self.index.place(entry) == place
                && entry.max_timestamp_before == self.max_timestamp.0;
            self.met += 1;
        }
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        self.end = Place {
            offset: header.next_offset(),
            position: position + header.total_len as u64,
        };
    }

    /// After the last batch.
    pub fn agrees(&self) -> bool {
        let index = self.index;
        let end = Place {
            offset: index.next_offset,
            position: index.len,
        };
        self.agrees
            && self.met == index.entries.len()
            && self.end == end
            && self.max_timestamp == index.max_timestamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Rng, for_seeds},
        types::LeaderEpoch,
    };

    /// Batches of 40 KiB with ten records each; timestamps rise but for every third batch.
    fn filled(batches: i64) -> Index {
        let mut index = Index::new(Offset::new(100), 0, Timestamp(5));
        for n in 0..batches {
            let header = header(100 + 10 * n, 40 * 1024, stamp(n));
            index.push(&header, index.len());
        }
        index
    }

    fn stamp(n: i64) -> i64 {
        if n % 3 == 2 { 1 } else { 1000 + n }
    }

    fn header(base: i64, total_len: usize, max_timestamp: i64) -> BatchHeader {
        BatchHeader {
            base_offset: Offset::new(base),
            total_len,
            leader_epoch: LeaderEpoch(0),
            crc: 0,
            attributes: 0,
            last_offset_delta: 9,
            base_timestamp: Timestamp(max_timestamp),
            max_timestamp: Timestamp(max_timestamp),
            producer: None,
            base_sequence: -1,
            record_count: 10,
        }
    }

    #[test]
    fn an_entry_about_every_interval() {
        let index = filled(10);
        let positions: Vec<u32> = index
            .entries
            .iter()
            .map(|entry| entry.position / 1024)
            .collect();
        assert_eq!(
            positions,
            [80, 160, 240, 320],
            "every second batch of 40 KiB"
        );
    }

    #[test]
    fn finds_the_place_at_or_before_an_offset() {
        let index = filled(10);
        for (offset, position_kib) in [
            (100, 0),
            (119, 0),
            (120, 80),
            (139, 80),
            (140, 160),
            (999, 320),
        ] {
            let place = index.find_offset(Offset::new(offset));
            assert_eq!(place.position, position_kib * 1024, "offset {offset}");
            assert!(place.offset <= Offset::new(offset));
            let behind = index.place_behind(place.position);
            assert!(behind.is_none_or(|behind| behind.offset > Offset::new(offset)));
        }
    }

    #[test]
    fn a_timestamp_is_never_sought_too_late() {
        let index = filled(50);
        for wanted in 0..1060 {
            let first = (0..50).find(|&n| stamp(n) >= wanted);
            let place = index.find_timestamp(Timestamp(wanted));
            if let Some(n) = first {
                assert!(place.offset.get() <= 100 + 10 * n, "timestamp {wanted}");
            }
            assert!(index.max_timestamp_before(place) < Timestamp(wanted.max(0)));
        }
    }

    #[test]
    fn a_check_finds_an_index_that_is_off_by_one_batch() {
        let right = filled(20);
        let check = |index: &Index, batches: i64| {
            let mut check = IndexCheck::new(index);
            for n in 0..batches {
                check.batch(
                    &header(100 + 10 * n, 40 * 1024, stamp(n)),
                    n as u64 * 40 * 1024,
                );
            }
            check.agrees()
        };
        assert!(check(&right, 20));
        assert!(!check(&right, 19));
        assert!(!check(&filled(19), 20));
        for at in 0..right.entries.len() {
            let mut wrong = right.clone();
            wrong.entries[at].offset_delta += 10;
            assert!(!check(&wrong, 20));
            let mut wrong = right.clone();
            wrong.entries[at].position += 40 * 1024;
            assert!(!check(&wrong, 20));
            let mut wrong = right.clone();
            wrong.entries[at].max_timestamp_before -= 1;
            assert!(!check(&wrong, 20));
        }
    }

    #[test]
    fn rewinding_and_walking_again_gives_the_same_index() {
        let whole = filled(20);
        for position in (0..21).map(|n| n * 40 * 1024) {
            let mut index = whole.clone();
            let place = index.rewind(position);
            assert!(place.position <= position);
            let mut n = (place.offset.get() - 100) / 10;
            assert_eq!(place.position, n as u64 * 40 * 1024);
            while n < 20 {
                index.push(&header(100 + 10 * n, 40 * 1024, stamp(n)), index.len());
                n += 1;
            }
            assert_eq!(index, whole, "rewound to {position}");
        }
    }

    /// A side file of any age and the tail of any moment after it give the index of that moment.
    #[test]
    fn side_file_and_tail_make_the_whole_index() {
        for saved in 0..21_u64 {
            for newer in saved..21 {
                let whole = filled(20);
                let mut side = whole.clone();
                side.rewind(saved * 40 * 1024);
                let tail = whole.tail(side.len());
                let mut newer_side = whole.clone();
                newer_side.rewind(newer * 40 * 1024);
                assert_eq!(newer_side.with_tail(&tail), Some(whole.clone()));
                let mut older = whole.clone();
                older.rewind(side.len().saturating_sub(1));
                if older.len() < side.len() {
                    assert_eq!(older.with_tail(&tail), None, "a gap");
                }
            }
        }
    }

    /// Side files that are wrong under a CRC that is right.
    #[test]
    fn mutated_side_files_are_refused_or_sound() {
        let good = filled(30).encode();
        fuzz_index(&good);
        for_seeds(3000, |seed| {
            let mut rng = Rng::new(seed);
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(3) {
                let position = rng.below(bad.len());
                bad[position] = if rng.chance(30) {
                    0xff
                } else {
                    rng.next() as u8
                };
            }
            fuzz_index(&bad);
            fuzz_index(&bad[..rng.below(bad.len())]);
        });
    }

    #[test]
    fn the_side_file_round_trips_and_refuses_any_flipped_byte() {
        let index = filled(30);
        let path = Path::new("i.fbi");
        let bytes = index.encode();
        let decoded = Index::decode(&bytes, Offset::new(100), 0, path).expect("what was encoded");
        assert_eq!(decoded, index);
        assert!(
            Index::decode(&bytes, Offset::new(99), 0, path).is_err(),
            "another base"
        );
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x10;
            assert!(
                Index::decode(&broken, Offset::new(100), 0, path).is_err(),
                "byte {at}"
            );
        }
        for len in 0..bytes.len() {
            assert!(Index::decode(&bytes[..len], Offset::new(100), 0, path).is_err());
        }
    }
}
