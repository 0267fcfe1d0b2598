//! TCP, or the simulator's in-memory links.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};

use super::{sim, uring};

/// Listens with SO_REUSEPORT: every shard binds the same address and the kernel spreads connections.
pub struct Listener {
    pub(super) kind: ListenerKind,
    pub(super) local: SocketAddr,
}

pub(super) enum ListenerKind {
    Uring(uring::net::Listener),
    Sim(sim::net::Listener),
}

impl Listener {
    /// An error (too many open files, say) concerns one connection: the listener goes on.
    pub async fn accept(&self) -> io::Result<Stream> {
        match &self.kind {
            ListenerKind::Uring(listener) => listener.accept().await,
            ListenerKind::Sim(listener) => listener.accept().await,
        }
    }

    /// With the port that was found if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// One connection, with Nagle's algorithm off. Reading and writing go on at the same time from two tasks: split it.
pub struct Stream {
    pub(super) kind: StreamKind,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

pub(super) enum StreamKind {
    Uring(uring::net::Stream),
    Sim(sim::net::Stream),
}

impl Stream {
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The connection closes when both halves are dropped.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        match self.kind {
            StreamKind::Uring(stream) => (
                ReadHalf(ReadKind::Uring(stream.clone())),
                WriteHalf(WriteKind::Uring(stream)),
            ),
            StreamKind::Sim(stream) => {
                let (read, write) = stream.split();
                (
                    ReadHalf(ReadKind::Sim(read)),
                    WriteHalf(WriteKind::Sim(write)),
                )
            }
        }
    }
}

pub struct ReadHalf(ReadKind);
pub struct WriteHalf(WriteKind);

enum ReadKind {
    Uring(uring::net::Stream),
    Sim(sim::net::ReadHalf),
}

enum WriteKind {
    Uring(uring::net::Stream),
    Sim(sim::net::WriteHalf),
}

impl ReadHalf {
    /// Appends up to the spare capacity of `buf` (never grows it); 0 at the end of the stream.
    /// Dropping the future loses no bytes.
    pub async fn read_into(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        assert!(
            buf.capacity() > buf.len(),
            "without room a read looks like the end of the stream"
        );
        match &self.0 {
            ReadKind::Uring(stream) => stream.read_into(buf).await,
            ReadKind::Sim(read) => read.read_into(buf).await,
        }
    }
}

impl WriteHalf {
    /// Sends all slices, in order, with vectored writes. After an error or a dropped future it is unknown how much was sent.
    pub async fn write_all(&mut self, slices: &[Bytes]) -> io::Result<()> {
        match &self.0 {
            WriteKind::Uring(stream) => stream.write_all(slices).await,
            WriteKind::Sim(write) => write.write_all(slices).await,
        }
    }

    /// The peer reads the end of the stream after everything sent so far.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        match &self.0 {
            WriteKind::Uring(stream) => stream.shutdown().await,
            WriteKind::Sim(write) => write.shutdown(),
        }
    }
}
