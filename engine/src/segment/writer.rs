//! Writes a segment in large aligned chunks.
//!
//! A direct write begins and ends at block boundaries, batches do not. So each write begins at the block that holds the
//! current end: its *head*, the bytes of that block which are written already, is kept in memory and written again with
//! the same content. The last block is padded with zeros, or left to the next write where that one is going to follow at once.

use std::io;

use bytes::Bytes;

use crate::rt::{
    File, Rt,
    buf::{ALIGNMENT, AlignedBuf},
};

const BLOCK: u64 = ALIGNMENT as u64;

/// So often a block is read until two reads that follow one another agree.
const READS_MAX: usize = 5;

/// The end of one segment file, with all writes that were planned.
pub struct SegmentWriter {
    position: u64,
    /// The bytes of the block that holds `position`, up to it; `None` until read back after an open.
    head: Option<Vec<u8>>,
}

/// What is done with the bytes of a write that do not fill their block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Padded with zeros. No other write may begin before this one has ended: it would be to the same block, and of two writes
    /// to one block nobody knows which comes last.
    Padded,
    /// Left to the next write, which begins with them.
    Left,
}

/// Whole blocks and where they go.
pub struct PlannedWrite {
    position: u64,
    buf: AlignedBuf,
}

impl PlannedWrite {
    pub async fn run(self, file: &File) -> io::Result<()> {
        file.write_at(self.buf, self.position).await
    }
}

impl SegmentWriter {
    /// The end of a file that holds `position` bytes of batches.
    pub fn at(position: u64) -> SegmentWriter {
        SegmentWriter {
            position,
            head: position.is_multiple_of(BLOCK).then(Vec::new),
        }
    }

    /// Exact bytes written or planned.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads what a write begins with, unless it is known.
    pub async fn make_ready(&mut self, file: &File) -> io::Result<()> {
        if self.head.is_none() {
            let start = self.position - self.position % BLOCK;
            self.head = Some(self.read_head(file, start).await?);
        }
        Ok(())
    }

    /// Plans the write of the slices behind what is there. If a planned write fails the writer must not be used again.
    pub fn plan(&mut self, rt: &Rt, slices: &[Bytes], end: End) -> PlannedWrite {
        let start = self.position - self.position % BLOCK;
        let head = self.head.take().expect("made ready");
        assert_eq!(
            start + head.len() as u64,
            self.position,
            "the head ends at the position"
        );
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        let used = head.len() + bytes;
        let mut buf = rt.alloc_to_fill(used);
        let mut at = 0;
        for slice in std::iter::once(head.as_slice()).chain(slices.iter().map(|slice| &slice[..])) {
            buf.bytes_mut()[at..at + slice.len()].copy_from_slice(slice);
            at += slice.len();
        }
        assert_eq!(at, used, "all slices are in the buffer");
        let whole = used - used % ALIGNMENT;
        self.head = Some(buf.bytes()[whole..used].to_vec());
        if end == End::Left {
            assert!(whole > 0, "a write has a block");
            buf.trim(whole);
        }
        self.position += bytes as u64;
        PlannedWrite {
            position: start,
            buf,
        }
    }

    async fn read_head(&self, file: &File, start: u64) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.position - start).expect("less than a block");
        let bytes = read_steady(file, start, len).await?;
        if bytes.len() != len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than its batches",
            ));
        }
        Ok(bytes.to_vec())
    }
}

/// Writes `bytes` at `position` of a file whose neighbouring bytes stay as they are: recovery puts a batch back this way.
pub async fn patch(rt: &Rt, file: &File, position: u64, bytes: &[u8]) -> io::Result<()> {
    let start = position - position % BLOCK;
    let before = usize::try_from(position - start).expect("less than a block");
    let used = before + bytes.len();
    let mut buf = rt.alloc(used);
    let last = buf.len() - ALIGNMENT;
    if before > 0 {
        keep_block(file, start, &mut buf, 0).await?;
    }
    if !used.is_multiple_of(ALIGNMENT) && (last > 0 || before == 0) {
        keep_block(file, start, &mut buf, last).await?;
    }
    buf.bytes_mut()[before..used].copy_from_slice(bytes);
    file.write_at(buf, start).await
}

/// Fills the block at `at` of a buffer that will be written at `start` with what the file has there.
async fn keep_block(file: &File, start: u64, buf: &mut AlignedBuf, at: usize) -> io::Result<()> {
    let old = read_steady(file, start + at as u64, ALIGNMENT).await?;
    buf.bytes_mut()[at..at + old.len()].copy_from_slice(&old);
    Ok(())
}

/// Reads bytes that will be written again as they are. What one read gets wrong would become true by that, so two have to agree. What is
/// wrong on the disk itself stays wrong in the same way, and is told by its CRC.
async fn read_steady(file: &File, position: u64, len: usize) -> io::Result<Bytes> {
    let mut before = file.read_at(position, len).await?;
    for _ in 0..READS_MAX {
        let again = file.read_at(position, len).await?;
        if again == before {
            return Ok(again);
        }
        before = again;
    }
    let what = format!("{READS_MAX} reads of the block at {position} differ from one another");
    Err(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Batches that stand one behind the other in a file, gathered to be written there (again) with one write.
pub struct Run {
    start: u64,
    bytes: Vec<u8>,
}

impl Run {
    pub fn at(start: u64) -> Run {
        Run {
            start,
            bytes: Vec::new(),
        }
    }

    pub fn push(&mut self, batch: &[u8]) {
        self.bytes.extend_from_slice(batch);
    }

    pub fn gathered_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Writes what was gathered, and goes on behind it.
    pub async fn write(&mut self, rt: &Rt, file: &File) -> io::Result<()> {
        if !self.bytes.is_empty() {
            patch(rt, file, self.start, &self.bytes).await?;
            *self = Run::at(self.end());
        }
        Ok(())
    }
}
