//! CPU time and memory of a process, from /proc (proc_pid_stat(5), proc_pid_status(5)).

use std::fs;

pub struct Process {
    pid: u32,
}

impl Process {
    pub fn of(pid: u32) -> Process {
        Process { pid }
    }

    /// User and system time so far. The kernel counts in ticks of 10 ms.
    pub fn cpu_seconds(&self) -> Result<f64, String> {
        let stat = self.read("stat")?;
        // The second field is a name in parentheses that may hold spaces; utime and stime are the 14th and 15th.
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        let mut fields = after_name.split(' ').skip(11).map(str::parse::<f64>);
        match (fields.next(), fields.next()) {
            (Some(Ok(user)), Some(Ok(system))) => Ok((user + system) / 100.0),
            _ => Err(format!("/proc/{}/stat has an odd form", self.pid)),
        }
    }

    pub fn memory_bytes(&self) -> Result<u64, String> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        let kib = kib.and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| format!("/proc/{}/status has no VmRSS", self.pid))
    }

    fn read(&self, file: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let process = Process::of(std::process::id());
        assert!(process.memory_bytes().expect("VmRSS") > 100_000);
        let before = process.cpu_seconds().expect("stat");
        let mut sum = 0_u64;
        while process.cpu_seconds().expect("stat") < before + 0.05 {
            sum = sum.wrapping_add((0..100_000_u64).sum());
        }
        assert!(sum > 0);
        assert!(Process::of(u32::MAX).cpu_seconds().is_err());
    }
}
