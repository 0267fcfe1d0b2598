//! Reads a file forwards, in pieces that grow while the reading goes on.
//!
//! The first piece is small, so that who looks at one place only pays for little. Counts what it has read: recovery promises
//! to read only what may be dirty, and tests hold it to that.

use std::{io, ops::Range};

use bytes::Bytes;

use super::File;

const PIECE_BYTES_MIN: usize = 64 * 1024;
const PIECE_BYTES_MAX: usize = 1 << 20;

pub struct Window<'a> {
    file: &'a File,
    end: u64,
    held: Range<u64>,
    bytes: Bytes,
    piece_bytes: usize,
    read_bytes: u64,
}

impl<'a> Window<'a> {
    /// Reads nothing from `end` on.
    pub fn new(file: &'a File, end: u64) -> Window<'a> {
        Window {
            file,
            end,
            held: 0..0,
            bytes: Bytes::new(),
            piece_bytes: PIECE_BYTES_MIN,
            read_bytes: 0,
        }
    }

    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes read from the file so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// The bytes at `position`; fewer than `len` only where the file ends.
    pub async fn get(&mut self, position: u64, len: usize) -> io::Result<Bytes> {
        let left = self.end.saturating_sub(position);
        let within = |len: usize| usize::try_from(left).map_or(len, |left| len.min(left));
        let len = within(len);
        if position < self.held.start || position + len as u64 > self.held.end {
            let piece = within(len.max(self.piece_bytes));
            self.bytes = self.file.read_at(position, piece).await?;
            self.held = position..position + self.bytes.len() as u64;
            self.read_bytes += self.bytes.len() as u64;
            self.piece_bytes = (self.piece_bytes * 2).min(PIECE_BYTES_MAX);
        }
        let start = (position - self.held.start) as usize;
        let end = (start + len).min(self.bytes.len());
        Ok(self.bytes.slice(start..end))
    }
}
