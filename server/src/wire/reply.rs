//! Writes replies: size prefix, header, body.
//!
//! Most replies are structures of the `kafka-protocol` crate ([`encode`]). Produce and Fetch are written by hand: they
//! are the hot path, and the records of a fetch must leave as the slices they are in the log. [`Frame`] is the writer
//! both use; the shape of their replies is told where their requests are, in `api::produce` and `api::fetch`.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{messages::ApiKey, protocol::Encodable};

use super::header::RequestHeader;

const SIZE_BYTES: usize = 4;

/// A reply that cannot be written: a bug of the handler, or more bytes than a frame holds. The connection is closed.
#[derive(Debug)]
pub struct EncodeError {
    pub key: ApiKey,
    pub version: i16,
    pub what: String,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodeError { key, version, what } = self;
        write!(f, "reply to {key:?} version {version}: {what}")
    }
}

impl std::error::Error for EncodeError {}

/// The whole reply to a request, from its size prefix on.
pub fn encode<R: Encodable>(header: &RequestHeader, reply: &R) -> Result<Bytes, EncodeError> {
    let version = header.version;
    let error = |what| EncodeError {
        key: header.api.key,
        version,
        what,
    };
    let body_bytes = reply
        .compute_size(version)
        .map_err(|e| error(e.to_string()))?;
    let mut frame = Frame::new(header, body_bytes);
    reply
        .encode(&mut frame.bytes, version)
        .map_err(|e| error(e.to_string()))?;
    frame.finish_contiguous().map_err(|e| error(e.to_string()))
}

/// A reply under construction. Fields go to one buffer; records are only noted, with the place where they belong.
pub struct Frame {
    bytes: BytesMut,
    flexible: bool,
    /// Slices to be sent, each with how many bytes of `bytes` come before it.
    slices: Vec<(usize, Bytes)>,
    slice_bytes: usize,
}

/// The reply takes more bytes than its size prefix can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLarge {
    pub bytes: usize,
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes do not fit a frame", self.bytes)
    }
}

impl std::error::Error for FrameTooLarge {}

impl Frame {
    /// `body_bytes` is a guess that saves growing.
    pub fn new(header: &RequestHeader, body_bytes: usize) -> Frame {
        let mut bytes = BytesMut::with_capacity(SIZE_BYTES + 5 + body_bytes);
        bytes.put_i32(0);
        bytes.put_i32(header.correlation_id);
        if header.api.response_header_version(header.version) >= 1 {
            bytes.put_u8(0);
        }
        Frame {
            bytes,
            flexible: header.api.is_flexible(header.version),
            slices: Vec::new(),
            slice_bytes: 0,
        }
    }

    pub fn i8(&mut self, value: i8) {
        self.bytes.put_i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.bytes.put_i16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }

    /// Cut to the 32,767 bytes that the old encoding can tell: names are far shorter, messages lose their end.
    pub fn string(&mut self, value: &str) {
        let mut end = value.len().min(i16::MAX as usize);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        if self.flexible {
            self.varint(end as u32 + 1);
        } else {
            self.i16(end as i16);
        }
        self.bytes.put_slice(&value.as_bytes()[..end]);
    }

    pub fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.varint(0),
            None => self.i16(-1),
        }
    }

    /// How many elements follow, or how many bytes of records.
    pub fn count(&mut self, count: usize) {
        let count = i32::try_from(count).expect("a reply holds less than 2^31 of anything");
        if self.flexible {
            self.varint(count as u32 + 1);
        } else {
            self.i32(count);
        }
    }

    pub fn null_array(&mut self) {
        if self.flexible {
            self.varint(0);
        } else {
            self.i32(-1);
        }
    }

    /// Records, sent as the slices they are. None at all are an empty field, not a null one: clients rely on it.
    pub fn records(&mut self, slices: Vec<Bytes>) {
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        self.count(bytes);
        self.slice_bytes += bytes;
        let at = self.bytes.len();
        let filled = slices.into_iter().filter(|slice| !slice.is_empty());
        self.slices.extend(filled.map(|slice| (at, slice)));
    }

    /// Begins the tagged fields of a structure; exactly `count` [`Frame::tagged_field`] follow. Nothing when not flexible.
    pub fn tagged_fields(&mut self, count: u32) {
        if self.flexible {
            self.varint(count);
        } else {
            assert_eq!(count, 0, "tagged fields in a version without them");
        }
    }

    /// One tagged field, of less than 128 bytes.
    pub fn tagged_field(&mut self, tag: u32, write: impl FnOnce(&mut Frame)) {
        assert!(self.flexible, "a tagged field in a version without them");
        self.varint(tag);
        let size_at = self.bytes.len();
        self.bytes.put_u8(0);
        write(self);
        let size = self.bytes.len() - size_at - 1;
        assert!(size < 0x80, "the size of a tagged field takes one byte");
        self.bytes[size_at] = size as u8;
    }

    /// The reply as slices to be sent one after the other.
    pub fn finish(mut self) -> Result<Vec<Bytes>, FrameTooLarge> {
        self.set_size()?;
        let mut fields = self.bytes.freeze();
        let mut out = Vec::with_capacity(2 * self.slices.len() + 1);
        let mut sent = 0;
        for (at, slice) in self.slices {
            if at > sent {
                out.push(fields.split_to(at - sent));
                sent = at;
            }
            out.push(slice);
        }
        if !fields.is_empty() {
            out.push(fields);
        }
        Ok(out)
    }

    /// The reply as one piece, for those without records.
    pub fn finish_contiguous(mut self) -> Result<Bytes, FrameTooLarge> {
        assert!(self.slices.is_empty(), "records leave as slices");
        self.set_size()?;
        Ok(self.bytes.freeze())
    }

    fn set_size(&mut self) -> Result<(), FrameTooLarge> {
        let bytes = self.bytes.len() - SIZE_BYTES + self.slice_bytes;
        let size = i32::try_from(bytes).map_err(|_| FrameTooLarge { bytes })?;
        self.bytes[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
        Ok(())
    }
}
