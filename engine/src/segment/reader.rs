//! From a file position to whole batches: aligned reads with read-ahead.
//!
//! Walks the batches of one segment, checks the CRC-32C of each, and never looks past the end it was given, so zeros
//! after the last batch are never taken for data. Serves cold reads, index rebuilds and recovery alike.

use std::{io, rc::Rc};

use bytes::Bytes;

use crate::{
    batch::{BatchHeader, HEADER_LEN},
    rt::File,
};

pub const WINDOW_BYTES_MIN: usize = 128 * 1024;
pub const WINDOW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What stands at the reader's position.
#[derive(Debug)]
pub enum Next {
    Batch(BatchHeader, Bytes),
    /// Bytes that are no batch, or one that fails its checks.
    Broken(String),
    End,
}

pub struct SegmentReader {
    file: Rc<File>,
    position: u64,
    end: u64,
    /// What was read and not consumed yet, from `position` on.
    buffer: Bytes,
    /// Size of the next read: doubles with each read of a walk that goes on.
    window_bytes: usize,
    read_bytes: u64,
    window_bytes_max: usize,
}

impl SegmentReader {
    /// Walks `[position, end)`; a batch must begin at `position`.
    pub fn new(file: Rc<File>, position: u64, end: u64) -> SegmentReader {
        SegmentReader {
            file,
            position,
            end,
            buffer: Bytes::new(),
            window_bytes: WINDOW_BYTES_MIN,
            read_bytes: 0,
            window_bytes_max: WINDOW_BYTES_MAX,
        }
    }

    /// Bytes read from the file so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Reads no more than `bytes` at a time, but for a batch that is larger.
    pub fn with_window_max(mut self, bytes: usize) -> SegmentReader {
        assert!(
            bytes >= WINDOW_BYTES_MIN,
            "smaller reads would only be more"
        );
        self.window_bytes_max = bytes;
        self
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// The segment may have grown since the reader was made.
    pub fn set_end(&mut self, end: u64) {
        assert!(end >= self.position, "the end is behind the reader");
        self.end = end;
    }

    /// Bytes of read-ahead it holds.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Goes on at `position`, where a batch must begin.
    pub fn go_to(&mut self, position: u64) {
        assert!(position <= self.end, "the end is behind the position");
        self.position = position;
        self.buffer = Bytes::new();
    }

    /// Gives the read-ahead up, and starts small again.
    pub fn drop_buffer(&mut self) {
        self.buffer = Bytes::new();
        self.window_bytes = WINDOW_BYTES_MIN;
    }

    /// The batch at the reader's position. Stays there until [`SegmentReader::advance`].
    pub async fn peek(&mut self) -> io::Result<Next> {
        if self.position >= self.end {
            return Ok(Next::End);
        }
        if !self.fill(HEADER_LEN).await? {
            return Ok(Next::Broken("cut off within a batch header".into()));
        }
        let header = match BatchHeader::parse(&self.buffer) {
            Ok(header) => header,
            Err(error) => return Ok(Next::Broken(error.to_string())),
        };
        if !self.fill(header.total_len).await? {
            return Ok(Next::Broken("cut off within a batch".into()));
        }
        let bytes = self.buffer.slice(..header.total_len);
        match header.check_crc(&bytes) {
            Ok(()) => Ok(Next::Batch(header, bytes)),
            Err(error) => Ok(Next::Broken(error.to_string())),
        }
    }

    /// Goes past a batch that `peek` gave.
    pub fn advance(&mut self, header: &BatchHeader) {
        assert!(
            header.total_len <= self.buffer.len(),
            "only what was peeked can be passed"
        );
        self.buffer = self.buffer.split_off(header.total_len);
        self.position += header.total_len as u64;
    }

    /// Passes over a batch that failed its CRC, if what its header says is borne out: where the batch ends another whole one begins
    /// that goes on with its next offset, or nothing follows.
    pub async fn skip_broken(&mut self) -> io::Result<Option<BatchHeader>> {
        let Ok(header) = BatchHeader::parse(&self.buffer) else {
            return Ok(None);
        };
        let behind = self.position + header.total_len as u64;
        if behind > self.end {
            return Ok(None);
        }
        let mut ahead = SegmentReader::new(Rc::clone(&self.file), behind, self.end)
            .with_window_max(self.window_bytes_max);
        let goes_on = match ahead.peek().await? {
            Next::Batch(next, _) => next.base_offset == header.next_offset(),
            Next::End => true,
            Next::Broken(_) => false,
        };
        if !goes_on {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(header))
    }

    /// Makes sure that `len` bytes are buffered; `false` when the segment has not that many.
    async fn fill(&mut self, len: usize) -> io::Result<bool> {
        if self.buffer.len() >= len {
            return Ok(true);
        }
        let available = self.end - self.position;
        if (len as u64) > available {
            return Ok(false);
        }
        let wanted = self.window_bytes.max(len);
        let wanted = usize::try_from(available).map_or(wanted, |available| wanted.min(available));
        self.buffer = self.file.read_at(self.position, wanted).await?;
        self.read_bytes += self.buffer.len() as u64;
        self.window_bytes = (self.window_bytes * 2).min(self.window_bytes_max);
        Ok(self.buffer.len() >= len)
    }
}
