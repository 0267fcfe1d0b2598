//! Direct I/O on glommio's `DmaFile`.
//!
//! A read costs one copy: glommio reads into memory that it owns and counts without atomics, so the result cannot be
//! sent to another shard, and it offers no read into memory of the caller.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::{Uring, io_error};
use crate::rt::{
    OpenMode,
    buf::{ALIGNMENT, AlignedBuf, Memory},
    local::Units,
};

/// `AlignedBuf` for this back end.
pub(in crate::rt) struct Buffer(DmaBuffer);

impl Buffer {
    pub(in crate::rt) fn len(&self) -> usize {
        self.0.len()
    }
    pub(in crate::rt) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
    pub(in crate::rt) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
    pub(in crate::rt) fn trim(&mut self, len: usize) {
        self.0.trim_to_size(len);
    }
}

pub(in crate::rt) struct File {
    file: DmaFile,
    path: PathBuf,
    uring: Uring,
}

impl Uring {
    pub(in crate::rt) fn alloc(&self, len: usize) -> Buffer {
        let mut buffer = self.alloc_dirty(len);
        // The memory was used before by somebody else, and padding goes to the disk.
        buffer.bytes_mut().fill(0);
        buffer
    }

    pub(in crate::rt) fn alloc_dirty(&self, len: usize) -> Buffer {
        assert!(len.is_multiple_of(ALIGNMENT), "buffers hold whole blocks");
        Buffer(glommio::allocate_dma_buffer(len))
    }

    pub(in crate::rt) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::ReadWriteDurable => {
                options.write(true).custom_flags(libc::O_DSYNC);
            }
            OpenMode::Create => {
                options.write(true).create_new(true);
            }
        }
        let file = options.dma_open(path).await.map_err(io_error)?;
        Ok(File {
            file,
            path: path.to_owned(),
            uring: self.clone(),
        })
    }
}

impl File {
    pub(in crate::rt) async fn write_at(&self, buf: AlignedBuf, position: u64) -> io::Result<()> {
        let Memory::Uring(Buffer(buffer)) = buf.0 else {
            panic!("a buffer of the simulator in a file of glommio");
        };
        if buffer.is_empty() {
            return Ok(());
        }
        let _in_flight = self.take_in_flight(buffer.len()).await;
        let buffer = Rc::new(buffer);
        let mut written = self
            .file
            .write_rc_at(buffer.clone(), position)
            .await
            .map_err(io_error)?;
        // Rare: a device nearly full, or a request that the kernel split. Direct I/O goes on at a block, so the block
        // that was cut is written again.
        while written < buffer.len() {
            let done = written - written % ALIGNMENT;
            let rest = buffer
                .as_bytes()
                .get(done..)
                .expect("done <= written < len");
            let mut block = self.uring.alloc(rest.len());
            block.bytes_mut().copy_from_slice(rest);
            let more = self
                .file
                .write_at(block.0, position + done as u64)
                .await
                .map_err(io_error)?;
            if done + more <= written {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written = done + more;
        }
        assert!(written == buffer.len(), "wrote what was asked for");
        Ok(())
    }

    pub(in crate::rt) async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let start = position - position % ALIGNMENT as u64;
        let skip = (position - start) as usize;
        let span = (skip + len).next_multiple_of(ALIGNMENT);
        let _in_flight = self.take_in_flight(span).await;
        let first = self
            .file
            .read_at_aligned(start, span)
            .await
            .map_err(io_error)?;
        // Not glommio's `read_at`: after a short read at an unaligned position it returns `skip` bytes too many.
        if first.len() >= skip + len {
            return Ok(Bytes::copy_from_slice(&first[skip..skip + len]));
        }
        let end_of_file = self.len().await?;
        if start + first.len() as u64 >= end_of_file {
            return Ok(Bytes::copy_from_slice(first.get(skip..).unwrap_or(&[])));
        }
        self.read_the_rest(&first, start, skip, len).await
    }

    /// After a read that came back short before the end of the file, which the kernel allows and hardly ever does.
    async fn read_the_rest(
        &self,
        first: &[u8],
        start: u64,
        skip: usize,
        len: usize,
    ) -> io::Result<Bytes> {
        let mut gathered = BytesMut::from(first);
        while gathered.len() < skip + len {
            let done = gathered.len() - gathered.len() % ALIGNMENT;
            let span = (skip + len - done).next_multiple_of(ALIGNMENT);
            let more = self
                .file
                .read_at_aligned(start + done as u64, span)
                .await
                .map_err(io_error)?;
            if done + more.len() <= gathered.len() {
                break;
            }
            gathered.truncate(done);
            gathered.extend_from_slice(&more);
        }
        gathered.truncate(skip + len);
        let gathered = gathered.freeze();
        Ok(gathered.slice(skip.min(gathered.len())..))
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io_error)
    }

    pub(in crate::rt) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len).await.map_err(io_error)
    }

    pub(in crate::rt) async fn allocate(&self, len: u64) -> io::Result<()> {
        const KEEP_SIZE: bool = true;
        self.file
            .pre_allocate(len, KEEP_SIZE)
            .await
            .map_err(io_error)
    }

    pub(in crate::rt) async fn len(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(io_error)
    }

    pub(in crate::rt) async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(io_error)
    }

    pub(in crate::rt) fn path(&self) -> &Path {
        &self.path
    }

    async fn take_in_flight(&self, bytes: usize) -> Option<Units> {
        match self.uring.in_flight_of_this_task() {
            Some(budget) => Some(budget.take(bytes as u64).await),
            None => None,
        }
    }
}
