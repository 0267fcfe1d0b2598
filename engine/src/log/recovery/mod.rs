//! From what a crash left on disk to an open log. What is decided stands in [`table`]; this file finds out which row it is and does it.
//!
//! All segments but the last are complete and durable, and so is everything below the checkpoint's recovery point. So recovery walks
//! from there only: through sealed segments for the epochs and producers in their headers, and through the last one deciding at
//! each offset between what the segment and what the journal hold. Journal entries of another log generation are not looked at. What the journal
//! holds past the end of the file is appended by the log's ordinary writer.
//!
//! Recovery writes nothing that a second recovery, after a crash in this one, would not write again.

mod cut;
pub mod table;

use std::{collections::BTreeMap, path::Path, rc::Rc};

use bytes::Bytes;

use super::{
    epochs::Epochs,
    producers::Producers,
    read::load_index,
    shared::{Handle, Shared},
    state::FIRST_GENERATION,
};
use crate::{
    batch::BatchHeader,
    checkpoint::LogCheckpoint,
    error::Fault,
    journal::{EntryAt, Replay},
    rt::{File, OpenMode, Rt, durable},
    segment::{
        Index, Next, Seams, Segment, SegmentIndex, SegmentReader, index_path, segment_path,
        writer::Run,
    },
    types::{LeaderEpoch, LogName, Offset},
};
use table::{
    Decision, InCheckpoint, InJournal, InSegment, IndexFrom, Point, Remains, SideFile, Start,
    decide, index_from, start,
};

/// Where the recovery point is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment_base: Offset,
    pub position: u64,
}

/// What is left of the recovery point's segment, and where it is. `files` are the segments on disk with their lengths, in order.
pub fn find_point(
    checkpoint: Option<&LogCheckpoint>,
    files: &[(Offset, u64)],
) -> (Point, Option<Place>) {
    let Some(known) = checkpoint else {
        return (Point::Unknown, None);
    };
    let place = Place {
        segment_base: known.recovery_segment_base,
        position: known.recovery_position,
    };
    let at = files
        .iter()
        .position(|&(base, _)| base == place.segment_base);
    let first = files.first().map(|&(base, _)| base);
    let next = at.and_then(|at| files.get(at + 1));
    let follows = next.is_none_or(|&(base, _)| base >= known.recovery_offset);
    match at.map(|at| files[at]) {
        Some((_, len)) if len >= place.position && follows => (Point::InFile, Some(place)),
        None if first == Some(known.recovery_offset) => {
            let place = Place {
                segment_base: known.recovery_offset,
                position: 0,
            };
            (Point::AtNextFile, Some(place))
        }
        _ => (Point::Lost, Some(place)),
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
    /// Bytes that were neither whole batches nor padding, perhaps what an older segment left in the file. More than a MiB is not looked for.
    pub cut_bytes: u64,
    /// The last segment's file was longer than its batches, be it by padding only.
    pub shortened: bool,
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
    /// So much of the last segment is in its side file.
    pub index_saved_len: u64,
    /// Journal entries after `end`, to be appended.
    pub rest: Vec<EntryAt>,
    pub report: Report,
}

pub struct Recovery<'a> {
    pub shared: &'a Rc<Shared>,
    pub dir: &'a Path,
    pub name: &'a LogName,
    pub log_key: u64,
    pub index_interval_bytes: u64,
    pub checkpoint: Option<&'a LogCheckpoint>,
    pub replay: Option<&'a Replay>,
    /// A truncation of the last run may have cut the file and failed to sync that: the length that is seen may not be the one on the disk, nor
    /// will another sync bring it there.
    pub cut_again: bool,
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
    fn epoch_fits(&self, header: &BatchHeader) -> bool {
        let epoch = header.leader_epoch;
        let is_known = header.base_offset < self.known_below;
        epoch.0 >= 0 && (is_known || self.epochs.latest().is_none_or(|latest| epoch >= latest))
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

/// The last segment after its walk.
struct Last {
    index: Index,
    index_saved_len: u64,
}

impl Recovery<'_> {
    /// `files` are the segments on disk with their lengths, in order. `None` if there is nothing: the log is to be created.
    pub async fn run(&self, files: &[(Offset, u64)]) -> Result<Option<Recovered>, Fault> {
        let (point, place) = find_point(self.checkpoint, files);
        let remains = match (files.is_empty(), self.entries.is_empty()) {
            (false, _) => Remains::Segments,
            (true, false) => Remains::OnlyJournal,
            (true, true) => Remains::Nothing,
        };
        let start = start(point, remains);
        if start == Start::Create {
            return Ok(None);
        }
        if start == Start::WalkAndBridge {
            tracing::error!(log = %self.name, "the segment of the recovery point is gone or shorter than it was: the disk lost what it had confirmed");
        }
        let mut walked = self.known(files);
        let mut segments = Vec::with_capacity(files.len() + 1);
        let mut index_saved_len = 0;
        if let Some((&(last_base, last_len), sealed)) = files.split_last() {
            for (at, &(base, len)) in sealed.iter().enumerate() {
                if let Some(position) = walk_from(start, place, base) {
                    let end = files[at + 1].0;
                    self.walk_sealed(base, position, len, end, &mut walked)
                        .await?;
                }
                segments.push(Segment::sealed(base, len));
            }
            let synced = match (start, place) {
                (Start::WalkFromPoint, Some(place)) if place.segment_base == last_base => {
                    place.position
                }
                _ => 0,
            };
            let last = self
                .walk_last(last_base, last_len, synced, &mut walked)
                .await?;
            index_saved_len = last.index_saved_len;
            segments.push(Segment {
                base: last_base,
                len: last.index.len(),
                index: SegmentIndex::Live(last.index),
                seams: Seams::unknown(),
            });
        }
        if self.bridge(&mut segments).await? {
            index_saved_len = 0;
        }
        let active = segments.last().and_then(Segment::live_index);
        let end = active.expect("the last one is not sealed").next_offset();
        self.shared.count(|stats| stats.recovered_logs += 1);
        Ok(Some(Recovered {
            segments,
            epochs: walked.epochs,
            producers: walked.producers,
            end,
            generation: self.generation(),
            durable_end: walked.known_below.min(end),
            index_saved_len,
            rest: self.entries_from(end),
            report: walked.report,
        }))
    }

    fn generation(&self) -> u64 {
        let generations = self.entries.values().map(|entry| entry.log_generation);
        match self.checkpoint {
            Some(checkpoint) => checkpoint.log_generation,
            None => generations.max().unwrap_or(FIRST_GENERATION),
        }
    }

    fn known(&self, files: &[(Offset, u64)]) -> Walked {
        match self.checkpoint {
            Some(checkpoint) => Walked {
                epochs: checkpoint.epochs.clone(),
                producers: checkpoint.producers.clone(),
                known_below: checkpoint.recovery_offset,
                report: Report::default(),
            },
            None => Walked {
                epochs: Epochs::default(),
                producers: Producers::default(),
                known_below: files.first().map_or(Offset::ZERO, |&(base, _)| base),
                report: Report::default(),
            },
        }
    }

    async fn open(&self, base: Offset) -> Result<Rc<File>, Fault> {
        let path = segment_path(self.dir, base);
        self.shared
            .open_segment((self.log_key, base), &path, Handle::Behind)
            .await
            .map_err(|error| Fault::io("open", path, error))
    }

    fn count_read(&self, bytes: u64) {
        self.shared
            .count(|stats| stats.recovery_segment_bytes += bytes);
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
        let mut next_offset = base;
        loop {
            let next = reader.peek().await;
            match next.map_err(|error| Fault::io("read", &path, error))? {
                Next::Batch(header, _)
                    if header.base_offset >= next_offset
                        && header.next_offset() <= end
                        && walked.epoch_fits(&header) =>
                {
                    next_offset = header.next_offset();
                    walked.note(&self.shared.rt, &header);
                    reader.advance(&header);
                }
                Next::End => break,
                Next::Batch(..) | Next::Broken(_) => {
                    tracing::error!(log = %self.name, segment = %base, position = reader.position(), "a sealed segment is damaged here; kept as it is");
                    let passed = reader.skip_broken().await;
                    match passed.map_err(|error| Fault::io("read", &path, error))? {
                        Some(header) => next_offset = header.next_offset(),
                        None => break,
                    }
                }
            }
        }
        self.count_read(reader.read_bytes());
        Ok(())
    }

    /// Index of the last segment up to `synced`, and how much of it is in the side file.
    async fn synced_index(
        &self,
        base: Offset,
        synced: u64,
        file: &Rc<File>,
    ) -> Result<(Index, u64), Fault> {
        let (rt, interval) = (&self.shared.rt, self.index_interval_bytes);
        let empty = Index::new(base, interval, rt.wall_clock());
        let Some(known) = self.checkpoint.filter(|_| synced > 0) else {
            return Ok((empty, 0));
        };
        let tail = known.index.as_ref().filter(|tail| tail.len() == synced);
        let in_checkpoint = match tail {
            None => InCheckpoint::Nothing,
            Some(tail) if tail.from() == 0 => InCheckpoint::Everything,
            Some(_) => InCheckpoint::Rest,
        };
        let needed_from = tail.map_or(0, |tail| tail.from());
        let mut side = None;
        if in_checkpoint != InCheckpoint::Everything {
            side = load_index(rt, self.dir, base, interval).await.ok();
            self.count_read(side.as_ref().map_or(0, |side| side.file_len() as u64));
        }
        let side_file = match &side {
            None => SideFile::Unusable,
            Some(side) if side.len() > synced => SideFile::Newer,
            Some(side) if side.len() < needed_from => SideFile::Older,
            Some(_) => SideFile::Meets,
        };
        let mut side = side.unwrap_or_else(|| empty.clone());
        if side_file == SideFile::Newer {
            // It speaks of batches that the walk may still cut.
            side.rewind(synced);
            self.remove_side_file(base).await?;
        }
        let saved_len = match side_file {
            SideFile::Newer | SideFile::Unusable => 0,
            SideFile::Older | SideFile::Meets => side.len(),
        };
        let joined = match (index_from(in_checkpoint, side_file), tail) {
            (IndexFrom::Checkpoint, Some(tail)) => empty.clone().with_tail(tail),
            (IndexFrom::SideFileAndCheckpoint, Some(tail)) => side.clone().with_tail(tail),
            _ => None,
        };
        if let Some(index) = joined.filter(|index| index.next_offset() <= known.recovery_offset) {
            return Ok((index, saved_len));
        }
        let end = known.recovery_offset;
        let index = self.index_from_batches(side, synced, end, file).await?;
        Ok((index, saved_len))
    }

    /// Walks the batches from where the index ends to the recovery point.
    async fn index_from_batches(
        &self,
        mut index: Index,
        synced: u64,
        end: Offset,
        file: &Rc<File>,
    ) -> Result<Index, Fault> {
        let mut reader = SegmentReader::new(Rc::clone(file), index.len(), synced);
        loop {
            let next = reader.peek().await;
            match next.map_err(|error| Fault::io("read", file.path(), error))? {
                Next::Batch(header, _) if index.accepts(&header) && header.next_offset() <= end => {
                    index.push(&header, reader.position());
                    reader.advance(&header);
                }
                Next::End => break,
                Next::Batch(..) | Next::Broken(_) => {
                    tracing::error!(log = %self.name, segment = %index.base(), position = reader.position(), "synced batches are damaged here; kept as they are");
                    index.skip_to(end, synced);
                    break;
                }
            }
        }
        self.count_read(reader.read_bytes());
        Ok(index)
    }

    async fn remove_side_file(&self, base: Offset) -> Result<(), Fault> {
        let path = index_path(self.dir, base);
        let removed = self.shared.rt.remove_file(&path).await;
        removed.map_err(|error| Fault::io("remove", path, error))?;
        durable::sync_dir(&self.shared.rt, self.dir).await
    }

    /// Decides batch by batch from `synced` on, and cuts the file behind the last one kept. What is kept is written again: the last run may
    /// have seen a sync of it fail, and then what can be read need not be on the disk, nor will another sync bring it there.
    async fn walk_last(
        &self,
        base: Offset,
        file_len: u64,
        synced: u64,
        walked: &mut Walked,
    ) -> Result<Last, Fault> {
        let file = self.open(base).await?;
        let fault = |error| Fault::io("recover", segment_path(self.dir, base), error);
        let (mut index, index_saved_len) = self.synced_index(base, synced, &file).await?;
        if let Some(known) = self.checkpoint.filter(|_| synced > 0) {
            index.skip_to(known.recovery_offset, synced);
        }
        let mut reader = SegmentReader::new(Rc::clone(&file), synced, file_len);
        let mut again = Run::at(synced);
        // Behind the journal entries up to here the segment goes on.
        let mut inner_to = index.next_offset();
        loop {
            if again.gathered_bytes() >= self.shared.limits.write_chunk_bytes_max {
                again.write(&self.shared.rt, &file).await.map_err(fault)?;
            }
            let found = match reader.peek().await.map_err(fault)? {
                Next::Batch(header, bytes)
                    if header.base_offset == index.next_offset()
                        && index.accepts(&header)
                        && walked.epoch_fits(&header) =>
                {
                    Some((header, bytes))
                }
                _ => None,
            };
            let in_segment = match found {
                Some(_) => InSegment::Valid,
                None => InSegment::Broken,
            };
            let entry = self.entries.get(&index.next_offset());
            let mut in_journal = in_journal(&found, entry, &index, file_len);
            if in_journal == InJournal::Other && index.next_offset() >= inner_to {
                match self.goes_on_behind_run(&file, &index, file_len).await {
                    Ok(Some(run_end)) => inner_to = run_end,
                    Ok(None) => in_journal = InJournal::Last,
                    Err(error) => return Err(fault(error)),
                }
            }
            match (decide(in_segment, in_journal), found, entry) {
                (Decision::Keep, Some((header, bytes)), _) => {
                    again.push(&bytes);
                    index.push(&header, reader.position());
                    reader.advance(&header);
                    walked.note(&self.shared.rt, &header);
                }
                (Decision::Restore, _, Some(entry)) => {
                    self.restore(entry, &mut again, &mut index, walked).await?;
                    self.count_read(reader.read_bytes());
                    reader = SegmentReader::new(Rc::clone(&file), index.len(), file_len);
                }
                _ => break,
            }
        }
        self.count_read(reader.read_bytes());
        again.write(&self.shared.rt, &file).await.map_err(fault)?;
        self.cut(file, index.len(), file_len, &mut walked.report)
            .await?;
        Ok(Last {
            index,
            index_saved_len,
        })
    }

    /// Where the run of journal entries from the end of `index` on ends, if the segment holds the batch that comes next there.
    async fn goes_on_behind_run(
        &self,
        file: &Rc<File>,
        index: &Index,
        file_len: u64,
    ) -> std::io::Result<Option<Offset>> {
        let (mut end, mut position) = (index.next_offset(), index.len());
        while let Some(entry) = self.entries.get(&end) {
            (end, position) = (entry.next_offset, position + entry.len as u64);
        }
        if position >= file_len {
            return Ok(None);
        }
        let mut reader = SegmentReader::new(Rc::clone(file), position, file_len);
        let next = reader.peek().await?;
        self.count_read(reader.read_bytes());
        let goes_on = matches!(next, Next::Batch(header, _) if header.base_offset == end);
        Ok(goes_on.then_some(end))
    }

    /// Puts the batches of a journal entry into the segment at the end of `index`.
    async fn restore(
        &self,
        entry: &EntryAt,
        again: &mut Run,
        index: &mut Index,
        walked: &mut Walked,
    ) -> Result<(), Fault> {
        let replay = self.replay.expect("an entry comes from a journal");
        let bytes = replay.bytes(entry).await?;
        let is_known = entry.base_offset < walked.known_below;
        let epoch = walked.epochs.latest().filter(|_| !is_known);
        let batches = batches_of(&bytes, entry, epoch, self.dir)?;
        again.push(&bytes);
        for (header, _) in batches {
            index.push(&header, index.len());
            walked.note(&self.shared.rt, &header);
            walked.report.restored_batches += 1;
        }
        Ok(())
    }

    /// Where the disk lost what lies below the recovery point, and the segments end there: goes on at that point in a new segment.
    async fn bridge(&self, segments: &mut Vec<Segment>) -> Result<bool, Fault> {
        let offset = match self.checkpoint {
            Some(known) => known.recovery_offset,
            None if segments.is_empty() => {
                let first = self.entries.keys().next();
                *first.expect("a log of which nothing is left is created")
            }
            None => return Ok(false),
        };
        let rt = &self.shared.rt;
        if let Some(last) = segments.last_mut() {
            let index = last.live_index().expect("the last one is not sealed");
            let run = self.entries_from(index.next_offset());
            let end = run
                .last()
                .map_or(index.next_offset(), |last| last.next_offset);
            if end >= offset {
                return Ok(false);
            }
            tracing::error!(log = %self.name, from = %index.next_offset(), to = %offset, "these offsets are lost");
            let file = self.open(last.base).await?;
            let synced = file.sync().await;
            synced.map_err(|error| Fault::io("sync", file.path(), error))?;
            durable::replace_file(rt, &index_path(self.dir, last.base), &index.encode()).await?;
            *last = Segment::sealed(last.base, last.len);
        } else {
            tracing::error!(log = %self.name, to = %offset, "all segments are lost");
        }
        let path = segment_path(self.dir, offset);
        let fault = |error| Fault::io("create", &path, error);
        let file = rt.open(&path, OpenMode::Create).await.map_err(fault)?;
        file.sync().await.map_err(fault)?;
        durable::sync_dir(rt, self.dir).await?;
        segments.push(Segment::new(
            offset,
            self.index_interval_bytes,
            rt.wall_clock(),
        ));
        Ok(true)
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

/// Where the walk of a sealed segment begins, if it is walked.
fn walk_from(start: Start, place: Option<Place>, base: Offset) -> Option<u64> {
    match (start, place) {
        (Start::WalkFromPoint | Start::WalkAndBridge, Some(place)) if base < place.segment_base => {
            None
        }
        (Start::WalkFromPoint, Some(place)) if base == place.segment_base => Some(place.position),
        _ => Some(0),
    }
}

fn in_journal(
    found: &Option<(BatchHeader, Bytes)>,
    entry: Option<&EntryAt>,
    index: &Index,
    file_len: u64,
) -> InJournal {
    match (found, entry) {
        (_, None) => InJournal::Absent,
        (Some((header, bytes)), Some(entry))
            if entry.leader_epoch == header.leader_epoch && entry.holds(bytes) =>
        {
            InJournal::Same
        }
        (_, Some(entry)) => {
            let within_file = index.len() + entry.len as u64 <= file_len;
            match within_file && index.has_room(entry.len, entry.next_offset) {
                true => InJournal::Other,
                false => InJournal::Beyond,
            }
        }
    }
}

/// The batches of a journal entry; they were checked when they were taken in, and the entry has a CRC of its own.
pub fn batches_of(
    bytes: &Bytes,
    entry: &EntryAt,
    epoch_before: Option<LeaderEpoch>,
    dir: &Path,
) -> Result<Vec<(BatchHeader, Bytes)>, Fault> {
    let corrupt = |what: String| {
        Fault::corrupt(
            format!("journal entry at {}: {what}", entry.base_offset),
            dir,
        )
    };
    let mut rest = bytes.clone();
    let (mut offset, mut epoch) = (entry.base_offset, epoch_before.unwrap_or(LeaderEpoch(0)));
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::parse(&rest).map_err(|error| corrupt(error.to_string()))?;
        header
            .check_crc(&rest)
            .map_err(|error| corrupt(error.to_string()))?;
        if header.base_offset != offset || header.leader_epoch < epoch {
            let (base, of) = (header.base_offset, header.leader_epoch);
            return Err(corrupt(format!("a batch at {base} of epoch {of}")));
        }
        (offset, epoch) = (header.next_offset(), header.leader_epoch);
        batches.push((header, rest.split_to(header.total_len)));
    }
    match offset == entry.next_offset {
        true => Ok(batches),
        false => Err(corrupt(format!("it ends at {offset}"))),
    }
}
