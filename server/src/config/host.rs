//! What the configuration needs to know of the machine: how much memory this process may use.

use forebay_tune::probe;

/// Facts about the host, gathered once before any executor exists, so that the check of a configuration is pure.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// The smaller of physical memory and the limit of our cgroup.
    pub memory_bytes: u64,
}

impl Host {
    /// Where nothing can be read, assume a small machine rather than a large one.
    const MEMORY_BYTES_ASSUMED: u64 = 1 << 30;

    pub fn probe() -> Host {
        Host {
            memory_bytes: probe::memory_bytes().unwrap_or(Host::MEMORY_BYTES_ASSUMED),
        }
    }
}
