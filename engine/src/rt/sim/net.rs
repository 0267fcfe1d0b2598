//! In-memory links by address. Bytes arrive in order, each write after a seeded delay; a full link holds its writer back.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};

use super::Sim;
use crate::rt::{Instant, local::Notify, net as seam};

/// Bytes under way in one direction, as a socket's buffers would hold.
const LINK_BYTES_MAX: usize = 256 << 10;
/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 1024;
const DELAY_MIN: Duration = Duration::from_micros(5);
const DELAY_SPREAD_NANOS: u64 = 200_000;
/// Ports given to those who ask for none, upwards.
const EPHEMERAL_PORT_MIN: u16 = 32_768;

/// Who listens where.
#[derive(Default)]
pub(super) struct Links {
    listeners: BTreeMap<SocketAddr, Vec<Rc<Backlog>>>,
    ports_given: u16,
}

struct Backlog {
    connections: RefCell<VecDeque<seam::Stream>>,
    changed: Notify,
}

impl Links {
    fn next_port(&mut self) -> u16 {
        self.ports_given = (self.ports_given + 1) % (u16::MAX - EPHEMERAL_PORT_MIN);
        EPHEMERAL_PORT_MIN + self.ports_given
    }

    fn listeners_at(&self, address: SocketAddr) -> &[Rc<Backlog>] {
        let any_ip = match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        self.listeners
            .get(&address)
            .or_else(|| self.listeners.get(&SocketAddr::new(any_ip, address.port())))
            .map_or(&[], Vec::as_slice)
    }
}

impl Sim {
    pub(in crate::rt) fn listen(&self, mut address: SocketAddr) -> io::Result<seam::Listener> {
        let mut links = self.0.links.borrow_mut();
        if address.port() == 0 {
            address.set_port(links.next_port());
        }
        let backlog = Rc::new(Backlog {
            connections: RefCell::default(),
            changed: Notify::new(),
        });
        links
            .listeners
            .entry(address)
            .or_default()
            .push(backlog.clone());
        drop(links);
        self.record("listen", u64::from(address.port()));
        Ok(seam::Listener {
            kind: seam::ListenerKind::Sim(Listener {
                sim: self.clone(),
                address,
                backlog,
            }),
            local: address,
        })
    }

    pub(in crate::rt) async fn connect(&self, address: SocketAddr) -> io::Result<seam::Stream> {
        self.sleep(self.link_delay()).await;
        self.record("connect", u64::from(address.port()));
        let mut links = self.0.links.borrow_mut();
        let here = SocketAddr::new(address.ip(), links.next_port());
        let listeners = links.listeners_at(address);
        if listeners.is_empty() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let chosen = self.0.random.below(listeners.len() as u64) as usize;
        let backlog = &listeners[chosen];
        if backlog.connections.borrow().len() == BACKLOG_MAX {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (to, from) = (self.pipe(), self.pipe());
        backlog
            .connections
            .borrow_mut()
            .push_back(stream(to.clone(), from.clone(), here, address));
        backlog.changed.notify_all();
        Ok(stream(from, to, address, here))
    }

    fn pipe(&self) -> Rc<Pipe> {
        Rc::new(Pipe {
            sim: self.clone(),
            flow: RefCell::default(),
            last_arrival: Cell::new(Instant(0)),
            changed: Notify::new(),
        })
    }

    fn link_delay(&self) -> Duration {
        DELAY_MIN + Duration::from_nanos(self.0.random.below(DELAY_SPREAD_NANOS))
    }
}

pub(in crate::rt) struct Listener {
    sim: Sim,
    address: SocketAddr,
    backlog: Rc<Backlog>,
}

impl Listener {
    pub(in crate::rt) async fn accept(&self) -> io::Result<seam::Stream> {
        loop {
            let changed = self.backlog.changed.listen();
            let waiting = self.backlog.connections.borrow_mut().pop_front();
            match waiting {
                Some(stream) => return Ok(stream),
                None => changed.await,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        {
            let mut links = self.sim.0.links.borrow_mut();
            if let Some(listeners) = links.listeners.get_mut(&self.address) {
                listeners.retain(|other| !Rc::ptr_eq(other, &self.backlog));
                if listeners.is_empty() {
                    links.listeners.remove(&self.address);
                }
            }
        }
        // Whoever was not accepted finds the connection closed.
        let refused = self.backlog.connections.take();
        drop(refused);
    }
}

/// One direction of a connection.
struct Pipe {
    sim: Sim,
    flow: RefCell<Flow>,
    last_arrival: Cell<Instant>,
    changed: Notify,
}

#[derive(Default)]
struct Flow {
    /// With the time at which each can be read.
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    write_closed: bool,
    read_closed: bool,
}

fn stream(read: Rc<Pipe>, write: Rc<Pipe>, peer: SocketAddr, local: SocketAddr) -> seam::Stream {
    seam::Stream {
        kind: seam::StreamKind::Sim(Stream {
            read: ReadHalf(read),
            write: WriteHalf(write),
        }),
        peer,
        local,
    }
}

pub(in crate::rt) struct Stream {
    read: ReadHalf,
    write: WriteHalf,
}

impl Stream {
    pub(in crate::rt) fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }
}

pub(in crate::rt) struct ReadHalf(Rc<Pipe>);
pub(in crate::rt) struct WriteHalf(Rc<Pipe>);

enum Arrived {
    Bytes(usize),
    End,
    NotBefore(Instant),
    Nothing,
}

impl Pipe {
    fn take_arrived(&self, buf: &mut BytesMut) -> Arrived {
        let now = self.sim.now();
        let mut flow = self.flow.borrow_mut();
        let mut taken = 0;
        while let Some((arrival, chunk)) = flow.chunks.front_mut() {
            let room = buf.capacity() - buf.len();
            let count = room.min(chunk.len());
            if *arrival > now || count == 0 {
                break;
            }
            buf.extend_from_slice(&chunk[..count]);
            chunk.advance(count);
            if chunk.is_empty() {
                flow.chunks.pop_front();
            }
            flow.bytes -= count;
            taken += count;
        }
        match flow.chunks.front() {
            _ if taken > 0 => Arrived::Bytes(taken),
            Some((arrival, _)) => Arrived::NotBefore(*arrival),
            None if flow.write_closed => Arrived::End,
            None => Arrived::Nothing,
        }
    }

    /// Sends as much as there is room for; 0 if there is none.
    fn send_some(&self, bytes: &Bytes) -> io::Result<usize> {
        let mut flow = self.flow.borrow_mut();
        if flow.read_closed || flow.write_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(LINK_BYTES_MAX - flow.bytes);
        if count > 0 {
            let arrival = self.sim.now().plus(self.sim.link_delay());
            let arrival = arrival.max(self.last_arrival.get());
            self.last_arrival.set(arrival);
            flow.chunks.push_back((arrival, bytes.slice(..count)));
            flow.bytes += count;
        }
        Ok(count)
    }
}

impl ReadHalf {
    pub(in crate::rt) async fn read_into(&self, buf: &mut BytesMut) -> io::Result<usize> {
        loop {
            let changed = self.0.changed.listen();
            match self.0.take_arrived(buf) {
                Arrived::Bytes(count) => {
                    self.0.sim.record("receive", count as u64);
                    self.0.changed.notify_all();
                    return Ok(count);
                }
                Arrived::End => return Ok(0),
                Arrived::NotBefore(arrival) => self.0.sim.sleep_until(arrival).await,
                Arrived::Nothing => changed.await,
            }
        }
    }
}

impl WriteHalf {
    pub(in crate::rt) async fn write_all(&self, slices: &[Bytes]) -> io::Result<()> {
        for slice in slices {
            let mut rest = slice.clone();
            while !rest.is_empty() {
                let changed = self.0.changed.listen();
                let count = self.0.send_some(&rest)?;
                if count == 0 {
                    changed.await;
                    continue;
                }
                rest.advance(count);
                self.0.sim.record("send", count as u64);
                self.0.changed.notify_all();
            }
        }
        Ok(())
    }

    pub(in crate::rt) fn shutdown(&self) -> io::Result<()> {
        self.0.flow.borrow_mut().write_closed = true;
        self.0.changed.notify_all();
        Ok(())
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.0.flow.borrow_mut().read_closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.0.flow.borrow_mut().write_closed = true;
        self.0.changed.notify_all();
    }
}
