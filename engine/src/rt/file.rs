//! One open file, read and written with direct I/O at aligned positions.

use std::{io, path::Path};

use bytes::Bytes;

use super::buf::AlignedBuf;

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

pub struct File(std::marker::PhantomData<()>);

impl File {
    /// Writes the whole buffer at `position` (both multiples of `ALIGNMENT`). Short writes are completed or become an error.
    pub async fn write_at(&self, _buf: AlignedBuf, _position: u64) -> io::Result<()> {
        unimplemented!()
    }
    /// Reads up to `len` bytes from `position`, neither of them need be aligned; short only at the end of the file.
    /// The result may be a slice of a larger aligned read.
    pub async fn read_at(&self, _position: u64, _len: usize) -> io::Result<Bytes> {
        unimplemented!()
    }
    /// fdatasync.
    pub async fn sync(&self) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn truncate(&self, _len: u64) -> io::Result<()> {
        unimplemented!()
    }
    /// Reserves blocks for `[0, len)` without changing the file's size.
    pub async fn allocate(&self, _len: u64) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn len(&self) -> io::Result<u64> {
        unimplemented!()
    }
    pub async fn close(self) -> io::Result<()> {
        unimplemented!()
    }
    pub fn path(&self) -> &Path {
        unimplemented!()
    }
}
