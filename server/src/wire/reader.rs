//! Reads the fields of a request out of bytes that nobody has checked yet.
//!
//! Promises: never panics, whatever the bytes; never reads past the frame; allocates nothing for a count before the
//! frame was seen to be long enough for that many elements, and no more than [`DECODED_BYTES_MAX`] for all arrays of a
//! request together. Strings and byte fields are not copied: they are parts of the frame and keep it alive, so copy
//! what is kept for longer than the request.
//!
//! Does not know any request: a request says how it is read by [`Decode`].

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

/// The most memory that the arrays decoded from one request may take.
pub const DECODED_BYTES_MAX: usize = 32 << 20;

/// The most unknown tagged fields skipped in one structure; Kafka's own messages use at most three.
pub const TAGGED_FIELDS_MAX: u32 = 64;

/// A structure that a [`Reader`] can read: a whole request or an element of an array in one.
pub trait Decode: Sized {
    /// No version of the structure takes fewer bytes: bounds the counts of arrays of it. Requests as a whole, which are
    /// never in an array, leave it alone.
    const BYTES_MIN: usize = 1;

    /// Reads the fields in order, tagged fields excluded: the reader skips those by itself.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    pub what: Malformed,
    /// Where in the frame, in bytes from the start of the header.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A field reaches past the end of the frame.
    Truncated,
    /// More elements than the rest of the frame can hold.
    Count(u32),
    /// A negative length that does not stand for null.
    Length(i32),
    /// Null in a field that has none.
    Null,
    /// A variable-length number of more than 32 bits.
    Varint,
    Utf8,
    /// The arrays of the request take more than [`DECODED_BYTES_MAX`].
    TooLarge,
    /// More than [`TAGGED_FIELDS_MAX`] in one structure.
    TaggedFields(u32),
    /// A field holds a value without a meaning.
    Value(&'static str),
    /// Bytes behind the last field.
    Trailing(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Malformed::Truncated => f.write_str("field reaches past the end"),
            Malformed::Count(count) => write!(f, "count {count} is more than fits"),
            Malformed::Length(length) => write!(f, "length {length}"),
            Malformed::Null => f.write_str("null in a field that has none"),
            Malformed::Varint => f.write_str("varint of more than 32 bits"),
            Malformed::Utf8 => f.write_str("string is not UTF-8"),
            Malformed::TooLarge => write!(f, "arrays take more than {DECODED_BYTES_MAX} bytes"),
            Malformed::TaggedFields(count) => write!(f, "{count} tagged fields in one structure"),
            Malformed::Value(field) => write!(f, "unknown {field}"),
            Malformed::Trailing(bytes) => write!(f, "{bytes} bytes behind the last field"),
        }?;
        write!(f, " at byte {} of the frame", self.at)
    }
}

impl std::error::Error for DecodeError {}

/// Stands at a byte of a frame. Owns the frame, so that parts of it can be split off: see [`Reader::bytes_mut`].
pub struct Reader {
    rest: BytesMut,
    frame_bytes: usize,
    flexible: bool,
    decoded_bytes: usize,
}

impl Reader {
    /// `flexible`: compact lengths and tagged fields, the encoding of each API from some version on.
    pub fn new(frame: BytesMut, flexible: bool) -> Reader {
        Reader {
            frame_bytes: frame.len(),
            rest: frame,
            flexible,
            decoded_bytes: 0,
        }
    }

    /// What follows is flexible, or not: known only once the header has told API and version.
    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Reads one request and ignores what is behind it, as Kafka does: librdkafka 2.12 asks for the metadata of all topics with three bytes
    /// too many.
    pub fn request<T: Decode>(mut self, version: i16) -> Result<T, DecodeError> {
        self.structure(version)
    }

    /// Reads what is left of the frame as one request, and makes sure that nothing is left: for checks of the decoders.
    pub fn body<T: Decode>(mut self, version: i16) -> Result<T, DecodeError> {
        let body = self.structure(version)?;
        self.finish()?;
        Ok(body)
    }

    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.error(Malformed::Trailing(left))),
        }
    }

    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed(1)?;
        Ok(self.rest.get_i8())
    }

    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed(2)?;
        Ok(self.rest.get_i16())
    }

    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed(4)?;
        Ok(self.rest.get_i32())
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed(8)?;
        Ok(self.rest.get_i64())
    }

    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.fixed(16)?;
        Ok(Uuid::from_u128(self.rest.get_u128()))
    }

    /// An unsigned number in groups of seven bits, lowest first.
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..u32::BITS).step_by(7) {
            self.fixed(1)?;
            let byte = self.rest.get_u8();
            let bits = u32::from(byte & 0x7f);
            if bits.leading_zeros() < shift {
                return Err(self.error(Malformed::Varint));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(Malformed::Varint))
    }

    /// A string, in whatever type holds one: `TopicName`, `GroupId`, plain `StrBytes`.
    pub fn string<T: From<StrBytes>>(&mut self) -> Result<T, DecodeError> {
        match self.nullable_string()? {
            Some(string) => Ok(string),
            None => Err(self.error(Malformed::Null)),
        }
    }

    pub fn nullable_string<T: From<StrBytes>>(&mut self) -> Result<Option<T>, DecodeError> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            self.short_length()?
        };
        self.string_of(length)
    }

    /// Kafka encodes the client id in all headers in the old way, even in flexible ones.
    pub(super) fn nullable_string_not_compact(&mut self) -> Result<Option<StrBytes>, DecodeError> {
        let length = self.short_length()?;
        self.string_of(length)
    }

    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        match self.bytes_mut()? {
            Some(bytes) => Ok(bytes.freeze()),
            None => Err(self.error(Malformed::Null)),
        }
    }

    /// A nullable byte field, split off the frame: no copy, and nobody else can reach these bytes, so that a batch
    /// of records can be given its offset in place.
    pub fn bytes_mut(&mut self) -> Result<Option<BytesMut>, DecodeError> {
        match self.long_length()? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// One structure and its tagged fields, all of them skipped.
    pub fn structure<T: Decode>(&mut self, version: i16) -> Result<T, DecodeError> {
        let value = T::decode(self, version)?;
        self.skip_tagged_fields()?;
        Ok(value)
    }

    /// A structure that may be null, which is told by a byte in front of it.
    pub fn nullable_structure<T: Decode>(
        &mut self,
        version: i16,
    ) -> Result<Option<T>, DecodeError> {
        match self.i8()? {
            -1 => Ok(None),
            1 => self.structure(version).map(Some),
            other => Err(self.error(Malformed::Length(other.into()))),
        }
    }

    pub fn structures<T: Decode>(&mut self, version: i16) -> Result<Vec<T>, DecodeError> {
        self.array(T::BYTES_MIN, |reader| reader.structure(version))
    }

    pub fn nullable_structures<T: Decode>(
        &mut self,
        version: i16,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        self.nullable_array(T::BYTES_MIN, |reader| reader.structure(version))
    }

    pub fn strings<T: From<StrBytes>>(&mut self) -> Result<Vec<T>, DecodeError> {
        self.array(1, Reader::string)
    }

    pub fn i32s<T: From<i32>>(&mut self) -> Result<Vec<T>, DecodeError> {
        self.array(4, |reader| reader.i32().map(T::from))
    }

    /// An array of elements that take at least `element_bytes_min` bytes each.
    pub fn array<T>(
        &mut self,
        element_bytes_min: usize,
        element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        match self.nullable_array(element_bytes_min, element)? {
            Some(array) => Ok(array),
            None => Err(self.error(Malformed::Null)),
        }
    }

    pub fn nullable_array<T>(
        &mut self,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        assert!(
            element_bytes_min > 0,
            "a count must be bounded by the frame"
        );
        let Some(count) = self.long_length()? else {
            return Ok(None);
        };
        let count = count as usize;
        if count > self.rest.len() / element_bytes_min {
            return Err(self.error(Malformed::Count(count as u32)));
        }
        let array_bytes = count.saturating_mul(size_of::<T>());
        if array_bytes > DECODED_BYTES_MAX - self.decoded_bytes {
            return Err(self.error(Malformed::TooLarge));
        }
        self.decoded_bytes += array_bytes;
        let mut array = Vec::with_capacity(count);
        for _ in 0..count {
            array.push(element(self)?);
        }
        Ok(Some(array))
    }

    /// For a decoder that found a value without a meaning.
    pub fn unknown(&self, field: &'static str) -> DecodeError {
        self.error(Malformed::Value(field))
    }

    /// Memory of all arrays so far.
    pub fn decoded_bytes(&self) -> usize {
        self.decoded_bytes
    }

    pub(super) fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let count = self.varint()?;
        if count > TAGGED_FIELDS_MAX {
            return Err(self.error(Malformed::TaggedFields(count)));
        }
        for _ in 0..count {
            let _tag = self.varint()?;
            let size = self.varint()?;
            self.fixed(size as usize)?;
            self.rest.advance(size as usize);
        }
        Ok(())
    }

    fn error(&self, what: Malformed) -> DecodeError {
        DecodeError {
            what,
            at: self.frame_bytes - self.rest.len(),
        }
    }

    /// `bytes` more are there.
    fn fixed(&self, bytes: usize) -> Result<(), DecodeError> {
        if bytes > self.rest.len() {
            return Err(self.error(Malformed::Truncated));
        }
        Ok(())
    }

    fn take(&mut self, length: u32) -> Result<BytesMut, DecodeError> {
        self.fixed(length as usize)?;
        Ok(self.rest.split_to(length as usize))
    }

    fn string_of<T: From<StrBytes>>(
        &mut self,
        length: Option<u32>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(length) = length else {
            return Ok(None);
        };
        let at = self.error(Malformed::Utf8);
        let bytes = self.take(length)?.freeze();
        let string = StrBytes::from_utf8(bytes).map_err(|_| at)?;
        Ok(Some(T::from(string)))
    }

    /// The length of a string before flexible versions.
    fn short_length(&mut self) -> Result<Option<u32>, DecodeError> {
        let length = i32::from(self.i16()?);
        self.length_or_null(length)
    }

    /// The length of bytes or an array.
    fn long_length(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.flexible {
            return self.compact_length();
        }
        let length = self.i32()?;
        self.length_or_null(length)
    }

    fn length_or_null(&self, length: i32) -> Result<Option<u32>, DecodeError> {
        match u32::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.error(Malformed::Length(length))),
        }
    }

    /// One more than the length, and zero for null.
    fn compact_length(&mut self) -> Result<Option<u32>, DecodeError> {
        Ok(self.varint()?.checked_sub(1))
    }
}

#[cfg(test)]
mod tests;
