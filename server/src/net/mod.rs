//! The network front end of a shard: listener, connections, frames, and the memory they may use.
//!
//! Every shard listens on the same port (SO_REUSEPORT). What is bounded here, per shard: memory of requests in flight (frames, and
//! what is decoded from them), memory of fetch replies, connections (of the whole broker, counted on shard 0), requests and reply
//! bytes in flight per connection.

mod connection;
mod frame;
pub mod http;
mod limits;
mod memory;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use forebay_engine::rt::{
    Class, Instant, Rt,
    local::{Budget, Notify},
    net::Listener,
};
use futures_util::future::{Either, select};

use crate::{config::Config, shard::Shard};

pub use limits::Limits;
pub use memory::{Held, Memory, REQUEST_UNITS_MIN};

use connection::Connection;

/// A frame that has begun must go on within this time.
const FRAME_STALL_MAX: Duration = Duration::from_secs(30);
/// How often idle and stalled connections are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);
/// How long replies in flight may take when the broker stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Complaints about broken connections that reach the log, per second and shard.
const COMPLAINTS_PER_SECOND_MAX: u32 = 5;

/// The connections of one shard.
pub struct Front {
    memory: Memory,
    /// Bytes of fetch replies that are made but not sent.
    replies: Budget,
    /// On shard 0 this counts for the whole broker.
    pub(crate) limits: Limits,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_connection: Cell<u64>,
    draining: Cell<bool>,
    draining_begun: Notify,
    /// Notified for each connection that ends.
    connection_ended: Notify,
    complaints: Cell<(Instant, u32)>,
}

impl Front {
    pub fn new(config: &Config, shards: u16) -> Front {
        let request_bytes = config.memory.requests_per_shard_bytes(shards);
        Front {
            memory: Memory::new(request_bytes),
            replies: Budget::new(request_bytes),
            limits: Limits::new(&config.network),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            draining: Cell::new(false),
            draining_begun: Notify::new(),
            connection_ended: Notify::new(),
            complaints: Cell::new((Instant(0), 0)),
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    pub fn memory_in_use(&self) -> u64 {
        self.memory.in_use()
    }

    /// Memory that fetch replies may take; see `api::fetch`.
    pub fn replies(&self) -> &Budget {
        &self.replies
    }

    /// Takes no new connection and no new request; completes when replies in flight are sent, or have had their time.
    pub async fn drain(&self, rt: &Rt) {
        self.draining.set(true);
        self.draining_begun.notify_all();
        for connection in self.connections.borrow().values() {
            connection.stop_reading();
        }
        let all_gone = async {
            loop {
                let ended = self.connection_ended.listen();
                if self.connections.borrow().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        if rt.timeout(DRAIN_TIME_MAX, all_gone).await.is_none() {
            let left = self.connections();
            tracing::warn!(connections = left, "connections closed with replies unsent");
        }
    }

    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Completes when the broker begins to stop.
    pub async fn drain_begun(&self) {
        let begun = self.draining_begun.listen();
        if !self.is_draining() {
            begun.await;
        }
    }

    /// Whether one more complaint may be logged now.
    fn may_complain(&self, now: Instant) -> bool {
        let (since, count) = self.complaints.get();
        if now.0.saturating_sub(since.0) >= 1_000_000_000 {
            self.complaints.set((now, 1));
            return true;
        }
        self.complaints.set((since, count.saturating_add(1)));
        count < COMPLAINTS_PER_SECOND_MAX
    }

    /// Closes connections that were idle for too long, or stopped in the middle of a frame.
    fn reap(&self, now: Instant, idle_max: Duration) {
        for connection in self.connections.borrow().values() {
            if connection.overstayed(now, idle_max) {
                connection.close();
            }
        }
    }
}

/// Binds the address on this shard and serves what connects.
pub fn listen(shard: &Rc<Shard>, address: SocketAddr) -> io::Result<()> {
    serve(shard, shard.rt.listen(address)?);
    Ok(())
}

/// Serves what connects, until the shard drains.
pub fn serve(shard: &Rc<Shard>, listener: Listener) {
    let rt = &shard.rt;
    rt.spawn(Class::Foreground, accept(shard.clone(), listener))
        .detach();
}

async fn accept(shard: Rc<Shard>, listener: Listener) {
    loop {
        let drain = shard.front.draining_begun.listen();
        if shard.front.is_draining() {
            return;
        }
        let accepted = {
            let accept = std::pin::pin!(listener.accept());
            match select(accept, drain).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => continue,
            }
        };
        match accepted {
            Ok(stream) => {
                shard.counters.connections_accepted.add(1);
                let serve = connection::serve(shard.clone(), stream);
                shard.rt.spawn(Class::Foreground, serve).detach();
            }
            Err(error) => {
                if shard.front.may_complain(shard.rt.now()) {
                    tracing::warn!(%error, "connection not accepted");
                }
                shard.rt.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Looks after the shard's connections until it stops.
pub(crate) async fn reap(shard: Rc<Shard>) {
    let idle_max = Duration::from_millis(shard.config.network.connection_idle_ms);
    while !shard.is_stopping() {
        shard.rt.sleep(REAP_INTERVAL).await;
        shard.front.reap(shard.rt.now(), idle_max);
    }
}
