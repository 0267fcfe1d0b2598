//! What the machine and the two sides use while a run goes on, read from /proc once a second.
//!
//! What cannot be read is left out: nothing here ends a run that is under way.

mod cores;
mod disk;
mod process;

use std::{path::Path, time::Instant};

use cores::Cores;
use disk::Counters;
pub use disk::{Disk, folder_written_by};
use process::Process;

use crate::result::run::Sample;

/// Each sample tells what was used since the one before.
pub struct Sampler {
    last: Instant,
    client: Process,
    broker: Option<Process>,
    cores: Option<Cores>,
    disk: Option<(Disk, Counters)>,
}

impl Sampler {
    /// The broker is sampled when it is a process of this host, and the disk that holds `disk` (or is it) when there is one. Both must be there
    /// at the start.
    pub fn new(broker_pid: Option<u32>, disk: Option<&Path>) -> Result<Sampler, String> {
        let counters = |path: &Path| {
            let disk = Disk::of(path)?;
            Some((disk, disk.counters()?))
        };
        let disk = match disk {
            None => None,
            Some(path) => {
                let found = counters(path);
                Some(found.ok_or_else(|| format!("--disk {}: is on no disk", path.display()))?)
            }
        };
        Ok(Sampler {
            last: Instant::now(),
            client: Process::this()?,
            broker: broker_pid.map(Process::of).transpose()?,
            cores: Cores::now(),
            disk,
        })
    }

    /// A broker that is gone has no figures.
    pub fn sample(&mut self) -> Sample {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64().max(1e-3);
        self.last = now;
        let mut sample = Sample {
            client_cores: self.client.used().unwrap_or(0.0) / seconds,
            ..Sample::default()
        };
        if let Some(broker) = &mut self.broker {
            let memory = broker.memory();
            sample.broker_cores = broker.used().map(|used| used / seconds);
            sample.broker_memory_bytes = memory.map(|it| it.resident_bytes);
            sample.broker_memory_peak_bytes = memory.map(|it| it.peak_bytes);
        }
        if let (Some(before), Some(now)) = (&mut self.cores, Cores::now()) {
            sample.cores_busy = now.busy_since(before);
            *before = now;
        }
        if let Some((disk, before)) = &mut self.disk
            && let Some(now) = disk.counters()
        {
            sample.disk = Some(now.since(before, seconds));
            *before = now;
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_what_was_asked_for() {
        let this = std::process::id();
        let mut sampler = Sampler::new(Some(this), None).expect("a sampler");
        let sample = sampler.sample();
        assert!(sample.broker_cores.is_some());
        assert!(sample.broker_memory_peak_bytes.is_some());
        assert!(!sample.cores_busy.is_empty());
        assert!(
            sample
                .cores_busy
                .iter()
                .all(|busy| (0.0..=1.0).contains(busy))
        );
        assert_eq!(sample.disk, None);
        assert!(Sampler::new(Some(u32::MAX), None).is_err());
        assert!(Sampler::new(None, Some(Path::new("/proc"))).is_err());
    }
}
