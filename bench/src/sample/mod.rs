//! What the machine and the two sides use while a run goes on, read from /proc once a second.

mod process;

use std::time::Instant;

pub use process::Process;

use crate::result::run::Sample;

/// Each sample tells what was used since the one before.
pub struct Sampler {
    last: Instant,
    client: Process,
    client_cpu: f64,
    broker: Option<(Process, f64)>,
}

impl Sampler {
    /// The broker is sampled when it is a process of this host.
    pub fn new(broker_pid: Option<u32>) -> Result<Sampler, String> {
        let client = Process::of(std::process::id());
        let broker = broker_pid.map(Process::of);
        let broker = match broker {
            None => None,
            Some(process) => {
                let cpu = process.cpu_seconds()?;
                Some((process, cpu))
            }
        };
        Ok(Sampler {
            last: Instant::now(),
            client_cpu: client.cpu_seconds()?,
            client,
            broker,
        })
    }

    /// A broker that is gone has no figures.
    pub fn sample(&mut self) -> Sample {
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64().max(1e-3);
        self.last = now;
        let mut sample = Sample::default();
        if let Ok(cpu) = self.client.cpu_seconds() {
            sample.client_cores = (cpu - self.client_cpu) / seconds;
            self.client_cpu = cpu;
        }
        if let Some((process, before)) = &mut self.broker
            && let (Ok(cpu), Ok(memory)) = (process.cpu_seconds(), process.memory_bytes())
        {
            sample.broker_cores = Some((cpu - *before) / seconds);
            sample.broker_memory_bytes = Some(memory);
            *before = cpu;
        }
        sample
    }
}
