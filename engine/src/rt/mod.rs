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
pub mod sim;
pub mod uring;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
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

/// Monotonic time in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

/// A spawned task. Dropping it cancels the task; `detach` lets it run on.
pub struct Task<T>(std::marker::PhantomData<T>);

#[derive(Clone, Copy, Debug)]
pub struct DiskSpace {
    pub total_bytes: u64,
    /// Available to us (statvfs `f_bavail`).
    pub available_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    pub len: u64,
}

impl<T: 'static> Task<T> {
    pub fn detach(self) {
        unimplemented!()
    }
    /// Stops the task and waits until it is gone.
    pub async fn cancel(self) {
        unimplemented!()
    }
}

impl<T> Future for Task<T> {
    type Output = T;
    fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<T> {
        unimplemented!()
    }
}

impl Rt {
    pub fn now(&self) -> Instant {
        unimplemented!()
    }
    pub fn wall_clock(&self) -> Timestamp {
        unimplemented!()
    }
    pub fn random_u64(&self) -> u64 {
        unimplemented!()
    }
    pub fn spawn<T: 'static>(
        &self,
        _class: Class,
        _future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        unimplemented!()
    }
    pub async fn sleep(&self, _duration: Duration) {
        unimplemented!()
    }
    /// Lets other tasks run; returns at once when nothing else is ready.
    pub async fn yield_now(&self) {
        unimplemented!()
    }
    /// `None` when `duration` passed first; the future is dropped then.
    pub async fn timeout<T>(
        &self,
        _duration: Duration,
        _future: impl Future<Output = T>,
    ) -> Option<T> {
        unimplemented!()
    }
    /// A zeroed buffer fit for direct I/O; `len` is rounded up to [`buf::ALIGNMENT`].
    pub fn alloc(&self, _len: usize) -> AlignedBuf {
        unimplemented!()
    }

    pub async fn open(&self, _path: &Path, _mode: OpenMode) -> io::Result<File> {
        unimplemented!()
    }
    /// Creates the directory and its parents; durable only after `sync_dir` of each parent.
    pub async fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn list_dir(&self, _path: &Path) -> io::Result<Vec<DirEntry>> {
        unimplemented!()
    }
    /// Durable only after `sync_dir` of the parent. Replaces an existing file.
    pub async fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn remove_file(&self, _path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub async fn exists(&self, _path: &Path) -> bool {
        unimplemented!()
    }
    /// Whole content of a small file; refuses one larger than `bytes_max`.
    pub async fn read_small(&self, _path: &Path, _bytes_max: usize) -> io::Result<Vec<u8>> {
        unimplemented!()
    }
    pub async fn disk_space(&self, _path: &Path) -> io::Result<DiskSpace> {
        unimplemented!()
    }

    /// Runs blocking or CPU-heavy work off the executor (glommio's blocking pool; inline in the simulator).
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        _work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        unimplemented!()
    }

    pub fn listen(&self, _address: std::net::SocketAddr) -> io::Result<net::Listener> {
        unimplemented!()
    }
    pub async fn connect(&self, _address: std::net::SocketAddr) -> io::Result<net::Stream> {
        unimplemented!()
    }
}

#[allow(dead_code)]
fn _paths(_: PathBuf) {}
