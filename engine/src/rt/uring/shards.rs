//! Starting executors: one thread and one ring per shard, all or none.

use std::{future::Future, io, sync::mpsc, time::Duration};

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement};

use super::{
    InFlight, Uring, io_error,
    watchdog::{HEARTBEAT, Watchdog},
};
use crate::{
    rt::{Rt, Task},
    types::ShardId,
};

/// Threads that the kernel may start for one shard's writes. Write-behind of many logs waits for them: with the kernel's own number, four for each
/// core, the journal runs full behind ten thousand of them (bench/notes/2026-11-22-many-partitions.md).
pub(super) const RING_WORKERS_MAX: u32 = 64;

#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// Executors to start.
    pub shards: u16,
    /// One core for each shard, in order. If there are fewer cores than shards, none is pinned.
    pub cores: Vec<usize>,
    /// Entries of each submission ring.
    pub ring_depth: usize,
    /// How long an idle shard polls before it sleeps: saves the wake-up (4 to 7 us) for CPU time. Pinned shards only.
    pub spin: Duration,
    /// Memory registered with each ring for direct I/O; more than that comes from the heap.
    pub io_memory_bytes: usize,
    pub in_flight: InFlight,
}

impl ShardOptions {
    /// One shard on each core this process may use.
    pub fn for_this_host() -> io::Result<ShardOptions> {
        let cores = super::usable_cores()?;
        let shards = u16::try_from(cores.len()).unwrap_or(u16::MAX);
        Ok(ShardOptions {
            shards,
            cores,
            ..ShardOptions::unpinned(shards)
        })
    }

    pub fn unpinned(shards: u16) -> ShardOptions {
        ShardOptions {
            shards,
            cores: Vec::new(),
            ring_depth: 128,
            spin: Duration::ZERO,
            io_memory_bytes: 10 << 20,
            in_flight: InFlight::default(),
        }
    }

    pub fn is_pinned(&self) -> bool {
        self.cores.len() >= usize::from(self.shards)
    }

    fn builder(&self, shard: ShardId) -> LocalExecutorBuilder {
        let placement = match self.cores.get(usize::from(shard.0)) {
            Some(core) if self.is_pinned() => Placement::Fixed(*core),
            _ => Placement::Unbound,
        };
        let builder = LocalExecutorBuilder::new(placement)
            .name(&format!("shard-{shard}"))
            .ring_depth(self.ring_depth)
            .io_memory(self.io_memory_bytes)
            // A blocking call must not wait for the very core that spins for its result.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1));
        if self.spin.is_zero() {
            builder
        } else {
            builder.spin_before_park(self.spin)
        }
    }
}

/// A running shard.
pub struct ShardHandle<T: Send + 'static> {
    pub shard: ShardId,
    thread: ExecutorJoinHandle<Option<T>>,
}

impl<T: Send + 'static> ShardHandle<T> {
    /// Blocks until the shard's future is done; an error if it panicked.
    pub fn join(self) -> io::Result<T> {
        let result = self.thread.join().map_err(io_error)?;
        Ok(result.expect("a shard that is handed out was told to go"))
    }
}

/// Starts all shards. `main_of` is called on this thread once for each and makes what runs there. If one executor cannot
/// start (no io_uring, too little lockable memory, no such core), none runs and the cause comes back.
pub fn run_shards<T, Main, Running>(
    options: &ShardOptions,
    mut main_of: impl FnMut(ShardId) -> Main,
) -> io::Result<Vec<ShardHandle<T>>>
where
    T: Send + 'static,
    Main: FnOnce(Rt, ShardId) -> Running + Send + 'static,
    Running: Future<Output = T> + 'static,
{
    assert!(options.shards > 0, "a broker without shards");
    let mut started = Vec::new();
    for shard in (0..options.shards).map(ShardId) {
        started.push(start(options, shard, main_of(shard))?);
    }
    // All executors exist. Telling none of them to go (returning early above) ends those that do.
    Ok(started
        .into_iter()
        .map(|(handle, go)| {
            // A failed send means that the thread is gone, which `join` reports.
            let _ = go.send(());
            handle
        })
        .collect())
}

/// Starts one executor that waits for a word on the returned channel, and ends if that is dropped instead.
fn start<T, Running>(
    options: &ShardOptions,
    shard: ShardId,
    main: impl FnOnce(Rt, ShardId) -> Running + Send + 'static,
) -> io::Result<(ShardHandle<T>, mpsc::SyncSender<()>)>
where
    T: Send + 'static,
    Running: Future<Output = T> + 'static,
{
    let (ready_tell, ready) = mpsc::sync_channel(1);
    let (go_tell, go) = mpsc::sync_channel(1);
    let in_flight = options.in_flight;
    let thread = options
        .builder(shard)
        .spawn(move || async move {
            ready_tell.send(()).ok()?;
            // Blocks the executor, which has nothing else to run yet.
            go.recv().ok()?;
            Some(on_foreground(in_flight, move |rt| main(rt, shard)).await)
        })
        .map_err(|error| start_error(shard, io_error(error)))?;
    if ready.recv().is_ok() {
        return Ok((ShardHandle { shard, thread }, go_tell));
    }
    // The thread dropped its end unused: the executor could not be made, and joining tells why.
    match thread.join() {
        Err(error) => Err(start_error(shard, io_error(error))),
        Ok(_) => Err(start_error(shard, io::Error::other("ended at once"))),
    }
}

fn start_error(shard: ShardId, cause: io::Error) -> io::Error {
    io::Error::new(
        cause.kind(),
        format!("cannot start the io_uring executor of shard {shard}: {cause}"),
    )
}

/// One unpinned executor on the calling thread: for tests and tools.
pub fn run_alone<T, Running>(main: impl FnOnce(Rt) -> Running) -> io::Result<T>
where
    T: 'static,
    Running: Future<Output = T> + 'static,
{
    let options = ShardOptions::unpinned(1);
    let executor = options
        .builder(ShardId(0))
        .make()
        .map_err(|error| start_error(ShardId(0), io_error(error)))?;
    Ok(executor.run(on_foreground(options.in_flight, main)))
}

/// Runs the main future in a class, like everything else.
async fn on_foreground<T: 'static, Running>(
    in_flight: InFlight,
    main: impl FnOnce(Rt) -> Running,
) -> T
where
    Running: Future<Output = T> + 'static,
{
    let rt = Rt::Uring(Uring::new(in_flight));
    let clock = rt.clone();
    // A kernel that refuses keeps its own number, which costs speed and nothing else.
    if let Err(error) = super::host::set_ring_workers(RING_WORKERS_MAX) {
        tracing::info!(%error, "the kernel's own number of workers serves this shard's ring");
    }
    let watchdog = Watchdog::start();
    // In the most urgent class: a beat that waits behind others would look like one that is overdue.
    let _heartbeat: Task<()> = rt.spawn(super::Class::Foreground, async move {
        loop {
            clock.sleep(HEARTBEAT).await;
            watchdog.beat();
        }
    });
    let running = main(rt.clone());
    rt.spawn(super::Class::Foreground, running).await
}
