//! The real back end: glommio, one executor per core.
//!
//! Only here and below is glommio named, and only what version 0.9 and the fork have in common is used.

pub(super) mod channel;
mod file;
mod host;
pub(super) mod net;
mod shards;
mod sleep;
mod watchdog;

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    io,
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use glommio::{GlommioError, Latency, Shares, TaskQueueHandle};

use super::{Class, DirEntry, DiskSpace, Instant, local::Budget, random::Random, too_large};
use crate::types::Timestamp;

use sleep::Sleeps;

pub(super) use file::{Buffer, File};
pub use host::usable_cores;
pub use shards::{ShardHandle, ShardOptions, run_alone, run_shards};
pub use watchdog::rescues;

/// How long produce and tail fetch may wait for a turn behind other classes.
const FOREGROUND_LATENCY_MAX: Duration = Duration::from_millis(2);

/// Bytes that one shard may have in flight to or from the disk for work that nobody waits for, so that a drain or a
/// compaction cannot fill the device's queue. Foreground and replication are bounded by their own memory budgets.
#[derive(Clone, Copy, Debug)]
pub struct InFlight {
    pub cold_read_bytes_max: u64,
    pub housekeeping_bytes_max: u64,
}

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight {
            cold_read_bytes_max: 2 << 20,
            housekeeping_bytes_max: 8 << 20,
        }
    }
}

/// Handle to the glommio executor of this thread, with a task queue per class.
#[derive(Clone)]
pub struct Uring(Rc<Inner>);

struct Inner {
    foreground: TaskQueueHandle,
    replication: TaskQueueHandle,
    cold_read: TaskQueueHandle,
    housekeeping: TaskQueueHandle,
    cold_read_in_flight: Budget,
    housekeeping_in_flight: Budget,
    random: Random,
    sleeps: Sleeps,
}

impl Uring {
    /// Must run inside a glommio executor, once; panics elsewhere.
    pub fn new(in_flight: InFlight) -> Uring {
        let queue = |shares, latency, name| {
            glommio::executor().create_task_queue(Shares::Static(shares), latency, name)
        };
        let uring = Uring(Rc::new(Inner {
            foreground: queue(1000, Latency::Matters(FOREGROUND_LATENCY_MAX), "foreground"),
            replication: queue(500, Latency::NotImportant, "replication"),
            cold_read: queue(200, Latency::NotImportant, "cold-read"),
            housekeeping: queue(100, Latency::NotImportant, "housekeeping"),
            cold_read_in_flight: Budget::new(in_flight.cold_read_bytes_max),
            housekeeping_in_flight: Budget::new(in_flight.housekeeping_bytes_max),
            // The standard library seeds its hasher from the operating system.
            random: Random::new(RandomState::new().hash_one(0)),
            sleeps: Sleeps::default(),
        }));
        let keeper = uring.0.sleeps.clone().keep();
        uring.spawn(Class::Foreground, keeper).detach();
        uring
    }

    fn queue(&self, class: Class) -> TaskQueueHandle {
        match class {
            Class::Foreground => self.0.foreground,
            Class::Replication => self.0.replication,
            Class::ColdRead => self.0.cold_read,
            Class::Housekeeping => self.0.housekeeping,
        }
    }

    /// The budget that I/O started by the running task counts against, if its class has one.
    fn in_flight_of_this_task(&self) -> Option<&Budget> {
        let queue = glommio::executor().current_task_queue();
        if queue == self.0.cold_read {
            Some(&self.0.cold_read_in_flight)
        } else if queue == self.0.housekeeping {
            Some(&self.0.housekeeping_in_flight)
        } else {
            None
        }
    }

    /// Of the classes that have a bound.
    pub fn bytes_in_flight(&self) -> u64 {
        self.0.cold_read_in_flight.in_use() + self.0.housekeeping_in_flight.in_use()
    }

    pub(super) fn now(&self) -> Instant {
        static START: OnceLock<std::time::Instant> = OnceLock::new();
        Instant(super::nanos(
            START.get_or_init(std::time::Instant::now).elapsed(),
        ))
    }

    pub(super) fn wall_clock(&self) -> Timestamp {
        // A clock set before 1970 is an operator's mistake; records then carry 0.
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    pub(super) fn random_u64(&self) -> u64 {
        self.0.random.next_u64()
    }

    pub(super) fn spawn<T: 'static>(
        &self,
        class: Class,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        let task = glommio::spawn_local_into(future, self.queue(class))
            .expect("queues live as long as their executor, and a handle never leaves it");
        Task(task)
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        self.0.sleeps.sleep(duration).await;
    }

    pub(super) async fn yield_now(&self) {
        // Not `yield_now`, which goes on with this class until its time slice is over.
        glommio::executor().yield_task_queue_now().await;
    }

    pub(super) async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        glommio::executor().spawn_blocking(work).await
    }

    /// Runs `work` on a copy of `path` in the blocking pool.
    async fn with_path<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> T {
        let path = path.to_owned();
        self.run_blocking(move || work(&path)).await
    }
}

/// Directories and whole files. What io_uring does not do goes through the blocking pool.
impl Uring {
    pub(super) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with_path(path, |path| std::fs::create_dir_all(path))
            .await
    }

    pub(super) async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.with_path(path, host::list_dir).await
    }

    pub(super) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        glommio::io::rename(from, to).await.map_err(io_error)
    }

    pub(super) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        glommio::io::remove(path).await.map_err(io_error)
    }

    pub(super) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with_path(path, |path| std::fs::remove_dir_all(path))
            .await
    }

    pub(super) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        // glommio's `Directory::sync` is an fdatasync, which on ext4 may skip a new name that did not make the
        // directory's file larger. fsync does not.
        self.with_path(path, |path| std::fs::File::open(path)?.sync_all())
            .await
    }

    pub(super) async fn file_system(&self, dir: &Path) -> io::Result<FileSystem> {
        let any = self.with_path(dir, |dir| std::fs::File::open(dir)).await?;
        Ok(FileSystem {
            uring: self.clone(),
            any: Arc::new(any),
        })
    }

    pub(super) async fn exists(&self, path: &Path) -> bool {
        self.with_path(path, |path| path.exists()).await
    }

    pub(super) async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.with_path(path, move |path| {
            host::read_up_to(path, bytes_max)?.ok_or_else(|| too_large(path, bytes_max))
        })
        .await
    }

    pub(super) async fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.with_path(path, host::disk_space).await
    }
}

/// Kept open: the kernel reports an error once to each handle that was open when it came.
pub(super) struct FileSystem {
    uring: Uring,
    any: Arc<std::fs::File>,
}

impl FileSystem {
    pub(super) async fn sync(&self) -> io::Result<()> {
        let any = Arc::clone(&self.any);
        let sync = move || host::sync_file_system(&any);
        self.uring.run_blocking(sync).await
    }
}

pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    pub(super) fn detach(self) {
        self.0.detach();
    }

    pub(super) async fn cancel(self) {
        self.0.cancel().await;
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Keeps the operating system's error (its code tells `ENOSPC` from `EIO`) where glommio wraps it in a text.
fn io_error<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}
