//! A limit on how fast one process may write to a disk, by a control group of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::Disk;

const EMPTY_TIME_MAX: Duration = Duration::from_secs(10);

/// Lifted when dropped.
#[must_use]
pub struct Throttle {
    group: PathBuf,
    /// Where the process came from, and goes back to.
    parent: PathBuf,
    pid: u32,
}

impl Throttle {
    /// Works for direct writes, which the kernel counts for the process that asks for them. Puts the process into the root group afterwards.
    pub fn writes(disk: &Disk, pid: u32, bytes_per_second: u64) -> Throttle {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let (major, minor) = disk.device_number();
        let version_1 = Path::new("/sys/fs/cgroup/blkio");
        let (parent, file, limit) = match version_1.exists() {
            true => (
                version_1,
                "blkio.throttle.write_bps_device",
                format!("{major}:{minor} {bytes_per_second}"),
            ),
            false => (
                Path::new("/sys/fs/cgroup"),
                "io.max",
                format!("{major}:{minor} wbps={bytes_per_second}"),
            ),
        };
        let group = parent.join(format!("forebay-{}-{unique}", std::process::id()));
        let throttle = Throttle {
            group,
            parent: parent.to_path_buf(),
            pid,
        };
        let set = throttle.set(file, &limit);
        set.unwrap_or_else(|error| {
            panic!(
                "this test needs root and the block I/O controller of cgroups: {}: {error}",
                throttle.group.display()
            )
        });
        throttle
    }

    fn set(&self, file: &str, limit: &str) -> io::Result<()> {
        fs::create_dir(&self.group)?;
        let switch = self.parent.join("cgroup.subtree_control");
        if switch.exists() {
            fs::write(switch, "+io")?;
        }
        fs::write(self.group.join(file), limit)?;
        fs::write(self.group.join("cgroup.procs"), self.pid.to_string())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // Fails when the process has ended, which is as good.
        let _ = fs::write(self.parent.join("cgroup.procs"), self.pid.to_string());
        let deadline = Instant::now() + EMPTY_TIME_MAX;
        while let Err(error) = fs::remove_dir(&self.group) {
            if Instant::now() > deadline {
                eprintln!("left behind: {}: {error}", self.group.display());
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
