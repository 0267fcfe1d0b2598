//! Reads frames off a connection: four bytes of size, then that many bytes.
//!
//! Each frame becomes an allocation of its own, so that what the log keeps of one keeps nothing else alive. Small frames are copied
//! out of a small read-ahead; a large one is read in place. Nothing is allocated for what a client merely claims: memory comes in
//! steps, at most twice what has arrived (address space up to `EXACT_BYTES_MAX` is reserved at once, its pages are not).

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
/// Frames up to this size get their final buffer at once and are never copied as they grow.
const EXACT_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(super) struct FrameReader {
    half: ReadHalf,
    ahead: BytesMut,
    frame_bytes_max: usize,
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
        let mut frame = BytesMut::with_capacity(len.min(EXACT_BYTES_MAX));
        frame.extend_from_slice(&self.ahead);
        self.ahead.clear();
        while frame.len() < len {
            // Never beyond the frame, never more than twice what is there.
            let end = len.min(STEP_BYTES.max(2 * frame.len()));
            memory.extend(held, end as u64).await;
            // Only from here on is it the client who keeps us waiting.
            connection.between_frames(false);
            frame.reserve(end - frame.len());
            let beyond = frame.split_off(end);
            while frame.len() < end {
                if connection.read(&mut self.half, &mut frame).await? == 0 {
                    return Err(FrameError::Truncated);
                }
            }
            frame.unsplit(beyond);
            connection.between_frames(true);
        }
        Ok(frame)
    }
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> FrameError {
        FrameError::Io(error)
    }
}
