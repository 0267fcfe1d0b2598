//! What an operation costs besides bytes: CPU time, allocations, entries of the io_uring rings, system calls, requests of the disk.

use std::{
    alloc::{GlobalAlloc, Layout},
    collections::HashMap,
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use mimalloc::MiMalloc;

/// The allocator of this program, which counts.
pub struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

#[allow(unsafe_code)]
// SAFETY: all of it is done by mimalloc, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }
}

/// What happened between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub allocations: u64,
    pub allocated_bytes: u64,
    /// Submitted to all io_uring rings of the process.
    pub ring_entries: u64,
    /// Of the thread that counted. `None` where the kernel does not let us count them.
    pub syscalls: Option<u64>,
}

/// Counts from its creation on. To be created and read on the shard's thread.
pub struct Counters {
    allocations: u64,
    allocated_bytes: u64,
    ring_tails: HashMap<String, u32>,
    syscalls: Option<fs::File>,
}

impl Counters {
    pub fn start() -> Counters {
        let ring_tails = ring_tails();
        let syscalls = count_syscalls();
        Counters {
            allocations: ALLOCATIONS.load(Ordering::Relaxed),
            allocated_bytes: ALLOCATED_BYTES.load(Ordering::Relaxed),
            ring_tails,
            syscalls,
        }
    }

    pub fn read(&mut self) -> Counts {
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - self.allocations;
        let allocated_bytes = ALLOCATED_BYTES.load(Ordering::Relaxed) - self.allocated_bytes;
        let syscalls = self.syscalls.as_mut().and_then(|counter| {
            let mut value = [0; 8];
            counter.read_exact(&mut value).ok()?;
            Some(u64::from_ne_bytes(value))
        });
        let since = |(ring, tail): (String, u32)| {
            let before = self.ring_tails.get(&ring).copied().unwrap_or(0);
            u64::from(tail.wrapping_sub(before))
        };
        Counts {
            allocations,
            allocated_bytes,
            ring_entries: ring_tails().into_iter().map(since).sum(),
            syscalls,
        }
    }
}

/// User and system time of this process so far.
#[allow(unsafe_code)]
pub fn cpu_seconds() -> f64 {
    // SAFETY: all-zero bytes are a valid rusage (integers only), and getrusage writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Reads that the disk under `path` has completed since the machine started, as the kernel counts them, of all programs together.
/// `None` where there is no such disk.
pub fn device_reads(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_whitespace().next()?.parse().ok()
}

/// The tail of each ring's submission queue, which counts all entries ever submitted.
fn ring_tails() -> HashMap<String, u32> {
    let Ok(listed) = fs::read_dir("/proc/self/fdinfo") else {
        return HashMap::new();
    };
    let tail_of = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("SqTail:"))?;
        let tail = line.trim().parse().ok()?;
        Some((path.file_name()?.to_str()?.to_string(), tail))
    };
    let paths = listed.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter_map(tail_of).collect()
}

/// A counter of the system calls of this thread.
#[allow(unsafe_code)]
fn count_syscalls() -> Option<fs::File> {
    use std::os::fd::FromRawFd;

    const PERF_TYPE_TRACEPOINT: u32 = 2;
    /// The first version of `perf_event_attr`, which every kernel takes.
    const ATTRIBUTES_BYTES: u32 = 64;
    let id = fs::read_to_string("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id").ok()?;
    let id: u64 = id.trim().parse().ok()?;
    let mut attributes = [0_u64; ATTRIBUTES_BYTES as usize / 8];
    // The layout is that of the kernel's ABI: type and size, then the tracepoint.
    let head = [
        PERF_TYPE_TRACEPOINT.to_ne_bytes(),
        ATTRIBUTES_BYTES.to_ne_bytes(),
    ];
    attributes[0] = u64::from_ne_bytes(head.concat().try_into().expect("eight bytes"));
    attributes[1] = id;
    let (this_thread, any_cpu, no_group, no_flags) = (0, -1, -1, 0);
    // SAFETY: the kernel reads as many bytes as the attributes say they have.
    let counter = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            this_thread,
            any_cpu,
            no_group,
            no_flags,
        )
    };
    let counter = i32::try_from(counter).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    Some(unsafe { fs::File::from_raw_fd(counter) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_and_system_calls_are_counted() {
        let mut counters = Counters::start();
        let memory = std::hint::black_box(vec![0_u8; 12_345]);
        let _ = std::fs::read_to_string("/proc/self/statm");
        let counts = counters.read();
        drop(memory);
        assert!(counts.allocations >= 1);
        assert!(counts.allocated_bytes >= 12_345);
        // The kernel may forbid it.
        assert!(
            counts
                .syscalls
                .is_none_or(|calls| (3..100).contains(&calls))
        );
    }
}
