//! A segment: one file of batches with its sparse index.
//!
//! A segment is named by its base offset. All segments of a log but the last are *sealed*: complete, cut to their exact
//! length and durable before the next file comes into being. The last one may be shorter on disk than in memory, and may end
//! in zeros up to the next block. This module knows files and batches; which offsets are valid is the log's knowledge.

pub mod index;
pub mod reader;
pub mod spare;
pub mod writer;

use std::path::{Path, PathBuf};

use crate::{
    batch::BatchHeader,
    types::{Offset, Timestamp},
};

pub use index::{Index, IndexTail};
pub use reader::{Next, SegmentReader};
pub use spare::Seams;
pub use writer::{End, SegmentWriter};

/// Kafka's tools hold a position in 32 bits with a sign; so no segment grows past this.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// What a file in a log's directory is, by its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// `<base offset, 20 digits>.log`
    Segment(Offset),
    /// `<base offset, 20 digits>.fbi`
    Index(Offset),
    /// `partition.metadata`: the identity of the log, as Kafka writes it.
    Identity,
    /// `*.deleted`: out of the log, its file waits for its last reader.
    Deleted,
    /// `<base offset, 20 digits>.spare`: was a segment; the next one takes its blocks over.
    Spare,
    /// `*.tmp`: the unfinished half of a replaced file.
    Temporary,
    /// Not ours.
    Foreign,
}

pub const IDENTITY_FILE: &str = "partition.metadata";

impl FileKind {
    pub fn of(name: &str) -> FileKind {
        if name == IDENTITY_FILE {
            return FileKind::Identity;
        }
        let Some((stem, extension)) = name.rsplit_once('.') else {
            return FileKind::Foreign;
        };
        match extension {
            "deleted" => FileKind::Deleted,
            "tmp" => FileKind::Temporary,
            "spare" => base_of(stem).map_or(FileKind::Foreign, |_| FileKind::Spare),
            "log" => base_of(stem).map_or(FileKind::Foreign, FileKind::Segment),
            "fbi" => base_of(stem).map_or(FileKind::Foreign, FileKind::Index),
            _ => FileKind::Foreign,
        }
    }
}

fn base_of(stem: &str) -> Option<Offset> {
    let is_digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits {
        return None;
    }
    stem.parse().ok().and_then(Offset::from_wire)
}

pub fn segment_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.log", base.get()))
}

pub fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.fbi", base.get()))
}

pub fn spare_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.spare", base.get()))
}

/// What the log knows of one of its segments.
pub struct Segment {
    pub base: Offset,
    /// Exact bytes of the batches that belong to it, written yet or not.
    pub len: u64,
    pub index: SegmentIndex,
    pub seams: Seams,
}

/// Where the index of a segment is.
pub enum SegmentIndex {
    /// In memory, since batches are still added to the segment or it is not sealed yet.
    Live(Index),
    /// Beside the sealed file, read when asked for. The largest timestamp is kept once it is known.
    OnDisk { max_timestamp: Option<Timestamp> },
}

impl Segment {
    pub fn new(base: Offset, index_interval_bytes: u64, created: Timestamp) -> Segment {
        Segment {
            base,
            len: 0,
            index: SegmentIndex::Live(Index::new(base, index_interval_bytes, created)),
            seams: Seams::none(),
        }
    }

    pub fn sealed(base: Offset, len: u64) -> Segment {
        Segment {
            base,
            len,
            index: SegmentIndex::OnDisk {
                max_timestamp: None,
            },
            seams: Seams::unknown(),
        }
    }

    /// Gives the batch its place at the end of the segment.
    pub fn push(&mut self, header: &BatchHeader) -> u64 {
        let position = self.len;
        let SegmentIndex::Live(index) = &mut self.index else {
            panic!("a sealed segment takes no batches");
        };
        index.push(header, position);
        self.seams.note(position);
        self.len += header.total_len as u64;
        assert_eq!(index.len(), self.len, "index and segment must agree");
        position
    }

    pub fn live_index(&self) -> Option<&Index> {
        match &self.index {
            SegmentIndex::Live(index) => Some(index),
            SegmentIndex::OnDisk { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_a_file_is() {
        let cases = [
            (
                "00000000000000000000.log",
                FileKind::Segment(Offset::new(0)),
            ),
            (
                "00000000000000001234.log",
                FileKind::Segment(Offset::new(1234)),
            ),
            (
                "00000000000000001234.fbi",
                FileKind::Index(Offset::new(1234)),
            ),
            ("0000000000000000123.log", FileKind::Foreign),
            ("+0000000000000000123.log", FileKind::Foreign),
            ("99999999999999999999.log", FileKind::Foreign),
            ("00000000000000001234.log.deleted", FileKind::Deleted),
            ("00000000000000001234.fbi.tmp", FileKind::Temporary),
            ("00000000000000001234.spare", FileKind::Spare),
            ("1234.spare", FileKind::Foreign),
            ("partition.metadata", FileKind::Identity),
            ("leader-epoch-checkpoint", FileKind::Foreign),
            ("00000000000000001234.index", FileKind::Foreign),
            ("", FileKind::Foreign),
        ];
        for (name, kind) in cases {
            assert_eq!(FileKind::of(name), kind, "{name}");
        }
        let path = segment_path(Path::new("t-0"), Offset::new(7));
        assert_eq!(path, Path::new("t-0/00000000000000000007.log"));
    }
}
