//! `forebay-bench storage`: the engine on a disk.

mod append;
mod device;

use clap::Subcommand;

#[derive(Subcommand)]
pub enum Command {
    /// Durable appends: throughput and latency, and the ratio to the raw device at the same size and depth
    #[command(after_help = "Examples:
  forebay-bench storage append --quick
  forebay-bench storage append --size-bytes 1048576 --partitions 4
  forebay-bench storage append --size-bytes 1024 --partitions 1000 --out results/small")]
    Append(append::Plan),
}

pub fn run(command: &Command) -> Result<(), String> {
    match command {
        Command::Append(plan) => append::run(plan),
    }
}
