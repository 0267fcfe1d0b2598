//! `forebay-bench kafka`: any broker, driven by librdkafka as applications are. Closed loop, throughput and cost only: how fast
//! the client's queue can be emptied into the broker, and the log read back.

mod consume;
mod produce;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::sample::Process;

#[derive(Subcommand)]
pub enum Command {
    /// Produce as fast as the broker acknowledges
    #[command(after_help = "Example:
  forebay-bench kafka produce --topic bench --megabytes 1000 --broker-pid $(pgrep -x forebay)")]
    Produce(produce::Plan),
    /// Read a topic from its beginning to its end
    #[command(after_help = "Example:
  forebay-bench kafka consume --topic bench --broker-pid $(pgrep -x forebay)")]
    Consume(consume::Plan),
}

/// What both directions need to know.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Target {
    #[arg(long, default_value = "127.0.0.1:9092")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    /// Process of a broker on this host: its CPU time and memory are reported
    #[arg(long)]
    broker_pid: Option<u32>,
    /// Print one line of JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What a run found.
#[derive(Debug, Serialize)]
struct Outcome {
    command: &'static str,
    records: u64,
    bytes: u64,
    seconds: f64,
    bytes_per_second: f64,
    records_per_second: f64,
    client_cpu_seconds_per_gb: f64,
    broker_cpu_seconds_per_gb: Option<f64>,
    broker_memory_bytes: Option<u64>,
}

pub fn run(command: &Command) -> Result<(), String> {
    let (target, outcome) = match command {
        Command::Produce(plan) => (plan.target(), produce::run(plan)?),
        Command::Consume(plan) => (plan.target(), consume::run(plan)?),
    };
    if target.json {
        let line = serde_json::to_string(&outcome).map_err(|error| error.to_string())?;
        println!("{line}");
    } else {
        outcome.print();
    }
    Ok(())
}

impl Outcome {
    fn print(&self) {
        let broker = match self.broker_cpu_seconds_per_gb {
            Some(cpu) => format!("{cpu:.2}"),
            None => "unknown".to_string(),
        };
        println!(
            "{:<8} {:>8.1} MB/s {:>10.0} records/s  {:.1} s  CPU s/GB: broker {broker}, client {:.2}",
            self.command,
            self.bytes_per_second / 1e6,
            self.records_per_second,
            self.seconds,
            self.client_cpu_seconds_per_gb,
        );
        if let Some(bytes) = self.broker_memory_bytes {
            println!("broker memory {:.0} MB", bytes as f64 / 1e6);
        }
    }
}

/// Measures one run of either direction.
struct Meter {
    started: std::time::Instant,
    client_cpu: f64,
    broker: Option<(Process, f64)>,
}

impl Meter {
    fn start(target: &Target) -> Result<Meter, String> {
        let broker = match target.broker_pid {
            None => None,
            Some(pid) => {
                let process = Process::of(pid);
                let cpu = process.cpu_seconds()?;
                Some((process, cpu))
            }
        };
        let client_cpu = Process::of(std::process::id()).cpu_seconds()?;
        Ok(Meter {
            started: std::time::Instant::now(),
            client_cpu,
            broker,
        })
    }

    fn stop(self, command: &'static str, records: u64, bytes: u64) -> Result<Outcome, String> {
        let seconds = self.started.elapsed().as_secs_f64();
        let gigabytes = bytes as f64 / 1e9;
        let client = Process::of(std::process::id()).cpu_seconds()? - self.client_cpu;
        let (mut broker_cpu, mut broker_memory) = (None, None);
        if let Some((process, before)) = self.broker {
            broker_cpu = Some((process.cpu_seconds()? - before) / gigabytes);
            broker_memory = Some(process.memory_bytes()?);
        }
        Ok(Outcome {
            command,
            records,
            bytes,
            seconds,
            bytes_per_second: bytes as f64 / seconds,
            records_per_second: records as f64 / seconds,
            client_cpu_seconds_per_gb: client / gigabytes,
            broker_cpu_seconds_per_gb: broker_cpu,
            broker_memory_bytes: broker_memory,
        })
    }
}
