//! `forebay-bench storage`: the engine on a disk.
//!
//! Each command has a file of its own, which says what is asked and compared: `append`, `fan_in`, `mixed`, `partitions`, `read`,
//! `recovery`. It turns its
//! options into turns of its sides, round by round, and their values into figures (`measured`). What they share: the run they are parts of
//! (`session`, which hands each measurement a `probe`, and `finish`, which makes the result); the engine under test (`subject`) and the raw disk
//! it is compared with (`device`); loads (`writers`, `backlog`) and the tasks they run in (`tasks`); what is counted besides time (`counters`);
//! where files go (`folder`).

mod append;
mod backlog;
mod counters;
mod device;
mod fan_in;
mod finish;
mod folder;
mod measured;
mod mixed;
mod partitions;
mod probe;
mod read;
mod recovery;
mod session;
mod subject;
mod tasks;
mod writers;

use clap::Subcommand;

use crate::exit::Exit;

#[derive(Subcommand)]
pub enum Command {
    /// Durable appends: throughput and latency, and the ratio to the raw device at the same size and depth
    #[command(after_help = "Examples:
  forebay-bench storage append --quick
  forebay-bench storage append --size-bytes 1048576 --partitions 4
  forebay-bench storage append --size-bytes 1024 --partitions 1000 --out results/small")]
    Append(append::Plan),
    /// Many logs in one engine: what creating, keeping, opening and closing them costs, and what spreading a load over them costs
    #[command(after_help = "Examples:
  forebay-bench storage partitions --quick
  forebay-bench storage partitions --many 10000 --few 10 --out results/partitions")]
    Partitions(partitions::Plan),
    /// Small durable batches from one writer per partition, against a file per partition that is synced by itself
    #[command(after_help = "Examples:
  forebay-bench storage fan-in --quick
  forebay-bench storage fan-in --partitions 16,100,1000 --rounds 5 --out results/fan-in")]
    FanIn(fan_in::Plan),
    /// What draining a backlog and deleting old segments do to the latency of durable appends that arrive on a plan
    #[command(after_help = "Examples:
  forebay-bench storage mixed --quick
  forebay-bench storage mixed --batches-per-sec 2000 --readers 4 --out results/mixed")]
    Mixed(mixed::Plan),
    /// One reader that drains a log from the disk: throughput and costs, and the ratio to reading the same files raw; and reads from memory
    #[command(after_help = "Examples:
  forebay-bench storage read --quick
  forebay-bench storage read --sizes 65536,1048576 --depth 3 --out results/read")]
    Read(read::Plan),
    /// How long a start takes after a kill, and what it reads, against what was appended before; and the raw device reading as many bytes
    #[command(after_help = "Examples:
  forebay-bench storage recovery --quick
  forebay-bench storage recovery --dirty-mib 0,16,64,256 --log-mib 4096 --out results/recovery")]
    Recovery(recovery::Plan),
    #[command(hide = true)]
    RecoveryVictim(recovery::Victim),
}

pub use counters::Counting;

pub fn run(command: &Command) -> Result<Exit, String> {
    match command {
        Command::Append(plan) => append::run(plan),
        Command::Partitions(plan) => partitions::run(plan),
        Command::FanIn(plan) => fan_in::run(plan),
        Command::Mixed(plan) => mixed::run(plan),
        Command::Read(plan) => read::run(plan),
        Command::Recovery(plan) => recovery::run(plan),
        Command::RecoveryVictim(victim) => recovery::run_victim(victim),
    }
}
