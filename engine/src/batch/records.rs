//! Iteration over the records of a batch.

use bytes::Bytes;

use crate::types::{Offset, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    pub timestamp: Timestamp,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// In order, duplicates kept.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Iterator over the records of one batch (decompressed first if need be, within a bound).
pub struct Records {
    _private: (),
}

impl Records {
    /// `batch` is one whole batch; `bytes_max` bounds what decompression may produce.
    pub fn new(_batch: &Bytes, _bytes_max: usize) -> Result<Records, super::BatchError> {
        unimplemented!()
    }
}

impl Iterator for Records {
    type Item = Result<Record, super::BatchError>;
    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
