//! Disk operations in virtual time: each takes a seeded latency and may fail as the faults say.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Sim,
    disk::{FileRef, Survives},
    faults::Fate,
};
use crate::rt::{
    DirEntry, DiskSpace, OpenMode,
    buf::{AlignedBuf, Memory},
    too_large,
};

pub(in crate::rt) struct FileSystem(Sim);

impl FileSystem {
    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        self.0.sync_all().await
    }
}

const LATENCY_MIN: Duration = Duration::from_micros(20);
const LATENCY_SPREAD_NANOS: u64 = 500_000;

impl Sim {
    pub(in crate::rt) async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<File> {
        self.disk_latency("open", 0).await;
        self.fail_open()
            .inspect_err(|error| self.tell("open", path, error))?;
        if mode == OpenMode::Create {
            self.fail_space(0)?;
            self.tell("create", path, ());
        }
        let disk = self.0.disk.borrow();
        let node = match mode {
            OpenMode::Create => disk.create_file(path)?,
            OpenMode::Read | OpenMode::ReadWrite | OpenMode::ReadWriteDurable => disk.file(path)?,
        };
        self.0.files_open.set(self.0.files_open.get() + 1);
        Ok(File {
            sim: self.clone(),
            node,
            path: path.to_owned(),
            mode,
        })
    }

    pub(in crate::rt) async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk_latency("create_dir", 0).await;
        self.fail_name()?;
        self.0.disk.borrow().create_dir_all(path)
    }

    pub(in crate::rt) async fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk_latency("list", 0).await;
        self.fail_name()?;
        self.0.disk.borrow().list(path)
    }

    pub(in crate::rt) async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk_latency("rename", 0).await;
        let failed = self.fail_name();
        self.tell("rename", from, (to, &failed));
        failed?;
        self.0.disk.borrow().rename(from, to)
    }

    pub(in crate::rt) async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk_latency("remove", 0).await;
        let failed = self.fail_name();
        self.tell("remove", path, &failed);
        failed?;
        self.0.disk.borrow().remove_file(path)
    }

    pub(in crate::rt) async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk_latency("remove_dir", 0).await;
        let failed = self.fail_name();
        self.tell("remove", path, &failed);
        failed?;
        self.0.disk.borrow().remove_dir_all(path)
    }

    pub(in crate::rt) async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let sync = self.0.disk.borrow().start_sync_dir(path)?;
        self.disk_latency("sync_dir", 0).await;
        let failed = self.fail_sync();
        self.tell("sync", path, &failed);
        failed?;
        sync.finish();
        Ok(())
    }

    pub(in crate::rt) async fn file_system(&self, dir: &Path) -> io::Result<FileSystem> {
        match self.exists(dir).await {
            true => Ok(FileSystem(self.clone())),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    async fn sync_all(&self) -> io::Result<()> {
        let sync = self.0.disk.borrow().start_sync_all();
        self.disk_latency("sync_all", 0).await;
        let outcome = self.fail_sync();
        match outcome {
            Ok(()) => sync.finish(),
            Err(_) => sync.fail(&self.0.random),
        }
        outcome
    }

    pub(in crate::rt) async fn exists(&self, path: &Path) -> bool {
        self.disk_latency("exists", 0).await;
        self.0.disk.borrow().exists(path)
    }

    pub(in crate::rt) async fn read_small(
        &self,
        path: &Path,
        bytes_max: usize,
    ) -> io::Result<Vec<u8>> {
        self.disk_latency("read_small", 0).await;
        self.fail_read()?;
        let file = self.0.disk.borrow().file(path)?;
        let content = file.borrow().read(0, bytes_max.saturating_add(1));
        if content.len() > bytes_max {
            return Err(too_large(path, bytes_max));
        }
        Ok(self.falsify_read(&file, path, 0, content).into())
    }

    pub(in crate::rt) async fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.disk_latency("space", 0).await;
        let disk = self.0.disk.borrow();
        if !disk.exists(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(disk.space())
    }

    /// Independent for each operation, so that two at a time may end in either order.
    async fn disk_latency(&self, what: &'static str, position: u64) {
        let spread = Duration::from_nanos(self.0.random.below(LATENCY_SPREAD_NANOS));
        self.sleep(LATENCY_MIN + spread + self.dawdle()).await;
        self.record(what, position);
    }
}

pub(in crate::rt) struct File {
    sim: Sim,
    node: FileRef,
    path: PathBuf,
    mode: OpenMode,
}

impl File {
    pub(in crate::rt) async fn write_at(&self, buf: AlignedBuf, position: u64) -> io::Result<()> {
        let Memory::Sim(bytes) = buf.0 else {
            panic!("a buffer of the other back end in a file of the simulator");
        };
        let survives = self.writable()?;
        let mut write = InFlight::start(self, position, bytes.into());
        self.sim.disk_latency("write", position).await;
        let failed = self.sim.fail_write(write.growth());
        let place = (position, write.end, survives);
        self.sim.tell("write", &self.path, (place, &failed));
        // Dropping the write in flight tears it.
        failed?;
        match self.sim.fate_of_write() {
            Fate::Done => write.finish(survives),
            fate => self.sim.falsify(fate, &self.path, write.lose(), survives),
        }
        Ok(())
    }

    pub(in crate::rt) async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        self.sim.disk_latency("read", position).await;
        let failed = self.sim.fail_read();
        self.sim.tell("read", &self.path, (position, len, &failed));
        failed?;
        let bytes = self.node.borrow().read(position, len);
        Ok(self
            .sim
            .falsify_read(&self.node, &self.path, position, bytes))
    }

    pub(in crate::rt) async fn sync(&self) -> io::Result<()> {
        let upto = self.node.borrow().start_sync();
        self.sim.disk_latency("sync", upto).await;
        let outcome = match self.node.borrow_mut().take_owed_error() {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => self.sim.fail_sync(),
        };
        self.sim.tell("sync", &self.path, &outcome);
        let mut node = self.node.borrow_mut();
        match outcome {
            Ok(()) => node.finish_sync(upto),
            Err(_) => node.fail_sync(upto, &self.sim.0.random),
        }
        outcome
    }

    pub(in crate::rt) async fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.sim.disk_latency("truncate", len).await;
        let growth = len.saturating_sub(self.node.borrow().len());
        let failed = self.sim.fail_write(growth);
        self.sim.tell("truncate", &self.path, (len, &failed));
        failed?;
        self.node.borrow_mut().set_len(len);
        Ok(())
    }

    pub(in crate::rt) async fn allocate(&self, len: u64) -> io::Result<()> {
        self.writable()?;
        self.sim.disk_latency("allocate", len).await;
        // Only looked for: what is reserved here is not counted until it is written.
        let growth = len.saturating_sub(self.node.borrow().len());
        self.sim.fail_write(growth)
    }

    pub(in crate::rt) async fn len(&self) -> io::Result<u64> {
        self.sim.disk_latency("len", 0).await;
        Ok(self.node.borrow().len())
    }

    pub(in crate::rt) async fn close(self) -> io::Result<()> {
        self.sim.disk_latency("close", 0).await;
        Ok(())
    }

    pub(in crate::rt) fn path(&self) -> &Path {
        &self.path
    }

    fn writable(&self) -> io::Result<Survives> {
        match self.mode {
            OpenMode::Read => Err(io::Error::from_raw_os_error(libc::EBADF)),
            OpenMode::ReadWrite | OpenMode::Create => Ok(Survives::Cached),
            OpenMode::ReadWriteDurable => Ok(Survives::Durably),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let open = &self.sim.0.files_open;
        open.set(open.get() - 1);
    }
}

/// A write between its start and its end; torn if it is dropped unfinished.
struct InFlight<'a> {
    file: &'a File,
    write: u64,
    /// First position after it.
    end: u64,
    finished: bool,
}

impl<'a> InFlight<'a> {
    fn start(file: &'a File, position: u64, bytes: Bytes) -> InFlight<'a> {
        InFlight {
            file,
            end: position + bytes.len() as u64,
            write: file.node.borrow_mut().start_write(position, bytes),
            finished: false,
        }
    }

    fn growth(&self) -> u64 {
        self.end.saturating_sub(self.file.node.borrow().len())
    }

    fn lose(&mut self) -> (u64, Bytes) {
        self.finished = true;
        self.file.node.borrow_mut().lose_write(self.write)
    }

    fn finish(&mut self, survives: Survives) {
        self.finished = true;
        self.file
            .node
            .borrow_mut()
            .finish_write(self.write, survives);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let random = &self.file.sim.0.random;
            self.file.node.borrow_mut().tear_write(self.write, random);
        }
    }
}
