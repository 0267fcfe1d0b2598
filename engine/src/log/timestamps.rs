//! Lookups by timestamp: the sparse indexes give a place that is not too late, batches are walked from there.

use std::rc::Rc;

use bytes::Bytes;

use super::{OffsetAndTime, ReadLimit, state::LogInner};
use crate::{
    batch::{BatchHeader, Record, Records},
    error::{Fault, ReadError},
    segment::{SegmentIndex, index::NO_TIMESTAMP},
    types::{Offset, Timestamp},
};

/// How much one step of a walk reads.
const STEP_BYTES: usize = 1024 * 1024;

/// What the records of one batch may decompress to here.
const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;

impl LogInner {
    pub async fn find_timestamp(
        self: &Rc<Self>,
        timestamp: Timestamp,
        below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        self.awake().await?;
        self.state.borrow_mut().used = true;
        for base in self.segment_bases(below) {
            if self
                .known_max_timestamp(base)
                .is_some_and(|max_timestamp| max_timestamp < timestamp)
            {
                continue;
            }
            let asked = self
                .ask_index(base, |index| {
                    (index.max_timestamp(), index.find_timestamp(timestamp))
                })
                .await;
            let (max_timestamp, place) = match asked {
                Ok(found) => found,
                Err(_) if self.is_deleted(base) => continue,
                Err(fault) => return Err(fault.into()),
            };
            if max_timestamp < timestamp {
                continue;
            }
            // The segment has it; only `below` may still keep it from us, and then every later one is above `below` too.
            let mut walk = Walk::new(self, place.offset, below);
            while let Some((header, batch)) = walk.next().await? {
                if header.max_timestamp >= timestamp
                    && let Some(found) = self.first_at_or_after(&header, &batch, timestamp)?
                {
                    return Ok(Some(found));
                }
            }
            return Ok(None);
        }
        Ok(None)
    }

    pub async fn find_max_timestamp(
        self: &Rc<Self>,
        below: Offset,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        self.awake().await?;
        self.state.borrow_mut().used = true;
        let bases = self.segment_bases(below);
        let log_start = self.state.borrow().marks.log_start;
        let mut max_timestamp = NO_TIMESTAMP;
        // Newest first, so that the oldest is seldom walked.
        for (at, &base) in bases.iter().enumerate().rev() {
            let next_base = bases.get(at + 1).copied();
            let mut in_segment = match next_base {
                Some(_) => match self.known_max_timestamp(base) {
                    Some(max_timestamp) => max_timestamp,
                    None => match self.ask_index(base, |index| index.max_timestamp()).await {
                        Ok(max_timestamp) => max_timestamp,
                        Err(_) if self.is_deleted(base) => continue,
                        Err(fault) => return Err(fault.into()),
                    },
                },
                None => self.max_timestamp_in_last(base, below).await?,
            };
            if base < log_start && in_segment > max_timestamp {
                // The index still counts what lies below the log start.
                let end = next_base.map_or(below, |next| next.min(below));
                in_segment = self.max_timestamp_between(log_start, end).await?;
            }
            max_timestamp = max_timestamp.max(in_segment);
        }
        if max_timestamp == NO_TIMESTAMP {
            return Ok(None);
        }
        self.find_timestamp(max_timestamp, below).await
    }

    /// The largest timestamp in the part of a segment that lies below `below`.
    async fn max_timestamp_in_last(
        self: &Rc<Self>,
        base: Offset,
        below: Offset,
    ) -> Result<Timestamp, ReadError> {
        let (place, mut max_timestamp) = self
            .ask_index(base, |index| {
                let place = index.find_offset(below);
                (place, index.max_timestamp_before(place))
            })
            .await?;
        let mut walk = Walk::new(self, place.offset, below);
        while let Some((header, _)) = walk.next().await? {
            max_timestamp = max_timestamp.max(header.max_timestamp);
        }
        Ok(max_timestamp)
    }

    /// The largest timestamp of a segment, if it is in memory: most segments are passed over by it, without reading their index.
    fn known_max_timestamp(&self, base: Offset) -> Option<Timestamp> {
        let state = self.state.borrow();
        match &state.segments[state.segment_of(base)].index {
            SegmentIndex::Live(index) => Some(index.max_timestamp()),
            SegmentIndex::OnDisk { max_timestamp } => *max_timestamp,
        }
    }

    async fn max_timestamp_between(
        self: &Rc<Self>,
        from: Offset,
        end: Offset,
    ) -> Result<Timestamp, ReadError> {
        let mut max_timestamp = NO_TIMESTAMP;
        let mut walk = Walk::new(self, from, end);
        while let Some((header, batch)) = walk.next().await? {
            if header.base_offset >= from {
                max_timestamp = max_timestamp.max(header.max_timestamp);
                continue;
            }
            for record in self.records(&header, &batch)? {
                if record.offset >= from {
                    max_timestamp = max_timestamp.max(record.timestamp);
                }
            }
        }
        Ok(max_timestamp)
    }

    /// Segments that hold offsets from the log start up to `below`.
    fn segment_bases(&self, below: Offset) -> Vec<Offset> {
        let state = self.state.borrow();
        state
            .segments
            .iter()
            .map(|segment| segment.base)
            .take_while(|&base| base < below)
            .collect()
    }

    /// Whether retention has taken this segment away since it was looked up.
    fn is_deleted(&self, base: Offset) -> bool {
        base < self.state.borrow().segments[0].base
    }

    fn first_at_or_after(
        &self,
        header: &BatchHeader,
        batch: &Bytes,
        timestamp: Timestamp,
    ) -> Result<Option<OffsetAndTime>, ReadError> {
        let log_start = self.state.borrow().marks.log_start;
        let found = self
            .records(header, batch)?
            .into_iter()
            .find(|record| record.timestamp >= timestamp && record.offset >= log_start);
        Ok(found.map(|record| OffsetAndTime {
            offset: record.offset,
            timestamp: record.timestamp,
            leader_epoch: header.leader_epoch,
        }))
    }

    fn records(&self, header: &BatchHeader, batch: &Bytes) -> Result<Vec<Record>, ReadError> {
        let corrupt = |error: crate::batch::BatchError| {
            let what = format!("records of the batch at {}: {error}", header.base_offset);
            ReadError::Corrupt(Fault::corrupt(what, &self.dir))
        };
        let records = Records::new(batch, DECOMPRESSED_BYTES_MAX).map_err(corrupt)?;
        records.map(|record| record.map_err(corrupt)).collect()
    }
}

/// Batch after batch from an offset on.
pub struct Walk<'a> {
    log: &'a Rc<LogInner>,
    from: Offset,
    below: Offset,
    read: std::vec::IntoIter<Bytes>,
}

impl<'a> Walk<'a> {
    pub fn new(log: &'a Rc<LogInner>, from: Offset, below: Offset) -> Walk<'a> {
        let log_start = log.state.borrow().marks.log_start;
        Walk {
            log,
            from: from.max(log_start),
            below,
            read: Vec::new().into_iter(),
        }
    }

    pub async fn next(&mut self) -> Result<Option<(BatchHeader, Bytes)>, ReadError> {
        if self.read.as_slice().is_empty() {
            let limit = ReadLimit {
                below: self.below,
                bytes_max: STEP_BYTES,
                at_least_one: true,
            };
            let fetched = self.log.read(self.from, limit).await?;
            let Some(next) = fetched.next else {
                return Ok(None);
            };
            self.from = next;
            self.read = fetched.slices.into_iter();
        }
        let Some(batch) = self.read.next() else {
            return Ok(None);
        };
        let header = BatchHeader::parse(&batch).expect("a read gives whole, checked batches");
        Ok(Some((header, batch)))
    }
}
