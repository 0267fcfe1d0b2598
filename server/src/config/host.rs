//! What the configuration needs to know of the machine: how much memory this process may use.

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
        let physical = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| physical_bytes(&text));
        let limits = cgroup_limit_files().into_iter().filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            // "max" is no number: no limit.
            text.trim().parse::<u64>().ok()
        });
        let memory_bytes = limits
            .chain(physical)
            .min()
            .unwrap_or(Host::MEMORY_BYTES_ASSUMED);
        Host { memory_bytes }
    }
}

fn physical_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The limit files of our cgroup (version 2) and of all above it, and that of version 1.
fn cgroup_limit_files() -> Vec<String> {
    let mut files = vec!["/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()];
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) {
        let mut path = path.trim().trim_end_matches('/').to_owned();
        loop {
            files.push(format!("/sys/fs/cgroup{path}/memory.max"));
            match path.rfind('/') {
                Some(parent) => path.truncate(parent),
                None => break,
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn physical_memory_is_read_from_meminfo() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(physical_bytes(text), expected);
        check(
            "MemTotal:       24571 kB\nMemFree: 1 kB\n",
            Some(24571 * 1024),
        );
        check("MemFree: 1 kB\n", None);
        check("MemTotal: many kB\n", None);
        check("", None);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(Host::probe().memory_bytes >= 64 << 20);
    }
}
