//! One connection: read a frame, decode, begin, reply in order.
//!
//! Two tasks. The reader begins each request as it comes: a handler's part up to its first await runs at once, which fixes the order of
//! its effects, and only then is the next frame read. The writer awaits the requests one after the other, and sends what is ready as
//! one vectored write. So replies leave in order, and a client's pipeline stays full.
//!
//! The reader stops while too many requests wait for their replies, or too many reply bytes wait to be sent.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    io, mem,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use forebay_engine::{
    ShardId,
    rt::{
        Class, Instant, Rt,
        local::Notify,
        net::{ReadHalf, Stream, WriteHalf},
    },
};
use futures_util::future::{Either, select};

use super::{
    FRAME_STALL_MAX,
    frame::{FrameError, FrameReader},
    memory::Held,
};
use crate::{
    api::{self, Outcome},
    shard::Shard,
    wire::{self, HeaderError},
};

/// Replies gathered into one write, beyond the first.
const WRITE_BYTES_MAX: usize = 1 << 20;
const WRITE_SLICES_MAX: usize = 256;
/// How long replies may still take when the client has closed its side.
const HALF_CLOSED_TIME_MAX: Duration = Duration::from_secs(2);

/// What the tasks of a connection share, and the shard's reaper sees.
pub(super) struct Connection {
    rt: Rt,
    peer: SocketAddr,
    /// Of the last byte read or written.
    moved: Cell<Instant>,
    within_frame: Cell<bool>,
    state: Cell<State>,
    /// Notified when `state` changes.
    closing: Notify,
    queue: RefCell<VecDeque<Request>>,
    /// Requests begun and not yet answered, in the queue or in the writer's hands.
    in_flight: Cell<usize>,
    /// Bytes of replies that are ready in the queue.
    ready_bytes: Cell<usize>,
    /// Notified when the queue, or what is in flight, changes.
    queue_changed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Open,
    /// No more requests; those begun are answered.
    Ending,
    Closed,
}

/// A request whose effects are in order.
struct Request {
    work: Work,
    held: Held,
}

enum Work {
    Done(Outcome),
    Running(Pin<Box<dyn Future<Output = Outcome>>>),
}

/// Serves one connection to its end.
pub(super) async fn serve(shard: Rc<Shard>, stream: Stream) {
    let peer = stream.peer_addr();
    if shard.enter(ShardId(0), peer.ip()).await != Some(true) {
        shard.counters.connections_refused.add(1);
        return;
    }
    let connection = Rc::new(Connection::new(shard.rt.clone(), peer));
    let id = shard.front.next_connection.get();
    shard.front.next_connection.set(id + 1);
    shard
        .front
        .connections
        .borrow_mut()
        .insert(id, connection.clone());
    if shard.front.is_draining() {
        connection.stop_reading();
    }

    let (read, write) = stream.split();
    let writer = write_replies(shard.clone(), connection.clone(), write);
    let writer = shard.rt.spawn(Class::Foreground, writer);
    if let Err(error) = read_requests(&shard, &connection, read).await {
        connection.complain(&shard, &error);
    }
    connection.stop_reading();
    let patience = if shard.front.is_draining() {
        super::DRAIN_TIME_MAX
    } else {
        HALF_CLOSED_TIME_MAX
    };
    // Dropping the writer drops what still runs; what changes something runs to its end elsewhere.
    let _ = shard.rt.timeout(patience, writer).await;

    shard.front.connections.borrow_mut().remove(&id);
    shard.front.connection_ended.notify_all();
    shard.leave(ShardId(0), peer.ip()).await;
}

/// Why a connection is closed from our side.
#[derive(Debug)]
enum Broken {
    Frame(FrameError),
    Header(HeaderError),
    Body(&'static str, wire::DecodeError),
}

async fn read_requests(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    half: ReadHalf,
) -> Result<(), Broken> {
    let network = &shard.config.network;
    let mut frames = FrameReader::new(half, network.request_bytes_max);
    loop {
        connection
            .wait_for_turn(
                network.connection_requests_max,
                network.connection_reply_bytes_max,
            )
            .await;
        let next = frames.next(connection, &shard.front.memory).await;
        let Some((frame, mut held)) = next.map_err(Broken::Frame)? else {
            return Ok(());
        };
        let frame_bytes = frame.len();
        shard.counters.request_bytes.add(frame_bytes);
        let (header, body) = match wire::header::read(frame) {
            Ok(read) => read,
            Err(error) => match api::answer_unsupported(&error) {
                Some(reply) => {
                    connection.push(Work::Done(Outcome::Reply(vec![reply])), held);
                    continue;
                }
                None => return Err(Broken::Header(error)),
            },
        };
        let api = header.api;
        shard.counters.request(api.name);
        let needed = api.request_memory_bytes(frame_bytes) as u64;
        shard.front.memory.extend(&mut held, needed).await;
        let host = connection.peer.ip();
        let mut work = api::begin(shard, header, body, host, frame_bytes)
            .map_err(|error| Broken::Body(api.name, error))?;
        // The first poll is what puts the effects in order. The writer polls again, with a waker that counts.
        let first = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let work = match first {
            Poll::Ready(outcome) => Work::Done(outcome),
            Poll::Pending => Work::Running(work),
        };
        connection.push(work, held);
    }
}

async fn write_replies(shard: Rc<Shard>, connection: Rc<Connection>, mut half: WriteHalf) {
    while let Some(batch) = connection.next_replies().await {
        let bytes: usize = batch.slices.iter().map(Bytes::len).sum();
        shard.counters.reply_bytes.add(bytes);
        if !batch.slices.is_empty() && half.write_all(&batch.slices).await.is_err() {
            // The client is gone; nobody is to blame.
            break;
        }
        connection.moved.set(connection.rt.now());
        let last = batch.close;
        connection.sent(batch);
        if last {
            break;
        }
    }
    let _ = half.shutdown().await;
    connection.close();
}

/// Replies that leave in one write.
#[derive(Default)]
struct Replies {
    slices: Vec<Bytes>,
    bytes: usize,
    requests: usize,
    /// Nothing may follow.
    close: bool,
    /// Given back when the replies are on their way.
    held: Vec<(Held, Option<forebay_engine::rt::local::Units>)>,
}

impl Connection {
    pub(super) fn new(rt: Rt, peer: SocketAddr) -> Connection {
        Connection {
            moved: Cell::new(rt.now()),
            rt,
            peer,
            within_frame: Cell::new(false),
            state: Cell::new(State::Open),
            closing: Notify::new(),
            queue: RefCell::default(),
            in_flight: Cell::new(0),
            ready_bytes: Cell::new(0),
            queue_changed: Notify::new(),
        }
    }

    /// Reads some bytes; 0 at the end of the stream, or when this connection shall not read on.
    pub(super) async fn read(&self, half: &mut ReadHalf, buf: &mut BytesMut) -> io::Result<usize> {
        let closing = self.closing.listen();
        if self.is_closing() {
            return Ok(0);
        }
        let read = pin!(half.read_into(buf));
        let count = match select(read, closing).await {
            Either::Left((count, _)) => count?,
            Either::Right(_) => 0,
        };
        self.moved.set(self.rt.now());
        Ok(count)
    }

    /// Within a frame the client has less time to go on; the time begins now.
    pub(super) fn between_frames(&self, between: bool) {
        self.within_frame.set(!between);
        self.moved.set(self.rt.now());
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.get() != State::Open
    }

    /// Takes no more requests; those begun are answered.
    pub(super) fn stop_reading(&self) {
        self.advance(State::Ending);
    }

    /// Ends now, whatever is in flight.
    pub(super) fn close(&self) {
        self.advance(State::Closed);
    }

    fn advance(&self, state: State) {
        if self.state.get() < state {
            self.state.set(state);
            self.closing.notify_all();
            self.queue_changed.notify_all();
        }
    }

    /// Whether this connection has been idle, or stuck within a frame, for too long.
    pub(super) fn overstayed(&self, now: Instant, idle_max: Duration) -> bool {
        let patience = if self.within_frame.get() {
            FRAME_STALL_MAX.min(idle_max)
        } else {
            idle_max
        };
        u128::from(now.0.saturating_sub(self.moved.get().0)) > patience.as_nanos()
    }

    /// Waits until another request may be read.
    async fn wait_for_turn(&self, requests_max: usize, reply_bytes_max: usize) {
        loop {
            let changed = self.queue_changed.listen();
            let room =
                self.in_flight.get() < requests_max && self.ready_bytes.get() < reply_bytes_max;
            if room || self.is_closing() {
                return;
            }
            changed.await;
        }
    }

    fn push(&self, work: Work, held: Held) {
        if let Work::Done(outcome) = &work {
            self.ready_bytes
                .set(self.ready_bytes.get() + outcome.bytes());
        }
        self.in_flight.set(self.in_flight.get() + 1);
        self.queue.borrow_mut().push_back(Request { work, held });
        self.queue_changed.notify_all();
    }

    /// The replies that are next and ready, waiting for the first of them; `None` when there will be no more.
    async fn next_replies(&self) -> Option<Replies> {
        let first = loop {
            let changed = self.queue_changed.listen();
            if self.state.get() == State::Closed {
                return None;
            }
            if let Some(request) = self.pop() {
                break request;
            }
            if self.state.get() == State::Ending {
                return None;
            }
            changed.await;
        };
        let mut replies = Replies::default();
        let outcome = match first.work {
            Work::Done(outcome) => outcome,
            Work::Running(work) => {
                let closing = self.closed();
                match select(work, pin!(closing)).await {
                    Either::Left((outcome, _)) => outcome,
                    Either::Right(_) => return None,
                }
            }
        };
        replies.add(outcome, first.held);
        while replies.has_room() {
            let Some((outcome, held)) = self.pop_ready() else {
                break;
            };
            replies.add(outcome, held);
        }
        Some(replies)
    }

    async fn closed(&self) {
        loop {
            let closing = self.closing.listen();
            if self.state.get() == State::Closed {
                return;
            }
            closing.await;
        }
    }

    fn pop(&self) -> Option<Request> {
        let request = self.queue.borrow_mut().pop_front()?;
        if let Work::Done(outcome) = &request.work {
            self.ready_bytes
                .set(self.ready_bytes.get() - outcome.bytes());
        }
        Some(request)
    }

    /// The next request in order, if it is done by now.
    fn pop_ready(&self) -> Option<(Outcome, Held)> {
        let request = self.pop()?;
        match request.work {
            Work::Done(outcome) => Some((outcome, request.held)),
            Work::Running(mut work) => {
                match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(outcome) => Some((outcome, request.held)),
                    Poll::Pending => {
                        let held = request.held;
                        let work = Work::Running(work);
                        self.queue.borrow_mut().push_front(Request { work, held });
                        None
                    }
                }
            }
        }
    }

    fn sent(&self, mut replies: Replies) {
        drop(mem::take(&mut replies.held));
        self.in_flight.set(self.in_flight.get() - replies.requests);
        self.queue_changed.notify_all();
    }

    fn complain(&self, shard: &Shard, broken: &Broken) {
        let peer = self.peer;
        match broken {
            // Clients come and go; that is not worth a line.
            Broken::Frame(FrameError::Io(_) | FrameError::Truncated) => {}
            _ => {
                shard.counters.connections_broken.add(1);
                if shard.front.may_complain(self.rt.now()) {
                    tracing::warn!(%peer, "connection closed: {broken}");
                }
            }
        }
    }
}

impl Replies {
    fn add(&mut self, outcome: Outcome, held: Held) {
        self.requests += 1;
        self.bytes += outcome.bytes();
        match outcome {
            Outcome::Reply(slices) => {
                self.slices.extend(slices);
                self.held.push((held, None));
            }
            Outcome::Fetched(slices, memory) => {
                self.slices.extend(slices);
                self.held.push((held, memory));
            }
            Outcome::Silent => {}
            Outcome::Close => self.close = true,
        }
    }

    fn has_room(&self) -> bool {
        !self.close && self.bytes < WRITE_BYTES_MAX && self.slices.len() < WRITE_SLICES_MAX
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Frame(error) => error.fmt(f),
            Broken::Header(error) => error.fmt(f),
            Broken::Body(api, error) => write!(f, "{api}: {error}"),
        }
    }
}
