//! A file system of one test alone, on a loop device, that can lose its power, freeze, run full and fail.
//!
//! The image lies below the system's temporary directory. Everything is taken down when the [`Disk`] is dropped, on a panic too; what a
//! killed run left behind is taken down by the next one ([`leftovers`]). Disks share nothing, so tests may use them side by side.
//!
//! **What a power loss here is.** `FS_IOC_SHUTDOWN` stops the file system between two of its own transactions: dirty pages, new file
//! sizes, names and extents that were not synced are gone, and the next mount replays the file system's journal. So a sync that
//! is missing behind a create, a rename, or a write to a file that grows is found. **What it is not:** the image outlives it. A direct write
//! over blocks that were written before is in the image as soon as it completes, synced or not, and no write is torn. A missing flush of
//! the *device* is therefore not found here; the simulator loses, tears and reorders such writes.
//!
//! Needs root, loop devices, and the tools of e2fsprogs, xfsprogs and util-linux; without them a test fails and says so.

mod leftovers;
mod system;
mod throttle;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use throttle::Throttle;

use system::{LoopDevice, MountKind};

/// A killed broker's rings keep its files open for a moment after the process is gone.
const RELEASE_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// `mkfs` does not discard, so that it writes nothing to an image but what it must.
    fn format(self, device: &Path) {
        let quiet_and_no_discard: &[&str] = match self {
            FileSystem::Ext4 => &["-q", "-E", "nodiscard,lazy_itable_init=0"],
            FileSystem::Xfs => &["-q", "-K"],
        };
        system::run(
            &format!("mkfs.{}", self.name()),
            quiet_and_no_discard,
            &[device],
        );
    }

    fn mount_options(self) -> &'static str {
        match self {
            // As distributions mount it: after an error it takes no more writes.
            FileSystem::Ext4 => "errors=remount-ro",
            FileSystem::Xfs => "",
        }
    }
}

/// What of the file system's own journal reaches the disk before the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerLoss {
    /// Nothing more: every transaction that was not synced is gone.
    Sudden,
    /// All of it: names and sizes are there, data that was only in the page cache is not.
    AfterJournalFlush,
}

/// What the image lies on.
enum Backing {
    /// A file below the temporary directory.
    File,
    /// A tmpfs, whose size can be changed under way.
    Tmpfs { path: PathBuf, bytes: u64 },
}

pub struct Disk {
    dir: PathBuf,
    file_system: FileSystem,
    backing: Backing,
    device: Option<LoopDevice>,
    mounted: bool,
}

impl Disk {
    /// A mounted, empty file system of this size. Space is taken only as it is written.
    pub fn new(name: &str, file_system: FileSystem, bytes: u64) -> Disk {
        let dir = new_dir(name);
        let disk = Disk {
            dir,
            file_system,
            backing: Backing::File,
            device: None,
            mounted: false,
        };
        let image = disk.dir.join("image");
        disk.format(&image, bytes)
    }

    /// A mounted, empty file system whose image lies in memory, on a tmpfs of its own, so that writes can be made to fail
    /// ([`Disk::fail_new_blocks`]).
    pub fn on_tmpfs(name: &str, file_system: FileSystem, bytes: u64) -> Disk {
        let dir = new_dir(name);
        let path = dir.join("backing");
        fs::create_dir(&path).expect("the disk's own directory can be written");
        // A little more than the image for the tmpfs's own needs.
        let tmpfs_bytes = bytes + (16 << 20);
        let disk = Disk {
            dir,
            file_system,
            backing: Backing::Tmpfs {
                path: path.clone(),
                bytes: tmpfs_bytes,
            },
            device: None,
            mounted: false,
        };
        let options = format!("size={tmpfs_bytes}");
        system::mount(Path::new("tmpfs"), &path, "tmpfs", MountKind::New, &options)
            .unwrap_or_else(|error| panic!("{NEEDS}: mount a tmpfs: {error}"));
        let image = path.join("image");
        // Every block is there to begin with; what the file system does not use is given back by `fail_new_blocks`.
        write_zeros(&image, bytes);
        disk.format(&image, bytes)
    }

    fn format(mut self, image: &Path, bytes: u64) -> Disk {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(image)
            .expect("the disk's own directory can be written");
        file.set_len(bytes).expect("the image can be made so long");
        drop(file);
        let device = LoopDevice::attach(image);
        self.file_system.format(device.path());
        self.device = Some(device);
        fs::create_dir(self.path()).expect("the disk's own directory can be written");
        self.mount();
        self
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.join("mounted")
    }

    pub fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Major and minor number of the device, as cgroups want them.
    pub fn device_number(&self) -> (u32, u32) {
        self.device().number()
    }

    /// Bytes that an ordinary user may still write.
    pub fn free_bytes(&self) -> u64 {
        system::free_bytes(&self.path())
    }

    /// Mounts again what was unmounted; the file system replays its journal.
    pub fn mount(&mut self) {
        assert!(!self.mounted, "mounted once");
        let device = self.device().path().to_path_buf();
        let options = self.file_system.mount_options();
        system::mount(
            &device,
            &self.path(),
            self.file_system.name(),
            MountKind::New,
            options,
        )
        .unwrap_or_else(|error| {
            panic!(
                "{NEEDS}: mount {} as {}: {error}",
                device.display(),
                self.file_system.name()
            )
        });
        self.mounted = true;
    }

    /// Waits until the last process that had a file open has let go of it.
    pub fn unmount(&mut self) {
        assert!(self.mounted, "unmounted once");
        let deadline = Instant::now() + RELEASE_TIME_MAX;
        while let Err(error) = system::unmount(&self.path()) {
            let busy = error.raw_os_error() == Some(libc::EBUSY);
            assert!(
                busy && Instant::now() < deadline,
                "unmount {}: {error}",
                self.path().display()
            );
            thread::sleep(Duration::from_millis(1));
        }
        self.mounted = false;
    }

    /// From now on nothing reaches the disk; every operation fails. Stop the processes on it first: a sync at the very moment may
    /// be told a success that is none. What follows is: kill the broker, then [`Disk::restore_power`].
    pub fn lose_power(&self, how: PowerLoss) {
        system::shut_down(&self.path(), how)
            .unwrap_or_else(|error| panic!("{NEEDS}: FS_IOC_SHUTDOWN: {error}"));
    }

    /// After the processes on it are gone: unmounts what is left, and mounts what the disk has kept.
    pub fn restore_power(&mut self) {
        self.unmount();
        self.mount();
    }

    /// Writes wait, and whoever asked for them, until the guard is dropped. Reads go on.
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.path())
    }

    /// ext4: as after an error of the disk, the file system makes itself read-only and gives up its journal. Writes and syncs fail, reads go on.
    pub fn fail_all_writes(&self) {
        assert_eq!(
            self.file_system,
            FileSystem::Ext4,
            "others have no such switch"
        );
        let name = self
            .device()
            .path()
            .file_name()
            .expect("a device has a name");
        let switch = Path::new("/sys/fs/ext4")
            .join(name)
            .join("trigger_fs_error");
        fs::write(&switch, "1")
            .unwrap_or_else(|error| panic!("{NEEDS}: {}: {error}", switch.display()));
    }

    /// After [`Disk::fail_all_writes`], and with nobody on it: what an administrator does.
    pub fn check_and_mount(&mut self) {
        self.unmount();
        // 1 means that errors were corrected.
        system::run_to(&[0, 1], "e2fsck", &["-f", "-p"], &[self.device().path()]);
        self.mount();
    }

    /// Writes to blocks that the file system does not use at this moment fail with an I/O error; whatever has a block can be
    /// overwritten, read and synced. Only for a disk on a tmpfs.
    pub fn fail_new_blocks(&self) {
        let path = self.backing_path();
        // Unused blocks become holes in the image, and the tmpfs has no room to fill them.
        system::run("fstrim", &[], &[&self.path()]);
        let used = system::used_bytes(path);
        self.resize_backing(used);
    }

    /// Writes succeed again.
    pub fn mend(&self) {
        let Backing::Tmpfs { bytes, .. } = &self.backing else {
            panic!("only a disk on a tmpfs fails like this");
        };
        self.resize_backing(*bytes);
    }

    fn resize_backing(&self, bytes: u64) {
        let path = self.backing_path();
        let options = format!("size={bytes}");
        system::mount(
            Path::new("tmpfs"),
            path,
            "tmpfs",
            MountKind::Again,
            &options,
        )
        .unwrap_or_else(|error| panic!("{NEEDS}: resize a tmpfs to {bytes}: {error}"));
    }

    fn backing_path(&self) -> &Path {
        match &self.backing {
            Backing::Tmpfs { path, .. } => path,
            Backing::File => panic!("only a disk on a tmpfs fails like this"),
        }
    }

    fn device(&self) -> &LoopDevice {
        self.device.as_ref().expect("attached when it was made")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Never a second panic; whatever resists is left to the next run.
        let deadline = Instant::now() + RELEASE_TIME_MAX;
        while self.mounted && Instant::now() < deadline {
            self.mounted = system::unmount(&self.path()).is_err();
            thread::sleep(Duration::from_millis(1));
        }
        drop(self.device.take());
        leftovers::remove(&self.dir);
    }
}

/// A frozen file system. Thawed when dropped.
#[must_use]
pub struct Frozen(PathBuf);

impl Frozen {
    fn new(path: PathBuf) -> Frozen {
        system::freeze(&path).unwrap_or_else(|error| panic!("{NEEDS}: FIFREEZE: {error}"));
        Frozen(path)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = system::thaw(&self.0) {
            eprintln!("cannot thaw {}: {error}", self.0.display());
        }
    }
}

/// Begins every message about what the machine does not give.
const NEEDS: &str = "this test makes file systems on loop devices: it needs root, loop devices, e2fsprogs, xfsprogs and util-linux";

fn new_dir(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEEP: Once = Once::new();
    SWEEP.call_once(leftovers::sweep);
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = leftovers::dir_of(std::process::id(), unique, name);
    fs::create_dir(&dir).expect("the temporary directory can be written");
    dir
}

fn write_zeros(path: &Path, bytes: u64) {
    let mut file = fs::File::create(path).expect("the disk's own directory can be written");
    let copied = io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file);
    assert_eq!(copied.expect("the tmpfs has room"), bytes);
}

#[cfg(test)]
mod tests;
