//! Bytes of metadata records: big-endian numbers, lengths before strings and lists, every count checked against what remains.
//!
//! Metadata comes from a disk or another broker, so reading never panics and never allocates more than a small multiple of the input.

use std::fmt;

use forebay_engine::TopicId;

/// Longest string in a record; a configuration value is the longest there is.
pub const STRING_BYTES_MAX: usize = 32 * 1024;

/// Bytes that are no record of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    Truncated,
    /// More bytes than the records take.
    Trailing(usize),
    Length(usize),
    Utf8,
    /// Written by a newer version, or damaged.
    UnknownType(u8),
    UnknownVersion {
        record: u8,
        version: u8,
    },
    Value(&'static str),
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::Truncated => f.write_str("metadata record is cut short"),
            CodecError::Trailing(bytes) => write!(f, "{bytes} bytes after the last record"),
            CodecError::Length(length) => write!(f, "length {length} is impossible"),
            CodecError::Utf8 => f.write_str("text is not UTF-8"),
            CodecError::UnknownType(kind) => write!(f, "unknown record type {kind}"),
            CodecError::UnknownVersion { record, version } => {
                write!(f, "unknown version {version} of record type {record}")
            }
            CodecError::Value(field) => write!(f, "impossible {field}"),
        }
    }
}

impl std::error::Error for CodecError {}

#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    pub fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }
    pub fn id(&mut self, value: [u8; 16]) {
        self.bytes.extend_from_slice(&value);
    }
    pub fn string(&mut self, value: &str) {
        assert!(
            value.len() <= STRING_BYTES_MAX,
            "strings are bounded where they enter"
        );
        self.u16(value.len() as u16);
        self.bytes.extend_from_slice(value.as_bytes());
    }
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
    pub fn brokers(&mut self, brokers: &[i32]) {
        let count =
            u16::try_from(brokers.len()).expect("a replica list is bounded where it enters");
        self.u16(count);
        for broker in brokers {
            self.i32(*broker);
        }
    }
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
    pub fn end(&self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(CodecError::Trailing(bytes)),
        }
    }
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Value("truth value")),
        }
    }
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_be_bytes)
    }
    pub fn i32(&mut self) -> Result<i32, CodecError> {
        self.array().map(i32::from_be_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_be_bytes)
    }
    pub fn i64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_be_bytes)
    }
    pub fn id(&mut self) -> Result<[u8; 16], CodecError> {
        self.array()
    }
    pub fn topic_id(&mut self) -> Result<TopicId, CodecError> {
        self.id().map(TopicId)
    }
    pub fn string(&mut self) -> Result<String, CodecError> {
        let length = usize::from(self.u16()?);
        if length > STRING_BYTES_MAX {
            return Err(CodecError::Length(length));
        }
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| CodecError::Utf8)?;
        Ok(text.to_owned())
    }
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        Ok(if self.bool()? {
            Some(read(self)?)
        } else {
            None
        })
    }
    pub fn brokers(&mut self) -> Result<Vec<i32>, CodecError> {
        let count = usize::from(self.u16()?);
        if count > self.rest.len() / size_of::<i32>() {
            return Err(CodecError::Truncated);
        }
        (0..count).map(|_| self.i32()).collect()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }
}
