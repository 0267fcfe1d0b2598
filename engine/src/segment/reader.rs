//! From a file position to whole batches: aligned reads with read-ahead.
//!
//! Walks the batches of one segment, checks the CRC-32C of each, and never looks past the end it was given, so zeros
//! after the last batch are never taken for data. Serves cold reads, index rebuilds and recovery alike.
//!
//! Pieces stay small: a durable write waits behind every read that is at the device before it, and a quarter of a mebibyte, with
//! the next pieces under way while one is consumed, is enough to keep a device busy (`bench/notes/2026-11-23-interference.md`).

use std::{collections::VecDeque, io, rc::Rc};

use bytes::{Bytes, BytesMut};

use crate::{
    batch::{BatchHeader, HEADER_LEN},
    rt::{Class, File, Rt, Task, buf::ALIGNMENT},
};

pub const PIECE_BYTES_MIN: usize = 128 * 1024;
pub const PIECE_BYTES_MAX: usize = 256 * 1024;

/// Pieces under way behind the one that is consumed.
const PIECES_AHEAD: usize = 3;

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
    /// What was read and not consumed yet, from `position` on, without a gap.
    pieces: VecDeque<Bytes>,
    held_bytes: usize,
    /// Who reads ahead, if anybody does.
    ahead_by: Option<Rt>,
    ahead: VecDeque<Ahead>,
    /// Size of the next piece: doubles with each one of a walk that goes on.
    piece_bytes: usize,
    piece_bytes_max: usize,
    read_bytes: u64,
}

/// A read under way, behind what is held and what is under way before it.
struct Ahead {
    len: usize,
    task: Task<io::Result<Bytes>>,
}

impl SegmentReader {
    /// Walks `[position, end)`; a batch must begin at `position`.
    pub fn new(file: Rc<File>, position: u64, end: u64) -> SegmentReader {
        SegmentReader {
            file,
            position,
            end,
            pieces: VecDeque::new(),
            held_bytes: 0,
            ahead_by: None,
            ahead: VecDeque::new(),
            piece_bytes: PIECE_BYTES_MIN,
            piece_bytes_max: PIECE_BYTES_MAX,
            read_bytes: 0,
        }
    }

    /// Bytes read from the file so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Reads no more than `bytes` at a time, but for a batch that is larger.
    pub fn with_piece_max(mut self, bytes: usize) -> SegmentReader {
        assert!(bytes >= PIECE_BYTES_MIN, "smaller reads would only be more");
        self.piece_bytes_max = bytes;
        self
    }

    /// Once the walk has gone on for a while, the next pieces are read while one is consumed, in the class of cold reads.
    pub fn with_read_ahead(mut self, rt: &Rt) -> SegmentReader {
        self.ahead_by = Some(rt.clone());
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

    /// Bytes of read-ahead it holds, or will when the reads under way are done.
    pub fn buffered_bytes(&self) -> usize {
        self.held_bytes + self.ahead.iter().map(|ahead| ahead.len).sum::<usize>()
    }

    /// Goes on at `position`, where a batch must begin.
    pub fn go_to(&mut self, position: u64) {
        assert!(position <= self.end, "the end is behind the position");
        self.forget();
        self.position = position;
    }

    /// Gives the read-ahead up, and starts small again.
    pub fn drop_buffer(&mut self) {
        self.forget();
        self.piece_bytes = PIECE_BYTES_MIN;
    }

    fn forget(&mut self) {
        self.pieces.clear();
        self.held_bytes = 0;
        self.ahead.clear();
    }

    /// The batch at the reader's position. Stays there until [`SegmentReader::advance`].
    pub async fn peek(&mut self) -> io::Result<Next> {
        if self.position >= self.end {
            return Ok(Next::End);
        }
        if !self.fill(HEADER_LEN).await? {
            return Ok(Next::Broken("cut off within a batch header".into()));
        }
        let header = match BatchHeader::parse(self.front()) {
            Ok(header) => header,
            Err(error) => return Ok(Next::Broken(error.to_string())),
        };
        if !self.fill(header.total_len).await? {
            return Ok(Next::Broken("cut off within a batch".into()));
        }
        let bytes = self.pieces[0].slice(..header.total_len);
        match header.check_crc(&bytes) {
            Ok(()) => Ok(Next::Batch(header, bytes)),
            Err(error) => Ok(Next::Broken(error.to_string())),
        }
    }

    /// Goes past a batch that `peek` gave.
    pub fn advance(&mut self, header: &BatchHeader) {
        let len = header.total_len;
        assert!(
            len <= self.front().len(),
            "only what was peeked can be passed"
        );
        let front = &mut self.pieces[0];
        *front = front.split_off(len);
        if front.is_empty() {
            self.pieces.pop_front();
        }
        self.held_bytes -= len;
        self.position += len as u64;
    }

    fn front(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[..])
    }

    /// Passes over a batch that failed its CRC, if what its header says is borne out: where the batch ends another whole one begins
    /// that goes on with its next offset, or nothing follows.
    pub async fn skip_broken(&mut self) -> io::Result<Option<BatchHeader>> {
        let Ok(header) = BatchHeader::parse(self.front()) else {
            return Ok(None);
        };
        let behind = self.position + header.total_len as u64;
        if behind > self.end {
            return Ok(None);
        }
        let mut ahead = SegmentReader::new(Rc::clone(&self.file), behind, self.end)
            .with_piece_max(self.piece_bytes_max);
        let goes_on = match ahead.peek().await? {
            Next::Batch(next, _) => next.base_offset == header.next_offset(),
            Next::End => true,
            Next::Broken(_) => false,
        };
        if !goes_on {
            return Ok(None);
        }
        ahead.ahead_by = self.ahead_by.take();
        *self = ahead;
        Ok(Some(header))
    }

    /// Makes sure that the front piece has `len` bytes; `false` when the segment has not that many.
    async fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.held_bytes < len {
            if (len as u64) > self.end - self.position {
                return Ok(false);
            }
            let wanted = self.next_piece_len(len - self.held_bytes);
            let (piece, wanted) = match self.ahead.front_mut() {
                Some(ahead) => {
                    let (read, wanted) = ((&mut ahead.task).await, ahead.len);
                    self.ahead.pop_front();
                    if read.is_err() {
                        // Nothing may follow a gap.
                        self.ahead.clear();
                    }
                    (read?, wanted)
                }
                None => (self.file.read_at(self.unread_from(), wanted).await?, wanted),
            };
            self.read_bytes += piece.len() as u64;
            let is_whole = piece.len() == wanted;
            if !piece.is_empty() {
                self.held_bytes += piece.len();
                self.pieces.push_back(piece);
            }
            if !is_whole {
                // The file ends here. What is under way begins behind that.
                self.ahead.clear();
                break;
            }
            self.read_ahead();
        }
        self.gather(len);
        Ok(self.held_bytes >= len)
    }

    /// Where the next read begins.
    fn unread_from(&self) -> u64 {
        self.position + self.buffered_bytes() as u64
    }

    /// Ends at a block, so that no block is read twice.
    fn next_piece_len(&self, needed: usize) -> usize {
        let from = self.unread_from();
        let end = from + self.piece_bytes.max(needed) as u64;
        let end = end.next_multiple_of(ALIGNMENT as u64).min(self.end);
        usize::try_from(end - from).expect("a piece, or a batch")
    }

    /// Starts the reads behind what is held, once the pieces have their full size.
    fn read_ahead(&mut self) {
        if self.piece_bytes < self.piece_bytes_max {
            self.piece_bytes = (self.piece_bytes * 2).min(self.piece_bytes_max);
            return;
        }
        let Some(rt) = self.ahead_by.clone() else {
            return;
        };
        while self.ahead.len() < PIECES_AHEAD && self.unread_from() < self.end {
            let (from, len) = (self.unread_from(), self.next_piece_len(0));
            let file = Rc::clone(&self.file);
            let read = async move { file.read_at(from, len).await };
            let task = rt.spawn(Class::ColdRead, read);
            self.ahead.push_back(Ahead { len, task });
        }
    }

    /// A batch that lies in several pieces is put together; what is behind it stays where it is.
    fn gather(&mut self, len: usize) {
        if self.held_bytes < len || self.front().len() >= len {
            return;
        }
        let mut whole = BytesMut::with_capacity(len);
        while whole.len() < len {
            let piece = &mut self.pieces[0];
            let part = piece.split_to(piece.len().min(len - whole.len()));
            whole.extend_from_slice(&part);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        self.pieces.push_front(whole.freeze());
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{
        batch::{BatchBuilder, Codec},
        rt::{
            OpenMode,
            sim::{self, Disk, Faults, Sim},
        },
        types::Timestamp,
    };

    /// Small ones, ones of a block, ones larger than a piece.
    fn batches(rt: &Rt) -> Vec<Bytes> {
        let one = |_| {
            let len = match rt.random_u64() % 8 {
                0 => 700_000,
                1..4 => 4096 - 73,
                _ => rt.random_u64() as usize % 100_000,
            };
            let mut builder = BatchBuilder::new(Codec::None);
            builder.push(Timestamp(1), None, Some(&vec![7; len]), &[]);
            builder.build().freeze()
        };
        (0..60).map(one).collect()
    }

    async fn written(rt: &Rt, batches: &[Bytes]) -> PathBuf {
        let path = Path::new("/segment").to_path_buf();
        let content = batches.concat();
        let file = rt.open(&path, OpenMode::Create).await.expect("create");
        let mut blocks = rt.alloc(content.len().next_multiple_of(ALIGNMENT));
        blocks.bytes_mut()[..content.len()].copy_from_slice(&content);
        file.write_at(blocks, 0).await.expect("write");
        path
    }

    /// Runs with and without read-ahead, each over several seeds.
    fn check<Running: Future<Output = ()> + 'static>(
        what: fn(Rt, Vec<Bytes>, SegmentReader) -> Running,
    ) {
        for seed in 0..20 {
            sim::run(seed, Disk::default(), move |rt| async move {
                let batches = batches(&rt);
                let path = written(&rt, &batches).await;
                let end = batches.iter().map(Bytes::len).sum::<usize>() as u64;
                let file = rt.open(&path, OpenMode::ReadWrite).await.expect("open");
                let mut reader = SegmentReader::new(Rc::new(file), 0, end);
                if seed % 2 == 0 {
                    reader = reader.with_read_ahead(&rt);
                }
                what(rt, batches, reader).await;
            });
        }
    }

    /// As many batches as there are before the end or the first error.
    async fn walk(reader: &mut SegmentReader) -> (Vec<Bytes>, io::Result<Next>) {
        let mut found = Vec::new();
        loop {
            match reader.peek().await {
                Ok(Next::Batch(header, bytes)) => {
                    reader.advance(&header);
                    found.push(bytes);
                }
                other => return (found, other),
            }
        }
    }

    #[test]
    fn every_batch_is_found_wherever_the_pieces_end() {
        check(|_, batches, mut reader| async move {
            let (found, last) = walk(&mut reader).await;
            assert!(matches!(last, Ok(Next::End)), "{last:?}");
            assert!(found == batches);
            assert_eq!(reader.buffered_bytes(), 0);
            // Only blocks in which a piece ended early, at the end, may come twice.
            assert_eq!(reader.read_bytes(), reader.end());
        });
    }

    #[test]
    fn goes_on_elsewhere_and_past_an_end_that_moved() {
        check(|_, batches, mut reader| async move {
            let (end, first) = (reader.end(), batches[0].len() as u64);
            let half: usize = batches[..30].iter().map(Bytes::len).sum();
            reader.set_end(half as u64);
            assert!(walk(&mut reader).await.0 == batches[..30]);
            reader.set_end(end);
            assert!(walk(&mut reader).await.0 == batches[30..]);
            reader.go_to(first);
            let header = match reader.peek().await.expect("read") {
                Next::Batch(header, _) => header,
                other => panic!("{other:?}"),
            };
            reader.advance(&header);
            reader.drop_buffer();
            assert!(walk(&mut reader).await.0 == batches[2..]);
        });
    }

    #[test]
    fn a_file_that_is_too_short_is_broken_where_it_ends() {
        check(|_, batches, reader| async move {
            let len: usize = batches[..40].iter().map(Bytes::len).sum();
            let file = Rc::clone(&reader.file);
            file.truncate(len as u64 + 100).await.expect("truncate");
            let mut reader = reader;
            let (found, last) = walk(&mut reader).await;
            assert!(matches!(last, Ok(Next::Broken(_))), "{last:?}");
            assert!(found == batches[..40]);
        });
    }

    #[test]
    fn after_a_failed_read_nothing_is_missing() {
        check(|rt, batches, mut reader| async move {
            let Rt::Sim(sim) = &rt else {
                unreachable!("this runs in the simulator")
            };
            let fail = |sim: &Sim, read_error| {
                sim.set_faults(Faults {
                    read_error,
                    ..Faults::default()
                });
            };
            fail(sim, 0.3);
            let mut found = Vec::new();
            let mut errors = 0;
            while found.len() < batches.len() {
                let (more, last) = walk(&mut reader).await;
                found.extend(more);
                errors += usize::from(last.is_err());
                if errors > 3 {
                    fail(sim, 0.0);
                }
            }
            assert!(found == batches);
        });
    }
}
