//! Builds batches: for our own internal logs, our client, benchmarks and tests.

use bytes::{BufMut, BytesMut};

use super::{
    BatchHeader, Codec, HEADER_LEN,
    header::attribute,
    varint::{put_varint, put_varlong, varlong_len},
};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Gathers records; the header is written by [`BatchBuilder::build`].
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    /// Without codec bits.
    attributes: u16,
    producer: Option<(ProducerId, ProducerEpoch)>,
    base_sequence: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    record_count: i32,
    /// Room for the header, then the records, uncompressed.
    buffer: BytesMut,
}

impl BatchBuilder {
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            codec,
            attributes: 0,
            producer: None,
            base_sequence: -1,
            base_timestamp: Timestamp(-1),
            max_timestamp: Timestamp(-1),
            record_count: 0,
            buffer: BytesMut::zeroed(HEADER_LEN),
        }
    }

    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer = Some((id, epoch));
        self.base_sequence = base_sequence;
        self
    }

    /// Sets the transactional (4) and control (5) bits and the like.
    pub fn attributes(mut self, bits: u16) -> Self {
        assert!(bits & attribute::CODEC_MASK == 0, "the codec is given once");
        self.attributes = bits;
        self
    }

    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.0 - self.base_timestamp.0;
        let offset_delta = self.record_count;
        let header_count = i32::try_from(headers.len()).expect("headers fit memory many times");
        let body_len = 1
            + varlong_len(timestamp_delta)
            + varlong_len(i64::from(offset_delta))
            + nullable_len(key)
            + nullable_len(value)
            + varlong_len(i64::from(header_count))
            + headers
                .iter()
                .map(|(key, value)| nullable_len(Some(key)) + nullable_len(*value))
                .sum::<usize>();
        put_varlong(&mut self.buffer, body_len as i64);
        let body_start = self.buffer.len();
        self.buffer.reserve(body_len);
        self.buffer.put_i8(0);
        put_varlong(&mut self.buffer, timestamp_delta);
        put_varint(&mut self.buffer, offset_delta);
        put_nullable(&mut self.buffer, key);
        put_nullable(&mut self.buffer, value);
        put_varint(&mut self.buffer, header_count);
        for (key, value) in headers {
            put_nullable(&mut self.buffer, Some(key));
            put_nullable(&mut self.buffer, *value);
        }
        assert!(self.buffer.len() == body_start + body_len);
        assert!(
            self.buffer.len() < i32::MAX as usize,
            "a batch is below 2 GiB"
        );
        self.record_count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    pub fn record_count(&self) -> usize {
        self.record_count as usize
    }

    /// Bytes of the batch so far, before compression.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// The finished batch: base offset 0, leader epoch -1, CRC set. Panics when no record was pushed.
    pub fn build(self) -> BytesMut {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            total_len: self.buffer.len(),
            leader_epoch: LeaderEpoch(-1),
            crc: 0,
            attributes: self.attributes,
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer: self.producer,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        match self.codec {
            Codec::None => {
                let mut batch = self.buffer;
                header.write(&mut batch);
                batch
            }
            codec => encode(header, codec, &self.buffer[HEADER_LEN..]),
        }
    }
}

/// A batch with the fields of `header` and the given records, compressed with `codec`; length, codec bits and CRC are set.
pub(super) fn encode(mut header: BatchHeader, codec: Codec, records: &[u8]) -> BytesMut {
    let mut batch = BytesMut::zeroed(HEADER_LEN);
    match codec {
        Codec::None => batch.extend_from_slice(records),
        codec => batch.extend_from_slice(&codec.compress(records)),
    }
    header.attributes = header.attributes & !attribute::CODEC_MASK | u16::from(codec.id());
    header.total_len = batch.len();
    header.write(&mut batch);
    batch
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varlong_len(-1),
        Some(bytes) => varlong_len(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}
