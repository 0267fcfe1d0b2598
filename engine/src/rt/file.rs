//! One open file, read and written with direct I/O at aligned positions.

use std::{io, path::Path};

use bytes::Bytes;

use super::{
    buf::{ALIGNMENT, AlignedBuf},
    sim, uring,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist.
    Read,
    /// Must exist. Writes are durable after `sync`.
    ReadWrite,
    /// Must exist. Every completed write is durable (`O_DSYNC`).
    ReadWriteDurable,
    /// Must not exist; else as `ReadWrite`.
    Create,
}

/// Unlinked operations may complete out of order, so keep at most one write in flight per region.
/// Dropping the future of a write does not take the write back: any part of it may still reach the file.
pub struct File(pub(super) FileKind);

pub(super) enum FileKind {
    Uring(uring::File),
    Sim(sim::File),
}

impl File {
    /// Writes the whole buffer at `position` (both multiples of `ALIGNMENT`). Short writes are completed or become an error.
    pub async fn write_at(&self, buf: AlignedBuf, position: u64) -> io::Result<()> {
        assert!(
            position.is_multiple_of(ALIGNMENT as u64),
            "write at a block"
        );
        assert!(buf.len().is_multiple_of(ALIGNMENT), "write whole blocks");
        match &self.0 {
            FileKind::Uring(file) => file.write_at(buf, position).await,
            FileKind::Sim(file) => file.write_at(buf, position).await,
        }
    }

    /// Reads up to `len` bytes from `position`, neither of them need be aligned; short only at the end of the file.
    /// The result may be a slice of a larger aligned read.
    pub async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let bytes = match &self.0 {
            FileKind::Uring(file) => file.read_at(position, len).await?,
            FileKind::Sim(file) => file.read_at(position, len).await?,
        };
        assert!(bytes.len() <= len, "never more than was asked for");
        Ok(bytes)
    }

    /// fdatasync.
    pub async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            FileKind::Uring(file) => file.sync().await,
            FileKind::Sim(file) => file.sync().await,
        }
    }

    /// Sets the length: cuts, or fills with zeros. Durable after `sync`, in every mode.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::Uring(file) => file.truncate(len).await,
            FileKind::Sim(file) => file.truncate(len).await,
        }
    }

    /// Reserves blocks for `[0, len)` without changing the file's size.
    pub async fn allocate(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            FileKind::Uring(file) => file.allocate(len).await,
            FileKind::Sim(file) => file.allocate(len).await,
        }
    }

    pub async fn len(&self) -> io::Result<u64> {
        match &self.0 {
            FileKind::Uring(file) => file.len().await,
            FileKind::Sim(file) => file.len().await,
        }
    }

    /// Closing is not syncing.
    pub async fn close(self) -> io::Result<()> {
        match self.0 {
            FileKind::Uring(file) => file.close().await,
            FileKind::Sim(file) => file.close().await,
        }
    }

    /// The path it was opened by; a later rename does not change it.
    pub fn path(&self) -> &Path {
        match &self.0 {
            FileKind::Uring(file) => file.path(),
            FileKind::Sim(file) => file.path(),
        }
    }
}
