//! Iteration over the records of a batch: in place for validation, as owned slices for tools, lookups and tests.
//!
//! ```text
//! record:  length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!          | key length varint (-1: null) | key | value length varint (-1: null) | value
//!          | header count varint | { key length varint | key | value length varint (-1: null) | value } ...
//! ```
//!
//! The CRC is not checked here; whoever read the batch has done so.

use bytes::Bytes;

use super::{BatchError, BatchHeader, Codec, HEADER_LEN, varint::Reader};
use crate::{
    log::TimestampType,
    types::{Offset, Timestamp},
};

/// What a batch may grow to when it is decompressed, if the caller knows no better.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 * 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order, duplicates kept.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Iterator over the records of one batch (decompressed first if need be, within a bound). Ends after the first error.
pub struct Records {
    header: BatchHeader,
    /// All records, uncompressed.
    records: Bytes,
    position: usize,
    index: i32,
}

impl Records {
    /// `batch` is one whole batch; `bytes_max` bounds what decompression may produce.
    pub fn new(batch: &Bytes, bytes_max: usize) -> Result<Records, BatchError> {
        let header = BatchHeader::parse(batch)?;
        if header.total_len != batch.len() {
            return Err(BatchError::NotOneBatch);
        }
        let records = match header.codec()? {
            Codec::None => batch.slice(HEADER_LEN..),
            codec => Bytes::from(codec.decompress(&batch[HEADER_LEN..], bytes_max)?),
        };
        Ok(Records {
            header,
            records,
            position: 0,
            index: 0,
        })
    }

    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    fn read_next(&mut self) -> Result<Record, BatchError> {
        let mut reader = Reader::new(&self.records[self.position..]);
        let view = RecordView::read(&mut reader)?;
        // Compaction leaves gaps, so only the range is certain.
        if view.offset_delta < 0 || view.offset_delta > self.header.last_offset_delta {
            return Err(BatchError::Malformed("offset delta outside of the batch"));
        }
        let owned = |slice: &[u8]| self.records.slice_ref(slice);
        let mut headers = Vec::new();
        let mut rest = Reader::new(view.headers);
        while !rest.is_empty() {
            let (key, value) = read_header(&mut rest)?;
            headers.push((owned(key), value.map(owned)));
        }
        let record = Record {
            offset: self.header.base_offset.plus(i64::from(view.offset_delta)),
            timestamp: view.timestamp(&self.header)?,
            key: view.key.map(owned),
            value: view.value.map(owned),
            headers,
        };
        self.position = self.records.len() - reader.len();
        Ok(record)
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index == self.header.record_count {
            return None;
        }
        let record = self.read_next();
        self.index = match record {
            Ok(_) => self.index + 1,
            Err(_) => self.header.record_count,
        };
        Some(record)
    }
}

/// One record, still in place; its headers are known to be well formed.
#[derive(Debug)]
pub(super) struct RecordView<'a> {
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    pub fn read(section: &mut Reader<'a>) -> Result<RecordView<'a>, BatchError> {
        let len = usize::try_from(section.varint()?)
            .map_err(|_| BatchError::Malformed("negative record length"))?;
        let mut record = Reader::new(section.take(len)?);
        let _unused_attributes = record.byte()?;
        let timestamp_delta = record.varlong()?;
        let offset_delta = record.varint()?;
        let key = record.nullable_bytes()?;
        let value = record.nullable_bytes()?;
        let header_count = record.varint()?;
        if header_count < 0 {
            return Err(BatchError::Malformed("negative header count"));
        }
        let headers = record.rest();
        // A header takes two bytes at least, so a false count ends with the record's bytes.
        for _ in 0..header_count {
            read_header(&mut record)?;
        }
        if !record.is_empty() {
            return Err(BatchError::Malformed("record longer than its fields"));
        }
        Ok(RecordView {
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        })
    }

    pub fn timestamp(&self, header: &BatchHeader) -> Result<Timestamp, BatchError> {
        match header.timestamp_type() {
            TimestampType::LogAppendTime => Ok(header.max_timestamp),
            TimestampType::CreateTime => {
                let timestamp = header.base_timestamp.0.checked_add(self.timestamp_delta);
                timestamp
                    .map(Timestamp)
                    .ok_or(BatchError::Malformed("timestamp overflow"))
            }
        }
    }
}

fn read_header<'a>(record: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), BatchError> {
    let key = record
        .nullable_bytes()?
        .ok_or(BatchError::Malformed("header without a key"))?;
    let value = record.nullable_bytes()?;
    Ok((key, value))
}
