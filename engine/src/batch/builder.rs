//! Builds batches: for our own internal logs, our client, benchmarks and tests.

use bytes::BytesMut;

use super::Codec;
use crate::types::{ProducerEpoch, ProducerId, Timestamp};

#[derive(Clone, Debug)]
pub struct BatchBuilder {
    _private: (),
}

impl BatchBuilder {
    pub fn new(_codec: Codec) -> BatchBuilder {
        unimplemented!()
    }
    pub fn producer(self, _id: ProducerId, _epoch: ProducerEpoch, _base_sequence: i32) -> Self {
        unimplemented!()
    }
    /// Sets the transactional (4) and control (5) bits and the like.
    pub fn attributes(self, _bits: u16) -> Self {
        unimplemented!()
    }
    pub fn push(
        &mut self,
        _timestamp: Timestamp,
        _key: Option<&[u8]>,
        _value: Option<&[u8]>,
        _headers: &[(&[u8], Option<&[u8]>)],
    ) {
        unimplemented!()
    }
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    pub fn record_count(&self) -> usize {
        unimplemented!()
    }
    /// Bytes of the batch so far, before compression.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    /// The finished batch: base offset 0, leader epoch -1, CRC set.
    pub fn build(self) -> BytesMut {
        unimplemented!()
    }
}
