//! The seam: disk, network, clock, randomness and tasks are reached only through here.
//!
//! Two back ends, chosen at run time by an enum: glommio on io_uring ([`uring`]), and a deterministic simulator
//! ([`sim`]: one thread, one seed, virtual time, a disk that forgets what was not synced). Enum dispatch, so that
//! no type parameter runs through the code above.

pub mod buf;
pub mod channel;
pub mod class;
pub mod durable;
pub mod file;
pub mod local;
pub mod net;
mod random;
pub mod sim;
pub mod uring;
pub mod window;

#[cfg(test)]
mod conformance;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

pub use buf::AlignedBuf;
pub use class::Class;
pub use file::{File, OpenMode};

use crate::types::Timestamp;

/// Handle to the executor this task runs on. Cheap to clone, never leaves its thread.
#[derive(Clone)]
pub enum Rt {
    Uring(uring::Uring),
    Sim(sim::Sim),
}

/// Monotonic time in nanoseconds since an arbitrary start, the same for all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// Zero if `earlier` is in fact later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub fn plus(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

/// Saturates after 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A spawned task. Dropping it cancels the task; `detach` lets it run on.
#[must_use = "dropping a task cancels it"]
pub struct Task<T>(TaskKind<T>);

enum TaskKind<T> {
    Uring(uring::Task<T>),
    Sim(sim::Task<T>),
}

#[derive(Clone, Copy, Debug)]
pub struct DiskSpace {
    pub total_bytes: u64,
    /// Available to us (statvfs `f_bavail`).
    pub available_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    pub len: u64,
}

impl<T: 'static> Task<T> {
    pub fn detach(self) {
        match self.0 {
            TaskKind::Uring(task) => task.detach(),
            TaskKind::Sim(task) => task.detach(),
        }
    }

    /// Stops the task and waits until it is gone.
    pub async fn cancel(self) {
        match self.0 {
            TaskKind::Uring(task) => task.cancel().await,
            TaskKind::Sim(task) => drop(task),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut self.0 {
            TaskKind::Uring(task) => Pin::new(task).poll(cx),
            TaskKind::Sim(task) => Pin::new(task).poll(cx),
        }
    }
}

/// Clock, randomness and tasks.
impl Rt {
    pub fn now(&self) -> Instant {
        match self {
            Rt::Uring(uring) => uring.now(),
            Rt::Sim(sim) => sim.now(),
        }
    }

    pub fn wall_clock(&self) -> Timestamp {
        match self {
            Rt::Uring(uring) => uring.wall_clock(),
            Rt::Sim(sim) => sim.wall_clock(),
        }
    }

    /// Not for secrets.
    pub fn random_u64(&self) -> u64 {
        match self {
            Rt::Uring(uring) => uring.random_u64(),
            Rt::Sim(sim) => sim.random_u64(),
        }
    }

    pub fn spawn<T: 'static>(
        &self,
        class: Class,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        Task(match self {
            Rt::Uring(uring) => TaskKind::Uring(uring.spawn(class, future)),
            Rt::Sim(sim) => TaskKind::Sim(sim.spawn(future)),
        })
    }

    pub async fn sleep(&self, duration: Duration) {
        match self {
            Rt::Uring(uring) => uring.sleep(duration).await,
            Rt::Sim(sim) => sim.sleep(duration).await,
        }
    }

    /// Lets other tasks run; returns at once when nothing else is ready.
    pub async fn yield_now(&self) {
        match self {
            Rt::Uring(uring) => uring.yield_now().await,
            Rt::Sim(_) => futures_lite::future::yield_now().await,
        }
    }

    /// `None` when `duration` passed first; the future is dropped then.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let done = pin!(async { Some(future.await) });
        let late = pin!(async {
            self.sleep(duration).await;
            None
        });
        futures_lite::future::or(done, late).await
    }

    /// Runs blocking or CPU-heavy work off the executor (glommio's blocking pool; inline in the simulator).
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self {
            Rt::Uring(uring) => uring.run_blocking(work).await,
            Rt::Sim(_) => {
                futures_lite::future::yield_now().await;
                work()
            }
        }
    }
}

/// Disk.
impl Rt {
    /// A zeroed buffer fit for direct I/O; `len` is rounded up to [`buf::ALIGNMENT`].
    pub fn alloc(&self, len: usize) -> AlignedBuf {
        let len = buf::align_up(len.max(1));
        AlignedBuf(match self {
            Rt::Uring(uring) => buf::Memory::Uring(uring.alloc(len)),
            Rt::Sim(_) => buf::Memory::Sim(vec![0; len]),
        })
    }

    /// As `alloc`, but zeroed from `len` on only: for who writes all of the first `len` bytes, which are arbitrary before.
    pub fn alloc_to_fill(&self, len: usize) -> AlignedBuf {
        let aligned = buf::align_up(len.max(1));
        let mut buf = AlignedBuf(match self {
            Rt::Uring(uring) => buf::Memory::Uring(uring.alloc_dirty(aligned)),
            // Not zero, so that who relies on zeros is found out.
            Rt::Sim(_) => buf::Memory::Sim(vec![0xA5; aligned]),
        });
        buf.bytes_mut()[len..].fill(0);
        buf
    }

    pub async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        Ok(File(match self {
            Rt::Uring(uring) => file::FileKind::Uring(uring.open(path, mode).await?),
            Rt::Sim(sim) => file::FileKind::Sim(sim.open(path, mode).await?),
        }))
    }

    /// Creates the directory and its parents; durable only after `sync_dir` of each parent.
    pub async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match self {
            Rt::Uring(uring) => uring.create_dir_all(path).await,
            Rt::Sim(sim) => sim.create_dir_all(path).await,
        }
    }

    /// Sorted by name.
    pub async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        match self {
            Rt::Uring(uring) => uring.list_dir(path).await,
            Rt::Sim(sim) => sim.list_dir(path).await,
        }
    }

    /// Durable only after `sync_dir` of the parent. Replaces an existing file.
    pub async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self {
            Rt::Uring(uring) => uring.rename(from, to).await,
            Rt::Sim(sim) => sim.rename(from, to).await,
        }
    }

    /// Durable only after `sync_dir` of the parent. Files that are open stay usable.
    pub async fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self {
            Rt::Uring(uring) => uring.remove_file(path).await,
            Rt::Sim(sim) => sim.remove_file(path).await,
        }
    }

    /// Not atomic: a crash may leave some of what was in it.
    pub async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match self {
            Rt::Uring(uring) => uring.remove_dir_all(path).await,
            Rt::Sim(sim) => sim.remove_dir_all(path).await,
        }
    }

    /// Makes durable which names the directory holds.
    pub async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match self {
            Rt::Uring(uring) => uring.sync_dir(path).await,
            Rt::Sim(sim) => sim.sync_dir(path).await,
        }
    }

    /// The file system that holds the directory.
    pub async fn file_system(&self, dir: &Path) -> io::Result<FileSystem> {
        let file_system = match self {
            Rt::Uring(uring) => FileSystemKind::Uring(uring.file_system(dir).await?),
            Rt::Sim(sim) => FileSystemKind::Sim(sim.file_system(dir).await?),
        };
        Ok(FileSystem(file_system))
    }

    pub async fn exists(&self, path: &Path) -> bool {
        match self {
            Rt::Uring(uring) => uring.exists(path).await,
            Rt::Sim(sim) => sim.exists(path).await,
        }
    }

    /// Whole content of a small file; refuses one larger than `bytes_max` with `InvalidData`.
    pub async fn read_small(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        match self {
            Rt::Uring(uring) => uring.read_small(path, bytes_max).await,
            Rt::Sim(sim) => sim.read_small(path, bytes_max).await,
        }
    }

    pub async fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        match self {
            Rt::Uring(uring) => uring.disk_space(path).await,
            Rt::Sim(sim) => sim.disk_space(path).await,
        }
    }
}

/// Network.
impl Rt {
    pub fn listen(&self, address: SocketAddr) -> io::Result<net::Listener> {
        match self {
            Rt::Uring(uring) => uring.listen(address),
            Rt::Sim(sim) => sim.listen(address),
        }
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<net::Stream> {
        match self {
            Rt::Uring(uring) => uring.connect(address).await,
            Rt::Sim(sim) => sim.connect(address).await,
        }
    }
}

/// A file system, for syncs of many files at once.
pub struct FileSystem(FileSystemKind);

enum FileSystemKind {
    Uring(uring::FileSystem),
    Sim(sim::FileSystem),
}

impl FileSystem {
    /// Makes durable what was written and named on it before: content, lengths and names. What failed since the file system was opened, or
    /// since the last sync through this handle, is an error; it does not say what it struck.
    ///
    /// Not all file systems have the device write its cache out if they find nothing of their own to do, and direct writes may have left that
    /// state. The sync of any one file does; whoever has written directly adds one.
    pub async fn sync(&self) -> io::Result<()> {
        match &self.0 {
            FileSystemKind::Uring(file_system) => file_system.sync().await,
            FileSystemKind::Sim(file_system) => file_system.sync().await,
        }
    }
}

/// A file larger than `read_small` may read.
fn too_large(path: &Path, bytes_max: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} is larger than {bytes_max} bytes", path.display()),
    )
}
