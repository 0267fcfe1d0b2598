//! TCP, or the simulator's in-memory links.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};

/// Listens with SO_REUSEPORT: every shard binds the same address and the kernel spreads connections.
pub struct Listener(std::marker::PhantomData<()>);
impl Listener {
    pub async fn accept(&self) -> io::Result<Stream> {
        unimplemented!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
}

/// One connection. Reading and writing go on at the same time from two tasks: split it.
pub struct Stream(std::marker::PhantomData<()>);
pub struct ReadHalf(std::marker::PhantomData<()>);
pub struct WriteHalf(std::marker::PhantomData<()>);

impl Stream {
    pub fn peer_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        unimplemented!()
    }
}

impl ReadHalf {
    /// Appends up to the spare capacity of `buf` (never grows it); 0 at the end of the stream.
    pub async fn read_into(&mut self, _buf: &mut BytesMut) -> io::Result<usize> {
        unimplemented!()
    }
}

impl WriteHalf {
    /// Sends all slices, in order, with vectored writes.
    pub async fn write_all(&mut self, _slices: &[Bytes]) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn shutdown(&mut self) -> io::Result<()> {
        unimplemented!()
    }
}
