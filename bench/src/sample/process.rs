//! CPU time and memory of a process, from /proc (proc_pid_stat(5), proc_pid_status(5), proc_pid_schedstat(5)).
//!
//! The kernel gives the time of a whole process in ticks of 10 ms, and that of each thread in nanoseconds. The threads are summed, and ticks
//! decide when threads ended in between or are too many.

use std::{collections::HashMap, fs};

use rustix::time::{ClockId, clock_gettime};

/// Threads that are looked at one by one.
const THREADS_MAX: usize = 1_024;
/// Of `USER_HZ`, which is 100 on every architecture that is built for.
const TICK_SECONDS: f64 = 0.01;

/// A process that is looked at time and again.
pub struct Process {
    pid: u32,
    started: u64,
    seconds: f64,
    threads: HashMap<u32, u64>,
    is_this: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub resident_bytes: u64,
    /// The most that it was since the process began.
    pub peak_bytes: u64,
}

impl Process {
    pub fn this() -> Result<Process, String> {
        Process::of(std::process::id())
    }

    pub fn of(pid: u32) -> Result<Process, String> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let stat = parse_stat(&text).ok_or_else(|| format!("{path} has an odd form"))?;
        let mut process = Process {
            pid,
            started: stat.started,
            seconds: stat.seconds,
            threads: threads(pid),
            is_this: pid == std::process::id(),
        };
        if process.is_this {
            process.seconds = own_seconds();
        }
        Ok(process)
    }

    /// CPU seconds of all threads since the last time; None when the process is gone, also when its number went to another.
    pub fn used(&mut self) -> Option<f64> {
        if self.is_this {
            let before = std::mem::replace(&mut self.seconds, own_seconds());
            return Some(self.seconds - before);
        }
        let stat = parse_stat(&self.read("stat")?)?;
        if stat.started != self.started {
            return None;
        }
        let ticks = stat.seconds - std::mem::replace(&mut self.seconds, stat.seconds);
        let before = std::mem::replace(&mut self.threads, threads(self.pid));
        Some(used(&before, &self.threads, ticks))
    }

    pub fn memory(&self) -> Option<Memory> {
        parse_status(&self.read("status")?)
    }

    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok()
    }
}

/// Of this process, to the nanosecond.
fn own_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Nanoseconds of each thread; none at all when there are too many.
fn threads(pid: u32) -> HashMap<u32, u64> {
    let mut threads = HashMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return threads;
    };
    for task in tasks.flatten() {
        if threads.len() == THREADS_MAX {
            return HashMap::new();
        }
        let number = task.file_name().to_str().and_then(|it| it.parse().ok());
        let text = fs::read_to_string(task.path().join("schedstat"));
        if let (Some(number), Ok(text)) = (number, text)
            && let Some(nanos) = parse_schedstat(&text)
        {
            threads.insert(number, nanos);
        }
    }
    threads
}

/// Of the threads, unless the whole process used more than rounding explains.
fn used(before: &HashMap<u32, u64>, now: &HashMap<u32, u64>, ticks: f64) -> f64 {
    let nanos: u64 = now
        .iter()
        .map(|(thread, nanos)| nanos.saturating_sub(before.get(thread).copied().unwrap_or(0)))
        .sum();
    let fine = nanos as f64 / 1e9;
    // User and system time are rounded by themselves, at both ends.
    let is_whole = !before.is_empty() && !now.is_empty() && fine >= ticks - 2.0 * TICK_SECONDS;
    if is_whole { fine } else { ticks.max(0.0) }
}

struct Stat {
    seconds: f64,
    /// Ticks since the machine started: with its number it tells a process from all others.
    started: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is a name in parentheses that may hold spaces and parentheses; utime, stime and starttime are the 14th, 15th and 22nd.
    let (_, after_name) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)?.saturating_add(field(15)?);
    Some(Stat {
        seconds: ticks as f64 * TICK_SECONDS,
        started: field(22)?,
    })
}

/// Time on a core, time waiting for one, time slices.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn parse_status(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let resident_bytes = bytes("VmRSS:")?;
    Some(Memory {
        resident_bytes,
        peak_bytes: bytes("VmHWM:").unwrap_or(resident_bytes),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let mut process = Process::this().expect("a process");
        let memory = process.memory().expect("memory");
        assert!(memory.resident_bytes > 100_000);
        assert!(memory.peak_bytes >= memory.resident_bytes / 2);
        let (mut sum, mut cpu) = (0_u64, 0.0);
        while cpu < 0.05 {
            sum = sum.wrapping_add((0..100_000_u64).sum());
            cpu += process.used().expect("a process");
        }
        assert!(sum > 0);
        assert!(Process::of(u32::MAX).is_err());
    }

    #[test]
    fn a_process_that_is_gone_has_no_figures() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .spawn()
            .expect("cat");
        let mut process = Process::of(child.id()).expect("a process");
        assert!(process.used().is_some_and(|used| used >= 0.0));
        assert!(process.memory().is_some());
        drop(child.stdin.take());
        child.wait().expect("ended");
        assert_eq!((process.used(), process.memory()), (None, None));
    }

    #[test]
    fn threads_are_exact_until_one_ends() {
        let threads = |nanos: &[(u32, u64)]| nanos.iter().copied().collect::<HashMap<_, _>>();
        let check = |before: &[(u32, u64)], now: &[(u32, u64)], ticks: f64, expected: f64| {
            assert_eq!(used(&threads(before), &threads(now), ticks), expected);
        };
        check(&[(1, 5)], &[(1, 1_000_005)], 0.0, 0.001);
        check(&[(1, 0)], &[(1, 500_000_000), (2, 500_000_000)], 0.99, 1.0);
        // The second thread ended after it had worked, or nobody may look at threads.
        check(&[(1, 0), (2, 0)], &[(1, 1_000_000)], 0.5, 0.5);
        check(&[], &[(1, 9_000_000_000)], 0.5, 0.5);
        check(&[], &[], -0.01, 0.0);
    }

    #[test]
    fn odd_texts_have_no_figures() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 4711 1 1";
        let parsed = parse_stat(stat).expect("stat");
        assert_eq!((parsed.seconds, parsed.started), (2.0, 4711));
        for odd in ["", "7 (a", "7 (a) S 1 2", &stat.replace("150", "-1")] {
            assert!(parse_stat(odd).is_none(), "{odd}");
        }
        assert_eq!(parse_schedstat("123 4 5\n"), Some(123));
        for odd in ["", "x 1 2", "-1 2 3"] {
            assert_eq!(parse_schedstat(odd), None, "{odd}");
        }
        let expected = Memory {
            resident_bytes: 2048,
            peak_bytes: 4096,
        };
        assert_eq!(
            parse_status("Name:\tx\nVmHWM:\t   4 kB\nVmRSS:\t 2 kB\n"),
            Some(expected)
        );
        // A process that ended and was not waited for has no memory; a peak may be missing.
        assert_eq!(parse_status("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert!(parse_status("VmRSS: 2 kB").is_some_and(|it| it.peak_bytes == 2048));
        for odd in ["VmRSS: 2", "VmRSS: kB", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(parse_status(odd), None, "{odd}");
        }
        assert_eq!(parse_status(&format!("VmRSS: {} kB", u64::MAX)), None);
    }
}
