//! TCP on glommio: it tries the system call first and waits for readiness only if that would block.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};

use super::{Uring, io_error};
use crate::rt::net as seam;

/// Slices handed to the kernel in one call; it takes at most 1024. Fetches of small batches have many.
const SLICES_PER_WRITE_MAX: usize = 512;
/// Most replies have no more: for them a short list is made.
const SLICES_FEW: usize = 8;

impl Uring {
    pub(in crate::rt) fn listen(&self, address: SocketAddr) -> io::Result<seam::Listener> {
        // Sets SO_REUSEPORT.
        let listener = TcpListener::bind(address).map_err(io_error)?;
        let local = listener.local_addr().map_err(io_error)?;
        Ok(seam::Listener {
            kind: seam::ListenerKind::Uring(Listener(listener)),
            local,
        })
    }

    pub(in crate::rt) async fn connect(&self, address: SocketAddr) -> io::Result<seam::Stream> {
        wrap(TcpStream::connect(address).await.map_err(io_error)?)
    }
}

pub(in crate::rt) struct Listener(TcpListener);

impl Listener {
    pub(in crate::rt) async fn accept(&self) -> io::Result<seam::Stream> {
        loop {
            let stream = self.0.accept().await.map_err(io_error)?;
            match wrap(stream) {
                // The client was gone before we looked: nobody to serve, and no fault of the listener.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => continue,
                other => return other,
            }
        }
    }
}

fn wrap(stream: TcpStream) -> io::Result<seam::Stream> {
    stream.set_nodelay(true).map_err(io_error)?;
    Ok(seam::Stream {
        peer: stream.peer_addr().map_err(io_error)?,
        local: stream.local_addr().map_err(io_error)?,
        kind: seam::StreamKind::Uring(Stream(Rc::new(RefCell::new(stream)))),
    })
}

/// Both halves hold one of these. Borrowed only within a single poll, never across one.
#[derive(Clone)]
pub(in crate::rt) struct Stream(Rc<RefCell<TcpStream>>);

impl Stream {
    pub(in crate::rt) async fn read_into(&self, buf: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read_into(cx, buf)).await
    }

    #[allow(unsafe_code)]
    fn poll_read_into(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let room = buf.spare_capacity_mut();
        let (start, len) = (room.as_mut_ptr().cast::<u8>(), room.len());
        // SAFETY: `room` is exclusively ours for this call and `len` bytes long. It may be uninitialised, but an
        // unbuffered glommio stream passes the slice to recv(2), which only writes to it, and does not keep it.
        let room = unsafe { std::slice::from_raw_parts_mut(start, len) };
        let received = ready!(Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, room))?;
        assert!(received <= len, "the kernel stays within the buffer");
        // SAFETY: recv(2) has initialised the first `received` bytes of the spare capacity.
        unsafe { buf.advance_mut(received) };
        Poll::Ready(Ok(received))
    }

    pub(in crate::rt) async fn write_all(&self, slices: &[Bytes]) -> io::Result<()> {
        let mut rest = Unsent { slices, sent: 0 };
        rest.skip_sent(0);
        while !rest.slices.is_empty() {
            let written = poll_fn(|cx| match rest.slices.len() {
                ..=SLICES_FEW => self.poll_write::<SLICES_FEW>(cx, &rest),
                _ => self.poll_write::<SLICES_PER_WRITE_MAX>(cx, &rest),
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest.skip_sent(written);
        }
        Ok(())
    }

    fn poll_write<const SLICES_MAX: usize>(
        &self,
        cx: &mut Context<'_>,
        rest: &Unsent<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut vector: [_; SLICES_MAX] = std::array::from_fn(|_| IoSlice::new(&[]));
        let count = rest.fill(&mut vector);
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, &vector[..count])
    }

    pub(in crate::rt) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_close(cx)).await
    }
}

/// What is still to be sent: the slices, of which the first is sent up to `sent`.
struct Unsent<'a> {
    slices: &'a [Bytes],
    sent: usize,
}

impl<'a> Unsent<'a> {
    fn fill(&self, vector: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.sent;
        let mut count = 0;
        for (place, slice) in vector.iter_mut().zip(self.slices) {
            *place = IoSlice::new(&slice[skip..]);
            skip = 0;
            count += 1;
        }
        count
    }

    /// Also skips empty slices, so that a write of nothing is never taken for a closed connection.
    fn skip_sent(&mut self, written: usize) {
        self.sent += written;
        while let Some(first) = self.slices.first() {
            if self.sent < first.len() {
                return;
            }
            self.sent -= first.len();
            self.slices = &self.slices[1..];
        }
        assert!(self.sent == 0, "wrote more than there was");
    }
}
