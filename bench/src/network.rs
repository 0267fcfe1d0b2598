//! The floor of the network: a bare pair of sockets on loopback, one on each of two executors, through the same seam as the broker.

use std::{net::SocketAddr, sync::mpsc, time::Duration};

use bytes::{Bytes, BytesMut};
use clap::Args;
use forebay_engine::{
    ShardId,
    rt::{Rt, uring},
};

use crate::limits::{SECONDS_MAX, within};

#[derive(Clone, Debug, Args)]
pub struct Plan {
    /// Bytes of each write
    #[arg(long, default_value_t = 65_536)]
    size_bytes: usize,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

pub fn run(plan: &Plan) -> Result<(), String> {
    within("--size-bytes", plan.size_bytes, 1..=64 << 20)?;
    within("--seconds", plan.seconds, 1..=SECONDS_MAX)?;
    let said = |error: std::io::Error| error.to_string();
    let mut options = uring::ShardOptions::for_this_host().map_err(said)?;
    options.shards = 2;
    let (tell, told) = mpsc::channel::<SocketAddr>();
    let mut told = Some(told);
    let (size, duration) = (plan.size_bytes, Duration::from_secs(plan.seconds));
    let handles = uring::run_shards(&options, |shard: ShardId| {
        let role = match shard {
            ShardId(0) => Role::Receiver(tell.clone()),
            _ => Role::Sender(told.take().expect("one sender is started")),
        };
        move |rt: Rt, _: ShardId| async move {
            match role {
                Role::Receiver(tell) => receive(rt, tell, size).await,
                Role::Sender(told) => send(rt, told, size, duration).await,
            }
        }
    })
    .map_err(said)?;
    let mut received = 0;
    for handle in handles {
        received = received.max(handle.join().map_err(said)?.map_err(said)?);
    }
    let rate = received as f64 / plan.seconds as f64;
    println!(
        "network  {:>8.1} MB/s in writes of {size} bytes, one connection",
        rate / 1e6
    );
    Ok(())
}

enum Role {
    Receiver(mpsc::Sender<SocketAddr>),
    Sender(mpsc::Receiver<SocketAddr>),
}

/// Returns the bytes that came until the sender closed.
async fn receive(rt: Rt, tell: mpsc::Sender<SocketAddr>, size: usize) -> std::io::Result<u64> {
    let listener = rt.listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    // The sender waits for this before anything else, so it is there to hear it.
    let _ = tell.send(listener.local_addr());
    let (mut from, _to) = listener.accept().await?.split();
    let mut buffer = BytesMut::with_capacity(size.max(1 << 20));
    let mut received = 0;
    loop {
        let count = from.read_into(&mut buffer).await?;
        if count == 0 {
            return Ok(received);
        }
        received += count as u64;
        buffer.clear();
    }
}

/// Sends for the duration, then closes. Returns the bytes sent.
async fn send(
    rt: Rt,
    told: mpsc::Receiver<SocketAddr>,
    size: usize,
    duration: Duration,
) -> std::io::Result<u64> {
    let address = told.recv().map_err(std::io::Error::other)?;
    let (_from, mut to) = rt.connect(address).await?.split();
    let block = [Bytes::from(vec![0x5A; size])];
    let ends = rt.now().plus(duration);
    let mut sent = 0;
    while rt.now() < ends {
        to.write_all(&block).await?;
        sent += size as u64;
    }
    to.shutdown().await?;
    Ok(sent)
}
