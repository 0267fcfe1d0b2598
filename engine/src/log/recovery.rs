//! From what a crash left on disk to an open log: a table of decisions.
//!
//! All segments but the last are complete and durable, and everything below the checkpoint's recovery point is. So recovery walks
//! from there only: through sealed segments for the epochs and producers in their headers, and through the last one deciding at
//! each offset between what the segment and what the journal hold:
//!
//! | segment at this offset          | journal                | decision |
//! |---------------------------------|------------------------|----------|
//! | valid batch                     | nothing                | keep it |
//! | valid batch                     | the same batch         | keep it |
//! | valid batch                     | another batch          | restore the journal's |
//! | torn, rotten, foreign, or none  | a batch                | restore the journal's |
//! | torn, rotten, foreign, or none  | nothing                | stop, and cut here |
//!
//! A batch is valid if its CRC-32C is right, it has the offset that comes next, and its epoch is not older than the one before.
//! Journal entries of another log generation are not looked at. What the journal holds past the end of the file is appended
//! by the log's ordinary writer. Recovery writes nothing that a second recovery, after a crash in this one, would not write again.

use std::{collections::BTreeMap, path::Path, rc::Rc};

use bytes::Bytes;

use super::{
    epochs::Epochs,
    producers::Producers,
    read::load_index,
    shared::{Handle, Shared},
};
use crate::{
    batch::BatchHeader,
    checkpoint::LogCheckpoint,
    error::Fault,
    journal::{EntryAt, Replay},
    rt::{File, Rt, durable},
    segment::{
        Index, Next, Segment, SegmentIndex, SegmentReader, index_path, segment_path, writer::patch,
    },
    types::{LeaderEpoch, LogName, Offset},
};

/// What the segment file has at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InSegment {
    Valid,
    Broken,
}

/// What the journal has at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InJournal {
    Absent,
    /// The batch that is in the segment.
    Same,
    /// A batch, where the segment has another or none.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Keep,
    Restore,
    Stop,
}

/// The table above.
pub fn decide(segment: InSegment, journal: InJournal) -> Decision {
    match (segment, journal) {
        (InSegment::Valid, InJournal::Absent) => Decision::Keep,
        (InSegment::Valid, InJournal::Same) => Decision::Keep,
        (InSegment::Valid, InJournal::Other) => Decision::Restore,
        (InSegment::Broken, InJournal::Other) => Decision::Restore,
        (InSegment::Broken, InJournal::Absent) => Decision::Stop,
        (InSegment::Broken, InJournal::Same) => panic!("nothing is the same as a broken batch"),
    }
}

/// Where the walk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing is known: every segment is walked.
    Beginning,
    /// Everything before this segment and position is durable, and its producers and epochs are in the checkpoint.
    Checkpoint(Offset, u64),
}

/// The checkpoint counts if the file it speaks of is there and as long as it says.
pub fn start(checkpoint: Option<&LogCheckpoint>, files: &[(Offset, u64)]) -> Start {
    let Some(checkpoint) = checkpoint else {
        return Start::Beginning;
    };
    let (base, position) = (
        checkpoint.recovery_segment_base,
        checkpoint.recovery_position,
    );
    let is_there = files
        .iter()
        .any(|&(file, len)| file == base && len >= position);
    match is_there {
        true => Start::Checkpoint(base, position),
        false => Start::Beginning,
    }
}

/// What recovery did, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub walked_batches: u64,
    pub walked_bytes: u64,
    /// Batches put back into the segment, and appended after its end, from the journal.
    pub restored_batches: u64,
    pub appended_batches: u64,
    /// Bytes that were neither whole batches nor padding.
    pub cut_bytes: u64,
}

/// What was found, before the log is open.
pub struct Recovered {
    pub segments: Vec<Segment>,
    pub epochs: Epochs,
    pub producers: Producers,
    /// The offset after the last batch in the segments.
    pub end: Offset,
    pub generation: u64,
    /// Everything below was durable in segments before recovery began.
    pub durable_end: Offset,
    /// Journal entries after `end`, to be appended.
    pub rest: Vec<EntryAt>,
    pub report: Report,
}

pub struct Recovery<'a> {
    pub shared: &'a Shared,
    pub dir: &'a Path,
    pub name: &'a LogName,
    pub log_key: u64,
    pub index_interval_bytes: u64,
    pub checkpoint: Option<&'a LogCheckpoint>,
    pub replay: Option<&'a Replay>,
    /// Entries of this log and its generation by base offset.
    pub entries: BTreeMap<Offset, EntryAt>,
}

/// What the walk has gathered so far.
struct Walked {
    epochs: Epochs,
    producers: Producers,
    /// Below this the checkpoint already knows epochs and producers.
    known_below: Offset,
    report: Report,
}

impl Walked {
    /// An epoch older than one before it cannot be ours.
    fn epoch_fits(&self, epoch: LeaderEpoch) -> bool {
        epoch.0 >= 0 && self.epochs.latest().is_none_or(|latest| epoch >= latest)
    }

    fn note(&mut self, rt: &Rt, header: &BatchHeader) {
        self.report.walked_batches += 1;
        self.report.walked_bytes += header.total_len as u64;
        if header.base_offset >= self.known_below {
            self.epochs.append(header.leader_epoch, header.base_offset);
            self.producers
                .update(header, header.base_offset, rt.wall_clock());
        }
    }
}

impl Recovery<'_> {
    /// `files` are the segments on disk with their lengths, in order, at least one.
    pub async fn run(&self, files: &[(Offset, u64)]) -> Result<Recovered, Fault> {
        let start = start(self.checkpoint, files);
        let mut walked = self.known(start, files);
        if let (Start::Beginning, Some(_)) = (start, self.checkpoint) {
            tracing::error!(log = %self.name, "the segment is shorter than the checkpoint says it was synced: the disk lost data; walking the whole log");
        }
        let mut segments = Vec::with_capacity(files.len());
        let (&(last_base, last_len), sealed) = files.split_last().expect("a log has a segment");
        for (at, &(base, len)) in sealed.iter().enumerate() {
            let walk_from = match start {
                Start::Checkpoint(first, _) if base < first => None,
                Start::Checkpoint(first, position) if base == first => Some(position),
                _ => Some(0),
            };
            if let Some(position) = walk_from {
                self.walk_sealed(base, position, len, files[at + 1].0, &mut walked)
                    .await?;
            }
            segments.push(Segment::sealed(base, len));
        }
        let trusted = match start {
            Start::Checkpoint(base, position) if base == last_base => position,
            _ => 0,
        };
        let index = self
            .walk_last(last_base, last_len, trusted, &mut walked)
            .await?;
        let end = index.next_offset();
        let durable_end = match start {
            Start::Checkpoint(..) => walked.known_below.min(end),
            Start::Beginning => files[0].0,
        };
        segments.push(Segment {
            base: last_base,
            len: index.len(),
            index: SegmentIndex::Live(index),
        });
        let from_checkpoint = self.checkpoint.map(|checkpoint| checkpoint.log_generation);
        Ok(Recovered {
            segments,
            epochs: walked.epochs,
            producers: walked.producers,
            end,
            generation: from_checkpoint.unwrap_or_else(|| self.newest_generation()),
            durable_end,
            rest: self.entries_from(end),
            report: walked.report,
        })
    }

    fn newest_generation(&self) -> u64 {
        let generations = self.entries.values().map(|entry| entry.log_generation);
        generations.max().unwrap_or(1)
    }

    fn known(&self, start: Start, files: &[(Offset, u64)]) -> Walked {
        let mut walked = Walked {
            epochs: Epochs::default(),
            producers: Producers::default(),
            known_below: files[0].0,
            report: Report::default(),
        };
        if let (Start::Checkpoint(..), Some(checkpoint)) = (start, self.checkpoint) {
            walked.known_below = checkpoint.recovery_offset;
            walked.epochs = checkpoint.epochs.clone();
            walked.producers = checkpoint.producers.clone();
        }
        walked
    }

    async fn open(&self, base: Offset) -> Result<Rc<File>, Fault> {
        let path = segment_path(self.dir, base);
        self.shared
            .open_segment((self.log_key, base), &path, Handle::Behind)
            .await
            .map_err(|error| Fault::io("open", path, error))
    }

    /// Takes epochs and producers from the headers of a sealed segment. What is rotten in it stays: it was acked, and whoever reads
    /// it is told.
    async fn walk_sealed(
        &self,
        base: Offset,
        position: u64,
        len: u64,
        end: Offset,
        walked: &mut Walked,
    ) -> Result<(), Fault> {
        let path = segment_path(self.dir, base);
        let mut reader = SegmentReader::new(self.open(base).await?, position, len);
        loop {
            let next = reader.peek().await;
            match next.map_err(|error| Fault::io("read", &path, error))? {
                Next::Batch(header, _)
                    if header.next_offset() <= end && walked.epoch_fits(header.leader_epoch) =>
                {
                    walked.note(&self.shared.rt, &header);
                    reader.advance(&header);
                }
                Next::End => return Ok(()),
                Next::Batch(..) | Next::Broken(_) => {
                    tracing::error!(log = %self.name, segment = %base, position = reader.position(), "a sealed segment is damaged here; kept as it is");
                    return Ok(());
                }
            }
        }
    }

    /// Index of the last segment up to `trusted`, from the side file and, where that ends earlier, from the batches.
    async fn trusted_index(
        &self,
        base: Offset,
        trusted: u64,
        trusted_offset: Offset,
        file: &Rc<File>,
    ) -> Result<Index, Fault> {
        let rt = &self.shared.rt;
        let interval = self.index_interval_bytes;
        let loaded = load_index(rt, self.dir, base, interval).await;
        let path = index_path(self.dir, base);
        let mut index = match loaded {
            Ok(index) if index.len() <= trusted => index,
            Ok(mut index) => {
                // It speaks of batches that the walk may still cut.
                index.rewind(trusted);
                self.remove_side_file(&path).await?;
                index
            }
            Err(_) => Index::new(base, interval, rt.wall_clock()),
        };
        let mut reader = SegmentReader::new(Rc::clone(file), index.len(), trusted);
        loop {
            let next = reader.peek().await;
            match next.map_err(|error| Fault::io("read", file.path(), error))? {
                Next::Batch(header, _) if header.base_offset >= index.next_offset() => {
                    index.push(&header, reader.position());
                    reader.advance(&header);
                }
                Next::End => return Ok(index),
                Next::Batch(..) | Next::Broken(_) => {
                    tracing::error!(log = %self.name, segment = %base, position = reader.position(), "synced batches are damaged here; kept as they are");
                    index.skip_to(trusted_offset, trusted);
                    return Ok(index);
                }
            }
        }
    }

    async fn remove_side_file(&self, path: &Path) -> Result<(), Fault> {
        let removed = self.shared.rt.remove_file(path).await;
        removed.map_err(|error| Fault::io("remove", path, error))?;
        durable::sync_dir(&self.shared.rt, self.dir).await
    }

    /// Decides batch by batch from `trusted` on, and cuts the file behind the last one kept.
    async fn walk_last(
        &self,
        base: Offset,
        file_len: u64,
        trusted: u64,
        walked: &mut Walked,
    ) -> Result<Index, Fault> {
        let file = self.open(base).await?;
        let fault = |error| Fault::io("recover", segment_path(self.dir, base), error);
        let trusted_offset = walked.known_below.max(base);
        let mut index = self
            .trusted_index(base, trusted, trusted_offset, &file)
            .await?;
        let mut end = file_len;
        let mut reader = SegmentReader::new(Rc::clone(&file), trusted, end);
        loop {
            let offset = index.next_offset();
            let found = match reader.peek().await.map_err(fault)? {
                Next::Batch(header, bytes)
                    if header.base_offset == offset && walked.epoch_fits(header.leader_epoch) =>
                {
                    Some((header, bytes))
                }
                _ => None,
            };
            let entry = self.entries.get(&offset);
            let in_segment = match found {
                Some(_) => InSegment::Valid,
                None => InSegment::Broken,
            };
            match (decide(in_segment, compare(&found, entry)), found, entry) {
                (Decision::Keep, Some((header, _)), _) => {
                    index.push(&header, reader.position());
                    reader.advance(&header);
                    walked.note(&self.shared.rt, &header);
                }
                // Past the end of the file the ordinary writer goes on.
                (Decision::Restore, _, Some(entry)) if index.len() < file_len => {
                    let replay = self.replay.expect("an entry comes from a journal");
                    let bytes = replay.bytes(entry).await?;
                    patch(&self.shared.rt, &file, index.len(), &bytes)
                        .await
                        .map_err(fault)?;
                    for (header, _) in batches_of(&bytes, entry, self.dir)? {
                        index.push(&header, index.len());
                        walked.note(&self.shared.rt, &header);
                        walked.report.restored_batches += 1;
                    }
                    end = end.max(index.len());
                    reader = SegmentReader::new(Rc::clone(&file), index.len(), end);
                }
                _ => break,
            }
        }
        if index.len() < end || file.len().await.map_err(fault)? > index.len() {
            walked.report.cut_bytes += cut_bytes(&file, index.len(), end).await.map_err(fault)?;
            file.truncate(index.len()).await.map_err(fault)?;
        }
        Ok(index)
    }

    /// The unbroken run of journal entries that begins at `offset`.
    fn entries_from(&self, mut offset: Offset) -> Vec<EntryAt> {
        let mut run = Vec::new();
        while let Some(entry) = self.entries.get(&offset) {
            offset = entry.next_offset;
            run.push(entry.clone());
        }
        run
    }
}

/// Bytes from `position` to `end` that are not just padding: how much a cut takes.
async fn cut_bytes(file: &File, position: u64, end: u64) -> std::io::Result<u64> {
    const PIECE_BYTES: usize = 1024 * 1024;
    let (mut at, mut last_set) = (position, position);
    while at < end {
        let piece = file
            .read_at(at, PIECE_BYTES.min((end - at) as usize))
            .await?;
        if piece.is_empty() {
            break;
        }
        if let Some(last) = piece.iter().rposition(|&byte| byte != 0) {
            last_set = at + last as u64 + 1;
        }
        at += piece.len() as u64;
    }
    Ok(last_set - position)
}

fn compare(found: &Option<(BatchHeader, Bytes)>, entry: Option<&EntryAt>) -> InJournal {
    match (found, entry) {
        (_, None) => InJournal::Absent,
        (Some((header, bytes)), Some(entry))
            if entry.leader_epoch == header.leader_epoch && entry.holds(bytes) =>
        {
            InJournal::Same
        }
        (_, Some(_)) => InJournal::Other,
    }
}

/// The batches of a journal entry; they were checked when they were taken in, and the entry has a CRC of its own.
pub fn batches_of(
    bytes: &Bytes,
    entry: &EntryAt,
    dir: &Path,
) -> Result<Vec<(BatchHeader, Bytes)>, Fault> {
    let corrupt = |what: String| {
        Fault::corrupt(
            format!("journal entry at {}: {what}", entry.base_offset),
            dir,
        )
    };
    let mut rest = bytes.clone();
    let mut offset = entry.base_offset;
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).map_err(|error| corrupt(error.to_string()))?;
        header
            .check_crc(&rest)
            .map_err(|error| corrupt(error.to_string()))?;
        if header.base_offset < offset {
            return Err(corrupt(format!("a batch at {}", header.base_offset)));
        }
        offset = header.next_offset();
        batches.push((header, rest.split_to(header.total_len)));
    }
    match offset == entry.next_offset {
        true => Ok(batches),
        false => Err(corrupt(format!("it ends at {offset}"))),
    }
}
