//! Reads frames off a connection: four bytes of size, then that many bytes.
//!
//! Each frame becomes an allocation of its own, so that what the log keeps of one keeps nothing else alive. Small frames are copied
//! out of a small read-ahead; a large one is read in place. Nothing is allocated for what a client merely claims: memory comes in
//! steps, at most twice what has arrived. Only a connection that has sent whole frames of a size gets room for the next such frame at
//! once, so that a steady producer's batches are never copied as they grow. (Reserving room for every claim would cost more than
//! address space: an allocator that uses huge pages makes 2 MiB resident for the first byte.)

use std::{fmt, io};

use bytes::{Buf, BytesMut};
use forebay_engine::rt::net::ReadHalf;

use super::{
    connection::Connection,
    memory::{Held, Memory},
};

const SIZE_BYTES: usize = 4;
/// Read-ahead of each connection.
const AHEAD_BYTES: usize = 8 * 1024;
/// The first step of a frame that does not fit the read-ahead; each step doubles what is there.
const STEP_BYTES: usize = 8 * 1024;
/// The most room that a connection's earlier frames earn it.
const EARNED_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(super) struct FrameReader {
    half: ReadHalf,
    ahead: BytesMut,
    frame_bytes_max: usize,
    /// Room given at once: the largest frame that came whole, within `STEP_BYTES` and `EARNED_BYTES_MAX`.
    earned_bytes: usize,
}

#[derive(Debug)]
pub(super) enum FrameError {
    /// Negative, or more than `socket.request.max.bytes`: not Kafka's protocol, most likely.
    Size(i32),
    /// The stream ended within a frame.
    Truncated,
    Io(io::Error),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Size(size) => write!(f, "a frame of {size} bytes is not accepted"),
            FrameError::Truncated => f.write_str("the connection ended within a frame"),
            FrameError::Io(error) => error.fmt(f),
        }
    }
}

impl FrameReader {
    pub(super) fn new(half: ReadHalf, frame_bytes_max: usize) -> FrameReader {
        FrameReader {
            half,
            ahead: BytesMut::new(),
            frame_bytes_max,
            earned_bytes: STEP_BYTES,
        }
    }

    /// The next frame without its size; `None` at the end of the stream, or when the connection shall not read on.
    pub(super) async fn next(
        &mut self,
        connection: &Connection,
        memory: &Memory,
    ) -> Result<Option<(BytesMut, Held)>, FrameError> {
        connection.between_frames(true);
        while self.ahead.len() < SIZE_BYTES {
            // Free once all earlier frames were copied out of it, so this allocates once per connection.
            self.ahead.reserve(AHEAD_BYTES - self.ahead.len());
            if connection.read(&mut self.half, &mut self.ahead).await? == 0 {
                let clean = self.ahead.is_empty() || connection.is_closing();
                return if clean {
                    Ok(None)
                } else {
                    Err(FrameError::Truncated)
                };
            }
        }
        let size = self.ahead.get_i32();
        let len = usize::try_from(size).map_err(|_| FrameError::Size(size))?;
        if len > self.frame_bytes_max {
            return Err(FrameError::Size(size));
        }
        let mut held = memory.begin(len.min(self.ahead.len()) as u64).await;
        let frame = if len <= self.ahead.len() {
            let frame = BytesMut::from(&self.ahead[..len]);
            self.ahead.advance(len);
            frame
        } else {
            self.read_large(len, &mut held, connection, memory).await?
        };
        assert_eq!(frame.len(), len, "a frame has the size it said");
        Ok(Some((frame, held)))
    }

    async fn read_large(
        &mut self,
        len: usize,
        held: &mut Held,
        connection: &Connection,
        memory: &Memory,
    ) -> Result<BytesMut, FrameError> {
        let mut room = len.min(self.earned_bytes);
        memory.extend(held, room as u64).await;
        let mut frame = BytesMut::with_capacity(room);
        frame.extend_from_slice(&self.ahead);
        self.ahead.clear();
        loop {
            // Never beyond the frame.
            let beyond = frame.split_off(room);
            // From here on, and not while memory is short, it is the client who keeps us waiting.
            connection.between_frames(false);
            while frame.len() < room {
                if connection.read(&mut self.half, &mut frame).await? == 0 {
                    return Err(FrameError::Truncated);
                }
            }
            connection.between_frames(true);
            frame.unsplit(beyond);
            if room == len {
                break;
            }
            room = len.min(2 * room);
            memory.extend(held, room as u64).await;
            frame.reserve(room - frame.len());
        }
        self.earned_bytes = self.earned_bytes.max(len.min(EARNED_BYTES_MAX));
        Ok(frame)
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> FrameError {
        FrameError::Io(error)
    }
}
